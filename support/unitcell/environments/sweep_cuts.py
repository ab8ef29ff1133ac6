"""Sub-images of a sweep's settings, cut from the widest ones: the same atoms in every window."""

import numpy as np

from unitcell.atoms.atom_maps import load_patches
from unitcell.atoms.subimages import save_patches
from unitcell.errors import InputError


def narrowed(data, window_px, most=None):
    """The middle of every sub-image, of the atoms on the scan lines nearest to the middle of the image.

    Whole lines, so that neighbours stay neighbours and the field keeps its width.

    Parameters
    ----------
    data : xarray.Dataset
        From `atom_maps.load_patches`, not binned.
    window_px : int
        As wide as the sub-images or narrower by an even number.
    most : int, optional
        Atoms that are kept; None: all.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    InputError
        A window that is wider than the sub-images or not in their middle.
    """
    margin, odd = divmod(data.sizes["x"] - window_px, 2)
    if margin < 0 or odd:
        raise InputError(
            f"A window of {window_px} px has no place in the middle of sub-images of {data.sizes['x']} px: "
            "give one that is narrower by an even number."
        )
    y = data.y_px.values
    kept = np.sort(np.argsort(np.abs(y - data.sizes["row"] / 2), kind="stable")[:most])
    middle = slice(margin, margin + window_px)
    return data.isel(atom=kept, x=middle, y=middle).assign_attrs(window_px=window_px)


def narrow(source, target, window_px, most=None):
    """Write the patches of `narrowed` of the patches at `source` to `target`."""
    save_patches(narrowed(load_patches(source), window_px, most), target)
