"""Maps of a value per atom over the image that the atoms come from."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PolyCollection
from PIL import Image
from scipy import ndimage

from unitcell.artefacts import load_dataset, written
from unitcell.book.figures import OKABE_ITO, draw_image
from unitcell.errors import InputError

COORDINATES = ("x_px", "y_px", "species")
SPECIES_COLOURS = {"A": OKABE_ITO[1], "B": OKABE_ITO[4]}


def load_patches(path):
    """Read a `patches.nc` of chapter 06 as a Dataset, or raise InputError naming what it lacks."""
    data = load_dataset(path, ("patch", "image", *COORDINATES))
    for name in ("patch_pixel_size_A", "image_pixel_size_A"):
        if name not in data.attrs:
            raise InputError(f"{path} lacks the attribute '{name}': write it with chapter 06.")
    return data


def draw_atoms(axes, data, values, *, cmap="viridis", size=26, title="", **limits):
    """Draw the image of a patches Dataset with one coloured dot per atom; returns the dots for a colour bar.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    data : xarray.Dataset
        From `load_patches`.
    values : array_like, shape (atom,)
    """
    # drawn at half its brightness, so that pale colours stand out
    draw_image(axes, data.image.values, data.attrs["image_pixel_size_A"], title=title, vmin=0, vmax=510)
    return axes.scatter(data.x_px, data.y_px, c=np.asarray(values), cmap=cmap, s=size, linewidths=0, **limits)


def draw_classes(axes, data, labels, *, size=26, title="", names=None):
    """Draw the image with one dot per atom in its class's colour, and a legend."""
    draw_image(axes, data.image.values, data.attrs["image_pixel_size_A"], title=title)
    for k in np.unique(labels):
        chosen = labels == k
        name = names[k] if names else f"class {k}"
        axes.scatter(
            data.x_px[chosen], data.y_px[chosen], color=class_colour(k), s=size, linewidths=0.4,
            edgecolors="black", label=f"{name} ({chosen.sum()})",
        )  # fmt: skip
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.09), ncols=4, frameon=False, handletextpad=0.2)


def class_colour(number):
    """Colour of a class, from 1."""
    return OKABE_ITO[(number - 1) % 8]


def explorer(atoms, shape, by, colours, hover=(), image=None, frame_px=480):
    """Atoms to hover over, to scale, each category in its own colour: holoviews.Overlay.

    The page needs `hvplot.pandas` or `holoviews.extension("bokeh")` loaded beforehand.

    Parameters
    ----------
    atoms : pandas.DataFrame
        `x_px`, `y_px` (y down) and the columns `by` and `hover`.
    shape : (int, int)
        Rows and columns of the image [px].
    by : str
        The column that the colour tells.
    colours : dict of str to str
        Of each category, in the order of the legend; those without atoms are left out.
    hover : sequence of str
        Further columns that are shown under the pointer.
    image : ndarray, optional
        Drawn beneath, clipped to [0, 1], at no more than 200 pixels.
    frame_px : int
        Width of the frame on the screen; its height follows from `shape`.
    """
    import holoviews as hv  # half a second, for pages only

    rows, columns = shape
    atoms = atoms.assign(up_px=(rows - 0.5 - atoms.y_px).round(2))
    shown = dict.fromkeys(["x_px", "y_px", by, *hover])
    tips = [(name.replace("_px", " (px)").replace("_", " "), f"@{name}") for name in shown]
    layers = [] if image is None else [backdrop(image)]
    for category, colour in colours.items():
        of = atoms[atoms[by] == category]
        if len(of):
            dots = hv.Points(of, ["x_px", "up_px"], [name for name in shown if name != "x_px"], label=str(category))
            layers.append(dots.opts(color=colour, size=5, tools=["hover"], hover_tooltips=tips))
    return hv.Overlay(layers).opts(
        frame_width=frame_px, frame_height=round(frame_px * rows / columns), xlim=(-0.5, columns - 0.5), ylim=(0, rows),
        xlabel="x (px)", ylabel="height above the lower edge (px)", legend_position="right",
        active_tools=["wheel_zoom"],
    )  # fmt: skip


def backdrop(image, most=200):
    """An image, clipped to [0, 1], of at most `most` pixels a side: holoviews.Image, x right and height up [px]."""
    import holoviews as hv

    rows, columns = image.shape
    factor = min(1, most / max(rows, columns))
    small = ndimage.zoom(np.clip(image, 0, 1), factor, order=1, mode="nearest", grid_mode=True)
    # the first row of the array is the upper edge, as holoviews takes it too
    grey = hv.Image((255 * small).astype(np.uint8), bounds=(-0.5, 0, columns - 0.5, rows), kdims=["x_px", "up_px"])
    return grey.opts(cmap="gray", alpha=0.7, clim=(0, 255))


def save_class_map(data, labels, path, width_px=1200):
    """Write the middle half of the map of `draw_classes` as a small PNG (the picture in the project's README)."""
    rows, columns = data.sizes["row"] // 4, data.sizes["column"] // 4
    middle = (abs(data.x_px - 2 * columns) < columns) & (abs(data.y_px - 2 * rows) < rows)
    half = data.isel(row=slice(rows, 3 * rows), column=slice(columns, 3 * columns), atom=np.flatnonzero(middle))
    half = half.assign_coords(x_px=half.x_px - columns, y_px=half.y_px - rows)
    figure, axes = plt.subplots(figsize=(width_px / 150, width_px / 150 * 1.06))
    draw_classes(axes, half, labels[middle.values], size=150)
    with written(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)
    with Image.open(path) as picture:  # 64 colours are enough, and a quarter of the bytes
        small = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    with written(path) as temporary:
        small.save(temporary, format="png", optimize=True)


def mark_species(axes, atoms, marker="+", size=9):
    """Mark the A and B columns of an atoms table (`x_px`, `y_px`, `species`) on an image, with a legend."""
    for species, colour in SPECIES_COLOURS.items():
        of = atoms[atoms.species == species]
        if not len(of):
            continue  # all are A where brightness tells no two species apart
        axes.plot(of.x_px, of.y_px, marker, color=colour, ms=size, mew=1.6, label=species)
    axes.legend(loc="upper right")


def draw_rings(axes, points, rings, colours, alpha=0.75):
    """Fill rings of bonds (`unitcell.atoms.bond_rings`) of `points` (n, 2) [px] over an image, one colour for each."""
    outlines = [points[corners] for corners in rings.corners]
    axes.add_collection(PolyCollection(outlines, facecolors=colours, edgecolors="white", linewidths=0.6, alpha=alpha))
