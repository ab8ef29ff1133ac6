"""Square, rectangular or doubled: the chain's model for a two-dimensional lattice, with rows that differ (Fig. 1a).

Five contrasts are zero in a square lattice: the difference of its two spacings, and the alternation of bonds along x
and along y, each parallel and perpendicular. Every scan row r has its own value of contrast c, θ_cr ~ N(μ_c, τ_c),
for its columns share its jitter; a datum is N(θ_cr, σ_c). θ_cr is integrated out: a row's mean is N(μ_c, √(τ_c² +
σ_c²/m)), and its sum of squares about it σ_c² χ² with m − 1 degrees of freedom. Kalinin et al. 2020, section 1;
lengths in mean bond lengths.
"""

from itertools import product

import numpy as np
import pandas as pd

from unitcell.chain import compile_model
from unitcell.errors import InputError
from unitcell.lattice_symmetry import COMPONENTS, alternations
from unitcell.rope import check_rule

SPACING = "spacing x − y"
CONTRASTS = (
    SPACING,
    *(f"{direction}, {component}" for direction, component in product(("along x", "along y"), COMPONENTS)),
)


def row_moments(grid):
    """Each contrast of each scan row: contrast, m (data), mean, squares (about the mean), as a table.

    Parameters
    ----------
    grid : unitcell.column_grid.ColumnGrid

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


def rows_model(table):
    """The model in PyMC. Its data are mutable, so that one compilation serves every lattice."""
    import pymc as pm

    with pm.Model(coords={"contrast": list(CONTRASTS)}) as model:
        data = {name: pm.Data(name, value) for name, value in _arrays(table).items()}
        mu = pm.Laplace("mu", mu=0, b=0.2, dims="contrast")
        tau = pm.HalfNormal("tau", sigma=0.1, dims="contrast")
        sigma = pm.Uniform("sigma", lower=0, upper=1, dims="contrast")
        of = data["which"]
        spread = pm.math.sqrt(tau[of] ** 2 + sigma[of] ** 2 / data["m"])
        pm.Normal("row_mean", mu=mu[of], sigma=spread, observed=data["mean"])
        pm.Gamma("row_squares", alpha=(data["m"] - 1) / 2, beta=0.5 / sigma[of] ** 2, observed=data["squares"])
    return model


def _arrays(table):
    which = table.contrast.map({name: number for number, name in enumerate(CONTRASTS)})
    return {
        "which": which.to_numpy(np.int64), "m": table.m.to_numpy(float),
        "mean": table["mean"].to_numpy(float), "squares": table.squares.to_numpy(float),
    }  # fmt: skip


def sample_lattices(grids, *, draws=1000, chains=4, seed=0):
    """Posteriors of the five contrasts of every lattice, by NUTS.

    Parameters
    ----------
    grids : dict of str to unitcell.column_grid.ColumnGrid
    draws, chains, seed : int

    Returns
    -------
    dict of str to arviz.InferenceData
        By lattice: `posterior` (mu, tau, sigma: chain, draw, contrast) and `sample_stats`.
    """
    import nutpie

    tables = {name: row_moments(grid) for name, grid in grids.items()}
    compiled = compile_model(rows_model(next(iter(tables.values()))))
    seeds = np.random.SeedSequence(seed).generate_state(len(tables))
    return {
        name: nutpie.sample(
            compiled.with_data(**_arrays(table)), draws=draws, tune=1000, chains=chains, target_accept=0.95,
            save_warmup=False, seed=int(own), progress_bar=False,
        )
        for own, (name, table) in zip(seeds, tables.items(), strict=True)
    }  # fmt: skip


def kinds(idata, rope):
    """Probability of each kind of lattice: 'square', 'rectangular', 'doubled along x', 'along y', 'both', as a Series.

    Doubled where an alternation lies outside the ROPE; else rectangular where the difference of the spacings does.

    Parameters
    ----------
    idata : arviz.InferenceData
        One lattice of `sample_lattices`.
    rope : sequence of two float
    """
    check_rule(rope, 0.5)
    mu = idata.posterior["mu"]
    outside = ((mu < rope[0]) | (mu > rope[1])).stack(sample=("chain", "draw"))
    x, y = (outside.sel(contrast=[f"along {axis}, {part}" for part in COMPONENTS]).any("contrast") for axis in "xy")
    rectangular = outside.sel(contrast=SPACING)
    shares = {
        "square": ~x & ~y & ~rectangular, "rectangular": ~x & ~y & rectangular,
        "doubled along x": x & ~y, "doubled along y": y & ~x, "doubled along both": x & y,
    }  # fmt: skip
    return pd.Series({kind: float(share.mean()) for kind, share in shares.items()})
