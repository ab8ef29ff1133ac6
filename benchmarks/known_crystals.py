"""Tilts where the crystal is known, on images that nothing was fitted to: abTEM's frozen phonons, and leaning crystals.

Each structure, thickness and dose is one image of 40 columns: sharp windows as in `accuracy.py`, whose mean is fitted
(`unitcell.known_crystals.specimen_fit`) with thickness, lens and crystal tilt unknown; the network's answer is where
the fit starts. Then the simulated twins of chapter 05, upright, at 5e4 e/Å², and the real SrTiO3 image. About two hours
on two cores.
Prints tables, and one JSON line last, for windows beyond 90 Å at 3e4 e/Å² unless it says otherwise:

* `rms_v`, `rms_u`, `rms_gamma` [degrees]: abTEM's SrTiO3 at 199 Å; `worst_…`: the largest over the other materials of
  abTEM and over leaning crystals (≤ 3 mrad) of five materials, by material and thickness; `network_worst_…`: the
  network's on the same windows
* `coverage_min`, `coverage_max`, `coverage_mean` of the 90 % intervals, mean of v, u, γ, over dose × thickness ×
  material
* `crlb_ratio_1e4`, `crlb_ratio_1e5`: rms error over the Cramér–Rao bound of a window whose thickness, defocus and
  crystal tilt are known, as they are from the other windows of its image; median over states and v, u, γ
* `twins_v`, `twins_u`, `twins_gamma` [degrees], `twins_coverage`, `twins_far`, `twins_near`: over the twins with their
  crystals known, see `unitcell.twins.twin_scores.score`; `network_twins_…` with the network alone
* `control_…`, as in `tilt_maps.py`: the real SrTiO3 image, known to be that
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import STATES, WINDOWS, perfect_windows
from tilt_maps import control
from tqdm import tqdm
from unitcell.artefacts import load_dataset, save_table
from unitcell.crystals.tilt_coordinates import halved
from unitcell.data import fetch
from unitcell.known_crystals.columns import KnownCrystals, known_crystals
from unitcell.known_crystals.materials import Material, parse_material
from unitcell.known_crystals.search import Reading
from unitcell.known_crystals.specimen_fit import fit_specimen
from unitcell.networks.tilt_network import errors, estimates, load_network
from unitcell.networks.training_library import MATERIALS
from unitcell.networks.training_windows import standardise
from unitcell.networks.truth_windows import NAMES, SHARP, true_images
from unitcell.project import project_root
from unitcell.scattering import Microscope
from unitcell.surrogates.information import bounds_table
from unitcell.tilts.analysis import analyse
from unitcell.twins.abf_twins import open_twin
from unitcell.twins.twin_crystals import COMPOSITIONS, IN_PLANE_A, twin_layers
from unitcell.twins.twin_scores import TWINS, read_twin, score

LEAST_A = 90.0
CONTROL_NETWORK = "tilt_network_20mrad"  # for the microscope that the real image looks like it was taken with
KNOWN = {f"{a}{b}O3": f"{a},{b},{lattice_A}" for a, b, lattice_A in MATERIALS}


def main():
    """Fit every image, with as many processes as are asked for."""
    parser = argparse.ArgumentParser(description="Accuracy of tilts where the crystal is known.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--doses", type=float, nargs="+", default=[3e4], help="e/Å²")
    parser.add_argument("--structures", type=int, default=4, help="of each material, at most")
    parser.add_argument("--parts", nargs="+", default=["images", "bounds", "twins", "control"], help="what to measure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the recordings of the twins")
    default = project_root() / "support/unitcell/reference/known_crystals.csv"
    parser.add_argument("--out", type=Path, default=default, help="table of the images")
    given = parser.parse_args()
    found = {}
    with ProcessPoolExecutor(given.processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        if "images" in given.parts:
            shown = image_table([(*image, dose) for dose in given.doses for image in images(given.structures)], pool)
            save_table(shown, given.out, decimals=3)
            found |= figures(shown)
        if "bounds" in given.parts:
            found |= {f"crlb_ratio_{name}": bound_ratio(dose, pool) for name, dose in (("1e4", 1e4), ("1e5", 1e5))}
        if "twins" in given.parts:
            found |= twin_figures(pool, given.seeds)
        if "control" in given.parts:
            found |= control(read_known, pool.map)
    print(json.dumps({name: round(float(value), 4) for name, value in found.items()}))


def image_table(tasks, pool):
    """Errors and coverage by set, material, thickness and dose."""
    rows = list(tqdm(pool.map(image_errors, *zip(*tasks, strict=True)), total=len(tasks), desc="images"))
    cells = pd.concat(rows).groupby(["set", "material", "thickness", "dose"], sort=False)
    shown = cells.apply(summary).reset_index()
    print(shown.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    return shown


def twin_figures(pool, seeds):
    """Print the scores of every twin by network and by fit, and return them over all twins."""
    tasks = list(product(TWINS, seeds))
    columns = dict(zip(tasks, pool.map(twin_columns, *zip(*tasks, strict=True)), strict=True))
    found = {}
    for place, prefix in enumerate(("network_twins", "twins")):
        for (name, seed), pair in columns.items():
            print(f"{prefix} {name} {seed}", score(pair[place]).round(3).to_dict())
        whole = score(pd.concat([pair[place] for pair in columns.values()]))
        found |= {f"{prefix}_{name}": whole[name] for name in (*NAMES, "coverage")}
        found |= {f"{prefix}_{where}": whole[f"pattern_{where}"] for where in ("far", "near")}
    return found


def twin_columns(name, seed):
    """Columns of a twin by the network alone, and with its crystals known: lattice parameters are of their volumes."""
    purest_last = sorted(twin_layers(name), key=lambda each: -each.film_share)
    volumes = {each.material: IN_PLANE_A**2 * each.layer.lattice_A for each in purest_last}
    materials = tuple(Material(*COMPOSITIONS[one], volume ** (1 / 3)) for one, volume in volumes.items())
    twin, network = open_twin(name, seed=seed), load_network()
    return [read_twin(twin, network, known)[1] for known in (None, KnownCrystals(materials, Microscope()))]


def read_known(image):
    """Summary of what is read in an image that is known to be of SrTiO3."""
    network = load_network(fetch(CONTROL_NETWORK))
    return analyse(image, network, known=known_crystals([KNOWN["SrTiO3"]], network.card)).summary


def summary(part):
    """Rms errors and coverage of some windows."""
    found = {name: rms(part[name]) for name in NAMES} | {"coverage": part.inside.mean()}
    return pd.Series(found | {f"network_{name}": rms(part[f"network_{name}"]) for name in NAMES})


def figures(shown):
    """What the JSON line holds of the table."""
    at = shown[shown.dose == 3e4]
    own = at[(at.set == "phonon") & (at.material == "SrTiO3") & (at.thickness > 150)].iloc[0]
    others = at[~((at.set == "phonon") & (at.material == "SrTiO3"))]
    found = {f"rms_{name}": own[name] for name in NAMES} | {f"worst_{name}": others[name].max() for name in NAMES}
    found |= {f"network_worst_{name}": others[f"network_{name}"].max() for name in NAMES}
    cover = shown.coverage
    return found | {"coverage_min": cover.min(), "coverage_max": cover.max(), "coverage_mean": cover.mean()}


@cache
def truth(name):
    """The committed images of `phonon_truth` or `leaning_truth` whose tilts do not alternate along the beam."""
    found = true_images(load_dataset(fetch(f"{name}_truth"), ("abf",)))
    return {one.material: one for one in found if "alternating" not in one.material}


def images(most):
    """(set, material, thickness index, structure index) of every image that is fitted."""
    for name in ("phonon", "leaning"):
        for material, one in truth(name).items():
            for depth in np.flatnonzero(one.depth_A > LEAST_A):
                for structure in range(min(most, len(one.cells))):
                    yield name, material, int(depth), structure


def image_errors(name, material, depth, structure, dose):
    """Errors of fit and network, and whether intervals hold the truth, in every window of one image: DataFrame."""
    one = truth(name)[material]
    windows, projection = one.windows(depth, dose, SHARP, torch.Generator().manual_seed(structure))
    here = slice(structure, None, len(one.cells))
    table = window_errors(windows[here], projection[here], parse_material(KNOWN[material]))
    return table.assign(set=name, material=material, thickness=one.depth_A[depth], dose=dose)


def window_errors(windows, projection, material):
    """The same for windows of one structure."""
    _, mean, variance = load_network().raw(windows)
    centre, _ = estimates(mean.double().numpy(), variance.double().numpy())
    flat = standardise(windows).flatten(1).double().numpy()
    seen, count = flat.mean(0), len(flat)
    noise = ((flat - seen) ** 2).mean() * count / (count - 1)
    best = fit_specimen(seen, noise / count, reading(mean, variance), [material])[0]
    tilts, spread, _ = best.read(flat, noise)
    wrong = errors(dict(zip(NAMES, tilts[:, :3].T, strict=True)), projection)
    networks = errors(centre, projection)
    table = pd.DataFrame({name: wrong[name] for name in NAMES} | {f"network_{n}": networks[n] for n in NAMES})
    inside = [np.abs(wrong[name]) <= 1.645 * spread[:, axis] for axis, name in enumerate(NAMES)]
    return table.assign(inside=np.mean(inside, axis=0))


def reading(mean, variance):
    """What a network reads on average, as sure as it is of one window, from its raw outputs (n, 4)."""
    v, p, q = mean[:, :3].double().mean(0).tolist()
    sigma = variance.double().mean(0).sqrt()
    return Reading(v, *map(float, halved(p, q)), float(sigma[0]), float(sigma[1:3].mean()))


def bound_ratio(dose, pool):
    """Median of rms error over Cramér–Rao bound over the states of `accuracy.py`, of SrTiO3 at 200 Å."""
    generator = np.random.default_rng(0)
    states = generator.uniform(3, 9, (STATES, 3)) * generator.choice((-1, 1), (STATES, 3))
    known = ("thickness", "defocus", "crystal_tilt_x", "crystal_tilt_y")
    bounds = bounds_table(states, [200.0], dose, Microscope(), known)
    found = list(pool.map(partial(state_errors, dose), states, range(STATES)))
    return np.median(np.array(found) / bounds[list(NAMES)].to_numpy(float))


def state_errors(dose, state, seed):
    """Rms errors of v, u, γ on noisy windows of one state."""
    windows = perfect_windows(state, dose, torch.Generator().manual_seed(seed))
    table = window_errors(windows[:WINDOWS], np.tile(state, (WINDOWS, 1)), parse_material(KNOWN["SrTiO3"]))
    return [rms(table[name]) for name in NAMES]


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


if __name__ == "__main__":
    main()
