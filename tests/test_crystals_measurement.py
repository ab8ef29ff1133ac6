"""Tilts read back from atoms: a published crystal, and every pattern the package builds."""

import itertools

import numpy as np
import pytest
from calcium_titanate import calcium_titanate
from unitcell.crystals import (
    Layer,
    glazer_system,
    layered_perovskite,
    measure_tilts,
    pseudocubic_axes,
    rock_salt,
    ruddlesden_popper,
    tilted_perovskite,
)
from unitcell.errors import InputError

PATTERNS = ["".join(signs) for signs in itertools.product("-+0", repeat=3)]


def allowed(tilts, signs):
    return np.where(np.array(list(signs)) == "0", 0.0, tilts)


def test_calcium_titanate_is_a_minus_a_minus_c_plus():
    measured = measure_tilts(calcium_titanate())
    assert str(measured.glazer) == "a⁻a⁻c⁺"
    assert glazer_system(measured.glazer).space_group == "Pnma"
    # Refinements put CaTiO3 near 11.7° about [110] and 8.9° about [001].
    alpha, beta, gamma = np.abs(measured.amplitudes_deg)
    assert np.hypot(alpha, beta) == pytest.approx(11.65, abs=0.02)
    assert gamma == pytest.approx(8.93, abs=0.02)
    assert measured.residual_deg == pytest.approx(1.31, abs=0.02)  # the rotation about a_o that Pnma allows


@pytest.mark.parametrize("turn", [(90, "x"), (90, "z"), (37, (1, 2, 3))])
def test_orientation_and_cell_do_not_matter(turn):
    crystal = calcium_titanate().repeat((1, 1, 3))
    crystal.rotate(*turn, rotate_cell=True)
    measured = measure_tilts(crystal)
    assert glazer_system(measured.glazer).number == 10
    assert np.sort(np.abs(measured.amplitudes_deg)) == pytest.approx([8.24, 8.24, 8.93], abs=0.02)


@pytest.mark.parametrize("contraction", [False, True])
@pytest.mark.parametrize("signs", PATTERNS)
def test_every_pattern_is_read_back(signs, contraction):
    # The mean of two vertices is not quite a rigid octahedron: the error is of third order in the tilts,
    # 0.018° at 4° and 0.14° at 8° on a cubic lattice, 0.006° and 0.05° on a contracted one.
    for size, error in ((2.0, 0.003), (4.0, 0.02), (8.0, 0.15)):
        tilts = size * np.array([1.0, 0.5, 0.75])
        measured = measure_tilts(tilted_perovskite(*tilts, signs, contraction=contraction))
        assert measured.signs == signs
        assert measured.amplitudes_deg == pytest.approx(allowed(tilts, signs), abs=error / (3 if contraction else 1))


def test_signs_of_the_tilts_are_those_of_the_octahedron_at_the_origin():
    measured = measure_tilts(tilted_perovskite(-3, 2, -1, "--+"))
    assert measured.amplitudes_deg == pytest.approx([-3, 2, -1], abs=0.02)
    assert measured.local_deg == pytest.approx(np.tile(measured.amplitudes_deg, (4, 1)), abs=0.05)


def test_neither_an_off_centre_cation_nor_a_long_axis_is_a_tilt():
    crystal = tilted_perovskite(0, 0, 4, "00-", lattice_A=(3.9, 4.1, 3.9))
    crystal.positions[crystal.symbols == "Ti"] += (0.05, 0.1, -0.03)
    assert measure_tilts(crystal).amplitudes_deg == pytest.approx([0, 0, 4], abs=0.02)


def test_both_phases_about_one_axis_are_told_apart():
    layers = [Layer(0, 0, gamma, "00+") for gamma in (5.0, 1.0)]  # in phase 3°, and in antiphase 2°
    measured = measure_tilts(layered_perovskite(layers, periodic=True))
    assert (measured.in_phase_deg[2], measured.antiphase_deg[2]) == pytest.approx((3, 2), abs=0.02)
    assert measured.signs == "00+"
    assert measured.residual_deg == pytest.approx(2, abs=0.03)


def test_axes_follow_the_cell_unless_they_are_given():
    crystal = tilted_perovskite(3, 2, 1, "-0+")
    root = 1 / np.sqrt(2)
    assert pseudocubic_axes(crystal) == pytest.approx(np.array([[root, 0, root], [root, 0, -root], [0, 1, 0]]))
    renamed = measure_tilts(crystal, axes=np.roll(pseudocubic_axes(crystal), 1, axis=0))
    assert (renamed.signs, str(renamed.glazer)) == ("+-0", "a⁺b⁻c⁰")
    assert renamed.amplitudes_deg == pytest.approx([1, 3, 0], abs=0.02)


@pytest.mark.parametrize(
    ("crystal", "arguments", "names"),
    [
        (tilted_perovskite(1, 1, 1), {"b_site": "Mn"}, "Mn"),
        (tilted_perovskite(1, 1, 1), {"anion": "F"}, "F"),
        (tilted_perovskite(1, 1, 1), {"axes": np.ones((3, 3))}, "right angles"),
        (rock_salt("100"), {"b_site": "Ni"}, "right angles"),
        (ruddlesden_popper(), {"b_site": "Fe"}, "hang apart"),
    ],
)
def test_what_is_no_perovskite_is_refused(crystal, arguments, names):
    with pytest.raises(InputError, match=names):
        measure_tilts(crystal, **arguments)
