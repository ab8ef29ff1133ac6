"""Glazer's 23 tilt systems: read, written, enumerated and built."""

import itertools

import numpy as np
import pytest
from unitcell.crystals import (
    GLAZER_SYSTEMS,
    glazer_of,
    glazer_perovskite,
    glazer_system,
    parse_glazer,
    tilted_perovskite,
)
from unitcell.errors import InputError

SIZES = {"a": 8.0, "b": 5.0, "c": 3.0}


@pytest.mark.parametrize("notation", ["a-a-c+", "a⁻a⁻c⁺", "a^-a^-c^+", "a− a− c+", "a_-a_-c_+"])
def test_one_system_in_many_spellings(notation):
    tilt = parse_glazer(notation)
    assert (tilt.letters, tilt.signs, str(tilt)) == ("aac", "--+", "a⁻a⁻c⁺")


@pytest.mark.parametrize("notation", ["", "a-a-", "a-a-c", "a-a-d+", "aa-c+", "a-a-c+c+", "a0a-c+", None])
def test_what_is_no_tilt_system_is_refused(notation):
    with pytest.raises(InputError, match="letter"):
        parse_glazer(notation)


def test_there_are_23_systems_of_which_15_are_distinct():
    assert [system.number for system in GLAZER_SYSTEMS] == list(range(1, 24))
    assert len({system.tilt.kind for system in GLAZER_SYSTEMS}) == 23
    distinct = [system.space_group for system in GLAZER_SYSTEMS if system.distinct]
    assert len(distinct) == len(set(distinct)) == 15


def test_every_choice_of_letters_and_signs_is_one_of_the_23():
    met = set()
    for letters, signs in itertools.product(itertools.product("abc", repeat=3), itertools.product("-+0", repeat=3)):
        notation = "".join(letter + sign for letter, sign in zip(letters, signs, strict=True))
        tilts = [0.0 if sign == "0" else SIZES[letter] for letter, sign in zip(letters, signs, strict=True)]
        written = glazer_of(*tilts, "".join(signs))
        assert parse_glazer(str(written)) == written
        met.add(glazer_system(written).number)
        try:
            assert glazer_system(notation).number == glazer_system(written).number
        except InputError:  # one letter both at rest and tilted
            assert any(letters[one] == letters[other] for one, other in ((0, 1), (0, 2), (1, 2)))
    assert met == set(range(1, 24))


def test_each_standard_symbol_is_written_as_it_was_read():
    for system in GLAZER_SYSTEMS:
        tilts = [0.0 if sign == "0" else SIZES[letter] for letter, sign in system.tilt.pairs]
        assert str(glazer_of(*tilts, system.tilt.signs)) == str(system.tilt)


def test_small_tilts_are_none_and_near_ones_share_a_letter():
    assert str(glazer_of(-8.02, 7.97, 0.05, "--+")) == "a⁻a⁻c⁰"
    assert str(glazer_of(8.0, 7.5, 5.0, "--+")) == "a⁻b⁻c⁺"


@pytest.mark.parametrize("system", GLAZER_SYSTEMS, ids=lambda system: str(system.tilt))
def test_every_system_can_be_built(system):
    crystal = glazer_perovskite(str(system.tilt), {letter: SIZES[letter] for letter in system.tilt.free_letters})
    tilts = [0.0 if sign == "0" else SIZES[letter] for letter, sign in system.tilt.pairs]
    assert np.array_equal(crystal.positions, tilted_perovskite(*tilts, system.tilt.signs).positions)


def test_domain_chooses_the_axis_of_the_joint_tilt():
    one = glazer_perovskite("a-a-c0", {"a": 6.0}, domain=(1, -1, 1), a_site="La")
    assert np.array_equal(one.positions, tilted_perovskite(6, -6, 0, "--0").positions)
    assert one.symbols[0] == "La"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"magnitudes_deg": {"a": 5.0}}, "a, c"),
        ({"magnitudes_deg": {"a": 5.0, "c": 2.0, "b": 1.0}}, "a, c"),
        ({"magnitudes_deg": {"a": -5.0, "c": 2.0}}, "-5"),
        ({"domain": (1, 2, 1)}, "2"),
    ],
)
def test_magnitudes_must_fit_the_symbol(arguments, names):
    with pytest.raises(InputError, match=names):
        glazer_perovskite("a-a-c+", **({"magnitudes_deg": {"a": 5.0, "c": 2.0}} | arguments))
