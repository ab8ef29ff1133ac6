"""Perovskites with any octahedral tilts, in the frame of the image.

Image x ∥ [110], image y ∥ [001], beam z ∥ [1-10]; pseudo-cubic axes a, b, c.
"""

import itertools

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy.spatial.transform import Rotation

from unitcell.errors import InputError

ROOT2 = np.sqrt(2.0)
# Which lattice indices alternate the tilt about each axis: '+' skips the index along the axis itself.
IN_PHASE = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])


def tilt_signs(signs, octahedra):
    """Sign of the three rotations of each octahedron.

    Parameters
    ----------
    signs : str
        Three of '-', '+' and '0', about a, b and c: '-' alternates as (−1)^(i+j+k) along every axis,
        '+' is in phase along its own axis, for instance (−1)^(j+k) about a, and '0' forbids the tilt.
    octahedra : ndarray of int, shape (n, 3)
        Lattice indices (i, j, k).

    Returns
    -------
    ndarray, shape (n, 3), of −1, 0 and 1.
    """
    if len(signs) != 3 or set(signs) - set("-+0"):
        raise InputError(f"'{signs}' is not a tilt pattern: give three of '-', '+' and '0', for instance '--+'.")
    alternating = {"-": lambda axis: octahedra.sum(axis=1), "+": lambda axis: octahedra @ IN_PHASE[axis]}
    columns = [
        np.zeros(len(octahedra)) if sign == "0" else 1.0 - 2.0 * (alternating[sign](axis) % 2)
        for axis, sign in enumerate(signs)
    ]
    return np.stack(columns, axis=1)


def beam_periods(signs):
    """Period along [110] and along the beam in units of √2·a: 2 where '+' acts about a or b, else 1."""
    return 2 if "+" in signs[:2] else 1


def tilted_perovskite(alpha, beta, gamma, signs="---", a_site="Sr", b_site="Ti", lattice_A=3.905):
    """A perovskite ABO3 with corner-sharing tilted octahedra, one period in every direction.

    Octahedron (i, j, k) is turned by the rotation vector (α s_a, β s_b, γ s_c) about a, b, c; an
    oxygen lies at the mean of the two vertices that its octahedra put there. The lattice keeps its
    cubic metric.

    Parameters
    ----------
    alpha, beta, gamma : float
        Tilts about a, b, c [degrees].
    signs : str
        Tilt pattern, see `tilt_signs`.
    a_site, b_site : str
        Chemical symbols.
    lattice_A : float
        Pseudo-cubic lattice parameter [Å].

    Returns
    -------
    ase.Atoms
        Periodic cell √2·a × 2a × √2·a along x = [110], y = [001], z = [1-10] (2√2·a along x and z
        where '+' about a or b alternates along the beam), a B column at the origin.

    Raises
    ------
    InputError
        Unknown element or pattern, or a lattice parameter that is no perovskite's.
    """
    for symbol in (a_site, b_site):
        if symbol not in atomic_numbers:
            raise InputError(f"'{symbol}' is not a chemical element: give symbols such as 'Sr' and 'Ti'.")
    if not 3.0 <= lattice_A <= 5.0:
        raise InputError(f"lattice_A = {lattice_A:g} Å is not a pseudo-cubic perovskite's: give 3 to 5 Å.")
    if not np.all(np.abs([alpha, beta, gamma]) <= 30):
        raise InputError(f"Tilts of ({alpha:g}, {beta:g}, {gamma:g})° tear corner sharing apart: stay within ±30°.")
    periods = beam_periods(signs)
    octahedra = _octahedra(periods)
    oxygens = [("O", _oxygens(octahedra, axis, (alpha, beta, gamma), signs)) for axis in range(3)]
    sites = [(a_site, octahedra + 0.5), (b_site, octahedra), *oxygens]
    symbols = [symbol for symbol, positions in sites for _ in positions]
    positions = _image_frame(np.concatenate([positions for _, positions in sites]))
    cell = np.array([ROOT2 * periods, 2.0, ROOT2 * periods])
    crystal = Atoms(symbols, positions * lattice_A, cell=cell * lattice_A, pbc=True)
    crystal.wrap(eps=1e-9)
    return crystal


def _octahedra(periods):
    """Indices (i, j, k) of the octahedra of one cell: i + j and i − j both run through 2·periods values."""
    steps = range(2 * periods)
    return np.array(
        [((m + d) // 2, (m - d) // 2, k) for m, d, k in itertools.product(steps, steps, (0, 1)) if (m + d) % 2 == 0]
    )


def _oxygens(octahedra, axis, tilts, signs):
    """Oxygens between octahedra n and n + e_axis, in pseudo-cubic units: the mean of the two vertices."""
    arm = 0.5 * np.eye(3)[axis]
    here, there = (
        Rotation.from_rotvec(tilt_signs(signs, n) * np.asarray(tilts, dtype=float), degrees=True).apply(arm)
        for n in (octahedra, octahedra + np.eye(3, dtype=int)[axis])
    )
    return octahedra + arm + 0.5 * ((here - arm) - (there - arm))


def _image_frame(pseudocubic):
    """Pseudo-cubic coordinates → (x, y, z) along [110], [001], [1-10], still in units of a."""
    i, j, k = np.moveaxis(pseudocubic, -1, 0)
    return np.stack([(i + j) / ROOT2, k, (i - j) / ROOT2], axis=-1)
