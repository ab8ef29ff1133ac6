"""Perovskites whose tilts, species and lattice change from layer to layer: interfaces, films, superlattices.

The octahedra carry the same field of rotations as in a bulk crystal, only that its amplitudes depend on
the layer, so they share their corners through every interface.
"""

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from unitcell.crystals.octahedra import (
    ROOT2,
    a_site_displacements,
    beam_periods,
    check_signs,
    image_frame,
    lattice_block,
    tilt_signs,
)
from unitcell.crystals.perovskite import check_species, check_tilts, lattice_lengths, perovskite_sites
from unitcell.errors import InputError

# Image axis of the normal, and how many layers it crosses per pseudo-cubic lattice parameter.
NORMALS = {"x": (0, ROOT2), "y": (1, 1.0)}


@dataclass(frozen=True)
class Layer:
    """One layer of B octahedra with its A cations.

    Attributes
    ----------
    alpha, beta, gamma : float
        Tilts about a, b, c [degrees].
    signs : str
        Tilt pattern, see `tilt_signs`; it counts octahedra through the whole stack.
    a_site, b_site : str
        Chemical symbols.
    lattice_A : float
        Pseudo-cubic lattice parameter along the normal [Å].
    a_shift : tuple of two floats
        See `a_site_displacements`.
    """

    alpha: float = 0.0
    beta: float = 0.0
    gamma: float = 0.0
    signs: str = "---"
    a_site: str = "Sr"
    b_site: str = "Ti"
    lattice_A: float = 3.905
    a_shift: tuple = (0.0, 0.0)

    @property
    def tilts(self):
        """α, β, γ [degrees], ndarray of shape (3,)."""
        return np.array([self.alpha, self.beta, self.gamma], dtype=float)


def layered_perovskite(layers, normal="y", in_plane_A=None, *, periodic=False, vacuum_A=0.0):
    """A stack of perovskite layers, coherent in the plane.

    Along y ∥ [001] a layer is a BO2 plane with the AO plane above it; along x ∥ [110] it is an ABO plane
    with the O2 plane beyond it, a/√2 apart. Where a stack ends, its last octahedra see a neighbour tilted
    like themselves.

    Parameters
    ----------
    layers : sequence of Layer
        From low to high coordinate along the normal.
    normal : str
        'y' for an interface normal along [001], 'x' along [110].
    in_plane_A : float or tuple of three floats, optional
        Pseudo-cubic lattice parameter in the plane [Å], or one each along x, y, z, of which the one along
        the normal is not used; that of the first layer by default.
    periodic : bool
        Whether the last layer joins the first (a superlattice) or the stack ends (a slab).
    vacuum_A : float
        Empty length added along the normal of a slab [Å].

    Returns
    -------
    ase.Atoms
        One period in the plane. Array `layer` says which layer each atom belongs to.

    Raises
    ------
    InputError
        No layers, a layer no perovskite can be, or a period that the tilts do not have.
    """
    _check_stack(layers, normal, periodic, vacuum_A)
    axis, _ = NORMALS[normal]
    periods = max(beam_periods(layer.signs) for layer in layers)
    counts = np.array([2 * periods, 2, 2 * periods])
    counts[axis] = len(layers)
    octahedra = lattice_block(*counts)
    layer_of = _layer_index(len(layers), normal, periodic)
    field = _tilt_field(layers, layer_of)
    if periodic:
        _check_period(octahedra, field, len(layers), normal)
    # The A site that counts as octahedron n's own lies in its layer's ABO plane when the normal is x.
    a_offset = (0.5, -0.5, 0.5) if normal == "x" else (0.5, 0.5, 0.5)
    shifts = _a_shifts(octahedra, layers, layer_of(octahedra), a_offset)
    coordinates = perovskite_sites(octahedra, field, shifts, a_offset)
    index = np.tile(layer_of(octahedra), 5)
    in_plane = layers[0].lattice_A if in_plane_A is None else in_plane_A
    positions, lengths = _strained(*coordinates, layers, index, normal, in_plane)
    cell = counts * [1 / ROOT2, 1.0, 1 / ROOT2] * lengths
    cell[axis] += vacuum_A
    crystal = Atoms(_symbols(layers, index), positions, cell=cell, pbc=True, info={"pseudocubic_A": tuple(lengths)})
    crystal.set_array("layer", index)
    return _placed(crystal, axis, periodic)


def graded_layers(low, high, counts, width=1.0):
    """Layers of one perovskite on another, their tilts and lattice changing as a hyperbolic tangent.

    Parameters
    ----------
    low, high : Layer
        What the stack is far below and far above the interface; species change at it at once.
    counts : tuple of two int
        Layers on each side.
    width : float
        Length over which the tangent rises [layers]; 0 for an abrupt change.

    Returns
    -------
    list of Layer

    Raises
    ------
    InputError
        One side tilts in phase and the other in antiphase about one axis: there is nothing in between.
    """
    if len(counts) != 2 or min(counts) < 0 or not width >= 0:
        raise InputError(f"counts = {counts} and width = {width:g} make no interface: give two counts and a width ≥ 0.")
    distance = np.arange(sum(counts)) - counts[0] + 0.5
    share = 0.5 * (1 + (np.tanh(distance / width) if width else np.sign(distance)))
    signs = _joint_signs(low, high)

    def mixed(name, weight):
        return (1 - weight) * np.asarray(getattr(low, name)) + weight * np.asarray(getattr(high, name))

    return [
        replace(
            low if at < 0 else high,
            **{name: float(mixed(name, weight)) for name in ("alpha", "beta", "gamma", "lattice_A")},
            signs=signs,
            a_shift=tuple(mixed("a_shift", weight).tolist()),
        )
        for at, weight in zip(distance, share, strict=True)
    ]


def corner_rotations(layers, octahedra):
    """Rotations about a, b, c of octahedra in a periodic stack along [001], ndarray (n, 3) [degrees].

    An oxygen lies at the mean of the two vertices put there, and four of them turn with a rotation about an
    axis; to first order an octahedron n is therefore turned about axis v by

        ω_n / 2 − Σ_m ω_m / 8,   m its four neighbours across v,

    which is ω_n where neighbours turn the other way, as in every tilt pattern.
    """
    asked = _tilt_field(layers, _layer_index(len(layers), "y", periodic=True))
    found = asked(octahedra) / 2
    for axis in range(3):
        for step in np.delete(np.eye(3, dtype=int), axis, axis=0):
            for neighbours in (octahedra + step, octahedra - step):
                found[:, axis] -= asked(neighbours)[:, axis] / 8
    return found


def _joint_signs(low, high):
    """The pattern that both sides follow: an axis at rest on one side takes the other side's sign."""
    signs = ""
    for name, one, other in zip(("alpha", "beta", "gamma"), low.signs, high.signs, strict=True):
        tilted = {sign for sign, layer in ((one, low), (other, high)) if sign != "0" and getattr(layer, name) != 0}
        if len(tilted) > 1:
            raise InputError(
                f"{name} tilts as '{one}' below and '{other}' above: give both sides the same sign, or build the "
                "layers one by one."
            )
        signs += tilted.pop() if tilted else "0"
    return signs


def _check_stack(layers, normal, periodic, vacuum_A):
    """Refuse what cannot be stacked."""
    if not layers:
        raise InputError("There is no layer to stack: give at least one `Layer`.")
    if normal not in NORMALS:
        raise InputError(f"normal = '{normal}' is no axis of the image: give 'y' for [001] or 'x' for [110].")
    if not 0 <= vacuum_A < np.inf or (periodic and vacuum_A):
        raise InputError(
            f"vacuum_A = {vacuum_A:g} Å does not fit: give 0 to a periodic stack, and 0 or more to a slab."
        )
    for layer in layers:
        check_signs(layer.signs)
        check_species(layer.a_site, layer.b_site)
        check_tilts(layer.tilts, layer.a_shift)
        lattice_lengths(float(layer.lattice_A))


def _layer_index(count, normal, periodic):
    """A function from octahedra (n, 3) to their layers: cyclic, or the outermost ones beyond the ends."""

    def layer_of(octahedra):
        coordinate = octahedra[:, 2] if normal == "y" else octahedra[:, 0] + octahedra[:, 1]
        return coordinate % count if periodic else coordinate.clip(0, count - 1)

    return layer_of


def _tilt_field(layers, layer_of):
    """Rotation vectors of octahedra whose amplitudes and signs are those of their layers."""
    tilts = np.array([layer.tilts for layer in layers])
    patterns = np.array([layer.signs for layer in layers])

    def field(octahedra):
        index = layer_of(octahedra)
        rotations = np.empty(octahedra.shape)
        for pattern in np.unique(patterns):
            here = patterns[index] == pattern
            rotations[here] = tilt_signs(str(pattern), octahedra[here]) * tilts[index[here]]
        return rotations

    return field


def _check_period(octahedra, field, count, normal):
    """The octahedra one period on must tilt as these do."""
    step = np.array([0, 0, count] if normal == "y" else [count // 2, count // 2, 0])
    if (normal == "x" and count % 2) or not np.allclose(field(octahedra + step), field(octahedra)):
        advice = "an even number" if normal == "y" else "a multiple of 4"
        raise InputError(f"{count} layers are no period of these tilts along {normal}: stack {advice}, or a slab.")


def _a_shifts(octahedra, layers, index, a_offset):
    """Displacements of the A cations, each by the tilts of its own layer."""
    cells = octahedra + (np.array(a_offset) - 0.5).astype(int)
    shifts = np.empty(octahedra.shape)
    for number, layer in enumerate(layers):
        here = index == number
        shifts[here] = a_site_displacements(cells[here], layer.tilts, layer.signs, layer.a_shift)
    return shifts


def _strained(sites, displacements, layers, index, normal, in_plane_A):
    """Positions [Å] on a lattice that keeps one length in the plane and follows the layers along the normal.

    Layer 0 is centred on the origin, and each layer as thick as its own lattice parameter makes it.

    Returns
    -------
    positions : ndarray, shape (n, 3)
    lengths : ndarray, shape (3,)
        Mean pseudo-cubic lattice parameters along x, y, z [Å].
    """
    axis, per_cell = NORMALS[normal]
    along = np.array([float(layer.lattice_A) for layer in layers])
    lattice = np.tile(lattice_lengths(in_plane_A), (len(sites), 1))
    lattice[:, axis] = along[index]
    edges = np.concatenate([[0.0], np.cumsum(along / per_cell)])
    coordinate = image_frame(sites)
    positions = coordinate * lattice
    layer_units = coordinate[:, axis] * per_cell + 0.5
    positions[:, axis] = np.interp(layer_units, np.arange(len(edges)), edges) - edges[1] / 2
    lengths = lattice[0].copy()
    lengths[axis] = along.mean()
    return positions + image_frame(displacements) * lattice, lengths


def _symbols(layers, index):
    """Chemical symbols of A, B and three O per octahedron."""
    count = len(index) // 5
    a_sites = [layers[number].a_site for number in index[:count]]
    return a_sites + [layers[number].b_site for number in index[:count]] + ["O"] * (3 * count)


def _placed(crystal, axis, periodic):
    """Into the cell: wrapped where periodic, a slab in the middle of its vacuum."""
    if not periodic:
        crystal.pbc[axis] = False
        heights = crystal.positions[:, axis]
        crystal.positions[:, axis] += (crystal.cell[axis, axis] - heights.min() - heights.max()) / 2
    crystal.wrap(eps=1e-9)
    return crystal
