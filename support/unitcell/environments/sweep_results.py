"""What is kept of a sweep: latents, classes and a few images of every setting, in one small file.

Every number is packed into a byte, since a page shows it, and no more: angles to 1.4°, latents to 1/250 of their range.
"""

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score

from unitcell.artefacts import existing, load_dataset, load_table, written
from unitcell.atoms.atom_maps import load_patches
from unitcell.environments.known import facts
from unitcell.environments.latent_figures import latent_grid
from unitcell.environments.rvae import load_rvae
from unitcell.environments.sweep import SEEDS, SETTINGS, folders
from unitcell.errors import InputError

LATENTS = ("angle_rad", "dx", "dy", "z1", "z2")
TRUTH = ("true_environment", "true_thickness_A", "true_interface_A")  # of the twins' sub-images
PARTITIONS = ("class", "kind", "motif")
GRID_STEPS = 5


def gather(profile, path):
    """Write one group for each setting of which chapters 06 to 08 have finished; returns the path.

    Raises
    ------
    InputError
        Not one setting has finished.
    """
    kept = {name: gathered(profile, setting) for name, setting in SETTINGS.items() if finished(profile, setting)}
    if not kept:
        raise InputError("No setting of the sweep has finished: run 'unitcell sweep' first.")
    save_groups(kept, path)
    return path


def finished(profile, setting):
    """Seeds of a setting whose mixtures are all there."""
    return [
        seed
        for seed in SEEDS
        if all((folders(profile, setting, seed, k)[2] / "classes.csv").is_file() for k in setting.components)
    ]


def gathered(profile, setting):
    """What is kept of one setting: xarray.Dataset (see `README` of its variables in `describe`)."""
    seeds = finished(profile, setting)
    find, learn, sort = folders(profile, setting, seeds[0], setting.components[0])
    patches, latent = load_patches(find / "patches.nc"), load_table(learn / "latent.csv", LATENTS)
    model, _ = load_rvae(learn / "rvae.safetensors")
    images = load_dataset(sort / "classes.nc", ("mean", "decoded", "tableau"))
    data = xr.Dataset({name: ("atom", latent[name].to_numpy()) for name in LATENTS})
    for name in ("x_px", "y_px", *TRUTH):
        if name in patches.coords:
            value = patches[name].values
            data[name] = ("atom", value.astype(np.int8) if name == "true_environment" else value)
    for name in PARTITIONS:
        data[name] = (("seed", "components", "atom"), _labels(profile, setting, seeds, name))
    data["grid"] = (("grid_up", "grid_right", "row", "col"), latent_grid(model, latent, GRID_STEPS))
    data = data.merge(images.rename({"class": "member"}).drop_vars("member"))
    if not images.tableau.values.any():
        data = data.drop_vars("tableau")
    data["example"] = (("row", "col"), patches.patch.values[len(latent) // 2])
    data = data.assign_coords(seed=list(seeds), components=list(setting.components))
    data.attrs = patches.attrs | {"system": setting.system, "setting": setting.name}
    return data


def _labels(profile, setting, seeds, column):
    """Classes, kinds or motifs of all atoms: ndarray of uint8, shape (seed, components, atom)."""

    def of(seed, count):
        path = folders(profile, setting, seed, count)[2] / "classes.csv"
        return load_table(path, (column,))[column].to_numpy(np.uint8)

    return np.array([[of(seed, count) for count in setting.components] for seed in seeds])


def save_groups(datasets, path):
    """Write datasets as groups of one netCDF file, numbers packed into bytes, coordinates into tenths of a pixel."""
    with written(path) as temporary:
        for n, (name, data) in enumerate(datasets.items()):
            data.to_netcdf(temporary, engine="h5netcdf", group=name, mode="a" if n else "w", encoding=_packing(data))


def _packing(data):
    encoding = {}
    for name, values in data.data_vars.items():
        packed = {"zlib": True, "complevel": 9, "shuffle": True}
        if values.dtype.kind == "f":
            low, high = float(values.min()), float(values.max())
            tenths = name in ("x_px", "y_px")
            step = 0.1 if tenths else max(high - low, 1e-6) / 254
            low = 0.0 if tenths else low
            packed |= {"dtype": "uint16" if tenths else "uint8", "scale_factor": step, "add_offset": low}
            packed |= {"_FillValue": 65535 if tenths else 255}
        encoding[name] = packed if values.dtype.kind in "fiu" else {}
    return encoding


def load_groups(path):
    """Read a file written by `gather`: dict of setting to xarray.Dataset."""
    path = existing(path, "run 'unitcell sweep', or give the path of another gathered sweep")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            tree = xr.open_datatree(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable netCDF file ({error}).") from error
    groups = {name: node.to_dataset().load() for name, node in tree.children.items() if "kind" in node}
    tree.close()
    if not groups:
        raise InputError(f"{path} holds no setting of a sweep: make it with 'unitcell sweep'.")
    return groups


def agreement(data, components, partition="class"):
    """Adjusted Rand index of each seed's partition against each known fact, and of each pair of seeds.

    Parameters
    ----------
    data : xarray.Dataset
        One setting of `load_groups`.
    components : int
    partition : {'class', 'kind', 'motif'}
        Classes of the mixture, those that look alike made one, or those that look alike after a turn.

    Returns
    -------
    against : dict of str to ndarray, shape (seed,)
    between_seeds : ndarray, shape (pairs,)
    """
    label = data[partition].sel(components=components).values
    pairs = [adjusted_rand_score(a, b) for n, a in enumerate(label) for b in label[:n]]
    against = {}
    for name, value in facts(data).items():
        sure = value >= 0
        against[name] = np.array([adjusted_rand_score(value[sure], one[sure]) for one in label])
    return against, np.array(pairs)


def stability(groups):
    """One row for each setting, number of components, partition and known fact: medians and worst cases over seeds."""
    rows = []
    for name, data in groups.items():
        for count in data.components.values:
            for partition in PARTITIONS:
                against, pairs = agreement(data, count, partition)
                between = np.median(pairs) if len(pairs) else np.nan
                rows += [
                    {
                        "setting": name, "components": int(count), "seeds": data.sizes["seed"],
                        "partition": partition, "against": fact, "median ARI": np.median(index),
                        "worst ARI": index.min(), "between seeds": between,
                    }
                    for fact, index in against.items()
                ]  # fmt: skip
    return pd.DataFrame(rows)


def small_map(data, name, points=64):
    """A latent at the atom nearest to each of points × points places: holoviews.Image of few bytes."""
    import holoviews as hv  # half a second, for pages only

    places = np.column_stack([data.x_px, data.y_px])
    x, y = (np.linspace(*np.quantile(axis, [0, 1]), points) for axis in places.T)
    nearest = cKDTree(places).query(np.stack(np.meshgrid(x, y[::-1]), -1).reshape(-1, 2))[1]
    picture = data[name].values[nearest].reshape(points, points)[::-1]
    return hv.Image(picture.astype(np.float16).astype(np.float32), bounds=(x[0], -y[-1], x[-1], -y[0]), vdims=name)
