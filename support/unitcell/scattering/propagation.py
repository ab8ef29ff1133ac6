"""Waves through the slices of a crystal, batch by batch (equations 1 and 2 of `multislice`)."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import torch

from unitcell.errors import InputError
from unitcell.scattering.memory import Budget
from unitcell.scattering.slices import SLICES_AT_ONCE, transmission_functions
from unitcell.scattering.wave_grid import as_tensor
from unitcell.scattering.wave_transforms import waves_for

POSITIONS_AT_ONCE = 128


class Propagation:
    """Equation (1) for batches of waves, and equation (2) for the detectors, of one crystal under one microscope.

    Parameters
    ----------
    crystal : ase.Atoms
    grid : WaveGrid
    slices : Slices
    planes : ndarray of int, shape (T,)
        Numbers of slices after which the detectors look.
    positions : ndarray, shape (P, 2)
        Probe positions [Å].
    rings : sequence of (inner, outer)
        Detectors [mrad].
    device, dtype : torch device and real dtype
    configurations : int
        How many configurations there will be.
    static : bool
        Whether the atoms are at rest.
    """

    def __init__(self, crystal, grid, slices, planes, positions, rings, device, dtype, configurations, static):
        self.crystal, self.grid, self.slices, self.positions = crystal, grid, slices, positions
        self.planes, self.device, self.dtype, self.configurations = planes, device, dtype, configurations
        self.static, self.transforms = static, waves_for(device)
        self.last = int(planes.max())
        self.aperture = grid.aperture()  # two of (G,)
        self.hits, weights = grid.detectors(rings)  # two of (H,)
        self.weights = as_tensor(weights, dtype, device)  # (H, D)
        kinds, self.kind = np.unique(slices.thicknesses_A.round(6), return_inverse=True)
        self.propagators = [as_tensor(grid.propagator(thickness), dtype, device) for thickness in kinds]

    def cheaper(self, usable):
        """The kind of wave that takes less time and fits."""
        self.use("beams")
        fewer = len(self.aperture[0]) < len(self.positions)
        return "beams" if fewer and self.budget().needed(1) <= usable else "probes"

    def use(self, waves):
        """Settle which waves are propagated."""
        if waves not in ("beams", "probes"):
            raise InputError(f"waves = {waves!r} is none: give 'auto', 'beams' or 'probes'.")
        self.waves = waves
        self.wave_count = len(self.aperture[0]) if waves == "beams" else len(self.positions)

    def budget(self):
        """Bytes that the run needs, see `Budget`."""
        real = torch.finfo(self.dtype).bits // 8
        complex_, points, planes = 2 * real, int(np.prod(self.grid.shape)), len(self.planes)
        slices, threads = self.stored_slices, torch.get_num_threads()
        fixed = complex_ * points * (slices + len(self.propagators) + 4 * min(slices, SLICES_AT_ONCE * threads))
        if self.waves == "beams":
            chunk = min(len(self.positions), POSITIONS_AT_ONCE * threads)
            fixed += complex_ * len(self.hits[0]) * (2 * planes * len(self.aperture[0]) + 4 * chunk)
            fixed += complex_ * len(self.aperture[0]) * 8 * chunk
        results = real * self.configurations * planes * self.weights.shape[1] * len(self.positions)
        per_wave = complex_ * (self.transforms[1] * points + planes * len(self.hits[0]) + len(self.aperture[0]))
        return Budget(per_wave, fixed, results)

    @property
    def stored_slices(self):
        """Transmission functions kept at once: one period's where it repeats unchanged, all of them otherwise."""
        return min(self.last, len(self.slices.thicknesses_A)) if self.static else self.last

    def images(self, group, displaced, batches, run, bar):
        """Images (C, D, T, P) of some configurations, and the share within the band limit (T,), summed over them.

        `displaced` is a function of a configuration and a number of periods: positions (periods, atoms, 2).
        """
        transmissions = self._transmissions(group, displaced, run)
        shape = (len(group), batches.waves, *self.grid.shape)
        columns = self.grid.wave_frequencies[1].shape[1]
        buffers = SimpleQueue()  # planned here, because FFTW plans on one thread only
        for _ in range(batches.workers):
            buffers.put(self.transforms[0](shape, columns, self.dtype, self.device))
        images, shares, done = None, 0, 0
        starts = range(0, self.wave_count, batches.waves)
        for hits, share in run(lambda start: self._propagate(start, transmissions, buffers), starts):
            if images is None:  # one array filled in place: a list of blocks would need as much again
                images = hits.new_empty((*hits.shape[:2], self.wave_count, hits.shape[3]))
            images[:, :, done : done + hits.shape[2]] = hits
            done, shares = done + hits.shape[2], shares + share
            bar.update(len(group) * hits.shape[2])
        if self.waves == "beams":
            images = self._scan(images, run)
        return images.permute(0, 3, 1, 2), shares / self.wave_count

    def _transmissions(self, group, displaced, run):
        """Transmission functions (C, S, X, Y) of each configuration."""
        count = self.stored_slices
        periods = max(1, -(-count // len(self.slices.thicknesses_A)))
        shape = (len(group), count, *self.grid.shape)
        found = torch.empty(shape, dtype=self.propagators[0].dtype, device=self.device)
        for number, out in zip(group, found, strict=True):
            positions = displaced(number, periods)

            def fill(first, out=out, positions=positions):
                block = out[first : first + SLICES_AT_ONCE]
                transmission_functions(self.crystal, self.slices, self.grid, positions, block, first=first)

            list(run(fill, range(0, count, SLICES_AT_ONCE)))
        return found

    def _incident(self, start, stop):
        """Amplitudes (B, G) of the aperture's beams in a batch of waves."""
        if self.waves == "beams":
            amplitudes = np.eye(stop - start, len(self.aperture[0]), start, dtype=complex)
        else:
            amplitudes = self.grid.probe_coefficients(self.positions[start:stop], self.aperture)
        return as_tensor(amplitudes, self.dtype, self.device)

    def _propagate(self, start, transmissions, buffers):
        """Equation (1) for one batch: what the detectors see of every wave, and the share within the band limit.

        Returns (C, T, B, D) electrons for probes, (C, T, B, H) amplitudes for beams; and (T,) summed over C and B.
        """
        fields = buffers.get()
        stop = min(start + fields.wave.shape[1], self.wave_count)
        fields.band.zero_()
        fields.band[:, : stop - start, *self.aperture] = self._incident(start, stop)
        seen = {}
        for done in range(self.last + 1):
            if done in self.planes:
                seen[done] = self._detect(fields.band[:, : stop - start])
            if done < self.last:
                fields.to_real()
                fields.wave.mul_(transmissions[:, None, done % transmissions.shape[1]])
                fields.to_band()
                fields.band.mul_(self.propagators[self.kind[done % len(self.kind)]])
        buffers.put(fields)
        hits, shares = zip(*(seen[plane] for plane in self.planes), strict=True)
        return torch.stack(hits, dim=1), torch.stack(shares)

    def _detect(self, band):
        """Detected electrons or amplitudes of each wave, and the electrons of all waves together."""
        amplitudes = band[:, :, *self.hits]  # (C, B, H)
        everything = _intensity(band).sum()
        return (amplitudes if self.waves == "beams" else _intensity(amplitudes) @ self.weights), everything

    def _scan(self, matrix, run):
        """Equation (2): electrons (C, T, positions, D) from the scattering matrix (C, T, G, H)."""

        def block(start):
            some = self.positions[start : start + POSITIONS_AT_ONCE]
            amplitudes = as_tensor(self.grid.probe_coefficients(some, self.aperture), self.dtype, self.device)
            per_plane = [_intensity(amplitudes @ matrix[:, t]) @ self.weights for t in range(matrix.shape[1])]
            return torch.stack(per_plane, dim=1)

        return torch.cat(list(run(block, range(0, len(self.positions), POSITIONS_AT_ONCE))), dim=2)


def _intensity(amplitudes):
    return torch.view_as_real(amplitudes).square().sum(dim=-1)


@contextmanager
def side_by_side(batches):
    """A map over batches: one thread each, PyTorch's own threads at rest meanwhile and set back afterwards.

    Small FFTs gain little from being shared between threads, and lose much where another program uses a core.
    """
    if batches.workers == 1:
        yield map
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(batches.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)
