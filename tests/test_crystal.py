"""Tilted perovskites against geometry."""

import numpy as np
import pytest
from unitcell.crystals import beam_periods, tilt_signs, tilted_perovskite
from unitcell.errors import InputError
from unitcell.tilts import canonical, doubled, halved, to_projection, to_pseudocubic

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


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"signs": "-*-"}, "pattern"),
        ({"a_site": "Xx"}, "Xx"),
        ({"lattice_A": 0.39}, "0.39"),
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
