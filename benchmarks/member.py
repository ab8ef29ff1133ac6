"""One network trained by the default recipe from nothing, against the committed ensemble: how long, and how good.

Cells that `unitcell train build/tilt_network.safetensors` has made are taken as they are; what is missing is simulated
first, up to two hours on one core, and not timed. One JSON line last:

* `minutes` of training on all cores of the process
* `ratio`: largest ratio of the member's error to that of the committed ensemble, over v, u and γ, on abTEM's SrTiO3 at
  199 Å and 3e4 e/Å²
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace

from accuracy import own_crystal
from unitcell.artefacts import load_dataset
from unitcell.data import fetch
from unitcell.networks.tilt_network import TiltEnsemble, load_network
from unitcell.networks.training_library import Specimens
from unitcell.networks.truth_windows import NAMES, score_truth, true_images
from unitcell.networks.your_microscope import Recipe, trained_member, training_cells
from unitcell.project import project_root
from unitcell.scattering import Microscope


def main():
    """Train, then read abTEM's SrTiO3."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=Recipe().structures)
    parser.add_argument("--windows", type=int, default=Recipe().windows)
    given = parser.parse_args()
    recipe = replace(Recipe(bfloat16=True), structures=given.structures, windows=given.windows)
    folder = project_root() / "build" / "tilt_network.training" / "cells"
    cells = training_cells(recipe.structures, Microscope(), Specimens(), recipe, recipe.seed, folder=folder)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as kept:
        member = trained_member(cells, recipe, 0, kept)
    minutes = (time.perf_counter() - started) / 60
    truth = true_images(load_dataset(fetch("phonon_truth"), ("abf",)))
    strontium = [images for images in truth if images.material == "SrTiO3"]
    alone, committed = (
        own_crystal(score_truth(network, strontium, (3e4,), least_A=150))
        for network in (TiltEnsemble([member], {}), load_network())
    )
    for name in NAMES:
        print(f"{name}: {alone[name]:.3f}° of one member, {committed[name]:.3f}° of the committed ensemble")
    ratio = max(alone[name] / committed[name] for name in NAMES)
    print(json.dumps({"minutes": round(minutes, 1), "ratio": round(float(ratio), 3)}))


if __name__ == "__main__":
    main()
