"""Patterns where crystals are known: rows read as layers between them, and patterns that fitted crystals have."""

import numpy as np
import pandas as pd
from test_patterns import table, uniform
from unitcell.tilts.pattern_evidence import NAMES, agreement
from unitcell.tilts.patterns import column_patterns, folded_truth


def test_a_row_read_as_a_layer_keeps_its_pattern_beside_others():
    row, col = (part.ravel() for part in np.indices((9, 12)))
    strip = row == 4
    truth = folded_truth(np.where(strip[:, None], [8.0, 8.0, 7.0], 0.0), np.where(strip, "--+", "---"), row, col)
    tilts = table(truth, np.random.default_rng(0), bias=0.3)
    assert (column_patterns(tilts).pattern[strip] == "a0a0c0").all()  # a blend of what is beside it, without neighbours
    found = {signs: column_patterns(tilts.assign(layer_signs=np.where(strip, signs, ""))) for signs in ("--+", "---")}
    assert (found["--+"].pattern[strip] == "a-a-c+").mean() >= 0.9
    assert (found["---"].pattern[strip] == "a-a-c-").mean() >= 0.9  # a window of its own does not tell
    for each in found.values():
        assert (each.pattern[~strip] == "a0a0c0").mean() >= 0.95


def test_layers_in_columns_without_tilts_and_tables_from_files_are_harmless():
    tilts = uniform((8, 8, 5), "--+")
    signs = pd.Series("", tilts.index).mask(tilts.index == 5, "--+")
    tilts.loc[5, [name for name in tilts if "_deg" in name]] = np.nan
    plain = column_patterns(tilts)
    for empty in (signs, pd.Series(np.nan, tilts.index)):  # '' is read back from a file as NaN
        found = column_patterns(tilts.assign(layer_signs=empty, crystal=empty))
        pd.testing.assert_frame_equal(found, plain)


def test_signs_agree_with_the_classes_that_they_may_belong_to():
    names = np.array(NAMES)
    assert set(names[agreement("---")]) == {
        f"{plane}c{sign}" for plane in ("a0a0", "a-b0", "a-a-", "a-b-") for sign in "0-±"
        if not (sign == "±" and plane in ("a-b0", "a-b-")) and not (sign == "-" and plane == "a0a0")
    }  # fmt: skip
    assert set(names[agreement("-++")]) == {"a0a0c0", "a0a0c±", "a+b?c0", "a+b?c±", "a-b+c0", "a-b+c+"}


def test_patterns_of_fitted_crystals_are_likelier_than_others():
    tilts = uniform((8, 8, 5), "--+", seed=2)
    edge, crystal = tilts.row == 0, tilts.row > 5  # that do not touch
    tilts.loc[edge, [f"{name}_deg_hi" for name in ("v", "u", "gamma", "alternation")]] += 4.0
    tilts = tilts[edge | crystal]
    plain, known = column_patterns(tilts), column_patterns(tilts.assign(crystal=np.where(tilts.row > 5, "CaTiO3", "")))
    assert (known.pattern == "a-a-c+").all()
    assert plain.pattern_probability[edge].max() < 0.6
    assert known.pattern_probability[edge].min() > 0.8
