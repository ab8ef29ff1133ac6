"""Finding atoms, against simulated columns and hand-made geometry; bad inputs."""

import numpy as np
import pandas as pd
import pytest
from unitcell.atoms import atom_maps, finding, subimages
from unitcell.atoms.refinement import refine_columns
from unitcell.atoms.segmenter import load_segmenter
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.twins import darkfield


@pytest.fixture(scope="module")
def predictor():
    return load_segmenter()


@pytest.fixture(scope="module")
def twin():
    return darkfield.doubled_perovskite((320, 320), seed=3)


@pytest.fixture(scope="module")
def found(twin, predictor):
    return finding.find_atoms(twin[0], predictor, a_spacing_A=3.85)


def places(truth, margin, size):
    """True columns at least `margin` [px] from the edges."""
    at = np.column_stack([truth["x_px"], truth["y_px"]])
    inside = ((at > margin) & (at < size - margin)).all(1)
    return at[inside], truth["species"][inside]


def test_finds_the_columns_of_a_simulated_image(twin, found):
    at, species = places(twin[1], 10, 320)
    table, probability = found
    pairs = finding.matched(table[["x_px", "y_px"]], at, 6)
    assert len(pairs) >= 0.98 * len(at)
    assert (table.species.to_numpy()[pairs[:, 0]] == species[pairs[:, 1]]).mean() >= 0.98
    error = table[["x_px", "y_px"]].to_numpy()[pairs[:, 0]] - at[pairs[:, 1]]
    assert np.sqrt((error**2).mean()) < 0.6  # px, 0.05 Å
    assert np.abs(error.mean(0)).max() < 0.15  # px: no offset from resampling
    assert len(table) <= 1.02 * len(places(twin[1], -1, 320)[0])
    assert probability.shape == twin[0].intensity.shape
    assert table.probability.between(0.5, 1).all()


def test_finds_the_columns_at_another_magnification(predictor):
    image, truth = darkfield.doubled_perovskite((256, 256), 0.13, seed=4)
    at, _ = places(truth, 10, 256)
    table, _ = finding.find_atoms(image, predictor)
    assert len(finding.matched(table[["x_px", "y_px"]], at, 5)) >= 0.97 * len(at)


def test_refinement_takes_bright_neighbours_away():
    spots = darkfield.Columns(
        np.array([20.37, 30.6, 20.1]), np.array([22.81, 22.2, 34.4]), np.array([0.3, 1.0, 1.0]), np.full(3, 2.2)
    )
    image = (100 + 400 * darkfield.render(spots, (56, 52), tail=0.15)).astype(np.float32)
    x, y, height, sigma = refine_columns(image, spots.x + np.array([0.8, -0.6, 0.5]), spots.y - 0.6)
    np.testing.assert_allclose(np.column_stack([x, y]), np.column_stack([spots.x, spots.y]), atol=0.02)
    np.testing.assert_allclose(sigma, 2.2, atol=0.1)
    np.testing.assert_allclose(height, 400 * spots.height, rtol=0.05)


def test_refinement_keeps_a_guess_where_there_is_no_column():
    image = np.random.default_rng(0).poisson(50.0, (60, 60)).astype(np.float32)
    guess = np.array([15.0, 40.0]), np.array([15.0, 40.0])
    x, y, height, _ = refine_columns(image, *guess)
    assert np.hypot(x - guess[0], y - guess[1]).max() < 0.36 * np.hypot(25, 25)
    assert np.isfinite(x).all()
    assert len(height) == 2


def test_refinement_keeps_the_zigzag_of_a_real_image(predictor):
    _, image, _ = darkfield.open_dark_field(None, None, 0)
    sizes = []
    for refine in (False, True):  # centres of mass know nothing of the shapes of peaks or of the ground between them
        table = finding.find_atoms(image, predictor, refine=refine, a_spacing_A=3.95)[0]
        spots = table[table.species == "A"][["x_px", "y_px"]].to_numpy()
        sizes.append(np.nanmedian(np.abs(finding.zigzag(spots))) * image.pixel_size_A)
    assert sizes[1] == pytest.approx(sizes[0], abs=0.02)


def test_species_of_one_and_of_two_kinds():
    rng = np.random.default_rng(0)
    dim, bright = rng.normal(0.3, 0.03, 40), rng.normal(0.8, 0.03, 50)
    assert "".join(finding.assign_species(np.append(dim, bright))) == "B" * 40 + "A" * 50
    assert set(finding.assign_species(bright)) == {"A"}


def test_counted_grid_and_matching():
    grid = finding.counted_grid([[0, 0], [20, 2], [1, 30], [21, 32]], 3, 4)
    assert grid.shape == (4, 3, 2)
    assert grid[0, 1].tolist() == [10, 1]
    assert grid[3, 2].tolist() == [21, 32]
    pairs = finding.matched([[0, 0], [1, 0], [50, 50]], [[0.4, 0], [2, 0]], 1.5)
    assert {tuple(map(int, pair)) for pair in pairs} == {(0, 0), (1, 1)}


def test_recall_and_precision():
    truth = finding.counted_grid([[10, 10], [30, 10], [10, 30], [30, 30]], 3, 3)
    at = np.vstack([truth.reshape(-1, 2)[1:], [[15.0, 15.0], [100.0, 100.0]]])  # one missed, one spurious, one outside
    recall, precision = finding.recall_and_precision(pd.DataFrame(at, columns=["x_px", "y_px"]), truth, 2)
    assert recall == pytest.approx(8 / 9)
    assert precision == pytest.approx(8 / 9)


def test_zigzag_of_a_known_lattice():
    j, i = np.mgrid[:6, :6]
    y = 10 * j + np.where(i % 2, 1.5, -1.5)
    shift = finding.zigzag(np.column_stack([10.0 * i.ravel(), y.ravel()])).reshape(6, 6)
    assert np.isnan(shift[:, 0]).all()
    np.testing.assert_allclose(shift[:, 1:5], np.where(i % 2, 3.0, -3.0)[:, 1:5])


def test_patches_are_centred_binned_and_scaled(twin, found):
    table, probability = found
    data = subimages.cut_patches(twin[0], table, probability, window_px=64, binning=2)
    assert data.patch.shape[1:] == (32, 32)
    assert float(data.patch.min()) >= 0
    assert float(data.patch.max()) <= 1
    a_mean = data.patch.values[data.species.values == "A"].mean(0)
    y, x = np.unravel_index(a_mean.argmax(), a_mean.shape)
    assert {int(x), int(y)} <= {15, 16}  # the two pixels either side of the centre
    n = int(np.argmin(np.hypot(table.x_px - 160, table.y_px - 160)))
    corner = [int(np.floor(v - 32 + 1)) for v in (table.x_px[n], table.y_px[n])]
    scaled = np.clip(twin[0].normalised(), 0, 1)
    block = scaled[corner[1] : corner[1] + 2, corner[0] : corner[0] + 2].mean()
    row = int(np.argmin(np.hypot(data.x_px.values - table.x_px[n], data.y_px.values - table.y_px[n])))
    assert float(data.patch[row, 0, 0]) == pytest.approx(block, abs=1e-6)
    segmented = subimages.cut_patches(twin[0], table, probability, window_px=64, binning=2, representation="segmented")
    assert float(segmented.patch[:, 15:17, 15:17].mean()) > 0.8


def test_pixel_size_wrong_by_two(twin, predictor):
    wrong = StemImage(twin[0].intensity, 2 * twin[0].pixel_size_A, "twice.png")
    with pytest.raises(InputError, match="pixel_size_A"):
        finding.find_atoms(wrong, predictor, a_spacing_A=3.85)


def test_no_atoms(predictor):
    flat = StemImage(np.linspace(0, 1, 128, dtype=np.float32) * np.ones((128, 1), np.float32), 0.1, "ramp.png")
    with pytest.raises(InputError, match=r"atoms were found in ramp.png at pixel_size_A = 0.1"):
        finding.find_atoms(flat, predictor)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"window_px": 400}, "window_px = 400 is larger"),
        ({"window_px": 50, "binning": 4}, "multiple of binning"),
        ({"window_px": 316}, "No atom"),
        ({"window_px": 64, "representation": "smooth"}, "'raw', 'smoothed' or 'segmented'"),
        ({}, "Give the window's size once"),
        ({"window_px": 64, "window_A": 5.0}, "Give the window's size once"),
        ({"window_A": float("nan")}, "window_A = nan is no length"),
    ],
)
def test_bad_windows(twin, found, given, words):
    with pytest.raises(InputError, match=words):
        subimages.cut_patches(twin[0], *found, **given)


def test_window_in_angstrom_and_packing(twin, found, tmp_path):
    table, probability = found
    data = subimages.cut_patches(twin[0], table, probability, window_A=5.0, binning=2, representation="smoothed")
    assert data.window_px == 64
    assert data.patch.dtype == np.float32
    subimages.save_patches(data, tmp_path / "patches.nc")
    back = atom_maps.load_patches(tmp_path / "patches.nc")
    assert back.patch.dtype == np.float32
    np.testing.assert_allclose(back.patch, data.patch, atol=1e-5)
    assert back.species.values.tolist() == data.species.values.tolist()
    with pytest.raises(InputError, match="The segmentation has shape"):
        subimages.cut_patches(twin[0], table, probability[:-1], window_px=64, binning=2, representation="segmented")


@pytest.mark.parametrize("threshold", [0.0, 1.0, float("nan")])
def test_a_threshold_that_is_no_probability(twin, predictor, threshold):
    with pytest.raises(InputError, match="is no probability"):
        finding.find_atoms(twin[0], predictor, threshold=threshold)


def test_training_examples_are_scaled_and_have_columns():
    image, mask = darkfield.training_example(np.random.default_rng(1))
    assert image.shape == mask.shape == (96, 96)
    assert (image.min(), image.max()) == (0, 1)
    assert image[mask > 0].mean() > image[mask == 0].mean()


def test_the_picture_to_explore_lies_under_its_atoms():
    """A bright column near the top stays there: its dot and the brightest pixel beneath are at one place."""
    hv = pytest.importorskip("holoviews")
    hv.extension("bokeh")
    down, right = np.mgrid[:300, :400]
    image = np.exp(-((right - 90) ** 2 + (down - 40) ** 2) / (2 * 8**2))
    atoms = pd.DataFrame({"x_px": [350.0, 90.0], "y_px": [200.0, 40.0], "species": ["B", "A"], "probability": 1.0})
    plot = atom_maps.explorer(atoms, image.shape, "species", atom_maps.SPECIES_COLOURS, ["probability"], image)
    picture, bright, dim = plot
    top = picture.dframe().sort_values(picture.vdims[0].name).iloc[-1]
    assert (top.x_px, top.up_px) == pytest.approx((bright["x_px"][0], bright["up_px"][0]), abs=2)
    assert bright["up_px"][0] == pytest.approx(259.5)
    colours = {dots.label: dots.opts.get("style").kwargs["color"] for dots in (bright, dim)}
    assert colours == atom_maps.SPECIES_COLOURS  # whichever comes first in the table
    frame = plot.opts.get("plot").kwargs
    assert frame["frame_width"] / frame["frame_height"] == pytest.approx(400 / 300, abs=0.01)
