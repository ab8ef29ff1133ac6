"""Symmetry by decision rule: the highest-density interval (HDI) of a difference against the region of
practical equivalence (ROPE), with the closed forms that check it.

Kalinin et al. 2020, section 1 and Fig. 1e. Lengths are in units of the mean bond length.
"""

import numpy as np
import pandas as pd
from scipy import stats

from unitcell.errors import InputError


def decide(hdi_lo, hdi_hi, rope):
    """HDI inside the ROPE: 'simple chain'; outside: 'diatomic'; across an edge: 'undecided'."""
    if rope[0] <= hdi_lo and hdi_hi <= rope[1]:
        return "simple chain"
    return "diatomic" if hdi_lo > rope[1] or hdi_hi < rope[0] else "undecided"


def decision_table(beliefs, rope, hdi_prob=0.94):
    """What may be said of each chain after every unit cell.

    Parameters
    ----------
    beliefs : dict of str to unitcell.symmetry.chain_posterior.GridPosterior
        Posteriors of the difference μ3, by chain.
    rope : sequence of two float
        Region of practical equivalence of the two bonds, low and high [mean bond length].
    hdi_prob : float
        Probability inside the highest-density interval.

    Returns
    -------
    pandas.DataFrame
        One row per chain and n: case, n; mean, sd, hdi_lo, hdi_hi of μ3; p_in_rope; decision.

    Raises
    ------
    InputError
        ROPE reversed or not two numbers; hdi_prob outside (0, 1).
    """
    check_rule(rope, hdi_prob)
    return pd.concat([_decisions(name, belief, rope, hdi_prob) for name, belief in beliefs.items()], ignore_index=True)


def _decisions(name, belief, rope, hdi_prob):
    """Rows of one chain."""
    mean, sd, _, _ = belief.moments()
    low, high = belief.hdi(hdi_prob)
    rows = {"case": name, "n": belief.n.astype(int), "mean": mean, "sd": sd, "hdi_lo": low, "hdi_hi": high}
    rows["p_in_rope"] = belief.probability_in(rope)
    rows["decision"] = [decide(*interval, rope) for interval in zip(low, high, strict=True)]
    return pd.DataFrame(rows)


def decided_at(table, case):
    """Number of unit cells from which the decision on `case` no longer changes; NaN while undecided."""
    rows = table[table.case == case].sort_values("n")
    if rows.decision.iloc[-1] == "undecided":
        return np.nan
    return float(rows.n[rows.decision.eq(rows.decision.iloc[-1])[::-1].cummin()[::-1]].iloc[0])


def hdi_half_width(sd, n, hdi_prob=0.94):
    """Half-width of the HDI of μ3 for known scatter sd of each bond and n unit cells: z √2 sd/√n."""
    return stats.norm.ppf((1 + hdi_prob) / 2) * np.sqrt(2) * sd / np.sqrt(n)


def cells_to_decide(difference, sd, rope, hdi_prob=0.94):
    """Unit cells after which the expected HDI just clears the ROPE's nearest edge, from outside or inside.

    The asymptote of many cells, (z √2 sd/margin)²: infinite for a difference on an edge. Arrays broadcast.
    """
    margin = np.minimum(np.abs(difference - rope[1]), np.abs(difference - rope[0]))
    width = np.broadcast_to(hdi_half_width(sd, 1, hdi_prob), np.shape(margin))
    return np.divide(width, margin, out=np.full(np.shape(margin), np.inf), where=margin > 1e-9) ** 2


def student_posterior(differences):
    """Closed-form posterior of μ3 under flat priors on μ3 and σ3: Student's t with n − 2 degrees of freedom.

    Integrating σ^-n exp(−S/2σ²), S = Σ(d − μ)², over σ leaves S^(−(n−1)/2).

    Parameters
    ----------
    differences : array_like, shape (n,)
        Paired differences of bond lengths, n ≥ 5 (below, the standard deviation is infinite).

    Returns
    -------
    scipy.stats frozen distribution
    """
    differences = np.asarray(differences, float)
    n = len(differences)
    scale = np.sqrt(np.sum((differences - differences.mean()) ** 2) / (n * (n - 2)))
    return stats.t(df=n - 2, loc=differences.mean(), scale=scale)


def decision_rates(chain, sample_sizes, rope, hdi_prob, *, replications, rng):
    """How often each decision is taken when the whole experiment is repeated, by `student_posterior`.

    Parameters
    ----------
    chain : unitcell.symmetry.chain.Chain
    sample_sizes : sequence of int
        Increasing numbers of unit cells, each ≥ 5.
    rope, hdi_prob
        As in `decision_table`.
    replications : int
        Number of simulated chains.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        Over n: fractions `simple chain`, `undecided`, `diatomic`, and `decided once`: at this n or a smaller one.
    """
    check_rule(rope, hdi_prob)
    n = np.asarray(sample_sizes)
    differences = rng.normal(chain.difference, np.sqrt(2) * chain.sd, (replications, n[-1]))
    mean = differences.cumsum(axis=1)[:, n - 1] / n  # (replications, sizes)
    squares = (differences**2).cumsum(axis=1)[:, n - 1] - n * mean**2
    half = stats.t.ppf((1 + hdi_prob) / 2, n - 2) * np.sqrt(squares / (n * (n - 2)))
    simple = (mean - half >= rope[0]) & (mean + half <= rope[1])
    diatomic = (mean - half > rope[1]) | (mean + half < rope[0])
    fractions = {"simple chain": simple, "undecided": ~(simple | diatomic), "diatomic": diatomic}
    fractions["decided once"] = np.logical_or.accumulate(simple | diatomic, axis=1)
    return pd.DataFrame({name: taken.mean(axis=0) for name, taken in fractions.items()}, index=pd.Index(n, name="n"))


def check_rule(rope, hdi_prob):
    """Raise InputError where the ROPE is reversed or not two numbers, or hdi_prob is outside (0, 1)."""
    if len(rope) != 2 or not rope[0] < rope[1]:  # NaN is not less than anything
        raise InputError(f"rope is {rope!r}: give a list of its lower and then its upper edge, such as [-0.1, 0.1].")
    if not 0 < hdi_prob < 1:
        raise InputError(f"hdi_prob is {hdi_prob}: give a probability between 0 and 1, such as 0.94.")
