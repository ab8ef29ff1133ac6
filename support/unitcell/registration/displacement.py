"""Smooth displacement of a lattice (drift, shear, strain) from the phases of its waves.

Geometric phase analysis (Hÿtch, Snoeck, Kilaas 1998): the image filtered around a reciprocal vector g is
|H| exp(2πi g·(r - u(r))), so two phases give the displacement u everywhere.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage
from skimage.restoration import unwrap_phase

# Waves whose phases may be used, and the width of the filter in real space.
WAVES = ((1, 0), (0, 2), (0, 1), (1, 1), (1, -1))
FILTER_CELLS = 1.0  # Gaussian σ, in lattice parameters


@dataclass(frozen=True)
class PhaseField:
    """Lattice coordinates n(r) = G r + δ(r) of every point of an image, up to a constant.

    Parameters
    ----------
    reciprocal : ndarray, shape (2, 2)
        G: rows g10 and g01, (x, y) [cycles/px].
    delta : ndarray, shape (2, p, q)
        δ along [110] and [001] on a coarse grid over the image.
    step_px : tuple of float
        Pitch of that grid along y and x [px].
    pad_px : int
        How far the grid reaches beyond the image [px].
    cell_px : float
        Lattice parameter [px].
    """

    reciprocal: np.ndarray
    delta: np.ndarray
    step_px: tuple
    pad_px: int
    cell_px: float

    def coordinates(self, x, y):
        """Lattice coordinates along [110] and [001] of image points: ndarray (2, ...)."""
        plain = np.tensordot(self.reciprocal, np.stack([x, y]), axes=1)
        grid = np.stack([(y + self.pad_px) / self.step_px[0], (x + self.pad_px) / self.step_px[1]])
        return plain + np.stack([ndimage.map_coordinates(d, grid, order=1, mode="nearest") for d in self.delta])

    def lattice_points(self, origin, shape, beyond_px=0.0):
        """Integer points (col, row) of the lattice through `origin` and their (x, y) [px].

        Those in an image of `shape`, and up to `beyond_px` outside it.
        """
        height, width = shape
        edge = np.linspace(0, 1, 50)
        x = np.concatenate([edge * width, edge * width, 0 * edge, 0 * edge + width])
        y = np.concatenate([0 * edge, 0 * edge + height, edge * height, edge * height])
        n = self.coordinates(x, y) - np.asarray(origin)[:, None]
        ranges = [np.arange(np.floor(c.min()) - 1, np.ceil(c.max()) + 2, dtype=int) for c in n]
        points = np.stack(np.meshgrid(*ranges), -1).reshape(-1, 2)  # row by row
        xy = self._places(points + origin)
        inside = ((xy > -0.5 - beyond_px) & (xy < np.array([width, height]) - 0.5 + beyond_px)).all(1)
        return points[inside], xy[inside]

    def _places(self, n, rounds=6):
        """Image points (x, y) at lattice coordinates n, by fixed-point iteration."""
        direct = np.linalg.inv(self.reciprocal).T
        xy = (n - self.delta.mean((1, 2))) @ direct
        for _ in range(rounds):
            xy = xy + (n - self.coordinates(*xy.T).T) @ direct
        return xy


def phase_field(flat, reciprocal, cell_px):
    """Lattice coordinates of an image from the phases of its lattice waves (1, 0) and (0, 2).

    Parameters
    ----------
    flat : ndarray, shape (rows, columns)
        The image less its slow variations.
    reciprocal : ndarray, shape (2, 2)
        Rows g10 and g01, (x, y) [cycles/px].
    cell_px : float
        Lattice parameter [px].

    Returns
    -------
    PhaseField
    """
    pad = round(2 * cell_px)
    spectrum = fft.fft2(np.pad(flat, pad))  # of single precision where the image is
    waves = {index: _wave(spectrum, np.array(index) @ reciprocal, cell_px) for index in WAVES}
    # Phases of (1, 0) and (0, 2), whose signs are the same whichever of A and B is darker. Odd waves turn by π where an
    # interface swaps the two, so they enter as products of the same index, (0, 2).
    even = waves[0, 2] * np.abs(waves[0, 2])
    odd = waves[0, 1] ** 2 + waves[1, 1] * np.conj(waves[1, -1])
    twice = even + odd * np.exp(1j * np.angle(np.vdot(odd, even)))
    delta = np.stack([unwrap_phase(np.angle(w)) / (2 * np.pi * k) for w, k in ((waves[1, 0], 1), (twice, 2))])
    step = tuple(size / n for size, n in zip(spectrum.shape, delta.shape[1:], strict=True))
    return PhaseField(reciprocal, delta, step, pad, cell_px)


def _wave(spectrum, g, cell_px):
    """Lattice wave g, demodulated and low-pass filtered, on a grid of half-cell pitch.

    Cutting the spectrum around g and transforming back only that part is the filter and the decimation in one.
    """
    sizes = spectrum.shape
    counts = [round(2 * size / cell_px) for size in sizes]
    centres = [round(frequency * size) for frequency, size in zip(g[::-1], sizes, strict=True)]
    bins = [centre + np.arange(n) - n // 2 for centre, n in zip(centres, counts, strict=True)]
    sigma = 1 / (2 * np.pi * FILTER_CELLS * cell_px)
    taps = [np.exp(-((b / size - f) ** 2) / (2 * sigma**2)) for b, size, f in zip(bins, sizes, g[::-1], strict=True)]
    part = spectrum[np.ix_(*(b % size for b, size in zip(bins, sizes, strict=True)))] * np.outer(*taps)
    wave = fft.ifft2(fft.ifftshift(part))
    # The cut is centred on a whole bin: carry its remaining distance from g as a phase ramp.
    rests = [(centre / size - f) * size for centre, size, f in zip(centres, sizes, g[::-1], strict=True)]
    ramps = [np.exp(2j * np.pi * rest * np.arange(n) / n) for rest, n in zip(rests, counts, strict=True)]
    return wave * np.outer(*ramps)
