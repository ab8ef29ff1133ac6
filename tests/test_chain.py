"""The diatomic chain: posteriors against direct integration, decisions against closed forms, bad input."""

import arviz as az
import numpy as np
import pandas as pd
import pytest
from unitcell.chain import CASE_1, CASE_2, Chain, priors, sample_posterior, save_posterior, with_difference
from unitcell.errors import InputError
from unitcell.rope import (
    cells_to_leave,
    decide,
    decided_at,
    decision_rates,
    decision_table,
    hdi_half_width,
    student_posterior,
)

ROPE = [-0.1, 0.1]
SIZES = [10, 200]
BONDS = {
    "case 1": CASE_1.simulate(200, np.random.default_rng(3)),
    "case 2": CASE_2.simulate(200, np.random.default_rng(4)),
}


@pytest.fixture(scope="module")
def posterior():
    return sample_posterior(BONDS, SIZES, draws=2000, seed=5)


@pytest.fixture(scope="module")
def table(posterior):
    return decision_table(posterior, ROPE)


def on_a_grid(values, centre, width, sd_max):
    """Mean and sd of μ by direct integration of Laplace(centre, width) × Uniform(0, sd_max) × N(μ, σ)."""
    reach = 12 * values.std() / np.sqrt(len(values))
    mu = np.linspace(values.mean() - reach, values.mean() + reach, 801)[:, None]
    sigma = np.linspace(0.2 * values.std(), min(sd_max, 8 * values.std()), 800)[None]
    squares = ((values - values.mean()) ** 2).sum() + len(values) * (values.mean() - mu) ** 2
    log_p = -len(values) * np.log(sigma) - squares / (2 * sigma**2) - np.abs(mu - centre) / width
    weight = np.exp(log_p - log_p.max()).sum(axis=1)
    mean = np.average(mu[:, 0], weights=weight)
    return mean, np.sqrt(np.average((mu[:, 0] - mean) ** 2, weights=weight))


@pytest.mark.parametrize("case", ["case 1", "case 2"])
@pytest.mark.parametrize("n", SIZES)
def test_sampled_posterior_agrees_with_direct_integration(posterior, case, n):
    lengths = with_difference(BONDS[case])
    prior = priors(lengths)
    for bond, values in zip(("odd", "even", "difference"), lengths, strict=True):
        mean, sd = on_a_grid(values[:n], *(float(prior[name].sel(bond=bond)) for name in ("centre", "width", "sd_max")))
        draws = posterior.posterior["mu"].sel(case=case, n=n, bond=bond).values
        assert draws.mean() == pytest.approx(mean, abs=0.06 * sd)
        assert draws.std() == pytest.approx(sd, rel=0.06)


def test_sampler_converged(posterior, table):
    assert table.r_hat.max() <= 1.01
    assert int(posterior.sample_stats["diverging"].sum()) == 0


def test_hdi_has_its_analytic_width(table):
    rows = table[table.n == 200]
    lengths = [with_difference(bonds)[2].std() / np.sqrt(2) for bonds in BONDS.values()]
    expected = [hdi_half_width(sd, 200) for sd in lengths]
    assert ((rows.hdi_hi - rows.hdi_lo) / 2).tolist() == pytest.approx(expected, rel=0.06)


def test_paper_cases_are_decided_as_they_should(table):
    assert (table[table.case == "case 1"].decision == "diatomic").all()
    assert (table[table.case == "case 2"].decision == "undecided").all()
    assert list(table.columns) == ["case", "n", "mean", "sd", "hdi_lo", "hdi_hi", "p_in_rope", "decision", "r_hat"]


def test_posterior_survives_the_file(posterior, tmp_path):
    save_posterior(posterior, tmp_path / "posterior.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["posterior.nc"]
    read = az.from_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    assert read.posterior["mu"].equals(posterior.posterior["mu"])
    assert read.posterior["mu"].attrs["units"] == "mean bond length"
    np.testing.assert_array_equal(read.observed_data["length"].sel(case="case 2", bond="odd"), BONDS["case 2"][0])


def test_priors_follow_the_first_ten_observations():
    bonds = np.vstack([np.r_[np.linspace(0.4, 0.6, 10), 9.0], np.r_[np.linspace(1.2, 1.8, 10), 9.0]])
    prior = priors(with_difference(bonds))
    assert prior["centre"].values == pytest.approx([0.5, 1.5, 1.0])
    assert prior["width"].values == pytest.approx([0.1, 0.3, 0.2])
    assert prior["sd_max"].values == pytest.approx([0.5, 1.5, 1.0])


def test_student_posterior_is_the_flat_prior_integral():
    values = with_difference(BONDS["case 2"])[2, :20]
    mean, sd = on_a_grid(values, centre=0, width=1e9, sd_max=1e9)
    exact = student_posterior(values)
    assert exact.mean() == pytest.approx(mean, abs=1e-3 * sd)
    assert exact.std() == pytest.approx(sd, rel=5e-3)


@pytest.mark.parametrize(
    ("interval", "decision"),
    [
        ((-0.05, 0.09), "simple chain"),
        ((0.11, 0.3), "diatomic"),
        ((-0.3, -0.11), "diatomic"),
        ((0.05, 0.15), "undecided"),
        ((-0.2, 0.2), "undecided"),
    ],
)
def test_decision_rule(interval, decision):
    assert decide(*interval, ROPE) == decision


def test_decided_at_is_where_the_decision_no_longer_changes():
    changes = pd.DataFrame(
        {"case": "a", "n": [5, 10, 20, 40], "decision": ["diatomic", "undecided"] + ["diatomic"] * 2}
    )
    assert decided_at(changes, "a") == 20
    assert np.isnan(decided_at(changes[changes.n <= 10], "a"))


def test_half_width_and_cells_needed():
    assert hdi_half_width(0.1, 1) == pytest.approx(0.266, abs=5e-4)
    assert cells_to_leave(0.15, 0.1, ROPE) == pytest.approx((0.266 / 0.05) ** 2, rel=5e-3)
    assert cells_to_leave(-0.15, 0.1, ROPE) == cells_to_leave(0.15, 0.1, ROPE)
    assert np.isinf(cells_to_leave(CASE_2.difference, CASE_2.sd, ROPE))


def test_case_2_never_resolves_and_a_decidable_chain_does():
    rng = np.random.default_rng(0)
    sizes = [20, 28, 100, 500]
    edge = decision_rates(CASE_2, sizes, ROPE, 0.94, replications=4000, rng=rng)
    assert edge["undecided"].values == pytest.approx(0.94, abs=0.02)
    assert edge["decided once"].iloc[-1] > 0.1
    wide = decision_rates(Chain(0.925, 1.075, 0.1), sizes, ROPE, 0.94, replications=4000, rng=rng)
    assert wide["diatomic"].loc[28] == pytest.approx(0.5, abs=0.05)  # expected to clear the ROPE at n = 28.3
    assert wide["diatomic"].loc[500] > 0.999
    equal = decision_rates(Chain(1.0, 1.0, 0.1), sizes, ROPE, 0.94, replications=4000, rng=rng)
    assert equal["simple chain"].loc[500] > 0.999


def with_value(bonds, value):
    bonds[0, 3] = value
    return bonds


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda bonds: bonds[:, :9], "cover 9 unit cells"),
        (lambda bonds: bonds[0], "shape"),
        (lambda bonds: with_value(bonds, np.nan), "1 NaN"),
        (lambda bonds: with_value(bonds, -0.2), "reach -0.2"),
        (lambda bonds: 0 * bonds + 1.0, "are all 1"),
        (lambda bonds: np.vstack([bonds[0], bonds[0] + 0.1]), "difference bond lengths"),
    ],
)
def test_bad_bond_lengths_are_refused_in_one_sentence(change, words):
    with pytest.raises(InputError, match=words) as caught:
        sample_posterior({"my chain": change(BONDS["case 2"].copy())}, SIZES)
    message = str(caught.value)
    assert "my chain" in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sample_sizes": [10, 201]}, "to the 200 unit cells"),
        ({"sample_sizes": [50, 10]}, "increasing"),
        ({"sample_sizes": [1, 10]}, "from 5"),
        ({"sample_sizes": []}, "increasing"),
        ({"sample_sizes": [10], "chains": 1}, "chains=1"),
    ],
)
def test_bad_sampler_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        sample_posterior(BONDS, **settings)


@pytest.mark.parametrize(
    ("rope", "hdi_prob", "words"),
    [([0.1, -0.1], 0.94, "rope is"), ([0.1], 0.94, "rope is"), (ROPE, 94, "hdi_prob is 94")],
)
def test_bad_decision_rule_is_refused(posterior, rope, hdi_prob, words):
    with pytest.raises(InputError, match=words):
        decision_table(posterior, rope, hdi_prob)


def test_chains_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="same number"):
        sample_posterior({"a": BONDS["case 1"], "b": BONDS["case 2"][:, :100]}, SIZES)
