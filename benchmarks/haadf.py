"""Column contrast of the dark-field twins against abTEM: the same frozen atoms, the same probe, another code.

Blocks of the three phases of `unitcell.twins.haadf` get the random species, vacancies and thermal displacements that
`unitcell.scattering.multislice_images` gives them; abTEM propagates the same atoms with a potential of its own, built
before the scan, through a hard aperture. Compared is the mean dark-field intensity on every kind of column and between
columns.

Prints a table, then one JSON line: `worst`, the largest relative difference on a kind of column, and `speedup`, abTEM's
seconds over ours, each on the grid that the ring needs there.
"""

import json
import time

import abtem
import numpy as np
from unitcell.scattering.debye_waller import rms_displacements
from unitcell.scattering.multislice import multislice_images
from unitcell.scattering.slices import cut_slices, displaced_positions
from unitcell.scattering.wave_grid import make_grid
from unitcell.twins.haadf import MICROSCOPE, PHASES, SAMPLING_A, block, crystal_slice

THICKNESS_A, CONFIGURATIONS, SEED = 80.0, 2, 0
PEER_SAMPLING_A = 0.027  # abTEM cuts the transmission function, too, at the band limit: it needs a wider one
RING = (MICROSCOPE.inner_mrad, MICROSCOPE.outer_mrad)


def places(phase):
    """Positions [Å] of the columns of one cell, and the species of each; "gap" lies farthest from all of them."""
    cell, sites = np.array(phase.cell_A), np.array(phase.sites)
    kept = [n for n, species in enumerate(phase.species) if species != "O"]
    grid = np.stack(np.meshgrid(np.arange(0, 1, 0.02), np.arange(0, 1, 0.02)), -1).reshape(-1, 1, 2)
    away = np.hypot(*np.moveaxis(((grid - sites[kept] + 0.5) % 1 - 0.5) * cell, -1, 0)).min(axis=1)
    points = np.vstack([sites[kept], grid[away.argmax()]]) * cell
    return points, np.array([*(phase.species[n] for n in kept), "gap"])


def peer(crystal, positions, slices, grid, configuration):
    """abTEM's intensities of one configuration."""
    moved = crystal.copy()
    sigmas_A = rms_displacements(crystal.get_chemical_symbols())
    moved.positions[:, :2] = displaced_positions(crystal, 1, sigmas_A, (SEED, configuration)).reshape(-1, 2)
    moved.wrap()
    potential = abtem.Potential(
        moved, gpts=grid.shape, slice_thickness=tuple(slices.thicknesses_A), parametrization="lobato",
        projection="infinite",
    ).build(lazy=False)  # fmt: skip
    probe = abtem.Probe(energy=MICROSCOPE.energy_eV, semiangle_cutoff=MICROSCOPE.semiangle_mrad, soft=False)
    probe.grid.match(potential)
    scan, ring = abtem.CustomScan(positions), abtem.AnnularDetector(*RING)
    return np.asarray(probe.scan(potential, scan=scan, detectors=ring).compute().array)


def compare(name):
    """Mean intensity of each kind of column here and there, and the seconds of both."""
    phase = PHASES[name]
    crystal = block(name, THICKNESS_A, (SEED, list(PHASES).index(name)))
    positions, species = places(phase)
    slices, grid = cut_slices(crystal, crystal_slice(name)), make_grid(crystal, MICROSCOPE, PEER_SAMPLING_A, [RING])
    started = time.perf_counter()
    ours = multislice_images(
        crystal, MICROSCOPE, [slices.period_A], positions, sampling_A=SAMPLING_A, slice_A=crystal_slice(name),
        configurations=CONFIGURATIONS, seed=SEED, waves="probes", progress=False,
    ).mean[0, 0]  # fmt: skip
    here = time.perf_counter() - started
    started = time.perf_counter()
    theirs = np.mean([peer(crystal, positions, slices, grid, n) for n in range(CONFIGURATIONS)], axis=0)
    kinds = [(kind, ours[species == kind].mean(), theirs[species == kind].mean()) for kind in np.unique(species)]
    return kinds, here, time.perf_counter() - started


def main():
    """Measure, print the table and the JSON line."""
    worst, here, there = 0.0, 0.0, 0.0
    print(f"{THICKNESS_A:g} Å, {CONFIGURATIONS} configurations, {RING[0]:g} to {RING[1]:g} mrad; fraction of the beam")
    print("phase      column      here     abTEM  difference")
    with abtem.config.set({"diagnostics.progress_bar": False}):
        for name in PHASES:
            kinds, seconds, peer_seconds = compare(name)
            here, there = here + seconds, there + peer_seconds
            for kind, ours, theirs in kinds:
                print(f"{name:10s} {kind:6s} {ours:9.5f} {theirs:9.5f} {100 * (ours / theirs - 1):8.2f} %")
                if kind != "gap":
                    worst = max(worst, abs(ours / theirs - 1))
    print(json.dumps({"worst": round(float(worst), 5), "speedup": round(there / here, 3)}))


if __name__ == "__main__":
    main()
