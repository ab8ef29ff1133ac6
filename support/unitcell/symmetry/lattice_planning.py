"""Does the planner hold on a real lattice? Its data with noise added, against simulated ones of their scatter."""

import numpy as np
import pandas as pd

from unitcell.symmetry.column_grid import ColumnGrid
from unitcell.symmetry.decision_planning import expected_observations, first_decisions
from unitcell.symmetry.lattice_symmetry import alternations, lattice_prior
from unitcell.symmetry.rope import check_rule


def noise_trial(grid, direction, component, rope, added, *, experiments=100, rng, hdi_prob=0.94):
    """Observations to the first decision when the position of every column errs by a further `added`.

    A triplet x_{i+1} − 2 x_i + x_{i−1} then scatters by √(s² + 6 added²): with it the planner predicts the number.

    Parameters
    ----------
    grid : unitcell.symmetry.column_grid.ColumnGrid
    direction, component : str
        As in `unitcell.symmetry.lattice_symmetry.alternations`.
    rope : sequence of two float
        [mean bond length].
    added : float
        Standard deviation, each axis, in the grid's unit.
    experiments : int
        Draws of the noise and of the order in which the triplets are seen.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.Series
        scatter and expected_scatter of a triplet [mean bond length]; observations and planned, means over the
        experiments.
    """
    check_rule(rope, hdi_prob)
    plain = alternations(grid, direction, component)
    plain = plain[np.isfinite(plain)]
    bond = np.linalg.norm(grid.bonds[1 if direction == "along y" else 0])
    noisy = []
    for _ in range(experiments):
        places = grid.places + rng.normal(0, 1, grid.places.shape) * added
        values = alternations(ColumnGrid(places, grid.unit), direction, component)
        noisy.append(rng.permutation(values[np.isfinite(values)]))
    noisy = np.stack(noisy)
    expected = np.sqrt(plain.var(ddof=1) + 6 * (added / bond) ** 2)
    planned = expected_observations(
        plain.mean(), expected, rope, lattice_prior(), longest=noisy.shape[1], experiments=experiments, rng=rng,
        hdi_prob=hdi_prob,
    )  # fmt: skip
    observations = first_decisions(noisy, rope, lattice_prior(), hdi_prob)
    return pd.Series(
        {"scatter": noisy.std(1, ddof=1).mean(), "expected_scatter": expected, "observations": observations.mean(),
         "planned": planned.mean()}
    )  # fmt: skip
