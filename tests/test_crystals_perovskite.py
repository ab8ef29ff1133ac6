"""Tilted perovskites against geometry."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from calcium_titanate import A_O, B_O, C_O, SITES, calcium_titanate
from unitcell.crystals import beam_periods, tilt_signs, tilted_perovskite
from unitcell.crystals.tilt_coordinates import canonical, doubled, halved, to_projection, to_pseudocubic
from unitcell.errors import InputError

A = 3.905


def wrapped(values, period):
    return (np.asarray(values) + period / 2) % period - period / 2


def oxygens_near(crystal, x, y):
    """Displacements (dx, dy) of the oxygens whose column belongs to (x, y)."""
    positions = crystal.positions[crystal.symbols == "O", :2]
    width, height = crystal.cell.lengths()[:2]
    shift = np.stack([wrapped(positions[:, 0] - x, width), wrapped(positions[:, 1] - y, height)], axis=1)
    return shift[np.hypot(*shift.T) < 0.7]


@pytest.mark.parametrize("signs", ["000", "---", "--+", "+--", "-+-", "++-", "+++"])
def test_every_pattern_keeps_stoichiometry_and_octahedra(signs):
    crystal = tilted_perovskite(6, 2, 4, signs)
    counts = [int((crystal.symbols == s).sum()) for s in ("Sr", "Ti", "O")]
    assert counts[0] == counts[1] == counts[2] // 3
    bonds = crystal.get_all_distances(mic=True)[np.ix_(crystal.symbols == "Ti", crystal.symbols == "O")]
    assert ((np.abs(bonds - A / 2) < 0.1).sum(axis=1) == 6).all()
    assert crystal.cell.lengths()[2] == pytest.approx(beam_periods(signs) * np.sqrt(2) * A)


def test_small_tilts_move_oxygen_columns_as_the_projection_says():
    # DESIGN: apical −v·a/2 along x; equatorial v·a/(2√2) along y and ±(γ, −u)·a/(2√2).
    v, u, gamma = 0.3, 0.2, 0.4
    crystal = tilted_perovskite(*to_pseudocubic(v, u, gamma))
    apical = oxygens_near(crystal, 0.0, A / 2)
    assert apical[:, 0] == pytest.approx(-np.radians(v) * A / 2, rel=0.02)
    equatorial = oxygens_near(crystal, A / np.sqrt(2) / 2, 0.0)
    unit = np.radians(1) * A / (2 * np.sqrt(2))
    assert equatorial.mean(axis=0) == pytest.approx([0.0, v * unit], abs=0.02 * unit)
    split = equatorial - equatorial.mean(axis=0)
    split = split[split[:, 0] > 0][0]
    assert split == pytest.approx([gamma * unit, -u * unit], abs=0.02 * unit)


def test_signs_alternate_as_glazer_says():
    octahedra = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert tilt_signs("-+0", octahedra).tolist() == [[1, 1, 0], [-1, -1, 0], [-1, 1, 0], [-1, -1, 0]]


def test_mirror_normal_to_the_beam_keeps_the_projection():
    one, other = tilted_perovskite(6, 2, 4), tilted_perovskite(-2, -6, -4)

    def projected(crystal):
        return np.array(sorted(np.round(crystal.positions[crystal.symbols == "O", :2], 6).tolist()))

    assert projected(one) == pytest.approx(projected(other), abs=1e-5)


def nearest(crystal, reference, symbol, origin, signs):
    """Largest distance [Å] of the atoms of one kind from those of a reference, mirrored about an origin."""
    here, there = (atoms.get_scaled_positions()[atoms.symbols == symbol] for atoms in (crystal, reference))
    steps = here[:, None] - (there - origin) * signs
    steps -= np.round(steps)
    return np.linalg.norm(steps * crystal.cell.lengths(), axis=-1).min(axis=1).max()


def test_a_shift_puts_calcium_where_pbnm_has_it():
    root2 = np.sqrt(2)
    x, y, _ = SITES["Ca"]
    lattice = (B_O / root2, C_O / 2, A_O / root2)
    crystal = tilted_perovskite(8.5, 8.5, 9.2, "--+", "Ca", "Ti", lattice, a_shift=(y * root2, x * root2))
    measured = calcium_titanate()
    assert crystal.cell.lengths() == pytest.approx(measured.cell.lengths())
    origin, signs = (0.5, 0.0, 0.0), (-1, 1, -1)  # a titanium, and the domain that these tilts make
    assert nearest(crystal, measured, "Ca", origin, signs) < 1e-9
    assert nearest(crystal, measured, "O", origin, signs) < 0.06


@pytest.mark.parametrize("signs", ["--+", "+--", "++-", "-+0"])
def test_a_shift_has_the_length_it_is_given(signs):
    still, moved = (tilted_perovskite(6, 3, 4, signs, a_shift=shift) for shift in ((0, 0), (0.05, 0)))
    steps = np.linalg.norm(wrapped(moved.positions - still.positions, still.cell.lengths()), axis=1)
    assert np.sqrt((steps[still.symbols == "Sr"] ** 2).mean()) == pytest.approx(0.05 * A)
    assert steps[~(still.symbols == "Sr")].max() < 1e-12


def bonds(crystal):
    """Lengths of the six B–O bonds of each octahedron [Å], shape (n, 6)."""
    first, length = neighbor_list("id", crystal, 2.4)
    return np.array([np.sort(length[first == n])[:6] for n in np.flatnonzero(crystal.symbols == "Ti")])


def test_rigid_tilts_contract_the_lattice_as_woodward_says():
    cosine = np.cos(np.radians(8))
    about_c = tilted_perovskite(0, 0, 8, "00-", contraction=True)
    assert about_c.cell.lengths() == pytest.approx([np.sqrt(2) * A * cosine, 2 * A, np.sqrt(2) * A * cosine])
    assert bonds(about_c) == pytest.approx(A / 2)
    angle = np.radians(8 * np.sqrt(2))  # a⁻a⁻c⁰ is one rotation about x ∥ [110]
    about_x = tilted_perovskite(8, 8, 0, "--0", contraction=True)
    expected = [np.sqrt(2) * A, 2 * A * np.cos(angle), np.sqrt(2) * A * np.cos(angle)]
    assert about_x.cell.lengths() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("signs", ["--+", "---", "+++", "++-"])
def test_contraction_keeps_bonds_to_second_order(signs):
    for tilt in (4.0, 8.0):
        third_order = np.radians(tilt) ** 3
        with_it, without = (tilted_perovskite(tilt, tilt, tilt, signs, contraction=on) for on in (True, False))
        assert np.abs(bonds(with_it) / (A / 2) - 1).max() < third_order
        assert (bonds(without) / (A / 2) - 1).min() > 0.5 * np.radians(tilt) ** 2
        unequal = tilted_perovskite(tilt, tilt / 3, tilt / 2, signs, contraction=True)
        assert np.abs(bonds(unequal).mean(axis=1) / (A / 2) - 1).max() < 0.1 * third_order


def test_lattice_parameters_may_differ_along_the_axes():
    lengths = tilted_perovskite(3, 3, 2, "--+", lattice_A=(3.8, 3.9, 3.85)).cell.lengths()
    assert lengths == pytest.approx([np.sqrt(2) * 3.8, 2 * 3.9, np.sqrt(2) * 3.85])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"signs": "-*-"}, "pattern"),
        ({"a_site": "Xx"}, "Xx"),
        ({"lattice_A": 0.39}, "0.39"),
        ({"lattice_A": (3.9, 3.9)}, "three"),
        ({"lattice_A": (3.9, 39.0, 3.9)}, "39"),
        ({"a_shift": (0.05, 0.0)}, "a_shift of 0.05"),
        ({"a_shift": 0.05}, "pair"),
        ({"a_shift": (0.5, 0.0)}, "0.5"),
        ({"alpha": float("nan")}, "nan"),
        ({"alpha": 80.0}, "80"),
    ],
)
def test_impossible_crystals_are_refused(arguments, names):
    with pytest.raises(InputError, match=names):
        tilted_perovskite(**({"alpha": 1.0, "beta": 0.0, "gamma": 0.0} | arguments))


def test_tilt_coordinates_go_there_and_back():
    alpha, beta, gamma = np.random.default_rng(0).uniform(-11, 11, (3, 50))
    back = to_pseudocubic(*to_projection(alpha, beta, gamma))
    assert np.allclose(back, (alpha, beta, gamma))


def test_doubled_coordinates_know_no_branch_and_lose_nothing_else():
    u, gamma = np.random.default_rng(1).uniform(-11, 11, (2, 200))
    assert np.allclose(doubled(u, gamma), doubled(-u, -gamma))
    assert np.allclose(halved(*doubled(u, gamma)), canonical(u, gamma), atol=1e-9)


def test_canonical_branch():
    u, gamma = canonical([2.0, 2.0, -3.0], [-1.0, 1.0, 0.0])
    assert u.tolist() == [-2.0, 2.0, 3.0]
    assert gamma.tolist() == [1.0, 1.0, 0.0]
