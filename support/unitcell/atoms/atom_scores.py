"""How well atoms are found in a twin: precision, recall, F1, and position errors against the Cramér–Rao bound."""

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from unitcell.atoms import finding
from unitcell.micrographs.images import StemImage
from unitcell.twins.haadf_twins import open_twin

MATCH_A = 0.6  # an atom this near to a column is that column's
MARGIN_A = 3.0  # columns nearer to the edge are not judged: their neighbours are not in the image
REACH_A = 6.0  # of the neighbours whose places are unknown too
NEGLIGIBLE = 1e-3  # of a column's height


def twin_image(twin):
    """The image of a twin as a StemImage, marked as simulated."""
    name = f"twin {twin.attrs['twin']}"
    return StemImage(twin.image.values, float(twin.attrs["pixel_size_A"]), name, simulated=True)


def scores(found, twin, expected, sample=150, seed=0):
    """Scores of an atoms table, one row for each species and one for every column.

    Parameters
    ----------
    found : pandas.DataFrame
        With `x_px`, `y_px`.
    twin : xarray.Dataset
        From `unitcell.twins.haadf_twins.open_twin`.
    expected : ndarray, shape (rows, columns)
        Its counts without noise.
    sample : int
        Columns of each species that bound and error are compared on (the bound takes a matrix for each).
    seed : int
        Of the sample.

    Returns
    -------
    pandas.DataFrame
        Index species and "all"; `recall`; `precision` (of atoms nearest to that species); `f1`; `rms_A`, error along
        one axis of all matched columns; `bound_A`, rms of `joint_bounds`; `ratio` of error to bound, on the same few.
    """
    pixel_A = float(twin.attrs["pixel_size_A"])
    places, species = np.column_stack([twin.x_px, twin.y_px]), twin.species.values.astype(str)
    points = found[["x_px", "y_px"]].to_numpy()
    pairs = finding.matched(points, places, MATCH_A / pixel_A)
    margin, last = MARGIN_A / pixel_A, np.array(twin.image.shape[::-1]) - 1

    def judged(where):
        return ((where > margin) & (where < last - margin)).all(axis=1)

    hit, true = np.zeros(len(places), bool), np.zeros(len(points), bool)
    hit[pairs[:, 1]], true[pairs[:, 0]] = True, True
    error = np.full(places.shape, np.nan)
    error[pairs[:, 1]] = (points[pairs[:, 0]] - places[pairs[:, 1]]) * pixel_A
    belongs = species[cKDTree(places).query(points)[1]]
    rows, rng = {}, np.random.default_rng(seed)
    for name in (*np.unique(species), "all"):
        columns = judged(places) & ((species == name) | (name == "all"))
        atoms_of = judged(points) & ((belongs == name) | (name == "all"))
        recall, precision = hit[columns].mean(), true[atoms_of].mean()
        chosen = np.flatnonzero(columns & hit)
        few = rng.choice(chosen, min(sample, len(chosen)), replace=False)
        bound = _rms(joint_bounds(twin, expected, few))
        rows[name] = {
            "columns": int(columns.sum()), "recall": recall, "precision": precision,
            "f1": 2 * recall * precision / (recall + precision), "rms_A": _rms(error[chosen]), "bound_A": bound,
            "ratio": _rms(error[few]) / bound,
        }  # fmt: skip
    return pd.DataFrame(rows).T


def joint_bounds(twin, expected, chosen):
    """Cramér–Rao bound of the places of some columns, whose neighbours are unknown as well: ndarray (n,) [Å].

    Pixel p counts n_p ~ Poisson(λ_p). With θ the places and heights of a column and of all within 6 Å of it, whose
    peaks have a known shape, the Fisher information is

        F_ij = Σ_p (∂λ_p/∂θ_i) (∂λ_p/∂θ_j) / λ_p,                                                          (1)

    and the bound is the rms of the two standard deviations in F⁻¹ that belong to the column's own x and y (den Dekker
    et al., Ultramicroscopy 104, 83, 2005). Shapes, background and the unlisted columns of oxygen are taken as known:
    where a reader has to find the oxygen too, what can be reached is 1.1 to 1.2 times as much. `bound_A` of the twin
    takes the neighbours as known as well, and is lower.

    Parameters
    ----------
    twin : xarray.Dataset
    expected : ndarray, shape (rows, columns)
        Its counts without noise, λ.
    chosen : ndarray of int
        Which columns.
    """
    pixel_A = float(twin.attrs["pixel_size_A"])
    places = np.column_stack([twin.x_px, twin.y_px])
    peaks = [twin[name].values for name in ("height", "sigma_A", "tail_sigma_A", "tail")]
    tree, half, found = cKDTree(places), int(np.ceil(REACH_A / pixel_A)), []
    for n in chosen:
        near = [m for m in tree.query_ball_point(places[n], half) if m != n and peaks[0][m] > NEGLIGIBLE * peaks[0][n]]
        column, row = np.round(places[n]).astype(int)
        y, x = (np.arange(max(c - half, 0), min(c + half + 1, size))
                for c, size in zip((row, column), expected.shape, strict=True))  # fmt: skip
        root = np.sqrt(np.maximum(expected[np.ix_(y, x)].ravel(), 1e-9))
        slopes = [_derivatives(places[m], [p[m] for p in peaks], x, y, pixel_A) / root for m in (n, *near)]
        slopes = np.concatenate(slopes)
        information = slopes @ slopes.T
        scale = np.sqrt(np.diag(information))
        inverse = np.linalg.inv(information / np.outer(scale, scale)) / np.outer(scale, scale)
        found.append(np.sqrt((inverse[0, 0] + inverse[1, 1]) / 2))
    return np.array(found)


def _derivatives(place, peak, x, y, pixel_A):
    """Derivatives of the counts by x, y [Å] and relative height of one column: ndarray (3, pixels)."""
    counts, sigma, tau, tail = peak
    u, v = (part.ravel() for part in np.meshgrid((x - place[0]) * pixel_A, (y - place[1]) * pixel_A))
    square = u**2 + v**2
    narrow = (1 - tail) * counts * np.exp(-square / (2 * sigma**2))
    broad = tail * counts * np.exp(-square / (2 * tau**2))
    slope = narrow / sigma**2 + broad / tau**2
    return np.stack([slope * u, slope * v, narrow + broad])


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def over_dose(name, doses, predictor, *, refine=True, seed=0, sample=100, **options):
    """`scores` of one twin recorded at several doses: pandas.DataFrame with a column `dose` [e/Å²].

    Parameters
    ----------
    name : str
        Of the twin.
    doses : sequence of float
    predictor : atomai SegPredictor
    refine : bool or "log"
        Whether centres are refined; "log" for peaks of the Laplacian of Gaussian instead.
    options
        Of `unitcell.twins.haadf_twins.open_twin`.
    """
    tables = []
    for dose in doses:
        twin = open_twin(name, dose=dose, seed=seed, **options)
        image = twin_image(twin)
        if refine == "log":
            found = pd.DataFrame(dict(zip(("x_px", "y_px"), finding.log_peaks(image, scale_A=0.45), strict=True)))
        else:
            found = finding.find_atoms(image, predictor, refine=refine)[0]
        expected = open_twin(name, dose=None, seed=seed, **options).image.values * (dose / 1e5)
        tables.append(scores(found, twin, expected, sample, seed).assign(dose=dose))
    return pd.concat(tables).rename_axis("species").reset_index()
