"""Atom finding in the twins over dose: U-Net with refined centres, its centres of mass, and peaks of the Laplacian.

Every column of a twin is known (`unitcell.twins.haadf_twins`), and so is the Cramér–Rao bound of its position
(`unitcell.atoms.atom_scores.joint_bounds`). Prints precision, recall, F1, rms error and its ratio to the bound for each
species, then one JSON line: at 1e5 e/Å² the F1 and the ratio of each species, `seconds` for finding and refining, and
`speedup`, the seconds of fitting every column by itself with SciPy over those of fitting all together.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit
from unitcell.atoms import atom_scores, finding
from unitcell.atoms.refinement import refine_columns
from unitcell.atoms.segmenter import load_segmenter
from unitcell.twins.haadf_twins import open_twin

DOSES = (1e3, 3e3, 1e4, 3e4, 1e5, 1e6)
METHODS = {"U-Net, refined": True, "U-Net, centres": False, "LoG peaks": "log"}
REPORTED = 1e5


def peer_seconds(image, x, y, few=200):
    """Seconds that one `curve_fit` of a Gaussian per column would take for all columns, from the first `few`."""
    v, u = np.mgrid[-5:6, -5:6]

    def gaussian(_, x0, y0, height, sigma, base):
        return (height * np.exp(-((u - x0) ** 2 + (v - y0) ** 2) / (2 * sigma**2)) + base).ravel()

    near = np.round(np.column_stack([x, y])).astype(int)
    near = near[((near > 6) & (near < np.array(image.shape[::-1]) - 7)).all(axis=1)][:few]
    started = time.process_time()
    for column, row in near:
        values = image[row - 5 : row + 6, column - 5 : column + 6].astype(float)
        start = (0, 0, np.ptp(values), 2.0, values.min())
        try:
            curve_fit(gaussian, None, values.ravel(), start, maxfev=200)
        except RuntimeError:
            continue
    return (time.process_time() - started) * len(x) / len(near)


def timed(name, predictor, shape):
    """Seconds of finding, of refining, and of the peer's fits."""
    image = atom_scores.twin_image(open_twin(name, shape=shape))
    started = time.process_time()
    found, _ = finding.find_atoms(image, predictor, refine=False)
    to_find = time.process_time() - started
    started = time.process_time()
    refine_columns(image.intensity, found.x_px.to_numpy(), found.y_px.to_numpy())
    refining = time.process_time() - started
    return to_find, refining, peer_seconds(image.intensity, found.x_px.to_numpy(), found.y_px.to_numpy())


def main():
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--field-px", type=int, default=1264)
    parser.add_argument("--doses", type=float, nargs="+", default=DOSES)
    given = parser.parse_args()
    predictor, shape = load_segmenter(), (given.field_px, given.field_px)
    rows = []
    for name in ("lsmo_nio", "sr3fe2o7"):
        for method, refine in METHODS.items():
            table = atom_scores.over_dose(name, given.doses, predictor, refine=refine, shape=shape)
            rows.append(table.assign(twin=name, method=method))
    table = pd.concat(rows).set_index(["twin", "method", "dose", "species"])
    print(table.round(4).to_string())
    best = table.xs("U-Net, refined", level="method").xs(REPORTED, level="dose").droplevel(0)
    best = best[best.index != "all"]
    to_find, refining, peer = timed("lsmo_nio", predictor, shape)
    line = {
        "f1": best.f1.round(4).to_dict(),
        "ratio": best.ratio.round(3).to_dict(),
        "seconds": round(to_find + refining, 2),
    }
    print(json.dumps(line | {"speedup": round(peer / refining, 2)}))


if __name__ == "__main__":
    main()
