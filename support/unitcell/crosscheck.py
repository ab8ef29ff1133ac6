"""Independent truths from peers, for the checks that chapters make in the page."""

import abtem
import numpy as np
from scipy.fft import next_fast_len

from unitcell.scattering.debye_waller import rms_displacements


def abtem_image(crystal, microscope, periods, gpts, *, sampling_A=0.08, slice_A=1.0):
    """ABF image of a static crystal by abTEM's real-space multislice.

    Parameters
    ----------
    crystal : ase.Atoms
        One cell; also the period of the probe.
    microscope : unitcell.scattering.Microscope
    periods : int
        Thickness in cells along the beam.
    gpts : (rows, columns)
        Probe positions over the cell, the first at the origin.
    sampling_A, slice_A : float
        Real-space sampling and slice thickness [Å].

    Returns
    -------
    ndarray (rows, columns), fraction of the incident electrons.
    """
    potential = abtem.Potential(
        crystal * (1, 1, periods),
        sampling=sampling_A,
        slice_thickness=slice_A,
        parametrization="lobato",
        projection="infinite",
    ).build()
    # A hard aperture, as in the scattering matrix: abTEM's default one is soft.
    probe = abtem.Probe(energy=microscope.energy_eV, semiangle_cutoff=microscope.semiangle_mrad, soft=False)
    probe.grid.match(potential)
    width, height = crystal.cell.lengths()[:2]
    scan = abtem.GridScan((0, 0), (width, height), gpts=gpts[::-1], endpoint=False)
    detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
    return probe.scan(potential, scan=scan, detectors=detector).compute(progress_bar=False).array.T


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
    fine = abtem.Potential(
        atoms, gpts=[3 * n for n in gpts], slice_thickness=slice_A, parametrization="lobato", projection="infinite"
    )
    array = fine.build().compute(progress_bar=False).array
    for axis, count in zip((1, 2), gpts, strict=True):
        spectrum = np.fft.rfft(array, axis=axis)[(slice(None),) * axis + (slice(count // 2),)]
        array = np.fft.irfft(spectrum, count, axis=axis) / 3
    extent = tuple(atoms.cell.lengths()[:2])
    return abtem.PotentialArray(
        array.astype(np.float32), slice_thickness=slice_A, extent=extent, exit_planes=exit_every
    )


def frozen_phonon_images(
    crystal, microscope, periods, gpts, configurations, seed, repeats=(1, 1), *, sampling_A=0.08, slices=2,
    debye_waller_A2=None,
):  # fmt: skip
    """ABF images by abTEM's multislice with Einstein phonons, every atom moving by itself.

    Parameters
    ----------
    crystal : ase.Atoms
        One cell, a B column at the origin.
    microscope : unitcell.scattering.Microscope
    periods : sequence of int, shape (T,)
        Thicknesses in cells along the beam.
    gpts : (rows, columns)
        Probe positions over the cell, the first at the origin.
    configurations, seed : int
    repeats : (int, int)
        Cells in the period of the probe along x and y.
    sampling_A : float
        Largest pixel [Å]: the band limit is λ / 3 of its inverse.
    slices : int
        Slices in √2·a along the beam.
    debye_waller_A2 : mapping, optional
        See `unitcell.scattering.debye_waller.b_factors`.

    Returns
    -------
    ndarray, shape (configurations, T, rows, columns), fraction of the incident electrons.
    """
    width, height, period = crystal.cell.lengths()
    slice_A = period / (slices * round(period / (np.sqrt(2) * 3.9)))
    supercell = crystal * (*repeats, max(periods))
    # Slices are centred on the atomic planes, so that vibrations do not move atoms from one into the next.
    supercell.positions[:, 2] += slice_A / 4
    spread = rms_displacements(crystal.get_chemical_symbols(), debye_waller_A2)
    sigma = np.array([spread[symbol] for symbol in supercell.get_chemical_symbols()])
    grid = [next_fast_len(int(np.ceil(length / sampling_A)) + 1) // 2 * 2 for length in supercell.cell.lengths()[:2]]
    probe = abtem.Probe(energy=microscope.energy_eV, semiangle_cutoff=microscope.semiangle_mrad, soft=False)
    scan = abtem.GridScan((0, 0), (width, height), gpts=gpts[::-1], endpoint=False)
    detector = abtem.AnnularDetector(microscope.inner_mrad, microscope.outer_mrad)
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(configurations):
        moved = supercell.copy()
        moved.positions += generator.normal(size=moved.positions.shape) * sigma[:, None]
        moved.wrap()
        potential = exact_potential(moved, grid, slice_A, round(period / slice_A))
        probe.grid.match(potential)
        measured = probe.scan(potential, scan=scan, detectors=detector).compute(progress_bar=False)
        images.append(measured.array[list(periods)].transpose(0, 2, 1))
    return np.array(images)
