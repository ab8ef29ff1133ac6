"""The dense map of Laanait 2019, Figure S4: tilts from a window around every pixel, in one pass over the image.

Windows slid by one pixel share nearly all of their convolutions. Without padding inside the windows, every layer can
run over the whole image once: after a pooling with stride 2, the windows that start at odd pixels need the values in
between, so the pooling keeps all of them and later layers take every second one ("à trous", Holschneider 1989; for
networks Sermanet 2014). The answers are those of window-by-window evaluation, at a three-hundredth of the work.

Two things differ from networks that read registered windows. A window shifted by one column shows all tilts with the
other sign, and mirrors flip two of three, so what is defined at every pixel is |v|, |u| and |γ|. And windows are
standardised by the mean and standard deviation of the image, for those of each window are no convolution.
"""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy import ndimage
from torch.nn import functional
from tqdm.auto import tqdm

from unitcell.artefacts import load_weights
from unitcell.crystals.tilt_coordinates import length_of_doubled
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.networks.paper_network import PaperNetwork, a_trous
from unitcell.registration.columns import inside
from unitcell.registration.lattice import WINDOW_PITCH, band_limited, register

ARCHITECTURE = "dense-network"
# 2 × 2 projected cells are 40 × 56 pixels; of those, ten 3 × 3 convolutions and two poolings without padding use up
# 38 × 54 without a remainder. 3 pixels here are 0.6 Å, 4 pixels of the paper's finer windows 0.5 Å.
WINDOW_SHAPE = (38, 54)
CELL_SHAPE = (20, 28)  # of the 1 × 1 projected cell, a × √2·a
SCALE_DEG = 5.0  # of the network's outputs
TILTS = ("v_abs", "u_abs", "gamma_abs")
MEANING = {
    "v_abs": "size of the tilt about the beam [1-10]",
    "u_abs": "size of the tilt about [110], as if the pattern were uniform along the beam",
    "gamma_abs": "size of the tilt about [001]",
}
TILE = 256  # answers along a tile's edges: 25 MB of activations for 16 filters
MARGIN = 2  # columns by which the smooth lattice is continued beyond the image
STRIP = 256  # rows of a frame that are resampled together


def dense_network(filters=16, hidden=64, shape=WINDOW_SHAPE):
    """The paper's layers without padding, for windows of 2 × 2 cells at a pitch of 0.2 Å; three sizes come out."""
    return PaperNetwork(filters, hidden, shape, outputs=len(TILTS), padding="valid", kernel=3)


def load_dense_network(path=None):
    """A trained dense network, in evaluation mode, and its card.

    Parameters
    ----------
    path : path, optional
        Weights that `unitcell.tilts.dense_training` wrote; by default the committed ones.

    Raises
    ------
    InputError
        No such file, or other weights.
    """
    state, card = load_weights(path or fetch("dense_network"), ARCHITECTURE)
    network = dense_network(card["recipe"]["filters"], card["recipe"]["hidden"])
    network.load_state_dict(state)
    return network.eval(), card


def sizes(answers):
    """What the network says, ndarray (..., 3) → |v|, |u|, |γ| (..., 3) [degrees]; see `tilt_coordinates.softened`."""
    return length_of_doubled(np.maximum(np.asarray(answers) * SCALE_DEG, 0.0))


@torch.inference_mode()
def dense_tilts(image, network, *, tile=TILE, device="cpu", dtype=torch.float32, progress=True):
    """What a network says of every window of an image, in one fully convolutional pass, tile by tile.

    Equal to `network` on each window, to rounding: tiles overlap by a window less one pixel, so none sees an edge.

    Parameters
    ----------
    image : tensor or ndarray (H, W)
        Standardised, in the network's frame; NaN where there is no image.
    network : PaperNetwork
        Of padding "valid".
    tile : int
        Answers along each edge of a tile; bounds the memory.
    device : str or torch.device
    dtype : torch.dtype
    progress : bool
        Show a bar over the tiles, where there are several.

    Returns
    -------
    tensor (H − h + 1, W − w + 1, outputs)
        For windows of h × w pixels; [i, j] belongs to image[i : i + h, j : j + w]. NaN where that holds a NaN.

    Raises
    ------
    InputError
        A network that pads its windows, or an image smaller than a window.
    """
    image = torch.as_tensor(image)
    _require_passable(image, network)
    layers = a_trous(network, device, dtype)
    rows, columns = (whole - part + 1 for whole, part in zip(image.shape, network.shape, strict=True))
    found = torch.empty((rows, columns, network.outputs.out_features), dtype=dtype)
    corners = [(top, left) for top in range(0, rows, tile) for left in range(0, columns, tile)]
    for top, left in tqdm(corners, "tiles", disable=not progress or len(corners) == 1):
        bottom, right = min(top + tile, rows), min(left + tile, columns)
        part = image[top : bottom + network.shape[0] - 1, left : right + network.shape[1] - 1]
        found[top:bottom, left:right] = _tile_answers(part.to(device, dtype), layers, network.shape).cpu()
    return found


def _require_passable(image, network):
    """Refuse what one pass cannot repeat window by window."""
    if network.padding != "valid":
        raise InputError(
            f"A network of padding '{network.padding}' sees zeros around each window, which one pass over an image "
            "cannot repeat: give one of padding 'valid', such as unitcell.tilts.dense.dense_network()."
        )
    if image.ndim != 2 or any(whole < part for whole, part in zip(image.shape, network.shape, strict=True)):
        raise InputError(
            f"A frame of shape {tuple(image.shape)} holds no window of {' × '.join(map(str, network.shape))} pixels: "
            "give an image of a larger field of view."
        )


def _tile_answers(part, layers, window):
    """Answers (rows, columns, outputs) for the windows of one tile, NaN for those with a NaN."""
    shape = [whole - edge + 1 for whole, edge in zip(part.shape, window, strict=True)]
    missing = torch.isnan(part)
    x = torch.where(missing, 0.0, part)[None, None]
    for layer in layers:
        x = layer(x)
    # Poolings that leave a remainder make the pass answer for windows beyond the last whole one.
    x = x[0, :, : shape[0], : shape[1]].permute(1, 2, 0)
    if missing.any():
        holes = functional.max_pool2d(missing.to(part.dtype)[None, None], (window[0], 1), stride=1)
        holes = functional.max_pool2d(holes, (1, window[1]), stride=1)[0, 0] > 0
        x = torch.where(holes[..., None], torch.nan, x)
    return x


@dataclass(frozen=True)
class Frame:
    """An image resampled to the network's frame: [110] along columns, [001] along rows, 14 and 20 pixels a repeat.

    Parameters
    ----------
    intensity : ndarray of float32 (rows, columns)
        NaN outside the image.
    first : (int, int)
        Lattice coordinates (along [110], along [001]) of pixel (0, 0): a B column stands there.
    lattice : unitcell.registration.lattice.Lattice
    displacement_px : ndarray (2, n, m)
        (x, y) of the smooth lattice beyond the mean lattice [px] at B columns, from row and col −MARGIN on.
    """

    intensity: np.ndarray
    first: tuple
    lattice: object
    displacement_px: np.ndarray

    def positions(self, rows, columns):
        """(x, y) [px] in the image of frame pixels (rows, columns), two arrays of one shape."""
        along = np.stack([self.first[0] + columns / WINDOW_PITCH[1], self.first[1] + rows / WINDOW_PITCH[0]])
        mean = np.tensordot(self.lattice.vectors_px.T, along, axes=1)
        nodes = along[::-1] + MARGIN
        extra = [ndimage.map_coordinates(d, nodes, order=1, mode="nearest") for d in self.displacement_px]
        return tuple(o + m + e for o, m, e in zip(self.lattice.origin_px, mean, extra, strict=True))

    def standardised(self):
        """Intensity with zero mean and unit variance over the image: float32 (rows, columns)."""
        mean, spread = np.nanmean(self.intensity, dtype=float), np.nanstd(self.intensity, dtype=float)
        return ((self.intensity - mean) / max(spread, 1e-12)).astype(np.float32)


def frame_image(image, lattice):
    """Resample a whole image to the network's frame, once, by its registered lattice.

    As `lattice.extract_windows` does for single windows: low-pass filtered to the frame's pitch, then cubic
    splines, following drift and shear.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    lattice : unitcell.registration.lattice.Lattice

    Returns
    -------
    Frame
        Around the whole image: NaN in the corners, where the lattice is rotated.
    """
    height, width = image.intensity.shape
    corners = np.array([(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)])
    along = (corners - lattice.origin_px) @ np.linalg.inv(lattice.vectors_px)
    first, last = np.floor(along.min(0)).astype(int), np.ceil(along.max(0)).astype(int)
    shape = (last - first)[::-1] * WINDOW_PITCH + 1
    frame = Frame(np.full(shape, np.nan, np.float32), tuple(first.tolist()), lattice, _displacement(lattice))
    smooth = band_limited(image.intensity, lattice).astype(np.float32)
    for top in range(0, shape[0], STRIP):  # bounds the memory of the coordinates
        strip = frame.intensity[top : top + STRIP]
        rows, columns = np.indices(strip.shape, dtype=float)
        x, y = frame.positions(rows + top, columns)
        strip[:] = ndimage.map_coordinates(smooth, [y, x], order=3, mode="nearest", prefilter=False)
        strip[~inside(x, y, image.intensity.shape)] = np.nan
    return frame


def _displacement(lattice):
    """(x, y) of the smooth lattice beyond the mean lattice (2, n, m) at columns from −MARGIN on in both directions.

    Where no column is, the local lattice of the nearest one is continued.
    """
    places = lattice.b_columns[["row", "col"]].to_numpy()
    known = np.full(places.max(0) + 1 + 2 * MARGIN, -1)
    known[tuple((places + MARGIN).T)] = np.arange(len(places))
    nearest = known[tuple(ndimage.distance_transform_edt(known < 0, return_distances=False, return_indices=True))]
    nodes = np.moveaxis(np.indices(known.shape), 0, -1) - MARGIN
    steps = (nodes - places[nearest])[..., ::-1]  # along [110] and [001]
    smooth = lattice.centres_px[nearest] + np.einsum("rci,rcij->rcj", steps, lattice.cells_px[nearest])
    return np.moveaxis(smooth - lattice.origin_px - nodes[..., ::-1] @ lattice.vectors_px, -1, 0)


def cell_average(maps, step=1):
    """Moving average over 1 × 1 projected cell, a × √2·a (Figure S4), of what is not NaN.

    Half the weight of the two pixels at the ends makes it one cell wide and centred on its pixel.

    Parameters
    ----------
    maps : ndarray (rows, columns, n)
        Over the frame's pixels.
    step : 1, 2 or 4
        Pixels of the frame from one value to the next.

    Returns
    -------
    ndarray (rows, columns, n)
        NaN where `maps` is.

    Raises
    ------
    InputError
        A step that does not divide a cell.
    """
    if any(edge % step for edge in CELL_SHAPE):
        raise InputError(f"A step of {step} pixels does not divide a cell of {CELL_SHAPE}: give 1, 2 or 4.")
    averaged = np.empty_like(maps)
    for index in range(maps.shape[-1]):
        known = np.isfinite(maps[..., index])
        total, weight = np.where(known, maps[..., index], 0), known.astype(maps.dtype)
        for axis, edge in enumerate(CELL_SHAPE):
            taps = np.ones(edge // step + 1)
            taps[[0, -1]] = 0.5
            total, weight = (ndimage.correlate1d(each, taps, axis, mode="constant") for each in (total, weight))
        averaged[..., index] = np.where(known, total / np.maximum(weight, 0.25), np.nan)
    return averaged


def dense_map(image, network, lattice_A, *, lattice=None, step=1, **options):
    """The dense map of an ABF image: register, resample, one pass, average over cells.

    The network's answers are averaged, and then turned into degrees: they are expectations, sizes are not.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    network : PaperNetwork
        See `load_dense_network`.
    lattice_A : float
        Expected pseudo-cubic lattice parameter [Å].
    lattice : unitcell.registration.lattice.Lattice, optional
        Of this image, if it has been registered.
    step : int
        Keep every `step`-th value in both directions: after the average, four lose nothing.
    **options
        Of `dense_tilts`.

    Returns
    -------
    xarray.Dataset
        See `dense_dataset`.
    """
    frame = frame_image(image, lattice or register(image, lattice_A))
    answers = dense_tilts(frame.standardised(), network, **options).float().numpy()
    return dense_dataset(sizes(cell_average(answers)[::step, ::step]), frame, image, network.shape, step)


def dense_dataset(maps, frame, image, window=WINDOW_SHAPE, step=1):
    """Maps of sizes as an xarray Dataset for `tilt_maps.nc`.

    Parameters
    ----------
    maps : ndarray (rows, columns, 3)
        |v|, |u|, |γ| [degrees] at every `step`-th window of the frame.
    frame : Frame
    image : unitcell.micrographs.images.StemImage
    window : (int, int)
        Pixels of a window: each value stands at its window's centre.
    step : int

    Returns
    -------
    xarray.Dataset
        v_abs, u_abs, gamma_abs (float32) [degree] over along_001 and along_110 [Å], and x_px, y_px (float32) of every
        value in the image.
    """
    rows, columns = (
        np.arange(count) * step + (edge - 1) / 2 for count, edge in zip(maps.shape[:2], window, strict=True)
    )
    a_A = frame.lattice.a_A
    along = {
        "along_001": rows / WINDOW_PITCH[0] * a_A,
        "along_110": columns / WINDOW_PITCH[1] * a_A / np.sqrt(2),
    }
    grid = tuple(along)
    places = frame.positions(*np.meshgrid(rows, columns, indexing="ij"))
    data = {
        name: (grid, maps[..., index].astype(np.float32), {"units": "degree", "long_name": MEANING[name]})
        for index, name in enumerate(TILTS)
    }
    for name, values in zip(("x_px", "y_px"), places, strict=True):
        what = f"{name[0]} of the window's centre in the image"
        along[name] = (grid, values.astype(np.float32), {"units": "pixel", "long_name": what})
    dataset = xr.Dataset(data, along)
    for name in grid:
        dataset[name].attrs = {"units": "Å", "long_name": f"distance along [{name[-3:]}] from the frame's first pixel"}
    return dataset.assign_attrs(
        image=image.name,
        pixel_size_A=image.pixel_size_A,
        simulated=int(image.simulated),
        window_px=list(window),
        step_px=step,
        signs="sizes only: a window shifted by one column shows all tilts with the other sign",
    )
