"""Atom finding in the twins over dose: U-Net with refined centres, its centres of mass, and peaks of the Laplacian.

Every column of a twin is known (`unitcell.twins.haadf_twins`), and so is the Cramér–Rao bound of its position
(`unitcell.atoms.atom_scores.joint_bounds`). Prints precision, recall, F1, rms error and its ratio to the bound for each
species, then one JSON line: at 1e5 e/Å² the F1 and the ratio of each species, `seconds` for finding and refining,
`rms_A` and `rms_A_one_by_one`, the errors of the joint fit and of fitting every column by itself with SciPy, and
`speedup`, the seconds of the latter over those of the former.
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


def peer_fits(image, x, y, few=400):
    """Places (n, 2) by one `curve_fit` of a Gaussian per column, NaN where not fitted, and seconds for all columns.

    The first `few` columns away from the edges are fitted.
    """
    v, u = np.mgrid[-5:6, -5:6]

    def gaussian(_, x0, y0, height, sigma, base):
        return (height * np.exp(-((u - x0) ** 2 + (v - y0) ** 2) / (2 * sigma**2)) + base).ravel()

    near, fitted = np.round(np.column_stack([x, y])).astype(int), np.full((len(x), 2), np.nan)
    chosen = np.flatnonzero(((near > 6) & (near < np.array(image.shape[::-1]) - 7)).all(axis=1))[:few]
    started = time.process_time()
    for n in chosen:
        column, row = near[n]
        values = image[row - 5 : row + 6, column - 5 : column + 6].astype(float)
        start = (0, 0, np.ptp(values), 2.0, values.min())
        try:
            fitted[n] = near[n] + curve_fit(gaussian, None, values.ravel(), start, maxfev=200)[0][:2]
        except RuntimeError:
            continue
    return fitted, (time.process_time() - started) * len(x) / len(chosen)


def timed(name, predictor, shape):
    """Seconds of finding, of refining, of the peer's fits; rms errors [Å] of both on the columns that both fitted."""
    twin = open_twin(name, shape=shape)
    image = atom_scores.twin_image(twin)
    started = time.process_time()
    found, _ = finding.find_atoms(image, predictor, refine=False)
    to_find = time.process_time() - started
    guess = found.x_px.to_numpy(), found.y_px.to_numpy()
    started = time.process_time()
    refined = np.column_stack(refine_columns(image.intensity, *guess)[:2])
    refining = time.process_time() - started
    peer, peer_s = peer_fits(image.intensity, *guess)
    places = np.column_stack([twin.x_px, twin.y_px])
    pairs = finding.matched(np.column_stack(guess), places, 3)
    margin = atom_scores.MARGIN_A / image.pixel_size_A
    inner = ((places > margin) & (places < np.array(shape[::-1]) - 1 - margin)).all(axis=1)
    pairs = pairs[np.isfinite(peer[pairs[:, 0], 0]) & inner[pairs[:, 1]]]
    away = (table[pairs[:, 0]] - places[pairs[:, 1]] for table in (refined, peer))
    return to_find, refining, peer_s, [float(np.sqrt(np.mean(a**2)) * image.pixel_size_A) for a in away]


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
    to_find, refining, peer, errors = timed("lsmo_nio", predictor, shape)
    line = {
        "f1": best.f1.round(4).to_dict(),
        "ratio": best.ratio.round(3).to_dict(),
        "seconds": round(to_find + refining, 2),
        "rms_A": round(errors[0], 4),
        "rms_A_one_by_one": round(errors[1], 4),
    }
    print(json.dumps(line | {"speedup": round(peer / refining, 2)}))


if __name__ == "__main__":
    main()
