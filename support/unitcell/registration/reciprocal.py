"""The projected lattice from the diffraction spots of an image: which two vectors, at which rotation and scale.

The projection of a perovskite down [1-10] repeats over a rectangle a/√2 × a (x ∥ [110], y ∥ [001]), so its
reciprocal vectors are g10 = √2/a along x and g01 = 1/a along y. That ratio of √2 at a right angle is what the
search looks for; nothing else about the rotation is assumed.
"""

import itertools

import numpy as np
from scipy import ndimage

from unitcell.errors import InputError

# Spots that every [1-10] perovskite image shows, but for accidental extinctions.
LOW_ORDER = np.array([(1, 0), (0, 1), (1, 1), (1, -1), (0, 2), (1, 2), (1, -2)])
# Pairs of indices that two measured spots may be given in turn.
PAIRS = (((1, 0), (0, 1)), ((1, 0), (0, 2)), ((1, 1), (1, -1)), ((1, 0), (1, 1)), ((0, 1), (1, 1)))
SCALES = (0.4, 2.6)  # lattices searched, as multiples of the expected one, so that a wrong pixel size can be named
SCALE_TOLERANCE = 0.15  # of the expected lattice parameter
SHAPE_TOLERANCE = 0.12  # of the ratio g10/g01 and of the cosine of their angle
INDEXED = 0.15  # a spot belongs to a lattice point nearer than this fraction of g01
TILE_CELLS = 14  # tiles this wide keep drift from smearing the spots


def find_reciprocal(intensity, cell_px):
    """Reciprocal vectors of the projected lattice.

    Parameters
    ----------
    intensity : ndarray, shape (rows, columns)
    cell_px : float
        Expected pseudo-cubic lattice parameter [px].

    Returns
    -------
    vectors : ndarray, shape (2, 2)
        Rows g10 and g01, each (x, y) [cycles/px]; det > 0, so [110] → [001] is a proper rotation
        of image right → image down.
    explained : float
        Fraction of the strong spots' amplitude on that lattice, 0 to 1.
    rival : float or None
        Size, as a multiple of the expected one, of another lattice that explains the spots better, where there is one:
        this one is a superlattice's average, or the pixel size is wrong. Only the mean cell can tell.

    Raises
    ------
    InputError
        No such lattice in the image.
    """
    amplitude, width = _mean_spectrum(intensity, round(TILE_CELLS * cell_px))
    spots, weights = _spots(amplitude, width, cell_px)
    best, score, rival, raw = None, 0.0, None, 0.0
    for candidate in _candidates(spots, cell_px):
        found = _score(candidate, spots, weights)
        size = _size(candidate, cell_px)
        expected = abs(size - 1) < SCALE_TOLERANCE
        if found > raw:
            rival, raw = None if expected else size, found
        # A lattice far from the expected size must explain clearly more.
        if found * (1.0 if expected else 0.5) > score:
            best, score = candidate, found * (1.0 if expected else 0.5)
    if best is None:
        raise InputError(
            "No projected perovskite [110] lattice was found: give an atomically resolved image along "
            "[110], or correct its pixel size."
        )
    for _ in range(3):
        best = _refined(best, spots, weights)
    rival = rival if abs(_size(best, cell_px) - 1) < SCALE_TOLERANCE else None
    return _oriented(best), _explained(best, spots, weights)[0], rival


def _mean_spectrum(intensity, tile_px):
    """Amplitude spectrum averaged over half-overlapping Hann tiles [frequency y, x], and the spot width [cycles/px]."""
    height, width = (min(tile_px, n) for n in intensity.shape)
    size = 2 * max(height, width)
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.zeros((size, size))
    for top, left in itertools.product(_starts(intensity.shape[0], height), _starts(intensity.shape[1], width)):
        tile = intensity[top : top + height, left : left + width]
        power += np.abs(np.fft.fft2((tile - tile.mean()) * window, (size, size))) ** 2
    return np.fft.fftshift(np.sqrt(power)), 1.0 / min(height, width)


def _starts(length, tile, most=8):
    """At most `most` evenly spaced first pixels of half-overlapping tiles."""
    count = min(most, 1 + int(np.ceil(2 * (length - tile) / tile)))
    return np.unique(np.linspace(0, length - tile, count).round().astype(int))


def _spots(amplitude, width, cell_px, most=24):
    """Strongest local maxima in one half of the spectrum: (n, 2) frequencies (x, y) [cycles/px] and amplitudes."""
    size = len(amplitude)
    frequency = np.fft.fftshift(np.fft.fftfreq(size))
    fx, fy = np.meshgrid(frequency, frequency)
    radius = np.hypot(fx, fy)
    lowest = max(0.8 / (SCALES[1] * cell_px), 1.5 * width)
    allowed = (radius > lowest) & (radius < min(0.45, 6.5 / cell_px)) & ((fy > 0) | ((fy == 0) & (fx > 0)))
    reach = max(3, 2 * round(0.6 * width * size) + 1)
    peaks = np.argwhere(allowed & (amplitude == ndimage.maximum_filter(amplitude, reach)))
    peaks = peaks[np.argsort(amplitude[tuple(peaks.T)])[::-1][:most]]
    peaks = peaks[((peaks > 0) & (peaks < size - 1)).all(1)]
    exact = np.stack([_vertex(amplitude, peaks, axis) for axis in (1, 0)], 1)
    return (exact - size // 2) / size, amplitude[tuple(peaks.T)]


def _vertex(amplitude, peaks, axis):
    """Sub-bin peak coordinate along one axis from a parabola through the logarithms of three bins."""
    step = np.eye(2, dtype=int)[axis]
    before, here, after = (np.log(amplitude[tuple((peaks + k * step).T)] + 1e-30) for k in (-1, 0, 1))
    return peaks[:, axis] + 0.5 * (before - after) / (before - 2 * here + after - 1e-12)


def _candidates(spots, cell_px):
    """Lattices of about the right shape through each pair of the strongest spots."""
    signed = np.concatenate([spots[:14], -spots[:14]])
    for first, second in itertools.permutations(range(len(signed)), 2):
        if first % len(spots[:14]) == second % len(spots[:14]) or first >= len(spots[:14]):
            continue
        for indices in PAIRS:
            lattice = np.linalg.solve(np.array(indices, float), signed[[first, second]])
            if _has_shape(lattice, cell_px):
                yield lattice


def _has_shape(lattice, cell_px):
    """Whether g10/g01 is near √2, the angle near 90° and the scale within the search."""
    g10, g01 = np.linalg.norm(lattice, axis=1)
    if not SCALES[0] < 1 / (g01 * cell_px) < SCALES[1]:
        return False
    ratio = abs(g10 / g01 / np.sqrt(2) - 1)
    return ratio < SHAPE_TOLERANCE and abs(lattice[0] @ lattice[1]) < SHAPE_TOLERANCE * g10 * g01


def _size(lattice, cell_px):
    """Pseudo-cubic lattice parameter of a candidate, as a multiple of the expected one."""
    return 1 / (np.sqrt(abs(np.linalg.det(lattice)) / np.sqrt(2)) * cell_px)


def _explained(lattice, spots, weights):
    """Explained fraction of the spots' amplitude, their indices, and which spots are indexed."""
    indices = spots @ np.linalg.inv(lattice)
    nearest = np.rint(indices)
    on = np.linalg.norm((indices - nearest) @ lattice, axis=1) < INDEXED * np.linalg.norm(lattice[1])
    return weights[on].sum() / weights.sum(), nearest, on


def _score(lattice, spots, weights):
    """Explained amplitude, times the fraction of low-order spots present (so that supercells lose)."""
    explained, nearest, on = _explained(lattice, spots, weights)
    present = {tuple(sign * index) for index in nearest[on].astype(int) for sign in (1, -1)}
    return explained * np.mean([tuple(index) in present for index in LOW_ORDER])


def _refined(lattice, spots, weights):
    """Least squares over the indexed spots, weighted by amplitude."""
    _, nearest, on = _explained(lattice, spots, weights)
    if np.linalg.matrix_rank(nearest[on]) < 2:
        return lattice
    root = np.sqrt(weights[on])[:, None]
    return np.linalg.lstsq(nearest[on] * root, spots[on] * root, rcond=None)[0]


def _oriented(lattice):
    """Signs such that g10 points into [-45°, 135°) from image right, and g01 a proper quarter turn further."""
    g10, g01 = lattice
    if not -45 <= np.degrees(np.arctan2(g10[1], g10[0])) < 135:
        g10 = -g10
    if g10[0] * g01[1] - g10[1] * g01[0] < 0:
        g01 = -g01
    return np.array([g10, g01])
