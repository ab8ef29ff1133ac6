"""Columns of a projected [110] perovskite: where their minima are, and the smooth lattice through them."""

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

SITES = {"B": (0.0, 0.0), "A": (0.0, 0.5), "O": (0.5, 0.0), "hole": (0.5, 0.5)}  # fractions of [110], [001]
MARGIN_A = 0.5  # a column nearer to the image's edge than this is not counted: its minimum cannot be located
CELL_SAMPLES = (20, 14)  # of a cell whose likeness to the others is measured: [001] × [110]


def find_columns(image, field, origin, cell_px):
    """Table of the columns of one site, minima located, in lattice order."""
    lattice_points, guess = field.lattice_points(origin, image.intensity.shape)
    keep = inside(*guess.T, image.intensity.shape, MARGIN_A / image.pixel_size_A)
    found_px, curvature = _minima(image, guess[keep], cell_px)
    offset = np.linalg.norm(found_px - guess[keep], axis=1)
    usual = np.median(curvature)
    found = (offset < 0.13 * cell_px) & (curvature > 0.25 * usual) & (usual > 0)
    x, y = np.where(found[:, None], found_px, guess[keep]).T
    return pd.DataFrame({"row": lattice_points[keep, 1], "col": lattice_points[keep, 0], "x_px": x, "y_px": y,
                         "found": found})  # fmt: skip


def _minima(image, guess, cell_px, rounds=3):
    """Minima of a paraboloid fitted around each guess: positions (n, 2) [px] and least curvature (n,).

    The fit covers a disk of radius 0.15 a (0.6 Å): wide enough to average the noise, narrow enough to
    stay within one column. A minimum needs both curvatures to be positive.
    """
    smooth = ndimage.spline_filter(ndimage.gaussian_filter(image.intensity.astype(float), 0.05 * cell_px))
    side = np.linspace(-1, 1, 13) * 0.15 * cell_px
    dx, dy = (d.ravel()[np.hypot(*np.meshgrid(side, side)).ravel() <= side[-1]] for d in np.meshgrid(side, side))
    design = np.linalg.pinv(np.stack([np.ones_like(dx), dx, dy, dx**2 / 2, dx * dy, dy**2 / 2], 1))
    position = guess.copy()
    for _ in range(rounds):
        x, y = position[:, 0, None] + dx, position[:, 1, None] + dy
        _, *gradient, xx, xy, yy = design @ ndimage.map_coordinates(smooth, [y, x], order=3, mode="nearest",
                                                                    prefilter=False).T  # fmt: skip
        least = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
        determinant = np.where(least > 0, xx * yy - xy**2, np.inf)
        step = -np.stack([yy * gradient[0] - xy * gradient[1], xx * gradient[1] - xy * gradient[0]]) / determinant
        position = position + np.clip(step.T, -side[-1], side[-1])
    return position, least


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


def confidence(image, centres, cells):
    """Correlation of each column's own cell with the median cell, clipped to 0..1, over the part in the image."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in CELL_SAMPLES)
    smooth = ndimage.gaussian_filter(image.intensity.astype(float), 0.04 * np.sqrt(np.linalg.det(cells[0])))
    at_x, at_y = (c.reshape(len(centres), -1) for c in positions(centres, cells, np.stack(np.meshgrid(x, y), -1)))
    seen = inside(at_x, at_y, image.intensity.shape)
    own = ndimage.map_coordinates(smooth, [at_y, at_x], order=1, mode="nearest")
    own, typical = (_centred(c, seen) for c in (own, np.broadcast_to(np.median(own, 0), own.shape)))
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(typical, axis=1)
    return np.clip((own * typical).sum(1) / np.maximum(norms, 1e-12), 0, 1)


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
