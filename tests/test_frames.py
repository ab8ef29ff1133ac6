"""Averaging frames: drifts come back to a tenth of a pixel, and never wrong by a repeat of the lattice."""

import numpy as np
import pytest
from synthetic_abf import synthetic_abf
from unitcell.errors import InputError
from unitcell.micrographs.frames import mean_frame
from unitcell.micrographs.images import read_image


def drifting(count, step, noise, size=200, pixel_A=0.12, seed=3):
    """Noisy frames of one lattice moving by `step` (x, y) [px] a frame, their drifts, the first without noise."""
    rng = np.random.default_rng(seed)
    drift = np.arange(count)[:, None] * np.array(step)
    images = [synthetic_abf((size, size), pixel_A, 7.0, centre=(size / 2 + d) * pixel_A)[0].intensity for d in drift]
    frames = np.stack(images) + rng.normal(0, 1000 * noise, (count, size, size))
    return frames.astype(np.float32), drift, images[0]


@pytest.mark.parametrize("step", [(0.4, 0.3), (-5.3, 2.6), (6.5, 8.2)])
def test_drift_is_found_without_jumps_by_a_repeat(step):
    """The lattice repeats every 23 px; the last drift is 10.5 px a frame, 74 px in all."""
    frames, drift, clean = drifting(8, step, noise=0.2)
    mean, table = mean_frame(frames)
    np.testing.assert_allclose(table[["x_px", "y_px"]], drift, atol=0.1)
    low = np.ceil(np.maximum(0, -drift.min(0) - 1e-9)).astype(int)
    rows, columns = mean.shape
    assert rows >= 200 - np.ceil(7 * abs(step[1])) - 1
    assert columns >= 200 - np.ceil(7 * abs(step[0])) - 1
    noise = np.std(mean - clean[low[1] : low[1] + rows, low[0] : low[0] + columns])
    assert 0.75 / np.sqrt(8) < noise / 200 < 1.0 / np.sqrt(8)


def test_frames_without_a_common_field_are_refused():
    noise = np.random.default_rng(0).normal(size=(64, 400)).astype(np.float32)
    frames = np.stack([noise[:, 7 * n : 7 * n + 64] for n in range(9)])
    with pytest.raises(InputError, match=r"the drift takes .* of 64 px"):
        mean_frame(frames)


def test_many_frames_show_progress(capsys):
    frames, _, _ = drifting(21, (0.2, 0.0), noise=0.1, size=48)
    mean_frame(frames)
    assert "Registering" in capsys.readouterr().err
    mean_frame(frames[:5])
    assert not capsys.readouterr().err


def test_mean_of_a_stack_is_registered(tmp_path):
    frames, _, clean = drifting(5, (1.5, -0.7), noise=0.3)
    np.save(tmp_path / "stack.npy", frames)
    image = read_image(tmp_path / "stack.npy", 0.12, "mean")
    assert image.intensity.shape == (197, 194)
    np.testing.assert_allclose(image.intensity, clean[3:, :194], atol=6 * 300 / np.sqrt(5))
    frames[2] = 7
    np.save(tmp_path / "stack.npy", frames)
    with pytest.raises(InputError, match=r"frames of .*stack\.npy cannot be averaged: frame 2 is constant"):
        read_image(tmp_path / "stack.npy", 0.12, "mean")
