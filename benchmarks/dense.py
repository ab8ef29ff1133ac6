"""The dense map in one convolutional pass against window by window, side by side in one process; the paper's claims.

Both evaluate the committed dense network at every pixel of a frame of 512 × 512 pixels (100 × 100 Å) of simulated
SrTiO3. Window by window is batched, with the best of some batch sizes, and timed on part of the windows: its time for
all is time per window × windows. Then whole images of 512² and 4096² pixels, from registration to maps. The paper says
that the map does not depend on the stride of the windows, nor much on magnification: both are measured. Prints tables,
and one JSON line last:

* `speedup`: window by window over one pass, 512 × 512 frame, stride 1; `max_abs_diff` of |v|, |u|, |γ| [degrees]
* `pass_s`, `windows_s` (extrapolated), `flop_ratio`
* `map_512_s`, `map_512_peak_MB`, `map_4096_s`, `map_4096_peak_MB`: `tilts.dense.dense_map` of whole images, and the
  largest resident memory of the process meanwhile
* `offset_sd_deg`: standard deviation of single windows' answers over all offsets in a perfect crystal, rms over states
* `stride_2_deg`, `stride_4_deg`: rms change of the cell's average where only every second, fourth window is evaluated
* `magnification_5_deg`, `magnification_10_deg`: rms change of |v|, |u|, |γ| over states, image ±5 %, ±10 % too large
"""

import json
import os
import time

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from surrogate import PeakMemory
from torch import nn
from unitcell.artefacts import load_dataset
from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.data import fetch
from unitcell.micrographs.images import StemImage
from unitcell.tilts.dense import CELL_SHAPE, TILTS, cell_average, dense_map, dense_tilts, load_dense_network, sizes

SIDE = 512  # pixels of the frame
PIXEL_A = 0.195
BATCHES = (16, 64, 256)
TIMED = 2048  # windows
STATES = ((0, 0, 0), (5, -5, 0), (5, 5, 0), (0, 0, 5), (5, 0, 5), (10, -5, 5), (10, 5, 10))  # α, β, γ [degrees]
STRIDES = (1, 2, 4)
SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
DOSE = 1e5
SOURCE_PX = 1.5  # 0.3 Å


def main():
    """Compare, time whole images, test the claims."""
    torch.set_num_threads(os.cpu_count())
    network, _ = load_dense_network()
    stack = load_dataset(fetch("abf_library_phonons"), ("abf",)).sel(thickness=200.0)
    found = compare(network, standardised(noisy(tiled(cell_of(stack, (5, 0, 5)), SIDE))))
    for side in (SIDE, 8 * SIDE):
        found |= whole_image(network, stack, side)
    found |= strides(network, stack)
    found |= magnifications(network, stack)
    print(json.dumps({key: float(f"{value:.4g}") for key, value in found.items()}))


def compare(network, frame):
    """One pass against window by window."""
    dense = [timed(lambda: dense_tilts(frame, network, progress=False)) for _ in range(3)]
    answers, one_pass = dense[0][1], min(seconds for seconds, _ in dense)
    windows = torch.as_tensor(frame).unfold(0, network.shape[0], 1).unfold(1, network.shape[1], 1)
    rows, columns = windows.shape[:2]
    # Spread over the frame, so that seams of tiles are among them.
    which = torch.linspace(0, rows * columns - 1, TIMED).long()
    chosen = windows[which // columns, which % columns]
    own = sizes(answers[which // columns, which % columns].numpy())
    times = {}
    for batch in BATCHES:
        seconds, parts = timed(lambda batch=batch: [ask(network, part) for part in chosen.split(batch)])
        times[batch] = seconds / TIMED
    difference = np.abs(sizes(torch.cat(parts).numpy()) - own).max()
    best = min(times, key=times.get)
    by_window, dense_flops = operations(network)
    every = times[best] * rows * columns
    print(
        f"{rows} × {columns} windows, {os.cpu_count()} threads. Window by window: {1e6 * times[best]:.0f} µs each in "
        f"batches of {best} (of {BATCHES}; {TIMED} timed), so {every:.0f} s for all. One pass: {one_pass:.2f} s.\n"
        f"Multiplications: {by_window / 1e6:.2f} million a window, {dense_flops / 1e3:.1f} thousand a pixel of one pass"
    )
    found = {"speedup": every / one_pass, "max_abs_diff": difference, "pass_s": one_pass, "windows_s": every}
    return found | {"flop_ratio": by_window / dense_flops}


@torch.inference_mode()
def ask(network, windows):
    """The network on one batch."""
    return network(windows)


def timed(function):
    """Wall time [s] and result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def operations(network):
    """Multiplications of convolutions and full layers: for a window by itself, and for a pixel of one pass."""
    counts, places = {}, {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: places.__setitem__(layer, out.shape[2:].numel()))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    ask(network, torch.zeros(1, *network.shape))
    for hook in hooks:
        hook.remove()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            counts[layer] = layer.weight.numel()
    return sum(count * places.get(layer, 1) for layer, count in counts.items()), sum(counts.values())


def whole_image(network, stack, side):
    """Time and memory from an image of side × side pixels to its maps."""
    cell = cell_of(stack, (5, 0, 5))
    pitch = 2 * 3.905 / 40, np.sqrt(2) * 3.905 / 28
    y, x = (np.arange(side, dtype=np.float32) * PIXEL_A / step for step in pitch)
    ideal = np.empty((side, side), np.float32)
    for row, line in zip(y, ideal, strict=True):
        line[:] = ndimage.map_coordinates(cell, [np.full(side, row), x], order=1, mode="grid-wrap")
    image = StemImage(noisy(ideal), PIXEL_A, f"simulated, {side} × {side} pixels", simulated=True)
    with PeakMemory() as memory:
        seconds, maps = timed(lambda: dense_map(image, network, 3.905, step=4))
    print(f"{image.name}: {seconds:.1f} s from image to maps, at most {memory.peak / 1e6:.0f} MB resident")
    print(" · ".join(f"{name} {float(maps[name].median()):.2f}°" for name in TILTS))
    return {f"map_{side}_s": seconds, f"map_{side}_peak_MB": memory.peak / 1e6}


def strides(network, stack):
    """Scatter over offsets, and the cell's average from every k-th window against that from all."""
    scatter, changes = [], {stride: [] for stride in STRIDES}
    for state in STATES:
        frame = standardised(tiled(cell_of(stack, state), 160))
        answers = dense_tilts(frame, network, progress=False).numpy()
        scatter.append(sizes(answers[: 2 * CELL_SHAPE[0], : CELL_SHAPE[1]]).std((0, 1)))
        noisy_answers = dense_tilts(standardised(noisy(tiled(cell_of(stack, state), 160))), network, progress=False)
        every = sizes(cell_average(noisy_answers.numpy()))
        for stride, change in changes.items():
            few = sizes(cell_average(noisy_answers[::stride, ::stride].numpy(), stride))
            change.append(few - every[::stride, ::stride])
    print(f"\nsingle windows of a perfect crystal, standard deviation over offsets: {rms(scatter):.3f}°")
    found = {"offset_sd_deg": rms(scatter)}
    for stride, change in list(changes.items())[1:]:
        found[f"stride_{stride}_deg"] = rms(np.concatenate([np.ravel(one) for one in change]))
        away = found[f"stride_{stride}_deg"]
        print(f"average over a cell from one window in {stride} along both axes: {away:.3f}° rms away")
    return found


def magnifications(network, stack):
    """What the cell's average reads where the frame is magnified and not registered again."""
    rows, read = [], {}
    for state in STATES:
        for scale in SCALES:
            frame = standardised(noisy(tiled(cell_of(stack, state), 200, scale)))
            averaged = cell_average(dense_tilts(frame, network, progress=False).numpy())
            read[state, scale] = sizes(np.median(averaged, axis=(0, 1)))
            true = np.abs(to_projection(*state))
            rows.append([*true, scale, *read[state, scale]])
    table = pd.DataFrame(rows, columns=["|v|", "|u|", "|γ|", "scale", *TILTS])
    print(f"\n{table.to_string(index=False, float_format=lambda value: f'{value:.2f}')}")
    found = {}
    for percent in (5, 10):
        changed = [
            read[state, 1 + sign * percent / 100] - read[state, 1.0] for state in STATES for sign in (-1, 1)
        ]  # fmt: skip
        found[f"magnification_{percent}_deg"] = rms(changed)
    return found


def cell_of(stack, state):
    """Image (40, 28) of √2·a × 2a at (α, β, γ), blurred."""
    here = (stack.alpha == state[0]) & (stack.beta == state[1]) & (stack.gamma == state[2])
    return ndimage.gaussian_filter(stack.abf.values[here.values][0], SOURCE_PX, mode="wrap")


def tiled(cell, side, scale=1.0):
    """A frame of side × side pixels of a crystal, `scale` times too large."""
    coordinates = np.indices((side, side)) / scale
    return ndimage.map_coordinates(cell, coordinates, order=3, mode="grid-wrap").astype(np.float32)


def noisy(ideal, seed=0):
    """Counts."""
    return np.random.default_rng(seed).poisson(ideal * np.float32(DOSE * PIXEL_A**2)).astype(np.float32)


def standardised(frame):
    """Zero mean and unit variance."""
    return (frame - frame.mean()) / frame.std()


def rms(values):
    """Root of the mean square of all."""
    return float(np.sqrt(np.mean(np.square(values))))


if __name__ == "__main__":
    main()
