"""Frozen-phonon multislice in real space: images of any crystal, of any thickness, periodic along the beam or not.

The crystal is cut into slices. Slice s multiplies the wave by t_s = exp(iσv_s) and free space then
takes it on by its thickness Δz_s (Cowley and Moodie 1957; Kirkland, Advanced Computing in Electron
Microscopy, chapters 6 and 7):

    ψ_{s+1} = F⁻¹ P_s F [t_s ψ_s],   P_s(q) = exp(−iπλΔz_s(|q|² + 2 q·K)) for |q| ≤ 2/3 Nyquist.   (1)

The electrons on a detector D are Σ_{h ∈ D} |ψ(h)|². The steps are linear in the wave, so a scan needs
no more waves than the aperture has beams: with S_hg the wave that beam g of the aperture becomes,

    I(r) = Σ_{h ∈ D} |Σ_g S_hg a_g(r)|²,   a_g(r) = exp(−2πi g·r − iχ_g) / √G                     (2)

is the image of every probe position r, exactly. (A scan of the whole cell at its Nyquist distance has
16/π = 5.1 times more positions than the aperture has beams.) Either kind of wave is propagated,
whichever are fewer. Thermal motion is a mean over configurations of displaced atoms, each one a
snapshot that an electron sees frozen (Loane, Xu and Silcox, Acta Cryst. A 47, 267, 1991).

A probe on a periodic cell meets copies of itself on the next cells. With all q shifted by k, the mean

    I(r) = Σ_k G_k I_k(r) / Σ_k G_k                                                              (3)

over N k-points evenly spread over the Brillouin zone is the image of a probe alone on N cells: exactly
where atoms are at rest, and where they move every k may have configurations of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from unitcell.errors import InputError
from unitcell.scattering.debye_waller import rms_displacements
from unitcell.scattering.memory import plan_batches, usable_bytes
from unitcell.scattering.propagation import Propagation, side_by_side
from unitcell.scattering.slices import cut_slices, displaced_positions
from unitcell.scattering.wave_grid import make_grid


@dataclass(frozen=True)
class MultisliceImages:
    """What a frozen-phonon multislice measured.

    Parameters
    ----------
    samples : ndarray, shape (configurations, detectors, thicknesses, *scan)
        Fraction of the incident electrons that reach each detector.
    thicknesses_A : ndarray, shape (thicknesses,)
        Thicknesses used [Å]: those of the slices nearest to the wanted ones.
    within_band : ndarray, shape (thicknesses,)
        Share of the electrons still within the band limit, the mean over the probe positions (over the whole
        cell for "beams"); the rest went to higher angles and is lost.
    waves : str
        Which kind of wave was propagated, "beams" or "probes".
    """

    samples: np.ndarray
    thicknesses_A: np.ndarray
    within_band: np.ndarray
    waves: str

    @property
    def mean(self):
        """Images, the mean over configurations: ndarray (detectors, thicknesses, *scan)."""
        return self.samples.mean(axis=0)

    @property
    def standard_error(self):
        """Standard error of the mean, same shape; nan for a single configuration."""
        count = len(self.samples)
        if count == 1:
            return np.full(self.samples.shape[1:], np.nan)
        return self.samples.std(axis=0, ddof=1) / np.sqrt(count)


def scan_positions(crystal, shape, region_A=None):
    """Probe positions on a grid.

    Parameters
    ----------
    crystal : ase.Atoms
    shape : (rows, columns)
        Rows along y, columns along x.
    region_A : ((x0, y0), (x1, y1)), optional
        Two opposite corners [Å], the second excluded; the whole cell where not given.

    Returns
    -------
    ndarray, shape (rows, columns, 2), x and y [Å]
    """
    (x0, y0), (x1, y1) = region_A if region_A is not None else ((0, 0), crystal.cell.lengths()[:2])
    y, x = np.meshgrid(
        *(a + (b - a) * np.arange(n) / n for a, b, n in ((y0, y1, shape[0]), (x0, x1, shape[1]))), indexing="ij"
    )
    return np.stack([x, y], axis=-1)


def multislice_images(
    crystal, microscope, thicknesses_A, positions_A, *, detectors_mrad=None, sampling_A=0.08, slice_A=1.0,
    configurations=None, opposed=False, debye_waller_A2=None, seed=0, waves="auto", k_point=(0.0, 0.0),
    memory_limit_GB=None, device="cpu", dtype=torch.float32, progress=True,
):  # fmt: skip
    """Annular-detector images by multislice, static or with frozen phonons.

    Parameters
    ----------
    crystal : ase.Atoms
        Orthogonal supercell, beam along z, periodic across the beam. It repeats along the beam where
        ``crystal.pbc[2]``; every repeat then gets displacements of its own.
    microscope : Microscope
        The source's size is not applied here.
    thicknesses_A : sequence of float, shape (T,)
        Thicknesses [Å], all from one pass. Each is taken at the nearest slice.
    positions_A : array of float, shape (*scan, 2)
        Probe positions x, y [Å].
    detectors_mrad : sequence of (inner, outer), optional
        Annular detectors [mrad], both limits included; the microscope's own where not given.
    sampling_A : float
        Largest distance between grid points [Å]; numbers of points are products of 2, 3 and 5.
    slice_A : float
        Slice thickness [Å].
    configurations : int or sequence of int, optional
        How many frozen-phonon configurations, or their numbers: configuration n is the same in every run
        with the same seed. A static crystal where not given.
    opposed : bool
        Whether configurations 2n and 2n + 1 are displaced by opposite amounts. What is linear in displacements then
        cancels: means of such pairs differ by half as much as those of other two. (`standard_error`, which takes
        configurations for independent, is then too large.)
    debye_waller_A2 : mapping of str to float, optional
        B [Å²] that replaces `debye_waller`'s of 300 K; the rms displacement along one axis is √(B / 8π²).
    seed : int
    waves : {"auto", "beams", "probes"}
        Which waves to propagate, see equation (2).
    k_point : (float, float)
        Of equation (3), as fractions of the reciprocal lattice.
    memory_limit_GB : float, optional
        Memory that may be used [GB]; four fifths of what is free where not given.
    device, dtype : torch device and real dtype
    progress : bool
        Show a progress bar.

    Returns
    -------
    MultisliceImages

    Raises
    ------
    InputError
        A cell, sampling, thickness, position, detector or displacement that cannot be used, or too little memory.
    """
    positions = _checked_positions(positions_A)
    rings = _checked_rings(detectors_mrad, microscope)
    numbers = _checked_configurations(configurations)
    grid = make_grid(crystal, microscope, sampling_A, rings, k_point)
    slices = cut_slices(crystal, slice_A)
    planes, depths = slices.exit_planes(thicknesses_A)
    static, flat = configurations is None, positions.reshape(-1, 2)
    displaced = _displacements(crystal, debye_waller_A2, seed, static, opposed)
    job = Propagation(crystal, grid, slices, planes, flat, rings, device, dtype, len(numbers), static)
    usable = usable_bytes(device, memory_limit_GB)
    job.use(waves if waves != "auto" else job.cheaper(usable))
    batches = plan_batches(job.budget(), job.wave_count, len(numbers), device, usable)
    samples, within = [], 0
    with (
        tqdm(total=len(numbers) * job.wave_count, unit="wave", disable=not progress) as bar,
        side_by_side(batches) as run,
    ):
        for start in range(0, len(numbers), batches.configurations):
            group = numbers[start : start + batches.configurations]
            images, shares = job.images(group, displaced, batches, run, bar)
            samples.append(images.cpu().numpy())
            within = within + shares.cpu().numpy()
    samples = np.concatenate(samples).reshape(len(numbers), len(rings), len(planes), *positions.shape[:-1])
    return MultisliceImages(samples, depths, within / len(numbers), job.waves)


def _displacements(crystal, debye_waller_A2, seed, static, opposed):
    """Function of a configuration and a number of periods: positions (periods, atoms, 2), see `displaced_positions`."""
    sigmas_A = rms_displacements(crystal.get_chemical_symbols(), debye_waller_A2)

    def displaced(number, periods):
        own, sign = (number // 2, 1 - 2 * (number % 2)) if opposed else (number, 1)
        return displaced_positions(crystal, periods, None if static else sigmas_A, (seed, own), sign)

    return displaced


def _checked_positions(positions_A):
    positions = np.asarray(positions_A, dtype=float)
    if positions.ndim < 2 or positions.shape[-1] != 2 or positions.size == 0:
        raise InputError(f"Probe positions of shape {positions.shape} cannot be: give x and y [Å] as an (n, 2) array.")
    if not np.isfinite(positions).all():
        bad = np.argwhere(~np.isfinite(positions).all(axis=-1))[0].tolist()
        raise InputError(f"Probe position {bad} is {positions[tuple(bad)].tolist()}: give finite numbers [Å].")
    return positions


def _checked_rings(detectors_mrad, microscope):
    if detectors_mrad is None:
        return [(microscope.inner_mrad, microscope.outer_mrad)]
    if len(detectors_mrad) == 0:
        raise InputError("detectors_mrad is empty: give one or more (inner, outer) [mrad].")
    for inner, outer in detectors_mrad:
        if not 0 <= inner < outer < np.inf:
            raise InputError(f"A detector from {inner:g} to {outer:g} mrad collects nothing: give 0 ≤ inner < outer.")
    return list(detectors_mrad)


def _checked_configurations(configurations):
    """Numbers of the configurations; a static crystal is one."""
    if configurations is None:
        return [0]
    numbers = [int(n) for n in (range(int(configurations)) if np.ndim(configurations) == 0 else configurations)]
    if not numbers or min(numbers) < 0:
        raise InputError(f"configurations = {configurations} cannot be: give 1 or more, or None for a static crystal.")
    return numbers
