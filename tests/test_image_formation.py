"""Recording a simulated image: sampling, source, distortions, electrons, detector and refusals, in numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from unitcell.errors import InputError
from unitcell.micrographs.image_formation import Recorded, Recording, record_image

SPACING = (0.19, 0.2)  # of the cell's 28 × 40 pixels, along x and y [Å]
PERIOD = (28 * 0.19, 40 * 0.2)
TURN = np.array([[math.cos(0.1), -math.sin(0.1)], [math.sin(0.1), math.cos(0.1)]])


def wave(x, y):
    """A band-limited cell of a few orders, between 0.2 and 0.8."""
    x, y = 2 * np.pi * x / PERIOD[0], 2 * np.pi * y / PERIOD[1]
    return 0.5 + 0.15 * np.cos(3 * x - 5 * y + 0.3) + 0.1 * np.sin(7 * y) + 0.05 * np.cos(11 * x + 13 * y)


def columns(at=(2.0, 3.0), sigma=0.35):
    """A cell (40, 28) with one Gaussian column at `at` [Å]."""
    x, y = (np.arange(n) * d - c for n, d, c in zip((28, 40), SPACING, at, strict=True))
    x, y = (v - p * np.round(v / p) for v, p in zip((x, y), PERIOD, strict=True))
    return 0.1 + 0.7 * np.exp(-(y**2) / (2 * sigma**2))[:, None] * np.exp(-(x**2) / (2 * sigma**2))


def grid():
    return np.meshgrid(np.arange(28) * SPACING[0], np.arange(40) * SPACING[1])


def record(recording, shape=(30, 50), cell=None, **options):
    return record_image(wave(*grid()) if cell is None else cell, SPACING, recording, shape, **options)


def shown(recorded):
    """The band-limited cell where each pixel says that it looks."""
    return wave(recorded.positions[..., 0].numpy(), recorded.positions[..., 1].numpy())


def centre_of_mass(image):
    """(x, y) [px] of what stands above the background of 0.1."""
    weight = (image - 0.1).clamp_min(0) ** 2
    y, x = torch.meshgrid(*(torch.arange(n, dtype=image.dtype) for n in image.shape), indexing="ij")
    return [float((weight * v).sum() / weight.sum()) for v in (x, y)]


EVERYTHING = Recording(
    0.13, affine=TURN, magnification_error=0.03, drift_A=(0.4, -0.7), jitter_A=0.1, flyback_A=0.5, centre_A=(1.0, -40.0)
)


@pytest.mark.parametrize("recording", [Recording(0.07), EVERYTHING])
def test_resampling_of_a_band_limited_cell_is_exact(recording):
    recorded = record(recording, dtype=torch.float64)
    assert recorded.image.numpy() == pytest.approx(shown(recorded), abs=1e-6)
    single = record(recording)
    assert single.image.dtype == torch.float32
    assert single.image.numpy() == pytest.approx(shown(single), abs=2e-5)


@pytest.mark.parametrize("size", [(40, 28), (39, 28), (40, 27), (1, 28)])
@pytest.mark.parametrize("periodic", [True, False])
def test_the_same_grid_gives_the_same_pixels(size, periodic):
    image = np.random.default_rng(0).random(size)
    recorded = record_image(image, (0.2, 0.2), Recording(0.2), size, periodic=periodic, dtype=torch.float64)
    assert recorded.image.numpy() == pytest.approx(image, abs=1e-10)


def test_an_image_without_period_is_interpolated_within_its_edges():
    y, x = np.mgrid[:60, :50] * 0.2
    image = np.exp(-((x - 4) ** 2 + (y - 7) ** 2) / (2 * 0.6**2))
    recorded = record_image(image, (0.2, 0.2), Recording(0.11), (100, 80), periodic=False, dtype=torch.float64)
    x, y = recorded.positions.numpy().transpose(2, 0, 1)
    expected = np.exp(-((x - 4) ** 2 + (y - 7) ** 2) / (2 * 0.6**2))
    assert recorded.image.numpy() == pytest.approx(expected, abs=1e-5)


def test_round_source_damps_a_fourier_component_as_a_gaussian():
    cell = 0.5 + 0.3 * np.cos(2 * np.pi * 4 * grid()[0] / PERIOD[0])
    recorded = record(Recording(0.07, source_fwhm_A=0.8), cell=cell, dtype=torch.float64)
    q = 4 / PERIOD[0]
    damping = math.exp(-((math.pi * q * 0.8) ** 2) / (4 * math.log(2)))  # from the FWHM, not by way of σ
    expected = 0.5 + 0.3 * damping * np.cos(2 * np.pi * q * recorded.positions[..., 0].numpy())
    assert recorded.image.numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("angle", "fwhm"), [(0.0, 0.6 * math.sqrt(2)), (90.0, 0.6 / math.sqrt(2))])
def test_elliptical_source_damps_along_its_axes(angle, fwhm):
    cell = 0.5 + 0.3 * np.cos(2 * np.pi * 4 * grid()[0] / PERIOD[0])
    ellipse = Recording(0.1, source_fwhm_A=0.6, source_ellipticity=2.0, source_angle_deg=angle)
    one, other = (
        record(r, cell=cell, dtype=torch.float64).image for r in (ellipse, Recording(0.1, source_fwhm_A=fwhm))
    )
    assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize(
    "affine", [TURN, [[1.0, 0.3], [0.0, 1.0]], [[1.2, 0.0], [0.0, 0.9]], [[-1.0, 0.0], [0.0, 1.0]]]
)
def test_affine_moves_a_column_where_the_matrix_says(affine):
    offset = np.array([0.9, 0.6])
    recording = Recording(0.1, affine=affine, magnification_error=0.04, centre_A=(2.0, 3.0) - offset)
    recorded = record(recording, (61, 61), columns(), dtype=torch.float64)
    expected = 30 + 1.04 * np.array(affine) @ offset / 0.1
    assert centre_of_mass(recorded.image) == pytest.approx(expected, abs=0.02)
    assert recorded.pixels_of([[2.0, 3.0]])[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_a_larger_image_shows_less_of_the_specimen():
    recorded = record(Recording(0.1, magnification_error=0.25), (11, 11), dtype=torch.float64)
    assert float(recorded.positions[0, 10, 0] - recorded.positions[0, 0, 0]) == pytest.approx(10 * 0.1 / 1.25)


def test_drift_displaces_the_end_of_the_frame_against_its_start():
    still, moved = (record(Recording(drift_A=d), (200, 100), dtype=torch.float64) for d in ((0, 0), (1.5, -0.8)))
    displacement = still.positions - moved.positions
    assert (displacement[-1, -1] - displacement[0, 0]).numpy() == pytest.approx([1.5, -0.8], rel=1e-4)
    assert displacement.mean((0, 1)).numpy() == pytest.approx([0, 0], abs=1e-12)
    line = (displacement[50, 0] - displacement[49, 0]).numpy()
    assert line == pytest.approx([1.5 / 200, -0.8 / 200])


def test_drift_moves_the_column_that_is_scanned_late():
    cell = columns((2.0, 7.0))
    still, moved = (record(Recording(drift_A=d), (80, 50), cell, dtype=torch.float64) for d in ((0, 0), (0.6, 0.0)))
    here, there = (centre_of_mass(r.image) for r in (still, moved))
    row = there[1]
    assert there[0] - here[0] == pytest.approx(6 * (row / 80 - 0.5), abs=0.1)


def test_jitter_has_its_rms_in_each_line_and_direction():
    still, moved = (record(Recording(jitter_A=j), (4000, 2), dtype=torch.float64, seed=3) for j in (0.0, 0.08))
    displacement = still.positions - moved.positions
    assert torch.allclose(displacement[:, 0], displacement[:, 1], atol=1e-9)
    assert displacement[:, 0].std(0).numpy() == pytest.approx([0.08, 0.08], rel=0.05)
    assert displacement[:, 0].mean(0).numpy() == pytest.approx([0, 0], abs=0.005)
    neighbours = torch.corrcoef(torch.stack([displacement[1:, 0, 0], displacement[:-1, 0, 0]]))[0, 1]
    assert abs(float(neighbours)) < 0.05


def test_flyback_settles_exponentially_to_the_left():
    still, moved = (record(Recording(flyback_A=f, flyback_px=8.0), (5, 60), dtype=torch.float64) for f in (0.0, 0.5))
    displacement = (still.positions - moved.positions).numpy()
    expected = -0.5 * np.exp(-np.arange(60) / 8.0)
    assert displacement[..., 0] == pytest.approx(np.tile(expected, (5, 1)), abs=1e-12)
    assert displacement[..., 1] == pytest.approx(0.0, abs=1e-12)


def test_columns_are_found_where_their_pixels_look():
    cells = np.stack([columns()] * 3)
    recorded = record(replace(EVERYTHING, jitter_A=0.0), (60, 70), cells, dtype=torch.float64)
    rows, places = torch.tensor([3, 30, 59]), torch.tensor([2, 69, 40])
    found = recorded.pixels_of(recorded.positions[0, rows, places])
    assert found.shape == (3, 3, 2)
    assert found[2].numpy() == pytest.approx(torch.stack([places, rows], -1).numpy(), abs=1e-6)


def test_columns_are_found_in_images_of_more_pixels_than_single_precision_counts():
    rows, columns = 6000, 3000  # more than 2²⁴
    y, x = torch.meshgrid(torch.arange(rows) - (rows - 1) / 2, torch.arange(columns) - (columns - 1) / 2, indexing="ij")
    recorded = Recorded(x, torch.stack([x, y], -1), Recording(pixel_size_A=1.0, centre_A=(0.0, 0.0)))
    found = recorded.pixels_of(recorded.positions[5998, [2997, 2998]])
    np.testing.assert_allclose(found, [[2997, 5998], [2998, 5998]], atol=1e-3)


def test_columns_are_found_to_the_jitter():
    points = np.random.default_rng(0).uniform((-1.0, -41.5), (3.0, -38.5), (50, 2))
    recorded = record(replace(EVERYTHING, jitter_A=0.03), (60, 70), dtype=torch.float64)
    column, row = recorded.pixels_of(points).round().long().T
    missing = (recorded.positions[row, column] - torch.as_tensor(points)).numpy()
    assert np.sqrt(np.mean(missing**2)) < math.hypot(0.13 / math.sqrt(12), 0.03 * math.sqrt(2))


@pytest.mark.parametrize(("dose", "electrons"), [({"dose_e_per_A2": 2500.0}, 25.0), ({"dose_e_per_px": 4.0}, 4.0)])
def test_dose_and_variance_are_those_of_counting(dose, electrons):
    image = record(Recording(0.1, **dose), (400, 400), np.full((40, 28), 0.4)).image.double()
    pixels, expected = image.numel(), 0.4 * electrons
    assert float(image.mean()) == pytest.approx(0.4, abs=5 * 0.4 / math.sqrt(expected * pixels))
    assert float(image.var()) == pytest.approx(0.4 / electrons, rel=0.02)
    counts = image * electrons
    assert torch.allclose(counts, counts.round(), atol=1e-4)


def test_background_is_counted_and_gain_and_offset_are_not():
    cell = np.full((40, 28), 0.3)
    recording = Recording(dose_e_per_px=50.0, background=0.1, gain=2000.0, offset=300.0, readout_noise=40.0)
    image = record(recording, (400, 400), cell).image.double()
    assert float(image.mean()) == pytest.approx(300 + 2000 * 0.4, abs=3)
    assert float(image.var()) == pytest.approx(2000**2 * 0.4 / 50 + 40**2, rel=0.02)
    quiet = record(Recording(background=0.1, gain=2000.0, offset=300.0), (4, 4), cell).image
    assert quiet.numpy() == pytest.approx(300 + 2000 * 0.4, abs=1e-2)


NOISY = Recording(source_fwhm_A=0.5, dose_e_per_A2=1e4, jitter_A=0.05, readout_noise=0.01)


def test_one_seed_is_one_image():
    one, same, other = (record(NOISY, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.positions, same.positions)
    assert not torch.equal(one.image, other.image)


def test_a_batch_is_its_images_one_by_one():
    cells = torch.as_tensor(np.stack([wave(*grid()), columns(), columns((1.0, 1.0))]))
    double = {"dtype": torch.float64}  # in single precision an expected count may round to another electron
    together = record(NOISY, cell=cells, seed=[4, 5, 6], **double)
    assert isinstance(together, Recorded)
    assert together.image.shape == (3, 30, 50)
    assert together.positions.shape == (3, 30, 50, 2)
    for index, cell in enumerate(cells):
        alone = record(NOISY, cell=cell, seed=4 + index, **double)
        assert torch.allclose(together.image[index], alone.image, atol=1e-5)
        assert torch.allclose(together.positions[index], alone.positions)


def test_one_seed_gives_each_image_of_a_batch_its_own_noise():
    cells = np.stack([wave(*grid())] * 2)
    batch = record(NOISY, cell=cells, seed=4, dtype=torch.float64)
    assert not torch.equal(batch.image[0], batch.image[1])
    assert torch.allclose(batch.image[0], record(NOISY, seed=4, dtype=torch.float64).image, atol=1e-5)
    assert record(Recording(), cell=cells).positions.shape == (2, 30, 50, 2)


def test_the_noise_free_part_has_a_gradient():
    cell = torch.tensor(wave(*grid()), requires_grad=True)
    record(Recording(source_fwhm_A=0.3), (4, 5), cell, dtype=torch.float64).image.sum().backward()
    assert float(cell.grad.sum()) == pytest.approx(20.0)  # a uniform increase raises every pixel alike


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixel_size_A": 0.0}, "pixel_size_A = 0 cannot be: give more than 0"),
        ({"pixel_size_A": math.nan}, "a finite number"),
        ({"source_fwhm_A": -1}, "source_fwhm_A = -1 cannot be: give 0 or more"),
        ({"source_ellipticity": 0.5}, "give 1 or more"),
        ({"dose_e_per_A2": 0}, "dose_e_per_A2 = 0"),
        ({"dose_e_per_A2": 10, "dose_e_per_px": 1}, "give the dose once"),
        ({"magnification_error": -1}, "more than -1"),
        ({"drift_A": 0.5}, "drift_A = 0.5 cannot be: give 2 finite numbers"),
        ({"drift_A": "fast"}, "2 finite numbers"),
        ({"flyback_px": 0}, "flyback_px = 0"),
        ({"affine": [[1, 2], [2, 4]]}, "can be inverted"),
        ({"affine": (1, 0, 0, 1)}, "2 × 2 finite numbers"),
        ({"gain": 0}, "gain = 0"),
        ({"readout_noise": -1}, "readout_noise = -1"),
    ],
)
def test_conditions_that_cannot_be_get_one_sentence(settings, words):
    with pytest.raises(InputError, match=words) as caught:
        Recording(**settings)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cell": np.zeros(5)}, r"shape \(5,\) is no image"),
        ({"cell": np.zeros((0, 4, 4))}, "is no image"),
        ({"cell": np.full((4, 4), np.nan)}, "not finite"),
        ({"cell": np.full((4, 4), 900.0)}, "900 cannot be counted"),
        ({"spacing_A": (0.1, 0.0)}, "two positive distances"),
        ({"spacing_A": 0.1}, "2 finite numbers"),
        ({"shape": (0, 4)}, "no image's"),
        ({"shape": 4}, "no image's"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": [1, 2]}, "2 seeds for 1 images"),
        ({"shape": (60, 4), "periodic": False}, "beyond the simulated image"),
        ({"dtype": torch.float16}, "torch.float32 or"),
    ],
)
def test_images_that_cannot_be_recorded_get_one_sentence(changes, words):
    call = {"cell": np.full((40, 28), 0.5), "spacing_A": (0.1, 0.1), "shape": (4, 4)} | changes
    with pytest.raises(InputError, match=words) as caught:
        record_image(recording=Recording(dose_e_per_px=10.0), **call)
    assert str(caught.value).endswith(".")
