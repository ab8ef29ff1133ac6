"""Streaming images from the Gaussian process against scikit-learn's predict, side by side in one process.

Both know the committed elastic library: 125 structures × 21 thicknesses, the same product of Matérn kernels over tilt
and thickness, the same lengths. Both predict the same random tilts and thicknesses, in batches, keeping no image.
Prints one JSON line last: `images_per_second`, `max_abs_diff` (of the predicted fraction of electrons), `speedup`, and
`peak_MB` and `peer_peak_MB`, what each took beyond the memory of its fitted process.
"""

import json
import os
import threading
import time

import numpy as np
import psutil
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from unitcell.artefacts import load_dataset
from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.data import fetch
from unitcell.surrogates.surrogate import NUGGET, Surrogate

COUNT, PEER_COUNT = 60_000, 6_000
BATCHES = (512, 2048)
NEVER = 1e9  # a length at which a kernel sees no difference


class PeakMemory:
    """Largest resident memory of this process within a `with` block [MB], over that at its start."""

    def __enter__(self):
        self.process, self.running, self.peak = psutil.Process(), True, 0
        self.start = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while self.running:
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, *_):
        self.running = False
        self.thread.join()
        self.megabytes = max(0.0, (self.peak - self.start) / 1e6)


def fitted_peer(process, stack):
    """scikit-learn's process of the same images."""
    points = np.stack(to_projection(stack.alpha, stack.beta, stack.gamma), axis=-1)
    depths = np.tile(stack.thickness.values, len(points))[:, None]
    inputs = np.hstack([np.repeat(points, stack.sizes["thickness"], axis=0), depths])
    kernel = Matern([*np.broadcast_to(process.tilt_lengths.numpy(), 3), NEVER], nu=2.5)
    kernel = kernel * Matern([NEVER] * 3 + [process.thickness_length.item()], nu=2.5)
    outputs = stack.abf.values.reshape(len(inputs), -1) - process.mean.numpy().ravel()
    return GaussianProcessRegressor(kernel, alpha=NUGGET, optimizer=None).fit(inputs, outputs)


def seconds_an_image(predict, count, batch):
    """Wall time for each of `count` images, in batches."""
    started = time.perf_counter()
    for start in range(0, count, batch):
        predict(slice(start, start + batch))
    return (time.perf_counter() - started) / count


def main():
    """Fit both, predict the same images, compare."""
    torch.set_num_threads(os.cpu_count())
    stack = load_dataset(fetch("abf_library"), ["abf"])
    process = Surrogate.fit(stack, restarts=3)
    peer = fitted_peer(process, stack)
    generator = np.random.default_rng(0)
    asked = np.hstack([generator.uniform(-10, 10, (COUNT, 3)), generator.uniform(20, 420, (COUNT, 1))])
    points = torch.tensor(asked, dtype=torch.float32)
    mean = process.mean.numpy().ravel()
    ours, theirs = (
        lambda part: process.images(points[part, :3], points[part, 3]),
        lambda part: peer.predict(asked[part]) + mean,
    )
    few = slice(0, 200)
    difference = float(np.abs(ours(few).flatten(1).numpy() - theirs(few)).max())
    with PeakMemory() as memory:
        own = min(seconds_an_image(ours, COUNT, batch) for batch in BATCHES)
    with PeakMemory() as peer_memory:
        other = min(seconds_an_image(theirs, PEER_COUNT, batch) for batch in BATCHES)
    print(
        f"{len(process.basis)} components; scikit-learn {1e6 * other:.0f} µs an image, streamed {1e6 * own:.1f} µs "
        f"(the better of batches of {BATCHES}, {os.cpu_count()} threads)"
    )
    found = {"images_per_second": 1 / own, "max_abs_diff": difference, "speedup": other / own}
    print(json.dumps(found | {"peak_MB": memory.megabytes, "peer_peak_MB": peer_memory.megabytes}))


if __name__ == "__main__":
    main()
