"""From an image to atoms and their sub-images (Kalinin et al. 2020, section 3, first step)."""

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from sklearn.mixture import GaussianMixture

from unitcell.atoms.refinement import refine_columns
from unitcell.atoms.segmenter import segment
from unitcell.errors import InputError


def find_atoms(image, predictor, *, threshold=0.5, refine=True, a_spacing_A=None, progress=False):
    """Columns of an image.

    Segments the image, takes the centre of mass of each blob, optionally fits peaks to the
    intensity, and tells bright columns ('A') from dim ones ('B').

    Parameters
    ----------
    image : StemImage
    predictor : atomai SegPredictor
        From `segmenter.load_segmenter`.
    threshold : float
        Probability above which a pixel belongs to a column.
    refine : bool
        Fit the columns to the intensity, all at once where that explains it (`unitcell.atoms.refinement`).
    a_spacing_A : float, optional
        Expected distance between neighbouring A columns [Å]; where given, a distance that differs
        by more than a quarter raises InputError.
    progress : bool
        Show the rounds of the fit.

    Returns
    -------
    atoms : pandas.DataFrame
        `x_px`, `y_px` (x right, y down, in the image's pixels), `species` ('A' or 'B'),
        `probability` (mean over the blob).
    probability : ndarray of float32, shape of the image
        The segmentation, resampled to the image's pixels.
    """
    require_threshold(threshold)
    small, zoom = segment(image, predictor)
    x, y, p, cut = blob_centres(small, threshold, zoom)
    if (~cut).sum() < 9:
        raise InputError(
            f"Only {(~cut).sum()} atoms were found in {image.name} at pixel_size_A = {image.pixel_size_A:g}: check the "
            f"pixel size, and that columns are bright on dark; a threshold below {threshold:g} finds fainter ones."
        )
    if refine:
        x, y = refine_columns(image.intensity, x, y, progress=progress)[:2]
    x, y, p = x[~cut], y[~cut], p[~cut]
    spacing = nearest_distance(x, y)
    species = assign_species(column_heights(image.intensity, x, y, 0.2 * spacing))
    atoms = pd.DataFrame({"x_px": x, "y_px": y, "species": species, "probability": p})
    if a_spacing_A:
        require_plausible_spacing(atoms, image, a_spacing_A)
    return atoms, resampled(small, zoom, image.intensity.shape)


def require_threshold(threshold):
    """Refuse a probability that is none."""
    if not 0 < threshold < 1:
        raise InputError(f"threshold = {threshold} is no probability: give a number between 0 and 1, such as 0.5.")


def blob_centres(probability, threshold, zoom, smallest=4):
    """Blobs above `threshold`: centres of mass x, y [image pixels], mean probability, and whether the edge cuts them.

    The centre of mass of a blob that the image's edge cuts is not the column's.
    """
    labels, count = ndimage.label(probability > threshold)
    index = np.arange(1, count + 1)
    index = index[ndimage.sum_labels(np.ones_like(probability), labels, index) >= smallest]
    if not len(index):
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0, bool)
    centre = np.array(ndimage.center_of_mass(probability, labels, index)).reshape(-1, 2)
    y, x = (centre.T + 0.5) / np.array(zoom)[:, None] - 0.5
    cut = np.isin(index, np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return x, y, ndimage.mean(probability, labels, index), cut


def resampled(small, zoom, shape):
    """A map at the working pixel size, interpolated to `shape`."""
    rows, cols = ((np.arange(n) + 0.5) * z - 0.5 for n, z in zip(shape, zoom, strict=True))
    grid = np.meshgrid(rows, cols, indexing="ij")
    return ndimage.map_coordinates(small, grid, order=1, mode="nearest").astype(np.float32)


def nearest_distance(x, y):
    """Median distance from a point to its nearest neighbour [px]."""
    gap, _ = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)
    return float(np.median(gap[:, 1]))


def column_heights(intensity, x, y, radius):
    """Mean intensity within about `radius` [px] of each centre."""
    smooth = ndimage.gaussian_filter(intensity, radius / 1.5)
    return ndimage.map_coordinates(smooth, [y, x], order=1, mode="nearest")


def assign_species(heights):
    """'A' for the brighter and 'B' for the dimmer columns by a mixture of two normals, or all 'A'.

    All are 'A' where two normals are no better than one (Bayesian information criterion), or where
    their means are closer than three of their standard deviations.
    """
    column = np.asarray(heights, float)[:, None]
    one, two = (GaussianMixture(k, n_init=3, random_state=0).fit(column) for k in (1, 2))
    mean, sd = two.means_.ravel(), np.sqrt(two.covariances_.ravel())
    if two.bic(column) >= one.bic(column) or np.ptp(mean) < 3 * sd.mean():
        return np.full(len(column), "A")
    return np.where(two.predict(column) == mean.argmax(), "A", "B")


def require_plausible_spacing(atoms, image, a_spacing_A):
    """Raise InputError where the A columns are not `a_spacing_A` [Å] apart, within a quarter."""
    a = atoms[atoms.species == "A"]
    found_A = nearest_distance(a.x_px, a.y_px) * image.pixel_size_A
    if not 0.75 < found_A / a_spacing_A < 1.25:
        raise InputError(
            f"The A columns of {image.name} are {found_A:.2f} Å apart at pixel_size_A = {image.pixel_size_A:g}, where "
            f"a_spacing_A = {a_spacing_A:g} is expected: give the right pixel_size_A (about "
            f"{image.pixel_size_A * a_spacing_A / found_A:.3g}), or this material's a_spacing_A (None: not checked)."
        )


def log_peaks(image, scale_A=0.6, relative_threshold=0.1):
    """Baseline: local maxima of the Laplacian of Gaussian; x, y [px]."""
    sigma = scale_A / image.pixel_size_A
    response = -ndimage.gaussian_laplace(image.intensity, sigma)
    peaks = peak_local_max(response, min_distance=int(sigma), threshold_rel=relative_threshold, exclude_border=False)
    return peaks[:, 1].astype(float), peaks[:, 0].astype(float)


def counted_grid(corners_px, columns, rows):
    """Positions of columns counted by eye: bilinear between four corners read off the image.

    Parameters
    ----------
    corners_px : array_like, shape (4, 2)
        (x, y) of the top left, top right, bottom left and bottom right column [px].
    columns, rows : int
        How many columns across and down, the corners included.

    Returns
    -------
    ndarray, shape (rows, columns, 2)
        (x, y) [px].
    """
    tl, tr, bl, br = np.asarray(corners_px, float)
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    u, v = u[..., None], v[..., None]
    return (1 - v) * ((1 - u) * tl + u * tr) + v * ((1 - u) * bl + u * br)


def matched(found, truth, radius):
    """Pair points one to one, nearest first.

    Parameters
    ----------
    found, truth : array_like, shapes (n, 2) and (m, 2)
    radius : float
        Farthest pair.

    Returns
    -------
    pairs : ndarray of int, shape (k, 2)
        Indices into `found` and `truth`.
    """
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    near = cKDTree(truth).sparse_distance_matrix(cKDTree(found), radius, output_type="ndarray")
    pairs, used_found, used_truth = [], set(), set()
    for row in np.sort(near, order="v"):
        if row["j"] not in used_found and row["i"] not in used_truth:
            pairs.append((row["j"], row["i"]))
            used_found.add(row["j"])
            used_truth.add(row["i"])
    return np.array(pairs, int).reshape(-1, 2)


def recall_and_precision(found, truth, radius):
    """Share of the true places that were found, and of the found atoms among them that are true.

    Parameters
    ----------
    found : pandas.DataFrame
        `x_px`, `y_px`.
    truth : ndarray, shape (rows, columns, 2)
        (x, y) of a grid of places [px]; atoms outside its outline count neither way.
    radius : float
        Farthest distance of an atom from its place [px].
    """
    places, points = truth.reshape(-1, 2), found[["x_px", "y_px"]].to_numpy()
    pairs = matched(points, places, radius)
    inside = ((points > places.min(0)) & (points < places.max(0))).all(1)
    inside[pairs[:, 0]] = True
    return len(pairs) / len(places), len(pairs) / max(inside.sum(), 1)


def zigzag(points):
    """How far each point lies below the mean of its left and right neighbours [px]; NaN where it lacks one.

    Neighbours are the nearest points within ±30° of the horizontal, on either side.
    """
    distance, index = cKDTree(points).query(points, k=min(9, len(points)))
    step = points[index] - points[:, None]  # (n, 9, 2)
    level = np.abs(step[..., 1]) < np.tan(np.radians(30)) * np.abs(step[..., 0])
    result = np.full(len(points), np.nan)
    for n in range(len(points)):
        sides = [np.flatnonzero(level[n] & (side * step[n, :, 0] > 0)) for side in (-1, 1)]
        if all(len(side) and distance[n, side[0]] < 1.6 * distance[n, 1] for side in sides):
            result[n] = -np.mean([step[n, side[0], 1] for side in sides])
    return result
