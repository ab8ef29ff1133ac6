"""Sums of peaks over an image, their slopes, and the normal equations of a fit of all of them, tile by tile.

A column n at r_n adds

    I_n(r) = h_n [(1 − f_n) g(|r − r_n| / σ_n) + f_n g(|r − r_n| / κσ_n)],   g(u) = exp(−u²/2),                     (1)

a peak with the broad tails of the probe. Within a tile of the image a few dozen columns matter, so their slopes are a
small dense matrix and its square one matrix product; only columns that share a tile meet in the normal matrix.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.sparse import bsr_matrix

TILE_PX = 24
GRAIN_PX = 2.0  # standard deviation of the filter that tells noise from what a model misses
REACH = 3.3  # of the tails' standard deviation: what is left beyond is 0.4 % of the tail
OWN = ("x", "y", "height", "sigma", "tail")  # of every column; what all share are κ and a constant


@dataclass(frozen=True)
class Peaks:
    """Columns of an image.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Centres [px].
    height : ndarray, shape (n,)
        h [intensity].
    sigma : ndarray, shape (n,)
        σ [px].
    tail : ndarray, shape (n,)
        f, the tails' share of the height.
    wider : float
        κ, the tails' width over σ.
    """

    x: np.ndarray
    y: np.ndarray
    height: np.ndarray
    sigma: np.ndarray
    tail: np.ndarray
    wider: float = 2.2

    def __len__(self):
        return len(self.x)

    @property
    def places(self):
        """Centres, ndarray (n, 2)."""
        return np.column_stack([self.x, self.y])

    def of(self, chosen):
        """Some of the columns."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in OWN})

    def joined(self, other):
        """These columns and others."""
        return replace(self, **{name: np.append(getattr(self, name), getattr(other, name)) for name in OWN})


@dataclass(frozen=True)
class NormalEquations:
    """Jᵀ W J and Jᵀ W (image − model) of all columns and of what they share.

    Parameters
    ----------
    own : scipy.sparse.bsr_matrix, shape (5n, 5n)
        Between the parameters `OWN` of the columns.
    border : ndarray, shape (5n, 2)
        Between them and (κ, constant).
    corner : ndarray, shape (2, 2)
    own_pull : ndarray, shape (5n,)
    shared_pull : ndarray, shape (2,)
    """

    own: bsr_matrix
    border: np.ndarray
    corner: np.ndarray
    own_pull: np.ndarray
    shared_pull: np.ndarray


class Tiling:
    """Which columns matter in which tile of an image, fixed while their number is.

    Parameters
    ----------
    peaks : Peaks
        Their places may change by a pixel or two afterwards.
    shape : (int, int)
        Of the image.
    """

    def __init__(self, peaks, shape):
        self.shape, self.count = shape, len(peaks)
        self.reach = REACH * peaks.wider * peaks.sigma  # slopes end there, so that columns farther apart do not meet
        self.tiles = list(_tiles(peaks, shape))
        self._index_pairs(peaks)

    def _index_pairs(self, peaks):
        """Number the pairs of columns that share a tile and overlap: `self.pairs` has them tile by tile.

        (i, j, number) each, i and j counted among the members of the tile.
        """
        near, keys = [], []
        for _, _, members in self.tiles:
            x, y, far = peaks.x[members], peaks.y[members], self.reach[members]
            apart = np.hypot(x[:, None] - x, y[:, None] - y)
            near.append(np.nonzero(apart < far[:, None] + far))
            keys.append(members[near[-1][0]] * self.count + members[near[-1][1]])
        found = np.unique(np.concatenate(keys))
        self.pairs = [(*at, np.searchsorted(found, key)) for at, key in zip(near, keys, strict=True)]
        self.indptr = np.searchsorted(found, np.arange(self.count + 1) * self.count)
        self.indices = found % self.count

    def rendered(self, peaks):
        """The sum of equation (1) over the columns: float32 ndarray, shape of the image."""
        return _rendered(peaks, self.shape, self.tiles)

    def normal_equations(self, peaks, left, weight):
        """Normal equations where the model leaves `left` and pixels weigh `weight`, both (rows, columns)."""
        n = self.count
        blocks, own_pull = np.zeros((len(self.indices), 5, 5)), np.zeros((n, 5))
        border, corner, shared_pull = np.zeros((n, 5, 2)), np.zeros((2, 2)), np.zeros(2)
        for (rows, columns, members), (i, j, number) in zip(self.tiles, self.pairs, strict=True):
            m = len(members)
            slope = _slopes(peaks.of(members), self.reach[members], rows, columns)  # (5m + 2, pixels)
            weighted = slope * weight[rows, columns].ravel()
            square, pull = weighted @ slope.T, weighted @ left[rows, columns].ravel()
            blocks[number] += square[:-2, :-2].reshape(m, 5, m, 5)[i, :, j]
            border[members] += square[:-2, -2:].reshape(m, 5, 2)
            own_pull[members] += pull[:-2].reshape(m, 5)
            corner += square[-2:, -2:]
            shared_pull += pull[-2:]
        own = bsr_matrix((blocks, self.indices, self.indptr), shape=(5 * n, 5 * n))
        return NormalEquations(own, border.reshape(-1, 2), corner, own_pull.ravel(), shared_pull)


def rendered(peaks, shape):
    """The sum of equation (1) over the columns: float32 ndarray of `shape`."""
    return _rendered(peaks, shape, _tiles(peaks, shape))


def noise_weight(left, level, wanted):
    """1 / variance of the pixels of an image, for a variance that is a line in the intensity.

    Parameters
    ----------
    left : ndarray, shape (rows, columns)
        What a model leaves of the image: its fine grain is taken for noise.
    level : ndarray, shape (rows, columns)
        The intensity there.
    wanted : ndarray
        Intensities to give the weights of.

    Returns
    -------
    ndarray of float32, shape of `wanted`
    """
    rough = left - ndimage.gaussian_filter(left, GRAIN_PX)
    kept = 1 - 1 / (4 * np.pi * GRAIN_PX**2)  # of the variance of white noise, to first order
    slope, constant = np.polyfit(level.ravel()[::7], rough.ravel()[::7] ** 2, 1) / kept
    variance = np.maximum(constant + slope * wanted, 0.1 * np.mean(rough**2) + 1e-30)
    return (1 / variance).astype(np.float32)


def _rendered(peaks, shape, tiles):
    image = np.zeros(shape, np.float32)
    for rows, columns, members in tiles:
        part = peaks.of(members)
        share = (np.stack([1 - part.tail, part.tail]) * part.height).astype(np.float32)[..., None]
        _, _, a, b = _gaussians(part, rows, columns)
        image[rows, columns] = sum((share[p] * b[p]).T @ a[p] for p in (0, 1))
    return image


def _tiles(peaks, shape):
    """Rows and columns (slices) of every tile, and the indices of the columns that reach into it."""
    reach = REACH * peaks.wider * peaks.sigma
    for top in range(0, shape[0], TILE_PX):
        rows = slice(top, min(top + TILE_PX, shape[0]))
        level = np.flatnonzero((peaks.y > rows.start - reach) & (peaks.y < rows.stop - 1 + reach))
        for first in range(0, shape[1], TILE_PX):
            columns = slice(first, min(first + TILE_PX, shape[1]))
            x, far = peaks.x[level], reach[level]
            yield rows, columns, level[(x > columns.start - far) & (x < columns.stop - 1 + far)]


def _gaussians(peaks, rows, columns):
    """Distances along x and y, (m, pixels), and the Gaussians of peak and tails along them, (2, m, pixels) each."""
    sigma = np.stack([peaks.sigma, peaks.wider * peaks.sigma]).astype(np.float32)[..., None]
    u, v = (
        (np.arange(along.start, along.stop) - centre[:, None]).astype(np.float32)
        for along, centre in ((columns, peaks.x), (rows, peaks.y))
    )
    return u, v, np.exp(-((u / sigma) ** 2) / 2), np.exp(-((v / sigma) ** 2) / 2)


def _slopes(peaks, reach, rows, columns):
    """Derivatives of a tile's pixels by `OWN` of its m columns, κ and the constant: float32 (5m + 2, pixels)."""
    m = len(peaks)
    height, sigma, tail = (v.astype(np.float32)[:, None, None] for v in (peaks.height, peaks.sigma, peaks.tail))
    wider = np.float32(peaks.wider)
    u, v, a, b = _gaussians(peaks, rows, columns)
    u, v = u[:, None, :], v[:, :, None]
    square = u**2 + v**2
    narrow, broad = (
        b[:, :, :, None] * a[:, :, None, :] * (square < reach[:, None, None] ** 2)
    )  # (m, rows, columns) each
    near, far = height * (1 - tail) / sigma**2 * narrow, height * tail / (wider * sigma) ** 2 * broad
    curve = near + far
    slope = np.empty((5 * m + 2, *narrow.shape[1:]), np.float32)
    own = slope[:-2].reshape(m, 5, *narrow.shape[1:])
    own[:, 0], own[:, 1] = curve * u, curve * v
    own[:, 2], own[:, 3] = (1 - tail) * narrow + tail * broad, curve * square / sigma
    own[:, 4] = height * (broad - narrow)
    slope[-2], slope[-1] = (far * square).sum(0) / wider, 1.0
    return slope.reshape(5 * m + 2, -1)
