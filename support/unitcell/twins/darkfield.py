"""Simulated dark-field images: sums of Gaussian columns with dose, drift and scan jitter.

They train the atom segmenter (varied lattices) and stand in for a real image where none can be had
(a doubled perovskite whose columns are known). Intensities are incoherent: each column adds a
narrow Gaussian, with a height like that of its mean atomic number, and a broad faint one, as the
tails of a real probe do.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from unitcell.data import DataUnavailable, fetch, load_manifest
from unitcell.micrographs.images import StemImage, read_image

DEFAULT_IMAGE = "dyscandate_df"


def open_dark_field(image=None, pixel_size_A=None, seed=0):
    """The image to analyse, its path, and its truth where it is a twin.

    Parameters
    ----------
    image : str or Path, optional
        A file; the name of an image in the manifest, such as "graphene_gb"; "twin:NAME" for
        `unitcell.twins.haadf_twins.open_twin`; None: the manifest's dark-field image, and where that is unavailable a
        simulated one.
    pixel_size_A : float, optional
        Pixel size [Å]; None: from the file or the manifest (0.2 for a twin).
    seed : int
        Of a twin.

    Returns
    -------
    path : Path or None
        None for a simulated image.
    image : StemImage
    twin : xarray.Dataset or None
    """
    if str(image).startswith("twin:"):
        from unitcell.twins.haadf_twins import open_twin  # brings the scattering code

        name = str(image).removeprefix("twin:")
        given = {} if pixel_size_A is None else {"pixel_size_A": pixel_size_A}
        twin = open_twin(name, seed=seed, **given)
        return None, StemImage(twin.image.values, twin.attrs["pixel_size_A"], f"twin {name}", simulated=True), twin
    if image is not None and str(image) not in load_manifest():
        return image, read_image(image, pixel_size_A), None
    try:
        path = fetch(image or DEFAULT_IMAGE)
    except DataUnavailable:
        if image is not None:
            raise
        return None, doubled_perovskite((1024, 1024), pixel_size_A or 0.0781)[0], None
    entry = load_manifest()[image or DEFAULT_IMAGE]
    return path, read_image(path, pixel_size_A or entry.get("pixel_size_A")), None


@dataclass(frozen=True)
class Columns:
    """Atom columns in an image.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Centres [px], x right, y down.
    height : ndarray, shape (n,)
        Peak heights, the brightest near 1.
    width : ndarray, shape (n,)
        Standard deviations [px].
    """

    x: np.ndarray
    y: np.ndarray
    height: np.ndarray
    width: np.ndarray


def render(columns, shape, tail=0.25):
    """Noise-free image of `columns`, shape (rows, columns); `tail` is the height of the broad part."""
    image = np.zeros(shape)
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    for scale, share in ((1.0, 1 - tail), (2.2, tail)):
        sigma = (scale * columns.width)[:, None]
        gy = np.exp(-(((rows - columns.y[:, None]) / sigma) ** 2) / 2)
        gx = np.exp(-(((cols - columns.x[:, None]) / sigma) ** 2) / 2)
        image += np.einsum("n,ny,nx->yx", share * columns.height, gy, gx, optimize=True)
    return image


def record(clean, rng, *, electrons_px, jitter_px=0.0, flicker=0.0, background=0.1, gradient=0.0):
    """Record a noise-free image line by line.

    Parameters
    ----------
    clean : ndarray, shape (rows, columns)
        Noise-free intensity, the brightest column near 1.
    electrons_px : float
        Detected electrons per pixel at intensity 1.
    jitter_px : float
        Standard deviation of each scan line's shift along x [px].
    flicker : float
        Standard deviation of each scan line's gain.
    background : float
        Uniform intensity added (support, thickness).
    gradient : float
        Peak-to-peak size of a smooth variation added across the image.

    Returns
    -------
    ndarray of float32, shape (rows, columns), in units of intensity.
    """
    rows, cols = clean.shape
    shift = rng.normal(0, jitter_px, rows)
    image = np.stack(
        [np.interp(np.arange(cols) + s, np.arange(cols), line) for s, line in zip(shift, clean, strict=True)]
    )
    image = (image + background + gradient * _smooth_field(rng, clean.shape)) * rng.normal(1, flicker, (rows, 1))
    return (rng.poisson(np.clip(image, 0, None) * electrons_px) / electrons_px).astype(np.float32)


def _smooth_field(rng, shape):
    """A smooth random surface between 0 and 1."""
    field = ndimage.zoom(rng.uniform(size=(3, 3)), [n / 3 for n in shape], order=3, mode="nearest", grid_mode=True)
    return (field - field.min()) / np.ptp(field)


def random_columns(rng, size):
    """Columns of a random two-dimensional crystal over a square of `size` pixels (for training).

    The primitive cell, its one to three kinds of columns, their heights (1 : 0.12 to 1 : 1), widths,
    disorder, vacancies and an optional straight edge to vacuum are drawn at random.
    """
    a = rng.uniform(9, 26)
    cell = a * np.array([[1, 0], [rng.choice([0.0, 0.5, rng.uniform(0, 0.3)]), rng.uniform(0.7, 1.4)]])
    turn = rng.uniform(0, 2 * np.pi)
    cell = cell @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    basis, height = _random_basis(rng, cell)
    reach = int(1.2 * size / a) + 2
    i, j = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    at = (np.stack([i, j], 1)[:, None] + basis[None]) @ cell + size / 2 + rng.uniform(0, a, 2)
    spacing = nearest(at.reshape(-1, 2))
    width = np.clip(spacing * rng.uniform(0.16, 0.28), 1.1, 5.5) * rng.uniform(0.85, 1.0, len(basis))
    height, width = (np.broadcast_to(v, at.shape[:2]).ravel() for v in (height, width))
    at = at.reshape(-1, 2) + rng.normal(0, 0.03 * spacing, (height.size, 2))
    keep = (np.abs(at - size / 2) < size / 2 + 8).all(1) & (rng.random(height.size) > rng.choice([0, 0.05]))
    if rng.random() < 0.2:  # an edge to vacuum
        keep &= (at - size / 2) @ rng.normal(size=2) < rng.uniform(0, size / 3)
    height = height * rng.normal(1, 0.06, height.size)
    return Columns(at[keep, 0], at[keep, 1], height[keep], width[keep]), spacing


def _random_basis(rng, cell):
    """Fractional positions (k, 2) and heights (k,) of a motif whose columns are not too close."""
    motifs = ([[0, 0]], [[0, 0], [0.5, 0.5]], [[0, 0], [0.5, 0.5], [0.5, 0]], [[0, 0], [1 / 3, 1 / 3]])
    basis = np.array(motifs[rng.choice(4, p=[0.25, 0.45, 0.15, 0.15])], float)
    if nearest(((np.mgrid[-1:2, -1:2].reshape(2, -1).T)[:, None] + basis[None]).reshape(-1, 2) @ cell) < 6.5:
        basis = basis[:1]
    height = np.append(1.0, rng.uniform(0.12, 1.0, len(basis) - 1))
    return basis, height


def nearest(points):
    """Median distance from a point to its nearest neighbour; points of shape (n, 2)."""
    gap, _ = cKDTree(points).query(points, k=2)
    return float(np.median(gap[:, 1]))


def training_example(rng, size=96):
    """One training pair: an image scaled to [0, 1] and the mask of its columns, (size, size) each."""
    columns, spacing = random_columns(rng, size)
    image = record(
        render(columns, (size, size), rng.uniform(0.05, 0.4)), rng, electrons_px=10 ** rng.uniform(0.9, 3),
        jitter_px=rng.uniform(0, 0.5), flicker=rng.uniform(0, 0.03), background=rng.uniform(0.02, 0.8),
        gradient=rng.choice([0.0, rng.uniform(0, 0.5)]),
    )  # fmt: skip
    image = ndimage.gaussian_filter(image, rng.choice([0.0, rng.uniform(0.3, 1.0)]))
    return scaled(image), mask(columns, (size, size), np.clip(0.2 * spacing, 1.6, 3.5))


def mask(columns, shape, radius):
    """Discs of `radius` [px] around the columns: float32, shape (rows, columns)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, bool)
    for cx, cy in zip(columns.x, columns.y, strict=True):
        inside |= (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
    return inside.astype(np.float32)


def scaled(image):
    """Image with its 0.2 and 99.8 percentiles at 0 and 1, clipped to [0, 1]."""
    low, high = np.percentile(image, (0.2, 99.8))
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def doubled_perovskite(
    shape=(512, 512), pixel_size_A=0.0781, *, spacing_A=3.85, shift_A=0.3, electrons_px=60.0, seed=0
):
    """A dark-field image of a perovskite whose A columns zigzag, with its true columns.

    Parameters
    ----------
    shape : tuple of int
        Rows, columns [px].
    spacing_A : float
        Distance between neighbouring A columns [Å].
    shift_A : float
        Each A column is displaced along y by ± this [Å], alternating along x.
    electrons_px : float
        Detected electrons per pixel at a bright column.

    Returns
    -------
    image : StemImage
        Marked as simulated.
    truth : dict of ndarray
        x_px, y_px, species ('A' or 'B') and environment (0, 1 for the two A, 2, 3 for the two B).
    """
    rng = np.random.default_rng(seed)
    a = spacing_A / pixel_size_A
    i, j = np.mgrid[-1 : int(shape[1] / a) + 2, -1 : int(shape[0] / a) + 2].reshape(2, -1)
    parity = i % 2
    x = np.concatenate([i * a, (i + 0.5) * a]) + 0.4 * a
    y = np.concatenate([j * a + np.where(parity, 1, -1) * shift_A / pixel_size_A, (j + 0.5) * a]) + 0.4 * a
    species = np.repeat(["A", "B"], i.size)
    environment = np.concatenate([parity, 2 + parity])
    inside = (x > -0.5) & (x < shape[1] - 0.5) & (y > -0.5) & (y < shape[0] - 0.5)
    height = np.where(species == "A", 1.0, 0.38)
    columns = Columns(x, y, height, np.where(species == "A", 0.62, 0.5) / pixel_size_A)
    clean = render(columns, shape)
    noisy = record(clean, rng, electrons_px=electrons_px, jitter_px=0.6, flicker=0.02, background=0.15)
    truth = {"x_px": x, "y_px": y, "species": species, "environment": environment}
    image = StemImage(noisy, pixel_size_A, "simulated doubled perovskite", simulated=True)
    return image, {name: value[inside] for name, value in truth.items()}


def rotated_twin(
    count,
    side=24,
    pixel_size_A=0.3125,
    *,
    spacing_A=3.85,
    shift_A=0.4,
    spread_rad=np.pi,
    contrast=0.6,
    noise=0.05,
    seed=0,
):
    """Sub-images of two known environments at known random orientations, scaled to [0, 1].

    The environments are those around an A and around a B column of the doubled perovskite; turning
    the first by any angle gives another image, the second looks the same after half a turn.

    Parameters
    ----------
    count : int
    spread_rad : float
        Orientations are uniform between minus and plus this [rad].
    contrast : float
        Intensity of an A column above the background.
    noise : float
        Standard deviation of the noise.

    Returns
    -------
    patches : ndarray of float32, shape (count, side, side)
    environment : ndarray of int, shape (count,)
        0 around A, 1 around B.
    angle : ndarray, shape (count,)
        Orientation [rad] in [-π, π), counter-clockwise as seen.
    """
    rng = np.random.default_rng(seed)
    environment, angle = rng.integers(0, 2, count), rng.uniform(-spread_rad, spread_rad, count)
    i, j = np.mgrid[-3:4, -3:4].reshape(2, -1)
    x = np.concatenate([i, i + 0.5]) * spacing_A
    y = np.concatenate([j, j + 0.5]) * spacing_A
    y[: i.size] += np.where(i % 2, -1, 1) * shift_A
    height, width = np.repeat([1.0, 0.38], i.size), np.repeat([0.62, 0.5], i.size) / pixel_size_A
    patches = np.empty((count, side, side), np.float32)
    for n in range(count):
        dx, dy = (x, y - shift_A) if environment[n] == 0 else (x - spacing_A / 2, y - spacing_A / 2)
        cos, sin = np.cos(angle[n]), np.sin(angle[n])
        seen = (cos * dx + sin * dy) / pixel_size_A, (cos * dy - sin * dx) / pixel_size_A
        patches[n] = render(Columns(seen[0] + (side - 1) / 2, seen[1] + (side - 1) / 2, height, width), (side, side))
    patches = 0.1 + contrast * patches + rng.normal(0, noise, patches.shape)
    return np.clip(patches, 0, 1).astype(np.float32), environment, angle
