"""Columns fitted in windows of their own: every peak with its neighbours taken away, whatever lies beside it.

A column n looks like

    I_n(r) = h_n [(1 − f) g(|r − r_n| / σ_n) + f g(|r − r_n| / κσ_n)],   g(u) = exp(−u²/2),                      (1)

a peak with the broad tails of the probe. Each round takes what the other columns put into a column's window from the
image and makes one damped Gauss–Newton step in its (x, y, h, σ, constant), for all columns at once. (A column fitted
alone is drawn to its brighter neighbours.) Pixels weigh as 1 / variance, a line v₀ + v₁ I through the squares of what
is left, so for counted electrons the fit is nearly as good as the best, whatever the detector's gain and offset.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from unitcell.atoms.peaks import Peaks, noise_weight, rendered

ROUNDS = 10
WINDOW = 0.5  # radius of a window, in distances to the nearest neighbour
RADIUS_PX = (2.5, 14.0)
STRAY = 0.35  # a column that leaves its start by more of the distance to its neighbour goes back to it
TAIL, TAIL_WIDTH = 0.15, 2.2  # f and κ: more would fit the probe better, but ties the places of neighbours together
SHARE = 0.6  # of a step that is taken: neighbours that overlap answer each other
DAMPING = 1e-6


def fit_windows(intensity, x, y):
    """Positions of columns by weighted least squares.

    Parameters
    ----------
    intensity : ndarray, shape (rows, columns)
    x, y : ndarray, shape (n,)
        First guesses, good to about a third of the distance between columns [px]. Columns that the edge cuts help their
        neighbours.

    Returns
    -------
    x, y, height, sigma : ndarray, shape (n,)
        Positions [px], peak heights [intensity], standard deviations [px]; the first guess and NaN where the fit runs
        away.
    """
    fit = start = np.column_stack([x, y]).astype(float)
    if len(start) < 2:
        return start[:, 0], start[:, 1], *np.full((2, len(start)), np.nan)
    gap = cKDTree(start).query(start, k=2)[0][:, 1]
    radius = np.clip(WINDOW * gap, *RADIUS_PX)
    fit = np.column_stack([start, *_first_shapes(intensity, start, radius)])  # x, y, h, σ
    weight = np.ones(intensity.shape, np.float32)
    alike = np.ones(len(fit))
    for number in range(ROUNDS):
        left = intensity - rendered(Peaks(*fit.T, alike * TAIL, TAIL_WIDTH), intensity.shape)
        if number == ROUNDS // 2:
            level = ndimage.gaussian_filter(intensity, 1.0)
            weight = noise_weight(left, level, level)
        fit = fit + SHARE * _gauss_newton(left, weight, fit, radius)
        fit[:, 3] = np.clip(fit[:, 3], 0.25 * radius, 1.5 * radius)
        strayed = ~(np.hypot(*(fit[:, :2] - start).T) < STRAY * gap)
        fit[strayed, :2] = start[strayed]
    fit[strayed, 2:] = np.nan
    return tuple(fit.T)


def _first_shapes(intensity, start, radius):
    """Heights above the surroundings and widths to begin with."""
    smooth = ndimage.gaussian_filter(intensity.astype(float), 0.2 * np.median(radius))
    low = ndimage.minimum_filter(smooth, int(2 * np.median(radius)) + 1)
    at = start.T[::-1]
    peak, floor = (ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in (smooth, low))
    return np.maximum(peak - floor, 1e-6 * np.ptp(intensity)), 0.4 * radius


def _gauss_newton(left, weight, fit, radius):
    """One step (n, 4) of every column in what the model leaves, its constant solved for and let go."""
    reach = int(np.ceil(radius.max())) + 1
    offsets = np.stack(np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)), -1).reshape(-1, 2)
    last = np.array(left.shape[::-1]) - 1
    pixel = np.round(fit[:, :2]).astype(int)[:, None] + offsets  # (n, w, 2)
    inside = ((pixel >= 0) & (pixel <= last)).all(-1)
    pixel = pixel.clip(0, last)
    u, v = np.moveaxis((pixel - fit[:, None, :2]).astype(np.float32), -1, 0)
    square, sigma, height = u**2 + v**2, fit[:, 3, None].astype(np.float32), fit[:, 2, None].astype(np.float32)
    peak = (1 - TAIL) * np.exp(-square / (2 * sigma**2))
    wide = TAIL * np.exp(-square / (2 * (TAIL_WIDTH * sigma) ** 2))
    slope = height * (peak + wide / TAIL_WIDTH**2) / sigma**2
    design = np.stack([slope * u, slope * v, peak + wide, slope * square / sigma, np.ones_like(u)], -1)
    rows, columns = pixel[..., 1], pixel[..., 0]
    share = weight[rows, columns] * (inside & (square <= radius[:, None] ** 2))
    normal = (design * share[..., None]).swapaxes(1, 2) @ design
    target = np.einsum("nwi,nw->ni", design, share * left[rows, columns])
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-20))
    normal = normal / (scale[:, :, None] * scale[:, None, :]) + DAMPING * np.eye(5)
    step = np.linalg.solve(normal, (target / scale)[..., None])[..., 0] / scale
    most = 0.25 * radius[:, None]
    step[:, :2] = np.clip(step[:, :2], -most, most)
    step[:, 3:4] = np.clip(step[:, 3:4], -0.2 * sigma, 0.2 * sigma)
    return step[:, :4]
