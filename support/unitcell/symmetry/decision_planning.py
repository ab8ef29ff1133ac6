"""Which rule decides best, and how many observations a decision takes: p-test, Bayes factor, HDI against ROPE.

Kalinin et al. 2020, section 1, who argue against the first. Differences, scatter and ROPE in one unit of length.
"""

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from unitcell.errors import InputError
from unitcell.symmetry.chain_posterior import moment_posterior, running_moments
from unitcell.symmetry.rope import cells_to_decide, check_rule

FIRST_LOOK = 5  # observations before which nobody decides
BLOCK = 8  # observations looked at together: who decides early costs no more


def error_rates(differences, sd, sizes, rope, prior, *, experiments, rng, hdi_prob=0.94, bayes_factor=10.0):
    """How often three rules err, and how often they answer, when an experiment of n cells is repeated.

    The p-test rejects a = b where p < 1 − hdi_prob, and is then read as people read it: not rejected, so simple. The
    Bayes factor (Savage-Dickey) answers where it exceeds `bayes_factor` either way. HDI against ROPE as in `rope`. A
    chain whose true difference lies in the ROPE is simple for all practical purposes; calling it diatomic is an error.

    Parameters
    ----------
    differences : sequence of float
        True differences, even − odd bond.
    sd : float
        Scatter of one paired difference.
    sizes : sequence of int
        Numbers of unit cells.
    rope : sequence of two float
    prior : unitcell.symmetry.chain_posterior.LaplaceUniform
        Of the difference, not taken from the data.
    experiments : int
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        One row per difference, rule and n: diatomic, simple, undecided and wrong, as shares.
    """
    check_rule(rope, hdi_prob)
    rows = []
    for difference in differences:
        values = rng.normal(difference, sd, (experiments, max(sizes)))
        n, mean, squares = running_moments(values)
        for size in sizes:
            moments = n[size - 1], mean[:, size - 1], squares[:, size - 1]
            for rule, (diatomic, simple) in _answers(moments, rope, prior, hdi_prob, bayes_factor).items():
                wrong = simple if difference > rope[1] or difference < rope[0] else diatomic
                shares = diatomic.mean(), simple.mean(), 1 - (diatomic | simple).mean(), wrong.mean()
                rows.append((difference, rule, size, *shares))
    return pd.DataFrame(rows, columns=["difference", "rule", "n", "diatomic", "simple", "undecided", "wrong"])


def _answers(moments, rope, prior, hdi_prob, bayes_factor):
    """Whether each rule says diatomic, and whether simple, for each experiment."""
    n, mean, squares = moments
    belief = moment_posterior(*moments, prior)
    low, high = belief.hdi(hdi_prob)
    p = 2 * stats.t.sf(np.abs(mean) / np.sqrt(squares / (n * (n - 1))), n - 1)
    log_bf = belief.log_bayes_factor()
    return {
        "p-test": (p < 1 - hdi_prob, p >= 1 - hdi_prob),
        "Bayes factor": (log_bf > np.log(bayes_factor), log_bf < -np.log(bayes_factor)),
        "HDI and ROPE": ((low > rope[1]) | (high < rope[0]), (low >= rope[0]) & (high <= rope[1])),
    }


def observations_map(differences, half_widths, *, longest=2000, experiments=200, rng, hdi_prob=0.94):
    """Observations needed to decide, over the true difference and the ROPE's half-width, both in units of the scatter.

    One set of simulated experiments serves the whole map. The interval is that of `rope.student_posterior`.

    Parameters
    ----------
    differences, half_widths : array_like, shapes (d,) and (r,)
    longest : int
        Observations after which a simulated experiment is given up.
    experiments : int
    rng : numpy.random.Generator

    Returns
    -------
    xarray.Dataset over (difference, rope)
        `first`, the expected number at the first decision when one looks after every observation from the fifth (NaN
        where more than a twentieth is never decided); `half`, the number at which half of the experiments are decided
        (NaN above `longest`); `asymptote`, (z/margin)², at which the expected interval clears the ROPE.
    """
    differences, half_widths = np.asarray(differences, float), np.asarray(half_widths, float)
    if longest <= FIRST_LOOK or half_widths.min() <= 0:
        raise InputError(
            f"longest={longest} and the narrowest ROPE {half_widths.min():g}: give more than {FIRST_LOOK}, and 0."
        )
    noise, reach = _student_paths(longest, experiments, rng, hdi_prob)
    looks = np.arange(FIRST_LOOK, longest + 1)
    first = np.full((len(differences), len(half_widths)), np.nan)
    half = first.copy()
    for row, difference in enumerate(differences):
        centre = np.abs(difference + noise)  # (experiments, looks)
        for column, edge in enumerate(half_widths):
            decided = (centre - reach > edge) | (centre + reach <= edge)
            if decided.any(1).mean() > 0.95:
                first[row, column] = np.where(decided.any(1), looks[decided.argmax(1)], longest).mean()
            most = decided.mean(0) >= 0.5
            half[row, column] = looks[most.argmax()] if most.any() else np.nan
    edges = (-half_widths[None], half_widths[None])
    asymptote = cells_to_decide(differences[:, None], np.sqrt(0.5), edges, hdi_prob)
    fields = {"first": first, "half": half, "asymptote": asymptote}
    axes = {"difference": differences, "rope": half_widths}
    return xr.Dataset({k: (("difference", "rope"), v, {"units": "observations"}) for k, v in fields.items()}, axes)


def _student_paths(longest, experiments, rng, hdi_prob):
    """Running mean of unit noise about its truth, and half-width of its interval: each (experiments, looks)."""
    n, mean, squares = running_moments(rng.normal(size=(experiments, longest)))
    n, mean, squares = (value[..., FIRST_LOOK - 1 :] for value in (n, mean, squares))
    return mean, stats.t.ppf((1 + hdi_prob) / 2, n - 2) * np.sqrt(squares / (n * (n - 2)))


def expected_observations(difference, sd, rope, prior, *, longest=200, experiments=100, rng, hdi_prob=0.94):
    """Observations at the first decision of repeated experiments, by the exact posterior: the planner for few data.

    Parameters
    ----------
    difference, sd : float
        True difference and scatter of an observation.
    rope : sequence of two float
    prior : unitcell.symmetry.chain_posterior.LaplaceUniform
    longest : int
        An experiment not decided by then counts as `longest`.

    Returns
    -------
    ndarray of int, shape (experiments,)
    """
    check_rule(rope, hdi_prob)
    return first_decisions(rng.normal(difference, sd, (experiments, longest)), rope, prior, hdi_prob)


def first_decisions(values, rope, prior, hdi_prob=0.94):
    """Observations at the first decision, HDI wholly inside or outside the ROPE; N where there is none.

    Parameters
    ----------
    values : ndarray, shape (experiments, N)

    Returns
    -------
    ndarray of int, shape (experiments,)
    """
    first = np.full(len(values), values.shape[1])
    waiting = np.arange(len(values))
    n, mean, squares = running_moments(values)
    for start in range(0, values.shape[1], BLOCK):
        looks = slice(start, start + BLOCK)
        decided = _decided(n[looks], mean[waiting, looks], squares[waiting, looks], rope, prior, hdi_prob)
        done = decided.any(1)
        first[waiting[done]] = start + decided[done].argmax(1) + 1
        waiting = waiting[~done]
        if not len(waiting):
            break
    return first


def _decided(n, mean, squares, rope, prior, hdi_prob):
    """Whether the HDI lies wholly inside or outside the ROPE, (experiments, looks)."""
    belief = moment_posterior(np.broadcast_to(n, mean.shape).ravel(), mean.ravel(), squares.ravel(), prior)
    low, high = (edge.reshape(mean.shape) for edge in belief.hdi(hdi_prob))
    return (low > rope[1]) | (high < rope[0]) | ((low >= rope[0]) & (high <= rope[1]))
