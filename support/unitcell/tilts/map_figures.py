"""Figures of chapter 05 and of the report of one image: columns, tilt maps, patterns and profiles."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator

from unitcell.book.figures import OKABE_ITO, draw_image

SYMBOL = {"v": "v", "u": "u", "gamma": "γ", "alpha": "α", "beta": "β", "alternation": "alternation"}
DOT_SHARE = 0.7  # of the distance between neighbouring columns that a dot on a map fills
PATTERNS_NAMED = 7  # in a legend; the rarer ones share a grey


def column_figure(image, lattice):
    """The image with a ring on every located B column and the two repeats as arrows: Figure."""
    found = lattice.b_columns[lattice.b_columns.found]
    figure, axes = plt.subplots(figsize=(5.6, 5.6))
    draw_image(axes, image.normalised(), image.pixel_size_A)
    size = dot_size(axes, image, lattice.b_columns)
    axes.scatter(found.x_px, found.y_px, s=size, facecolors="none", edgecolors="#E69F00", lw=1, label="B column")
    away = np.linalg.norm(lattice.centres_px - lattice.centres_px.mean(0), axis=1)
    middle = lattice.centres_px[np.argmin(away)]
    for step, name, color in zip(lattice.vectors_px, ("[110]", "[001]"), ("#56B4E9", "#009E73"), strict=True):
        axes.annotate("", middle + step, middle, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2.5})
        axes.plot([], [], color=color, lw=2.5, label=f"{name} repeat")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, frameon=False)
    return figure


def tilt_figure(image, tilts, names=("v", "u", "gamma")):
    """Maps of tilts over the image: Figure. Tilts with a sign are drawn from blue to red, others from dark to light."""
    read = tilts.dropna(subset="v_deg")
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.3))
    for panel, name in zip(np.atleast_1d(axes), names, strict=True):
        draw_image(panel, image.normalised(), image.pixel_size_A, title=f"{SYMBOL[name]} (°)")
        signed = name not in ("gamma", "alternation")
        bound = max(2.0, read[f"{name}_deg"].abs().quantile(0.98))
        points = panel.scatter(
            read.x_px, read.y_px, c=read[f"{name}_deg"], s=dot_size(panel, image, tilts),
            cmap="RdBu_r" if signed else "viridis", vmin=-bound if signed else 0.0, vmax=bound,
        )  # fmt: skip
        figure.colorbar(points, ax=panel, shrink=0.8)
    return figure


def pattern_figure(image, tilts):
    """Patterns in colour, sure ones opaque, and the probability of the pattern beside it: Figure."""
    read = tilts.dropna(subset="v_deg")
    named = read.pattern.value_counts().index[:PATTERNS_NAMED]
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.9))
    draw_image(axes[0], image.normalised(), image.pixel_size_A, title="pattern")
    size = dot_size(axes[0], image, tilts)
    for name, color in zip((*named, None), (*OKABE_ITO[: len(named)], "#999999"), strict=True):
        part = read[read.pattern == name] if name else read[~read.pattern.isin(named)]
        if len(part):
            label = f"{glazer_text(name)} ({len(part)})" if name else f"others ({len(part)})"
            faded = [to_rgba(color, alpha) for alpha in np.clip(part.pattern_probability, 0.15, 1)]
            axes[0].scatter(part.x_px, part.y_px, s=size, c=faded)
            axes[0].scatter([], [], s=size, color=color, label=label)
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncol=3, frameon=False, fontsize=8)
    draw_image(axes[1], image.normalised(), None, title="probability of the pattern")
    points = axes[1].scatter(
        read.x_px, read.y_px, c=read.pattern_probability, s=size, cmap="viridis", vmin=0, vmax=1
    )  # fmt: skip
    figure.colorbar(points, ax=axes[1], shrink=0.8)
    return figure


def profile_table(tilts, names=("v", "u", "gamma")):
    """Tilts row by row along [001]: medians of their sizes with the medians of their intervals.

    Returns
    -------
    pandas.DataFrame
        Indexed by row: for each name `|name|`, `_lo` and `_hi` [degrees]. Sizes, because signs alternate.
    """
    read = tilts.dropna(subset="v_deg")
    table = {}
    for name in names:
        size = read[f"{name}_deg"].abs()
        half = read[f"{name}_deg_hi"] - read[f"{name}_deg"]  # that of γ ends at zero on the other side
        table |= {name: size, f"{name}_lo": np.maximum(size - half, 0), f"{name}_hi": size + half}
    return pd.DataFrame(table).groupby(read.row).median()


def profile_figure(tilts, truth=None, names=("v", "u", "gamma")):
    """Figures S5 and 4C: sizes of the tilts from row to row along [001], with intervals and, where known, the truth.

    Parameters
    ----------
    tilts : pandas.DataFrame
    truth : pandas.DataFrame, optional
        Indexed by row: the true size of each name [degrees].
    """
    profile = profile_table(tilts, names)
    figure, axes = plt.subplots(1, len(names), figsize=(3.3 * len(names), 2.8), sharey=True)
    for panel, name, color in zip(np.atleast_1d(axes), names, OKABE_ITO, strict=False):
        panel.fill_between(profile.index, profile[f"{name}_lo"], profile[f"{name}_hi"], color=color, alpha=0.25, lw=0)
        panel.plot(profile.index, profile[name], "o-", ms=3, color=color, label="read")
        if truth is not None:
            panel.plot(truth.index, truth[name], "k--", lw=1.2, label="truth")
            panel.legend(frameon=False, fontsize=8)
        panel.set(xlabel="row along [001]", title=f"|{SYMBOL[name]}|")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    np.atleast_1d(axes)[0].set_ylabel("median over the row (°)")
    return figure


def glazer_text(pattern):
    """A pattern as it is printed: 'a-a-c+' becomes a⁻a⁻c⁺."""
    return str(pattern).translate(str.maketrans("+-0?±", "⁺⁻⁰ˀ±"))


def dot_size(axes, image, columns):
    """Area of a marker [points²] that fills part of the distance between neighbouring columns."""
    spacing_px = np.sqrt(np.prod(image.intensity.shape) / max(len(columns), 1))
    box = axes.get_window_extent()
    px_per_pt = max(image.intensity.shape[1] / box.width, image.intensity.shape[0] / box.height)
    return float((DOT_SHARE * spacing_px / px_per_pt * 72 / axes.figure.dpi) ** 2)


def microscopes_figure(mean, drawn):
    """A mean window, simulated windows by name, and what each leaves: Figure. All have zero mean and unit variance."""
    figure, axes = plt.subplots(1, 1 + 2 * len(drawn), figsize=(2 * (1 + 2 * len(drawn)), 1.9))
    for panel, (name, window) in zip(axes, ({"real": mean} | drawn).items(), strict=False):
        draw_image(panel, window, None, title=name, vmin=-2.5, vmax=2.0)
    for panel, (name, window) in zip(axes[1 + len(drawn) :], drawn.items(), strict=True):
        draw_image(panel, mean - window, None, title=f"real − {name}", cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    return figure
