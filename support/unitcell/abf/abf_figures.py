"""Figures of chapter 02: strips of images, convergence, comparisons, detectors and depth."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from unitcell.book.drawing import A_COLOUR, B_COLOUR, O_COLOUR, draw_octahedra, draw_projection
from unitcell.book.figures import OKABE_ITO, draw_image

FRACTION = "fraction of electrons"
BLUE, ORANGE, GREEN, PINK = OKABE_ITO[:4]
MARGIN = 5  # pixels of the neighbouring cells around a projected crystal


def octahedra_figure(crystals, titles):
    """Two blocks of octahedra above, three below with their axis of rotation: five crystals and titles."""
    figure, axes = plt.subplot_mosaic("UUUTTT;AABBCC", figsize=(8, 5.8), height_ratios=(1.35, 1))
    for number, (key, crystal, title) in enumerate(zip("UTABC", crystals, titles, strict=True)):
        draw_octahedra(axes[key], crystal, title, axis=number - 2 if number > 1 else None)
    return figure


def projection_figure(crystal, ideal, image, box_A, titles):
    """Two cells in projection beside their image, the same box (x, y, width, height) [Å] in both.

    Parameters
    ----------
    crystal, ideal : ase.Atoms
        One cell, and the same without tilts.
    image : ndarray, shape (rows, columns)
        Of one cell.
    box_A : (float, float, float, float)
    titles : (str, str)
    """
    pixel_A = crystal.cell.lengths()[1] / image.shape[0]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    draw_projection(axes[0], crystal.repeat((2, 1, 1)), titles[0], ideal.repeat((2, 1, 1)))
    axes[0].add_patch(Rectangle(box_A[:2], *box_A[2:], fill=False, lw=1.5))
    wide = np.pad(np.tile(image, (1, 2)), MARGIN, mode="wrap")
    artist = draw_image(axes[1], wide, pixel_A, title=titles[1], bar_A=4)
    x, y, width, height = np.array(box_A) / pixel_A
    axes[1].add_patch(Rectangle((x + MARGIN, y + MARGIN), width, height, fill=False, lw=1.5))
    figure.colorbar(artist, ax=axes[1], label=FRACTION, shrink=0.7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
    return figure


def strip_figure(images, titles, pixel_A, bar_A=2, per_row=7, size=(8.0, 1.62)):
    """Cells side by side on one grey scale, a scale bar in the first; `size` is the width and the height of a row."""
    per_row = min(per_row, len(images))
    rows = -(-len(images) // per_row)
    figure, axes = plt.subplots(rows, per_row, figsize=(size[0], 0.2 + size[1] * rows), squeeze=False)
    scale = {"vmin": np.min(images), "vmax": np.max(images)}
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        shifted = np.roll(image, (4, 4), (0, 1))  # no column on the edge
        bar = None if number else pixel_A
        artist = draw_image(axes.flat[number], shifted, bar, title=title, bar_A=bar_A, **scale)
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    figure.colorbar(artist, ax=axes, label=FRACTION, shrink=0.7)
    return figure


def sampling_figure(errors):
    """What cut-off, upper zones and k-points leave; `errors` from `unitcell.abf.abf_comparisons.sampling_errors`."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for (label, values), colour in zip(errors["cut-off"].items(), (O_COLOUR, PINK, BLUE, GREEN), strict=True):
        style = "s--" if label.startswith("static") else "o-"
        axes[0].plot(errors["cutoffs_mrad"][: len(values)], values, style, color=colour, label=label)
    counts = [k[0] * k[1] for k in errors["grids"]]
    axes[1].plot(counts, errors["k-points"], "o-", color=BLUE)
    for count, error, k in zip(counts, errors["k-points"], errors["grids"], strict=True):
        axes[1].annotate(f"{k[0]} × {k[1]}", (count, error), (0, 7), textcoords="offset points", ha="center")
    axes[0].set(yscale="log", xlabel="cut-off [mrad]", ylabel="rms error of the image [%]")
    axes[1].set(
        xscale="log", xlabel="number of k-points (300 K, without upper zones)", xlim=(0.6 * counts[0], 1.6 * counts[-1])
    )
    axes[0].set_ylim(top=2 * axes[0].get_ylim()[1])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=2, frameon=False)
    return figure


def truth_figure(pairs):
    """Two codes' images and their difference in standard errors; `pairs` from `abf_comparisons.Pair`."""
    figure, axes = plt.subplots(len(pairs), 3, figsize=(8, 3.5 * len(pairs)), squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        peer, own = pair.peer[-1], pair.image[-1]
        scale = {"vmin": peer.min(), "vmax": peer.max(), "bar_A": 2}
        draw_image(row[0], peer, pair.pixel_A, title=f"{pair.name}, {pair.depth_A[-1]:.0f} Å: abTEM", **scale)
        artist = draw_image(row[1], own, pair.pixel_A, title="beam basis", **scale)
        figure.colorbar(artist, ax=row[1], label=FRACTION, shrink=0.7)
        score = (own - peer) / pair.noise[-1]
        artist = draw_image(row[2], score, pair.pixel_A, title="difference", bar_A=2, cmap="RdBu_r", vmin=-4, vmax=4)
        figure.colorbar(artist, ax=row[2], label="combined standard errors", shrink=0.7)
    return figure


def mirror_figure(crystals, titles, images, pixel_A):
    """Three crystals in projection; below, the first one's image and how the others' depart from it [% of its mean]."""
    figure, axes = plt.subplots(2, 3, figsize=(8, 6.4))
    for ax, crystal, title in zip(axes[0], crystals, titles, strict=True):
        draw_projection(ax, crystal, title)
    percent = [100 * (image - images[0]) / images[0].mean() for image in images[1:]]
    reach = np.abs(percent).max()
    signed = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    pictures = [(images[0], "image", {}, FRACTION)]
    pictures += [
        (one, f"{t.split(' (')[0]} − image", signed, "% of the mean")
        for one, t in zip(percent, titles[1:], strict=True)
    ]
    for ax, (picture, title, look, label) in zip(axes[1], pictures, strict=True):
        artist = draw_image(ax, picture, pixel_A, title=title, bar_A=2, **look)
        figure.colorbar(artist, ax=ax, label=label, location="bottom", shrink=0.8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
    return figure


def detector_figure(images, titles, contrasts, thickness_A, shown, pixel_A):
    """Images of several detectors at one thickness, and the contrast of columns at all of them.

    Parameters
    ----------
    images : ndarray, shape (detectors, T, rows, columns)
    titles : sequence of str
    contrasts : dict of str to ndarray, shape (detectors, T)
    thickness_A : sequence of float, shape (T,)
    shown : int
        Index of the thickness whose images are drawn.
    pixel_A : float
    """
    figure, axes = plt.subplots(2, len(images), figsize=(8, 4.9), height_ratios=(1.45, 1))
    for index, title in enumerate(titles):
        artist = draw_image(axes[0, index], np.tile(images[index, shown], (1, 2)), pixel_A, title=title, bar_A=4)
        figure.colorbar(artist, ax=axes[0, index], shrink=0.9, location="bottom", label=FRACTION)
        below = axes[1, index]
        for (name, values), colour in zip(contrasts.items(), (O_COLOUR, A_COLOUR, B_COLOUR), strict=True):
            below.plot(thickness_A, values[index], ".-", color=colour, label=name)
        below.axhline(0, color="black", lw=0.8)
        below.set(xlabel="thickness [Å]", ylabel="" if index else "contrast")
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
    return figure


def depth_figure(depth):
    """How elastic images depart from frozen phonons with depth; `depth` from `abf_comparisons.depth_statistics`."""
    figure, axes = plt.subplots(1, 3, figsize=(8, 3.1))
    t, look = depth.thickness.values, {"ms": 3.5}
    axes[0].plot(t, depth.excess, "o-", color=O_COLOUR, label="mean, too high by", **look)
    axes[0].plot(t, depth.departure, "s-", color=PINK, label="pattern, rms", **look)
    axes[0].plot(t, depth.noise, ":", color="black", label="noise of the phonons")
    axes[1].plot(t, depth.tilt_signal, "o-", color=BLUE, label="elastic", **look)
    axes[1].plot(t, depth.tilt_signal * depth.kept, "s--", color=ORANGE, label="frozen phonons", **look)
    axes[2].plot(t, depth.column.sel(library="elastic"), "o-", color=BLUE, label="elastic", **look)
    axes[2].plot(t, depth.column.sel(library="phonons"), "s--", color=ORANGE, label="frozen phonons", **look)
    labels = ("elastic − phonons [% of the mean]", "γ = 5° − γ = 0 [% of the mean]", "A column over the mean")
    for ax, label in zip(axes, labels, strict=True):
        ax.set(xlabel="thickness [Å]", ylabel=label, ylim=(min(0, ax.get_ylim()[0]), 1.25 * ax.get_ylim()[1]))
        ax.legend(frameon=False, fontsize=8, loc="upper left" if ax is axes[0] else "best")
    return figure
