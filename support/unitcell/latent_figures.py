"""Figures of a latent space: pairs with densities, circular histograms, criteria, images of its points."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from unitcell.figures import OKABE_ITO, draw_image

MOST_POINTS = 2000  # drawn of a larger table
SHOWN = {"angle_rad": "angle (rad)", "dx": "x offset (Å)", "dy": "y offset (Å)"}


def label_of(name):
    """Axis label of a column of `latent.csv`."""
    return SHOWN.get(name, name)


def density(x, y, angle_x=False, points=96, width=0.025):
    """Kernel density of pairs on a grid, by a normal kernel of `width` of the range along each axis.

    Where x is an angle [rad], the density goes on from π to −π.

    Returns
    -------
    grid_x, grid_y : ndarray, shape (points,)
    value : ndarray, shape (points, points)
        (y, x); integrates to the share of the pairs inside the grid, at most 1.
    """
    edges_x = np.linspace(-np.pi, np.pi, points + 1) if angle_x else np.linspace(*_range(x), points + 1)
    edges_y = np.linspace(*_range(y), points + 1)
    count = np.histogram2d(y, x, (edges_y, edges_x))[0] / len(x) / np.diff(edges_x)[0] / np.diff(edges_y)[0]
    value = gaussian_filter(count, width * points, mode=("constant", "wrap" if angle_x else "constant"))
    return (edges_x[1:] + edges_x[:-1]) / 2, (edges_y[1:] + edges_y[:-1]) / 2, value


def _range(values):
    low, high = np.quantile(values, [0.002, 0.998])
    margin = 0.08 * (high - low) + 1e-6
    return low - margin, high + margin


def draw_pair(axes, latent, x, y, groups=None):
    """Points of a latent table and contours of their density (the paper's Fig. 5a,b).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    latent : pandas.DataFrame
    x, y : str
        Columns; y is not the angle.
    groups : dict of str to ndarray of bool, optional
        Named selections, one colour each.
    """
    groups = groups or {"": np.ones(len(latent), bool)}
    step = -(-len(latent) // MOST_POINTS)
    for (name, chosen), colour in zip(groups.items(), OKABE_ITO, strict=False):
        some = latent[chosen].iloc[::step]
        axes.plot(some[x], some[y], ".", ms=2.5, color=colour, alpha=0.5, label=name, rasterized=True)
    grid_x, grid_y, value = density(latent[x], latent[y], angle_x=x.startswith("angle"))
    levels = value.max() * np.array([0.02, 0.1, 0.3, 0.6, 0.9])
    axes.contour(grid_x, grid_y, value, levels=levels, colors="black", linewidths=0.7)
    axes.set(xlabel=label_of(x), ylabel=label_of(y), xlim=(grid_x[0], grid_x[-1]), ylim=(grid_y[0], grid_y[-1]))


def pair_plot(latent, names, groups=None):
    """All pairs of columns with densities, and their histograms on the diagonal; returns the figure."""
    count = len(names)
    figure, axes = plt.subplots(count, count, figsize=(2.3 * count, 2.1 * count), squeeze=False)
    groups = groups or {"": np.ones(len(latent), bool)}
    for row, y in enumerate(names):
        for column, x in enumerate(names):
            cell = axes[row, column]
            if column > row:
                cell.axis("off")
            elif column < row:
                draw_pair(cell, latent, x, y, groups)
            else:
                parts = [latent[x][chosen] for chosen in groups.values()]
                span = (-np.pi, np.pi) if x.startswith("angle") else _range(latent[x])
                cell.hist(parts, bins=50, range=span, stacked=True, color=OKABE_ITO[: len(parts)], label=list(groups))
                cell.set(xlabel=label_of(x), yticks=[])
    if list(groups) != [""]:
        axes[0, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right", frameon=False)
    return figure


def draw_rose(axes, angle_rad, groups=None, bins=72):
    """Circular histogram: areas are counts, so that a bar's height is the root of its count.

    Parameters
    ----------
    axes : matplotlib.projections.polar.PolarAxes
    angle_rad : array_like, shape (n,)
    groups : dict of str to ndarray of bool, optional
    """
    groups = groups or {"": np.ones(len(angle_rad), bool)}
    edges, below = np.linspace(-np.pi, np.pi, bins + 1), np.zeros(bins)
    for (name, chosen), colour in zip(groups.items(), OKABE_ITO, strict=False):
        count = below + np.histogram(np.asarray(angle_rad)[chosen], edges)[0]
        height, bottom = np.sqrt(count), np.sqrt(below)
        axes.bar(edges[:-1], height - bottom, 2 * np.pi / bins, bottom, color=colour, align="edge", label=name)
        below = count
    axes.set(yticks=[], xticks=np.radians([0, 90, 180, 270]), xticklabels=["0°", "90°", "±180°", "−90°"])


def draw_criteria(axes, curves, chosen):
    """BIC and ICL against the number of components, with a line at the number chosen."""
    for name, marker in (("bic", "o-"), ("icl", "s--")):
        axes.plot(curves.n_components, curves[name], marker, label=name.upper(), ms=4)
    axes.axvline(chosen, color=OKABE_ITO[5], lw=1)
    axes.set(xlabel="components", ylabel="criterion (less is better)")
    axes.legend(frameon=False)


def draw_row(axes, images, titles, *, vmin=0.0, vmax=1.0, pixel_size_A=None, cmap="gray"):
    """One image an axis, the bar in the first; axes that are left over stay empty."""
    for axis in axes[len(images) :]:
        axis.axis("off")
    for n, (axis, image) in enumerate(zip(axes, images, strict=False)):
        bar = pixel_size_A if n == 0 else None
        draw_image(axis, image, bar, title=titles[n], vmin=vmin, vmax=vmax, cmap=cmap)


def latent_grid(model, latent, steps=6):
    """Images decoded on a grid in the first two content latents over the range of the data, all at angle 0.

    Returns
    -------
    ndarray, shape (steps, steps, side, side)
        z1 grows to the right, z2 upwards.
    """
    names = [name for name in latent if name[0] == "z" and name[1:].isdigit()]
    along = [np.linspace(*latent[name].quantile([0.01, 0.99]), steps) for name in names[:2]]
    points = np.tile(latent[names].median().to_numpy(), (steps * steps, 1))
    points[:, 0] = np.tile(along[0], steps)
    if len(names) > 1:
        points[:, 1] = np.repeat(along[1][::-1], steps)
    return model.images(points).reshape(steps, steps, model.side, model.side)


def angle_error_figure(true_deg, error_deg, groups):
    """Errors of encoded angles [degrees] against the true angle, an axis for each named selection of `groups`."""
    figure, axes = plt.subplots(1, len(groups), figsize=(4 * len(groups), 3.6), squeeze=False)
    for axis, (name, of) in zip(axes[0], groups.items(), strict=True):
        axis.plot(true_deg[of], error_deg[of], ".", ms=4)
        axis.set(xlabel="true angle (°)", ylabel="encoded − true − zero (°)", title=name, ylim=(-15, 15))
    return figure


def content_and_errors(latent, error_deg, groups):
    """Content, angle and error of the angle [degrees, modulo 90°] of named selections, side by side."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.1))
    last = _last_content(latent)
    bins = {"bins": np.linspace(-45, 45, 91), "histtype": "step"}
    for (name, of), colour in zip(groups.items(), OKABE_ITO, strict=False):
        axes[0].plot(latent.z1[of], latent[last][of], ".", ms=3, color=colour, label=name)
        axes[1].hist(np.degrees(latent.angle_rad[of]), bins=72, histtype="step", color=colour)
        axes[2].hist(error_deg[of], color=colour, log=True, **bins)
    axes[0].set(xlabel="z1", ylabel=last)
    axes[1].set(xlabel="encoded angle (°)", ylabel="sub-images")
    axes[2].set(xlabel="error modulo 90° (°)")
    axes[0].legend()
    return figure


def wedge_figure(latent, thickness_A, groups):
    """Angle on a circle, content, and content against the thickness [Å], of named selections."""
    figure, last = plt.figure(figsize=(10.5, 3.6)), _last_content(latent)
    ring, plane, wedge = figure.add_subplot(131, projection="polar"), figure.add_subplot(132), figure.add_subplot(133)
    for (name, of), colour in zip(groups.items(), OKABE_ITO, strict=False):
        ring.hist(latent.angle_rad[of], bins=np.linspace(-np.pi, np.pi, 97), color=colour, alpha=0.7, label=name)
        plane.plot(latent.z1[of], latent[last][of], ".", ms=3, color=colour)
        wedge.plot(np.asarray(thickness_A)[of], latent.z1[of], ".", ms=3, color=colour)
    ring.set(yticks=[])
    plane.set(xlabel="z1", ylabel=last)
    wedge.set(xlabel="thickness (Å)", ylabel="z1")
    ring.legend(loc="upper left", bbox_to_anchor=(-0.45, 1.1), fontsize=7)
    return figure


def _last_content(latent):
    return [name for name in latent if name[0] == "z" and name[1:].isdigit()][-1]
