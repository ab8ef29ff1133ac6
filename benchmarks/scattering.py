"""Scattering matrix against abTEM: a full ABF image at many thicknesses, timed side by side in one process.

Prints one JSON line last: `rms_22A` and `rms_110A` (relative to abTEM's static multislice, same potential) and
`speedup_multislice` (abTEM's time for the 110 Å image alone, over ours for 21 thicknesses up to 420 Å).
"""

import json
import time

import numpy as np
import torch
from unitcell.crosscheck import abtem_image
from unitcell.crystals import tilted_perovskite
from unitcell.scattering import Microscope, annular_images
from unitcell.simulation import CELL_SHAPE

PERIODS = (4, 20)


def timed(function):
    """Result and seconds of one call."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def main():
    """Measure accuracy and time, print a sentence each and the JSON line."""
    torch.set_num_threads(1)
    crystal, microscope = tilted_perovskite(6, 2, 4), Microscope()
    exact = {"cutoff_mrad": 104, "k_points": (1, 1), "thermal": False}
    depths = [n * crystal.cell.lengths()[2] for n in PERIODS]
    ours = annular_images(crystal, microscope, depths, CELL_SHAPE, **exact).numpy()
    abtem_image(crystal, microscope, 1, (2, 2))  # compile abTEM's kernels before timing them
    peers = [timed(lambda n=n: abtem_image(crystal, microscope, n, CELL_SHAPE)) for n in PERIODS]
    rms = [float(np.sqrt(np.mean((o - p) ** 2)) / p.mean()) for o, (p, _) in zip(ours, peers, strict=True)]
    _, seconds = timed(lambda: annular_images(crystal, microscope, range(20, 421, 20), CELL_SHAPE, **exact))
    print(f"abTEM, {depths[1]:.0f} Å only: {peers[1][1]:.1f} s; scattering matrix, 21 thicknesses: {seconds:.2f} s")
    print(f"rms difference: {100 * rms[0]:.2f} % at {depths[0]:.0f} Å, {100 * rms[1]:.2f} % at {depths[1]:.0f} Å")
    print(json.dumps({"rms_22A": rms[0], "rms_110A": rms[1], "speedup_multislice": peers[1][1] / seconds}))


if __name__ == "__main__":
    main()
