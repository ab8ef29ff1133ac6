"""Alternation without an origin: which bond is odd? A chain alone does not say, and many chains need not agree.

A chain whose first bond may be the long or the short one shows +δ or −δ, with equal chances. One chain then tells δ as
well as before, for the ROPE is symmetric; R chains, each with its own unknown parity, tell it only as far as each
can be told from its mirror image. The likelihood of chain r with n_r differences is ½ N(δ, σ) + ½ N(−δ, σ), product
over its data.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from unitcell.errors import InputError

POINTS = (241, 61)  # of δ and σ


@dataclass(frozen=True)
class OriginPosterior:
    """Posterior of δ ≥ 0 and the parity of every chain.

    Parameters
    ----------
    delta, density : ndarray, shape (241,)
        Grid of the size of the alternation, and its marginal density.
    first_is_odd : ndarray, shape (chains,)
        Probability that a chain starts with the same bond as the first chain.
    """

    delta: np.ndarray
    density: np.ndarray
    first_is_odd: np.ndarray

    def moments(self):
        """Mean and standard deviation of δ."""
        mean = np.trapezoid(self.delta * self.density, self.delta)
        return mean, np.sqrt(np.trapezoid((self.delta - mean) ** 2 * self.density, self.delta))

    def probability_above(self, edge):
        """P(δ > edge)."""
        mass = np.diff(self.delta) * (self.density[1:] + self.density[:-1]) / 2
        cumulative = np.concatenate([[0], np.cumsum(mass)])
        return 1 - float(np.interp(edge, self.delta, cumulative))


def origin_posterior(n, mean, squares, prior, *, known=False):
    """Size of an alternation from many chains of unknown parity, on a grid of (δ, σ).

    Parameters
    ----------
    n, mean, squares : array_like, shape (chains,)
        Differences of each chain: their number, mean, sum of squares about the mean.
    prior : unitcell.symmetry.chain_posterior.LaplaceUniform
        Centred at 0, so that δ = |μ3| is exponential with its width; σ is uniform.
    known : bool
        Whether all chains start with the same bond (then δ is still |μ3|, of one sign for all).

    Returns
    -------
    OriginPosterior
    """
    n, mean, squares = (np.atleast_1d(np.asarray(value, float)) for value in (n, mean, squares))
    if not (n.shape == mean.shape == squares.shape and n.min() >= 1 and n.sum() >= 3):
        raise InputError("Chains of unknown origin: give number, mean and sum of squares of each, three data or more.")
    delta, sigma = _grid(n, mean, squares, prior)
    common = -n.sum() * np.log(sigma) - squares.sum() / (2 * sigma**2) - delta / prior.width
    signs = np.array([1.0, -1.0])[:, None, None, None]
    either = -n[:, None, None] * (mean[:, None, None] - signs * delta) ** 2 / (2 * sigma**2)  # (2, chains, δ, σ)
    if known:
        both = either.sum(1)  # (2, δ, σ): one sign for all
        log_p = common + np.logaddexp(both[0], both[1])
        share = np.ones(len(n))
    else:
        log_p = common + np.logaddexp(either[0], either[1]).sum(0)
    weight = np.exp(log_p - log_p.max()) * np.gradient(sigma[0])
    if not known:
        plus = special.expit(either[0] - either[1])  # P(sign + | δ, σ), (chains, δ, σ)
        same = plus[0] * plus + (1 - plus[0]) * (1 - plus)
        same[0] = 1.0
        mass = weight * np.gradient(delta[:, 0])[:, None]
        share = (same * mass).sum((1, 2)) / mass.sum()
    density = weight.sum(1)
    return OriginPosterior(delta[:, 0], density / np.trapezoid(density, delta[:, 0]), share)


def _grid(n, mean, squares, prior):
    """δ (241, 1) and σ (1, 61) that cover the posterior whatever the parities are."""
    total = n.sum()
    spread = np.sqrt((squares.sum() + (n * mean**2).sum()) / total)  # of all data about zero: σ cannot be much larger
    within = np.sqrt(squares.sum() / max(total - len(n), 1)) if squares.sum() else spread
    top = np.sqrt((n * mean**2).sum() / total) + 7 * within / np.sqrt(total) + within / np.sqrt(n.mean())
    low = within * (1 - min(0.8, 5 / np.sqrt(2 * total)))
    high = min(spread * (1 + 6 / np.sqrt(2 * total)), float(prior.sd_max))
    delta = np.linspace(0, top, POINTS[0])[:, None]
    return delta, np.linspace(min(low, 0.9 * high), high, POINTS[1])[None]


def simulated_rows(differences, sd, *, chains, cells, prior, edge, rng):
    """Many short chains, inferred with their parities known and unknown, for several true differences.

    Parameters
    ----------
    differences : sequence of float
        True sizes of the alternation.
    sd : float
        Scatter of one difference.
    chains, cells : int
        Number of chains, and differences in each.
    prior : unitcell.symmetry.chain_posterior.LaplaceUniform
    edge : float
        Upper edge of the ROPE.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        One row per difference: mean, sd and P(outside ROPE) of δ for known and unknown parity; parities_right, the
        share of chains whose parity relative to the first is told rightly.
    """
    rows = []
    for difference in differences:
        sign = rng.choice([-1, 1], chains)
        noise = rng.normal(0, sd, (chains, cells))
        row = {"true difference": difference}
        for label, signs in (("known", np.ones(chains)), ("unknown", sign)):
            values = signs[:, None] * difference + noise
            mean = values.mean(1)
            squares = ((values - mean[:, None]) ** 2).sum(1)
            belief = origin_posterior(np.full(chains, cells), mean, squares, prior, known=label == "known")
            centre, spread = belief.moments()
            row |= {f"mean, {label}": centre, f"sd, {label}": spread}
            row[f"P(outside ROPE), {label}"] = belief.probability_above(edge)
        row["parities right"] = ((belief.first_is_odd > 0.5) == (sign == sign[0])).mean()
        rows.append(row)
    return pd.DataFrame(rows)
