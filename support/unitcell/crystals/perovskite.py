"""Perovskites with any octahedral tilts, in the frame of the image.

Image x ∥ [110], image y ∥ [001], beam z ∥ [1-10]; pseudo-cubic axes a, b, c.
"""

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from unitcell.crystals.octahedra import (
    IMAGE_AXES,
    LARGEST_TILT_DEG,
    ROOT2,
    a_site_displacements,
    beam_periods,
    check_signs,
    image_frame,
    lattice_block,
    mean_rotation,
    oxygen_sites,
    tilt_signs,
)
from unitcell.errors import InputError

LATTICE_RANGE_A = (3.0, 5.0)
LARGEST_A_SHIFT = 0.2


def tilted_perovskite(
    alpha, beta, gamma, signs="---", a_site="Sr", b_site="Ti", lattice_A=3.905, *, a_shift=(0.0, 0.0), contraction=False
):
    """A perovskite ABO3 with corner-sharing tilted octahedra, one period in every direction.

    Octahedron (i, j, k) is turned by the rotation vector (α s_a, β s_b, γ s_c) about a, b, c; an
    oxygen lies at the mean of the two vertices that its octahedra put there.

    Parameters
    ----------
    alpha, beta, gamma : float
        Tilts about a, b, c [degrees].
    signs : str
        Tilt pattern, see `tilt_signs`.
    a_site, b_site : str
        Chemical symbols.
    lattice_A : float or tuple of three floats
        Pseudo-cubic lattice parameter [Å], or one each along image x, y and z: (a, c, a) is tetragonal
        and (a_o/√2, c_o/2, b_o/√2) or (b_o/√2, c_o/2, a_o/√2) orthorhombic, for instance Pbnm.
    a_shift : tuple of two floats
        Root mean square displacement of the A cations, antipolar between layers and alternating from
        site to site [pseudo-cubic lattice parameters], see `a_site_displacements`. For a⁻a⁻c⁺ with
        positive tilts the pair is √2·(y, x) of A at (x, y, ¼) in Pbnm: the first runs along b_o.
    contraction : bool
        Whether the lattice shrinks to `mean_rotation`, as rigid octahedra would make it (Woodward 1997);
        lattice_A is then twice the length of the B–O bonds. Their mean over an octahedron is kept to
        second order in the tilts, and each of them where |α| = |β|; otherwise rigid octahedra would also
        shear the cell, which stays orthogonal here.

    Returns
    -------
    ase.Atoms
        Periodic cell √2·a × 2a × √2·a along x = [110], y = [001], z = [1-10] (2√2·a along x and z
        where '+' about a or b alternates along the beam), a B column at the origin. Atoms come as
        A, B, then O; `info["pseudocubic_A"]` holds the pseudo-cubic lengths along x, y, z [Å].

    Raises
    ------
    InputError
        Unknown element or pattern, a lattice parameter that is no perovskite's, or an A shift that is
        too long or that the tilts give no direction.

    References
    ----------
    Glazer, Acta Cryst. B 28, 3384 (1972); Woodward, Acta Cryst. B 53, 32 (1997).
    """
    tilts = np.array([alpha, beta, gamma], dtype=float)
    check_signs(signs)
    check_species(a_site, b_site)
    check_tilts(tilts, a_shift)
    lattice = lattice_lengths(lattice_A)
    periods = beam_periods(signs)
    octahedra = lattice_block(2 * periods, 2, 2 * periods)

    def field(n):
        return tilt_signs(signs, n) * tilts

    metric = np.diag(IMAGE_AXES @ mean_rotation(octahedra, field) @ IMAGE_AXES.T) if contraction else np.ones(3)
    shifts = a_site_displacements(octahedra, tilts, signs, a_shift)
    sites, displacements = perovskite_sites(octahedra, field, shifts)
    positions = (image_frame(sites) * metric + image_frame(displacements)) * lattice
    symbols = [a_site] * len(octahedra) + [b_site] * len(octahedra) + ["O"] * 3 * len(octahedra)
    cell = np.array([ROOT2 * periods, 2.0, ROOT2 * periods]) * metric * lattice
    crystal = Atoms(symbols, positions, cell=cell, pbc=True, info={"pseudocubic_A": tuple(metric * lattice)})
    crystal.wrap(eps=1e-9)
    return crystal


def perovskite_sites(octahedra, field, a_shifts, a_offset=(0.5, 0.5, 0.5)):
    """Ideal sites and displacements of A, B and the three oxygens of each octahedron, in that order.

    Parameters
    ----------
    octahedra : ndarray of int, shape (n, 3)
    field : callable
        Indices (n, 3) → rotation vectors (n, 3) about a, b, c [degrees].
    a_shifts : ndarray, shape (n, 3)
        Displacements of the A cations.
    a_offset : tuple of three floats
        Which of the eight A sites around octahedron n counts as its own.

    Returns
    -------
    sites, displacements : ndarray, shape (5n, 3)
        Pseudo-cubic coordinates.
    """
    pairs = [
        (octahedra + np.array(a_offset), a_shifts),
        (octahedra, np.zeros(octahedra.shape)),
        *(oxygen_sites(octahedra, axis, field) for axis in range(3)),
    ]
    sites, displacements = zip(*pairs, strict=True)
    return np.concatenate(sites), np.concatenate(displacements)


def lattice_lengths(lattice_A):
    """Pseudo-cubic lengths along image x, y, z [Å] from one number or three, ndarray of shape (3,)."""
    lengths = np.atleast_1d(np.asarray(lattice_A, dtype=float))
    if lengths.shape not in {(1,), (3,)}:
        raise InputError(
            f"lattice_A = {lattice_A} is neither one length nor three along x, y, z: give 3.905, or three."
        )
    low, high = LATTICE_RANGE_A
    for length in lengths:
        if not low <= length <= high:
            raise InputError(
                f"lattice_A = {length:g} Å is not a pseudo-cubic perovskite's: give {low:g} to {high:g} Å."
            )
    return np.broadcast_to(lengths, (3,)).copy()


def check_species(*symbols):
    """Refuse what is not a chemical element."""
    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise InputError(f"'{symbol}' is not a chemical element: give symbols such as 'Sr' and 'Ti'.")


def check_tilts(tilts_deg, a_shift):
    """Refuse tilts or A displacements beyond what a perovskite can hold."""
    if not np.all(np.abs(tilts_deg) <= LARGEST_TILT_DEG):
        alpha, beta, gamma = tilts_deg
        raise InputError(f"Tilts of ({alpha:g}, {beta:g}, {gamma:g})° tear corner sharing apart: stay within ±30°.")
    if np.shape(a_shift) != (2,) or not np.all(np.abs(a_shift) <= LARGEST_A_SHIFT):
        raise InputError(
            f"a_shift = {a_shift} is not a pair of small displacements: give two fractions of the lattice "
            f"parameter within ±{LARGEST_A_SHIFT:g}, for instance (0.05, 0.01)."
        )
