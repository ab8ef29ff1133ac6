"""Independent truths from abTEM, for the checks that chapters and benchmarks make.

abTEM's probe is as wide as its supercell: on few unit cells it meets itself again, and on many it takes long. But the
mean over k-points of one cell is the image of a probe alone (equation 3 of `scattering.multislice`), and abTEM does
take waves of any k through a potential: those of the aperture's beams in a crystal tilted by λk.
"""

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
    crystal, microscope, periods, gpts, *, configurations=1, seed=None, opposed=False, repeats=(1, 1), sampling_A=0.08,
    slices=4, debye_waller_A2=None, window_A=None, k_points=None,
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
    opposed : bool
        Whether every second configuration is displaced by the opposite of the one before.
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
    k_points : array (configurations, 2), optional
        One for each configuration, in fractions of the supercell's reciprocal lattice; by default abTEM's own probe
        is scanned, which is at k = 0.

    Returns
    -------
    ndarray, shape (configurations, T, rows, columns), fraction of the incident electrons; with `k_points` weighted by
    the beams of each, so that their mean is that of equation (3) of `unitcell.scattering.multislice`.
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
    images, beams = [], []
    for number in range(configurations):
        moved = supercell.copy()
        if seed is not None:
            if not (opposed and number % 2):
                move = generator.normal(size=moved.positions.shape) * sigma[:, None]
            moved.positions += -move if opposed and number % 2 else move
        moved.wrap()
        potential = exact_potential(moved, grid, period / count, count)
        if k_points is None:
            images.append(scan(potential, microscope, window_A, gpts)[list(periods)])
            continue
        found, seen = scan_at(potential, microscope, window_A, gpts, k_points[number], list(periods))
        images.append(found)
        beams.append(seen)
    weights = np.array(beams) / np.mean(beams) if beams else np.ones(configurations)
    return np.array(images) * weights[:, None, None, None]


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


def scan_at(potential, microscope, window_A, gpts, k_point, planes):
    """What `scan` gives, at one point of the supercell's Brillouin zone, by way of the scattering matrix.

    Parameters
    ----------
    potential : abtem.PotentialArray
        With exit planes.
    microscope, window_A, gpts
        See `scan`.
    k_point : (float, float)
        In fractions of the reciprocal lattice.
    planes : sequence of int, shape (T,)
        Exit planes that are wanted; 0 is before the crystal.

    Returns
    -------
    images : ndarray, shape (T, rows, columns)
    beams : int
        How many the aperture holds.
    """
    k = np.divide(k_point, potential.extent)
    qx, qy = (np.fft.fftfreq(n, length / n) for n, length in zip(potential.gpts, potential.extent, strict=True))
    q = np.stack(np.meshgrid(qx + k[0], qy + k[1], indexing="ij"), axis=-1)
    angle_mrad = np.hypot(*np.moveaxis(q, -1, 0)) * microscope.wavelength_A * 1e3
    aperture = angle_mrad <= microscope.semiangle_mrad
    hits = (angle_mrad >= microscope.inner_mrad) & (angle_mrad <= microscope.outer_mrad)
    matrix = _scattering_matrix(potential, microscope, k, aperture, planes)[..., hits]  # (T, G, H)
    steps = [np.arange(n) * length / n for n, length in zip(gpts[::-1], window_A, strict=True)]
    positions = np.stack(np.meshgrid(*steps, indexing="xy"), axis=-1).reshape(-1, 2)
    probes = np.exp(-2j * np.pi * positions @ q[aperture].T) / np.sqrt(aperture.sum())
    images = [(np.abs(probes @ plane) ** 2).sum(axis=1).reshape(gpts) for plane in matrix]
    return np.array(images), int(aperture.sum())


def _scattering_matrix(potential, microscope, k, aperture, planes):
    """What each beam of the aperture becomes, complex (T, beams, X, Y), by abTEM's multislice."""
    beams = np.zeros((aperture.sum(), *aperture.shape), dtype=np.complex64)
    beams[np.arange(len(beams)), *np.nonzero(aperture)] = aperture.size
    tilt = 1e3 * np.arctan(microscope.wavelength_A * k)
    waves = abtem.Waves(
        np.fft.ifft2(beams).astype(np.complex64), energy=microscope.energy_eV, extent=potential.extent,
        ensemble_axes_metadata=[abtem.core.axes.OrdinalAxis(values=tuple(range(len(beams))))],
        metadata={"base_tilt_x": float(tilt[0]), "base_tilt_y": float(tilt[1])},
    )  # fmt: skip
    behind = waves.multislice(potential).compute(progress_bar=False).array
    return np.fft.fft2(behind[planes]) / aperture.size
