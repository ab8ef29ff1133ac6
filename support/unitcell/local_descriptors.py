"""Three ways to describe a place in an image (Kalinin et al. 2020, Fig. 2).

A sliding Fourier transform needs no atoms and averages over its window (Vasudevan et al. 2015); vectors to the
neighbouring atoms need nothing but atoms (local crystallography: Lin et al. 2013, Belianinov et al. 2015); sub-images
centred on atoms keep the intensity around them as well. Each is followed by principal components and k-means.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from unitcell.errors import InputError
from unitcell.figures import OKABE_ITO, draw_image


def sliding_fft(image, window_px, step_px, keep=0.5):
    """Fourier magnitudes of windows on a grid.

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
        The zero frequency, removed, is in the middle.
    x_px, y_px : ndarray
        Centres of the windows [px].
    """
    if window_px > min(image.shape):
        raise InputError(
            f"window_px = {window_px} is larger than the image ({image.shape[1]} × {image.shape[0]} px): give less."
        )
    views = np.lib.stride_tricks.sliding_window_view(image, (window_px, window_px))[::step_px, ::step_px]
    taper = np.hanning(window_px)[:, None] * np.hanning(window_px)
    reach = max(1, int(keep * window_px / 2))
    middle = slice(window_px // 2 - reach, window_px // 2 + reach + 1)
    magnitude = np.empty((*views.shape[:2], 2 * reach + 1, 2 * reach + 1), np.float32)
    for row, windows in enumerate(views):  # a row at a time, to bound the memory
        tapered = (windows - windows.mean((1, 2), keepdims=True)) * taper
        magnitude[row] = np.abs(np.fft.fftshift(np.fft.fft2(tapered), (1, 2)))[:, middle, middle]
    y_px, x_px = ((window_px - 1) / 2 + step_px * np.arange(n) for n in views.shape[:2])
    return magnitude, x_px, y_px


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


def figure_of_three(data, clustered, grid_px, windows):
    """Maps of the clusters by each description, and its first principal component below (the paper's Fig. 2).

    Parameters
    ----------
    data : xarray.Dataset
        From `atom_maps.load_patches`.
    clustered : dict of str to (label, scores, components)
        By `clusters`: of a sliding Fourier transform, of neighbour vectors, of sub-images, in this order.
    grid_px : (ndarray, ndarray)
        x and y of the Fourier windows' centres [px].
    windows : (int, int)
        Windows down and across.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(2, 3, figsize=(9.8, 6.4), height_ratios=(1.8, 1))
    points = np.column_stack([data.x_px, data.y_px])
    window = np.array(data.image.shape) // 2  # an upper left quarter, in which an atom is seen
    colours = ListedColormap(OKABE_ITO[:4])
    for axis, (name, (label, _, _)) in zip(axes[0], clustered.items(), strict=True):
        draw_image(axis, data.image.values, data.attrs["image_pixel_size_A"], title=name, vmin=0, vmax=255)
        if name == next(iter(clustered)):
            half_x, half_y = ((g[1] - g[0]) / 2 if len(g) > 1 else 1 for g in grid_px)
            extent = (grid_px[0][0] - half_x, grid_px[0][-1] + half_x, grid_px[1][-1] + half_y, grid_px[1][0] - half_y)
            axis.imshow(label.reshape(windows), cmap=colours, vmin=1, vmax=4, extent=extent, alpha=0.55)
        else:
            axis.scatter(*points.T, c=label, cmap=colours, vmin=1, vmax=4, s=10, linewidths=0)
        axis.set(xlim=(-0.5, window[1] - 0.5), ylim=(window[0] - 0.5, -0.5))
    fourier, vectors, images = (components[0] for _, _, components in clustered.values())
    for axis, picture, title in ((axes[1, 0], fourier, "in frequencies"), (axes[1, 2], images, "in pixels")):
        reach = np.abs(picture).max()
        draw_image(axis, picture, None, title=title, vmin=-reach, vmax=reach, cmap="RdBu_r")
    axes[1, 1].quiver(*np.zeros((2, len(vectors))), *vectors.T, angles="xy", scale_units="xy", scale=1, width=0.012)
    axes[1, 1].set(xlim=(-1, 1), ylim=(1, -1), aspect="equal", title="of each neighbour's vector", xticks=[], yticks=[])
    return figure
