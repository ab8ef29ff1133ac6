"""Tilts and patterns of whole images: the simulated twins against their truth, the real control, time and memory.

Twins are recorded at 5e4 e/Å². Prints tables, and one JSON line last:

* `rms_v`, `rms_u`, `rms_gamma` [degrees], `position_A`, `coverage`, `pattern_far`, `pattern_near`: over the twins on
  the zone axis, see `unitcell.twins.twin_scores.score`; `rms_v_own`, `rms_u_own`, `rms_gamma_own` of single windows;
  `coverage_least` and `coverage_most` of v, u, γ
* `lean_ratio`: largest ratio of a twin's rms error when it leans by 3 mrad to that on the zone axis; `lean_alien`:
  smallest share of windows with ood > 0.95 of those twins that get worse by more than half
* `control_v`, `control_u`, `control_gamma`: largest |median| [degrees] of the real SrTiO3 image as it is, rotated by
  17°, rescaled by 0.8 and 1.25, and cropped; `control_zero_…`: smallest share of intervals that hold zero; read by the
  network of the microscope that it looks like, and with `_30mrad` by the book's
* `seconds_512`, `memory_GB_512`, `seconds_4096`, `memory_GB_4096`: the whole command `unitcell tilts` on an image of so
  many pixels of 0.2 Å squared, from start to page, in a process of its own
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from unitcell.data import DataUnavailable, fetch, open_image
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.analysis import analyse
from unitcell.tilts.inference import untilted_cell
from unitcell.twins.abf_twins import open_twin
from unitcell.twins.twin_scores import CONDITIONS, NAMES, TWINS, error_sources, read_twin, score

SEEDS = 3
WORSE = 1.5
PIXEL_A = 0.2
DOSE = 5e4
# Run in a process of its own: the command, then the largest memory of that process.
MEASURED = """
import resource, sys
from pathlib import Path
from unitcell.cli import application
where, image, pixel_A, out = sys.argv[1:]
application()(["tilts", image, "--pixel-size-A", pixel_A, "--out", out], standalone_mode=False)
Path(where).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


def main():
    """Twins, the control, and what large images cost."""
    network = load_network()
    other = load_network(fetch("tilt_network_20mrad"))
    found = twins(network) | control(partial(read_alone, other))
    found |= {f"{key}_30mrad": value for key, value in control(partial(read_alone, network)).items()}
    for side in (512, 4096):
        seconds, memory = command(side)
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
    upright = pd.concat([columns[name, False] for name in TWINS])
    sources = error_sources(network, upright, CONDITIONS)
    print(f"\nTaken away one after the other:\n{sources.round(3).to_string()}\n")
    whole = score(upright)
    ratios = pd.DataFrame({name: score(columns[name, True]) / score(columns[name, False]) for name in TWINS}).T
    ratios = ratios[list(NAMES)].max(axis=1)
    worse = [score(columns[name, True]).alien for name in TWINS if ratios[name] > WORSE]
    kept = ("position_A", "coverage", "pattern_far", "pattern_near")
    covered = [whole[f"coverage_{name}"] for name in NAMES]
    return (
        {f"rms_{name}{own}": whole[f"{name}{own}"] for own in ("", "_own") for name in NAMES}
        | {name: whole[name] for name in kept}
        | {"coverage_least": min(covered), "coverage_most": max(covered)}
        | {"lean_ratio": ratios.max(), "lean_alien": min(worse, default=1.0)}
    )


def read_alone(network, image):
    """Summary of what a network by itself reads in an image."""
    return analyse(image, network).summary


def control(read, each=map):
    """Medians and intervals of the real image as it is and as others would have recorded it.

    `read` gives the summary of an image's analysis; `each` maps it, as `map` does.
    """
    try:
        image = open_image("sto_110_abf")
    except DataUnavailable as missing:
        print(f"No control: {missing}")
        return {}
    images = variants(image)
    tables = dict(zip(images, each(read, images.values()), strict=True))
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


def command(side):
    """Seconds and peak memory [GB] of `unitcell tilts` on a simulated image of `side` × `side` pixels."""
    with tempfile.TemporaryDirectory() as folder:
        path, memory = Path(folder) / "large.npy", Path(folder) / "memory"
        np.save(path, large_image(side))
        call = [sys.executable, "-c", MEASURED, str(memory), str(path), str(PIXEL_A), str(Path(folder) / "out")]
        start = time.perf_counter()
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - start, float(memory.read_text()) / 1e6


def large_image(side):
    """Counts of an untilted crystal, simulated: ndarray (side, side), made strip by strip."""
    card = load_network().card
    cell, (down, right) = untilted_cell(card), np.array([2.0, np.sqrt(2.0)]) * card["lattice_A"] / (40, 28)
    generator, places = np.random.default_rng(0), np.arange(side) * PIXEL_A
    image = np.empty((side, side), np.float32)
    for line, y in zip(image, places, strict=True):
        at = np.full(side, y / down), places / right
        ideal = ndimage.map_coordinates(cell, at, order=3, mode="grid-wrap")
        line[:] = generator.poisson(ideal * DOSE * PIXEL_A**2)
    return image


if __name__ == "__main__":
    main()
