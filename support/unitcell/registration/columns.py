"""Columns of a projected [110] perovskite: where they are, and the smooth lattice through them."""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

SITES = {"B": (0.0, 0.0), "A": (0.0, 0.5), "O": (0.5, 0.0), "hole": (0.5, 0.5)}  # fractions of [110], [001]
MARGIN_A = 0.5  # a column nearer to the image's edge than this is not counted: its minimum cannot be located
REACH = 0.18  # of a: how far a column may be from where the lattice waves put it (half way to the next is 0.177)
FIT_RADIUS = 0.22  # of a: what of a column is fitted
ROUNDS = 6  # of fits in turn
WIDTH_TURNS = (1, 3)  # after which the widths are fitted
LIKENESS = 0.5  # least correlation of what is fitted with a Gaussian
SIGNIFICANT = 4.0  # standard deviations of the noise that a column must be darker than its surroundings by
CELL_SAMPLES = (20, 14)  # of a cell whose likeness to the others is measured: [001] × [110]


@dataclass
class _Site:
    """The columns of one site during the fit: where the lattice waves put them, and where and how dark they are."""

    name: str
    points: np.ndarray  # (n, 2) col, row
    guess: np.ndarray  # (n, 2) x, y [px]
    places: np.ndarray  # (n, 2) x, y [px]
    dark: np.ndarray  # (n,)
    width_px: float
    cleaned: np.ndarray | None = None  # (n, offsets): the last patches, less their neighbours
    whole: np.ndarray | None = None  # (n,): whether enough of the patch lies in the image
    likeness: np.ndarray | None = None  # (n,): correlation of the patch with the Gaussian


def find_columns(surface, field, origin, margin_px):
    """Columns of sites A and B: Gaussians fitted to the image one by one, each less the tails of its neighbours.

    The image around column i is I(r) = b - d_i exp(-|r - r_i|²/2σ²) - Σ_j d_j exp(-|r - r_j|²/2σ_j²), with j the
    nearest columns of the other sites and σ common to a site. Gauss-Newton steps in (b, d_i, r_i), columns in turn,
    solve it (the local version of De Backer et al., Ultramicroscopy 171, 104 (2016)). Without the tails a faint column
    beside a dark one is drawn towards it.

    Parameters
    ----------
    surface : ndarray, shape (rows, columns)
        The image as `surface` returns it.
    field : unitcell.registration.displacement.PhaseField
    origin : ndarray, shape (2,)
        Fractions of [110] and [001] at which the B column lies in the field's cell.
    margin_px : float
        A column nearer to the image's edge than this is left out [px].

    Returns
    -------
    dict of str to pandas.DataFrame
        "B" and "A": row, col, x_px, y_px, found; in lattice order.
    """
    sites = {name: _started(name, field, origin, surface.shape) for name in SITES}
    for turn in range(ROUNDS):
        for name in "ABO":
            _fit(sites[name], sites, surface, field.cell_px)
            if turn in WIDTH_TURNS:
                sites[name].width_px = _width(sites[name], field.cell_px)
    sites["hole"].width_px = sites["B"].width_px
    _fit(sites["hole"], sites, surface, field.cell_px)
    noise = _noise(sites["hole"])
    return {name: _table(sites[name], surface.shape, margin_px, noise, field.cell_px) for name in "BA"}


def surface(intensity, cell_px):
    """Spline coefficients of an image (rows, columns), smoothed by a twentieth of the lattice parameter [px]."""
    return ndimage.spline_filter(ndimage.gaussian_filter(intensity, 0.05 * cell_px), output=intensity.dtype)


def _started(name, field, origin, shape):
    """A site's columns where the lattice waves put them, those just outside the image included: they have tails."""
    points, guess = field.lattice_points(origin + np.array(SITES[name]), shape, 0.5 * field.cell_px)
    return _Site(name, points, guess, guess.copy(), np.zeros(len(points)), 0.13 * field.cell_px)


def _disk(cell_px):
    """Offsets (dx, dy) [px] of the points at which a column is sampled."""
    dx, dy = np.meshgrid(*2 * [np.linspace(-1, 1, 11)])
    return (d[np.hypot(dx, dy) <= 1] * FIT_RADIUS * cell_px for d in (dx, dy))


def _fit(site, sites, surface, cell_px):
    """One Gauss-Newton step of every column of a site."""
    dx, dy = _disk(cell_px)
    x, y = site.places[:, 0, None] + dx, site.places[:, 1, None] + dy
    seen = inside(x, y, surface.shape).astype(float)
    patches = ndimage.map_coordinates(surface, [y, x], order=3, mode="nearest", prefilter=False)
    for place, dark, width in _neighbours(site, sites):
        patches += dark[:, None] * _gaussian(x - place[:, 0, None], y - place[:, 1, None], width)
    own = _gaussian(dx, dy, site.width_px)
    design = np.stack([np.ones_like(dx), -own, -own * dx / site.width_px, -own * dy / site.width_px], 1)
    normal = (seen @ (design[:, :, None] * design[:, None]).reshape(len(dx), -1)).reshape(-1, 4, 4)
    solved = np.linalg.solve(normal + 1e-6 * np.eye(4), ((patches * seen) @ design)[..., None])[..., 0]
    site.cleaned, site.whole = patches, seen.mean(1) > 0.6
    site.likeness = _correlations(patches, np.broadcast_to(-own, patches.shape), seen)
    usual = np.median(solved[site.whole, 1]) if site.whole.any() else 0.0
    site.dark = np.where(site.whole, solved[:, 1], max(usual, 0.0))
    if site.name == "hole":
        return
    step = site.width_px * solved[:, 2:] / np.maximum(site.dark, 1e-12)[:, None]
    moved = site.places + np.clip(step, -0.5 * site.width_px, 0.5 * site.width_px)
    away = np.linalg.norm(moved - site.guess, axis=1, keepdims=True)
    moved = site.guess + (moved - site.guess) * np.minimum(1, REACH * cell_px / np.maximum(away, 1e-12))
    kept = site.whole & (site.dark > 0.1 * usual)
    site.places = np.where(kept[:, None], moved, site.guess)


def _gaussian(dx, dy, width):
    return np.exp(-(dx**2 + dy**2) / (2 * width**2))


def _neighbours(site, sites):
    """Places (n, 2), darkness (n,) and width of each of the nearest columns of the other sites."""
    for half in itertools.product((-1, 0, 1), repeat=2):
        at = np.array(SITES[site.name]) + np.array(half) / 2
        name = next(s for s, place in SITES.items() if np.allclose(at % 1, place))
        if name in (site.name, "hole"):
            continue
        other = sites[name]
        index = _lookup(other.points, site.points + np.rint(at - SITES[name]).astype(int))
        there = index >= 0
        yield other.places[index], np.where(there, np.maximum(other.dark[index], 0), 0), other.width_px


def _lookup(points, wanted):
    """Index of each wanted lattice point (n, 2) among `points`, -1 where it is not one of them."""
    low, high = points.min(0) - 2, points.max(0) + 2
    table = np.full(high - low + 1, -1)
    table[tuple((points - low).T)] = np.arange(len(points))
    return table[tuple((np.clip(wanted, low, high) - low).T)]


def _width(site, cell_px):
    """Standard deviation [px] of the Gaussian that fits the median column best."""
    dx, dy = _disk(cell_px)
    use = site.whole & (site.dark > 0.3 * np.median(site.dark)) & (site.dark > 0)
    if not use.any():
        return site.width_px
    patches = site.cleaned[use] - site.cleaned[use].mean(1, keepdims=True)
    typical = np.median(patches / site.dark[use, None], axis=0)  # of one darkness, or two materials would blur it
    likeness = {}
    for width in np.linspace(0.07, 0.22, 31) * cell_px:
        column = _gaussian(dx, dy, width)
        likeness[width] = -(typical @ (column - column.mean())) / np.linalg.norm(column - column.mean())
    return max(likeness, key=likeness.get)


def _noise(hole):
    """Standard deviation of the fitted darkness, from what holes two repeats along [001] apart differ in."""
    index = _lookup(hole.points, hole.points + np.array([0, 2]))
    pairs = (index >= 0) & hole.whole & hole.whole[index]
    differences = hole.dark[pairs] - hole.dark[index[pairs]]
    return np.median(np.abs(differences)) / (0.6745 * np.sqrt(2)) if pairs.any() else 0.0


def _table(site, shape, margin_px, noise, cell_px, neighbours=25):
    """Rows, places and whether each column was found: as dark as its like around it, and darker than noise.

    The neighbours' lower quartile is the measure, for up to a quarter of them may be missing and the other side
    of an interface may be much darker.
    """
    keep = inside(*site.guess.T, shape, margin_px)
    dark, points = site.dark[keep], site.points[keep]
    metric = points * (np.sqrt(0.5), 1.0)  # one [110] repeat is a/√2
    _, near = cKDTree(metric).query(metric, min(neighbours, len(metric)))
    usual = np.maximum(np.quantile(dark[near], 0.25, axis=1), 0.2 * np.median(dark))
    away = np.linalg.norm(site.places - site.guess, axis=1)[keep]
    found = (dark > np.maximum(0.4 * usual, SIGNIFICANT * noise)) & (away < 0.999 * REACH * cell_px)
    found &= site.whole[keep] & (site.likeness[keep] > LIKENESS)
    x, y = np.where(found[:, None], site.places[keep], site.guess[keep]).T
    return pd.DataFrame({"row": points[:, 1], "col": points[:, 0], "x_px": x, "y_px": y, "found": found})


def local_lattice(columns, site, direct, neighbours=30):
    """Affine fit through the located columns around each column of `site`: centres (n, 2), cells (n, 2, 2).

    A and B share the two vectors but not the constant, for a tilted or polar crystal displaces one against the other.
    Weights are Gaussian in distance (σ = 1.2 a), so alternating shifts from column to column average out.
    """
    known, measured = [], []
    for kind, table in columns.items():
        found = table[table.found]
        own = np.full(len(found), float(kind == site))
        known.append(np.column_stack([found.col, found.row + SITES[kind][1], own, 1 - own]))
        measured.append(found[["x_px", "y_px"]])
    known, measured = np.concatenate(known), np.concatenate(measured)
    targets = columns[site][["col", "row"]] + np.array(SITES[site])
    metric = np.array([np.sqrt(0.5), 1.0])  # one [110] repeat is a/√2
    distance, near = cKDTree(known[:, :2] * metric).query(targets * metric, min(neighbours, len(known)))
    weight = np.exp(-(distance**2) / (2 * 1.2**2))[..., None]
    offsets = known[near, :2] - targets.to_numpy()[:, None]
    design = np.concatenate([known[near, 2:], offsets], -1)
    normal = np.swapaxes(design * weight, 1, 2) @ design + np.diag([1e-6, 1e-6, 1e-3, 1e-3])  # ridge: lone columns
    fit = np.linalg.solve(normal, np.swapaxes(design * weight, 1, 2) @ (measured[near] - offsets @ direct))
    return fit[:, 0], fit[:, 2:] + direct


def confidence(image, centres, cells, chunk=4000):
    """Correlation of each column's own cell with the median cell, clipped to 0..1, over the part in the image."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in CELL_SAMPLES)
    steps = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    smooth = ndimage.gaussian_filter(image.intensity, 0.04 * np.sqrt(np.linalg.det(cells[0])))
    own, seen = [], []
    for start in range(0, len(centres), chunk):  # bounds the memory of the coordinates
        at_x, at_y = positions(centres[start : start + chunk], cells[start : start + chunk], steps)
        seen.append(inside(at_x, at_y, image.intensity.shape))
        own.append(ndimage.map_coordinates(smooth, [at_y, at_x], order=1, mode="nearest"))
    own, seen = np.concatenate(own), np.concatenate(seen)
    typical = np.median(own[:: 1 + len(own) // 4000], axis=0)
    parts = [slice(start, start + chunk) for start in range(0, len(own), chunk)]
    likeness = [_correlations(own[p], np.broadcast_to(typical, own[p].shape), seen[p]) for p in parts]
    return np.clip(np.concatenate(likeness), 0, 1)


def _correlations(first, second, mask):
    """Correlation of each row of `first` with that of `second` (n, points), over `mask`."""
    first, second = _centred(first, mask), _centred(second, mask)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / np.maximum(norms, 1e-12)


def _centred(values, mask):
    """Rows less their mean over `mask`, zero outside it."""
    mean = (values * mask).sum(1, keepdims=True) / np.maximum(mask.sum(1, keepdims=True), 1)
    return (values - mean) * mask


def positions(centres, cells, steps):
    """Image x, y [px] of lattice offsets `steps` (..., 2) around each centre: two arrays (n, ...)."""
    xy = np.tensordot(cells, steps, axes=([1], [steps.ndim - 1]))  # (n, 2, ...)
    return (xy[:, k] + centres[:, k].reshape(-1, *[1] * (steps.ndim - 1)) for k in (0, 1))


def inside(x, y, shape, margin=-0.5):
    """Whether points lie at least `margin` pixels inside the outermost pixel centres of an image of `shape`."""
    return (x >= margin) & (y >= margin) & (x <= shape[1] - 1 - margin) & (y <= shape[0] - 1 - margin)
