"""Sub-images centred on atoms: cut from views of one image, a few thousand at a time, and written packed."""

import numpy as np
import xarray as xr
from scipy import ndimage

from unitcell.artefacts import written
from unitcell.errors import InputError

AT_ONCE = 2048  # windows that are copied before they are binned
SMOOTH_A = 0.25  # standard deviation of the smoothing
REPRESENTATIONS = ("raw", "smoothed", "segmented")


def cut_patches(image, atoms, probability, *, window_px=None, window_A=None, binning=1, representation="raw"):
    """Sub-images centred on the atoms, scaled to [0, 1].

    Parameters
    ----------
    image : StemImage
    atoms : pandas.DataFrame
        From `unitcell.atoms.finding.find_atoms`; further columns (of `with_truth`) become coordinates.
    probability : ndarray
        The segmentation, from `find_atoms`.
    window_px, window_A : int or float
        Edge of a window, in the image's pixels or in Å (rounded to whole binned pixels): one of them.
    binning : int
        Average blocks of binning × binning pixels.
    representation : {'raw', 'smoothed', 'segmented'}
        Intensities, the same under a Gaussian of 0.25 Å, or probabilities of the segmentation.

    Returns
    -------
    xarray.Dataset
        `patch` (atom, y, x) float32 with the atoms' table as coordinates, and `image`, the whole image in [0, 1] for
        maps. Atoms closer to the edge than half a window are left out. Beside the result only `AT_ONCE` windows are in
        memory.

    Raises
    ------
    InputError
        A window that is larger than the image, not a multiple of the binning, given twice or not at all, or that holds
        no atom's surroundings; an unknown representation; a segmentation of another shape.
    """
    source = _source(image, probability, representation)
    window_px = _window(image, window_px, window_A, binning)
    if window_px > min(source.shape):
        raise InputError(
            f"window_px = {window_px} is larger than {image.name} ({source.shape[1]} × {source.shape[0]} px): "
            "give a window of about 1.5 column distances."
        )
    corner_x = np.floor(atoms.x_px.to_numpy() - window_px / 2 + 1).astype(int)
    corner_y = np.floor(atoms.y_px.to_numpy() - window_px / 2 + 1).astype(int)
    inside = (corner_x >= 0) & (corner_y >= 0)
    inside &= (corner_x + window_px <= source.shape[1]) & (corner_y + window_px <= source.shape[0])
    if not inside.any():
        raise InputError(f"No atom of {image.name} is {window_px / 2:g} px from its edges: give a smaller window_px.")
    stack = _binned(source, corner_x[inside], corner_y[inside], window_px, binning)
    return _dataset(image, atoms[inside], stack, window_px, binning, representation)


def with_truth(atoms, twin, radius_A=0.8):
    """The atoms' table with what a twin knows of each in columns `true_…`: NaN or −1 where it has no column there.

    Parameters
    ----------
    atoms : pandas.DataFrame
    twin : xarray.Dataset
        From `unitcell.twins.haadf_twins.open_twin`.
    radius_A : float
    """
    from unitcell.atoms.finding import matched

    places = np.column_stack([twin.x_px, twin.y_px])
    pairs = matched(atoms[["x_px", "y_px"]].to_numpy(), places, radius_A / twin.attrs["pixel_size_A"])
    known = atoms.copy()
    for name in twin.data_vars:
        values = twin[name].values
        if twin[name].dims != ("column",) or values.dtype.kind not in "if":
            continue
        column = np.full(len(atoms), -1 if values.dtype.kind == "i" else np.nan, values.dtype)
        column[pairs[:, 0]] = values[pairs[:, 1]]
        known[f"true_{name}"] = column
    return known


def save_patches(data, path):
    """Write patches as 16-bit integers in chunks of atoms, an eighth of what float64 would take."""
    side = data.sizes["y"], data.sizes["x"]
    packed = {"dtype": "uint16", "scale_factor": np.float32(1 / 65534), "_FillValue": np.uint16(65535)}
    packed |= {"zlib": True, "complevel": 3}
    packed["chunksizes"] = (min(256, data.sizes["atom"]), *side)
    with written(path) as temporary:
        data.to_netcdf(temporary, engine="h5netcdf", encoding={"patch": packed, "image": {"zlib": True}})


def _window(image, window_px, window_A, binning):
    """Edge of a window [px]."""
    if (window_px is None) == (window_A is None):
        raise InputError("Give the window's size once: window_px in the image's pixels, or window_A in Å.")
    if window_A is not None:
        if not (np.isfinite(window_A) and window_A > 0):
            raise InputError(f"window_A = {window_A} is no length: give a positive number of Å.")
        window_px = binning * round(window_A / image.pixel_size_A / binning)
    if window_px < 8 * binning or window_px % binning:
        raise InputError(f"window_px = {window_px} must be a multiple of binning = {binning}, at least eight of it.")
    return window_px


def _source(image, probability, representation):
    """The image that the windows are cut from, in [0, 1]."""
    if representation not in REPRESENTATIONS:
        raise InputError(f"representation = '{representation}' is unknown: give 'raw', 'smoothed' or 'segmented'.")
    if representation == "segmented":
        if probability.shape != image.intensity.shape:
            raise InputError(
                f"The segmentation has shape {probability.shape}, but {image.name} {image.intensity.shape}: "
                "give the one that find_atoms returned for this image."
            )
        return probability
    scaled = np.clip(image.normalised(), 0, 1).astype(np.float32)
    return ndimage.gaussian_filter(scaled, SMOOTH_A / image.pixel_size_A) if representation == "smoothed" else scaled


def _binned(source, corner_x, corner_y, window_px, binning):
    """Windows averaged in blocks: float32 (n, side, side). Views of the image, copied a few at a time."""
    views = np.lib.stride_tricks.sliding_window_view(source, (window_px, window_px))
    side = window_px // binning
    stack = np.empty((len(corner_x), side, side), np.float32)
    for start in range(0, len(stack), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        blocks = views[corner_y[part], corner_x[part]].reshape(-1, side, binning, side, binning)
        stack[part] = blocks.mean((2, 4))
    return stack


def _dataset(image, atoms, stack, window_px, binning, representation):
    grey = np.round(255 * np.clip(image.normalised(), 0, 1)).astype(np.uint8)
    described = {
        "x_px": {"units": "px", "long_name": "x in the image, to the right"},
        "y_px": {"units": "px", "long_name": "y in the image, down"},
        "probability": {"units": "1"},
    }
    coords = {}
    for name in atoms:
        values = atoms[name].to_numpy()
        kept = values if values.dtype.kind in "ifb" else values.astype(object)
        coords[name] = ("atom", kept, described.get(name, {}))
    data = xr.Dataset(
        {
            "patch": (("atom", "y", "x"), stack, {"units": "1", "long_name": "scaled intensity"}),
            "image": (("row", "column"), grey, {"units": "1/255", "long_name": "the whole image, scaled"}),
        },
        coords=coords,
    )
    data.attrs = {
        "window_px": window_px, "binning": binning, "representation": representation, "image_name": image.name,
        "image_pixel_size_A": image.pixel_size_A, "patch_pixel_size_A": image.pixel_size_A * binning,
        "simulated": int(image.simulated),
    }  # fmt: skip
    return data
