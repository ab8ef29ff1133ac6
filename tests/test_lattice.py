"""Lattice registration against images whose columns are known, and against the ADF twin of the real one."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from synthetic_abf import A_A, COLUMNS, synthetic_abf
from unitcell.data import DataUnavailable, open_image
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.registration.lattice import extract_windows, register


def real(name):
    try:
        return open_image(name)
    except DataUnavailable as error:
        pytest.skip(str(error))


def distances_A(table, true_px, pixel_A):
    """Distance of each true column to the nearest one of the table [Å]."""
    return cKDTree(table[["x_px", "y_px"]]).query(true_px)[0] * pixel_A


@pytest.mark.parametrize(
    ("case", "rotation_deg"),
    [
        ({}, 0.0),
        ({}, 17.0),
        ({}, 90.0),
        ({}, 133.0),
        ({"shear": 0.08}, 17.0),
        ({"drift_A": 0.25}, 17.0),
        ({"noise": 0.3}, 33.0),
        ({"shape": (118, 84)}, 0.0),  # 3 × 3 cells
        ({"shape": (165, 175), "pixel_A": 0.2}, 60.0),
    ],
)
def test_columns_found_where_they_are(case, rotation_deg):
    image, true_px = synthetic_abf(rotation_deg=rotation_deg, **{"noise": 0.1} | case)
    lattice = register(image, A_A)
    found = lattice.b_columns[lattice.b_columns.found]
    away = distances_A(found, true_px, image.pixel_size_A)
    # A neighbour one margin further out may lie on either side of the counted field: it is not a miss.
    hit = away < 0.5
    assert hit.mean() >= 0.97
    assert np.sqrt(np.mean(away[hit] ** 2)) < 0.1
    assert np.linalg.det(lattice.vectors_px) > 0
    assert abs(len(found) - len(true_px)) <= 0.03 * len(true_px)
    if not {"shear", "drift_A"} & set(case):
        assert lattice.rotation_deg == pytest.approx(rotation_deg, abs=0.5)
        assert lattice.a_A == pytest.approx(A_A, rel=0.005)


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_a_scale_error_of_ten_percent_changes_nothing(scale):
    image, true_px = synthetic_abf(rotation_deg=17, noise=0.1)
    lattice = register(image, A_A * scale)
    assert lattice.a_A == pytest.approx(A_A, rel=0.005)
    assert np.median(distances_A(lattice.b_columns, true_px, image.pixel_size_A)) < 0.05


@pytest.mark.parametrize(
    ("a_depth", "b_depth", "o_depth"), [(1.0, 0.7, 0.4), (0.6, 0.7, 0.4), (1.0, 0.7, 0.3), (0.7, 0.7, 0.2)]
)
def test_sites_told_apart_even_where_b_is_darker_than_a(a_depth, b_depth, o_depth):
    depths = {"A": a_depth, "B": b_depth, "O": o_depth}
    columns = {site: (depths[site], *rest) for site, (_, *rest) in COLUMNS.items()}
    image, true_px = synthetic_abf(rotation_deg=17, noise=0.1, columns=columns)
    lattice = register(image, A_A)
    assert np.median(distances_A(lattice.b_columns, true_px, image.pixel_size_A)) < 0.05
    assert np.median(distances_A(lattice.a_columns, true_px, image.pixel_size_A)) > 1.5


def test_missing_columns_are_flagged_and_only_they():
    image, _ = synthetic_abf(rotation_deg=17, noise=0.1, missing=0.1, seed=3)
    full, _ = synthetic_abf(rotation_deg=17, noise=0.1, seed=3)
    lost = np.abs(image.intensity - full.intensity) > 500
    b = register(image, A_A).b_columns
    x, y = (np.clip(b[c].round().astype(int), 0, None) for c in ("x_px", "y_px"))
    truly_lost = lost[np.clip(y, 0, lost.shape[0] - 1), np.clip(x, 0, lost.shape[1] - 1)]
    assert truly_lost.sum() >= 3
    assert (b.found == ~truly_lost).mean() >= 0.98


@pytest.mark.parametrize("rotation_deg", [0, 17, 90, 133])
def test_windows_keep_the_handedness(rotation_deg):
    """An extra dot at (+, +) of every B column shows up at (+, +) or (−, −), never at (+, −)."""
    columns = COLUMNS | {"extra": (0.5, 0.3, 0.25, 0.25)}
    image, _ = synthetic_abf(rotation_deg=rotation_deg, noise=0.05, columns=columns)
    windows = extract_windows(image, register(image, A_A))
    mean = np.nanmean(windows[np.isfinite(windows).all((1, 2))], axis=0)
    proper = min(mean[25, 31], mean[15, 24])
    mirrored = min(mean[25, 24], mean[15, 31])
    assert proper < mirrored - 300


def test_windows_follow_shear_and_centre_on_b():
    straight, _ = synthetic_abf(rotation_deg=0)
    sheared, _ = synthetic_abf(rotation_deg=17, shear=0.08)
    means = []
    for image in (straight, sheared):
        windows = extract_windows(image, register(image, A_A))
        assert windows.shape[1:] == (40, 56)
        assert windows.dtype == np.float32
        means.append(windows[np.isfinite(windows).all((1, 2))].mean(0))
    assert np.corrcoef(means[0].ravel(), means[1].ravel())[0, 1] > 0.99
    # The B column and its next along [110] and [001] are local minima at their nominal pixels.
    for row, col in ((20, 28), (20, 42)):
        nearby = means[1][row - 2 : row + 3, col - 2 : col + 3]
        assert np.unravel_index(nearby.argmin(), nearby.shape) == (2, 2)


def test_real_image_agrees_with_its_adf_twin():
    """Count the faint (B) columns of the ADF image by their own maxima: the ABF image shows ≥ 95 % of them."""
    image, adf = real("sto_110_abf"), real("sto_110_adf").intensity
    smooth = ndimage.gaussian_filter(adf.astype(float), 4)
    peaks = np.argwhere((smooth == ndimage.maximum_filter(smooth, 15)) & (smooth > np.percentile(smooth, 50)))
    peaks = peaks[((peaks >= 5) & (peaks < np.array(adf.shape) - 5)).all(1)]
    height = smooth[tuple(peaks.T)]
    faint = peaks[height < (height.min() + height.max()) / 2][:, ::-1]
    assert len(faint) == 104  # 8 × 13, counted by eye in the ADF image
    b = register(image, A_A).b_columns
    away = distances_A(b[b.found], faint, image.pixel_size_A)
    assert (away < 0.6).mean() >= 0.95
    assert b.found.sum() <= 1.05 * len(faint)


def test_real_windows_survive_a_rotation_by_17_degrees():
    image = real("sto_110_abf")
    before = extract_windows(image, register(image, A_A))
    turned = ndimage.rotate(image.intensity, 17, reshape=False, order=3)[60:340, 60:320]
    after = extract_windows(turned := StemImage(turned, image.pixel_size_A, "turned"), register(turned, A_A))
    first, second = (w[np.isfinite(w).all((1, 2))] for w in (before, after))
    assert len(second) >= 10
    reference = first.mean(0).ravel()
    upside = first[:, ::-1, ::-1].mean(0).ravel()  # half a turn shows the mirror branch and is allowed
    match = [max(np.corrcoef(w.ravel(), r)[0, 1] for r in (reference, upside)) for w in second]
    assert min(match) > 0.9


@pytest.mark.parametrize("scale", [0.5, 0.7, 0.8, 1.25, 1.414, 1.5, 2.0])  # at √2 a sublattice has the right size
def test_a_wrong_pixel_size_names_the_ratio(scale):
    image, _ = synthetic_abf(rotation_deg=17)
    wrong = StemImage(image.intensity, image.pixel_size_A * scale, "mine.tif")
    with pytest.raises(InputError, match=rf"mine.tif measures {scale:.2f} times .* pixel_size_A \(about 0.1"):
        register(wrong, A_A)


def test_bad_images_are_refused_in_one_sentence():
    rng = np.random.default_rng(0)
    image, _ = synthetic_abf()
    cases = {
        "bright columns": StemImage(-image.intensity, 0.1, "inverted"),
        "No projected perovskite": StemImage(rng.normal(size=(300, 300)).astype(np.float32), 0.1, "noise"),
        "fewer than 3 × 3": StemImage(image.intensity[:60, :60], 0.1, "crop"),
        "2 × [34] B columns": StemImage(image.intensity[:80, :110], 0.1, "crop"),
    }
    for words, bad in cases.items():
        with pytest.raises(InputError, match=words):
            register(bad, A_A)


def test_an_adf_image_is_refused():
    with pytest.raises(InputError, match="like an ADF image"):
        register(real("sto_110_adf"), A_A)


def test_hot_pixels_and_vacuum_do_not_move_the_lattice():
    image, true_px = synthetic_abf(rotation_deg=17, noise=0.1)
    spoilt = image.intensity.copy()
    spoilt[np.random.default_rng(0).random(spoilt.shape) < 0.003] = 60000
    spoilt[:, :120] = 3000
    b = register(StemImage(spoilt, image.pixel_size_A, "spoilt"), A_A).b_columns
    away = distances_A(b[b.found], true_px[true_px[:, 0] > 135], image.pixel_size_A)
    assert np.median(away) < 0.1
    assert not b[b.x_px < 105].found.any()


def test_columns_lost_in_noise_are_refused():
    image, _ = synthetic_abf(rotation_deg=17, noise=1.5)
    with pytest.raises(InputError, match="columns of synthetic could be located"):
        register(image, A_A)
