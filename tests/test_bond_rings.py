"""Rings and grains of sheets whose bonds are known."""

import numpy as np
import pytest
from unitcell.atoms.bond_rings import completeness, grains, orientation, rings, rotation_in_spectrum
from unitcell.errors import InputError

BOND = 1.42


def honeycomb(turn_deg, half=20.0):
    """Atoms of graphene, turned counter-clockwise as seen (y points down)."""
    a = BOND * np.sqrt(3)
    i, j = np.mgrid[-40:41, -40:41].reshape(2, -1, 1)
    cells = i * np.array([a, 0.0]) + j * np.array([a / 2, a * np.sqrt(3) / 2])
    atoms = np.concatenate([cells, cells + np.array([0, BOND])]) + np.array([0.3, 0.2])
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    atoms = atoms @ np.array([[c, -s], [s, c]])
    return atoms[(np.abs(atoms) < half).all(axis=1)]


def test_every_ring_of_a_honeycomb_has_six_corners():
    atoms = honeycomb(7.0)
    atoms = atoms + np.random.default_rng(0).normal(0, 0.08, atoms.shape)
    table = rings(atoms, BOND)
    assert set(table["size"]) == {6}
    inner = (np.abs(table[["x", "y"]]) < 16).all(axis=1)
    assert inner.sum() == pytest.approx(32**2 / (1.5 * np.sqrt(3) * BOND**2), rel=0.04)  # one ring for a cell


def polygon(corners, upwards):
    """A regular polygon whose first two corners are (0, 0) and (BOND, 0)."""
    turn = (1 if upwards else -1) * 2 * np.pi / corners * np.arange(corners)
    return np.cumsum(np.vstack([[0, 0], BOND * np.column_stack([np.cos(turn), np.sin(turn)])[:-1]]), axis=0)


def test_a_pentagon_and_a_heptagon_that_share_a_bond():
    table = rings(np.vstack([polygon(5, True), polygon(7, False)[2:]]), BOND)
    assert table["size"].tolist() == [5, 7] or table["size"].tolist() == [7, 5]
    assert set(table.corners[0]) & set(table.corners[1]) == {0, 1}


def test_orientation_and_rotation_of_two_grains():
    left, right = honeycomb(4.0), honeycomb(22.0)
    atoms = np.concatenate([left[left[:, 0] < -0.5], right[right[:, 0] > 0.5]])
    table = rings(atoms, BOND)
    grain, angle, rotation = grains(atoms, table, BOND)
    assert rotation == pytest.approx(18, abs=0.3)
    sides = [table.x.to_numpy()[grain == k] for k in (0, 1)]
    assert max(np.mean(sides[0] < 0), np.mean(sides[1] < 0)) > 0.97
    one = rings(left, BOND)
    assert np.degrees(np.angle(orientation(left, one).mean())) / 6 % 60 == pytest.approx(34, abs=0.1)
    assert sorted(a % 60 for a in angle) == pytest.approx([34, 52], abs=0.3)


@pytest.mark.parametrize(("points", "words"), [(np.eye(2), "make no rings"), (np.eye(4, 2) * 90, "No two atoms")])
def test_points_without_rings_are_refused(points, words):
    with pytest.raises(InputError, match=words):
        rings(points + np.arange(len(points))[:, None] * [50, 17], BOND)


def test_rotation_in_the_spectrum():
    atoms = np.concatenate([(a := honeycomb(4.0))[a[:, 0] < 0], (b := honeycomb(22.0))[b[:, 0] > 0]])
    y, x = np.mgrid[-20:20:0.1, -20:20:0.1]
    image = sum(np.exp(-((x - p) ** 2 + (y - q) ** 2) / 0.5) for p, q in atoms)
    assert rotation_in_spectrum(image, 0.1) == pytest.approx(18, abs=1)


def test_completeness_of_a_honeycomb():
    atoms = honeycomb(11.0) + 20
    assert completeness(atoms, (41, 41), BOND) == pytest.approx(1, abs=0.03)
    assert completeness(atoms[::2], (41, 41), BOND) == pytest.approx(0.5, abs=0.03)
