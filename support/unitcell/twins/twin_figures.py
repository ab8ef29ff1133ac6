"""Figures 4, 5 and S6 of the paper remade on twins: what is read above the truth that an experiment cannot have."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import cKDTree

from unitcell.book.figures import OKABE_ITO, draw_image
from unitcell.tilts.map_figures import SYMBOL, dot_size

LIMIT_DEG = 13.0  # of the colours
RIM = {"edgecolors": "0.55", "linewidths": 0.3}  # of dots: zero is as light as what they lie on


def twin_figure(image, columns, names=("v", "u", "gamma")):
    """Tilts as they are read above those that are true, beside the image and its materials: Figure.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    columns : pandas.DataFrame
        From `unitcell.twins.twin_scores.read_twin`.
    names : sequence of str
    """
    figure, axes = plt.subplots(2, len(names) + 1, figsize=(2.7 * (len(names) + 1), 5.6))
    size = dot_size(axes[0, 0], image, columns)
    draw_image(axes[0, 0], image.normalised(), image.pixel_size_A, title="simulated image")
    draw_image(axes[1, 0], image.normalised(), None, title="materials")
    for material, color in zip(columns.material.unique(), OKABE_ITO, strict=False):
        part = columns[columns.material == material]
        axes[1, 0].scatter(part.x_px, part.y_px, s=size, color=color, label=material)
    axes[1, 0].legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=2, frameon=False, fontsize=8)
    for panels, name in zip(axes[:, 1:].T, names, strict=True):
        style = {"cmap": "viridis", "vmin": 0, "vmax": LIMIT_DEG} if name == "gamma" else {"cmap": "RdBu_r"}
        style = {"vmin": -LIMIT_DEG, "vmax": LIMIT_DEG} | style
        for panel, source, word in zip(panels, (f"{name}_read", f"{name}_deg"), ("read", "true"), strict=True):
            draw_image(panel, np.full(image.intensity.shape, 0.93), None, vmin=0, vmax=1)
            panel.set_title(f"{SYMBOL[name]} {word} (°)")
            points = panel.scatter(columns.x_px, columns.y_px, c=columns[source], s=size, **style, **RIM)
        extend = "max" if name == "gamma" else "both"
        figure.colorbar(points, ax=panels.tolist(), shrink=0.7, extend=extend)
    return figure


def distance_figure(scored, names=("v", "u", "gamma")):
    """Rms errors against the distance from the nearest interface: Figure.

    Parameters
    ----------
    scored : dict of str to DataFrame
        Columns of `unitcell.twins.twin_scores.read_twin`, by the name of the twin.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(3.3 * len(names), 2.8), sharey=True)
    for panel, name in zip(axes, names, strict=True):
        for (label, columns), color in zip(scored.items(), OKABE_ITO, strict=False):
            squares = columns[f"{name}_error"] ** 2
            rms = squares.groupby(columns.distance_cells).mean() ** 0.5
            panel.plot(rms.index, rms, "o-", ms=3, color=color, label=label)
        panel.set(xlabel="cells to the interface", title=SYMBOL[name])
    axes[0].set_ylabel("rms error (°)")
    axes[0].set_ylim(bottom=0)
    axes[-1].legend(frameon=False, fontsize=8)
    return figure


def dense_figure(image, maps, columns=None):
    """The dense map (Figure S4), and below it, where it is known, the truth: Figure.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    maps : xarray.Dataset
        From `unitcell.tilts.analysis.all_maps`.
    columns : pandas.DataFrame, optional
        From `unitcell.twins.twin_scores.read_twin`.
    """
    rows = 1 if columns is None else 2
    figure, axes = plt.subplots(rows, 4, figsize=(10.4, 2.9 * rows), squeeze=False)
    draw_image(axes[0, 0], image.normalised(), image.pixel_size_A, title=image.name)
    for panel in axes[1:, 0]:
        panel.set_axis_off()
    style = {"cmap": "viridis", "vmin": 0, "vmax": LIMIT_DEG}
    for panels, name in zip(axes[:, 1:].T, ("v", "u", "gamma"), strict=True):
        for panel in panels:
            draw_image(panel, np.full(image.intensity.shape, 0.93), None, vmin=0, vmax=1)
        panels[0].set_title(f"|{SYMBOL[name]}| (°)")
        drawn = panels[0].pcolormesh(maps.dense_x_px, maps.dense_y_px, maps[f"{name}_abs"], **style)
        if columns is not None:
            size = dot_size(panels[1], image, columns)
            panels[1].set_title(f"|{SYMBOL[name]}| true (°)")
            panels[1].scatter(columns.x_px, columns.y_px, c=columns[f"{name}_deg"].abs(), s=size, **style)
    figure.colorbar(drawn, ax=axes[:, 1:].ravel().tolist(), shrink=0.7, extend="max")
    return figure


def dense_errors(maps, columns):
    """Rms difference [degrees] between the dense map at the columns and their true sizes: dict by |v|, |u|, |γ|.

    Parameters
    ----------
    maps, columns
        See `dense_figure`.
    """
    places = np.column_stack([maps.dense_x_px.values.ravel(), maps.dense_y_px.values.ravel()])
    _, near = cKDTree(places).query(columns[["x_px", "y_px"]])
    found = {}
    for name in ("v", "u", "gamma"):
        wrong = maps[f"{name}_abs"].values.ravel()[near] - columns[f"{name}_deg"].abs()
        found[f"|{SYMBOL[name]}|"] = float(np.sqrt(np.nanmean(wrong**2)))
    return found
