"""Blocks of crystal in the size that a simulation asks for."""

import numpy as np

from unitcell.errors import InputError

ROOT2 = np.sqrt(2.0)
# Laanait et al. (2019): the simulated block, in pseudo-cubic cells along [110], [001] and [1-10].
PAPER_BLOCK = (2 * ROOT2, 4.0, 80 * ROOT2)
MOST_ATOMS = 1_000_000


def repeat_to(crystal, units=PAPER_BLOCK, unit_A=None):
    """Repeat a crystal until it holds at least the given number of pseudo-cubic cells along x, y, z.

    Parameters
    ----------
    crystal : ase.Atoms
        Any orthogonal crystal in the frame of the image.
    units : tuple of three floats
        Pseudo-cubic cells along x, y, z; the default, 2√2 × 4 × 80√2, is the block of Laanait et al.
        (2019): 11 × 15.6 × 442 Å of SrTiO3.
    unit_A : float or tuple of three floats, optional
        Pseudo-cubic lattice parameter, or one each along x, y, z [Å]; by default the one that the
        perovskites of this package carry in `info["pseudocubic_A"]`.

    Returns
    -------
    ase.Atoms
        A whole number of cells along each axis.

    Raises
    ------
    InputError
        A unit is missing or not positive, or the block would hold more than a million atoms.
    """
    unit = crystal.info.get("pseudocubic_A") if unit_A is None else unit_A
    if unit is None:
        raise InputError("The crystal does not say how long its pseudo-cubic cell is: give unit_A, for instance 3.905.")
    wanted = np.asarray(units, dtype=float) * np.asarray(unit, dtype=float)
    if wanted.shape != (3,) or not (np.isfinite(wanted) & (wanted > 0)).all():
        raise InputError(f"units = {units} of {unit} Å make no block: give three positive numbers along x, y, z.")
    cells = np.ceil(wanted / crystal.cell.lengths() - 1e-6).astype(int)  # 80√2·a is no more than 80 cells of √2·a
    if cells.prod() * len(crystal) > MOST_ATOMS:
        raise InputError(
            f"A block of {units} units would hold {cells.prod() * len(crystal)} atoms: stay below {MOST_ATOMS}."
        )
    return crystal.repeat(tuple(cells))
