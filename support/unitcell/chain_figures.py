"""Drawings of chapter 01: the chain, its posteriors, and the HDI against the ROPE."""

import arviz as az
import numpy as np
from matplotlib.patches import Rectangle

from unitcell.figures import OKABE_ITO
from unitcell.rope import hdi_half_width

BLUE, ORANGE, GREEN = OKABE_ITO[:3]


def draw_chain(axes, odd, even, title, cells=4):
    """Draw a chain whose bonds are `odd` and `even` in turn, with its unit cell and bond labels."""
    positions = np.concatenate([[0], np.cumsum([odd, even] * cells)])
    axes.plot(positions, 0 * positions, color="0.6", lw=1.5, zorder=1)
    axes.scatter(positions, 0 * positions, s=90, color=BLUE, edgecolor="white", zorder=2)
    same = np.isclose(odd, even)
    for left, right, label in zip(positions[:2], positions[1:3], "aa" if same else "ab", strict=True):
        axes.annotate("", (right, 0.45), (left, 0.45), arrowprops={"arrowstyle": "<->", "color": ORANGE})
        axes.text((left + right) / 2, 0.55, f"${label}$", ha="center", va="bottom", color="black")
    period = odd if same else odd + even
    axes.add_patch(Rectangle((positions[2], -0.4), period, 0.8, fill=False, ls="--", ec=GREEN, lw=1.5))
    axes.set(xlim=(-0.4, positions[-1] + 0.4), ylim=(-0.7, 1.1), title=title)
    axes.set_axis_off()


def draw_lattice(axes, odd, even, title, *, rows=4, cells=2):
    """Draw a two-dimensional lattice whose columns are spaced `odd` and `even` in turn, with its unit cell."""
    x = np.concatenate([[0], np.cumsum([odd, even] * cells)])
    grid_x, grid_y = np.meshgrid(x, np.arange(rows))
    axes.scatter(grid_x, grid_y, s=60, color=BLUE, edgecolor="white", zorder=2)
    period = odd if np.isclose(odd, even) else odd + even
    axes.add_patch(Rectangle((x[0], 1), period, 1, fill=False, ls="--", ec=GREEN, lw=1.5))
    axes.set(xlim=(-0.4, x[-1] + 0.4), ylim=(-0.4, rows - 0.6), title=title, aspect="equal")
    axes.set_axis_off()


def draw_posteriors(axes, posterior, parameter, symbols, truth):
    """Posterior density of odd and even `parameter`: filled at the largest n, a line at the smallest.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    posterior : xarray.Dataset
        Posterior of one chain (chain, draw, n, bond).
    parameter : {"mu", "sigma"}
    symbols : sequence of two str
        Names of the odd and even parameter.
    truth : sequence of two float
        Values that the data were drawn with.
    """
    first, last = posterior["n"].values[[0, -1]]
    for bond, symbol, true, color in zip(("odd", "even"), symbols, truth, (BLUE, ORANGE), strict=True):
        draws = posterior[parameter].sel(bond=bond)
        for n, style in ((first, "line"), (last, "fill")):
            grid, density = az.kde(draws.sel(n=n).values.ravel(), bw="silverman")
            if style == "line":
                axes.plot(grid, density / density.max(), color=color, lw=1.5, label=f"{symbol}, n = {n}")
            else:
                axes.fill_between(grid, density / density.max(), color=color, alpha=0.5, label=f"{symbol}, n = {n}")
        axes.axvline(true, color="black", lw=0.8, ls=":")
    shown = posterior[parameter].sel(n=first, bond=["odd", "even"]).quantile([0.01, 0.99], ("chain", "draw"))
    axes.set(xlim=(float(shown.min()), float(shown.max())), ylim=(0, 1.1), yticks=[])
    axes.set(xlabel="mean bond lengths", ylabel="posterior / maximum")


def draw_growth(axes, posterior, rope, truth):
    """Posterior of μ3 for every n, one ridge above the other, over the ROPE (shaded) and the true difference."""
    axes.axvspan(*rope, color="0.9", zorder=0)
    axes.axvline(truth, color="black", lw=0.8, ls=":", zorder=20)
    sizes = posterior["n"].values
    for level, n in enumerate(sizes):
        grid, density = az.kde(posterior["mu"].sel(bond="difference", n=n).values.ravel(), bw="silverman")
        height = level + 1.6 * density / density.max()
        axes.fill_between(grid, level, height, color=BLUE, alpha=0.55, lw=0, zorder=len(sizes) - level)
        axes.plot(grid, height, color="white", lw=0.8, zorder=len(sizes) - level)
    axes.set(
        yticks=range(len(sizes)), yticklabels=sizes, ylabel="unit cells observed, n", xlabel="μ₃ [mean bond length]"
    )


def draw_intervals(axes, rows, rope, chain, hdi_prob):
    """HDI of μ3 against n (bars), the ROPE (shaded), and the analytic interval about the true difference (dashes).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    rows : pandas.DataFrame
        Rows of one chain from `unitcell.rope.decision_table`.
    rope : sequence of two float
    chain : unitcell.chain.Chain
    hdi_prob : float
    """
    axes.axhspan(*rope, color="0.9", zorder=0)
    decided = rows.decision != "undecided"
    for chosen, color, label in ((~decided, BLUE, "HDI, undecided"), (decided, ORANGE, "HDI, decided")):
        part = rows[chosen]
        if len(part):
            error = [part["mean"] - part.hdi_lo, part.hdi_hi - part["mean"]]
            axes.errorbar(part.n, part["mean"], error, fmt="o", ms=3, color=color, lw=2, label=label)
    n = np.geomspace(rows.n.min(), rows.n.max(), 100)
    for sign in (-1, 1):
        axes.plot(n, chain.difference + sign * hdi_half_width(chain.sd, n, hdi_prob), color="black", lw=0.8, ls="--")
    axes.set(xscale="log", xlabel="unit cells observed, n", ylabel="μ₃ [mean bond length]")
    ticks = [n for n in (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if n <= rows.n.max()]
    axes.set_xticks(ticks, labels=ticks)
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper right")
