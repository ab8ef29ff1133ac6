"""Schematic drawings of crystals."""

import itertools

import numpy as np
from ase.neighborlist import neighbor_list
from matplotlib.colors import to_rgb
from scipy.spatial import ConvexHull

from unitcell.book.figures import OKABE_ITO
from unitcell.crystals.measurement import LONGEST_BOND_A
from unitcell.crystals.octahedra import IMAGE_AXES, image_frame

A_COLOUR, B_COLOUR, O_COLOUR = OKABE_ITO[2], OKABE_ITO[0], OKABE_ITO[5]
AXIS_COLOURS = (OKABE_ITO[1], OKABE_ITO[3], OKABE_ITO[7])
LIGHT = np.array([-0.35, 0.75, 0.56])  # from the upper left, before the page


def draw_projection(axes, crystal, title="", ideal=None):
    """Draw the projected atoms of one cell (x to the right, y down, as in the images).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    crystal : ase.Atoms
        A cation first, then B, then oxygen, as `unitcell.crystals.tilted_perovskite` has them.
    title : str
    ideal : ase.Atoms, optional
        The same cell without tilts: its sites are drawn as rings, and arrows lead from them to the atoms.
    """
    order = list(dict.fromkeys(crystal.get_chemical_symbols()))
    width, height = crystal.cell.lengths()[:2]
    for symbol, size, colour in zip(order, (150, 80, 30), (A_COLOUR, B_COLOUR, O_COLOUR), strict=True):
        places = crystal.positions[crystal.symbols == symbol, :2]
        seen = _copies(places, width, height)[0]
        axes.scatter(*seen.T, s=size, color=colour, alpha=0.7, lw=0, label=symbol)
        if ideal is not None:
            sites, moves = _moves(crystal, ideal, symbol)
            sites, moves = _copies(sites, width, height, moves)
            axes.scatter(*sites.T, s=size, facecolor="none", edgecolor=colour, lw=0.7)
            arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004, "zorder": 3}
            axes.quiver(*sites.T, *moves.T, color="black", **arrows)
    axes.set(aspect="equal", xlim=(-0.5, width + 0.5), ylim=(height + 0.5, -0.5), xlabel="x [Å]", title=title)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("y [Å]")


def draw_octahedra(axes, crystal, title="", *, b_site="Ti", axis=None, view_deg=(-58.0, 18.0)):
    """Draw 2 × 2 × 2 octahedra as translucent polyhedra, c upwards, with the A cation between them.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    crystal : ase.Atoms
        From `unitcell.crystals.tilted_perovskite`.
    title : str
    b_site : str
        Element in the octahedra.
    axis : int, optional
        Pseudo-cubic axis (0, 1, 2 for a, b, c) drawn through the block.
    view_deg : (float, float)
        Azimuth from a and elevation of the eye [degrees].
    """
    camera = _camera(*view_deg)
    centres, vertices = octahedra_block(crystal, b_site)
    nearest = np.argsort(centres @ camera[2])
    middle = float(np.median(centres @ camera[2]))
    for rank, number in enumerate(nearest):
        above = centres[number] @ camera[2] > middle
        _draw_octahedron(axes, centres[number] @ camera.T, vertices[number] @ camera.T, rank + 2 * above)
    x, y = (camera @ np.full(3, 0.5))[:2]
    axes.scatter([x], [y], s=180, color=A_COLOUR, edgecolor="white", lw=0.8, zorder=len(nearest) // 2)
    _draw_axes(axes, camera, axis)
    window = np.array([-1.7, 1.7])
    axes.set(aspect="equal", title=title, xlim=x + window, ylim=y + window)
    axes.axis("off")


def octahedra_block(crystal, b_site="Ti", block=(2, 2, 2)):
    """Centres and vertices of a block of octahedra in pseudo-cubic coordinates: ndarrays (n, 3) and (n, 6, 3)."""
    lengths = np.asarray(crystal.info["pseudocubic_A"])
    first, second, bonds = neighbor_list("ijD", crystal, LONGEST_BOND_A)
    cations = np.flatnonzero(crystal.symbols == b_site)
    centres = np.array(list(itertools.product(*map(range, block))))
    vertices = []
    for site in image_frame(centres.astype(float)) * lengths:
        apart = (crystal.positions[cations] - site) / crystal.cell.lengths()
        here = cations[np.abs(apart - apart.round()).sum(axis=1).argmin()]
        arms = bonds[(first == here) & (crystal.symbols[second] == "O")]
        shortest = np.argsort(np.linalg.norm(arms, axis=1))[:6]
        vertices.append((site + arms[shortest]) / lengths @ IMAGE_AXES)
    return centres, np.array(vertices)


def _camera(azimuth_deg, elevation_deg):
    """Rows: what is right, up and towards the eye, in pseudo-cubic coordinates."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    towards = np.array([*(np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])), np.sin(elevation)])
    return np.stack([right, np.cross(towards, right), towards])


def _draw_octahedron(axes, centre, vertices, rank):
    """Eight translucent faces from back to front, shaded by their slope, in the frame of the eye."""
    faces = sorted(vertices[ConvexHull(vertices).simplices], key=lambda face: face[:, 2].mean())
    axes.scatter(*centre[:2], s=22, color="black", lw=0, zorder=rank)
    for face in faces:
        normal = np.cross(face[1] - face[0], face[2] - face[0])
        normal *= np.sign(normal @ (face.mean(axis=0) - centre)) / np.linalg.norm(normal)
        shade = 0.55 + 0.45 * max(normal @ LIGHT, 0.0)
        white = 1 - shade
        colour = np.array(to_rgb(B_COLOUR)) * (1 - white) * 0.6 + 0.4 * shade
        axes.fill(*face[:, :2].T, facecolor=(*np.clip(colour, 0, 1), 0.5), edgecolor="black", lw=0.5, zorder=rank)
    axes.scatter(*vertices[:, :2].T, s=14, color=O_COLOUR, lw=0, zorder=rank)


def _draw_axes(axes, camera, through):
    """The pseudo-cubic axes at the lower left, or one of them through the block."""
    middle = camera[:2] @ np.full(3, 0.5)
    for number, (name, colour) in enumerate(zip("abc", AXIS_COLOURS, strict=True)):
        step = camera[:2, number]
        along = step / np.linalg.norm(step)
        if through is None:
            tail = middle + np.array([-1.45, -1.3])
            tip = tail + 0.6 * step
        elif number == through:
            tail, tip = middle - 1.5 * along, middle + 1.5 * along
        else:
            continue
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tip, tail, arrowprops=arrow, zorder=20)
        axes.text(*(tip + 0.14 * along), name, color=colour, ha="center", va="center", zorder=20)


def _moves(crystal, ideal, symbol):
    """Ideal sites of one element and how far its atoms moved from them, both in projection."""
    sites, atoms = (c.positions[c.symbols == symbol] for c in (ideal, crystal))
    lengths = crystal.cell.lengths()
    apart = atoms[None] - sites[:, None]
    apart -= lengths * np.round(apart / lengths)
    nearest = np.linalg.norm(apart, axis=2).argmin(axis=1)
    return sites[:, :2], apart[np.arange(len(sites)), nearest, :2]


def _copies(places, width, height, moves=None):
    """Places (n, 2) with their periodic images up to 0.3 Å outside the cell, and the moves that belong to them."""
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=2))) * (width, height)
    places = (places[None] + shifts[:, None]).reshape(-1, 2)
    seen = ((places > -0.3) & (places < np.array([width, height]) + 0.3)).all(axis=1)
    return places[seen], None if moves is None else np.tile(moves, (len(shifts), 1))[seen]
