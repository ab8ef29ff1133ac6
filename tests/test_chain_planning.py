"""Rules of decision, the planner, unknown origins: against closed forms and direct computation."""

import numpy as np
import pytest
from unitcell.errors import InputError
from unitcell.symmetry.chain_posterior import LaplaceUniform, moment_posterior, running_moments
from unitcell.symmetry.decision_planning import error_rates, expected_observations, first_decisions, observations_map
from unitcell.symmetry.unknown_origin import origin_posterior, simulated_rows

ROPE = [-0.1, 0.1]
KNOWN = LaplaceUniform(0.0, 0.2, 1.0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def moments(values):
    mean = values.mean(1)
    return np.full(len(values), values.shape[1]), mean, ((values - mean[:, None]) ** 2).sum(1)


def test_only_hdi_and_rope_stands_a_difference_of_no_consequence(rng):
    table = error_rates([0.0, 0.05, 0.15], 0.1414, [20, 500], ROPE, KNOWN, experiments=400, rng=rng)
    rates = table.set_index(["difference", "rule", "n"])
    assert rates.loc[(0.05, "p-test", 500), "wrong"] > 0.95
    assert rates.loc[(0.05, "Bayes factor", 500), "wrong"] > 0.95
    assert rates.loc[(0.05, "HDI and ROPE", 500), "wrong"] == 0
    assert rates.loc[(0.0, "p-test", 500), "wrong"] == pytest.approx(0.06, abs=0.035)  # its own error rate, 1 − 0.94
    assert rates.loc[(0.15, "HDI and ROPE", 500), "undecided"] == 0
    assert (table.undecided[table.rule == "p-test"] == 0).all()
    assert table[["diatomic", "simple", "undecided"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_planner_has_its_asymptote(rng):
    plan = observations_map([0.0, 0.6, 1.0, 1.3], [0.3, 1.0], longest=1000, experiments=400, rng=rng)
    near = plan.sel(difference=[0.6, 1.3], rope=0.3)  # outside, by 0.3 and 1.0
    assert near.asymptote.values == pytest.approx((1.8808 / np.array([0.3, 1.0])) ** 2, rel=1e-3)
    assert float(near.half[0]) == pytest.approx(float(near.asymptote[0]), rel=0.2)
    inside = plan.sel(difference=0.6, rope=1.0)
    assert float(inside.half) == pytest.approx(float(inside.asymptote), rel=0.25)
    edge = plan.sel(difference=1.0, rope=1.0)
    assert np.isinf(edge.asymptote)
    assert np.isnan(edge["first"])
    assert np.isnan(edge.half)
    assert float(plan["first"].sel(difference=1.3, rope=0.3)) < 10


def test_first_decisions_are_those_of_the_whole_sequence(rng):
    values = rng.normal(0.2, 0.14, (20, 60))
    n, mean, squares = running_moments(values)
    for row, first in enumerate(first_decisions(values, ROPE, KNOWN)):
        low, high = moment_posterior(n, mean[row], squares[row], KNOWN).hdi(0.94)
        decided = (low > 0.1) | (high < -0.1) | ((low >= -0.1) & (high <= 0.1))
        assert first == (decided.argmax() + 1 if decided.any() else 60)


def test_more_scatter_needs_more_observations_by_its_square(rng):
    few, many = (
        expected_observations(0.0, sd, [-0.03, 0.03], KNOWN, longest=300, experiments=60, rng=rng).mean()
        for sd in (0.05, 0.1)
    )
    assert few > 8
    assert many / few == pytest.approx(4, rel=0.25)


def test_unknown_parity_by_direct_enumeration(rng):
    """Three chains: all eight assignments of signs, summed."""
    values = np.array([1, -1, 1])[:, None] * 0.15 + rng.normal(0, 0.14, (3, 4))
    belief = origin_posterior(*moments(values), KNOWN)
    delta, sigma = np.linspace(0, 1, 801)[:, None], np.linspace(0.02, 1, 600)[None]
    total = np.zeros((801, 600))
    for signs in np.stack(np.meshgrid(*[[1, -1]] * 3), -1).reshape(-1, 3):
        squares = sum(((v - s * delta[..., None]) ** 2).sum(-1) for v, s in zip(values, signs, strict=True))
        total += np.exp(-12 * np.log(sigma) - squares / (2 * sigma**2) - delta / 0.2)
    density = total.sum(1)
    mean = (delta[:, 0] * density).sum() / density.sum()
    sd = np.sqrt(((delta[:, 0] - mean) ** 2 * density).sum() / density.sum())
    assert belief.moments() == pytest.approx((mean, sd), rel=0.03)
    above = density[delta[:, 0] > 0.1].sum() / density.sum()
    assert belief.probability_above(0.1) == pytest.approx(above, abs=0.02)


def test_parities_are_told_where_the_alternation_is_strong(rng):
    rows = simulated_rows([0.0, 0.4], 0.14, chains=20, cells=4, prior=KNOWN, edge=0.1, rng=rng).set_index(
        "true difference"
    )
    assert rows.loc[0.4, "parities right"] == 1
    assert rows.loc[0.4, "mean, unknown"] == pytest.approx(0.4, abs=4 * rows.loc[0.4, "sd, unknown"])
    assert rows.loc[0.4, "sd, unknown"] == pytest.approx(rows.loc[0.4, "sd, known"], rel=0.2)
    assert rows.loc[0.0, "P(outside ROPE), unknown"] < 0.2
    assert rows.loc[0.0, "sd, unknown"] > rows.loc[0.0, "sd, known"]  # what not knowing costs


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda rng: observations_map([0.1], [0.0], rng=rng), "narrowest ROPE 0"),
        (lambda rng: observations_map([0.1], [0.1], longest=4, rng=rng), "longest=4 "),
        (lambda rng: error_rates([0], 1, [10], [0.1, -0.1], KNOWN, experiments=2, rng=rng), "rope is"),
        (lambda rng: expected_observations(0, 1, [1.0, 0.0], KNOWN, rng=rng), "rope is"),
        (lambda rng: origin_posterior([1], [0.0], [0.0], KNOWN), "three data or more"),
    ],
)
def test_bad_plans_are_refused(call, words, rng):
    with pytest.raises(InputError, match=words) as caught:
        call(rng)
    assert str(caught.value).endswith(".")
