"""Chapter 07 on large stacks of sub-images: seconds and memory of the whole run, in a process of its own.

The stacks are cut from images of LSMO with NiO (simulated), 36 × 36 px around every column, and chapter 07 runs on them
in the book's profile, all its cells and checks. Prints one JSON line last: for each number of sub-images asked for
`count_…`, `seconds_…` and `memory_GB_…`, the largest that the chapter's own process had.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from unitcell.atoms import atom_scores, subimages
from unitcell.twins.haadf_twins import open_twin

WINDOW_PX = 36
AREA_PX = 165  # of the image, for one column


def cut_stack(count, path):
    """Write about `count` sub-images around the known columns of one image; returns how many."""
    side = int(np.sqrt(count * AREA_PX)) + WINDOW_PX
    twin = open_twin("lsmo_nio", shape=(side, side))
    atoms = pd.DataFrame({"x_px": twin.x_px.values, "y_px": twin.y_px.values})
    atoms["species"] = np.where(twin.species.values == "A", "A", "B")
    image = atom_scores.twin_image(twin)
    known = subimages.with_truth(atoms.assign(probability=1.0), twin)
    patches = subimages.cut_patches(image, known, np.zeros(twin.image.shape, np.float32), window_px=WINDOW_PX)
    subimages.save_patches(patches, path)
    return patches.sizes["atom"]


def run_chapter(patches, out):
    """Seconds and GB of chapter 07 in the book's profile."""
    command = [sys.executable, "-m", "unitcell", "chapter", "07_rvae", "-p", "patches", str(patches)]
    started = time.perf_counter()
    subprocess.run([*command, "--profile", "book", "--out", str(out)], check=True)
    seconds = time.perf_counter() - started
    # the chapter's signature knows: what the system says of a child counts what this process had when it began
    return seconds, json.loads((out / "provenance.json").read_text())["peak_memory_MB"] / 1e3


def main():
    """Measure, smallest stack first, and print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    line = {}
    for count in sorted(parser.parse_args().counts):
        with tempfile.TemporaryDirectory() as folder:
            line[f"count_{count}"] = cut_stack(count, Path(folder) / "patches.nc")
            seconds, memory = run_chapter(Path(folder) / "patches.nc", Path(folder) / "07_rvae")
        line |= {f"seconds_{count}": round(seconds, 1), f"memory_GB_{count}": round(memory, 2)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
