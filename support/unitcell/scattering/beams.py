"""Beams of a periodic crystal: points of its Brillouin zone, which beams count, and which of them mix."""

import itertools

import numpy as np

from unitcell.errors import InputError
from unitcell.scattering.potential import NEGLIGIBLE

RINGS_MRAD = 150.0  # upper Laue zones whose ring lies beyond are too weak to count


def brillouin_zone(k_points, lengths, inversion=False):
    """Points of the Brillouin zone of the cell, with their weights.

    Parameters
    ----------
    k_points : (int, int) or ndarray (n, 2)
        A Monkhorst-Pack grid along x and y, or explicit points in units of the reciprocal cell. The odd grid
        (3, 1) is that of a probe that repeats after 3 cells, as in a multislice of such a supercell.
    lengths : (float, float)
        Cell along x and y [Å].
    inversion : bool
        Leave out −k where k stands for it: exact where the projection has an inversion centre at the origin.

    Returns
    -------
    list of (ndarray (2,) [1/Å], float)
    """
    given = np.asarray(k_points)
    if given.shape == (2,):
        axes = [(np.arange(n) + 0.5) / n - 0.5 for n in given]
        given = np.array(list(itertools.product(*axes)))
    points = given / np.asarray(lengths)[:2]
    if not inversion:
        return [(point, 1.0) for point in points]
    half = [point for point in points if tuple(point) > (0.0, 0.0)]
    centre = [point for point in points if not point.any()]
    if 2 * len(half) + len(centre) != len(points):
        return [(point, 1.0) for point in points]
    return [(point, 2.0) for point in half] + [(point, 1.0) for point in centre]


def supercell_points(repeats):
    """Points [reciprocal cells] of a probe that repeats after so many cells along x and y: ndarray (n, 2)."""
    return np.array([(i / repeats[0], j / repeats[1]) for i in range(repeats[0]) for j in range(repeats[1])])


def fibonacci_points(count):
    """A rank-1 lattice of k-points [reciprocal cells]: as even as a square grid of about the same number.

    Parameters
    ----------
    count : int
        A Fibonacci number: 1, 2, 3, 5, 8, 13 or 21.

    Returns
    -------
    ndarray (count, 2), within ±½.
    """
    numbers = [1, 1, 2, 3, 5, 8, 13, 21]
    if count not in numbers:
        raise InputError(f"{count} is not a number of lattice k-points: give one of {numbers[1:]}.")
    index = np.arange(count)
    step = numbers[numbers.index(count) - 1] if count > 1 else 1
    return np.stack([(index + 0.5) / count % 1, (index * step + 0.5) / count % 1], axis=1) - 0.5


def disc(lengths, k, radius):
    """Indices (h, k) with |k + g| ≤ radius [1/Å]: ndarray of int (n, 2)."""
    reach = [int(np.ceil(radius * length)) + 1 for length in lengths[:2]]
    indices = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    return indices[np.hypot(*(indices / np.asarray(lengths)[:2] + k).T) <= radius]


def excitation_errors(beams, k, lengths, wavelength_A, tilt=(0.0, 0.0)):
    """Excitation errors s = l/c − λ|k + g|²/2 − (k + g)·θ [1/Å] of beams (h, k, l), ndarray (n,).

    θ [rad] is the tilt of the crystal; the small-angle form of the distance to the Ewald sphere.
    """
    q = beams[:, :2] / lengths[:2] + k
    return beams[:, 2] / lengths[2] - wavelength_A * (q**2).sum(axis=1) / 2 - q @ np.asarray(tilt)


def select_beams(lengths, k, microscope, cutoff_mrad, excitation_per_A=0.0):
    """Beams (h, k, l) that count.

    All of the zeroth Laue zone up to the cut-off, and those of upper zones that come close to the Ewald
    sphere: their ring at √(2l/λc) takes electrons out of a static lattice.

    Parameters
    ----------
    lengths : ndarray (3,)
    k : ndarray (2,) [1/Å]
    microscope : unitcell.scattering.Microscope
    cutoff_mrad : float
    excitation_per_A : float
        Largest excitation error of a beam of an upper zone [1/Å]; 0 leaves upper zones out.

    Returns
    -------
    ndarray of int (n, 3)
    """
    wavelength = microscope.wavelength_A
    zeroth = disc(lengths, k, cutoff_mrad * 1e-3 / wavelength)
    chosen = [np.column_stack([zeroth, np.zeros(len(zeroth), dtype=int)])]
    layer = 1
    while excitation_per_A > 0 and ring_mrad(layer, lengths, wavelength) <= RINGS_MRAD:
        radius = np.sqrt(2 * (layer / lengths[2] + excitation_per_A) / wavelength)
        plane = disc(lengths, k, radius)
        beams = np.column_stack([plane, np.full(len(plane), layer)])
        chosen.append(beams[np.abs(excitation_errors(beams, k, lengths, wavelength)) <= excitation_per_A])
        layer += 1
    return np.concatenate(chosen)


def ring_mrad(layer, lengths, wavelength_A):
    """Angle at which an upper Laue zone crosses the Ewald sphere [mrad]."""
    return 1e3 * np.sqrt(2 * layer * wavelength_A / lengths[2])


def independent_blocks(beams, coefficients, grid):
    """Masks of the beams that the potential does not couple.

    Where the crystal repeats after half a cell (as c⁻ patterns do along the body diagonal), every second
    coefficient vanishes and the beams fall into classes that never mix.

    Parameters
    ----------
    beams : ndarray of int (n, 3)
    coefficients : tensor (batch, H, K, L)
    grid : sequence of three ndarrays, the indices along each axis

    Returns
    -------
    list of ndarray of bool (n,)
    """
    size = coefficients.detach().abs().amax(dim=0).cpu().numpy()
    labels = np.zeros(len(beams), dtype=int)
    h, k, layer = np.meshgrid(*grid, indexing="ij")
    for half in itertools.product((0, 1), repeat=3):
        odd = (half[0] * h + half[1] * k + half[2] * layer) % 2 == 1
        if any(half) and size[odd].max(initial=0) <= NEGLIGIBLE * size.max():
            labels = 2 * labels + (beams @ half) % 2
    return [labels == label for label in np.unique(labels)]


def require_sampled(lengths, microscope, cutoff_mrad, detectors_mrad):
    """Refuse a detector or an aperture beyond the cut-off."""
    needed = max(microscope.semiangle_mrad, *(outer for _, outer in detectors_mrad))
    needed += np.hypot(microscope.beam_tilt_x_mrad, microscope.beam_tilt_y_mrad)
    if needed > cutoff_mrad:
        raise InputError(f"The cut-off of {cutoff_mrad:g} mrad leaves out beams at {needed:g} mrad: raise cutoff_mrad.")
