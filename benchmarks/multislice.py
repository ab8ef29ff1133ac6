"""Frozen-phonon multislice against abTEM: one configuration, timed side by side in one process.

Both get the same displaced atoms, grid, slices, probe positions and threads, and the time includes building the
potential. abTEM runs its probe multislice and its scattering matrix (PRISM without interpolation), each at the
settings that are fastest for it; the faster one counts.

Prints one JSON line last: `rms` (relative, of the image, abTEM propagating the same potential), `rms_own_potential`
(abTEM with its own, whose atoms are spread over grid points: the image changes by as much where everything is moved
by half a grid point), `speedup_multislice_phonon` (the fastest abTEM over ours) and the same over its probe
multislice alone.
"""

import json
import os
import time

import abtem
import dask
import numpy as np
import torch
from unitcell.abf.simulation import CELL_SHAPE
from unitcell.crystals import tilted_perovskite
from unitcell.scattering import Microscope
from unitcell.scattering.debye_waller import rms_displacements
from unitcell.scattering.multislice import multislice_images, scan_positions
from unitcell.scattering.slices import cut_slices, displaced_positions, slice_potentials
from unitcell.scattering.wave_grid import make_grid

PERIODS, ROUNDS, SEED = 10, 3, 0
SAMPLING_A, SLICE_A = 0.08, 1.0
PEER_BATCHES = (64, 128)  # waves in a batch of abTEM: smaller and larger ones, and its own choice, were slower


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


def peer_potential(crystal, thicknesses_A, shape):
    """abTEM's own potential."""
    return abtem.Potential(
        crystal, gpts=shape, slice_thickness=thicknesses_A, parametrization="lobato", projection="infinite"
    ).build(lazy=False)


def same_potential(cell, slices, grid):
    """Our potential of configuration 0, for abTEM."""
    positions = displaced_positions(cell, PERIODS, rms_displacements(cell.get_chemical_symbols()), (SEED, 0))
    blocks = slice_potentials(cell, slices, grid, positions, PERIODS * len(slices.thicknesses_A))
    thicknesses = tuple(np.tile(slices.thicknesses_A, PERIODS))
    return abtem.PotentialArray(torch.cat(list(blocks)).numpy(), slice_thickness=thicknesses, extent=grid.lengths_A)


def peer_image(kind, potential, microscope, positions, batch):
    """abTEM's image (rows, columns) by its probe multislice or its scattering matrix."""
    scan = abtem.CustomScan(positions.reshape(-1, 2))
    detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
    energy, angle = microscope.energy_eV, microscope.semiangle_mrad
    if kind == "probes":
        probe = abtem.Probe(energy=energy, semiangle_cutoff=angle, soft=False)
        probe.grid.match(potential)
        measured = probe.scan(potential, scan=scan, detectors=detector, max_batch=batch)
    else:  # its aperture is always soft, so its time counts and its image does not
        matrix = abtem.SMatrix(potential=potential, energy=energy, semiangle_cutoff=angle, interpolation=1)
        measured = matrix.scan(scan=scan, detectors=detector, max_batch_multislice=batch)
    return np.asarray(measured.compute().array).reshape(positions.shape[:-1])


def relative_rms(image, truth):
    """Root mean square difference over the mean."""
    return float(np.sqrt(np.mean((image - truth) ** 2)) / truth.mean())


def compare():
    """Measure accuracy and time, print a sentence each and return the numbers of the JSON line."""
    threads = os.cpu_count()
    torch.set_num_threads(threads)
    quick = abtem.config.set({"diagnostics.progress_bar": False, "fft": "fftw", "fftw.threads": 1})
    with quick, dask.config.set(scheduler="threads", num_workers=threads):
        return _compare(threads)


def _compare(threads):
    microscope, period = Microscope(), tilted_perovskite(6, 2, 4)
    cell = period * (2, 1, 1)
    cell.positions[:, 2] += 0.23  # away from abTEM's wrapping plane
    positions = scan_positions(cell, CELL_SHAPE, ((0, 0), period.cell.lengths()[:2]))
    grid = make_grid(cell, microscope, SAMPLING_A, [(microscope.inner_mrad, microscope.outer_mrad)])
    slices = cut_slices(cell, SLICE_A)
    thicknesses = tuple(np.tile(slices.thicknesses_A, PERIODS))
    crystal = displaced_crystal(cell, PERIODS)
    own = {"sampling_A": SAMPLING_A, "slice_A": SLICE_A, "configurations": 1, "seed": SEED, "progress": False}

    def ours(where=positions):
        return multislice_images(cell, microscope, [sum(thicknesses)], where, **own)

    def peer(kind, batch, where=positions):
        return peer_image(kind, peer_potential(crystal, thicknesses, grid.shape), microscope, where, batch)

    candidates = [(kind, batch) for kind in ("probes", "beams") for batch in PEER_BATCHES]
    for call in (ours, lambda p: peer("probes", 32, p), lambda p: peer("beams", 32, p)):
        call(positions[:1])  # compile and plan before timing
    rounds = [(timed(ours), {c: timed(lambda c=c: peer(*c)) for c in candidates}) for _ in range(ROUNDS)]
    seconds = min(taken for (_, taken), _ in rounds)
    best = {c: min(found[c][1] for _, found in rounds) for c in candidates}
    probes, beams = (min(best[kind, batch] for batch in PEER_BATCHES) for kind in ("probes", "beams"))
    image = rounds[0][0][0].mean[0, 0]
    rms = relative_rms(image, peer_image("probes", same_potential(cell, slices, grid), microscope, positions, 64))
    own_rms = relative_rms(image, rounds[0][1][candidates[0]][0])
    print(
        f"One frozen-phonon configuration, {sum(thicknesses):.0f} Å in {len(thicknesses)} slices, grid {grid.shape[0]}×"
        f"{grid.shape[1]}, {positions[..., 0].size} probe positions, single precision, {threads} threads; the best of "
        f"{ROUNDS} interleaved runs, abTEM {abtem.__version__} with FFTW and the best of batches of {PEER_BATCHES}."
    )
    print(f"abTEM: probe multislice {probes:.2f} s, scattering matrix {beams:.2f} s; here {seconds:.2f} s.")
    print(f"rms difference: {100 * rms:.3f} % with the same potential, {100 * own_rms:.2f} % with abTEM's own.")
    return {
        "rms": rms,
        "rms_own_potential": own_rms,
        "speedup_multislice_phonon": min(probes, beams) / seconds,
        "speedup_over_probe_multislice": probes / seconds,
    }


def main():
    """Measure, and print the JSON line."""
    print(json.dumps(compare()))


if __name__ == "__main__":
    main()
