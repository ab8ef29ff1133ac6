"""A field of rotations on corner-sharing octahedra: the one concept that every perovskite here is built from.

Octahedron n = (i, j, k) carries a rotation vector about the pseudo-cubic axes a, b, c. An oxygen lies at
the mean of the two vertices that its octahedra put there. A cations follow the tilts as symmetry allows.
All coordinates are in units of the pseudo-cubic lattice parameter.
"""

import itertools

import numpy as np
from scipy.spatial.transform import Rotation

from unitcell.errors import InputError

ROOT2 = np.sqrt(2.0)
# Which lattice indices alternate the tilt about each axis: '+' skips the index along the axis itself.
IN_PHASE = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
# Rows: the image's x ∥ [110], y ∥ [001] and z ∥ [1-10] in pseudo-cubic coordinates.
IMAGE_AXES = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, ROOT2], [1.0, -1.0, 0.0]]) / ROOT2
LARGEST_TILT_DEG = 30.0


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
    check_signs(signs)
    alternating = {"-": lambda axis: octahedra.sum(axis=1), "+": lambda axis: octahedra @ IN_PHASE[axis]}
    columns = [
        np.zeros(len(octahedra)) if sign == "0" else 1.0 - 2.0 * (alternating[sign](axis) % 2)
        for axis, sign in enumerate(signs)
    ]
    return np.stack(columns, axis=1)


def check_signs(signs):
    """Refuse what is not three of '-', '+' and '0'."""
    if not isinstance(signs, str) or len(signs) != 3 or set(signs) - set("-+0"):
        raise InputError(f"'{signs}' is not a tilt pattern: give three of '-', '+' and '0', for instance '--+'.")


def beam_periods(signs):
    """Period along [110] and along the beam in units of √2·a: 2 where '+' acts about a or b, else 1."""
    return 2 if "+" in signs[:2] else 1


def lattice_block(along_x, along_y, along_z):
    """Indices (i, j, k) of a block of octahedra, with m = i + j, k and d = i − j below the three counts.

    Parameters
    ----------
    along_x, along_y, along_z : int
        Layers along [110] (a/√2 each), [001] (a each) and [1-10] (a/√2 each).

    Returns
    -------
    ndarray of int, shape (n, 3)
    """
    block = itertools.product(range(along_x), range(along_z), range(along_y))
    return np.array([((m + d) // 2, (m - d) // 2, k) for m, d, k in block if (m + d) % 2 == 0])


def oxygen_sites(octahedra, axis, field):
    """Oxygens between octahedra n and n + e_axis: the untilted site and the displacement from it.

    Parameters
    ----------
    octahedra : ndarray of int, shape (n, 3)
    axis : int
        0, 1, 2 for a, b, c.
    field : callable
        Indices (n, 3) → rotation vectors (n, 3) about a, b, c [degrees].

    Returns
    -------
    sites, displacements : ndarray, shape (n, 3)
    """
    step = np.eye(3, dtype=int)[axis]
    here, there = (
        Rotation.from_rotvec(field(n), degrees=True).apply(0.5 * step) for n in (octahedra, octahedra + step)
    )
    return octahedra + 0.5 * step, 0.5 * (here - there)


def a_site_displacements(cells, tilts_deg, signs, a_shift):
    """How far each A cation moves off the centre of its cage.

    Tilts drive A cations in two ways. A '−' tilt θ_v together with a '+' tilt θ_w moves them along v,
    antipolar from one layer to the next along w:

        D_n ∝ −Σ_{v∈−} Σ_{w∈+} θ_v θ_w (−1)^{n_w} e_v                       (X₅⁺)

    and '−' tilts move them alternately from each A site to all of its neighbours:

        E_n ∝ −(−1)^{i+j+k} Σ_{v∈−} θ_v (q_{v+1} − q_{v+2}) e_v             (R₅⁺; q = θ² for '−', −θ² for '+')

    Symmetry fixes these directions (cyclic v; the lowest order in the tilts), not the lengths; with these
    signs both lengths are positive in CaTiO3.

    Parameters
    ----------
    cells : ndarray of int, shape (n, 3)
        The A cation of cell n stands at n + (½, ½, ½).
    tilts_deg : ndarray, shape (3,) or (n, 3)
        Amplitudes α, β, γ [degrees].
    signs : str
        Tilt pattern, see `tilt_signs`.
    a_shift : tuple of two floats
        Root mean square lengths of D and E over the A sites [pseudo-cubic lattice parameters].

    Returns
    -------
    ndarray, shape (n, 3)

    Raises
    ------
    InputError
        A length is not zero though symmetry leaves the A cation no such displacement.
    """
    tilts = np.broadcast_to(np.asarray(tilts_deg, dtype=float), cells.shape)
    largest = np.abs(tilts).max(axis=1, keepdims=True)
    tilts = tilts / np.where(largest > 0, largest, 1.0)  # directions depend on the ratios of the tilts only
    minus, plus = (np.array([sign == wanted for sign in signs]) for wanted in "-+")
    along = np.where(minus, tilts, 0.0)
    in_phase = np.where(plus, tilts, 0.0)
    parity = 1.0 - 2.0 * (cells % 2)
    antipolar = -along * (in_phase * parity).sum(axis=1, keepdims=True)
    antipolar_rms = np.linalg.norm(along, axis=1) * np.linalg.norm(in_phase, axis=1)
    squares = along**2 - in_phase**2
    alternating = along * (np.roll(squares, -1, axis=1) - np.roll(squares, -2, axis=1))
    alternating_rms = np.linalg.norm(alternating, axis=1)
    alternating = -alternating * parity.prod(axis=1, keepdims=True)
    return sum(
        _scaled(shape, rms, length, signs)
        for shape, rms, length in zip((antipolar, alternating), (antipolar_rms, alternating_rms), a_shift, strict=True)
    )


def _scaled(shape, rms, length, signs):
    """The displacement pattern with the given root mean square length."""
    if length and np.any(rms < 1e-6):
        raise InputError(
            f"An a_shift of {length:g} has no direction under pattern '{signs}' with these tilts: set it to 0 there."
        )
    return shape * (length / np.where(rms < 1e-6, 1.0, rms))[:, None]


def mean_rotation(octahedra, field):
    """Mean rotation matrix: the metric that rigid tilted octahedra leave to the lattice (Woodward 1997).

    The step from octahedron n to n + e is an arm of each, R_n·e/2 + R_{n+e}·e/2, so the mean step is
    ⟨R⟩·e: shorter than e by half the square of the tilts about the other axes.

    Returns
    -------
    ndarray, shape (3, 3), in pseudo-cubic axes.
    """
    return Rotation.from_rotvec(field(octahedra), degrees=True).as_matrix().mean(axis=0)


def image_frame(pseudocubic):
    """Pseudo-cubic coordinates (…, 3) → (x, y, z) along [110], [001], [1-10], still in units of a."""
    i, j, k = np.moveaxis(pseudocubic, -1, 0)
    return np.stack([(i + j) / ROOT2, k, (i - j) / ROOT2], axis=-1)
