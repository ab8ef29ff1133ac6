"""The tilt network on images that nothing was trained on: abTEM's frozen phonons, and our own of leaning crystals.

Windows are registered, distorted a little and counted; "sharp" ones have noise only, "blurred" ones a source of 0.2 to
0.4 Å as well. Errors in u and γ are on the branch nearer to the truth. Prints tables, and one JSON line last:

* `rms_v`, `rms_u`, `rms_gamma` [degrees]: abTEM's SrTiO3 at 199 Å, 3e4 e/Å², sharp; `blurred_…` the same, blurred
* `worst_…`: the largest at 3e4 e/Å² over the other materials of abTEM at 99 and 199 Å, and over leaning crystals
  (≤ 3 mrad) of five materials at 100, 200 and 300 Å
* `coverage_min`, `coverage_max`, `coverage_mean` of the 90 % intervals, mean of v, u, γ, over dose × thickness ×
  material, sharp
* `crlb_ratio_1e4`, `crlb_ratio_1e5`: rms error over the Cramér–Rao bound, median over states and v, u, γ; neither knows
  thickness, defocus and crystal tilt
* `member_ratio`: largest ratio of one member's error to the ensemble's, over members and v, u, γ, for abTEM's SrTiO3 as
  above; of a member trained from nothing `benchmarks/member.py` says it
* `alternating_deg`, `uniform_deg`: median predicted alternation of abTEM's SrTiO3 with and without '+' about a or b
"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from unitcell.abf.simulation import CELL_SHAPE
from unitcell.artefacts import load_dataset
from unitcell.crystals import tilted_perovskite
from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.data import fetch
from unitcell.networks.tilt_network import TiltEnsemble, errors, estimates, load_network
from unitcell.networks.training_windows import record
from unitcell.networks.truth_windows import BLURRED, NAMES, SHARP, score_truth, true_images
from unitcell.scattering import Microscope, thermal_images
from unitcell.scattering.beams import fibonacci_points
from unitcell.surrogates.information import bounds_table

DOSES = (1e4, 3e4, 1e5)
STATES = 12
WINDOWS = 200


def main():
    """Score every dose, thickness and material."""
    network = load_network()
    upright, leaning = (true_images(load_dataset(fetch(f"{name}_truth"), ("abf",))) for name in ("phonon", "leaning"))
    tables = {
        "sharp": score_truth(network, upright, DOSES),
        "blurred": score_truth(network, upright, DOSES, BLURRED),
        "leaning": score_truth(network, leaning, DOSES),
    }
    for name, table in tables.items():
        print(f"\n{name}\n{table.to_string(index=False, float_format=lambda value: f'{value:.3g}')}")
    found = {f"rms_{name}": own_crystal(tables["sharp"])[name] for name in NAMES}
    found |= {f"blurred_rms_{name}": own_crystal(tables["blurred"])[name] for name in NAMES}
    found |= worst(tables)
    every = pd.concat([tables["sharp"], tables["leaning"]])
    every = every[~every.material.str.contains("alternating")]
    found |= {"coverage_min": every.coverage.min(), "coverage_max": every.coverage.max()}
    found["coverage_mean"] = every.coverage.mean()
    found |= {f"crlb_ratio_{name}": bound_ratio(network, dose) for name, dose in (("1e4", 1e4), ("1e5", 1e5))}
    found["member_ratio"] = member_ratio(network, upright, tables["sharp"])
    found |= alternations(network, upright)
    print(json.dumps({key: round(float(value), 4) for key, value in found.items()}))


def own_crystal(table):
    """The row of SrTiO3 at 199 Å and 3e4 e/Å²."""
    return table[(table.dose == 3e4) & (table.thickness > 150) & (table.material == "SrTiO3")].iloc[0]


def member_ratio(network, truth, table):
    """Largest ratio of a single member's error to that of the ensemble."""
    strontium = [images for images in truth if images.material == "SrTiO3"]
    alone = [score_truth(TiltEnsemble([member], {}), strontium, (3e4,), least_A=150) for member in network.members]
    return max(own_crystal(one)[name] / own_crystal(table)[name] for one in alone for name in NAMES)


def worst(tables):
    """Largest errors beyond 90 Å at 3e4 e/Å²: other materials, and leaning crystals."""
    others = tables["sharp"][~tables["sharp"].material.str.contains("SrTiO3")]
    rows = pd.concat([others, tables["leaning"]])
    rows = rows[(rows.dose == 3e4) & (rows.thickness > 90)]
    return {f"worst_{name}": rows[name].max() for name in NAMES}


def bound_ratio(network, dose, seed=0):
    """Median of rms error over Cramér–Rao bound, over random tilted states of SrTiO3 at 200 Å and v, u, γ."""
    generator = np.random.default_rng(seed)
    states = generator.uniform(3, 9, (STATES, 3)) * generator.choice((-1, 1), (STATES, 3))
    bounds = bounds_table(states, [200.0], dose, Microscope())
    ratios = [
        spread(network, state, dose, number) / row[list(NAMES)].to_numpy(float)
        for number, (state, (_, row)) in enumerate(zip(states, bounds.iterrows(), strict=True))
    ]
    return np.median(ratios)


def spread(network, state, dose, seed):
    """Rms errors of v, u, γ on noisy windows of one state, otherwise perfect."""
    windows = perfect_windows(state, dose, torch.Generator().manual_seed(seed))
    _, mean, variance = network.raw(windows)
    centre, _ = estimates(mean.double().numpy(), variance.double().numpy())
    wrong = errors(centre, np.tile(state, (len(windows), 1)))
    return np.array([np.sqrt(np.mean(wrong[name] ** 2)) for name in NAMES])


def perfect_windows(state, dose, generator):
    """Windows of SrTiO3 at 200 Å with nothing but noise; thermal, as training images were."""
    crystal = tilted_perovskite(*to_pseudocubic(*state))
    cell = thermal_images(crystal, Microscope(), [200.0], CELL_SHAPE, k_points=fibonacci_points(5)).float()
    still = replace(SHARP, magnification=0.0, shear=0.0, rotation_deg=0.0, offset_A=0.0, jitter_A=0.0)
    return record(cell.repeat(WINDOWS, 1, 1), 3.905, replace(still, dose=(dose, dose)), generator)


def alternations(network, truth):
    """Median predicted alternation at 199 Å and 3e4 e/Å² of patterns with and without '+' about a or b [degrees]."""
    found = {}
    for key, name in (("alternating_deg", "SrTiO3 alternating"), ("uniform_deg", "SrTiO3")):
        images = next(one for one in truth if one.material == name)
        windows, _ = images.windows(2, 3e4, SHARP, torch.Generator().manual_seed(0))
        found[key] = np.median(network.predict(windows.numpy())["alternation_deg"])
    return found


if __name__ == "__main__":
    main()
