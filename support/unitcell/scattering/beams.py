"""Beams of a periodic crystal: points of its Brillouin zone, which beams count, and which of them mix."""

import itertools

import numpy as np
import torch

from unitcell.errors import InputError
from unitcell.scattering.microscope import require_ring
from unitcell.scattering.potential import vanish

RINGS_MRAD = 150.0  # upper Laue zones whose ring lies beyond are too weak to count
PROBE_BEAMS = 5  # fewest beams on a radius of the aperture: below, neighbouring probes overlap


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
        Points that do not come in pairs ±k stay as they are.

    Returns
    -------
    list of (ndarray (2,) [1/Å], float)
    """
    given = np.asarray(k_points)
    if given.shape == (2,):
        axes = [(np.arange(n) + 0.5) / n - 0.5 for n in given]
        given = np.array(list(itertools.product(*axes)))
    weights = _pair_weights(given) if inversion else np.ones(len(given))
    points = given / np.asarray(lengths)[:2]
    return [(point, float(weight)) for point, weight in zip(points, weights, strict=True) if weight]


def _pair_weights(points):
    """2 for the first of two points ±k, 0 for the second, 1 for a point that is its own −k: ndarray (n,)."""
    sums = points[:, None] + points
    opposite = (np.abs(sums - np.round(sums)) < 1e-9).all(axis=-1)  # k and −k up to a reciprocal vector
    if not (opposite.sum(axis=1) == 1).all():
        return np.ones(len(points))
    partner, own = opposite.argmax(axis=1), np.arange(len(points))
    return np.where(partner > own, 2.0, np.where(partner == own, 1.0, 0.0))


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
    """Excitation errors s = −l/c − λ|k + g|²/2 − (k + g)·θ [1/Å] of beams (h, k, l), ndarray (n,).

    θ [rad] is the tilt of the crystal; the small-angle form of the distance to the Ewald sphere. Electrons move
    along +z, so the sphere meets the zones with l < 0.
    """
    q = beams[:, :2] / lengths[:2] + k
    return -beams[:, 2] / lengths[2] - wavelength_A * (q**2).sum(axis=1) / 2 - q @ np.asarray(tilt)


def select_beams(lengths, k, microscope, cutoff_mrad, excitation_per_A=0.0, tilt=(0.0, 0.0)):
    """Beams (h, k, l) that count.

    All of the zeroth Laue zone up to the cut-off, and those of upper zones that come close to the Ewald
    sphere: their ring at √(2|l|λ/c) takes electrons out of a static lattice.

    Parameters
    ----------
    lengths : ndarray (3,)
    k : ndarray (2,) [1/Å]
    microscope : unitcell.scattering.Microscope
    cutoff_mrad : float
    excitation_per_A : float
        Largest excitation error of a beam of an upper zone [1/Å]; 0 leaves upper zones out.
    tilt : (float, float)
        Tilt of the crystal [rad], which moves the rings.

    Returns
    -------
    ndarray of int (n, 3)
    """
    wavelength = microscope.wavelength_A
    zeroth = disc(lengths, k, cutoff_mrad * 1e-3 / wavelength)
    chosen = [np.column_stack([zeroth, np.zeros(len(zeroth), dtype=int)])]
    layer, lean = 1, float(np.hypot(*tilt)) / wavelength
    while excitation_per_A > 0 and ring_mrad(layer, lengths, wavelength) <= RINGS_MRAD:
        radius = lean + np.sqrt(lean**2 + 2 * (layer / lengths[2] + excitation_per_A) / wavelength)
        plane = disc(lengths, k, radius)
        beams = np.column_stack([plane, np.full(len(plane), -layer)])
        chosen.append(beams[np.abs(excitation_errors(beams, k, lengths, wavelength, tilt)) <= excitation_per_A])
        layer += 1
    return np.concatenate(chosen)


def ring_mrad(layer, lengths, wavelength_A):
    """Angle at which an upper Laue zone crosses the Ewald sphere [mrad]."""
    return 1e3 * np.sqrt(2 * layer * wavelength_A / lengths[2])


def centrings(coefficients, grid):
    """Halves of the cell (i, j, k)/2 after which the crystal repeats: every second coefficient vanishes.

    For instance (1, 1, 1), the body diagonal, in c⁻ patterns.

    Parameters
    ----------
    coefficients : tensor (batch, H, K, L)
    grid : sequence of three ndarrays, the indices along each axis

    Returns
    -------
    list of (int, int, int)
    """
    indices = np.meshgrid(*grid, indexing="ij")
    found = []
    for half in itertools.product((0, 1), repeat=3):
        odd = sum(number * index for number, index in zip(half, indices, strict=True)) % 2 == 1
        if any(half) and vanish(coefficients[:, torch.as_tensor(odd, device=coefficients.device)], coefficients):
            found.append(half)
    return found


def independent_blocks(beams, halves):
    """Masks of the beams (h, k, l) that never mix in a crystal with these `centrings`: list of ndarray of bool (n,)."""
    labels = np.zeros(len(beams), dtype=int)
    for half in halves:
        labels = 2 * labels + (beams @ half) % 2
    return [labels == label for label in np.unique(labels)]


def largest_angle(microscope, detectors_mrad):
    """Largest angle [mrad] that the aperture, the detectors and the Laue circle of a tilted crystal reach."""
    lean = np.hypot(microscope.beam_tilt_x_mrad, microscope.beam_tilt_y_mrad)
    circle = 2 * np.hypot(microscope.crystal_tilt_x_mrad, microscope.crystal_tilt_y_mrad)
    return max(microscope.semiangle_mrad + lean, circle, *(outer for _, outer in detectors_mrad))


def require_sampled(lengths, microscope, cutoff_mrad, detectors_mrad, k_points):
    """Refuse a detector or an aperture beyond the cut-off, and probes so near to each other that they overlap."""
    for ring in detectors_mrad:
        require_ring(*ring)
    needed = largest_angle(microscope, detectors_mrad)
    if needed > cutoff_mrad:
        raise InputError(f"The cut-off of {cutoff_mrad:g} mrad leaves out beams at {needed:g} mrad: raise cutoff_mrad.")
    given = np.asarray(k_points)
    counts = given if given.shape == (2,) else np.full(2, np.sqrt(len(given)))
    for axis, length, count in zip("xy", lengths, counts, strict=False):
        beams = count * length * microscope.semiangle_mrad * 1e-3 / microscope.wavelength_A
        if beams < PROBE_BEAMS:
            raise InputError(
                f"The probe repeats every {count * length:.3g} Å along {axis}, {beams:.2g} beams on a radius of its "
                f"aperture where {PROBE_BEAMS} are needed: raise k_points or repeat the cell."
            )
