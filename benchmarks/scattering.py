"""The scattering kernels against abTEM, in one process: how right, and how fast.

Prints sentences, and one JSON line last:

* `rms_static`: relative rms against abTEM multislice of a static lattice, the largest of three tilt states at 22, 110
  and 420 Å; one cell as the period of the probe in both, abTEM at 0.08 Å (104 mrad) with four slices a period;
* `rms_thermal`, `mean_thermal`: the same against abTEM's frozen phonons at 100 and 200 Å, beyond the standard errors
  of both, and the largest relative difference of the mean;
* `speedup_prism`, `speedup_multislice`: wall time of one static structure, 21 thicknesses from 20 to 420 Å, 40 × 28
  probe positions, the paper's 2√2 × 4 cells as the period of the probe, on all cores;
* `speedup_phonon`: 15 frozen-phonon configurations of it, against 15 times abTEM's faster way;
* `speedup_multislice_phonon`: our real-space multislice against abTEM's, see `benchmarks/multislice.py`;
* `elastic_seconds`, `campaign_seconds`: 125 structures × 21 thicknesses, elastic and with 15 configurations;
* `gradient_error`: autograd against finite differences, relative.
"""

import json
import os
import time

import abtem
import dask
import multislice
import numpy as np
import torch
from unitcell.abf.crosscheck import abtem_images, scan
from unitcell.abf.simulation import CELL_SHAPE, simulate_stack, tilt_grid
from unitcell.crystals import tilted_perovskite, tilted_positions
from unitcell.scattering import Microscope, Vibrations, annular_images, frozen_phonon_images

TILTS = ((6, 2, 4), (0, 0, 0), (9, -7, 8))
STATIC_PERIODS = (4, 20, 76)  # 22, 110 and 420 Å
THERMAL_PERIODS = (18, 36)  # 99 and 199 Å
COARSE = (20, 14)
THICKNESSES_A = range(20, 421, 20)
PHONON_REPEATS = 4  # independent libraries at the one k-point of the comparison


def timed(function):
    """Result and seconds of one call."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def relative_rms(image, reference):
    """Rms difference over the mean."""
    return float(np.sqrt(np.mean((image - reference) ** 2)) / reference.mean())


def static_accuracy(microscope):
    """Largest rms difference from abTEM's static multislice."""
    worst = 0.0
    for tilts in TILTS:
        crystal = tilted_perovskite(*tilts)
        depths = [n * crystal.cell[2, 2] for n in STATIC_PERIODS]
        ours = annular_images(crystal, microscope, depths, COARSE, k_points=(1, 1), thermal=False).numpy()
        theirs = abtem_images(crystal, microscope, STATIC_PERIODS, COARSE)[0]
        each = [relative_rms(o, t) for o, t in zip(ours, theirs, strict=True)]
        print(
            f"static {tilts}°: " + ", ".join(f"{100 * e:.2f} % at {d:.0f} Å" for e, d in zip(each, depths, strict=True))
        )
        worst = max(worst, *each)
    return worst


def thermal_accuracy(microscope, configurations=16):
    """Rms difference from abTEM's frozen phonons beyond the standard errors, and of the mean."""
    crystal = tilted_perovskite(6, 2, 4)
    depths = [n * crystal.cell[2, 2] for n in THERMAL_PERIODS]
    theirs = abtem_images(crystal, microscope, THERMAL_PERIODS, COARSE, configurations=configurations, seed=1)
    same_k = np.zeros((PHONON_REPEATS, 2))
    vibrations = Vibrations(library=16, seed=2)
    count = 8 * PHONON_REPEATS
    ours = frozen_phonon_images(crystal, microscope, depths, COARSE, count, vibrations, k_points=same_k).numpy()
    beyond, means = [], []
    for index, depth in enumerate(depths):
        one, other = ours[:, index], theirs[:, index]
        reference = other.mean()
        total = np.mean((one.mean(axis=0) - other.mean(axis=0)) ** 2)
        noise = np.mean(one.var(axis=0, ddof=1) / len(one) + other.var(axis=0, ddof=1) / len(other))
        beyond.append(float(np.sqrt(max(0.0, total - noise)) / reference))
        means.append(float(abs(one.mean() / reference - 1)))
        print(
            f"phonons at {depth:.0f} Å: rms {100 * np.sqrt(total) / reference:.2f} %, of which standard errors explain "
            f"{100 * np.sqrt(noise) / reference:.2f} %; mean {100 * (one.mean() / reference - 1):+.2f} %"
        )
    return max(beyond), max(means)


def static_speed(microscope):
    """Seconds for one structure: ours, abTEM multislice with exit planes, abTEM PRISM."""
    crystal = tilted_perovskite(6, 2, 4)
    period = crystal.cell[2, 2]
    ours = [
        timed(lambda: annular_images(crystal, microscope, THICKNESSES_A, CELL_SHAPE, thermal=False))[1] for _ in "abc"
    ]
    block = crystal * (2, 2, round(max(THICKNESSES_A) / period))
    planes = tuple(2 * round(t / period) - 1 for t in THICKNESSES_A)
    window = crystal.cell.lengths()[:2]
    settings = {
        "gpts": (140, 196),
        "slice_thickness": period / 2,
        "parametrization": "lobato",
        "projection": "infinite",
    }
    stepped = abtem.Potential(block, exit_planes=planes, **settings).build().compute(progress_bar=False)
    scan(stepped, microscope, window, (1, 1))  # plans abTEM's Fourier transforms before they are timed
    _, multislice_seconds = timed(lambda: scan(stepped, microscope, window, CELL_SHAPE))
    _, prism_seconds = timed(lambda: prism_images(crystal, microscope, planes, window, settings))
    print(
        f"one static structure, 21 thicknesses: {sorted(ours)[1]:.2f} s; abTEM multislice (built potential, 140 × 196 "
        f"pixels, 2 slices a period, 21 exit planes) {multislice_seconds:.0f} s; abTEM PRISM (interpolation 1, carried "
        f"on from thickness to thickness) {prism_seconds:.0f} s"
    )
    return sorted(ours)[1], multislice_seconds, prism_seconds


def prism_images(crystal, microscope, planes, window, settings):
    """Images behind the slices `planes` by abTEM's PRISM.

    It takes no exit planes, so each thickness goes on from the last, and the whole grid is kept on the way
    (`downsample=False`): a matrix cut down to its beams cannot be carried on.
    """
    images, matrix, depth = [], None, 0
    for periods in [(plane + 1) // 2 for plane in planes]:
        part = abtem.Potential(crystal * (2, 2, periods - depth), **settings).build().compute(progress_bar=False)
        if matrix is None:
            beam = {"energy": microscope.energy_eV, "semiangle_cutoff": microscope.semiangle_mrad}
            matrix = abtem.SMatrix(potential=part, downsample=False, **beam).build(lazy=False)
        else:
            matrix = matrix.multislice(part)
        depth = periods
        positions = abtem.GridScan((0, 0), tuple(window), gpts=CELL_SHAPE[::-1], endpoint=False)
        detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
        images.append(matrix.reduce(scan=positions, detectors=detector))
    return np.array([image.array.T for image in images])


def gradient_error(microscope):
    """Largest relative difference between autograd and central differences for tilt, thickness and crystal tilt."""
    crystal = tilted_perovskite(6, 2, 4)
    weights = torch.randn(2, 10, 7, dtype=torch.float64, generator=torch.manual_seed(0))
    point = [torch.tensor(values, dtype=torch.float64) for values in ([6.0, 2, 4], [60.0, 120], [1.0, 2])]

    def merit(tilts, thicknesses, crystal_tilt):
        images = annular_images(
            crystal, microscope, thicknesses, (10, 7), cutoff_mrad=40, k_points=(1, 1), dtype=torch.float64,
            positions=tilted_positions(tilts), crystal_tilt_mrad=crystal_tilt,
        )  # fmt: skip
        return (images * weights).sum()

    leaves = [p.clone().requires_grad_() for p in point]
    merit(*leaves).backward()
    worst = 0.0
    for number, leaf in enumerate(leaves):
        for index in range(len(leaf)):
            step = torch.zeros_like(leaf)
            step[index] = 1e-4
            ends = [merit(*[p + s * step if i == number else p for i, p in enumerate(point)]) for s in (1, -1)]
            slope = float((ends[0] - ends[1]) / 2e-4)
            worst = max(worst, abs(float(leaf.grad[index]) / slope - 1))
    return worst


def main():
    """Measure everything, print a sentence each and the JSON line."""
    torch.set_num_threads(os.cpu_count())
    dask.config.set(num_workers=os.cpu_count())
    microscope = Microscope()
    found = {"rms_static": static_accuracy(microscope)}
    found["rms_thermal"], found["mean_thermal"] = thermal_accuracy(microscope)
    ours, by_multislice, by_prism = static_speed(microscope)
    found |= {"speedup_prism": by_prism / ours, "speedup_multislice": by_multislice / ours}
    crystal = tilted_perovskite(6, 2, 4)
    _, phonons = timed(lambda: frozen_phonon_images(crystal, microscope, THICKNESSES_A, CELL_SHAPE, 15))
    print(f"15 frozen-phonon configurations, 21 thicknesses: {phonons:.1f} s")
    found["speedup_phonon"] = 15 * min(by_multislice, by_prism) / phonons
    found |= {"speedup_multislice_phonon": multislice.compare()["speedup_multislice_phonon"]}
    _, found["elastic_seconds"] = timed(lambda: simulate_stack(tilt_grid(5.0), THICKNESSES_A, microscope))
    _, found["campaign_seconds"] = timed(
        lambda: simulate_stack(tilt_grid(5.0), THICKNESSES_A, microscope, configurations=15)
    )
    found["gradient_error"] = gradient_error(microscope)
    print(json.dumps({key: round(value, 12) for key, value in found.items()}))


if __name__ == "__main__":
    main()
