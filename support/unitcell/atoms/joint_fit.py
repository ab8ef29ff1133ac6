"""One Gauss–Newton fit of every column of an image together, with the faint ones between them.

The image is a sum of peaks with the probe's tails (`unitcell.atoms.peaks`, equation 1) on a constant. Column n has
σ_n = σ + ε_n and f_n = f + δ_n: σ, κ and the constant are the image's own, and ε_n, δ_n are normal with small
standard deviations, for the columns of one image are made by one probe. (f is given: what a column's tails put on the
ground between columns, faint ones and the constant can put there too.) With weights 1 / variance, each round solves

    (Jᵀ W J + Λ) δθ = Jᵀ W (image − model) − Λ (θ − θ₀)                                                        (1)

for all columns at once (Λ: the priors, none on where a column stands). What is not listed draws its neighbours all the
same: every hole of the lattice, a point as far from three columns as others are from their neighbours, may therefore
hold a faint column, such as one of oxygen, and those that turn out to hold nothing are left out.
"""

from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError, cKDTree
from tqdm.auto import tqdm

from unitcell.atoms.peaks import Peaks, Tiling, noise_weight

ROUNDS = 8
STEPS = 150  # of conjugate gradients, at most
SOLVED = 1e-5  # of the first residual's norm: then they stop
TAIL, WIDER = 0.25, 2.2  # f, and κ to begin with
ALIKE = (0.01, 0.05)  # standard deviations of ε_n / σ and δ_n
FAINT_ALIKE = (0.2, 0.1)  # the same for faint columns
FAINT_HEIGHT = 0.3  # standard deviation of their heights, in those of listed columns
FAINT_PLACE = (0.03, 0.1)  # and of their places, in distances between neighbours: in even holes, in uneven ones
HOLE = (0.6, 1.3)  # radii of the empty circle around a hole, in distances between neighbours
SHORTENED = 4  # times that a step which makes things worse is made shorter
WEIGHED = 3  # rounds that estimate the noise
MERGED = 0.35  # holes nearer than this, in distances, are one
EDGE_WEIGHT = 0.1  # within one distance of the edges: neighbours outside are not in the model


def holes(places):
    """Middles of the empty circles between columns (n, 2): ndarray (k, 2).

    They are the circumcentres of the Delaunay triangles within the outline, those of a square being one.
    """
    unit = np.median(cKDTree(places).query(places, k=2)[0][:, 1])
    try:
        triangles = Delaunay(places)
    except QhullError:  # all on a line
        return np.empty((0, 2))
    corner = places[triangles.simplices]
    b, c = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    twice = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    square = (b**2).sum(1)[:, None], (c**2).sum(1)[:, None]
    turned = (square[0] * c[:, ::-1] - square[1] * b[:, ::-1]) * [1, -1]
    away = turned / np.where(np.abs(twice) > 1e-9, twice, np.inf)[:, None]
    centre, radius = corner[:, 0] + away, np.hypot(*away.T)
    empty = (radius > HOLE[0] * unit) & (radius < HOLE[1] * unit) & (triangles.find_simplex(centre) >= 0)
    return _merged(centre[empty], MERGED * unit)


def _unevenness(points, places):
    """How differently far the four nearest columns are from each point: relative standard deviation, ndarray (k,)."""
    if not len(points):
        return np.empty(0)
    apart = cKDTree(places).query(points, k=4)[0]
    return apart.std(axis=1) / apart.mean(axis=1)


def _merged(points, distance):
    """Points, those nearer than `distance` to each other replaced by their mean."""
    if not len(points):
        return points
    i, j = cKDTree(points).query_pairs(distance, output_type="ndarray").T
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(points), len(points)))
    label = connected_components(graph, directed=False)[1]
    return np.column_stack([np.bincount(label, along) / np.bincount(label) for along in points.T])


class JointFit:
    """The state of a fit: `peaks` (the listed columns first, faint ones after), what they share, weights.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
    places : ndarray, shape (n, 2)
        Of the listed columns, good to a tenth of the distance between them [px].
    height, sigma : ndarray, shape (n,)
        First guesses [intensity], [px].
    """

    def __init__(self, image, places, height, sigma):
        self.image, self.listed = np.asarray(image, np.float32), len(places)
        self.unit = float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))
        margin = min(max(int(self.unit), 1), min(image.shape) // 4)
        self.inner = slice(margin, -margin), slice(margin, -margin)
        self.edge = np.full(image.shape, EDGE_WEIGHT, np.float32)
        self.edge[self.inner] = 1
        self.sigma = float(np.median(sigma))
        # as dark as the image gets: what is brighter between columns, tails and faint columns have to explain
        self.constant = float(ndimage.gaussian_filter(self.image, 0.12 * self.unit)[self.inner].min())
        faint = holes(places)
        self.home = np.vstack([places, faint])
        self.sure = 1 / (self.unit * np.clip(_unevenness(faint, places), *FAINT_PLACE)) ** 2
        self.usual = float(np.median(height))
        start = np.r_[np.maximum(height, 0.02 * self.usual), np.full(len(faint), 0.03 * self.usual)]
        alike = np.ones(len(self.home))
        self.peaks = Peaks(*self.home.T.copy(), start, self.sigma * alike, TAIL * alike, WIDER)
        self.tiling = Tiling(self.peaks, image.shape)

    @property
    def columns(self):
        """Places, heights and widths of the listed columns, ndarray (n, 4)."""
        fit = self.peaks
        return np.column_stack([fit.x, fit.y, fit.height, fit.sigma])[: self.listed]

    @property
    def places(self):
        """Places of the listed columns, ndarray (n, 2)."""
        return self.columns[:, :2]

    def run(self, *, progress=False):
        """All rounds."""
        for number in tqdm(range(ROUNDS), "columns", disable=not progress):
            self.step(number)

    def step(self, number):
        """One round of equation (1)."""
        model = self._model()
        if number < WEIGHED:
            self.weight = self.edge * noise_weight((self.image - model)[self.inner], model[self.inner], model)
        equations = self.tiling.normal_equations(self.peaks, self.image - model, self.weight)
        stiff, pull = self._priors(number)
        free = np.array([number > 0, number > 1, number > 0])  # σ, κ, constant
        own, shared = solved(equations, stiff, pull, free)
        before, cost = vars(self).copy(), self._cost(stiff)
        for _ in range(SHORTENED):
            self._take(own, shared)
            if self._cost(stiff) < cost:
                break
            vars(self).update(before)
            own, shared = own / 3, shared / 3

    def _model(self):
        return self.tiling.rendered(self.peaks) + np.float32(self.constant)

    def _cost(self, stiff):
        """What equation (1) makes least."""
        return float(np.sum(self.weight * (self.image - self._model()) ** 2) + stiff @ self._away() ** 2)

    def unexplained(self):
        """What the model leaves, through the width of a column, over what noise would leave there (1: nothing)."""
        left = self.image - self.tiling.rendered(self.peaks) - np.float32(self.constant)
        seen = ndimage.gaussian_filter(left * self.weight, self.sigma)
        noise = ndimage.gaussian_filter(self.weight, self.sigma / np.sqrt(2)) / (4 * np.pi * self.sigma**2)
        return float(np.sqrt(np.mean((seen**2 / noise)[self.inner])))

    def _priors(self, number):
        """Λ (5n,) and Λ (θ₀ − θ) (5n,)."""
        fit, faint = self.peaks, np.arange(len(self.peaks)) >= self.listed
        stiff = np.zeros((len(fit), 5))
        stiff[faint, :2] = self.sure[:, None]
        stiff[faint, 2] = 1 / (FAINT_HEIGHT * self.usual) ** 2
        stiff[:, 3] = 1 / (np.where(faint, FAINT_ALIKE[0], ALIKE[0]) * self.sigma) ** 2
        stiff[:, 4] = 1 / np.where(faint, FAINT_ALIKE[1], ALIKE[1]) ** 2
        stiff[:, 3:] *= 1e4 if number == 0 else 1  # at first all columns are alike
        return stiff.ravel(), -stiff.ravel() * self._away()

    def _away(self):
        """How far the parameters are from what the priors expect, (5n,)."""
        fit = self.peaks
        away = [*(fit.places - self.home).T, fit.height, fit.sigma - self.sigma, fit.tail - TAIL]
        return np.column_stack(away).ravel()

    def _take(self, own, shared):
        """Go the step, within what can be."""
        fit, unit = self.peaks, self.unit
        # the parameters are tied to each other: a step too long is made shorter as a whole
        part = min(1.0, *(m / max(abs(s), 1e-30) for m, s in zip((0.2 * self.sigma, 0.3), shared, strict=False)))
        own, (sigma, wider, constant) = part * own, part * shared
        self.sigma = float(np.clip(self.sigma + sigma, 0.08 * unit, 0.45 * unit))
        self.constant += constant
        # a hole that holds nothing may fall below zero by its noise: cut off there, it would raise what is beside it
        least = np.where(np.arange(len(fit)) < self.listed, 0.02 * self.usual, -np.inf)
        self.peaks = replace(
            fit,
            x=fit.x + np.clip(own[:, 0], -0.15 * unit, 0.15 * unit),
            y=fit.y + np.clip(own[:, 1], -0.15 * unit, 0.15 * unit),
            height=np.maximum(fit.height + own[:, 2], least),
            sigma=np.clip(fit.sigma + own[:, 3] + sigma, 0.5 * self.sigma, 1.6 * self.sigma),
            tail=np.clip(fit.tail + own[:, 4], -0.2, 0.9),
            wider=float(np.clip(fit.wider + wider, 1.5, 3)),
        )


def solved(equations, stiff, pull, free):
    """Equation (1): the step of every column, ndarray (n, 5), and that of σ, κ and the constant, (3,).

    Given the shared parameters the rest is a sparse system, solved by conjugate gradients for the four right-hand
    sides at once; the shared ones follow from their Schur complement.

    Parameters
    ----------
    equations : unitcell.atoms.peaks.NormalEquations
    stiff, pull : ndarray, shape (5n,)
        Λ and Λ (θ₀ − θ).
    free : ndarray of bool, shape (3,)
        Which of the shared ones may change.
    """
    own, n = equations.own, len(stiff) // 5
    same = np.zeros((n, 5, 1))
    same[:, 3] = 1.0  # σ of all columns moves together
    same = same.reshape(-1, 1)
    meet = np.column_stack([own @ same, equations.border])[:, free]  # (5n, free)
    across = same.T @ equations.border
    corner = np.block([[same.T @ (own @ same), across], [across.T, equations.corner]])[np.ix_(free, free)]
    asked = np.r_[same.T @ equations.own_pull, equations.shared_pull][free]
    found = _conjugate_gradients(own, stiff, np.column_stack([equations.own_pull + pull, meet]))
    shared = np.zeros(3)
    if free.any():
        complement = corner - meet.T @ found[:, 1:]
        shared[free] = np.linalg.lstsq(complement, asked - meet.T @ found[:, 0], rcond=1e-10)[0]
    return (found[:, 0] - found[:, 1:] @ shared[free]).reshape(n, 5), shared


def _conjugate_gradients(matrix, stiff, wanted):
    """Solve (matrix + diag(stiff)) X = wanted (5n, k), each column by itself, preconditioned by 5 × 5 blocks."""
    n = len(stiff) // 5
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    blocks = matrix.data[rows == matrix.indices]
    blocks = blocks + np.einsum("ni,ij->nij", stiff.reshape(n, 5), np.eye(5))
    scale = np.sqrt(np.einsum("nii->ni", blocks))
    blocks = blocks / (scale[:, :, None] * scale[:, None]) + 1e-7 * np.eye(5)
    inverse = np.linalg.inv(blocks) / (scale[:, :, None] * scale[:, None])

    matrix = matrix.tocsr()  # twice as fast in the products below

    def conditioned(rest):
        return np.einsum("nij,njk->nik", inverse, rest.reshape(n, 5, -1)).reshape(rest.shape)

    found, rest = np.zeros_like(wanted), wanted.copy()
    along = conditioned(rest)
    size = first = (rest * along).sum(0)
    for _ in range(STEPS):
        turned = matrix @ along + stiff[:, None] * along
        far = size / np.maximum((along * turned).sum(0), 1e-30)
        found, rest = found + far * along, rest - far * turned
        better = conditioned(rest)
        smaller = (rest * better).sum(0)
        if (smaller <= SOLVED**2 * first).all():
            break
        along, size = better + smaller / np.maximum(size, 1e-30) * along, smaller
    return found
