"""The diatomic chain as a statement of belief: posterior of its bond lengths, exactly and by NUTS.

Kalinin et al. 2020, section 1. Bonds of a chain alternate between two kinds, odd and even; is it a simple chain (a = b)
or a diatomic one (a ≠ b)? Module `rope` decides. Lengths are in units of the mean bond length. The posterior itself
comes from `chain_posterior`, after every datum; PyMC samples the same model as an independent check.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from unitcell.artefacts import written
from unitcell.errors import InputError
from unitcell.symmetry.chain_posterior import LaplaceUniform, sequential_posterior

BONDS = ("odd", "even", "difference")  # μ1 σ1, μ2 σ2, μ3 σ3 of the paper
N_PRIOR = 10  # observations that set the priors
N_LEAST = 5  # below, the posterior is a funnel at σ → 0 in which NUTS diverges, and the closed form has no sd
LENGTH_UNIT = "mean bond length"


@dataclass(frozen=True)
class Chain:
    """Bonds drawn from N(odd, sd²) and N(even, sd²) in turn [mean bond length]."""

    odd: float
    even: float
    sd: float

    @property
    def difference(self):
        """True difference of the two bond lengths, even − odd [mean bond length]."""
        return self.even - self.odd

    def simulate(self, n, rng):
        """Bond lengths of n unit cells, shape (2, n): odd, even [mean bond length]."""
        return rng.normal([[self.odd], [self.even]], self.sd, size=(2, n))


CASE_1 = Chain(odd=0.5, even=1.5, sd=0.1)
CASE_2 = Chain(odd=0.95, even=1.05, sd=0.1)


def with_difference(bonds, name="the chain"):
    """Stack odd and even bonds with their paired difference, after checking them.

    Parameters
    ----------
    bonds : array_like, shape (2, n)
        Odd and even bond lengths of n unit cells, n ≥ 10.
    name : str
        What the error message calls the data.

    Returns
    -------
    lengths : ndarray, shape (3, n)
        Odd, even, even − odd.

    Raises
    ------
    InputError
        Wrong shape, fewer than ten cells, NaN, a length that is not positive, or no scatter.
    """
    bonds = np.asarray(bonds, float)
    if bonds.ndim != 2 or len(bonds) != 2:
        raise InputError(f"Bond lengths of {name} have shape {bonds.shape}: give two rows, odd and even bonds.")
    if bonds.shape[1] < N_PRIOR:
        raise InputError(
            f"Bond lengths of {name} cover {bonds.shape[1]} unit cells: give at least {N_PRIOR}, which set the priors."
        )
    if not np.isfinite(bonds).all():
        raise InputError(
            f"Bond lengths of {name} hold {np.sum(~np.isfinite(bonds))} NaN or infinite values: drop them."
        )
    if bonds.min() <= 0:
        raise InputError(f"Bond lengths of {name} reach {bonds.min():.4g}: give positive lengths, not coordinates.")
    lengths = np.vstack([bonds, bonds[1] - bonds[0]])  # (3, n)
    for bond, values in zip(BONDS, lengths, strict=True):
        if np.ptp(values[:N_PRIOR]) < 1e-9 * bonds.mean():
            raise InputError(
                f"The first {N_PRIOR} {bond} bond lengths of {name} are all {values[0]:.4g}: "
                "give measured lengths with their scatter, without which no width can be inferred."
            )
    return lengths


def priors(lengths):
    """Priors from the first ten observations Ȳ10: Laplace(Ȳ10, 0.2 Ȳ10) for μ, Uniform(0, Ȳ10) for σ.

    For the difference the centre is its own first mean, but the widths come from the mean bond
    length: with the rule taken literally a scale could be negative, and σ3 could not reach its true value.

    Parameters
    ----------
    lengths : ndarray, shape (3, n)
        From `with_difference`.

    Returns
    -------
    xarray.Dataset
        `centre`, `width` of the Laplace priors and `sd_max` of the uniform ones, each over `bond`.
    """
    centre = lengths[:, :N_PRIOR].mean(axis=1)
    scale = np.array([centre[0], centre[1], centre[:2].mean()])
    fields = {"centre": centre, "width": 0.2 * scale, "sd_max": scale}
    prior = xr.Dataset({name: ("bond", value) for name, value in fields.items()}, {"bond": list(BONDS)})
    return _with_units(prior)


def lattice_priors(spacing=1.0):
    """Priors from a known lattice instead of from data: bonds ~ Laplace(spacing, 0.2 spacing), their difference
    about 0.

    The paper: "the priors can also be obtained from known materials properties". Nothing is used twice.

    Parameters
    ----------
    spacing : float
        Known mean bond length, in the unit of the data.

    Returns
    -------
    xarray.Dataset
        As `priors`.
    """
    if not (np.isfinite(spacing) and spacing > 0):
        raise InputError(f"The lattice parameter is {spacing}: give a positive length in the unit of the data.")
    fields = {"centre": [spacing, spacing, 0.0], "width": [0.2 * spacing] * 3, "sd_max": [float(spacing)] * 3}
    prior = xr.Dataset({name: ("bond", value) for name, value in fields.items()}, {"bond": list(BONDS)})
    return _with_units(prior)


def exact_posterior(bonds, name="the chain", lattice=None):
    """Posteriors of odd bond, even bond and their difference after every unit cell, n = 1, 2, … N.

    Parameters
    ----------
    bonds : array_like, shape (2, n)
        Odd and even bond lengths of n unit cells, n ≥ 10.
    name : str
        What an error message calls the data.
    lattice : float, optional
        Known mean bond length that sets the priors; None: the first ten observations do.

    Returns
    -------
    dict of str to unitcell.symmetry.chain_posterior.GridPosterior
        By bond: 'odd', 'even', 'difference'.
    """
    lengths = with_difference(bonds, name)
    prior = priors(lengths) if lattice is None else lattice_priors(lattice)
    return {
        bond: sequential_posterior(values, grid_prior(prior, bond)) for bond, values in zip(BONDS, lengths, strict=True)
    }


def grid_prior(prior, bond):
    """The prior of one bond, from `priors` or `lattice_priors`, as `chain_posterior` takes it."""
    return LaplaceUniform(*(float(prior[name].sel(bond=bond)) for name in ("centre", "width", "sd_max")))


def chain_model(lengths, prior):
    """The paper's model in PyMC: every bond length is N(μ, σ), for odd, even and difference at once.

    `lengths`, `centre`, `width` and `sd_max` are mutable data, so one compiled model serves every chain and n.
    """
    import pymc as pm

    with pm.Model(coords={"bond": list(BONDS)}) as model:
        observed = pm.Data("lengths", lengths)  # (3, n)
        centre, width, sd_max = (pm.Data(name, prior[name].values) for name in ("centre", "width", "sd_max"))
        mu = pm.Laplace("mu", mu=centre, b=width, dims="bond")
        sigma = pm.Uniform("sigma", lower=0, upper=sd_max, dims="bond")
        pm.Normal("length", mu=mu[:, None], sigma=sigma[:, None], observed=observed)
    return model


def sample_posterior(chains_bonds, sample_sizes, *, draws=1000, chains=4, seed=0, lattice=None):
    """Posteriors of every chain after its first n unit cells, for every n, by NUTS.

    The model is compiled once (Numba, through nutpie); what follows takes a fraction of a second per posterior.

    Parameters
    ----------
    chains_bonds : dict of str to array_like, shape (2, n)
        Bond lengths by name, all with the same number of unit cells.
    sample_sizes : sequence of int
        Increasing numbers of unit cells, each ≥ 5.
    draws, chains : int
        Kept draws per chain, and number (≥ 2) of Markov chains.
    seed : int
    lattice : float, optional
        Known mean bond length that sets the priors; None: the first ten observations do.

    Returns
    -------
    arviz.InferenceData
        `posterior` (mu, sigma: chain, draw, case, n, bond), `sample_stats`, `observed_data`
        (length: case, bond, cell) and `constant_data` (the priors).

    Raises
    ------
    InputError
        Bad bond lengths, sample sizes or sampler settings.
    """
    import arviz as az

    lengths = {name: with_difference(bonds, name) for name, bonds in chains_bonds.items()}
    _check_sampling(lengths, sample_sizes, draws, chains)
    given = [priors(value) if lattice is None else lattice_priors(lattice) for value in lengths.values()]
    prior = xr.concat(given, _axis("case", lengths))
    compiled = _compile(chain_model(next(iter(lengths.values())), prior.isel(case=0)))
    runs = {
        (name, n): _sample(
            compiled, value[:, :n], prior.sel(case=name), draws=draws, chains=chains, entropy=(seed, index, n)
        )
        for index, (name, value) in enumerate(lengths.items())
        for n in sample_sizes
    }
    observed = xr.DataArray(
        list(lengths.values()), dims=("case", "bond", "cell"), coords={"case": list(lengths), "bond": list(BONDS)}
    )
    return az.InferenceData(
        posterior=_with_units(_gathered(runs, "posterior", ["mu", "sigma"])),
        sample_stats=_gathered(runs, "sample_stats", ["diverging", "energy", "depth"]),
        observed_data=_with_units(observed.to_dataset(name="length")),
        constant_data=_with_units(prior),
    )


def save_posterior(idata, path):
    """Write an ArviZ InferenceData as netCDF; read it with `arviz.from_netcdf(path, engine="h5netcdf")`."""
    with written(path) as temporary:
        idata.to_netcdf(str(temporary), engine="h5netcdf")


def _compile(model):
    """Compile for nutpie; with cxx empty PyTensor asks for neither g++ nor a BLAS, which Numba does not need."""
    import nutpie
    import pytensor

    with pytensor.config.change_flags(cxx=""):
        return nutpie.compile_pymc_model(model)


def _sample(compiled, lengths, prior, *, draws, chains, entropy):
    """One posterior as InferenceData; its seed is derived from the numbers in `entropy`."""
    import nutpie

    data = {"lengths": lengths} | {name: prior[name].values for name in prior.data_vars}
    # A short step (acceptance 0.95) keeps the funnel at very small n free of divergences.
    return nutpie.sample(
        compiled.with_data(**data), draws=draws, tune=1000, chains=chains, target_accept=0.95, save_warmup=False,
        seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]), progress_bar=False,
    )  # fmt: skip


def _gathered(runs, group, variables):
    """One group of many runs, keyed (case, n), as a Dataset with dimensions case and n added."""
    sizes = {n: None for _, n in runs}
    cases = {name: None for name, _ in runs}
    rows = [xr.concat([runs[name, n][group][variables] for n in sizes], _axis("n", sizes)) for name in cases]
    whole = xr.concat(rows, _axis("case", cases)).transpose("chain", "draw", "case", "n", ...)
    return whole.drop_attrs().assign_attrs(inference_library="nutpie")


def _axis(name, values):
    return pd.Index(list(values), name=name)


def _with_units(dataset):
    for variable in dataset.data_vars.values():
        variable.attrs["units"] = LENGTH_UNIT
    return dataset


def _check_sampling(lengths, sample_sizes, draws, chains):
    available = {value.shape[1] for value in lengths.values()}
    if len(available) != 1:
        raise InputError(f"The chains have {sorted(available)} unit cells: give all the same number.")
    sizes = list(sample_sizes)
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < N_LEAST or sizes[-1] > max(available):
        raise InputError(
            f"sample_sizes is {sizes}: give increasing whole numbers from {N_LEAST} to the {max(available)} unit cells."
        )
    if chains < 2 or draws < 100:
        raise InputError(f"draws={draws} and chains={chains} cannot show convergence: give at least 100 and 2.")
