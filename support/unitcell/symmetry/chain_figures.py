"""Drawings of chapter 01: the chain, its posteriors, and the HDI against the ROPE."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from unitcell.book.figures import OKABE_ITO, log_ticks
from unitcell.symmetry.rope import hdi_half_width

BLUE, ORANGE, GREEN, PINK, SKY, RED = OKABE_ITO[:6]


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


def draw_posteriors(axes, beliefs, parameter, symbols, truth):
    """Posterior density of odd and even `parameter`: filled at the last n, a line after the first update.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    beliefs : dict of str to unitcell.symmetry.chain_posterior.GridPosterior
        From `unitcell.symmetry.chain.exact_posterior`.
    parameter : {"mu", "sigma"}
    symbols : sequence of two str
        Names of the odd and even parameter.
    truth : sequence of two float
        Values that the data were drawn with.
    """
    for bond, symbol, true, color in zip(("odd", "even"), symbols, truth, (BLUE, ORANGE), strict=True):
        for row in (0, -1):
            grid, density = _density(beliefs[bond], parameter, row)
            height, label = density / density.max(), f"{symbol}, n = {beliefs[bond].n[row]:g}"
            if row:
                axes.fill_between(grid, height, color=color, alpha=0.5, label=label)
            else:
                axes.plot(grid, height, color=color, lw=1.5, label=label)
        axes.plot([true, true], [0, 1.05], color="black", lw=0.8, ls=":")
    spread = 0.35 if parameter == "mu" else 0.0
    shown = (min(truth) - spread, max(truth) + spread) if parameter == "mu" else (0, 4 * max(truth))
    axes.set(xlim=shown, ylim=(0, 1.5), yticks=[], xlabel="mean bond lengths", ylabel="posterior / maximum")


def _density(belief, parameter, row):
    """Grid and density of one posterior; the density of σ is its mass over the width of its nodes."""
    if parameter == "mu":
        return belief.mu[row], belief.mu_density[row]
    sigma = belief.sigma[row]
    return sigma, belief.sigma_mass[row] / np.gradient(sigma)


def clear_labels(axes):
    """Give every label of `axes` a white rim, so that it can be read where it lies on a curve."""
    for label in axes.texts:
        label.set_path_effects([withStroke(linewidth=3, foreground="white")])


def draw_growth(axes, belief, sizes, rope, truth):
    """Posterior of μ3 after n = `sizes` cells, one ridge above the other, over the ROPE (shaded) and the true value."""
    axes.axvspan(*rope, color="0.9", zorder=0)
    axes.axvline(truth, color="black", lw=0.8, ls=":", zorder=20)
    for level, n in enumerate(sizes):
        density = belief.mu_density[n - 1]
        height = level + 1.6 * density / density.max()
        axes.fill_between(belief.mu[n - 1], level, height, color=BLUE, alpha=0.55, lw=0, zorder=len(sizes) - level)
        axes.plot(belief.mu[n - 1], height, color="white", lw=0.8, zorder=len(sizes) - level)
    low, high = belief.hdi(0.97)
    axes.set(
        yticks=range(len(sizes)), yticklabels=sizes, ylabel="unit cells observed, n", xlabel="μ₃ [mean bond length]",
        xlim=(min(low[sizes[0] - 1], rope[0] - 0.05), max(high[sizes[0] - 1], rope[1] + 0.05)),
    )  # fmt: skip


def growth_slider(belief, rows, sizes, rope):
    """Figures 1d and 1e under a slider over n: the posterior of μ3, and where its HDI stands among all.

    Parameters
    ----------
    belief : unitcell.symmetry.chain_posterior.GridPosterior
        Of the difference of one chain.
    rows : pandas.DataFrame
        Its rows of `unitcell.symmetry.rope.decision_table`.
    sizes : sequence of int
        Numbers of cells on the slider.
    rope : sequence of two float

    Returns
    -------
    holoviews.Layout
        Whose frames are all in the page, so that it moves without a server.
    """
    import holoviews as hv

    shaded = hv.VSpan(*rope).opts(color="gray", alpha=0.2), hv.HSpan(*rope).opts(color="gray", alpha=0.2)
    band = rows[rows.n.isin(np.unique(np.geomspace(1, rows.n.max(), 90).astype(int)))]
    band = hv.Area((band.n, band.hdi_lo, band.hdi_hi), vdims=["low", "high"]).opts(color=SKY, alpha=0.5, line_width=0)
    density, interval = {}, {}
    for n in sizes:
        row, mu = rows[rows.n == n].iloc[0], belief.mu[n - 1]
        curve = hv.Curve((mu[::2], belief.mu_density[n - 1][::2] / belief.mu_density[n - 1].max()), "μ₃", "density")
        bar = hv.Curve(([row.hdi_lo, row.hdi_hi], [0.03, 0.03])).opts(color="black", line_width=4)
        words = f"n = {n}: {row.decision}, P(in ROPE) = {row.p_in_rope:.2f}"
        limits = {"xlim": (-0.4, 0.6), "ylim": (0, 1.05), "ylabel": "posterior / maximum"}
        density[n] = (shaded[0] * curve.opts(color=BLUE, line_width=2) * bar).opts(title=words, **limits)
        here = hv.Curve(([n, n], [row.hdi_lo, row.hdi_hi])).opts(color="black", line_width=4)
        interval[n] = (shaded[1] * band * here).opts(logx=True, xlim=(0.9, max(sizes) * 1.1), ylim=(-0.4, 0.6))
    common = {"width": 330, "height": 290, "fontsize": {"title": 8}}
    left = hv.HoloMap(density, "n").opts(xlabel="μ₃ [mean bond length]", **common)
    right = hv.HoloMap(interval, "n").opts(xlabel="unit cells observed, n", ylabel="HDI of μ₃", **common)
    return (left + right).opts(shared_axes=False, toolbar=None)


def draw_intervals(axes, rows, rope, chain, hdi_prob):
    """HDI of μ3 at every n, the ROPE (shaded), and the analytic interval about the true difference (dashes).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    rows : pandas.DataFrame
        Rows of one chain from `unitcell.symmetry.rope.decision_table`.
    rope : sequence of two float
    chain : unitcell.symmetry.chain.Chain
    hdi_prob : float
    """
    axes.axhspan(*rope, color="0.9", zorder=0)
    axes.fill_between(rows.n, rows.hdi_lo, rows.hdi_hi, color=SKY, lw=0, label="HDI, undecided")
    for decision, color in (("diatomic", ORANGE), ("simple chain", GREEN)):
        chosen = (rows.decision == decision).to_numpy()
        if chosen.any():
            low, high = (np.where(chosen, rows[edge], np.nan) for edge in ("hdi_lo", "hdi_hi"))
            axes.fill_between(rows.n, low, high, facecolor=color, edgecolor=color, lw=0.5, label=f"HDI, {decision}")
    axes.plot(rows.n, rows["mean"], color="black", lw=0.8)
    n = np.geomspace(3, rows.n.max(), 100)
    for sign in (-1, 1):
        axes.plot(n, chain.difference + sign * hdi_half_width(chain.sd, n, hdi_prob), color="black", lw=0.8, ls="--")
    axes.set(xlabel="unit cells observed, n", ylabel="μ₃ [mean bond length]", ylim=(-0.25, 0.45))
    log_ticks(axes, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000), rows.n.max())
    axes.legend(frameon=False, loc="upper right")


RULES = {"p-test": (RED, "o"), "Bayes factor": (PINK, "s"), "HDI and ROPE": (BLUE, "^")}


def draw_rules(figure, table, rope):
    """Shares of wrong and of missing answers of each rule against n, a column of panels for each true difference.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    table : pandas.DataFrame
        From `unitcell.symmetry.decision_planning.error_rates`.
    rope : sequence of two float
    """
    differences = table.difference.unique()
    panels = figure.subplots(2, len(differences), sharex=True, sharey=True)
    for column, difference in zip(panels.T, differences, strict=True):
        for rule, (color, marker) in RULES.items():
            part = table[(table.difference == difference) & (table.rule == rule)]
            for axes, share in zip(column, ("wrong", "undecided"), strict=True):
                axes.plot(part.n, part[share], color=color, marker=marker, ms=3, label=rule)
        inside = rope[0] < difference < rope[1]
        column[0].set_title(f"difference {difference:g}: {'simple' if inside else 'diatomic'}")
        column[1].set(xlabel="unit cells, n", ylim=(-0.03, 1.03))
        log_ticks(column[1], sorted(table.n.unique())[::2], table.n.max())
    panels[0, 0].set_ylabel("wrong answers"), panels[1, 0].set_ylabel("no answer")
    panels[0, -1].legend(frameon=False, fontsize=7)


def draw_planner(axes, plan, field):
    """Map of observations to decide, over true difference and ROPE, with contours of the asymptote.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    plan : xarray.Dataset
        From `unitcell.symmetry.decision_planning.observations_map`.
    field : {"first", "half"}
    """
    levels = (10, 30, 100, 300, 1000)
    edges = plan.difference, plan.rope, plan[field].T
    image = axes.pcolormesh(*edges, norm=LogNorm(5, 2000), cmap="cividis", shading="nearest")
    lines = axes.contour(plan.difference, plan.rope, plan.asymptote.T, levels, colors="white", linewidths=1)
    axes.clabel(lines, fmt="%d", fontsize=7)
    axes.set(xlabel="true difference / σ₃", ylabel="half-width of the ROPE / σ₃", facecolor="0.75")
    return image
