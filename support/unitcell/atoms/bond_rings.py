"""Rings of bonds in a two-dimensional network of atoms, and the grains that they make up.

Neighbouring atoms of a sheet, such as graphene, are the corners of Delaunay triangles. Triangles that share an edge too
long for a bond belong to one ring; t triangles without a corner inside have t + 2 corners.
"""

import numpy as np
import pandas as pd
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, cKDTree

from unitcell.errors import InputError

LONGEST = 1.35  # of a bond, over its usual length
FEWEST, MOST = 4, 9  # corners of what is listed as a ring
NEAR = 3.2  # bonds: rings this near are averaged before grains are told apart
GRAPHENE_BOND_A = 1.42


def rings(points, bond):
    """Rings of bonds.

    Parameters
    ----------
    points : array_like, shape (n, 2)
        x right, y down.
    bond : float
        Usual length of a bond, in the unit of the points.

    Returns
    -------
    pandas.DataFrame
        `x`, `y` (centre), `size` (corners) and `corners` (their indices, in turn). Rings that are open at the edge of
        the network, or that have fewer than 4 or more than 9 corners, are left out.

    Raises
    ------
    InputError
        Fewer than four points, or no bond between them.
    """
    points = np.asarray(points, float)
    if len(points) < 4:
        raise InputError(f"{len(points)} atoms make no rings: give at least four.")
    mesh = Delaunay(points)
    corner = points[mesh.simplices]  # (t, 3, 2)
    length = np.hypot(*np.moveaxis(np.roll(corner, -1, 1) - np.roll(corner, 1, 1), -1, 0))  # opposite each corner
    if length.min() > LONGEST * bond:
        raise InputError(f"No two atoms are within {LONGEST * bond:.3g} of each other: check the length of a bond.")
    open_side = length > LONGEST * bond
    triangle, side = np.nonzero(open_side)
    across = mesh.neighbors[triangle, side]
    inner, count = across >= 0, len(mesh.simplices)
    joined = coo_matrix((np.ones(inner.sum()), (triangle[inner], across[inner])), (count, count))
    label = connected_components(joined, directed=False)[1]
    broken = set(label[triangle[~inner]])
    found = []
    for ring, members in pd.Series(np.arange(count)).groupby(label):
        which = np.unique(mesh.simplices[members])
        if ring in broken or not FEWEST <= len(which) <= MOST or len(which) != len(members) + 2:
            continue
        centre = points[which].mean(0)
        turn = np.arctan2(*(points[which] - centre).T[::-1])
        found.append((*centre, len(which), which[np.argsort(turn)]))
    return pd.DataFrame(found, columns=["x", "y", "size", "corners"])


def orientation(points, table):
    """ψ = mean exp(6iφ) over the corners of each ring, φ counter-clockwise as seen: complex ndarray (rings,)."""
    points = np.asarray(points, float)
    found = np.empty(len(table), complex)
    for n, (x, y, corners) in enumerate(zip(table.x, table.y, table.corners, strict=True)):
        away = points[corners] - (x, y)
        found[n] = np.exp(6j * np.arctan2(-away[:, 1], away[:, 0])).mean()
    return found


def grains(points, table, bond):
    """Tell two grains apart by the orientation of their six-rings.

    Parameters
    ----------
    points, table, bond
        As for and from `rings`.

    Returns
    -------
    grain : ndarray of int, shape (rings,)
        0 or 1; every ring goes with the six-rings around it.
    angle_deg : (float, float)
        Orientation of each grain modulo 60°, counter-clockwise as seen.
    rotation_deg : float
        Between them, 0 to 30.
    """
    six = table["size"].to_numpy() == 6
    if six.sum() < 4:
        raise InputError(f"Only {six.sum()} six-rings were found: two grains cannot be told apart.")
    order, centres = orientation(points, table), table[["x", "y"]].to_numpy()
    tree = cKDTree(centres[six])
    near = tree.query_ball_point(centres, NEAR * bond)
    smooth = np.array([order[six][k].mean() if k else 0 for k in near])
    plane = np.column_stack([smooth.real, smooth.imag])
    grain = kmeans2(plane, 2, seed=0, minit="++")[1]
    angle = [np.degrees(np.angle(order[six & (grain == k)].mean())) / 6 % 60 for k in (0, 1)]
    apart = abs(angle[0] - angle[1])
    return grain, tuple(angle), min(apart, 60 - apart)


def completeness(points, shape, bond, margin=2.1):
    """Atoms found over those of a perfect honeycomb (one in 0.75 √3 bond²), `margin` bonds away from the edges.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        [px].
    shape : (int, int)
        Rows and columns of the image.
    bond : float
        [px].
    """
    last = np.array(shape[::-1]) - 1
    inside = ((points > margin * bond) & (points < last - margin * bond)).all(axis=1).sum()
    return float(inside * 0.75 * np.sqrt(3) * bond**2 / np.prod(last - 2 * margin * bond))


def rotation_in_spectrum(image, pixel_A, bond_A=GRAPHENE_BOND_A, bin_deg=0.5):
    """Rotation between two grains of a honeycomb by the power spectrum alone, without atoms: float [degrees], 0 to 30.

    Each grain has six spots at 1 / (1.5 bonds): the two best separate directions modulo 60° are theirs.
    """
    rows, columns = image.shape
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    power = np.abs(np.fft.fft2(window * (image - image.mean()))) ** 2
    qy, qx = np.meshgrid(np.fft.fftfreq(rows, pixel_A), np.fft.fftfreq(columns, pixel_A), indexing="ij")
    spots = np.abs(np.hypot(qx, qy) * 1.5 * bond_A - 1) < 0.08
    angle = np.degrees(np.arctan2(-qy, qx))[spots] % 60
    total = np.histogram(angle, np.arange(0, 60 + bin_deg, bin_deg), weights=power[spots])[0]
    total = gaussian_filter1d(total, 1.0 / bin_deg, mode="wrap")
    first = total.argmax()
    apart = np.abs(np.arange(len(total)) - first) * bin_deg
    apart = np.minimum(apart, 60 - apart)
    return float(apart[np.where(apart > 6, total, 0).argmax()])
