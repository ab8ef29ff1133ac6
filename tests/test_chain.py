"""The diatomic chain: exact posteriors against closed forms and NUTS, decisions against closed forms, bad input."""

import arviz as az
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from unitcell.errors import InputError
from unitcell.symmetry.chain import (
    CASE_1,
    CASE_2,
    Chain,
    exact_posterior,
    lattice_priors,
    priors,
    sample_posterior,
    save_posterior,
    with_difference,
)
from unitcell.symmetry.chain_checks import calibration_ranks, prior_sensitivity, sampler_agreement
from unitcell.symmetry.chain_posterior import (
    LaplaceUniform,
    NormalInverseGamma,
    moment_posterior,
    running_moments,
    sequential_posterior,
)
from unitcell.symmetry.rope import (
    cells_to_decide,
    decide,
    decided_at,
    decision_rates,
    decision_table,
    hdi_half_width,
    student_posterior,
)

ROPE = [-0.1, 0.1]
SIZES = [10, 50, 200]
BONDS = {
    "case 1": CASE_1.simulate(200, np.random.default_rng(3)),
    "case 2": CASE_2.simulate(200, np.random.default_rng(4)),
}
KNOWN = LaplaceUniform(0.0, 0.2, 1.0)


@pytest.fixture(scope="module")
def posterior():
    return sample_posterior(BONDS, SIZES, draws=1000, seed=5)


@pytest.fixture(scope="module")
def exact():
    return {name: exact_posterior(bonds, name) for name, bonds in BONDS.items()}


@pytest.fixture(scope="module")
def table(exact):
    return decision_table({name: beliefs["difference"] for name, beliefs in exact.items()}, ROPE)


def total_variation(belief, row, cdf):
    """Of a grid posterior of μ against a distribution function, over the grid's own cells."""
    return 0.5 * np.abs(np.diff(belief.mu_cdf[row]) - np.diff(cdf(belief.mu[row]))).sum()


def test_grid_is_the_closed_form_of_the_conjugate_prior():
    values = np.random.default_rng(0).normal(0.1, 0.14, 500)
    prior = NormalInverseGamma(centre=0.05, strength=1.5, shape=2.0, scale=0.02)
    belief = sequential_posterior(values, prior)
    for row in (*range(20), 49, 199, 499):
        known = prior.posterior_mean(belief.n[row], belief.average[row], belief.squares[row])
        assert total_variation(belief, row, known.cdf) < 1e-3
    rows = [4, 49, 499]
    known = [prior.posterior_mean(belief.n[row], belief.average[row], belief.squares[row]) for row in rows]
    mean, sd, _, _ = (value[rows] for value in belief.moments())
    assert mean == pytest.approx([d.mean() for d in known], abs=1e-5)
    assert sd == pytest.approx([d.std() for d in known], rel=2e-3)
    low, high = (edge[rows] for edge in belief.hdi(0.94))
    assert low == pytest.approx([d.ppf(0.03) for d in known], abs=2e-3)  # symmetric, so the HDI is equal-tailed
    assert high == pytest.approx([d.ppf(0.97) for d in known], abs=2e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 100])
def test_grid_is_the_integral_over_sigma_of_the_papers_prior(n):
    """σ integrates to an incomplete gamma function: p(μ|D) ∝ Laplace(μ) S^-(n-1)/2 Q((n-1)/2, S/2M²)."""
    values = np.random.default_rng(1).normal(0.1, 0.14, n)
    prior = LaplaceUniform(0.07, 0.2, 1.0)
    belief = sequential_posterior(values, prior)
    mean, squares = values.mean(), values.var() * n
    mu = np.unique(np.concatenate([mean + sign * np.geomspace(1e-9, 8, 40_000) for sign in (1, -1)]))
    around = (squares if n > 1 else 0.0) + n * (mu - mean) ** 2
    shape = (n - 1) / 2
    of_sigma = special.exp1(around / 2) if n == 1 else around**-shape * special.gammaincc(shape, around / 2)
    density = np.exp(-np.abs(mu - 0.07) / 0.2) * of_sigma / of_sigma.max()
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(mu))])
    cdf /= cdf[-1]
    assert total_variation(belief, -1, lambda x: np.interp(x, mu, cdf)) < 1e-3
    assert belief.probability_in(ROPE)[-1] == pytest.approx(np.diff(np.interp(ROPE, mu, cdf))[0], abs=1e-3)
    low, high = (edge[-1] for edge in belief.hdi(0.94))
    below = np.linspace(0, 0.06, 6001)
    width = np.interp(below + 0.94, cdf, mu) - np.interp(below, cdf, mu)
    assert high - low == pytest.approx(width.min(), rel=5e-3)
    assert np.diff(np.interp([low, high], mu, cdf))[0] == pytest.approx(0.94, abs=2e-3)


def test_savage_dickey_ratio_is_that_of_the_evidences():
    """Against p(D | μ = 0) by direct integration over σ."""
    values = np.random.default_rng(2).normal(0.05, 0.14, 30)
    belief = sequential_posterior(values, KNOWN)
    sigma = np.linspace(1e-3, 1, 20_000)
    null = np.exp(stats.norm.logpdf(values[:, None], 0, sigma).sum(0))
    expected = belief.log_evidence[-1] - np.log(np.trapezoid(null, sigma))
    assert belief.log_bayes_factor()[-1] == pytest.approx(expected, abs=2e-3)


def test_running_moments_are_those_of_every_beginning():
    values = 1e6 + np.random.default_rng(0).normal(0, 1e-2, (3, 40))
    n, mean, squares = running_moments(values)
    assert n[-1] == 40
    assert mean[:, 19] == pytest.approx(values[:, :20].mean(1), rel=1e-14)
    assert squares[:, 19] == pytest.approx(20 * values[:, :20].var(1), rel=1e-6)


def test_a_prior_for_each_posterior():
    priors_of = LaplaceUniform(np.array([0.0, 0.5]), np.array([0.2, 0.01]), np.array([1.0, 2.0]))
    both = moment_posterior([12, 12], [0.1, 0.1], [0.2, 0.2], priors_of)
    alone = moment_posterior([12], [0.1], [0.2], LaplaceUniform(0.5, 0.01, 2.0))
    assert both.mu[1] == pytest.approx(alone.mu[0])
    assert both.mu_density[1] == pytest.approx(alone.mu_density[0])
    assert both.moments()[0][1] > both.moments()[0][0]  # drawn towards its narrow prior at 0.5


def test_nuts_agrees_with_the_grid_in_both_cases(posterior, exact):
    agreement = sampler_agreement(posterior, exact)
    assert len(agreement) == 2 * 3 * 3 * 4
    # 3 standard errors for one number; for the largest of 72 the same chance, 2·10⁻³, is at 4.2.
    assert agreement.z.abs().max() < 4.2
    assert (agreement.z.abs() <= 3).mean() >= 0.97
    assert 0.75 < agreement.z.std() < 1.25  # neither biased nor with errors that are too large


def test_sampler_converged(posterior):
    assert float(az.rhat(posterior.posterior).to_array().max()) <= 1.01
    assert int(posterior.sample_stats["diverging"].sum()) == 0


def test_known_lattice_sets_the_priors():
    belief = exact_posterior(BONDS["case 2"], lattice=1.0)["difference"]
    assert belief.moments()[0][0] == pytest.approx(
        sequential_posterior(with_difference(BONDS["case 2"])[2, :1], KNOWN).moments()[0][0]
    )
    with pytest.raises(InputError, match="give a positive length"):
        sample_posterior(BONDS, SIZES, lattice=-1.0)
    assert lattice_priors(3.9)["width"].values == pytest.approx([0.78] * 3)
    assert lattice_priors(3.9)["centre"].values == pytest.approx([3.9, 3.9, 0.0])


@pytest.mark.parametrize("n", [5, 20])
def test_truths_from_the_prior_are_calibrated(n):
    ranks = calibration_ranks(KNOWN, n, experiments=2000, rng=np.random.default_rng(n))
    assert 0.92 <= ranks.covered.mean() <= 0.96
    assert stats.kstest(ranks.mu_rank, "uniform").pvalue > 0.01
    assert stats.kstest(ranks.sigma_rank, "uniform").pvalue > 0.01


def test_calibration_would_notice_a_wrong_posterior():
    """The same ranks against a likelihood that counts every datum twice are not uniform."""
    rng = np.random.default_rng(0)
    mu, sigma = rng.laplace(0, 0.2, 2000), rng.uniform(0, 1, 2000)
    values = rng.normal(mu[:, None], sigma[:, None], (2000, 10))
    wrong = moment_posterior(20, values.mean(1), 20 * values.var(1), KNOWN)
    assert stats.kstest(wrong.probability_below(mu), "uniform").pvalue < 1e-4


def test_ten_observations_used_twice_narrow_the_interval():
    trials = prior_sensitivity(CASE_2, [13, 200], experiments=400, rng=np.random.default_rng(0))
    width = trials.pivot(index="n", columns="prior", values="half_width")
    assert width.loc[13, "first ten, used twice"] < 0.95 * width.loc[13, "flat"]
    assert width.loc[200].to_numpy() == pytest.approx(0.266 / np.sqrt(200), rel=0.06)
    assert trials.coverage.between(0.9, 1.0).all()


def test_hdi_has_its_analytic_width(table):
    rows = table[table.n == 200]
    spread = [with_difference(bonds)[2].std() / np.sqrt(2) for bonds in BONDS.values()]
    expected = [hdi_half_width(sd, 200) for sd in spread]
    assert ((rows.hdi_hi - rows.hdi_lo) / 2).tolist() == pytest.approx(expected, rel=0.03)


def test_paper_cases_are_decided_as_they_should(table):
    assert (table[(table.case == "case 1") & (table.n >= 3)].decision == "diatomic").all()
    assert table[(table.case == "case 2") & (table.n == 200)].decision.item() == "undecided"
    assert list(table.columns) == ["case", "n", "mean", "sd", "hdi_lo", "hdi_hi", "p_in_rope", "decision"]
    assert len(table) == 2 * 200


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


def test_student_posterior_is_the_limit_of_wide_priors():
    values = with_difference(BONDS["case 2"])[2, :20]
    belief = sequential_posterior(values, LaplaceUniform(0.0, 1e3, 10.0))
    assert total_variation(belief, -1, student_posterior(values).cdf) < 1e-3


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
    assert cells_to_decide(0.15, 0.1, ROPE) == pytest.approx((0.266 / 0.05) ** 2, rel=5e-3)
    assert cells_to_decide(-0.15, 0.1, ROPE) == cells_to_decide(0.15, 0.1, ROPE)
    assert cells_to_decide(0.04, 0.1, ROPE) == pytest.approx((0.266 / 0.06) ** 2, rel=5e-3)
    assert np.isinf(cells_to_decide(CASE_2.difference, CASE_2.sd, ROPE))


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


@pytest.mark.parametrize("infer", [exact_posterior, lambda bonds, name: sample_posterior({name: bonds}, SIZES)])
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
def test_bad_bond_lengths_are_refused_in_one_sentence(infer, change, words):
    with pytest.raises(InputError, match=words) as caught:
        infer(change(BONDS["case 2"].copy()), "my chain")
    message = str(caught.value)
    assert "my chain" in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "prior", "words"),
    [
        ([], KNOWN, "shape"),
        ([1.0, np.nan], KNOWN, "1 NaN"),
        ([2.0, 2.0, 2.0], KNOWN, "All 3 observations are 2"),
        ([1.0, 2.0], LaplaceUniform(0.0, 0.2, -1.0), "no width"),
    ],
)
def test_bad_observations_are_refused(values, prior, words):
    with pytest.raises(InputError, match=words):
        sequential_posterior(values, prior)


@pytest.mark.parametrize("spacing", [0.0, -3.9, np.nan])
def test_a_lattice_parameter_that_is_none_is_refused(spacing):
    with pytest.raises(InputError, match="give a positive length"):
        exact_posterior(BONDS["case 2"], lattice=spacing)


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
def test_bad_decision_rule_is_refused(exact, rope, hdi_prob, words):
    with pytest.raises(InputError, match=words):
        decision_table({"case 2": exact["case 2"]["difference"]}, rope, hdi_prob)


def test_chains_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="same number"):
        sample_posterior({"a": BONDS["case 1"], "b": BONDS["case 2"][:, :100]}, SIZES)
