"""Sums of peaks over an image and their slopes, tile by tile: the kernel of `unitcell.atoms.refinement`.

A column n at r_n adds

    I_n(r) = h_n [(1 − f_n) g(|r − r_n| / σ_n) + f_n g(|r − r_n| / κσ_n)],   g(u) = exp(−u²/2),                     (1)

a peak with the broad tails of the probe. A Gaussian is the product of one of x and one of y, so within a tile the sum
over m columns is the product of an (rows × m) and an (m × columns) matrix, and so are all sums of a tile's pixels with
the slopes of the columns: matrix products run at the speed of the processor, without an index for every pixel.
"""

from dataclasses import dataclass, replace

import numpy as np

TILE_PX = 96
REACH = 3.3  # of the tails' standard deviation: what is left beyond is 0.4 % of the tail
PARAMETERS = ("x", "y", "height", "sigma", "tail")


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
        return replace(self, **{name: getattr(self, name)[chosen] for name in PARAMETERS})

    def joined(self, other):
        """These columns and others."""
        return replace(self, **{name: np.append(getattr(self, name), getattr(other, name)) for name in PARAMETERS})


def rendered(peaks, shape):
    """The sum of equation (1) over the columns: float32 ndarray of `shape`."""
    image = np.zeros(shape, np.float32)
    for rows, columns, chosen in tiles(peaks, shape):
        image[rows, columns] = _Tile(peaks.of(chosen), rows, columns).model()
    return image


def changed(peaks, step, wider, shape):
    """To first order how `rendered` changes when the columns take `step` (n, 5) and κ grows by `wider`."""
    image = np.zeros(shape, np.float32)
    for rows, columns, chosen in tiles(peaks, shape):
        image[rows, columns] = _Tile(peaks.of(chosen), rows, columns).change(step[chosen], wider)
    return image


def slopes(peaks, wanted):
    """Σ wanted · ∂I/∂θ over the pixels: for θ = `PARAMETERS` of every column, ndarray (n, 5), and for κ, float.

    Parameters
    ----------
    peaks : Peaks
    wanted : ndarray of float32, shape (rows, columns)
        Such as the weight times image less model.
    """
    gradient, wider = np.zeros((len(peaks), 5)), 0.0
    for rows, columns, chosen in tiles(peaks, wanted.shape):
        part, more = _Tile(peaks.of(chosen), rows, columns).gradient(wanted[rows, columns])
        gradient[chosen] += part
        wider += float(more.sum())
    return gradient, wider


def information(peaks, weight):
    """Σ weight · ∂I/∂θ ∂I/∂θ' over the pixels, for θ = `PARAMETERS` of one column at a time: ndarray (n, 5, 5).

    What ties odd parameters (x, y) to even ones is left out: it is zero for a symmetrical weight.
    """
    found = np.zeros((len(peaks), 5, 5))
    for rows, columns, chosen in tiles(peaks, weight.shape):
        found[chosen] += _Tile(peaks.of(chosen), rows, columns).information(weight[rows, columns])
    return found


def tiles(peaks, shape):
    """Rows, columns (slices) and the indices of the columns that reach into each tile of an image."""
    reach = REACH * peaks.wider * peaks.sigma
    for top in range(0, shape[0], TILE_PX):
        rows = slice(top, min(top + TILE_PX, shape[0]))
        level = np.flatnonzero((peaks.y > rows.start - reach) & (peaks.y < rows.stop - 1 + reach))
        for first in range(0, shape[1], TILE_PX):
            columns = slice(first, min(first + TILE_PX, shape[1]))
            x, far = peaks.x[level], reach[level]
            yield rows, columns, level[(x > columns.start - far) & (x < columns.stop - 1 + far)]


class _Tile:
    """The two Gaussians of equation (1) of the columns in one tile, along x and along y: (2, m, pixels) each."""

    def __init__(self, peaks, rows, columns):
        self.sigma = np.stack([peaks.sigma, peaks.wider * peaks.sigma]).astype(np.float32)  # (2, m)
        self.share = np.stack([1 - peaks.tail, peaks.tail]).astype(np.float32)
        self.height, self.wider = peaks.height.astype(np.float32), peaks.wider
        self.u, self.v = (
            (np.arange(along.start, along.stop) - centre[:, None]).astype(np.float32)
            for along, centre in ((columns, peaks.x), (rows, peaks.y))
        )
        self.a, self.b = (np.exp(-((t / self.sigma[..., None]) ** 2) / 2) for t in (self.u, self.v))

    def model(self):
        amount = (self.share * self.height)[..., None]
        return sum((amount[p] * self.b[p]).T @ self.a[p] for p in (0, 1))

    def change(self, step, wider):
        """How the model changes when the columns take `step` (m, 5) and κ grows by `wider`: ndarray (rows, columns)."""
        dx, dy, dh, ds, df = step.T.astype(np.float32)[..., None]
        found = 0.0
        for p, sign in ((0, -1.0), (1, 1.0)):
            u, v, a, b = self.u, self.v, self.a[p], self.b[p]
            curve, flat = self._curve(p)[:, None], (self.share[p] * dh[:, 0] + sign * self.height * df[:, 0])[:, None]
            square = curve / self.sigma[0, :, None] * (ds + p * wider * self.sigma[0, :, None] / self.wider)
            along = (flat + curve * dx * u + square * u**2) * a
            found = found + np.concatenate([b, v * b, v**2 * b]).T @ np.concatenate([along, curve * dy * a, square * a])
        return found

    def gradient(self, wanted):
        """Sums of `wanted` (rows, columns) with the slopes: ndarray (m, 5); and with that of κ, (m,)."""
        found = np.zeros((len(self.height), 5))
        for p, sign in ((0, -1.0), (1, 1.0)):
            u, v, a, b = self.u, self.v, self.a[p], self.b[p]
            lines = np.concatenate([b, v * b, v**2 * b]) @ wanted  # (3m, columns)
            flat, once, twice = lines.reshape(3, *a.shape)
            zero = np.einsum("mx,mx->m", flat, a)
            square = np.einsum("mx,mx->m", flat, u**2 * a) + np.einsum("mx,mx->m", twice, a)
            curve = self._curve(p)
            found[:, 0] += curve * np.einsum("mx,mx->m", flat, u * a)
            found[:, 1] += curve * np.einsum("mx,mx->m", once, a)
            found[:, 2] += self.share[p] * zero
            found[:, 3] += curve * square / self.sigma[0]
            found[:, 4] += sign * self.height * zero
        return found, curve * square / self.wider

    def _curve(self, p):
        return self.height * self.share[p] / self.sigma[p] ** 2

    def information(self, weight):
        """Sums of `weight` (rows, columns) with the products of slopes: ndarray (m, 5, 5)."""
        found = np.zeros((len(self.height), 5, 5))
        for p, q in ((0, 0), (0, 1), (1, 1)):
            even, curve = self._even(p), [self.height * self.share[k] / self.sigma[k] ** 2 for k in (p, q)]
            xx, yy, moments = self._moments(p, q, weight)
            both = 1 if p == q else 2
            found[:, 0, 0] += both * curve[0] * curve[1] * xx
            found[:, 1, 1] += both * curve[0] * curve[1] * yy
            product = np.einsum("mik,mkl,mjl->mij", even, moments, self._even(q))
            found[:, 2:, 2:] += product if p == q else product + product.swapaxes(1, 2)
        return found

    def _even(self, p):
        """How h, σ and f move peak p, in parts of 1 and r²: ndarray (m, 3, 2)."""
        zero = np.zeros_like(self.height)
        curve = self.height * self.share[p] / self.sigma[p] ** 2 / self.sigma[0]
        sign = (-1.0, 1.0)[p]
        return np.stack([
            np.stack([self.share[p], zero], -1), np.stack([zero, curve], -1), np.stack([sign * self.height, zero], -1)
        ], 1)  # fmt: skip

    def _moments(self, p, q, weight):
        """Σ w g_p g_q times x², times y², and times the products of (1, r²) (m, 2, 2)."""
        a, b, u2, v2 = self.a[p] * self.a[q], self.b[p] * self.b[q], self.u**2, self.v**2
        flat, twice, four = (np.concatenate([b, v2 * b, v2**2 * b]) @ weight).reshape(3, *a.shape)
        zero, xx, yy = (np.einsum("mx,mx->m", *pair) for pair in ((flat, a), (flat, u2 * a), (twice, a)))
        r4 = sum(np.einsum("mx,mx->m", *pair) for pair in ((flat, u2**2 * a), (2 * twice, u2 * a), (four, a)))
        r2 = xx + yy
        return xx, yy, np.stack([np.stack([zero, r2], -1), np.stack([r2, r4], -1)], -2)
