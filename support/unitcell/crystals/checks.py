"""What every crystal must satisfy before electrons are sent through it."""

import numpy as np
from scipy.spatial import cKDTree

from unitcell.errors import InputError

CLOSEST_A = 0.5
# An edge may lean from its axis by this much [Å per Å].
ORTHOGONAL_TOLERANCE = 1e-4


def require_sound(atoms, closest_A=CLOSEST_A):
    """Refuse a crystal that no electron could be scattered by.

    The cell must be orthogonal with its edges along x, y, z; positions must be finite; no two atoms,
    periodic images included, may come closer than `closest_A`. A cell without atoms is vacuum, and sound.

    Parameters
    ----------
    atoms : ase.Atoms
    closest_A : float
        Shortest distance allowed between two atoms [Å].

    Returns
    -------
    ase.Atoms
        The same object.

    Raises
    ------
    InputError
        Names the first thing that is wrong.
    """
    _require_cell(atoms.cell[:], closest_A)
    lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(lost):
        raise InputError(
            f"Atom {lost[0]} ({atoms.symbols[lost[0]]}) has no finite position: remove it or give it coordinates."
        )
    _require_distances(atoms, closest_A)
    return atoms


def _require_cell(cell, closest_A):
    """Edges along x, y, z, each longer than the closest approach."""
    if not np.isfinite(cell).all():
        raise InputError("The crystal's cell is not finite: set it to three lengths along x, y, z in Å.")
    lengths = np.diag(cell)
    if not (lengths > closest_A).all():
        edges = " × ".join(f"{length:g}" for length in lengths)
        raise InputError(f"The crystal's cell is {edges} Å along x, y, z: give it three positive lengths.")
    if np.abs(cell - np.diag(lengths)).max() > ORTHOGONAL_TOLERANCE * lengths.max():
        raise InputError("The crystal's cell is not orthogonal along x, y, z: cut it again with `along_zone`.")


def _require_distances(atoms, closest_A):
    """No two atoms in one place. Scattering repeats the cell along every axis, whatever `pbc` says."""
    box = np.diag(atoms.cell)
    positions = atoms.positions % box
    positions[positions >= box] = 0.0  # −1e-17 % box is the box itself, which the tree refuses
    pairs = cKDTree(positions, boxsize=box).query_pairs(closest_A, output_type="ndarray") if len(atoms) else []
    if len(pairs):
        one, other = min(map(tuple, pairs))
        raise InputError(
            f"Atoms {one} ({atoms.symbols[one]}) and {other} ({atoms.symbols[other]}) are closer than {closest_A:g} Å: "
            "remove one of them, or check the cell and the positions."
        )
