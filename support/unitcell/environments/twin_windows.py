"""Sub-images cut at the true columns of the dark-field twins, with what is true of each: for testing the rVAE alone."""

import numpy as np
import pandas as pd
import xarray as xr

from unitcell.atoms.subimages import cut_patches
from unitcell.micrographs.images import StemImage
from unitcell.twins.haadf_twins import open_twin

TRUTHS = ("environment", "angle_rad", "symmetry", "side", "interface_A", "thickness_A")


def twin_windows(name, count, window_px, *, rotations_deg=(0.0,), shape=(620, 620), seed=0):
    """Sub-images of a twin, in [0, 1], at its true columns.

    Parameters
    ----------
    name : {'lsmo_nio', 'sr3fe2o7'}
    count : int
        Sub-images to draw at random.
    window_px : int
    rotations_deg : sequence of float
        One image is simulated for each, counter-clockwise as seen [degrees].
    shape : tuple of int
        Of each image [px].

    Returns
    -------
    xarray.Dataset
        As from `subimages.cut_patches` of the last image, with the truth as further coordinates of `atom`.
    """
    parts = [_windows(name, window_px, rotation, shape, seed + n) for n, rotation in enumerate(rotations_deg)]
    how = {"combine_attrs": "override", "data_vars": "all", "coords": "minimal", "compat": "override"}
    whole = xr.concat([part.drop_vars("image") for part in parts], "atom", **how)
    chosen = np.sort(np.random.default_rng(seed).permutation(whole.sizes["atom"])[:count])
    return whole.isel(atom=chosen).assign(image=parts[-1].image)


def _windows(name, window_px, rotation_deg, shape, seed):
    """All sub-images of one image."""
    twin = open_twin(name, shape=shape, rotation_deg=rotation_deg, seed=seed)
    image = StemImage(twin.image.values, twin.attrs["pixel_size_A"], f"twin {name}", simulated=True)
    truth = pd.DataFrame({key: twin[key].values for key in ("x_px", "y_px", "species", *TRUTHS)})
    half = window_px / 2 + 1
    inside = truth.x_px.between(half, shape[1] - half) & truth.y_px.between(half, shape[0] - half)
    atoms = truth[inside].assign(probability=1.0)
    data = cut_patches(image, atoms, twin.image.values, window_px=window_px)
    return data.assign_coords({key: ("atom", atoms[key].to_numpy()) for key in TRUTHS})


def angle_errors(angle, truth, symmetry, environment):
    """Errors of encoded angles [rad], each environment's own zero and its symmetry taken out.

    Parameters
    ----------
    angle, truth : array_like, shape (n,)
    symmetry : array_like of int, shape (n,)
        How many turns of 2π/symmetry leave the motif as it was; one number for an environment.
    environment : array_like, shape (n,)

    Returns
    -------
    ndarray, shape (n,), in [−π/symmetry, π/symmetry)
    """
    angle, truth, symmetry, environment = map(np.asarray, (angle, truth, symmetry, environment))
    turns = np.exp(1j * symmetry * (angle - truth))
    zero = np.ones_like(turns)
    for kind in np.unique(environment):
        zero[environment == kind] = np.exp(1j * np.angle(turns[environment == kind].mean()))
    return np.angle(turns / zero) / symmetry
