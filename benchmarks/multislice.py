"""Frozen-phonon multislice against abTEM: one configuration, timed side by side in one process.

Both get the same displaced atoms, grid, slices, probe positions, hard aperture and threads, and each builds its
own potential. abTEM runs its probe multislice and its scattering matrix (PRISM without interpolation, the same
numbers), each at the settings that are fastest for it; the faster one counts.

Prints one JSON line last: `rms` (relative, of the image), `speedup_multislice_phonon` (the fastest abTEM over ours),
and the same against abTEM's probe multislice alone.
"""

import json
import os
import time

import abtem
import dask
import numpy as np
import torch
from unitcell.crystals import tilted_perovskite
from unitcell.scattering import Microscope
from unitcell.scattering.debye_waller import rms_displacements
from unitcell.scattering.multislice import multislice_images, scan_positions
from unitcell.scattering.slices import cut_slices, displaced_positions
from unitcell.scattering.wave_grid import make_grid
from unitcell.simulation import CELL_SHAPE

PERIODS, ROUNDS, SEED = 10, 3, 0
PEER_BATCHES = (32, 64, 128)  # waves in abTEM's batches: 64 is mostly its best here


def timed(function):
    """Result and seconds of one call."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def displaced_crystal(cell, periods):
    """The thick crystal with the displacements of the configuration that `multislice_images` calls 0."""
    crystal = cell * (1, 1, periods)
    sigmas_A = rms_displacements(cell.get_chemical_symbols())
    crystal.positions[:, :2] = displaced_positions(cell, periods, sigmas_A, (SEED, 0)).reshape(-1, 2)
    return crystal


def peer_image(kind, crystal, thicknesses_A, shape, microscope, positions, batch, threads):
    """abTEM's image of a displaced crystal, (rows, columns), by its probe multislice or its scattering matrix."""
    with (
        abtem.config.set({"diagnostics.progress_bar": False, "fft": "fftw", "fftw.threads": 1}),
        dask.config.set(scheduler="threads", num_workers=threads),
    ):
        potential = abtem.Potential(
            crystal, gpts=shape, slice_thickness=thicknesses_A, parametrization="lobato", projection="infinite"
        ).build(lazy=False)
        scan = abtem.CustomScan(positions.reshape(-1, 2))
        detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
        energy, angle = microscope.energy_eV, microscope.semiangle_mrad
        if kind == "probes":
            probe = abtem.Probe(energy=energy, semiangle_cutoff=angle, soft=False)
            probe.grid.match(potential)
            measured = probe.scan(potential, scan=scan, detectors=detector, max_batch=batch)
        else:
            matrix = abtem.SMatrix(potential=potential, energy=energy, semiangle_cutoff=angle, interpolation=1)
            measured = matrix.scan(scan=scan, detectors=detector, max_batch_multislice=batch)
        return np.asarray(measured.compute().array).reshape(positions.shape[:-1])


def compare():
    """Measure accuracy and time, print a sentence each and return the numbers of the JSON line."""
    threads = os.cpu_count()
    torch.set_num_threads(threads)
    microscope, period = Microscope(), tilted_perovskite(6, 2, 4)
    cell = period * (2, 1, 1)
    cell.positions[:, 2] += 0.23  # away from abTEM's wrapping plane
    positions = scan_positions(cell, CELL_SHAPE, ((0, 0), period.cell.lengths()[:2]))
    grid = make_grid(cell, microscope, 0.08, [(microscope.inner_mrad, microscope.outer_mrad)])
    slices = tuple(np.tile(cut_slices(cell, 1.0).thicknesses_A, PERIODS))
    crystal = displaced_crystal(cell, PERIODS)

    def ours():
        return multislice_images(
            cell, microscope, [sum(slices)], positions, configurations=1, seed=SEED, progress=False
        )

    def peer(kind, batch):
        return peer_image(kind, crystal, slices, grid.shape, microscope, positions, batch, threads)

    candidates = [(kind, batch) for kind in ("probes", "beams") for batch in PEER_BATCHES]
    for kind in ("probes", "beams"):  # compile and plan before timing
        peer_image(kind, crystal, slices, grid.shape, microscope, positions[:2], PEER_BATCHES[0], threads)
    ours()
    rounds = [(timed(ours), {c: timed(lambda c=c: peer(*c)) for c in candidates}) for _ in range(ROUNDS)]
    own = min(seconds for (_, seconds), _ in rounds)
    peers = {c: min(found[c][1] for _, found in rounds) for c in candidates}
    probes, beams = (min(s for (kind, _), s in peers.items() if kind == wanted) for wanted in ("probes", "beams"))
    image, truth = rounds[0][0][0].mean[0, 0], rounds[0][1][candidates[0]][0]
    rms = float(np.sqrt(np.mean((image - truth) ** 2)) / truth.mean())
    print(
        f"One frozen-phonon configuration, {sum(slices):.0f} Å in {len(slices)} slices, grid {grid.shape[0]}×"
        f"{grid.shape[1]}, {positions[..., 0].size} probe positions, single precision, {threads} threads; the best of "
        f"{ROUNDS} interleaved runs, abTEM {abtem.__version__} with FFTW and the best of batches of {PEER_BATCHES}."
    )
    print(
        f"abTEM: probe multislice {probes:.2f} s, scattering matrix {beams:.2f} s; here {own:.2f} s "
        f"({rounds[0][0][0].waves}); rms difference {100 * rms:.3f} %."
    )
    speedup = min(probes, beams) / own
    return {"rms": rms, "speedup_multislice_phonon": speedup, "speedup_over_probe_multislice": probes / own}


def main():
    """Measure, and print the JSON line."""
    print(json.dumps(compare()))


if __name__ == "__main__":
    main()
