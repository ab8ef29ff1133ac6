"""Lattice registration: the projected [110] perovskite lattice of an ABF image, column by column.

Frame: x ∥ [110], y ∥ [001]. With a the pseudo-cubic lattice parameter, B columns are at (m a/√2, k a), A columns (with
the apical oxygen) at (m a/√2, (k+½) a), equatorial oxygen at ((m+½) a/√2, k a). All of them are dark in an ABF image,
and the widest bright place is the hole at ((m+½) a/√2, (k+½) a). Image coordinates are (x right, y down) in pixels.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import ndimage

from unitcell.errors import InputError
from unitcell.registration.columns import (
    MARGIN_A,
    SITES,
    confidence,
    find_columns,
    inside,
    local_lattice,
    positions,
    surface,
)
from unitcell.registration.displacement import phase_field
from unitcell.registration.reciprocal import SCALE_TOLERANCE, find_reciprocal

# Of the template that tells the sites apart: by where the oxygen is, for either of A and B may be the darker one.
DARKNESS = {"A": 0.85, "B": 0.8, "O": 0.5}
CELL_SHAPE = (40, 28)  # of the mean cell: [001] × [110]
UNLIKE = 0.8  # likeness to a perovskite's cell below which a lattice of another size may be the true one
SIZES_A = (3.0, 6.0)  # of perovskites
SHORTEST = 3  # cells along either direction
WINDOW_PITCH = (20, 14)  # window pixels per [001] and [110] repeat


@dataclass(frozen=True)
class Lattice:
    """The lattice registered in one image.

    Parameters
    ----------
    vectors_px : ndarray, shape (2, 2)
        Rows: mean [110] and [001] repeat, each (x, y) [px]; det > 0 (a proper rotation).
    origin_px : ndarray, shape (2,)
        Where the mean lattice puts the B column of row 0, col 0: (x, y) [px].
    rotation_deg : float
        From image right to [110], positive towards image down [°], in [-45, 135).
    a_A : float
        Mean lattice parameter by the stated pixel size [Å].
    b_columns, a_columns : pandas.DataFrame
        row (along [001]), col (along [110]), x_px, y_px (the column's centre where found, else where the lattice puts
        it), found, confidence (correlation of the column's cell with the mean cell, 0 to 1). A column (row, col)
        lies half a repeat along +[001] from B column (row, col).
    centres_px : ndarray, shape (n, 2)
        Smooth lattice at each B column: (x, y) [px].
    cells_px : ndarray, shape (n, 2, 2)
        Local [110] and [001] repeats at each B column, as `vectors_px`.
    mean_cell : ndarray, shape (40, 28)
        Average unit cell, rows along [001], columns along [110], the B column at its centre.
    depths : dict of str to float
        Darkness of sites A, B and O below the hole, as a fraction of the mean cell's range.
    shift_A : ndarray, shape (2,)
        Mean displacement of the B columns against the centre between A columns, along [110] and [001] [Å]: zero for
        a cubic crystal seen exactly along the zone axis.
    """

    vectors_px: np.ndarray
    origin_px: np.ndarray
    rotation_deg: float
    a_A: float
    b_columns: pd.DataFrame
    a_columns: pd.DataFrame
    centres_px: np.ndarray
    cells_px: np.ndarray
    mean_cell: np.ndarray
    depths: dict
    shift_A: np.ndarray


def register(image, lattice_A):
    """Register the projected lattice of an ABF image, whatever its in-plane rotation.

    Diffraction spots give the two vectors, the phases of two lattice waves the smooth displacement (drift, shear),
    the mean cell the sites; then every column is fitted (see `columns.find_columns`), and a local affine fit
    through the columns around it gives the lattice at each B column.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    lattice_A : float
        Expected pseudo-cubic lattice parameter [Å], within 15 %.

    Returns
    -------
    Lattice

    Raises
    ------
    InputError
        No such lattice, a scale that disagrees with `lattice_A`, fewer than 3 × 3 cells, bright columns (ADF).
    """
    if not SIZES_A[0] <= lattice_A <= SIZES_A[1]:
        raise InputError(f"A lattice parameter of {lattice_A:g} Å is no perovskite's: give one of 3 to 6 Å.")
    _require_field(image, lattice_A)
    # Single hot pixels must not outshine the lattice: windows are cut from the image as it is.
    intensity = np.clip(image.intensity, *np.percentile(image.intensity, (1, 99))).astype(np.float32)
    image = replace(image, intensity=intensity)
    reciprocal, explained, rival = find_reciprocal(intensity, lattice_A / image.pixel_size_A)
    direct = np.linalg.inv(reciprocal).T  # rows: [110], [001] [px]
    cell_px = np.sqrt(np.sqrt(2) * np.linalg.det(direct))  # a from the cell's area a²/√2
    _require_crystal(image, explained)
    _require_scale(image, lattice_A, cell_px * image.pixel_size_A)
    flat = intensity - ndimage.gaussian_filter(intensity, cell_px, truncate=3.0)
    field = phase_field(flat, reciprocal, cell_px)
    cell = _folded(flat, field)
    if rival and _likeness(cell).max() < UNLIKE:
        _require_scale(image, lattice_A, rival * lattice_A)
    origin = _site_origin(image, cell)
    columns = find_columns(surface(intensity, cell_px), field, origin, MARGIN_A / image.pixel_size_A)
    _require_cells(image, columns["B"])
    _require_columns(image, columns)
    first = columns["B"][["row", "col"]].min()
    for table in columns.values():
        table[["row", "col"]] -= first
    return _assembled(image, columns, direct)


def iter_windows(image, lattice, chunk=4000, rows=40, cols=56):
    """Windows around the B columns, `chunk` at a time: bounds the memory of large images.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    lattice : Lattice
        From `register`.
    chunk : int
        Most windows in one array.
    rows, cols : int
        Of a window [px].

    Yields
    ------
    ndarray of float32, shape (≤ chunk, rows, cols)
        In the order of `lattice.b_columns`; as `extract_windows`.
    """
    down, right = np.mgrid[:rows, :cols].astype(float)
    steps = np.stack([(right - cols // 2) / WINDOW_PITCH[1], (down - rows // 2) / WINDOW_PITCH[0]], -1)
    smooth = band_limited(image.intensity, lattice)
    for start in range(0, len(lattice.centres_px), chunk):
        windows = np.full((min(chunk, len(lattice.centres_px) - start), rows, cols), np.nan, np.float32)
        for first in range(0, len(windows), 500):  # bounds the memory of the coordinates
            part = slice(start + first, start + min(first + 500, len(windows)))
            x, y = positions(lattice.centres_px[part], lattice.cells_px[part], steps)
            whole = inside(x, y, image.intensity.shape).all((1, 2))
            at = np.stack([y[whole], x[whole]])
            windows[first : first + 500][whole] = ndimage.map_coordinates(
                smooth, at, order=3, mode="nearest", prefilter=False
            )
        yield windows


def extract_windows(image, lattice, rows=40, cols=56):
    """Windows around every B column, resampled to the network's frame by the local affine map.

    The B column is at index (rows/2, cols/2), [110] runs along the columns with a pitch of (a/√2)/14 and
    [001] along the rows with a pitch of a/20, so 40 × 56 spans 2a × 2√2a. The image is low-pass filtered
    to the window's pitch first (Gaussian), then interpolated by cubic splines.

    Returns
    -------
    windows : ndarray of float32, shape (n, rows, cols)
        Window i belongs to `lattice.b_columns.iloc[i]`; all NaN where it reaches outside the image.
    """
    windows = np.empty((len(lattice.centres_px), rows, cols), np.float32)
    start = 0
    for part in iter_windows(image, lattice, rows=rows, cols=cols):
        windows[start : start + len(part)] = part
        start += len(part)
    return windows


def band_limited(intensity, lattice):
    """Spline coefficients of the image, filtered to the window's pitch."""
    pitch_px = np.linalg.norm(lattice.vectors_px, axis=1) / WINDOW_PITCH[::-1]
    sigma = 0.5 * np.sqrt(max(np.mean(pitch_px) ** 2 - 1, 0))
    smooth = ndimage.gaussian_filter(intensity, sigma, output=np.float32)
    return ndimage.spline_filter(smooth, order=3, output=np.float32)


def _folded(flat, field, most=4_000_000):
    """Mean cell of the image: rows along [001], columns along [110], from the field's arbitrary origin.

    Large images are folded from evenly spaced scan lines, `most` pixels in all.
    """
    lines = np.arange(0, len(flat), 1 + flat.size // most)
    y, x = np.meshgrid(lines.astype(float), np.arange(flat.shape[1], dtype=float), indexing="ij")
    n_x, n_y = field.coordinates(x, y)
    rows, cols = (np.floor((n % 1) * size).astype(int) % size for n, size in zip((n_y, n_x), CELL_SHAPE, strict=True))
    index = (rows * CELL_SHAPE[1] + cols).ravel()
    count = np.bincount(index, minlength=np.prod(CELL_SHAPE))
    total = np.bincount(index, flat[lines].ravel(), np.prod(CELL_SHAPE))
    return ndimage.gaussian_filter((total / np.maximum(count, 1)).reshape(CELL_SHAPE), 1.0, mode="wrap")


def _template(sites):
    """A mean cell with dark Gaussian columns (σ = 0.14 a) at `sites`, B at index (0, 0), zero mean, unit norm."""
    y, x = (np.arange(n) / n for n in CELL_SHAPE)
    cell = np.zeros(CELL_SHAPE)
    for site, darkness in sites.items():
        dx, dy = ((c - s + 0.5) % 1 - 0.5 for c, s in zip((x, y), SITES[site], strict=True))
        cell -= darkness * np.exp(-((dx[None] ** 2) / 2 + dy[:, None] ** 2) / (2 * 0.14**2))
    cell -= cell.mean()
    return cell / np.linalg.norm(cell)


def _site_origin(image, cell):
    """Fraction of the folded cell (along [110], [001]) at which the B column lies; refuses bright columns."""
    dark = _likeness(cell)
    cell = (cell - cell.mean()) / np.linalg.norm(cell - cell.mean())
    bright = _correlation(-cell, _template({"A": 1.0, "B": 0.5}))
    if bright.max() > dark.max():
        raise InputError(
            f"{image.name} shows bright columns on a dark ground, like an ADF image: give the ABF image "
            "taken with it, in which columns are dark."
        )
    if dark.max() < 0.6:
        raise InputError(
            f"The mean unit cell of {image.name} does not look like a perovskite along [110] (correlation "
            f"{dark.max():.2f}): give an ABF image along [110], or correct its pixel size."
        )
    row, col = np.unravel_index(dark.argmax(), dark.shape)
    return np.array([(col + 0.5) / CELL_SHAPE[1], (row + 0.5) / CELL_SHAPE[0]])


def _likeness(cell):
    """Correlation of a folded cell with a perovskite's at every shift."""
    return _correlation((cell - cell.mean()) / np.linalg.norm(cell - cell.mean()), _template(DARKNESS))


def _correlation(cell, template):
    """Correlation of a folded cell with the template at every shift."""
    return np.fft.ifft2(np.fft.fft2(cell) * np.conj(np.fft.fft2(template))).real


def _assembled(image, columns, direct):
    """The Lattice from the tables of both sites."""
    fits = {site: local_lattice(columns, site, direct) for site in "BA"}
    b = columns["B"]
    design = np.column_stack([np.ones(len(b)), b.col, b.row])
    mean = np.linalg.lstsq(design, fits["B"][0])[0]
    for site, table in columns.items():
        missing = ~table.found.to_numpy()
        table.loc[missing, ["x_px", "y_px"]] = fits[site][0][missing]
        table["confidence"] = confidence(image, *fits[site])
    cell = _mean_cell(image, *fits["B"])
    rotation = np.degrees(np.arctan2(mean[1, 1], mean[1, 0]))
    a_A = np.sqrt(np.sqrt(2) * np.linalg.det(mean[1:])) * image.pixel_size_A
    shift_A = _shift(columns["A"], fits["A"][0], mean) * a_A * (np.sqrt(0.5), 1)
    return Lattice(
        mean[1:], mean[0], float(rotation), float(a_A), b, columns["A"], *fits["B"], cell, _depths(cell), shift_A
    )  # fmt: skip


def _shift(a_columns, centres_px, mean):
    """Mean displacement of the B lattice `mean` against the centre between A columns, in repeats."""
    expected = mean[0] + (a_columns[["col", "row"]] + np.array(SITES["A"])) @ mean[1:]
    return np.linalg.solve(mean[1:].T, np.mean(expected.to_numpy() - centres_px, axis=0))


def _mean_cell(image, centres, cells):
    """Average unit cell at 40 × 28 points, B column at the centre."""
    every = slice(None, None, 1 + len(centres) // 2000)
    centres, cells = centres[every], cells[every]
    y, x = ((np.arange(n) - n // 2) / n for n in CELL_SHAPE)
    at_x, at_y = positions(centres, cells, np.stack(np.meshgrid(x, y), -1))
    whole = inside(at_x, at_y, image.intensity.shape).all((1, 2))
    use = whole if whole.any() else slice(None)
    sampled = ndimage.map_coordinates(image.intensity, [at_y[use], at_x[use]], float, order=1, mode="nearest")
    return sampled.mean(0)


def _depths(cell):
    """Darkness of each site below the hole, as a fraction of the mean cell's range."""
    smooth = ndimage.gaussian_filter(cell, 1.0, mode="wrap")
    rows, cols = CELL_SHAPE
    value = {s: smooth[(rows // 2 + round(y * rows)) % rows, (cols // 2 + round(x * cols)) % cols]
             for s, (x, y) in SITES.items()}  # fmt: skip
    return {site: float((value["hole"] - value[site]) / np.ptp(smooth)) for site in "ABO"}


def _require_field(image, lattice_A):
    """Refuse fields that cannot hold 3 × 3 cells at any rotation."""
    shorter, longer = sorted(image.field_A)
    least = SHORTEST * lattice_A * (1 - SCALE_TOLERANCE)
    if longer < least or shorter < least / np.sqrt(2):
        raise _too_few(image, f"is {shorter:.1f} × {longer:.1f} Å")


def _require_cells(image, b):
    """Refuse images with fewer than 3 × 3 B columns."""
    if b.row.nunique() < SHORTEST or b.col.nunique() < SHORTEST:
        raise _too_few(image, f"shows {b.row.nunique()} × {b.col.nunique()} B columns")


def _require_columns(image, columns, least=0.3):
    """Refuse images in which the lattice is seen but not its columns."""
    located = min(table.found.mean() for table in columns.values())
    if located < least:
        raise InputError(
            f"Only {located:.0%} of the columns of {image.name} could be located: give an image with less noise "
            "or better resolution."
        )


def _too_few(image, what):
    return InputError(f"{image.name} {what}, fewer than 3 × 3 unit cells: give a larger field of view.")


def _require_scale(image, lattice_A, found_A):
    """Refuse a lattice whose size disagrees with the one expected."""
    ratio = found_A / lattice_A
    if abs(ratio - 1) > SCALE_TOLERANCE:
        raise InputError(
            f"At {image.pixel_size_A:.4g} Å per pixel the lattice of {image.name} measures {ratio:.2f} times the "
            f"expected {lattice_A:.4g} Å: correct pixel_size_A (about {image.pixel_size_A / ratio:.4g}) or the "
            "lattice parameter."
        )


def _require_crystal(image, explained, least=0.35):
    """Refuse images whose spots do not lie on one lattice (noise, another zone axis)."""
    if explained < least:
        raise InputError(
            f"No projected perovskite lattice was found in {image.name} (it explains {explained:.0%} of the "
            "diffraction spots): give an atomically resolved image along [110], or correct its pixel size."
        )
