"""Independent truths from abTEM, for the checks that chapters and benchmarks make."""

import abtem
import numpy as np
from scipy.fft import next_fast_len

from unitcell.scattering.debye_waller import rms_displacements

FINER = 3  # abTEM's potential is made on a grid so many times finer, see `exact_potential`


def abtem_image(crystal, microscope, periods, gpts, **options):
    """ABF image of a static crystal by abTEM's real-space multislice, ndarray (rows, columns).

    See `abtem_images`; `periods` is one number.
    """
    return abtem_images(crystal, microscope, [periods], gpts, **options)[0, 0]


def abtem_images(
    crystal, microscope, periods, gpts, *, configurations=1, seed=None, repeats=(1, 1), sampling_A=0.08, slices=4,
    debye_waller_A2=None, window_A=None,
):  # fmt: skip
    """ABF images by abTEM's multislice, static or with Einstein phonons, every atom moving by itself.

    Parameters
    ----------
    crystal : ase.Atoms
        One cell, a B column at the origin.
    microscope : unitcell.scattering.Microscope
        An ideal probe and its detector; aberrations and tilts are not passed on.
    periods : sequence of int, shape (T,)
        Thicknesses in cells along the beam.
    gpts : (rows, columns)
        Probe positions over the window, the first at the origin.
    configurations : int
    seed : int, optional
        Of the phonons; None leaves the lattice static.
    repeats : (int, int)
        Cells in the period of the probe along x and y.
    sampling_A : float
        Largest pixel [Å]: the band limit is λ / 3 of its inverse.
    slices : int
        Slices in √2·a along the beam, 2 or 4: each holds whole atomic planes.
    debye_waller_A2 : mapping, optional
        See `unitcell.scattering.debye_waller.b_factors`.
    window_A : (float, float), optional
        What is scanned along x and y, from the origin [Å]; None for the cell.

    Returns
    -------
    ndarray, shape (configurations, T, rows, columns), fraction of the incident electrons.
    """
    *cell_A, period = crystal.cell.lengths()
    window_A = cell_A if window_A is None else window_A
    count = slices * max(1, round(period / (np.sqrt(2) * 3.9)))
    supercell = crystal * (*repeats, max(periods))
    # Planes stand at multiples of a quarter of √2·a; borders lie halfway, so that vibrations do not cross them.
    supercell.positions[:, 2] += period / count / (2 if slices == 4 else 4)
    grid = [2 * next_fast_len(int(np.ceil(length / sampling_A / 2))) for length in supercell.cell.lengths()[:2]]
    spread = rms_displacements(crystal.get_chemical_symbols(), debye_waller_A2)
    sigma = np.array([spread[symbol] for symbol in supercell.get_chemical_symbols()])
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(configurations):
        moved = supercell.copy()
        if seed is not None:
            moved.positions += generator.normal(size=moved.positions.shape) * sigma[:, None]
        moved.wrap()
        potential = exact_potential(moved, grid, period / count, count)
        images.append(scan(potential, microscope, window_A, gpts)[list(periods)])
    return np.array(images)


def exact_potential(atoms, gpts, slice_A, exit_every):
    """Projected Lobato potential by abTEM, free of the error of its interpolation.

    abTEM spreads each atom over four pixels, which blurs atoms off the grid by about a twelfth of a pixel squared and
    so keeps electrons from high angles; on a three times finer grid, cropped in Fourier space, little of it is left.

    Parameters
    ----------
    atoms : ase.Atoms
    gpts : (int, int)
        Grid along x and y.
    slice_A : float
        Slice thickness [Å].
    exit_every : int
        Exit planes after so many slices.

    Returns
    -------
    abtem.PotentialArray
    """
    fine = [FINER * n for n in gpts]
    potential = abtem.Potential(
        atoms, gpts=fine, slice_thickness=slice_A, parametrization="lobato", projection="infinite"
    )
    array = potential.build().compute(progress_bar=False).array
    for axis, count in zip((1, 2), gpts, strict=True):
        spectrum = np.fft.rfft(array, axis=axis)[(slice(None),) * axis + (slice(count // 2),)]
        array = np.fft.irfft(spectrum, count, axis=axis) / FINER
    extent = tuple(atoms.cell.lengths()[:2])
    return abtem.PotentialArray(
        array.astype(np.float32), slice_thickness=slice_A, extent=extent, exit_planes=exit_every
    )


def scan(potential, microscope, window_A, gpts):
    """Scan a probe with a hard aperture, as in the scattering matrix: abTEM's default one is soft.

    Parameters
    ----------
    potential : abtem.Potential or abtem.PotentialArray
        With exit planes.
    microscope : unitcell.scattering.Microscope
    window_A : (float, float)
        Window along x and y [Å] from the origin.
    gpts : (rows, columns)

    Returns
    -------
    ndarray, shape (exit planes, rows, columns); the first is before the crystal.
    """
    probe = abtem.Probe(energy=microscope.energy_eV, semiangle_cutoff=microscope.semiangle_mrad, soft=False)
    probe.grid.match(potential)
    positions = abtem.GridScan((0, 0), tuple(window_A), gpts=gpts[::-1], endpoint=False)
    detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
    measured = probe.scan(potential, scan=positions, detectors=detector).compute(progress_bar=False)
    return measured.array.transpose(0, 2, 1)
