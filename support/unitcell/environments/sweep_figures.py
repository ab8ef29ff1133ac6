"""Figures of the settings of a sweep, in the order of the panels of Kalinin et al. 2020, Figs. 4 to 8 and S1 to S11."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from unitcell.book.figures import OKABE_ITO, draw_image
from unitcell.environments.cvae import framed, spread
from unitcell.environments.known import groups
from unitcell.environments.latent_figures import draw_pair, draw_rose, draw_row, label_of

ZOOM_PX = 320  # edge of the part of an image in which single atoms are seen
LATENTS = ("angle_rad", "dx", "dy", "z1", "z2")


def corner_of(data):
    """Upper left corner (x, y) [px] of the part that is enlarged: where both phases are, if there are two."""
    x, y = data.x_px.values, data.y_px.values
    at = x.mean(), y.mean()
    if np.isfinite(data.true_interface_A).any():
        near = int(np.nanargmin(np.hypot(x - at[0], y - at[1]) + 20 * np.abs(data.true_interface_A.values)))
        at = x[near], y[near]
    return tuple(max(min(c - ZOOM_PX / 2, v.max() - ZOOM_PX), v.min()) for c, v in zip(at, (x, y), strict=True))


def draw_map(axis, data, name, title="", labels=None, seen=None):
    """One dot an atom in the enlarged part, coloured by a latent, or by class where `labels` are given."""
    x0, y0 = corner_of(data)
    seen = (np.abs(data.x_px - x0 - ZOOM_PX / 2) < ZOOM_PX / 2) & (np.abs(data.y_px - y0 - ZOOM_PX / 2) < ZOOM_PX / 2)
    x, y = data.x_px.values[seen] - x0, data.y_px.values[seen] - y0
    if labels is not None:
        dots = axis.scatter(x, y, c=[OKABE_ITO[(k - 1) % 8] for k in labels[seen.values]], s=14, linewidths=0)
    else:
        circular = name == "angle_rad"
        value = data[name].values[seen]
        limits = (-np.pi, np.pi) if circular else np.quantile(value, [0.02, 0.98])
        colours = "twilight" if circular else "viridis"
        dots = axis.scatter(x, y, c=value, cmap=colours, vmin=limits[0], vmax=limits[1], s=14, linewidths=0)
        plt.colorbar(dots, ax=axis, shrink=0.75, ticks=MaxNLocator(4))
    axis.set(xlim=(0, ZOOM_PX), ylim=(ZOOM_PX, 0), aspect="equal", xticks=[], yticks=[], title=title)
    axis.set_facecolor("#333333")
    return dots


def enlarged(data, image):
    """The part of an image that is enlarged."""
    x, y = (int(v) for v in corner_of(data))
    return image[y : y + ZOOM_PX, x : x + ZOOM_PX]


def overview(data, image, part=None):
    """Image, latent grid, enlarged part, and maps of the five latents (Figs. 4, 7, S3, S9); returns the figure.

    Parameters
    ----------
    data : xarray.Dataset
        One seed of a setting of `sweep_results.load_groups`, as in all figures here.
    image : ndarray
        The whole image, in [0, 1]; lines mark what the sub-images are of.
    part : ndarray, optional
        Shown in place of the enlarged part, for instance its segmentation.
    """
    figure, axes = plt.subplots(2, 4, figsize=(11, 5.4))
    pixel_A, part = data.attrs["image_pixel_size_A"], enlarged(data, image) if part is None else part
    draw_image(axes[0, 0], image, pixel_A, title="(a) image", vmin=0, vmax=1)
    for y in (data.y_px.min(), data.y_px.max()):
        axes[0, 0].axhline(float(y), color="white", lw=1)
    draw_image(axes[0, 1], framed(data.grid.values), None, title="(b) z₁ →, z₂ ↑", vmin=0, vmax=1)
    draw_image(axes[0, 2], part, pixel_A, title="(c) enlarged", vmin=0, vmax=1)
    for axis, name, letter in zip((axes[0, 3], *axes[1]), LATENTS, "defgh", strict=True):
        draw_map(axis, data, name, f"({letter}) {label_of(name)}")
    return figure


def histograms(data):
    """Circular histogram of the angle, histograms of offsets and latents (Figs. S1, S4, S7); returns the figure."""
    figure = plt.figure(figsize=(11, 2.6))
    rose = figure.add_subplot(1, 5, 1, projection="polar")
    draw_rose(rose, data.angle_rad.values, groups(data))
    for n, name in enumerate(LATENTS[1:], start=2):
        axis = figure.add_subplot(1, 5, n)
        parts = [data[name].values[of] for of in groups(data).values()]
        span = np.quantile(data[name].values, [0.002, 0.998])
        axis.hist(parts, bins=60, range=span, stacked=True, color=OKABE_ITO[: len(parts)], label=list(groups(data)))
        axis.set(xlabel=label_of(name), yticks=[])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def windows(settings):
    """A row for each setting: map and histogram of the angle, maps and histograms of both latents (S2, S5, S8, S10)."""
    figure = plt.figure(figsize=(11, 2.5 * len(settings)))
    for row, data in enumerate(settings):
        at = 6 * row
        title = f"angle, {data.attrs['window_px']} px"
        draw_map(figure.add_subplot(len(settings), 6, at + 1), data, "angle_rad", title)
        draw_rose(figure.add_subplot(len(settings), 6, at + 2, projection="polar"), data.angle_rad.values, groups(data))
        for n, name in enumerate(("z1", "z2")):
            draw_map(figure.add_subplot(len(settings), 6, at + 3 + 2 * n), data, name, name)
            axis = figure.add_subplot(len(settings), 6, at + 4 + 2 * n)
            parts = [data[name].values[of] for of in groups(data).values()]
            axis.hist(parts, bins=50, stacked=True, color=OKABE_ITO[: len(parts)])
            axis.set(yticks=[], xlabel=name)
    legend_of(figure, list(groups(settings[0])), "outside upper center")
    if figure.get_layout_engine() is not None:
        figure.get_layout_engine().set(w_pad=0.08)
    return figure


def legend_of(figure, names, where, places=None):
    """A legend of names in the book's colours: those at `places`, or one after the other."""
    handles = [Patch(color=OKABE_ITO[n % 8], label=name) for name, n in zip(names, places or range(8), strict=False)]
    figure.legend(handles=handles, loc=where, ncols=len(handles), frameon=False)


def places_of_classes(labels, selections):
    """For each class from 1 the colour's number: that of the selection it shares most atoms with, one to one.

    Classes that are left over take the colours after those of the selections.

    Parameters
    ----------
    labels : ndarray of int, shape (atom,)
    selections : sequence of ndarray of bool, shape (atom,)

    Returns
    -------
    list of int
    """
    count = int(labels.max())
    shared = np.array([[np.sum(of & (labels == k)) for of in selections] for k in range(1, count + 1)])
    rows, columns = linear_sum_assignment(-shared.reshape(count, -1))
    matched = {int(row): int(column) for row, column in zip(rows, columns, strict=True) if shared[row, column]}
    free = iter(range(len(selections), len(selections) + count))
    return [matched[row] if row in matched else next(free) for row in range(count)]


def mixture_panels(data, components, partition="class", x="angle_rad", y="z2"):
    """Densities, and classes in latent space and on the image (Figs. 5, 8, S6, S11).

    A class has the colour of the environment that it shares most atoms with; those left over have colours of their own.
    """
    labels = data[partition].sel(components=components).values
    count = int(labels.max())
    known = groups(data)
    places = places_of_classes(labels, list(known.values()))
    chosen = {place: labels == (places.index(place) + 1 if place in places else -1) for place in range(max(places) + 1)}
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.4))
    table = data[["angle_rad", "z1", "z2"]].to_dataframe()[["angle_rad", "z1", "z2"]]
    draw_pair(axes[0], table, "z1", "z2", known)
    draw_pair(axes[1], table, x, y, known)
    draw_pair(axes[2], table, x, y, chosen)
    draw_map(axes[3], data, None, f"{count} on the image", np.array([0, *places])[labels] + (labels > 0))
    for axis, title in zip(axes, ("latents", "angle and latent", f"{count} by {partition}"), strict=False):
        axis.set_title(title)
    legend_of(figure, list(known), "outside upper left")
    legend_of(figure, [f"{partition} {k}" for k in range(1, count + 1)], "outside lower right", places)
    return figure


def centroids(data, count):
    """Mean sub-images and decoded centres of `count` classes (Figs. 5e, 8c–e,h–j, S6e, S11); returns the figure."""
    figure, axes = plt.subplots(2, count, figsize=(1.5 * count + 0.5, 3.4), squeeze=False)
    draw_row(axes[0], data[f"mean{count}"].values, [f"{k}, mean" for k in range(1, count + 1)])
    draw_row(axes[1], data[f"decoded{count}"].values, [f"{k}, decoded" for k in range(1, count + 1)])
    return figure


def tableaux(pictures, names):
    """3 × 3 tableaux of classes (class, up, right, row, col) and the same minus their mean (Fig. 6): the figure."""
    figure, axes = plt.subplots(2, len(pictures), figsize=(2.4 * len(pictures), 5.0), squeeze=False)
    reach = float(np.quantile(np.abs([spread(t) for t in pictures]), 0.99))
    draw_row(axes[0], [framed(t) for t in pictures], names)
    differences = [framed(spread(t)) for t in pictures]
    titles = [f"minus its mean, ±{reach:.2f}"] * len(pictures)
    draw_row(axes[1], differences, titles, vmin=-reach, vmax=reach, cmap="RdBu_r")
    return figure


def small_map(data, name, points=(128, 42)):
    """A latent at the atom nearest to each of points (along x, along y): holoviews.Image of few bytes."""
    import holoviews as hv  # half a second, for pages only

    places = np.column_stack([data.x_px, data.y_px])
    x, y = (np.linspace(axis.min(), axis.max(), n) for axis, n in zip(places.T, points, strict=True))
    nearest = cKDTree(places).query(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))[1]
    picture = data[name].values[nearest].reshape(points[::-1])  # the first row is the upper one, as in the image
    return hv.Image(picture.astype(np.float16).astype(np.float32), bounds=(x[0], -y[-1], x[-1], -y[0]), vdims=name)
