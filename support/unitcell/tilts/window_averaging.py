"""Windows that show the same, averaged before they are read: noise goes down, and a network's answer with it.

Every tilt pattern repeats after two columns along [110] and along [001]: columns (row + 2i, col + 2j) of one domain
show one window. Read one by one and averaged afterwards, noisy windows stay biased, for a network that cannot see a
tilt answers with none; averaged first, n windows are one window of n times the dose. Which of them do show the same is
asked of the windows: of two, standardised, with noise of variance s² per pixel, the expected squared distance in K
principal components is

    D = 2 K s² + Δ²,   and the weight   exp(−Δ² / 2Ks²),                                                      (1)

as in non-local means (Buades 2005). A window that differs by Δ² = 2Ks² helps as much as it harms: its own noise and
its difference are equal; beyond twice that, none is used. So domain walls and interfaces are kept as far as noise lets
them be seen. s² is taken from what the components leave of each window, times one factor for the image, for noise is
not white after resampling: that which makes the nearest windows, at half of the columns, equal.
"""

import numpy as np
import torch
from scipy import sparse

from unitcell.networks.training_windows import standardise

REACH_CELLS = 11.4  # lattice parameters to the farthest window that is averaged: two columns eight times along [110]
FARTHEST = 2.0  # of Δ² / 2Ks²
# Mean of the least of four chi-square variables, in standard deviations below theirs.
LEAST_OF_FOUR = 1.03


class WindowStore:
    """Windows of one image, standardised, in half precision: 4.5 kB a column.

    Parameters
    ----------
    components : ndarray (pixels, K)
        Principal components of windows, orthonormal.
    """

    def __init__(self, components):
        self.components = np.asarray(components, dtype=np.float32)
        self.parts, self.scores, self.noise = [], [], []

    def add(self, windows):
        """Keep further windows (n, rows, columns), NaN where they leave the image."""
        whole = np.isfinite(windows).all((1, 2))
        flat = np.full((len(windows), windows[0].size), np.nan, np.float32)
        flat[whole] = standardise(torch.from_numpy(windows[whole])).flatten(1).numpy()
        scores = flat @ self.components
        left = (flat**2).sum(1) - (scores**2).sum(1)
        self.parts.append(flat.astype(np.float16).reshape(windows.shape))
        self.scores.append(scores)
        self.noise.append(np.maximum(left / (flat.shape[1] - scores.shape[1]), 1e-9))

    def averages(self, row, col, chunk=1000):
        """Averages around the columns at (row, col), in the order in which windows were added.

        Yields
        ------
        windows : ndarray of float32 (≤ chunk, rows, columns)
            NaN where a column's own window is.
        number : ndarray (≤ chunk,)
            Of equally weighted windows that would leave as much noise: (Σ w)² / Σ w².
        """
        store = np.concatenate(self.parts)
        flat = store.reshape(len(store), -1)
        weights = alike(np.concatenate(self.scores), np.concatenate(self.noise), row, col)
        for start in range(0, len(flat), chunk):
            part = weights[start : start + chunk]
            used, place = np.unique(part.indices, return_inverse=True)
            part = sparse.csr_array((part.data, place, part.indptr), shape=(part.shape[0], len(used)))
            total = part.sum(1)
            mean = (part @ flat[used].astype(np.float32)) / np.maximum(total, 1)[:, None]
            mean[total == 0] = np.nan
            squares = part.power(2).sum(1)
            yield mean.reshape(-1, *store.shape[1:]), total**2 / np.where(squares > 0, squares, np.nan)


def alike(scores, noise, row, col):
    """Weights of equation (1).

    Parameters
    ----------
    scores : ndarray (n, K)
        Of the windows on principal components; NaN for those that are not whole.
    noise : ndarray (n,)
        Variance per pixel outside the components.
    row, col : array_like of int (n,)
        Along [001] and along [110].

    Returns
    -------
    scipy.sparse.csr_array (n, n), of float32
        1 on the diagonal, nothing for windows that are not whole.
    """
    whole = np.flatnonzero(np.isfinite(noise))
    own = sparse.csr_array((np.ones(len(whole), np.float32), (whole, whole)), shape=(len(noise),) * 2)
    pairs = [_pairs(np.asarray(row), np.asarray(col), np.isfinite(noise), step) for step in _steps()]
    distances = [((scores[i] - scores[j]) ** 2).sum(1) / (scores.shape[1] * (noise[i] + noise[j])) for i, j in pairs]
    equal = _distance_of_equals(pairs, distances, scores.shape)
    if not np.isfinite(equal):
        return own
    differ = [distance / equal - 1 for distance in distances]
    kept = [(i[near], j[near], d[near]) for (i, j), d in zip(pairs, differ, strict=True) for near in [d < FARTHEST]]
    i, j, d = (np.concatenate(each) for each in zip(*kept, strict=True))
    weight = np.exp(-np.maximum(d, 0)).astype(np.float32)
    return (own + sparse.csr_array((weight, (i, j)), shape=own.shape)).tocsr()


def _steps():
    """(rows, columns) to windows that every tilt pattern makes equal, those next to a column first."""
    reach = 2 * int(REACH_CELLS / np.sqrt(2)) + 2
    even = range(-reach, reach + 1, 2)
    steps = [(down, right) for down in even for right in even if 0 < np.hypot(down, right / np.sqrt(2)) <= REACH_CELLS]
    return sorted(steps, key=lambda step: abs(step[0]) + abs(step[1]))


def _pairs(row, col, whole, step):
    """Indices of whole windows and of those a step away: two ndarray."""
    down, right = row - row.min(), col - col.min()
    index = np.full((down.max() + 1, right.max() + 1), -1)
    index[down[whole], right[whole]] = np.flatnonzero(whole)
    to = down[whole] + step[0], right[whole] + step[1]
    inside = (to[0] >= 0) & (to[0] < index.shape[0]) & (to[1] >= 0) & (to[1] < index.shape[1])
    found = index[to[0][inside], to[1][inside]]
    return np.flatnonzero(whole)[inside][found >= 0], found[found >= 0]


def _distance_of_equals(pairs, distances, shape):
    """Distance, over K times the noise of both, between windows that show the same; NaN without any pair."""
    nearest = np.full(shape[0], np.inf)
    for (i, _), distance in zip(pairs[:4], distances[:4], strict=True):
        np.minimum.at(nearest, i, distance)
    known = nearest[np.isfinite(nearest)]
    return np.median(known) / (1 - LEAST_OF_FOUR * np.sqrt(2 / shape[1])) if len(known) else np.nan
