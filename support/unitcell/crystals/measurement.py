"""Tilts read back from atom positions: the inverse of building a perovskite."""

from dataclasses import dataclass

import numpy as np
from ase.neighborlist import neighbor_list
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.spatial.transform import Rotation

from unitcell.crystals.glazer import glazer_of
from unitcell.crystals.octahedra import tilt_signs
from unitcell.errors import InputError

LONGEST_BOND_A = 2.9  # B–O
LONGEST_STEP_A = 4.8  # B–B
# B neighbours within this angle of an axis [cosine] belong to it.
SAME_AXIS = 0.85


@dataclass(frozen=True)
class MeasuredTilts:
    """Rotations of n octahedra.

    Attributes
    ----------
    atoms : ndarray of int, shape (n,)
        Which atoms the B cations are.
    indices : ndarray of int, shape (n, 3)
        Lattice indices (i, j, k); (0, 0, 0) is the B cation nearest to the origin.
    rotations_deg : ndarray, shape (n, 3)
        Rotation vectors about a, b, c [degrees].
    axes : ndarray, shape (3, 3)
        Rows: unit vectors of the pseudo-cubic a, b, c in the crystal's coordinates.
    in_phase_deg, antiphase_deg : ndarray, shape (3,)
        How much the rotations follow '+' and '-' about each axis, signed as octahedron (0, 0, 0) [degrees].
    """

    atoms: np.ndarray
    indices: np.ndarray
    rotations_deg: np.ndarray
    axes: np.ndarray
    in_phase_deg: np.ndarray
    antiphase_deg: np.ndarray
    tolerance_deg: float

    @property
    def signs(self):
        """Tilt pattern: about each axis the stronger of '+' and '-', '0' below the tolerance."""
        in_phase, antiphase = np.abs(self.in_phase_deg), np.abs(self.antiphase_deg)
        stronger = np.where(in_phase > antiphase, "+", "-")
        return "".join(np.where(np.maximum(in_phase, antiphase) > self.tolerance_deg, stronger, "0"))

    @property
    def amplitudes_deg(self):
        """α, β, γ of that pattern [degrees], ndarray of shape (3,)."""
        chosen = {"+": self.in_phase_deg, "-": self.antiphase_deg, "0": np.zeros(3)}
        return np.array([chosen[sign][axis] for axis, sign in enumerate(self.signs)])

    @property
    def glazer(self):
        """The tilt system; magnitudes that agree within twice the tolerance share a letter."""
        return glazer_of(*self.amplitudes_deg, self.signs, 2 * self.tolerance_deg)

    @property
    def local_deg(self):
        """α, β, γ of each octahedron with the pattern's signs taken out [degrees], shape (n, 3)."""
        return self.rotations_deg * tilt_signs(self.signs, self.indices)

    @property
    def residual_deg(self):
        """Root mean square rotation that the pattern does not explain [degrees]."""
        pattern = tilt_signs(self.signs, self.indices) * self.amplitudes_deg
        return float(np.sqrt(((self.rotations_deg - pattern) ** 2).sum(axis=1).mean()))


def measure_tilts(atoms, b_site="Ti", axes=None, *, anion="O", tolerance_deg=0.1):
    """Tilt of every complete octahedron of a crystal.

    The six nearest anions are matched to ±a, ±b, ±c; the rotation that brings the axes closest to them
    (least squares; Kabsch 1976) is the orthogonal factor of Σ d_v ⊗ e_v, where d_v is half the diagonal
    along v. An off-centre B cation therefore changes nothing.

    Parameters
    ----------
    atoms : ase.Atoms
        In any orientation, periodic or not.
    b_site : str or tuple of str
        Element(s) in the octahedra.
    axes : array_like, shape (3, 3), optional
        Rows: directions of the pseudo-cubic a, b, c. By default those of the B sublattice, see
        `pseudocubic_axes`; for a crystal in the frame of the image they are a + b ∥ x, c ∥ y, a − b ∥ z.
    anion : str
        Element of the vertices.
    tolerance_deg : float
        Amplitudes below it count as no tilt [degrees].

    Returns
    -------
    MeasuredTilts
        Octahedra that lack vertices, as at a surface, are left out.

    Raises
    ------
    InputError
        No such cations, no complete octahedron, or no pseudo-cubic B sublattice.
    """
    cations = np.flatnonzero(np.isin(atoms.symbols, np.atleast_1d(b_site)))
    if len(cations) == 0:
        raise InputError(f"The crystal holds no {b_site}: name the element in its octahedra as b_site.")
    axes = pseudocubic_axes(atoms, b_site) if axes is None else _orthonormal(axes)
    complete, diagonals = _diagonals(atoms, cations, anion, axes)
    if len(complete) == 0:
        raise InputError(f"No {b_site} has six {anion} around it: name the octahedra's elements as b_site and anion.")
    left, _, right = np.linalg.svd(diagonals)
    rotations = Rotation.from_matrix(left @ right).as_rotvec(degrees=True)
    # Twice the cell along each period: a pattern that the cell cannot hold then averages to nothing.
    periods = 1 + atoms.pbc.astype(int)
    indices = _indices(atoms[cations].repeat(periods), axes).reshape(-1, len(cations), 3)[:, complete]
    along = [
        np.mean([(rotations * tilt_signs(sign * 3, copy)).mean(axis=0) for copy in indices], axis=0) for sign in "+-"
    ]
    return MeasuredTilts(cations[complete], indices[0], rotations, axes, *along, tolerance_deg)


def pseudocubic_axes(atoms, b_site="Ti"):
    """Pseudo-cubic a, b, c of a crystal, from the vectors between neighbouring B cations.

    Of the three directions c is the one closest to a cell vector (the last such where several are), and
    a × b = c with a + b, or a itself, along the first of the other two cell vectors. So a cell in the frame of
    the image gets a + b ∥ x, c ∥ y, Pbnm a + b ∥ a_o, c ∥ c_o, and a simple cubic cell its own axes.

    Parameters
    ----------
    atoms : ase.Atoms
    b_site : str or tuple of str

    Returns
    -------
    ndarray, shape (3, 3)
        Rows: orthogonal unit vectors, the closest ones where the sublattice is distorted.

    Raises
    ------
    InputError
        The B cations do not form three chains at right angles.
    """
    cations = np.flatnonzero(np.isin(atoms.symbols, np.atleast_1d(b_site)))
    chains = _chains(_steps(atoms[cations])[2])
    edges = atoms.cell[:] if atoms.cell.rank == 3 else np.eye(3)
    edges = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    cosines = (chains @ edges.T).round(2)
    along = 2 - np.abs(cosines).max(axis=0)[::-1].argmax()
    chosen = np.abs(cosines[:, along]).argmax()
    c = chains[chosen] * np.sign(cosines[chosen, along])
    first = edges[next(edge for edge in range(3) if edge != along)]
    sides = [sign * chain for chain in np.delete(chains, chosen, axis=0) for sign in (1, -1)]
    a = max(sides, key=lambda side: (side + 0.5 * np.cross(c, side)) @ first)
    return _orthonormal([a, np.cross(c, a), c])


def _steps(sublattice):
    """Neighbouring B cations and the vectors between them [Å], whose lengths agree to within a quarter."""
    first, second, vectors = neighbor_list("ijD", sublattice, LONGEST_STEP_A)
    lengths = np.linalg.norm(vectors, axis=1)
    near = lengths < 1.25 * lengths.min(initial=np.inf)
    return first[near], second[near], vectors[near]


def _chains(vectors):
    """Three directions at about right angles that the B–B vectors follow, as the closest orthogonal unit vectors."""
    left, means = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), []
    for _ in range(3):
        if len(left) == 0:
            raise InputError("The B cations do not follow three directions: give the pseudo-cubic axes as `axes`.")
        cosines = left @ left[0]
        here = np.abs(cosines) > SAME_AXIS
        means.append((left[here] * np.sign(cosines[here])[:, None]).mean(axis=0))
        left = left[~here]
    return _orthonormal(means)


def _orthonormal(axes):
    """The orthogonal unit vectors closest to three given ones, which must be roughly at right angles."""
    axes = np.asarray(axes, dtype=float)
    lengths = np.linalg.norm(axes, axis=-1, keepdims=True)
    if axes.shape != (3, 3) or not (lengths > 0).all() or abs(np.linalg.det(axes / lengths)) < SAME_AXIS:
        raise InputError(f"axes = {axes.round(3).tolist()} are not at right angles: give a, b, c as three rows.")
    left, _, right = np.linalg.svd(axes / lengths)
    return left @ right


def _diagonals(atoms, cations, anion, axes):
    """Half the diagonals of each complete octahedron: which B cations, and matrices of columns along a, b, c."""
    first, second, lengths, vectors = neighbor_list("ijdD", atoms, LONGEST_BOND_A)
    bonds = np.isin(first, cations) & (atoms.symbols == anion)[second]
    order = np.flatnonzero(bonds)[np.lexsort((lengths[bonds], first[bonds]))]
    arms_of = np.split(vectors[order] @ axes.T, np.searchsorted(first[order], cations))[1:]
    found = [(number, _half_diagonals(arms[:6])) for number, arms in enumerate(arms_of)]
    complete = [(number, diagonals) for number, diagonals in found if diagonals is not None]
    numbers, diagonals = zip(*complete, strict=True) if complete else ((), ())
    return np.array(numbers, dtype=int), np.array(diagonals)


def _half_diagonals(arms):
    """Columns along a, b, c from six arms in pseudo-cubic axes; None unless they point along ±a, ±b, ±c."""
    axis = np.abs(arms).argmax(axis=1)
    vertex = 2 * axis + (arms[np.arange(len(arms)), axis] < 0)
    if sorted(vertex) != list(range(6)):
        return None
    arms = arms[np.argsort(vertex)]
    return 0.5 * (arms[0::2] - arms[1::2]).T


def _indices(sublattice, axes):
    """Lattice indices counted along B–B steps, so that strain does not add up; (0, 0, 0) nearest to the origin."""
    first, second, vectors = _steps(sublattice)
    steps = (vectors @ axes.T / np.linalg.norm(vectors, axis=1, keepdims=True)).round().astype(int)
    number = {(one, other): step for one, other, step in zip(first, second, steps, strict=True)}
    start = int(np.linalg.norm(sublattice.positions, axis=1).argmin())
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(sublattice),) * 2).tocsr()
    order, predecessors = breadth_first_order(graph, start)
    if len(order) < len(sublattice):
        raise InputError(
            f"{len(sublattice) - len(order)} of {len(sublattice)} octahedra hang apart: measure each block alone."
        )
    indices = np.zeros((len(sublattice), 3), dtype=int)
    for here in order[1:]:
        indices[here] = indices[predecessors[here]] + number[predecessors[here], here]
    return indices
