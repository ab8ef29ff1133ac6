"""Square, rectangular or doubled: the chain's model for a two-dimensional lattice, with rows that differ (Fig. 1a).

Five contrasts are zero in a square lattice: the difference of its two spacings, and the alternation of bonds along x
and along y, each parallel and perpendicular. Every scan row r has its own value of contrast c, θ_cr ~ N(μ_c, τ_c),
for its columns share its jitter; a datum is N(θ_cr, σ_c). θ_cr is integrated out: a row's mean is N(μ_c, √(τ_c² +
σ_c²/m)), and its sum of squares about it σ_c² χ² with m − 1 degrees of freedom. Kalinin et al. 2020, section 1;
lengths in mean bond lengths.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from unitcell.errors import InputError
from unitcell.symmetry.lattice_symmetry import COMPONENTS, alternations
from unitcell.symmetry.rope import check_rule

SPACING = "spacing x − y"
CONTRASTS = (
    SPACING,
    *(f"{direction}, {component}" for direction, component in product(("along x", "along y"), COMPONENTS)),
)


def row_moments(grid):
    """Each contrast of each scan row: contrast, m (data), mean, squares (about the mean), as a table.

    Parameters
    ----------
    grid : unitcell.symmetry.column_grid.ColumnGrid

    Raises
    ------
    InputError
        Fewer than four columns or six rows.
    """
    if grid.places.shape[0] < 6 or grid.places.shape[1] < 4:
        rows, columns = grid.places.shape[:2]
        raise InputError(f"The lattice has {rows} rows of {columns} columns: the model of its rows needs six of four.")
    values = {SPACING: _spacings(grid)}
    for name in CONTRASTS[1:]:
        direction, component = name.split(", ")
        data = alternations(grid, direction, component)
        values[name] = data if direction == "along x" else data.T  # a scan row's data in a row
    rows = [_moments(name, row[np.isfinite(row)]) for name, data in values.items() for row in data]
    table = pd.DataFrame([row for row in rows if row], columns=["contrast", "m", "mean", "squares"])
    return table


def _moments(name, row):
    return (name, len(row), row.mean(), ((row - row.mean()) ** 2).sum()) if len(row) > 1 else None


def _spacings(grid):
    """Spacing along x less that along y of blocks of 2 × 2 bonds, over which any doubling cancels: (rows/2,
    columns/2)."""
    place = grid.places
    x = np.linalg.norm(place[:-2:2, 2::2] - place[:-2:2, :-2:2], axis=-1)
    y = np.linalg.norm(place[2::2, :-2:2] - place[:-2:2, :-2:2], axis=-1)
    return (x - y) / np.sqrt(np.nanmean(x) * np.nanmean(y))


@dataclass(frozen=True)
class RowsPosterior:
    """Marginal posteriors of the five contrasts of one lattice, which are independent of each other.

    Parameters
    ----------
    mu, mu_cdf : dict of str to ndarray, shape (301,)
        By contrast: a grid of μ [mean bond length] and the cumulative probability on it.
    """

    mu: dict
    mu_cdf: dict

    def outside(self, rope):
        """Probability that each contrast lies outside the ROPE, as a dictionary."""
        inside = {name: np.diff(np.interp(rope, self.mu[name], self.mu_cdf[name]))[0] for name in self.mu}
        return {name: 1 - share for name, share in inside.items()}

    def moments(self, name):
        """Mean and standard deviation of one contrast."""
        middle, mass = (self.mu[name][1:] + self.mu[name][:-1]) / 2, np.diff(self.mu_cdf[name])
        mean = (middle * mass).sum()
        return mean, np.sqrt(((middle - mean) ** 2 * mass).sum())

    def draws(self, number, rng):
        """Random draws as arviz.InferenceData: `posterior` with mu (chain, draw, contrast)."""
        import arviz as az

        drawn = [np.interp(rng.uniform(size=number), self.mu_cdf[name], self.mu[name]) for name in CONTRASTS]
        mu = np.stack(drawn, -1)[None]
        return az.from_dict(posterior={"mu": mu}, coords={"contrast": list(CONTRASTS)}, dims={"mu": ["contrast"]})


def rows_posterior(grid):
    """Exact posterior of a lattice's five contrasts, whatever its rows share.

    Given τ and σ the posterior of μ_c is known up to its Laplace prior, for the rows' means enter through their
    weighted mean and sum of squares only; the rest is a sum over a grid in (τ, σ). Priors: μ ~ Laplace(0, 0.2), τ ~
    half-normal of scale 0.1, σ ~ Uniform(0, 1).

    Parameters
    ----------
    grid : unitcell.symmetry.column_grid.ColumnGrid

    Returns
    -------
    RowsPosterior
    """
    parts = {name: _contrast_posterior(part) for name, part in row_moments(grid).groupby("contrast", sort=False)}
    return RowsPosterior(
        {name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()}
    )


def _contrast_posterior(rows):
    """Grid of μ and its cumulative probability, from the moments of the rows of one contrast."""
    m, mean = (rows[name].to_numpy()[:, None, None] for name in ("m", "mean"))  # (rows, 1, 1)
    squares, free = rows.squares.sum(), (rows.m - 1).sum()
    sigma = np.sqrt(squares / stats.chi2.isf(np.linspace(1e-5, 1 - 1e-5, 30), free))
    tau = 0.5 * np.linspace(0, 1, 80)[:, None] ** 2  # dense where rows agree; 0.5 is five scales of the prior
    variance = tau**2 + sigma**2 / m  # (rows, τ, σ)
    weight = (1 / variance).sum(0)
    centre = (mean / variance).sum(0) / weight
    log_p = -((mean - centre) ** 2 / variance).sum(0) / 2 - np.log(variance).sum(0) / 2
    log_p = log_p - free * np.log(sigma) - squares / (2 * sigma**2) - tau**2 / (2 * 0.1**2)
    log_p = log_p + np.log(np.gradient(tau[:, 0]))[:, None] + np.log(np.gradient(sigma))
    best = np.unravel_index((log_p - np.log(weight) / 2).argmax(), log_p.shape)
    mu = centre[best] + np.sinh(np.linspace(-6, 6, 301)) / np.sinh(6) * 1.5  # to Laplace's tails, dense at the peak
    log_mu = log_p - weight * (mu[:, None, None] - centre) ** 2 / 2 - np.abs(mu[:, None, None]) / 0.2
    density = np.exp(log_mu - log_mu.max()).sum((1, 2))
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(mu))])
    return mu, cdf / cdf[-1]


def kinds(posterior, rope):
    """Probability of each kind of lattice: 'square', 'rectangular', 'doubled along x', 'along y', 'both', as a Series.

    Doubled where an alternation lies outside the ROPE; else rectangular where the difference of the spacings does.

    Parameters
    ----------
    posterior : RowsPosterior
    rope : sequence of two float
    """
    check_rule(rope, 0.5)
    outside = posterior.outside(rope)
    x, y = (1 - np.prod([1 - outside[f"along {axis}, {part}"] for part in COMPONENTS]) for axis in "xy")
    plain, rectangular = (1 - x) * (1 - y), outside[SPACING]
    return pd.Series(
        {"square": plain * (1 - rectangular), "rectangular": plain * rectangular, "doubled along x": x * (1 - y),
         "doubled along y": y * (1 - x), "doubled along both": x * y}
    )  # fmt: skip
