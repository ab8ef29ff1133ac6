"""Is a real lattice doubled? Positions of atom columns become the bond differences that the Bayesian chain takes.

Along a line of columns x_0, x_1, … the difference of neighbouring bonds is x_{i+1} − 2 x_i + x_{i−1}: measured
against the local lattice, so that drift, scale and shear drop out. Columns that stand out by +q and −q in turn make
it ±4q, with a sign that is turned back here. Two remarks decide what a datum is:

* bonds that share a column err in opposite directions, so each column is used once: triplets (0, 1, 2), (3, 4, 5), …;
* columns of one scan row share its jitter, and columns at one place of the scan its non-linearity, so n triplets are
  worth fewer independent ones, n_eff, from a two-way analysis of variance over lines and places.

The posterior is that of `chain_posterior`, with n_eff in place of n. Kalinin et al. 2020, section 1, Fig. 1a.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unitcell.symmetry.chain import grid_prior, lattice_priors
from unitcell.symmetry.chain_posterior import moment_posterior
from unitcell.symmetry.rope import check_rule, decide

DIRECTIONS = ("along x", "along y", "checkerboard")
COMPONENTS = ("along", "across")  # of the displacement, against the line of columns
SMALLEST = 4  # columns along the edge of a window
PLACEMENTS = 5  # windows along each axis at which every size is tried
CERTAIN = 0.99  # probability at which a lattice is declared doubled, or simple


def alternations(grid, direction, component):
    """Difference of neighbouring bonds of triplets that share no column, all of one sign if the lattice is doubled.

    Parameters
    ----------
    grid : unitcell.symmetry.column_grid.ColumnGrid
    direction : {"along x", "along y", "checkerboard"}
        In which neighbours alternate; 'checkerboard' in both.
    component : {"along", "across"}
        Displacement parallel or perpendicular to the line of columns.

    Returns
    -------
    ndarray, shape (lines, triplets)
        In mean bond lengths of that direction; NaN where a column is missing. ±4 times the displacement q of a column.
        What changes sign from line to line is left out: 'checkerboard' of the two others, and the reverse.
    """
    axis = 1 if direction == "along y" else 0
    bond = grid.bonds[axis]
    length = np.linalg.norm(bond)
    parallel = bond / length
    pointing = parallel if component == "along" else np.array([-parallel[1], parallel[0]])
    lines = grid.places @ pointing / length  # (rows, columns)
    lines = lines.T if axis else lines
    used = lines.shape[1] // 3 * 3
    triplets = lines[:, 0:used:3] - 2 * lines[:, 1:used:3] + lines[:, 2:used:3]
    triplets = triplets * np.where(np.arange(triplets.shape[1]) % 2, -1, 1)
    turned = np.where(np.arange(len(triplets)) % 2, -1, 1)[:, None]
    halves = [np.nanmean(half) if np.isfinite(half).any() else 0.0 for half in (triplets[::2], triplets[1::2])]
    if direction == "checkerboard":
        return turned * (triplets - np.mean(halves))
    return triplets - turned * (halves[0] - halves[1]) / 2


@dataclass(frozen=True)
class Scatter:
    """Variance of a datum by origin: shared by a line, shared by a place along the line, and its own."""

    line: float
    place: float
    own: float

    def of_mean(self, found):
        """Variance of the mean over the data `found` (boolean, lines × places)."""
        n = found.sum()
        shared = self.line * (found.sum(1) ** 2).sum() + self.place * (found.sum(0) ** 2).sum()
        return shared / n**2 + self.own / n

    def effective(self, found):
        """Independent data that the data `found` are worth, at most their number."""
        return (self.line + self.place + self.own) / self.of_mean(found)


def scatter(values):
    """Two-way analysis of variance of `values` (lines, places), NaN left out: `Scatter`.

    Components that come out negative are zero. With one line or one place its share cannot be told apart and is zero.
    """
    lines, places = values.shape
    of_line, of_place = (_mean_without_nan(values, axis) for axis in (1, 0))
    rest = values - of_line[:, None] - of_place[None] + np.nanmean(values)
    free = max(np.isfinite(rest).sum() - lines - places + 1, 1)
    own = np.nansum(rest**2) / free
    line = max(np.nanvar(of_line, ddof=1) - own / places, 0) if lines > 1 else 0.0
    place = max(np.nanvar(of_place, ddof=1) - own / lines, 0) if places > 1 else 0.0
    return Scatter(float(line), float(place), float(own))


def _mean_without_nan(values, axis):
    count = np.isfinite(values).sum(axis)
    return np.divide(np.nansum(values, axis), count, out=np.full(count.shape, np.nan), where=count > 0)


def lattice_prior():
    """Belief before the image, in mean bond lengths: a known lattice without alternation, Laplace(0, 0.2),
    Uniform(0, 1)."""
    return grid_prior(lattice_priors(1.0), "difference")


def window_moments(grid, direction, component, whole):
    """Effective number, mean and sum of squares of a window's data; NaN where it has none.

    Parameters
    ----------
    grid : unitcell.symmetry.column_grid.ColumnGrid
        Of the window.
    whole : Scatter
        Of the whole image: a small window cannot show how much its data share.
    """
    values = alternations(grid, direction, component)
    found = np.isfinite(values)
    n = found.sum()
    if n < 2:
        return np.nan, np.nan, np.nan
    mean = values[found].mean()
    effective = min(whole.effective(found), n)
    squares = ((values[found] - mean) ** 2).sum() * (n - 1) / max(n - 2, 1)  # the turning part took a degree of freedom
    return effective, mean, squares * effective / n


def field_of_view(grid, rope, *, name="the lattice", hdi_prob=0.94):
    """Belief in a doubled lattice against the field of view, for every direction and component.

    Parameters
    ----------
    grid : unitcell.symmetry.column_grid.ColumnGrid
    rope : sequence of two float
        Differences of neighbouring bonds that do not matter [mean bond length].
    name : str
        Lattice, as the table calls it.

    Returns
    -------
    pandas.DataFrame
        One row per direction, component and window: `size` (columns along its edge), `top`, `left`, `columns` found
        in it, `n_eff`, mean, sd, hdi_lo, hdi_hi, p_in_rope, decision. The windows of a size stand at up to 5 × 5
        places.
    """
    check_rule(rope, hdi_prob)
    tables = []
    for direction in DIRECTIONS:
        for component in COMPONENTS:
            whole = scatter(alternations(grid, direction, component))
            rows = [
                (size, top, left, window.count, *window_moments(window, direction, component, whole))
                for size, top, left, window in _windows(grid)
            ]
            table = pd.DataFrame(
                rows, columns=["size", "top", "left", "columns", "n_eff", "average", "squares"]
            ).dropna()
            table.insert(0, "component", component)
            table.insert(0, "direction", direction)
            tables.append(_believed(table, rope, hdi_prob))
    whole = pd.concat(tables, ignore_index=True)
    whole.insert(0, "lattice", name)
    return whole


def _windows(grid):
    """Every window: size, top, left, and its columns."""
    rows, columns = grid.places.shape[:2]
    for size in range(SMALLEST, max(rows, columns) + 1):
        for top, left in itertools.product(_starts(rows, size), _starts(columns, size)):
            yield size, top, left, grid.window(top, left, size)


def _starts(edge, size):
    """Where windows start along an edge: at even places, so that 'odd' means the same columns in each of them."""
    even = np.linspace(0, max(edge - size, 0), PLACEMENTS).astype(int) // 2 * 2
    return [int(start) for start in np.unique(even)]


def _believed(table, rope, hdi_prob):
    """The table with the posterior of each row and its decision."""
    belief = moment_posterior(table.n_eff, table.average, table.squares, lattice_prior())
    mean, sd, _, _ = belief.moments()
    low, high = belief.hdi(hdi_prob)
    columns = {"mean": mean, "sd": sd, "hdi_lo": low, "hdi_hi": high, "p_in_rope": belief.probability_in(rope)}
    columns["decision"] = [decide(*edges, rope) for edges in zip(low, high, strict=True)]
    return table.drop(columns=["average", "squares"]).assign(**columns)


def verdicts(table, certain=CERTAIN):
    """What each lattice is, direction by direction, and after how many columns.

    Parameters
    ----------
    table : pandas.DataFrame
        From `field_of_view`, of one lattice or several.
    certain : float
        Probability that a verdict needs in the whole image.

    Returns
    -------
    pandas.DataFrame
        One row per lattice and direction: `verdict` ('doubled', 'simple', 'undecided'), `component` that decides (of
        the larger displacement), mean, hdi_lo, hdi_hi and n_eff in the whole image; `p_doubled`, the probability
        that either component lies outside the ROPE (at most: the sum); `columns`, the fewest with which at least 19
        of 20 windows of that size and of every larger one give the same verdict; NaN where undecided.
    """
    rows = []
    for (lattice, direction), part in table.groupby(["lattice", "direction"], sort=False):
        whole = part[part["size"] == part["size"].max()].groupby("component").first()
        outside = 1 - whole.p_in_rope
        verdict = _verdict(outside, certain)
        component = outside.idxmax() if verdict == "doubled" else whole["mean"].abs().idxmax()
        best = whole.loc[component]
        fewest = decided_columns(part, verdict, certain)
        rows.append((lattice, direction, verdict, min(outside.sum(), 1.0), component, best["mean"], best.hdi_lo,
                     best.hdi_hi, best.n_eff, fewest))  # fmt: skip
    names = [
        "lattice",
        "direction",
        "verdict",
        "p_doubled",
        "component",
        "mean",
        "hdi_lo",
        "hdi_hi",
        "n_eff",
        "columns",
    ]
    return pd.DataFrame(rows, columns=names)


def _verdict(outside, certain):
    """From the probability that each component lies outside the ROPE."""
    if outside.max() >= certain:
        return "doubled"
    return "simple" if outside.sum() <= 1 - certain else "undecided"


def decided_columns(part, verdict, certain=CERTAIN, share=0.95):
    """Columns of the smallest windows from which on `share` of the windows of every size give `verdict`."""
    agreed = window_agreement(part, certain)
    if verdict not in agreed:
        return np.nan
    lasting = (agreed[verdict] >= share)[::-1].cummin()[::-1]
    return float(agreed["columns"][lasting].iloc[0]) if lasting.any() else np.nan


def window_agreement(part, certain=CERTAIN):
    """Of one lattice and direction, by size: mean number of columns, shares of windows called 'doubled' and
    'simple'."""
    places = part.groupby(["size", "top", "left"]).agg(
        columns=("columns", "first"), least=("p_in_rope", "min"), total=("p_in_rope", lambda p: (1 - p).sum())
    )
    called = places.assign(doubled=places.least <= 1 - certain, simple=places.total <= 1 - certain)
    return called.groupby("size")[["columns", "doubled", "simple"]].mean()
