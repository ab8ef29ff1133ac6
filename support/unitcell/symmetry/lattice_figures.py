"""Drawings of real lattices in chapter 01: where bonds alternate, and what may be said of a growing field of view."""

import numpy as np

from unitcell.book.figures import OKABE_ITO, draw_image, log_ticks
from unitcell.symmetry.lattice_symmetry import alternations, window_agreement

COLORS = {"doubled": OKABE_ITO[1], "simple": OKABE_ITO[2]}
COLUMNS_SHOWN = (16, 36, 100, 400, 1000)  # on the axis


def draw_alternation(axes, image, grid, direction, component, limit, title=""):
    """Every triplet's difference of bonds over the image, at its middle column.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    image : unitcell.micrographs.images.StemImage
    grid : unitcell.symmetry.column_grid.ColumnGrid
        In Å.
    direction, component : str
        As in `unitcell.symmetry.lattice_symmetry.alternations`.
    limit : float
        End of the colour scale [mean bond length].

    Returns
    -------
    matplotlib.collections.PathCollection
    """
    draw_image(axes, image.normalised(), image.pixel_size_A, title=title, vmin=0, vmax=1.6)
    values = alternations(grid, direction, component)
    lines = grid.places.swapaxes(0, 1) if direction == "along y" else grid.places
    x, y = (lines[:, 1::3][:, : values.shape[1]] / image.pixel_size_A).transpose(2, 0, 1)
    axes.scatter(x, y, color="black", s=66, linewidth=0)  # a dark rim for pale dots, a white one for deep dots
    look = {"edgecolor": "white", "linewidth": 0.9, "s": 36}
    return axes.scatter(x, y, c=values, cmap="RdBu_r", vmin=-limit, vmax=limit, **look)


def draw_field_of_view(axes, part, rope):
    """HDI of both components against the columns in view, for windows at the upper left corner.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    part : pandas.DataFrame
        One lattice and direction of `unitcell.symmetry.lattice_symmetry.field_of_view`.
    rope : sequence of two float
    """
    axes.axhspan(*rope, color="0.88", zorder=0)
    corner = part[(part.top == 0) & (part.left == 0)]
    for (component, rows), color in zip(corner.groupby("component", sort=False), OKABE_ITO[:2], strict=True):
        axes.fill_between(rows["columns"], rows.hdi_lo, rows.hdi_hi, color=color, alpha=0.45, lw=0, label=component)
        axes.plot(rows["columns"], rows["mean"], color=color, lw=1)
    axes.set(ylim=(-0.45, 0.45), xlabel="columns in view")
    log_ticks(axes, COLUMNS_SHOWN, part["columns"].max())


def draw_agreement(axes, part, certain):
    """Share of the windows of each size that are called doubled, and simple, against the columns in view."""
    agreed = window_agreement(part, certain)
    for verdict, color in COLORS.items():
        axes.plot(agreed["columns"], agreed[verdict], color=color, marker="o", ms=3, label=verdict)
    axes.set(ylim=(-0.03, 1.03), xlabel="columns in view")
    log_ticks(axes, COLUMNS_SHOWN, agreed["columns"].max())


def draw_lattices(figure, table, rope, certain):
    """A column of two panels for each lattice and direction: the HDI, and the share of windows that agree.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    table : pandas.DataFrame
        From `unitcell.symmetry.lattice_symmetry.field_of_view`, of the lattices and directions to draw.
    rope : sequence of two float
    certain : float
        Probability that a verdict needs.
    """
    parts = list(table.groupby(["lattice", "direction"], sort=False))
    panels = figure.subplots(2, len(parts), sharey="row", squeeze=False)
    for ((lattice, direction), part), (upper, lower) in zip(parts, panels.T, strict=True):
        draw_field_of_view(upper, part, rope)
        draw_agreement(lower, part, certain)
        upper.set_title(f"{lattice}\n{direction}", fontsize=8)
    panels[0, 0].set_ylabel("difference of bonds\n[mean bond length]")
    panels[1, 0].set_ylabel("share of windows")
    panels[0, 0].legend(frameon=False, fontsize=7, loc="upper right", title="displacement", title_fontsize=7)
    panels[1, 0].legend(frameon=False, fontsize=7, loc="center right")


def verdict_table(verdicts, grids, hdi_prob):
    """The verdicts for the reader: differences in mean bond lengths and displacements of columns in pm.

    Parameters
    ----------
    verdicts : pandas.DataFrame
        From `unitcell.symmetry.lattice_symmetry.verdicts`.
    grids : dict of str to unitcell.symmetry.column_grid.ColumnGrid
        By lattice, in Å.
    hdi_prob : float

    Returns
    -------
    pandas.io.formats.style.Styler
    """
    axis = np.where(verdicts.direction == "along y", 1, 0)
    bond_A = [np.linalg.norm(grids[name].bonds[a]) for name, a in zip(verdicts.lattice, axis, strict=True)]
    shift_pm = verdicts["mean"].abs() * np.array(bond_A) * 25
    shown = verdicts[["lattice", "direction", "verdict"]].assign(
        **{
            "P(doubled)": [f"{p:.4f}" for p in verdicts.p_doubled],
            "data": [f"{n:.0f}" for n in verdicts.n_eff],
            "columns": ["never" if np.isnan(n) else f"{n:.0f}" for n in verdicts["columns"]],
            "shift (pm)": [f"{q:.1f} {way}" for q, way in zip(shift_pm, verdicts.component, strict=True)],
            "HDI": [f"{low:+.3f} to {high:+.3f}" for low, high in zip(verdicts.hdi_lo, verdicts.hdi_hi, strict=True)],
        }
    )
    return _narrow(shown).set_caption(
        "Data: how many independent ones the triplets are worth. Columns: in view, from which on the verdict lasts. "
        f"Shift: of a column, along or across its line. HDI: {hdi_prob:.0%}, of the difference of bonds."
    )


def _narrow(table):
    """A table without index whose rows keep to one line each in the book's page, as a Styler."""
    cells = [{"selector": "th, td", "props": "padding: 0.2em 0.4em; white-space: nowrap; font-size: 0.92em"}]
    return table.style.hide(axis="index").set_table_styles(cells)


def trial_table(trials):
    """The planner's trials for the reader, as a pandas Styler.

    Parameters
    ----------
    trials : pandas.DataFrame
        Rows by lattice, ROPE and added noise [pm], columns of `unitcell.symmetry.lattice_planning.noise_trial`.
    """
    names = {"expected_scatter": "expected", "observations": "triplets"}
    digits = {"ROPE ±": "{:g}", "noise (pm)": "{:g}", "scatter": "{:.3f}", "expected": "{:.3f}"}
    shown = trials.rename(columns=names).reset_index()
    return (
        _narrow(shown)
        .format(digits | {"triplets": "{:.1f}", "planned": "{:.1f}"})
        .set_caption(
            "Scatter of a triplet [mean bond length], as found and as expected, and triplets to the first decision, "
            "as needed and as planned"
        )
    )
