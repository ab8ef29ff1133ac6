"""Twins read by the committed network: what is measured is of the size that the chapter reports."""

import numpy as np
import pytest
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.map_figures import glazer_text, profile_table
from unitcell.twins.abf_twins import open_twin
from unitcell.twins.twin_scores import read_twin, row_sizes, score


@pytest.fixture(scope="module")
def read():
    return read_twin(open_twin("lsmo_esmo"), load_network())


def test_columns_hold_truth_and_reading_of_one_place(read):
    analysis, columns = read
    assert len(columns) > 0.95 * analysis.tilts.v_deg.notna().sum()
    assert (columns.gamma_deg >= 0).all()
    # u and γ may be read on the branch farther from the truth: then their signs differ, not their sizes.
    np.testing.assert_allclose(columns.v_read - columns.v_deg, columns.v_error, atol=1e-6)
    nearer = np.hypot(columns.u_error, columns.gamma_error)
    assert (nearer <= np.hypot(columns.u_read - columns.u_deg, columns.gamma_read - columns.gamma_deg) + 1e-6).all()
    assert set(columns.true_pattern) == {"a-a-c-", "a-a-c+"}


def test_scores_are_of_the_columns(read):
    _, columns = read
    found = score(columns)
    assert found.position_A < 0.1
    assert found.v == pytest.approx(np.sqrt(np.mean(columns.v_error**2)))
    assert found.v < 1.2
    assert found.pattern_far == columns[columns.distance_cells > 2].pattern_right.mean()
    perfect = columns.assign(**{f"{name}_error": 0.0 for name in ("v", "u", "gamma")}, pattern_right=True)
    assert score(perfect)[["v", "u", "gamma", "pattern_far", "pattern_near"]].tolist() == [0, 0, 0, 1, 1]


def test_profiles_are_medians_of_sizes(read):
    analysis, columns = read
    profile = profile_table(analysis.tilts)
    row = profile.index[len(profile) // 2]
    here = analysis.tilts[analysis.tilts.row == row].dropna(subset="v_deg")
    assert profile.u[row] == pytest.approx(here.u_deg.abs().median())
    assert profile.gamma_hi[row] == pytest.approx(here.gamma_deg_hi.median())
    assert (profile.u_lo <= profile.u).all()
    assert row_sizes(columns).u.max() == pytest.approx(columns.u_deg.abs().max())


def test_patterns_are_printed_as_glazer_wrote_them():
    assert glazer_text("a-a-c+") == "a⁻a⁻c⁺"
    assert glazer_text("a0a0c±") == "a⁰a⁰c±"
