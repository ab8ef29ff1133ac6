"""What is kept of a sweep: latents, classes and a few images of every setting, in one small file.

Every number is packed into a byte, since a page shows it, and no more: angles to 1.4°, latents to 1/250 of their range.
"""

import json
import warnings

import numpy as np
import pandas as pd
import xarray as xr
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
NOT_RUN = 0  # in place of a class
MEANT = {  # the partition that is meant to find what is known
    "A, B or NiO": "class",
    "motif (middle Sr, edge Sr, Fe)": "motif",
    "part of the layer (middle, upper, lower)": "class",
    "environment, all five": "kind",
}
GRID_STEPS = 5
SORTED = (  # settings whose classes the paper shows
    "lsmo_nio-36-raw", "lsmo_nio-24-segmented", "sr3fe2o7-32-raw", "sr3fe2o7-32-segmented", "sr3fe2o7-48-raw",
    "sr3fe2o7-48-segmented",
)  # fmt: skip


def gather(profile, path):
    """Write one group for each setting of which an rVAE has finished; returns the path.

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
    """Seeds of a setting whose rVAE is there."""
    return [seed for seed in SEEDS if (folders(profile, setting, seed, 0)[1] / "provenance.json").is_file()]


def gathered(profile, setting):
    """What is kept of one setting.

    Returns
    -------
    xarray.Dataset
        * latents (seed, atom), as in `latent.csv`;
        * `x_px`, `y_px` and the truth (atom);
        * `class`, `kind`, `motif` (seed, components, atom), from 1, or `NOT_RUN`;
        * of the first seed, `grid` (up, right, row, col), decoded over both latents, and for each number of classes K
          `mean<K>` and `decoded<K>` (class, row, col);
        * of the reference settings `turned` (route, measure): classes of sub-images that are turned at random.
    """
    seeds = finished(profile, setting)
    top, learn, sort = folders(profile, setting, seeds[0], setting.components[0])
    patches, latent = load_patches(top / "patches.nc"), _latents(profile, setting, seeds)
    model, _ = load_rvae(learn / "rvae.safetensors")
    data = xr.Dataset({name: (("seed", "atom"), np.array([one[name] for one in latent])) for name in LATENTS})
    for name in ("x_px", "y_px", *TRUTH):
        value = patches[name].values
        data[name] = ("atom", value.astype(np.int8) if name == "true_environment" else value)
    for name in PARTITIONS:
        data[name] = (("seed", "components", "atom"), _labels(profile, setting, seeds, name, len(latent[0])))
    data["grid"] = (("up", "right", "row", "col"), latent_grid(model, latent[0], GRID_STEPS))
    for count in setting.components:
        data = data.merge(_pictures(profile, setting, seeds[0], count))
    if setting.is_reference and (sort / "routes.csv").is_file():
        data["turned"] = _turned(load_table(sort / "routes.csv", ("route",)))
    data = data.assign_coords(seed=seeds, components=list(setting.components))
    return data.assign_attrs(
        patches.attrs | {"system": setting.system, "setting": setting.name} | _training(learn, model.side)
    )


def _training(folder, side):
    """How an rVAE was trained: presentations, encoder, and rms difference of a pixel from what it redraws."""
    given = json.loads((folder / "provenance.json").read_text())["parameters"]
    last = load_table(folder / "history.csv", ("reconstruction",)).reconstruction.iloc[-1]
    residual = given["noise_sd"] * np.sqrt(2 * last) / side
    return {"presentations": given["presentations"], "encoder": given["encoder"], "residual_rms": float(residual)}


def _latents(profile, setting, seeds):
    """The latent table of each seed."""
    return [load_table(folders(profile, setting, seed, 0)[1] / "latent.csv", LATENTS) for seed in seeds]


def _labels(profile, setting, seeds, column, atoms):
    """Classes, kinds or motifs of all atoms: ndarray of uint8, shape (seed, components, atom)."""

    def of(seed, count):
        path = folders(profile, setting, seed, count)[2] / "classes.csv"
        return load_table(path, (column,))[column].to_numpy(np.uint8) if path.is_file() else np.full(atoms, NOT_RUN)

    return np.array([[of(seed, count) for count in setting.components] for seed in seeds], np.uint8)


def _pictures(profile, setting, seed, count):
    """Mean and decoded image of each of `count` classes, none where this number was not run."""
    path = folders(profile, setting, seed, count)[2] / "classes.nc"
    if not path.is_file():
        return xr.Dataset()
    images = load_dataset(path, ("mean", "decoded"))[["mean", "decoded"]].drop_vars("class")
    return images.rename({"mean": f"mean{count}", "decoded": f"decoded{count}", "class": f"class{count}"})


def _turned(routes):
    """Chapter 08's comparison of routes on turned sub-images: DataArray (route, measure)."""
    table = routes.set_index("route").drop(columns="seconds").astype(np.float32)
    coords = {"route": list(table.index), "measure": list(table.columns)}
    return xr.DataArray(table.to_numpy(), coords, ("route", "measure"))


def save_groups(datasets, path):
    """Write datasets as groups of one netCDF file, numbers packed into bytes, coordinates into tenths of a pixel."""
    with written(path) as temporary:
        for n, (name, data) in enumerate(datasets.items()):
            data.to_netcdf(temporary, engine="h5netcdf", group=name, mode="a" if n else "w", encoding=_packing(data))


def _packing(data):
    encoding = {}
    for name, values in data.data_vars.items():
        packed = {"zlib": True, "complevel": 9, "shuffle": True}
        if name == "turned":
            continue
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


def complete(groups):
    """Return the settings if chapter 09 can show the paper's classes with them, or raise InputError."""
    lacking = [name for name in SORTED if name not in groups]
    unsorted = [n for n in SORTED if n in groups and (groups[n]["class"][0] == NOT_RUN).all("atom").any()]
    if lacking or unsorted:
        raise InputError(
            f"The sweep lacks {', '.join(lacking + [f'classes of {name}' for name in unsorted])}: "
            "run 'unitcell sweep' to its end."
        )
    return groups


def agreement(data, components, partition="class"):
    """Adjusted Rand index of each seed's partition against each known fact, and of each pair of seeds.

    Parameters
    ----------
    data : xarray.Dataset
        One setting of `load_groups`.
    components : int
    partition : {'class', 'kind', 'motif'}
        Classes of the mixture, those that look alike made one, or contents whatever their angle.

    Returns
    -------
    against : dict of str to ndarray, shape (seed,)
    between_seeds : ndarray, shape (pairs,)
    """
    label = data[partition].sel(components=components).values
    label = label[(label != NOT_RUN).all(1)]
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
                        "setting": name, "components": int(count), "seeds": len(index),
                        "partition": partition, "against": fact, "median ARI": np.median(index),
                        "worst ARI": index.min(), "between seeds": between,
                    }
                    for fact, index in against.items()
                    if len(index)
                ]  # fmt: skip
    return pd.DataFrame(rows)


def meant(table):
    """Of the rows of `stability` those of the partition that is meant to find each fact, whichever agrees best."""
    return table[table.partition == table.against.map(MEANT)]
