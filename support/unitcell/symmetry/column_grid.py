"""Columns of one sublattice in order: rows, columns, and where each of them is."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from unitcell.errors import InputError

NOWHERE = np.iinfo(int).min  # index of a point that no walk reaches


@dataclass(frozen=True)
class ColumnGrid:
    """Columns of one sublattice in order.

    Parameters
    ----------
    places : ndarray, shape (rows, columns, 2)
        (x, y), x right and y down; NaN where a column was not found.
    unit : str
        Unit of length of `places`.
    """

    places: np.ndarray
    unit: str = "Å"

    @property
    def bonds(self):
        """Mean step along x and along y: (2, 2)."""
        steps = np.nanmean(np.diff(self.places, axis=1), (0, 1)), np.nanmean(np.diff(self.places, axis=0), (0, 1))
        return np.array(steps)

    @property
    def count(self):
        """Columns found."""
        return int(np.isfinite(self.places[..., 0]).sum())

    def swapped(self):
        """The lattice with rows and columns exchanged, and x with y."""
        return ColumnGrid(self.places.swapaxes(0, 1)[..., ::-1], self.unit)

    def window(self, top, left, size):
        """The columns of a square window."""
        return ColumnGrid(self.places[top : top + size, left : left + size], self.unit)


def ordered_columns(points, unit="Å", least=0.5):
    """Put columns on their grid, by walking from each to its neighbours; sparse lines at the edges are left out.

    Parameters
    ----------
    points : array_like, shape (n, 2)
        (x, y) of the columns of one sublattice, whose axes lie within 30° of the image's.
    least : float
        Share of a line's places at which columns must be found.

    Raises
    ------
    InputError
        Fewer than 3 × 3 columns, or NaN.
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 9 or not np.isfinite(points).all():
        raise InputError(f"Columns have shape {points.shape}: give (x, y) of at least nine columns, none of them NaN.")
    tree = cKDTree(points)
    steps = _mean_steps(points, tree)
    index = _walk(points, tree, steps)
    reached = index[:, 0] > NOWHERE
    index = index[reached] - index[reached].min(0)
    places = np.full((*(index.max(0) + 1)[::-1], 2), np.nan)
    places[index[:, 1], index[:, 0]] = points[reached]
    for axis in (0, 1):
        filled = np.isfinite(places[..., 0]).mean(1 - axis) >= least
        places = places.compress(filled, axis)
    if min(places.shape[:2]) < 3:
        raise InputError(f"Only {places.shape[0]} × {places.shape[1]} columns stand in order: give a larger image.")
    return ColumnGrid(places, unit)


def sublattice(atoms, species, pixel_size_A):
    """Columns of one species of `unitcell.atoms.finding.find_atoms`, in order [Å]."""
    points = atoms.loc[atoms.species == species, ["x_px", "y_px"]].to_numpy(float)
    return ordered_columns(points * pixel_size_A)


def _mean_steps(points, tree):
    """Mean steps to the right and down between neighbours: (2, 2)."""
    _, near = tree.query(points, k=min(9, len(points)))
    away = points[near[:, 1:]] - points[:, None]  # (n, 8, 2)
    steps = []
    for axis in (0, 1):
        ahead = (away[..., axis] > 0) & (np.abs(away[..., 1 - axis]) < np.tan(np.radians(30)) * away[..., axis])
        first = [offsets[chosen][0] for offsets, chosen in zip(away, ahead, strict=True) if chosen.any()]
        if not first:
            raise InputError("Columns have no neighbours to the right or below: turn the lattice's axes upright.")
        typical = np.median(first, 0)
        close = np.linalg.norm(first - typical, axis=1) < 0.3 * np.linalg.norm(typical)
        steps.append(np.mean(np.array(first)[close], 0))  # the mean: a zigzag's median is one of its two steps
    return np.array(steps)


def _walk(points, tree, steps):
    """Integer (column, row) of every point that can be reached; NOWHERE where it cannot."""
    reach = 0.3 * np.linalg.norm(steps, axis=1).min()
    index = np.full((len(points), 2), NOWHERE)
    start = tree.query(points.mean(0))[1]
    index[start], queue = 0, [start]
    while queue:
        here = queue.pop(0)
        for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
            distance, there = tree.query(points[here] + sign * steps[axis])
            if distance < reach and index[there, 0] == NOWHERE:
                index[there] = index[here]
                index[there, axis] += sign
                queue.append(there)
    return index


def simulated_grid(shape, *, spacing=(1.0, 1.0), shift=(0.0, 0.0), position_sd=0.02, row_jitter=0.0, rng):
    """A lattice with errors: its columns along x and rows along y shifted to and fro along themselves.

    Parameters
    ----------
    shape : tuple of int
        Rows, columns.
    spacing : tuple of float
        Along x and along y [mean bond length].
    shift : tuple of float
        Displacement q of alternate columns along x, of alternate rows along y; bonds then differ by 4 q.
    position_sd : float
        Error of each column, each axis.
    row_jitter : float
        Standard deviation of what the columns of one scan row share, each axis.
    rng : numpy.random.Generator
    """
    row, column = np.mgrid[: shape[0], : shape[1]].astype(float)
    x = column * spacing[0] + np.where(column % 2, -1, 1) * shift[0]
    y = row * spacing[1] + np.where(row % 2, -1, 1) * shift[1]
    jitter = rng.normal(0, 1, (shape[0], 1, 2)) * row_jitter
    noise = rng.normal(0, 1, (*shape, 2)) * position_sd
    return ColumnGrid(np.stack([x, y], -1) + jitter + noise, "mean bond length")
