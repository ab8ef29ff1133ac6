"""Three ways to describe a place in an image (Kalinin et al. 2020, Fig. 2).

A sliding Fourier transform needs no atoms and averages over its window (Vasudevan et al. 2015); vectors to the
neighbouring atoms need nothing but atoms (local crystallography: Lin et al. 2013, Belianinov et al. 2015); sub-images
centred on atoms keep the intensity around them as well. Each is followed by principal components and k-means.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from unitcell.book.figures import OKABE_ITO, draw_image
from unitcell.errors import InputError


def sliding_fft(image, window_px, step_px, keep=1.0):
    """Fourier magnitudes of windows on a grid, each of unit sum: what repeats there, not how strongly.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
    window_px : int
        Edge of a window [px]; a Hann taper is laid over it.
    step_px : int
        From window to window [px].
    keep : float
        Frequencies kept, as a share of the Nyquist frequency.

    Returns
    -------
    magnitude : ndarray, shape (windows down, windows across, q, q)
        The zero frequency is in the middle; it and what the taper makes of it are 0.
    x_px, y_px : ndarray
        Centres of the windows [px].
    """
    if window_px > min(image.shape):
        raise InputError(
            f"window_px = {window_px} is larger than the image ({image.shape[1]} × {image.shape[0]} px): give less."
        )
    views = np.lib.stride_tricks.sliding_window_view(image, (window_px, window_px))[::step_px, ::step_px]
    taper = np.hanning(window_px)[:, None] * np.hanning(window_px)
    reach = int(np.clip(keep * window_px / 2, 2, (window_px - 1) // 2))
    middle = slice(window_px // 2 - reach, window_px // 2 + reach + 1)
    magnitude = np.empty((*views.shape[:2], 2 * reach + 1, 2 * reach + 1), np.float32)
    for row, windows in enumerate(views):  # a row at a time, to bound the memory
        tapered = (windows - windows.mean((1, 2), keepdims=True)) * taper
        magnitude[row] = np.abs(np.fft.fftshift(np.fft.fft2(tapered), (1, 2)))[:, middle, middle]
    y_px, x_px = ((window_px - 1) / 2 + step_px * np.arange(n) for n in views.shape[:2])
    away = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    magnitude[..., away < 2] = 0
    return magnitude / np.maximum(magnitude.sum((2, 3), keepdims=True), 1e-12), x_px, y_px


def usual_step(points):
    """Median distance from an atom to its nearest neighbour [px]."""
    return float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))


def neighbour_vectors(points, k=4, seed=0):
    """Vectors from each atom to `k` neighbours, always in the same order of directions.

    The order is that of the `k` commonest steps of the whole lattice (k-means of all vectors to the nearest
    neighbours): the vector that stands for a step is the one nearest to it.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        (x, y) [px].

    Returns
    -------
    ndarray, shape (n, k, 2)
        [px].
    """
    if len(points) < 2 * k + 1:
        raise InputError(
            f"{len(points)} atoms are too few for {k} neighbours of each: at least {2 * k + 1} are needed."
        )
    near = points[cKDTree(points).query(points, k=2 * k + 1)[1][:, 1:]] - points[:, None]  # (n, 2k, 2)
    steps = KMeans(k, n_init=4, random_state=seed).fit(near[:, :k].reshape(-1, 2)).cluster_centers_
    steps = steps[np.argsort(np.arctan2(steps[:, 1], steps[:, 0]))]
    distance = np.linalg.norm(near[:, None] - steps[:, None], axis=-1)  # (n, k, 2k)
    return np.take_along_axis(near, distance.argmin(-1)[..., None], 1)


def clusters(descriptors, count, n_features=8, seed=0):
    """Principal components of descriptors, and k-means of these.

    Parameters
    ----------
    descriptors : ndarray, shape (n, …)

    Returns
    -------
    label : ndarray of int, shape (n,)
        1 is the largest cluster.
    scores : ndarray, shape (n, n_features)
    components : ndarray, shape (n_features, …)
    """
    flat = descriptors.reshape(len(descriptors), -1)
    if not 1 <= count < len(flat):
        raise InputError(f"{count} clusters of {len(flat)} descriptors cannot be: give 1 to {len(flat) - 1}.")
    if not np.isfinite(flat).all():
        raise InputError("The descriptors hold values that are not finite: remove them first.")
    pca = PCA(min(n_features, *flat.shape), random_state=seed)
    scores = pca.fit_transform(flat)
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(scores)
    rank = np.argsort(np.argsort(-np.bincount(found, minlength=count)))
    return rank[found] + 1, scores, pca.components_.reshape(-1, *descriptors.shape[1:])


def turned_patches(data, angle_rad):
    """The sub-images of a patches Dataset cut again from its image, each turned by its own angle.

    Parameters
    ----------
    data : xarray.Dataset
        From `atom_maps.load_patches`.
    angle_rad : ndarray, shape (atom,)
        Counter-clockwise as seen [rad].

    Returns
    -------
    patches : ndarray of float32, shape (k, side, side)
        In [0, 1].
    kept : ndarray of int, shape (k,)
        Which atoms: those whose turned window lies inside the image.
    """
    side, pixel = data.sizes["x"], data.attrs["patch_pixel_size_A"] / data.attrs["image_pixel_size_A"]
    image = data.image.values.astype(np.float32) / 255
    centres = np.column_stack([data.x_px, data.y_px])
    reach = np.hypot(side, side) * pixel / 2
    kept = np.flatnonzero((centres > reach).all(1) & (centres < np.array(image.shape[::-1]) - 1 - reach).all(1))
    if not len(kept):
        raise InputError(f"No atom is {reach:.0f} px from every edge of the image: give a smaller window.")
    fine = max(1, round(pixel))  # points of the image averaged in a pixel of a sub-image, along each edge
    offset = ((np.arange(side * fine) + 0.5) / fine - side / 2) * pixel
    down, right = np.meshgrid(offset, offset, indexing="ij")
    patches = np.empty((len(kept), side, side), np.float32)
    for n, atom in enumerate(kept):
        cos, sin = np.cos(angle_rad[atom]), np.sin(angle_rad[atom])
        x, y = centres[atom, 0] + cos * right - sin * down, centres[atom, 1] + sin * right + cos * down
        cut = map_coordinates(image, [y, x], order=1)
        patches[n] = cut.reshape(side, fine, side, fine).mean((1, 3))
    return patches, kept


def figure_of_three(data, described, clustered, grid_px):
    """Maps of the clusters by each description, and its first principal component below (the paper's Fig. 2).

    Parameters
    ----------
    data : xarray.Dataset
        From `atom_maps.load_patches`.
    described : dict of str to ndarray
        A sliding Fourier transform (windows, q, q), neighbour vectors (n, k, 2), sub-images (n, side, side), in this
        order.
    clustered : dict of str to (label, scores, components)
        By `clusters`.
    grid_px : (ndarray, ndarray)
        x and y of the Fourier windows' centres [px].

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(2, 3, figsize=(9.8, 5.6), height_ratios=(1.9, 1))
    quarter = data.image.values[: data.sizes["row"] // 2, : data.sizes["column"] // 2]
    colours = {"cmap": ListedColormap(OKABE_ITO[:4]), "vmin": 0.5, "vmax": 4.5}
    for axis, (name, (label, _, _)) in zip(axes[0], clustered.items(), strict=True):
        draw_image(axis, quarter, data.attrs["image_pixel_size_A"], title=name, vmin=0, vmax=255)
        if len(label) == data.sizes["atom"]:
            size = max(3.0, 22000 / len(label))
            axis.scatter(data.x_px, data.y_px, c=label, s=size, linewidths=0.4, edgecolors="black", **colours)
        else:
            (x, y), half = grid_px, (grid_px[0][1] - grid_px[0][0]) / 2
            extent = (x[0] - half, x[-1] + half, y[-1] + half, y[0] - half)
            axis.imshow(label.reshape(len(y), len(x)), extent=extent, alpha=0.5, **colours)
        axis.set(xlim=(-0.5, quarter.shape[1] - 0.5), ylim=(quarter.shape[0] - 0.5, -0.5))
    handles = [Patch(color=colour, label=f"cluster {k}") for k, colour in enumerate(OKABE_ITO[:4], start=1)]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    fourier, vectors, images = (components[0] for _, _, components in clustered.values())
    for axis, picture, title in ((axes[1, 0], fourier, "in frequencies"), (axes[1, 2], images, "in pixels")):
        reach = np.abs(picture).max()
        draw_image(axis, picture, None, title=title, vmin=-reach, vmax=reach, cmap="RdBu_r")
    usual = list(described.values())[1].mean(0)
    axes[1, 1].quiver(*usual.T, *vectors.T, angles="xy", scale_units="xy", scale=1.5, width=0.012, color=OKABE_ITO[5])
    axes[1, 1].plot(*usual.T, "o", color="black", ms=4)
    axes[1, 1].plot(0, 0, "+", color="black", ms=8)
    axes[1, 1].set(xlim=(-2, 2), ylim=(2, -2), aspect="equal", title="of the neighbours", xticks=[], yticks=[])
    return figure
