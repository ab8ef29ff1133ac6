"""Columns refined together: one Gauss–Newton fit of every place, height and width, with what they share.

The image is a sum of peaks with the probe's tails (`unitcell.atoms.peaks`, equation 1) on a constant. Column n has
σ_n = σ + ε_n and f_n = f + δ_n: σ, f, κ and the constant are the image's own, and ε_n, δ_n are normal with small
standard deviations, for the columns of one image are made by one probe. With weights 1 / variance, a line v₀ + v₁ I
through the squares of what is left, each round solves

    (Jᵀ W J + Λ) δθ = Jᵀ W (image − model) − Λ (θ − θ₀)                                                        (1)

for all columns at once by conjugate gradients (Λ: the priors). So neighbours answer each other, and for counted
electrons the fit is nearly as good as the best, whatever the detector's gain and offset. Where what is left has a peak
between the columns, such as one of oxygen, a faint column is added to the model: unseen, it draws its neighbours. The
first guesses count as measurements whose error is what separates them from the fit beyond the fit's own noise; at low
dose they steady it.
"""

from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max

from unitcell.atoms.peaks import Peaks, changed, information, rendered, slopes

ROUNDS = 8
WEIGHED = (1, 2, 3, 4)  # rounds that estimate the noise
SEARCHED = (2, 3, 4, 5)  # rounds that look for faint columns
STEPS = 10  # of conjugate gradients
SOLVED = 1e-4  # of the first residual's square: then they stop
SIGMA, TAIL, WIDER = 0.14, 0.5, 2.2  # σ in distances between neighbours, f and κ to begin with
ALIKE = (0.03, 0.05)  # standard deviations of σ_n / σ and f_n
FAINT_ALIKE = (0.2, 0.1)  # the same for faint columns
FAINT_SIGNIFICANCE = 4.5  # standard deviations
FAINT_APART = 0.6  # nearest place beside a column, in distances between neighbours
FAINT_PLACE, FAINT_HEIGHT = 0.1, 0.3  # priors, in distances and in heights of a column
LEAST_PLACE = 0.03  # of the first guesses' standard deviation, in distances
STRAY = 0.35  # a column that leaves its start by more of the distance to its neighbour goes back to it
EDGE_WEIGHT = 0.1  # within one distance of the edges: neighbours outside are not in the model


def refine_columns(intensity, x, y, *, rounds=ROUNDS):
    """Positions of columns by weighted least squares.

    Parameters
    ----------
    intensity : ndarray, shape (rows, columns)
    x, y : ndarray, shape (n,)
        First guesses, good to about a third of the distance between columns [px]. Columns that the edge cuts help their
        neighbours.
    rounds : int

    Returns
    -------
    x, y, height, sigma : ndarray, shape (n,)
        Positions [px], peak heights [intensity], standard deviations [px]; the first guess and NaN where the fit runs
        away.
    """
    start = np.column_stack([x, y]).astype(float)
    if len(start) < 2:
        return start[:, 0], start[:, 1], *np.full((2, len(start)), np.nan)
    fit = _Fit(np.asarray(intensity, np.float32), start)
    for number in range(rounds):
        fit.step(number)
    return fit.result()


class _Fit:
    """The state of one refinement: `peaks` (the listed columns first, faint ones after), what they share, weights."""

    def __init__(self, image, start):
        self.image, self.start, self.listed = image, start, len(start)
        self.gap = cKDTree(start).query(start, k=2)[0][:, 1]
        self.unit = float(np.median(self.gap))
        self.margin = min(max(int(self.unit), 1), min(image.shape) // 4)
        smooth = ndimage.gaussian_filter(image, 0.12 * self.unit)
        low = ndimage.minimum_filter(smooth, int(self.unit) + 1)
        peak, floor = (ndimage.map_coordinates(p, start.T[::-1], order=1, mode="nearest") for p in (smooth, low))
        height = np.maximum(peak - floor, 1e-3 * max(np.ptp(image), 1e-12))
        # as dark as the image gets: what is brighter between columns, tails and faint columns have to explain
        self.constant = float(self._inside(smooth).min())
        self.sigma, self.tail = SIGMA * self.unit, TAIL
        alike = np.ones(self.listed)
        self.peaks = Peaks(*start.T, height, self.sigma * alike, self.tail * alike, WIDER)
        self.near_edge = np.full(image.shape, EDGE_WEIGHT, np.float32)
        self._inside(self.near_edge)[:] = 1
        self.weight = self.near_edge / max(float(image.var()), 1e-30)
        self.home, self.trust = start, 0.0  # centres of the priors on places, and 1 / variance of the listed ones'

    def step(self, number):
        """One round."""
        left, model = self._left()
        if number in WEIGHED:
            self.weight = self.near_edge * noise_weight(self._inside(left), self._inside(model), model)
        if number in SEARCHED and self._add_faint(left):
            left, _ = self._left()
        own = information(self.peaks, self.weight)
        if number >= min(SEARCHED):
            self._trust_the_start(own)
        free = np.array([1, number > 0, number >= min(SEARCHED), number > min(SEARCHED)], float)  # σ, f, κ, constant
        stiff, pull = self._priors(number)
        taken, shared = solved(self.peaks, left, self.weight, own, stiff, pull, free)
        self._take(taken, shared)

    def result(self):
        """What `refine_columns` returns."""
        n, fit = self.listed, self.peaks
        strayed = ~(np.hypot(*(fit.places[:n] - self.start).T) < STRAY * self.gap)
        places = np.where(strayed[:, None], self.start, fit.places[:n])
        return *places.T, *(np.where(strayed, np.nan, part[:n]) for part in (fit.height, fit.sigma))

    def _inside(self, image):
        return image[self.margin : -self.margin or None, self.margin : -self.margin or None]

    def _left(self):
        model = rendered(self.peaks, self.image.shape) + np.float32(self.constant)
        return self.image - model, model

    def _add_faint(self, left):
        """Columns where the matched filter of what is left is significant; how many."""
        width = 1.1 * self.sigma
        area = 2 * np.pi * width**2
        asked = area * ndimage.gaussian_filter(left * self.weight, width)
        known = area / 2 * ndimage.gaussian_filter(self.weight, width / np.sqrt(2))
        score = asked / np.sqrt(known)
        noise = 1.4826 * np.median(np.abs(score - np.median(score)))
        places = peak_local_max(
            score, min_distance=max(1, int(width)), threshold_abs=FAINT_SIGNIFICANCE * max(noise, 0.7), exclude_border=2
        )[:, ::-1]
        apart, near = cKDTree(self.peaks.places).query(places)
        gap = np.append(self.gap, np.full(len(self.peaks) - self.listed, self.unit))
        places = places[apart > FAINT_APART * np.maximum(gap[near], self.unit)]
        at = places[:, 1], places[:, 0]
        alike = np.ones(len(places))
        faint = Peaks(*places.T.astype(float), (asked / known)[at], self.sigma * alike, self.tail * alike)
        self.peaks, self.home = self.peaks.joined(faint), np.vstack([self.home, places])
        return len(places)

    def _trust_the_start(self, own):
        """Weigh the first guesses by how far they are from the fit, beyond what its noise explains."""
        n = self.listed
        apart = np.median((self.peaks.places[:n] - self.start) ** 2) / 0.455  # of a normal variable's square
        noise = np.median(1 / np.maximum(np.einsum("nii->ni", own[:n, :2, :2]), 1e-30))
        self.trust = 1 / max(apart - noise, (LEAST_PLACE * self.unit) ** 2)

    def _priors(self, number):
        """Λ (n, 5) and Λ (θ₀ − θ)."""
        fit, faint = self.peaks, np.arange(len(self.peaks)) >= self.listed
        stiff = np.zeros((len(fit), 5))
        stiff[:, :2] = np.where(faint, 1 / (FAINT_PLACE * self.unit) ** 2, self.trust)[:, None]
        stiff[faint, 2] = 1 / (FAINT_HEIGHT * np.median(fit.height[: self.listed])) ** 2
        stiff[:, 3] = 1 / (np.where(faint, FAINT_ALIKE[0], ALIKE[0]) * self.sigma) ** 2
        stiff[:, 4] = 1 / np.where(faint, FAINT_ALIKE[1], ALIKE[1]) ** 2
        stiff[:, 3:] *= 1e6 if number == 0 else 1  # at first all columns are alike
        zero = np.zeros_like(fit.height)
        away = [*(fit.places - self.home).T, np.where(faint, fit.height, zero), fit.sigma - self.sigma]
        return stiff, -stiff * np.column_stack([*away, fit.tail - self.tail])

    def _take(self, taken, shared):
        """Go the step, within what can be."""
        unit, fit, n = self.unit, self.peaks, self.listed
        sigma, tail, wider = np.clip(shared[:3], *np.array([[-1], [1]]) * [0.2 * self.sigma, 0.15, 0.2])
        self.sigma = float(np.clip(self.sigma + sigma, 0.08 * unit, 0.45 * unit))
        self.tail = float(np.clip(self.tail + tail, 0, 0.7))
        self.constant += shared[3]
        most = 0.15 * np.append(self.gap, np.full(len(fit) - n, unit))
        least = np.zeros(len(fit))
        least[:n] = 0.02 * np.median(fit.height[:n])
        self.peaks = replace(
            fit,
            x=fit.x + np.clip(taken[:, 0], -most, most),
            y=fit.y + np.clip(taken[:, 1], -most, most),
            height=np.maximum(fit.height + taken[:, 2], least),
            sigma=np.clip(fit.sigma + taken[:, 3] + sigma, 0.5 * self.sigma, 1.6 * self.sigma),
            tail=np.clip(fit.tail + taken[:, 4] + tail, 0, 0.8),
            wider=float(np.clip(fit.wider + wider, 1.5, 3)),
        )


def noise_weight(left, model, wanted):
    """1 / variance, a line in the intensity fitted to what the `model` leaves, where the model is `wanted`."""
    rough = left - ndimage.gaussian_filter(left, 2.0)
    kept = 1 - 1 / (4 * np.pi * 2.0**2)  # of the variance of white noise, to first order
    slope, constant = np.polyfit(model.ravel()[::7], rough.ravel()[::7] ** 2, 1) / kept
    variance = np.maximum(constant + slope * wanted, 0.1 * np.mean(rough**2) + 1e-30)
    return (1 / variance).astype(np.float32)


def solved(peaks, left, weight, own, stiff, pull, free):
    """Equation (1) by conjugate gradients, preconditioned with every column's own information.

    Parameters
    ----------
    peaks : Peaks
    left, weight : ndarray of float32, shape (rows, columns)
    own : ndarray, shape (n, 5, 5)
        `unitcell.atoms.peaks.information`.
    stiff, pull : ndarray, shape (n, 5)
        Λ and Λ (θ₀ − θ).
    free : ndarray, shape (4,)
        1 where the shared σ, f, κ and constant may change, 0 where not.

    Returns
    -------
    ndarray, shape (n, 5), the step of every column; ndarray, shape (4,), that of what they share
    """
    count = len(peaks)

    def image(step):
        each = step[:-4].reshape(count, 5).copy()
        each[:, 3:] += step[-4:-2]
        return changed(peaks, each, step[-2], left.shape) + np.float32(step[-1])

    def asked(picture):
        weighted = weight * picture
        each, wider = slopes(peaks, weighted)
        return np.r_[each.ravel(), free * [*each[:, 3:].sum(0), wider, weighted.sum()]]

    def normal(step):
        return asked(image(step)) + np.r_[(stiff * step[:-4].reshape(count, 5)).ravel(), np.zeros(4)]

    scale = np.einsum("nii->ni", own) + stiff
    inverse = np.linalg.inv(own + np.einsum("ni,ij->nij", stiff + 1e-9 * scale.max(1, keepdims=True), np.eye(5)))
    units = np.column_stack([np.zeros((4, 5 * count)), np.eye(4)])
    stiffness = [np.sum(weight * image(one) ** 2) if on else 1.0 for one, on in zip(units, free, strict=True)]
    shared = free / np.maximum(stiffness, 1e-30)

    def conditioned(rest):
        return np.r_[np.einsum("nij,nj->ni", inverse, rest[:-4].reshape(count, 5)).ravel(), shared * rest[-4:]]

    rest = asked(left) + np.r_[pull.ravel(), np.zeros(4)]
    step, along = np.zeros_like(rest), conditioned(rest)
    size = first = rest @ along
    for _ in range(STEPS):
        turned = normal(along)
        far = size / max(along @ turned, 1e-30)
        step, rest = step + far * along, rest - far * turned
        better = conditioned(rest)
        smaller = rest @ better
        if smaller < SOLVED * first:
            break
        along, size = better + smaller / size * along, smaller
    return step[:-4].reshape(count, 5), step[-4:]
