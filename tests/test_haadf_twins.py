"""The dark-field twins: their unit cells, their truth, their recording, and how well atoms are found in them."""

import numpy as np
import pytest
from unitcell.atoms import atom_scores, subimages
from unitcell.atoms.finding import find_atoms
from unitcell.atoms.segmenter import load_segmenter
from unitcell.errors import InputError
from unitcell.twins import darkfield
from unitcell.twins.haadf import PHASES, SOURCE_A, block, blurred, column_profiles, unit_cells
from unitcell.twins.haadf_twins import open_twin

SMALL = {"shape": (360, 360), "seed": 2}


@pytest.fixture(scope="module")
def twins():
    return {name: open_twin(name, **SMALL) for name in ("lsmo_nio", "sr3fe2o7")}


@pytest.mark.parametrize("name", PHASES)
def test_columns_rebuild_the_unit_cell_that_multislice_gave(name):
    phase, profiles, thickness = PHASES[name], column_profiles(name), 4
    image = blurred(unit_cells()[name].values[thickness], phase.cell_A, SOURCE_A)
    y, x = (np.arange(n) * a / n for n, a in zip(phase.shape, phase.cell_A[::-1], strict=True))
    kinds = list(dict.fromkeys(phase.species)) if name != "sr3fe2o7" else None
    rebuilt = np.full(image.shape, profiles.background[thickness])
    for n, site in enumerate(phase.sites):
        kind = kinds.index(phase.species[n]) if kinds else (0, 1, 1, 2, 2, 3, 4, 4, 5, 5)[n % 10]
        for shift in np.ndindex(3, 3):
            at = (np.array(site) + shift - [1, 1]) * phase.cell_A
            square = (y[:, None] - at[1]) ** 2 + (x - at[0]) ** 2
            height, tail = profiles.height[thickness, kind], profiles.tail[thickness, kind]
            for share, width in ((1 - tail, profiles.sigma_A), (tail, profiles.tail_sigma_A)):
                rebuilt += height * share * np.exp(-square / (2 * width[thickness, kind] ** 2))
    assert np.sqrt(np.mean((rebuilt - image) ** 2)) < 0.06 * image.std()


def test_another_source_blurs_the_columns_as_it_blurs_the_image():
    wide = column_profiles("nio", 0.5)
    image = blurred(unit_cells()["nio"].values[4], PHASES["nio"].cell_A, 0.5)
    square = ((np.arange(-3, 4)[:, None, None] * 4.177 / 2) ** 2 + (np.arange(-3, 4)[:, None] * 4.177 / 2) ** 2).ravel()
    peak = wide.height[4, 0] * sum(
        share * np.exp(-square / (2 * width[4, 0] ** 2)).sum()
        for share, width in ((1 - wide.tail[4, 0], wide.sigma_A), (wide.tail[4, 0], wide.tail_sigma_A))
    )
    assert peak + wide.background[4] == pytest.approx(image[0, 0], rel=0.02)


def test_blocks_are_filled_as_the_materials_are():
    lsmo = block("lsmo", 200.0, 0)
    share = (lsmo.symbols == "La").sum() / ((lsmo.symbols == "La") | (lsmo.symbols == "Sr")).sum()
    assert share == pytest.approx(0.7, abs=0.07)  # 468 atoms: three standard deviations
    sfo = block("sr3fe2o7", 200.0, 0)
    assert (sfo.symbols == "O").sum() / (sfo.symbols == "Sr").sum() == pytest.approx(6.78 / 3, rel=0.02)
    with pytest.raises(InputError, match="There is no phase 'sto'"):
        block("sto", 100.0, 0)


def test_truth_of_the_nanocomposite():
    whole = open_twin("lsmo_nio", dose=None)
    assert whole.attrs["simulated"] == 1
    assert 9000 < whole.sizes["column"] < 11000
    counts = np.bincount(whole.environment.values)
    assert 0.2 < counts[2] / counts.sum() < 0.5
    assert abs(counts[0] - counts[1]) < 0.05 * counts[0]
    far = whole.interface_A.values > 4
    height = [whole.height.values[far & (whole.environment.values == n)].mean() for n in range(3)]
    assert height[0] > 1.5 * height[1]
    turn = whole.angle_rad.values[whole.environment.values == 2]
    assert 0 < np.abs(turn).max() < np.radians(4)
    assert set(whole.symmetry.values) == {4}


def test_truth_of_the_wedge(twins):
    twin = twins["sr3fe2o7"]
    assert set(twin.environment.values) == {0, 1, 2, 3, 4}
    upper, lower = (twin.angle_rad.values[twin.environment.values == n] for n in (1, 2))
    assert np.unique(upper).round(6).tolist() == [round(-np.pi / 2, 6)]
    assert np.unique(lower).round(6).tolist() == [round(np.pi / 2, 6)]
    slope = np.polyfit(twin.x_px.values, twin.thickness_A.values, 1)[0]
    assert slope * 360 == pytest.approx(180, abs=2)
    middle = twin.environment.values == 0
    correlation = np.corrcoef(twin.height.values[middle], twin.thickness_A.values[middle])[0, 1]
    assert correlation > 0.95


def test_a_rotated_twin_turns_places_and_angles():
    still = {"drift_A": (0, 0), "jitter_A": 0.0, "flyback_A": 0.0, "disorder_A": 0.0, "dose": None, **SMALL}
    upright, turned = (open_twin("sr3fe2o7", rotation_deg=angle, **still) for angle in (0.0, 30.0))
    before = np.column_stack([upright.x_px, upright.y_px]) - 179.5
    after = np.column_stack([turned.x_px, turned.y_px]) - 179.5
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = before @ np.array([[c, -s], [s, c]])  # counter-clockwise as seen, y down
    inner = np.hypot(*expected.T) < 150
    gap = np.hypot(*(expected[inner][:, None] - after[None]).transpose(2, 0, 1))
    assert gap.min(axis=1).max() < 0.02
    assert turned.angle_rad.values[gap.argmin(axis=1)] == pytest.approx(
        upright.angle_rad.values[inner] + np.pi / 6, abs=1e-6
    )


def test_places_are_where_the_distorted_image_has_its_peaks():
    twin = open_twin("lsmo_nio", dose=None, jitter_A=0.0, disorder_A=0.0, flyback_A=1.5, drift_A=(4.0, -3.0), **SMALL)
    image = twin.image.values
    chosen = np.flatnonzero((twin.species.values == "A") & (twin.interface_A.values > 4))
    error = []
    for x, y in np.column_stack([twin.x_px, twin.y_px])[chosen]:
        if 5 < x < 354 and 5 < y < 354:
            c, r = round(x), round(y)
            part = image[r - 3 : r + 4, c - 3 : c + 4] - image[r - 3 : r + 4, c - 3 : c + 4].min()
            v, u = np.mgrid[-3:4, -3:4]
            error.append((c + (u * part**2).sum() / (part**2).sum() - x, r + (v * part**2).sum() / (part**2).sum() - y))
    assert np.abs(np.mean(error, axis=0)).max() < 0.05
    assert np.abs(error).max() < 0.4


def test_the_bound_is_that_of_a_lonely_gaussian():
    """For a Gaussian of N counts without background the Fisher information is N / σ²."""
    sigma, pixel, total = 0.5, 0.1, 1e4
    height = total * pixel**2 / (2 * np.pi * sigma**2)
    v, u = np.mgrid[:141, :141]
    expected = height * np.exp(-((u - 70.2) ** 2 + (v - 69.7) ** 2) * pixel**2 / (2 * sigma**2))
    twin = open_twin("lsmo_nio", shape=(60, 60)).isel(column=[0])
    twin = twin.assign(x_px=("column", [70.2]), y_px=("column", [69.7]), height=("column", [height]))
    twin = twin.assign(sigma_A=("column", [sigma]), tail_sigma_A=("column", [1.0]), tail=("column", [0.0]))
    twin.attrs["pixel_size_A"] = pixel
    assert atom_scores.joint_bounds(twin, expected, [0])[0] == pytest.approx(sigma / np.sqrt(total), rel=0.01)


def test_doses_scale_counts_and_bounds(twins):
    few = open_twin("sr3fe2o7", dose=1e4, **SMALL)
    assert float(few.image.sum() / twins["sr3fe2o7"].image.sum()) == pytest.approx(0.1, rel=0.01)
    assert float(few.bound_A.mean() / twins["sr3fe2o7"].bound_A.mean()) == pytest.approx(np.sqrt(10), rel=1e-3)


@pytest.mark.parametrize(("name", "f1"), [("lsmo_nio", 0.995), ("sr3fe2o7", 0.99)])
def test_atoms_of_the_twins_are_found(twins, name, f1):
    twin = twins[name]
    found, _ = find_atoms(atom_scores.twin_image(twin), load_segmenter())
    table = atom_scores.scores(found, twin, open_twin(name, dose=None, **SMALL).image.values, sample=30)
    assert table.f1.min() >= f1
    assert (table.ratio.drop("all") < 1.9).all()
    assert (table.rms_A < 0.02).all()


def test_truth_travels_with_the_patches(twins):
    twin = twins["lsmo_nio"]
    found, probability = find_atoms(atom_scores.twin_image(twin), load_segmenter())
    extra = found.iloc[[0]].assign(x_px=-50.0, y_px=-50.0)
    known = subimages.with_truth(found, twin)
    lost = subimages.with_truth(extra, twin)
    assert lost.true_environment.tolist() == [-1]
    assert lost.true_angle_rad.isna().all()
    assert (known.true_environment >= 0).mean() > 0.99
    assert np.hypot(known.true_x_px - known.x_px, known.true_y_px - known.y_px).median() < 0.2
    data = subimages.cut_patches(atom_scores.twin_image(twin), known, probability, window_px=36)
    assert {"true_environment", "true_angle_rad", "true_thickness_A", "true_symmetry"} <= set(data.coords)
    assert data.attrs["simulated"] == 1


def test_twins_open_by_name():
    path, image, twin = darkfield.open_dark_field("twin:lsmo_nio", 0.4)
    assert path is None
    assert image.simulated
    assert image.pixel_size_A == 0.4
    assert twin.attrs["twin"] == "lsmo_nio"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "sto"}, "There is no twin 'sto'"),
        ({"name": "sr3fe2o7", "thickness_A": (10.0, 100.0)}, "was not simulated"),
        ({"name": "lsmo_nio", "disorder_A": -1.0}, "disorder_A = -1.0 cannot be"),
        ({"name": "lsmo_nio", "source_A": 0.0}, "source_A = 0.0 Å cannot be"),
        ({"name": "lsmo_nio", "jitter_A": -1.0}, "jitter_A = -1 cannot be"),
    ],
)
def test_impossible_twins_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        open_twin(shape=(100, 100), **given)
