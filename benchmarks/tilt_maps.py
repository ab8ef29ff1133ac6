"""Tilts and patterns of whole images: the simulated twins against their truth, the real control, time and memory.

Twins are recorded at 5e4 e/Å². Prints tables, and one JSON line last:

* `rms_v`, `rms_u`, `rms_gamma` [degrees], `position_A`, `coverage`, `pattern_far`, `pattern_near`: over the twins on
  the zone axis, see `unitcell.twins.twin_scores.score`; `coverage_least` and `coverage_most` of v, u, γ
* `lean_ratio`: largest ratio of a twin's rms error when it leans by 3 mrad to that on the zone axis; `lean_alien`:
  smallest share of windows with ood > 0.95 of those twins that get worse by more than half
* `control_v`, `control_u`, `control_gamma`: largest |median| [degrees] of the real SrTiO3 image as it is, rotated by
  17°, rescaled by 0.8 and 1.25, and cropped; `control_zero_…`: smallest share of intervals that hold zero
* `seconds_512`, `memory_GB_512`, `seconds_4096`, `memory_GB_4096`: an image of so many pixels squared, dense map and
  all, in a process of its own
"""

import json
import multiprocessing
import resource
import time
from dataclasses import replace

import pandas as pd
from scipy import ndimage
from unitcell.data import DataUnavailable, open_image
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.analysis import analyse
from unitcell.tilts.dense import dense_map, load_dense_network
from unitcell.tilts.inference import simulated_control
from unitcell.twins.abf_twins import open_twin
from unitcell.twins.twin_scores import NAMES, read_twin, score

TWINS = ("cto_lsat", "lsmo_esmo", "diffuse")
SEEDS = 3
WORSE = 1.5


def main():
    """Twins, the control, and what large images cost."""
    network = load_network()
    found = twins(network) | control(network)
    for side in (512, 4096):
        seconds, memory = alone(side)
        found |= {f"seconds_{side}": seconds, f"memory_GB_{side}": memory}
    print(json.dumps({key: round(float(value), 4) for key, value in found.items()}))


def twins(network):
    """Scores of the twins, recorded several times."""
    columns = {
        (name, lean): pd.concat([read_twin(open_twin(name, lean=lean, seed=s), network)[1] for s in range(SEEDS)])
        for name in TWINS
        for lean in (False, True)
    }
    table = pd.DataFrame({f"{name}{' leaning' * lean}": score(one) for (name, lean), one in columns.items()}).T
    print(table.round(3).to_string())
    whole = score(pd.concat([columns[name, False] for name in TWINS]))
    ratios = pd.DataFrame({name: score(columns[name, True]) / score(columns[name, False]) for name in TWINS}).T
    ratios = ratios[list(NAMES)].max(axis=1)
    worse = [score(columns[name, True]).alien for name in TWINS if ratios[name] > WORSE]
    kept = ("position_A", "coverage", "pattern_far", "pattern_near")
    covered = [whole[f"coverage_{name}"] for name in NAMES]
    return (
        {f"rms_{name}": whole[name] for name in NAMES}
        | {name: whole[name] for name in kept}
        | {"coverage_least": min(covered), "coverage_most": max(covered)}
        | {"lean_ratio": ratios.max(), "lean_alien": min(worse, default=1.0)}
    )


def control(network):
    """Medians and intervals of the real image as it is and as others would have recorded it."""
    try:
        image = open_image("sto_110_abf")
    except DataUnavailable as missing:
        print(f"No control: {missing}")
        return {}
    tables = {name: analyse(one, network).summary for name, one in variants(image).items()}
    rows = {
        name: {f"{key} {what}": one.loc[key, what] for what in ("median_deg", "contains_zero") for key in NAMES}
        for name, one in tables.items()
    }
    print(pd.DataFrame(rows).T.round(2).to_string())
    found = {f"control_{key}": max(abs(one.median_deg[key]) for one in tables.values()) for key in NAMES}
    return found | {f"control_zero_{key}": min(one.contains_zero[key] for one in tables.values()) for key in NAMES}


def variants(image):
    """The image as it is, rotated by 17°, rescaled by 0.8 and 1.25, and cropped: dict of StemImage."""
    turned = ndimage.rotate(image.intensity.astype(float), 17, reshape=False, order=3, mode="reflect")
    edge = min(turned.shape) // 7  # what came from outside the field
    found = {"as it is": image, "rotated": replace(image, intensity=turned[edge:-edge, edge:-edge])}
    for scale in (0.8, 1.25):
        zoomed = ndimage.zoom(image.intensity.astype(float), scale, order=3)
        found[f"rescaled by {scale}"] = replace(image, intensity=zoomed, pixel_size_A=image.pixel_size_A / scale)
    rows, columns = (n // 5 for n in image.intensity.shape)
    return found | {"cropped": replace(image, intensity=image.intensity[rows:, :-columns])}


def alone(side):
    """Seconds and peak memory [GB] of a simulated image of `side` × `side` pixels in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(cost, (side,))


def cost(side):
    """Seconds and peak memory [GB] of reading one simulated image, with its dense map."""
    network, (dense, _) = load_network(), load_dense_network()
    image = simulated_control(network.card, field_A=0.1 * side, pixel_size_A=0.1)
    start = time.perf_counter()
    analysis = analyse(image, network)
    dense_map(image, dense, network.card["lattice_A"], lattice=analysis.lattice, step=4, progress=False)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
