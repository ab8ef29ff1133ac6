"""Crystals from files: text formats only, so that nothing in a file is ever executed."""

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from unitcell.errors import InputError

# What the name says → ASE's name of the format. ASE's own binary formats may hold pickles and are refused.
FORMATS = {
    ".cif": "cif",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".vasp": "vasp",
    ".poscar": "vasp",
    ".xsf": "xsf",
}
BARE_NAMES = {"POSCAR": "vasp", "CONTCAR": "vasp"}


def from_file(path):
    """Read one crystal, to be turned into the frame of the image by `along_zone`.

    Parameters
    ----------
    path : str or pathlib.Path
        A text file: .cif, .xyz or .extxyz with a `Lattice`, .vasp, .poscar, POSCAR, CONTCAR, or .xsf.

    Returns
    -------
    ase.Atoms
        Periodic along all three cell vectors.

    Raises
    ------
    InputError
        The file is missing, of another kind, unreadable, or holds several structures, no cell, no atoms,
        or sites that are filled in part.
    """
    path = Path(path)
    kind = BARE_NAMES.get(path.name.upper()) or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"'{path}' is no crystal file that can be read: give one of {', '.join(FORMATS)}.")
    if not path.is_file():
        raise InputError(f"There is no file '{path}': check the path of the crystal.")
    frames = _read(path, kind)
    if len(frames) != 1:
        raise InputError(f"'{path}' holds {len(frames)} structures: give a file with exactly one.")
    return _complete(frames[0], path)


def _read(path, kind):
    """All structures of a file."""
    try:
        return ase.io.read(path, index=":", format=kind, **_options(kind))
    except Exception as error:  # ASE's readers raise whatever their parsing runs into
        raise InputError(
            f"'{path}' cannot be read as {kind} ({type(error).__name__}: {error}): check or export it again."
        ) from error


def _options(kind):
    """CIF says how full its sites are only when asked."""
    return {"fractional_occupancies": True} if kind == "cif" else {}


def _complete(atoms, path):
    """The crystal, if it has a cell and its sites are full."""
    if len(atoms) == 0:
        raise InputError(f"'{path}' holds no atoms: give a file with a crystal.")
    if atoms.cell.rank < 3 or not np.isfinite(atoms.positions).all():
        raise InputError(f"'{path}' holds no periodic cell with finite positions: give a crystal, not a molecule.")
    shares = [site for sites in atoms.info.get("occupancy", {}).values() for site in sites.items()]
    shares += [("occupancy", share) for share in atoms.arrays.get("occupancy", ())]  # .extxyz
    partial = [f"{symbol} {share:g}" for symbol, share in shares if not 0.999 <= share <= 1.001]
    if partial:
        raise InputError(
            f"'{path}' fills sites in part ({', '.join(dict.fromkeys(partial))}): give a structure "
            "whose sites are all full."
        )
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
