"""Frozen-phonon ABF images by abTEM, another engine: a truth on which nothing is trained.

`python -m unitcell.abf.validation` makes them, one file a structure in build/validation, and joins them once all are
there; stopped, it goes on with the structures that are missing.
"""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from unitcell.abf.crosscheck import abtem_images
from unitcell.abf.simulation import CELL_SHAPE
from unitcell.artefacts import load_dataset, save_dataset
from unitcell.crystals import tilted_perovskite
from unitcell.project import project_root
from unitcell.scattering import Microscope
from unitcell.scattering.beams import fibonacci_points

SEED = 20191
PAIRS = 13  # of opposite displacements, each at its own k-point: a Fibonacci number, see `fibonacci_points`
PERIODS = (9, 18, 36)  # of √2·a along the beam: 50, 99 and 199 Å in SrTiO3
PATTERNS = (
    "---", "---", "---", "---", "---", "---", "---", "---", "---", "---", "--+", "--+", "--+", "--+", "--+",
    "00-", "-00", "0-0", "00+", "--0", "+--", "-+-", "++-", "+++",
)  # fmt: skip
# Orthomanganites and titanates as their refinements have them (Pbnm; A at (x, y, ¼)), and films strained from them.
ORTHORHOMBIC = {
    "CaTiO3": {"a_o": 5.380, "b_o": 5.440, "c_o": 7.639, "x": 0.00648, "y": 0.0356, "tilt": 8.5, "in_phase": 9.2},
    "LaMnO3": {"a_o": 5.542, "b_o": 5.744, "c_o": 7.690, "x": 0.0073, "y": 0.0488, "tilt": 8.8, "in_phase": 9.3},
    "EuMnO3": {"a_o": 5.336, "b_o": 5.842, "c_o": 7.451, "x": 0.016, "y": 0.0747, "tilt": 10.6, "in_phase": 11.6},
    "LaAlO3": {"a_o": 5.360, "b_o": 5.360, "c_o": 7.580, "x": 0.002, "y": 0.012, "tilt": 3.9, "in_phase": 3.5},
}


def structures(seed=SEED):
    """Keywords of `tilted_perovskite` for every structure: 24 of SrTiO3 off any grid, 8 with A shifts.

    Returns
    -------
    list of dict
    """
    generator = np.random.default_rng(seed)
    found = []
    for signs in PATTERNS:
        tilts = np.where(np.array(list(signs)) == "0", 0.0, generator.uniform(-10, 10, 3))
        found.append(dict(zip(("alpha", "beta", "gamma"), tilts.tolist(), strict=True)) | {"signs": signs})
    for name, cell in ORTHORHOMBIC.items():
        for along_beam in (False, True):  # the polar axis b_o in the image, or along the beam
            found.append(_orthorhombic(name, cell, along_beam, generator))
    return found


def _orthorhombic(name, cell, b_along_beam, generator):
    """A crystal of the table with its tilts varied by ±10 %, seen along a_o or along b_o."""
    tilt, in_phase = np.array([cell["tilt"], cell["in_phase"]]) * generator.uniform(0.9, 1.1, 2)
    across, along = (cell["a_o"], cell["b_o"]) if b_along_beam else (cell["b_o"], cell["a_o"])
    return {
        "alpha": float(tilt), "beta": float(-tilt if b_along_beam else tilt), "gamma": float(in_phase), "signs": "--+",
        "a_site": name[:2], "b_site": name[2:4],
        "lattice_A": (across / np.sqrt(2), cell["c_o"] / 2, along / np.sqrt(2)),
        "a_shift": (cell["y"] * np.sqrt(2), cell["x"] * np.sqrt(2)),
    }  # fmt: skip


def validation_image(keywords, seed, pairs=PAIRS, shape=CELL_SHAPE):
    """Frozen-phonon images of one structure over the first √2·a × 2a of its cell, the mean over the Brillouin zone.

    Returns
    -------
    xarray.Dataset
        `abf` and `standard_error` (thickness, y, x); the structure's keywords as coordinates.
    """
    crystal = tilted_perovskite(**keywords)
    doubled = round(crystal.cell[0, 0] / (crystal.info["pseudocubic_A"][0] * np.sqrt(2)))
    periods = [max(1, p // doubled) for p in PERIODS]
    options = {"configurations": 2 * pairs, "seed": seed, "opposed": True, "slices": 2}
    options["k_points"] = np.repeat(fibonacci_points(pairs), 2, axis=0)
    options["window_A"] = (crystal.cell[0, 0] / doubled, crystal.cell[1, 1])
    images = abtem_images(crystal, Microscope(), periods, shape, **options).reshape(pairs, 2, len(periods), *shape)
    images = images.mean(axis=1)
    error = images.std(axis=0, ddof=1) / np.sqrt(pairs)
    fraction = {"units": "1"}
    axes = ("thickness", "y", "x")
    return xr.Dataset(
        {"abf": (axes, images.mean(axis=0), fraction), "standard_error": (axes, error, fraction)},
        coords=_coordinates(keywords, crystal, periods),
        attrs={"configurations": 2 * pairs, "seed": seed, "peer": "abTEM 1.0.11"} | Microscope().as_attributes(),
    )


def _coordinates(keywords, crystal, periods):
    """What a structure is, as scalar coordinates; thicknesses differ between crystals."""
    degree, fraction, angstrom = {"units": "degree"}, {"units": "1"}, {"units": "angstrom"}
    shift = keywords.get("a_shift", (0.0, 0.0))
    lengths = dict(zip(("a_x", "a_y", "a_z"), crystal.info["pseudocubic_A"], strict=True))
    return (
        {name: ((), keywords[name], degree) for name in ("alpha", "beta", "gamma")}
        | {
            name: keywords.get(name, default)
            for name, default in (("signs", "---"), ("a_site", "Sr"), ("b_site", "Ti"))
        }
        | {"antipolar": ((), shift[0], fraction), "alternating": ((), shift[1], fraction)}
        | {name: ((), float(value), angstrom) for name, value in lengths.items()}
        | {"depth": ("thickness", [n * float(crystal.cell[2, 2]) for n in periods], angstrom)}
    )


def main():
    """Make what is missing, then join: `python -m unitcell.abf.validation`."""
    parser = argparse.ArgumentParser(description="Frozen-phonon validation images by abTEM (hours; resumes).")
    parser.add_argument("--folder", default=str(project_root() / "build" / "validation"))
    parser.add_argument("--out", default=str(project_root() / "support" / "unitcell" / "reference" / "phonon_truth.nc"))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of opposite displacements")
    given = parser.parse_args()
    folder = Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:02d}_{given.pairs}.nc" for index in range(len(structures()))]
    for index, keywords in enumerate(tqdm(structures(), desc="structures")):
        if not files[index].is_file():
            save_dataset(validation_image(keywords, SEED + index, given.pairs), files[index])
    save_dataset(xr.concat([load_dataset(file) for file in files], dim="structure"), given.out)


if __name__ == "__main__":
    main()
