"""What is known of atoms without any latent space, and how classes agree with it.

Of a real image: species by intensity and the side of a zigzag. Of a simulated twin: everything.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from unitcell.atoms.finding import zigzag
from unitcell.environments.mixture import side_of_neighbour
from unitcell.errors import InputError

UNKNOWN = -1
ENVIRONMENTS = {
    "lsmo_nio": ("A", "B", "NiO"),
    "sr3fe2o7": ("Sr, middle", "Sr, upper edge", "Sr, lower edge", "Fe, upper", "Fe, lower"),
}
MOTIF = np.array([0, 1, 1, 2, 2])  # of the environments of Sr3Fe2O7: what is the same but for half a turn
KINDS = {  # in the order of their numbers
    "species": ("A", "B"),
    "A, B or NiO": ENVIRONMENTS["lsmo_nio"],
    "motif (middle Sr, edge Sr, Fe)": ("middle Sr", "edge Sr", "Fe"),
}
PART = np.array([0, 1, 2, 1, 2])  # middle, upper or lower part of a layer


def matching_latents(table, data, model=None):
    """The latent table if it belongs to the sub-images (and the rVAE to both), or InputError."""
    count = data.sizes["atom"]
    if len(table) != count:
        raise InputError(
            f"latent has {len(table)} rows, but patches holds {count} sub-images: "
            "give the latent.csv made from these patches."
        )
    broken = ~np.isfinite(table.select_dtypes("number").to_numpy()).all(1)
    if broken.any():
        raise InputError(f"latent holds {broken.sum()} rows that are not finite: train the rVAE again (chapter 07).")
    if model is not None and model.side != data.sizes["x"]:
        raise InputError(
            f"rvae draws {model.side} × {model.side} pixels, but patches are {data.sizes['x']} × {data.sizes['x']}: "
            "give the rvae.safetensors made from these patches."
        )
    return table


def environment_of(data):
    """True environment of each atom of a twin, -1 for an atom that is none: ndarray of int, or None without truth."""
    if "true_environment" not in data:
        return None
    number = np.nan_to_num(data.true_environment.values.astype(float), nan=UNKNOWN).astype(int)
    return np.maximum(number, UNKNOWN)


def twin_of(data):
    """Which twin the sub-images are of, by the name of their image; InputError where it is none."""
    name = str(data.attrs.get("image_name", "an image without a name"))
    twin = name.removeprefix("twin ")
    if twin not in ENVIRONMENTS:
        raise InputError(f"{name} has true environments, but is none of the twins {', '.join(ENVIRONMENTS)}.")
    return twin


def groups(data):
    """Named selections of atoms, for colours: environments of a twin, else species."""
    environment = environment_of(data)
    if environment is None:
        return {str(s): data.species.values == s for s in np.unique(data.species.values)}
    return {name: environment == n for n, name in enumerate(ENVIRONMENTS[twin_of(data)])}


def facts(data):
    """What is known, the kind of surroundings first: dict of name to ndarray of int (atom,), -1 for not known."""
    environment = environment_of(data)
    if environment is None:
        return _facts_of_an_image(data)
    if twin_of(data) == "lsmo_nio":
        return {"A, B or NiO": environment}
    within = environment >= 0
    return {
        "motif (middle Sr, edge Sr, Fe)": np.where(within, MOTIF[environment], UNKNOWN),
        "part of the layer (middle, upper, lower)": np.where(within, PART[environment], UNKNOWN),
        "environment, all five": environment,
    }


def _facts_of_an_image(data):
    """Species, and for each species the side of a zigzag of the A columns."""
    points, is_a = np.column_stack([data.x_px, data.y_px]), data.species.values == "A"
    side_A = zigzag(points[is_a]) * data.attrs["image_pixel_size_A"]
    of_a, of_b = (np.full(len(points), UNKNOWN) for _ in range(2))
    of_a[is_a] = np.where(np.abs(side_A) > 0.1, side_A > 0, UNKNOWN)  # NaN compares as not known
    if (~is_a).any():
        side_B = side_of_neighbour(points[~is_a], points[is_a], side_A)
        of_b[~is_a] = np.where(np.isfinite(side_B), side_B > 0, UNKNOWN)
    known = {
        "species": (~is_a).astype(int),
        "side of the zigzag (A columns)": of_a,
        "shear of the cell (B columns)": of_b,
    }
    return {name: value for name, value in known.items() if name == "species" or len(np.unique(value[value >= 0])) > 1}


def agreement(label, known):
    """Adjusted Rand index of classes against each fact, where it is known: DataFrame `atoms`, `kinds`, `ARI`."""
    rows = {}
    for name, value in known.items():
        sure = value >= 0
        index = adjusted_rand_score(value[sure], np.asarray(label)[sure]) if sure.any() else np.nan
        rows[name] = {"atoms": int(sure.sum()), "kinds": len(np.unique(value[sure])), "ARI": index}
    return pd.DataFrame(rows).T.astype({"atoms": int, "kinds": int})


def purity(label, kind):
    """Share of atoms whose class has their kind as its commonest."""
    majority = pd.Series(kind).groupby(label).agg(lambda s: s.mode()[0])
    return float(np.mean(majority[label].to_numpy() == kind))
