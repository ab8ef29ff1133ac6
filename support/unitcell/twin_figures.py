"""Figures 4, 5 and S6 of the paper remade on twins: what is read above the truth that an experiment cannot have."""

import matplotlib.pyplot as plt
import numpy as np

from unitcell.figures import OKABE_ITO, draw_image
from unitcell.map_figures import SYMBOL, dot_size

LIMIT_DEG = 10.0  # of the colours


def twin_figure(image, columns, names=("v", "u", "gamma")):
    """Tilts as they are read above those that are true, beside the image and its materials: Figure.

    Parameters
    ----------
    image : unitcell.images.StemImage
    columns : pandas.DataFrame
        From `unitcell.twin_scores.read_twin`.
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
            points = panel.scatter(columns.x_px, columns.y_px, c=columns[source], s=size, **style)
        figure.colorbar(points, ax=panels.tolist(), shrink=0.7)
    return figure


def distance_figure(scored, names=("v", "u", "gamma")):
    """Rms errors against the distance from the nearest interface: Figure.

    Parameters
    ----------
    scored : dict of str to DataFrame
        Columns of `unitcell.twin_scores.read_twin`, by the name of the twin.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(3.3 * len(names), 2.8), sharey=True)
    for panel, name in zip(axes, names, strict=True):
        for (label, columns), color in zip(scored.items(), OKABE_ITO, strict=False):
            squares = columns[f"{name}_error"] ** 2
            rms = squares.groupby(columns.distance_cells).mean() ** 0.5
            panel.plot(rms.index, rms, "o-", ms=3, color=color, label=label)
        panel.set(xlabel="cells to the interface", title=SYMBOL[name], ylim=(0, None))
    axes[0].set_ylabel("rms error (°)")
    axes[-1].legend(frameon=False, fontsize=8)
    return figure
