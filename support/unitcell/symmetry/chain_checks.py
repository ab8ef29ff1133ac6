"""Independent checks of the exact posterior: a sampler, repeated experiments, simulation-based calibration."""

import numpy as np
import pandas as pd

from unitcell.errors import InputError
from unitcell.symmetry.chain import BONDS, N_PRIOR, with_difference
from unitcell.symmetry.chain_posterior import LaplaceUniform, moment_posterior, running_moments


def sampler_agreement(idata, exact):
    """Means and standard deviations by NUTS against the grid, in Monte Carlo standard errors.

    Parameters
    ----------
    idata : arviz.InferenceData
        From `unitcell.symmetry.chain.sample_posterior`.
    exact : dict of str to dict
        `unitcell.symmetry.chain.exact_posterior` of every case.

    Returns
    -------
    pandas.DataFrame
        One row per case, n, bond, parameter ('mu', 'sigma') and statistic ('mean', 'sd'): nuts, grid, mcse, z.
    """
    rows = []
    for statistic, (value, error) in _estimates(idata.posterior).items():
        for case, beliefs in exact.items():
            for bond in BONDS:
                moments = beliefs[bond].moments()
                for n in idata.posterior["n"].values:
                    for parameter, first in (("mu", 0), ("sigma", 2)):
                        place = {"case": case, "n": n, "bond": bond}
                        grid = moments[first + (statistic == "sd")][n - 1]
                        nuts, mcse = (float(source[parameter].sel(place)) for source in (value, error))
                        rows.append(place | {"parameter": parameter, "statistic": statistic, "nuts": nuts,
                                             "grid": grid, "mcse": mcse, "z": (nuts - grid) / mcse})  # fmt: skip
    return pd.DataFrame(rows)


def _estimates(draws):
    """Mean and standard deviation of every parameter, each with its Monte Carlo standard error.

    That of the standard deviation is that of the variance, a mean of squares, over 2 sd.
    """
    import arviz as az

    mean, sd = draws.mean(("chain", "draw")), draws.std(("chain", "draw"))
    squares = az.mcse((draws - mean) ** 2, method="mean")
    return {"mean": (mean, az.mcse(draws, method="mean")), "sd": (sd, squares / (2 * sd))}


def calibration_ranks(prior, n, *, experiments, rng, hdi_prob=0.94):
    """Simulation-based calibration (Talts et al. 2018): truths drawn from the prior, then inferred from n data.

    If the posterior is right, the truth's place in it, P(θ < truth), is uniform.

    Parameters
    ----------
    prior : LaplaceUniform
    n : int
        Observations of each data set.
    experiments : int
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        One row per data set: mu_rank, sigma_rank, covered (by the HDI of μ).
    """
    mu = rng.laplace(prior.centre, prior.width, experiments)
    sigma = rng.uniform(0, prior.sd_max, experiments)
    values = rng.normal(mu[:, None], sigma[:, None], (experiments, n))
    mean = values.mean(1)
    posterior = moment_posterior(n, mean, ((values - mean[:, None]) ** 2).sum(1), prior)
    low, high = posterior.hdi(hdi_prob)
    ranks = {"mu_rank": posterior.probability_below(mu), "sigma_rank": posterior.sigma_below(sigma)}
    return pd.DataFrame(ranks | {"covered": (low < mu) & (mu < high)})


def prior_sensitivity(chain, sizes, *, experiments, rng, hdi_prob=0.94):
    """How the prior of μ3 changes its interval, over repeated experiments on one chain.

    'first ten, used twice' is the paper's; 'first ten, then dropped' infers from the later data only; 'known lattice'
    centres the difference at zero; 'flat' is wide enough not to matter.

    Parameters
    ----------
    chain : unitcell.symmetry.chain.Chain
    sizes : sequence of int
        Numbers of unit cells, each > 12.
    experiments : int
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        One row per prior and n: coverage of the true difference by the HDI, half_width (mean) of the HDI.
    """
    if min(sizes) < N_PRIOR + 3:
        raise InputError(f"sizes is {list(sizes)}: give numbers of unit cells above {N_PRIOR + 2}, ten set the prior.")
    lengths = [with_difference(chain.simulate(max(sizes), rng)) for _ in range(experiments)]
    lengths = np.stack(lengths, 1)  # (3, experiments, n)
    ten = lengths[2, :, :N_PRIOR].mean(1)
    scale = lengths[:2, :, :N_PRIOR].mean((0, 2))
    choices = {
        "first ten, used twice": (LaplaceUniform(ten, 0.2 * scale, scale), 0),
        "first ten, then dropped": (LaplaceUniform(ten, 0.2 * scale, scale), N_PRIOR),
        "known lattice": (LaplaceUniform(0.0, 0.2, 1.0), 0),
        "flat": (LaplaceUniform(0.0, 100.0, 10.0), 0),
    }
    rows = []
    for name, (prior, dropped) in choices.items():
        n, mean, squares = running_moments(lengths[2, :, dropped:])
        for size in sizes:
            last = size - dropped - 1
            low, high = moment_posterior(n[last], mean[:, last], squares[:, last], prior).hdi(hdi_prob)
            covered = (low < chain.difference) & (chain.difference < high)
            rows.append((name, size, covered.mean(), (high - low).mean() / 2))
    return pd.DataFrame(rows, columns=["prior", "n", "coverage", "half_width"])
