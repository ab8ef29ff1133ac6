"""Any periodic crystal, cut again so that the beam runs along z and a chosen direction points up."""

import itertools

import numpy as np
from ase.build import make_supercell
from scipy.spatial import cKDTree

from unitcell.errors import InputError

# Lattice vectors are sought up to this multiple of each cell edge, and cells up to this edge.
LARGEST_INDEX = 8
LONGEST_EDGE_A = 120.0
# Directions that differ by less count as equal: the cut then strains the crystal by less than 0.2 %.
TOLERANCE_DEG = 0.1
# Atoms that a translation brings this close to one of their kind are the same atom.
SAME_PLACE_A = 0.001


def along_zone(atoms, zone, up=None):
    """Cut a periodic crystal into an orthogonal cell with `zone` along the beam and `up` along y.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic along all three cell vectors.
    zone : tuple of three int
        Direction [uvw] of the beam, in cell vectors of `atoms`.
    up : tuple of three int, optional
        Direction [uvw] of the image's y, normal to the zone. By default the one that gives the smallest
        cell, with the longer edge along y.

    Returns
    -------
    ase.Atoms
        Cell edges along x = y × z, y and z; one whole period of the crystal, an array `occupancy` kept.

    Raises
    ------
    InputError
        The crystal is not periodic, a direction is no direction, or no orthogonal cell is small enough.

    Notes
    -----
    Three lattice vectors that are orthogonal to each other are looked for among the integer combinations of
    the cell vectors, and `ase.build.make_supercell` fills the cell that they span.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError("The crystal is not periodic along three cell vectors: give it a cell and pbc=True.")
    z = _primitive(_direction(zone, "zone"))
    vectors = _lattice_vectors(atoms.cell[:])
    upward = vectors if up is None else _primitive(_direction(up, "up"))[None]
    basis = _smallest_basis(atoms.cell[:], vectors, upward, z)
    if basis is None or np.linalg.norm(basis @ atoms.cell[:], axis=1).max() > LONGEST_EDGE_A:
        direction = "" if up is None else f" and up = {tuple(up)}"
        raise InputError(
            f"No orthogonal cell with edges below {LONGEST_EDGE_A:g} Å has zone = {tuple(zone)}{direction} of this "
            "crystal: choose a direction of higher symmetry, or an `up` that is normal to the zone."
        )
    return _cut(atoms, basis)


def _direction(indices, name):
    """Three integers that are not all zero."""
    direction = np.asarray(indices)
    if direction.shape != (3,) or not np.array_equal(direction, np.round(direction)) or not direction.any():
        raise InputError(
            f"{name} = {indices} is no lattice direction: give three integers [uvw], for instance (1, 1, 0)."
        )
    return direction.astype(int)


def _primitive(direction):
    """The shortest integer vector along a direction."""
    return direction // np.gcd.reduce(direction)


def _lattice_vectors(cell):
    """Directions of the lattice, each by its shortest vector, short and positive ones first: (n, 3) of int."""
    steps = range(-LARGEST_INDEX, LARGEST_INDEX + 1)
    vectors = np.array([v for v in itertools.product(steps, repeat=3) if np.gcd.reduce(v) == 1])
    lengths = np.linalg.norm(vectors @ cell, axis=1)
    order = np.lexsort((-vectors.sum(axis=1), lengths.round(6)))
    return vectors[order][lengths[order] <= LONGEST_EDGE_A]


def _smallest_basis(cell, vectors, upward, z):
    """Integer rows x, y, z, orthogonal and right-handed, that span the smallest cell; None without any.

    `upward` holds the directions that y may take; with a choice the longer edge goes along y.
    """
    normal = vectors[_are_normal(vectors @ cell, z @ cell)]
    best, smallest = None, np.inf
    for y in upward[_are_normal(upward @ cell, z @ cell)]:
        here = normal[_are_normal(normal @ cell, y @ cell)]
        here = here[np.cross(y @ cell, z @ cell) @ (here @ cell).T > 0]
        lengths = np.linalg.norm(here @ cell, axis=1)
        height = np.linalg.norm(y @ cell)
        if len(upward) > 1:
            here, lengths = here[lengths <= height + 1e-6], lengths[lengths <= height + 1e-6]
        if len(here) and lengths[0] * height < smallest - 1e-6:
            best, smallest = np.array([here[0], y, z]), lengths[0] * height
    return best


def _are_normal(vectors, direction):
    """Which of the vectors (n, 3) stand upright on a direction."""
    cosine = vectors @ direction / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(direction))
    return np.abs(cosine) < np.sin(np.radians(TOLERANCE_DEG))


def _cut(atoms, basis):
    """The cell spanned by integer rows x, y, z, turned into the frame of the image."""
    cut = make_supercell(atoms, basis)
    lengths = cut.cell.lengths()
    cut.set_cell(np.diag(lengths), scale_atoms=True)
    cut.info = {}
    for axis in range(3):
        cut = _shortened(cut, axis)
    cut.wrap(eps=1e-9)
    return cut


def _shortened(atoms, axis):
    """One period along an axis: centred cells hold several, which a simulation would compute again and again."""
    length = atoms.cell[axis, axis]
    atoms.wrap(eps=SAME_PLACE_A / length)  # an atom within rounding of the edge lies on its near side
    for parts in range(len(atoms), 1, -1):
        kept = atoms[atoms.positions[:, axis] < length / parts - SAME_PLACE_A]
        if len(kept) * parts == len(atoms) and _repeats(atoms, axis, length / parts):
            kept.cell[axis, axis] = length / parts
            return kept
    return atoms


def _repeats(atoms, axis, step):
    """Whether a step along an axis puts every atom on one of its kind."""
    box = atoms.cell.lengths()
    occupancy = atoms.arrays.get("occupancy", np.ones(len(atoms)))
    # The kind is a fourth coordinate, so that unlike atoms are never near; 0 leaves it unperiodic.
    kinds = 100.0 * (atoms.numbers + occupancy)[:, None]
    here, there = (np.hstack([(atoms.positions + shift) % box % box, kinds]) for shift in (0.0, step * np.eye(3)[axis]))
    distance, _ = cKDTree(here, boxsize=[*box, 0.0]).query(there)
    return distance.max() < SAME_PLACE_A
