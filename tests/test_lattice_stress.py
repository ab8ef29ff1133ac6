"""Lattice registration of images as people bring them: interfaces, drift, dose, any size, the real image changed."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from synthetic_abf import A_A, COLUMNS, Interface, synthetic_abf
from unitcell.data import DataUnavailable, open_image
from unitcell.micrographs.images import StemImage
from unitcell.registration.lattice import extract_windows, iter_windows, register


def perovskite(a, b, o):
    """`COLUMNS` with other darkness."""
    return {site: (depth, *COLUMNS[site][1:]) for site, depth in zip("ABO", (a, b, o), strict=True)}


def compared(image, truth, lattice):
    """Per site: rms distance [Å] of found columns to their truth, fraction found, and fraction of lost ones flagged."""
    result = {}
    for site, table in (("A", lattice.a_columns), ("B", lattice.b_columns)):
        true_px = truth.loc[truth.site == site, ["x_A", "y_A"]].to_numpy() / image.pixel_size_A
        edge = 0.6 / image.pixel_size_A
        seen = ((true_px > edge) & (true_px < np.array(image.intensity.shape[::-1]) - 1 - edge)).all(1)
        present = truth.loc[truth.site == site, "present"].to_numpy()[seen]
        away, nearest = cKDTree(table[["x_px", "y_px"]]).query(true_px[seen])
        near, found = away * image.pixel_size_A < 1.0, table.found.to_numpy()[nearest]
        good = near & found & present
        result[site] = {
            "rms_A": np.sqrt(np.mean(away[good] ** 2)) * image.pixel_size_A,
            "found": (near & found)[present].mean(),
            "flagged": (near & ~found)[~present].mean() if (~present).any() else 1.0,
            "pulled_A": np.sqrt(np.mean(away[~present] ** 2)) * image.pixel_size_A if (~present).any() else 0.0,
        }
    return result


def assert_registered(image, truth, expected_A, within_A=0.1):
    """Both sites found where they are and not exchanged, lost columns flagged; returns the lattice."""
    lattice = register(image, expected_A)
    for site, values in compared(image, truth, lattice).items():
        assert values["found"] >= 0.97, site
        assert values["rms_A"] < within_A, site
        assert values["flagged"] >= 0.9, site
        # A lost column is put where the affine fit has it, which the curvature of the drift moves.
        assert values["pulled_A"] < 0.15, site
    return lattice


A_LIGHT, B_LIGHT = perovskite(0.5, 1.0, 0.35), perovskite(1.0, 0.4, 0.4)
ANTIPOLAR = {"A": (0.1, 0.0, (0, 1))}
TITANATE = {"A": (0.05, 0.0, (0, 1)), "O": (0.0, 0.06, (1, 1))}


@pytest.mark.parametrize(
    ("first", "interface", "rotation_deg"),
    [
        (COLUMNS, Interface(perovskite(0.6, 0.7, 0.4), "001", 0.3, period=8), 17.0),  # a superlattice
        (COLUMNS, Interface(A_LIGHT, "001", 0.3, strain=0.03), 127.0),
        (COLUMNS, Interface(A_LIGHT, "110", 0.3, width=2.0), 62.0),
        (B_LIGHT, Interface(A_LIGHT, "001", -0.2), 7.0),  # odd waves change sign across it
        (B_LIGHT, Interface(A_LIGHT, "110", 0.3, strain=-0.03, shifts=ANTIPOLAR), 151.0),
        (COLUMNS, Interface(perovskite(0.8, 0.75, 0.4), "001", 0.0, strain=-0.013, shifts=TITANATE), 93.0),
    ],
)
def test_one_lattice_across_an_interface(first, interface, rotation_deg):
    image, truth = synthetic_abf(
        (300, 310), 0.2, rotation_deg, dose=5e4, drift_A=0.3, missing=0.02, columns=first, interface=interface,
        all_columns=True,
    )  # fmt: skip
    assert_registered(image, truth, 1.04 * A_A)


@pytest.mark.parametrize("seed", range(8))
def test_any_rotation_scale_shear_drift_and_dose(seed):
    rng = np.random.default_rng(seed)
    pixel_A, dose = rng.uniform(0.1, 0.25), 10 ** rng.uniform(4.0, 5.0)
    image, truth = synthetic_abf(
        (round(45 / pixel_A), round(50 / pixel_A)), pixel_A, rng.uniform(0, 180), dose=dose, seed=seed, missing=0.02,
        shear=rng.uniform(-0.08, 0.08), drift_A=rng.uniform(0, 0.3), jitter_A=0.08,
        all_columns=True,
    )  # fmt: skip
    assert_registered(image, truth, A_A * rng.uniform(0.9, 1.1))


@pytest.mark.parametrize(
    ("shifts", "rotation_deg"),
    [(ANTIPOLAR, 21.0), ({"A": (0.0, 0.1, (1, 0))}, 153.0), ({"A": (0.07, 0.07, (1, 1))}, 80.0)],
)
def test_antipolar_shifts_are_followed_and_make_no_larger_lattice(shifts, rotation_deg):
    image, truth = synthetic_abf((289, 318), 0.2, rotation_deg, dose=5e4, shifts=shifts, all_columns=True)
    assert register(image, 0.96 * A_A).a_A == pytest.approx(A_A, rel=0.005)
    assert_registered(image, truth, 0.96 * A_A, within_A=0.06)


@pytest.mark.parametrize(("cells", "pixel_A"), [(3, 0.08), (3, 0.2), (5, 0.25), (5, 0.1)])
def test_small_fields(cells, pixel_A):
    field = np.array([cells, cells / np.sqrt(2)]) * A_A + 1.5
    for rotation_deg in (0.0, 90.0):
        shape = np.round((field if rotation_deg == 0 else field[::-1]) / pixel_A).astype(int)
        image, truth = synthetic_abf(shape, pixel_A, rotation_deg, dose=5e4, all_columns=True)
        lattice = assert_registered(image, truth, 1.05 * A_A)
        assert min(lattice.b_columns.row.nunique(), lattice.b_columns.col.nunique()) >= cells


def test_200_by_200_cells_in_little_memory():
    shape = np.round(200 * A_A * np.array([1, np.sqrt(0.5)]) / 0.25).astype(int)
    image, truth = synthetic_abf(shape, 0.25, dose=5e4, drift_A=0.5, missing=0.02, all_columns=True)
    tracemalloc.start()
    lattice = assert_registered(image, truth, 0.95 * A_A)
    whole = sum(np.isfinite(part[:, 0, 0]).sum() for part in iter_windows(image, lattice, chunk=2000))
    peak_GB = tracemalloc.get_traced_memory()[1] / 1e9
    tracemalloc.stop()
    assert peak_GB < 1.0
    assert len(lattice.b_columns) == pytest.approx(40_000, rel=0.01)
    assert whole == pytest.approx(198 * 196, rel=0.02)


def test_windows_in_chunks_are_the_windows():
    image, _ = synthetic_abf((200, 210), 0.15, 17.0, dose=5e4)
    lattice = register(image, A_A)
    parts = list(iter_windows(image, lattice, chunk=37))
    assert max(map(len, parts)) == 37
    np.testing.assert_array_equal(np.concatenate(parts), extract_windows(image, lattice))


def test_registration_repeats_exactly():
    image, _ = synthetic_abf((200, 210), 0.15, 17.0, dose=5e4)
    first, second = register(image, A_A), register(image, A_A)
    np.testing.assert_array_equal(first.b_columns.to_numpy(float), second.b_columns.to_numpy(float))
    np.testing.assert_array_equal(first.cells_px, second.cells_px)


def turned(image):
    """The image turned by 17°, without its corners, and where each of its points was (x, y) [px]."""
    top, left, height, width = 60, 60, 280, 260
    pixels = ndimage.rotate(image, 17, reshape=False, order=3)[top : top + height, left : left + width]
    middle, angle = (np.array(image.shape[::-1]) - 1) / 2, np.radians(17)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return pixels, 1.0, lambda xy: (xy + np.array([left, top]) - middle) @ back + middle


def rescaled(image, scale):
    """The image with `scale` times as many pixels along each edge."""
    shape = np.round(np.array(image.shape) * scale).astype(int)
    y, x = np.mgrid[: shape[0], : shape[1]] / scale
    smooth = ndimage.gaussian_filter(image, 0.4 * max(1 / scale - 1, 0))
    return ndimage.map_coordinates(smooth, [y, x], order=3, mode="nearest"), 1 / scale, lambda xy: xy / scale


@pytest.mark.parametrize(
    "change",
    [turned, lambda image: rescaled(image, 0.8), lambda image: rescaled(image, 1.25),
     lambda image: (image[37:330, 52:], 1.0, lambda xy: xy + np.array([52, 37]))],
    ids=["turned by 17°", "0.8", "1.25", "crop"],
)  # fmt: skip
def test_real_columns_stay_where_they_are(change):
    try:
        image = open_image("sto_110_abf")
    except DataUnavailable as error:
        pytest.skip(str(error))
    pixels, pixel_scale, back = change(image.intensity.astype(float))
    other = StemImage(pixels.astype(np.float32), image.pixel_size_A * pixel_scale, "changed")
    before, after = register(image, A_A), register(other, A_A)
    for name in ("b_columns", "a_columns"):
        tables = (getattr(lattice, name) for lattice in (before, after))
        first, second = (table.loc[table.found, ["x_px", "y_px"]].to_numpy() for table in tables)
        away = cKDTree(first).query(back(second))[0] * image.pixel_size_A
        assert len(second) >= 35
        assert (away < 0.5).mean() >= 0.97
        assert np.sqrt(np.mean(away[away < 0.5] ** 2)) < 0.1
    assert after.a_A == pytest.approx(before.a_A, rel=0.005)
