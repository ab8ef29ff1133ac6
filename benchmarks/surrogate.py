"""Streaming images from the Gaussian process against scikit-learn's predict, timed side by side in one process.

Prints one JSON line last: `images_per_second`, `max_abs_diff` (of the predicted fraction of electrons) and `speedup`.
"""

import json
import time

import numpy as np
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern
from unitcell.scattering import Microscope
from unitcell.simulation import simulate_stack, tilt_grid
from unitcell.surrogate import NUGGET, Surrogate
from unitcell.tilts import to_projection

COUNT = 4000


def main():
    """Fit both to the same 125 structures at one thickness, predict the same images, compare."""
    torch.set_num_threads(1)
    tilts = tilt_grid(5.0)
    stack = simulate_stack(tilts, [200.0], Microscope(), cutoff_mrad=60, progress=False)
    process = Surrogate.fit(stack, restarts=5)
    images = stack["abf"].values[:, 0].reshape(len(tilts), -1)
    points = np.stack(to_projection(*tilts.T), axis=-1)
    peer = GaussianProcessRegressor(Matern(process.tilt_lengths.item(), nu=2.5), alpha=NUGGET, optimizer=None)
    peer.fit(points, images - images.mean(axis=0))
    asked = np.stack(to_projection(*np.random.default_rng(0).uniform(-10, 10, (3, COUNT))), axis=-1)
    started = time.perf_counter()
    theirs = peer.predict(asked) + images.mean(axis=0)
    peer_seconds = time.perf_counter() - started
    started = time.perf_counter()
    points = torch.tensor(asked, dtype=torch.float32)
    ours = process.images(points, torch.full((COUNT,), 200.0)).flatten(1).numpy()
    seconds = time.perf_counter() - started
    print(f"{COUNT} images: scikit-learn {peer_seconds:.2f} s, streamed {seconds:.2f} s")
    difference = float(np.abs(ours - theirs).max())
    print(
        json.dumps(
            {"images_per_second": COUNT / seconds, "max_abs_diff": difference, "speedup": peer_seconds / seconds}
        )
    )


if __name__ == "__main__":
    main()
