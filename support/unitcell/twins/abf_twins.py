"""Twins of the paper's experiments: frozen-phonon multislice images of interfaces, recorded as a microscope would.

No network is trained on anything that made them: other crystals (`twins.twin_crystals`), another scattering code
(`unitcell.scattering.multislice_images`, with every atom displaced on its own and mixed sites filled at random), an
aberrated lens, and specimens that stand upright or lean by 3 mrad. `python -m unitcell.twins.abf_twins` makes the
committed files, one a twin, each the mean image of one lateral period without noise; it resumes. `open_twin` records
one: source, drift, shear, rotation, electrons (`micrographs.image_formation`), and says where every B column came
to lie.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree

from unitcell.artefacts import load_dataset, save_dataset
from unitcell.campaign import run_structures
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.micrographs.image_formation import FWHM, Recording, record_image
from unitcell.micrographs.images import StemImage
from unitcell.networks.tilt_network import errors
from unitcell.networks.training_library import STEP
from unitcell.project import project_root
from unitcell.scattering import Microscope, multislice_images, scan_positions
from unitcell.scattering.beams import fibonacci_points
from unitcell.twins.twin_crystals import (
    IN_PLANE_A,
    MISORIENTED_MRAD,
    RECIPES,
    THICKNESS_A,
    column_truth,
    twin_crystal,
    twin_layers,
)

FOLDER = Path(__file__).parents[1] / "reference"
# A corrected lens as it is an hour after tuning; energy and apertures are those of the networks.
RESIDUAL = {
    "defocus_A": 6.0, "astigmatism_A": 4.0, "astigmatism_deg": 35.0, "coma_A": 80.0, "coma_deg": 200.0,
    "spherical_A": 2e3,
}  # fmt: skip
LEAN_MRAD, LEAN_AZIMUTH_DEG = 3.0, 40.0
SAMPLING_A, SLICE_A = 0.14, 2.74  # 60 mrad, and slices of one ABO and one O2 plane
PIXEL_A = 0.2  # within the Nyquist distance of an image formed with 30 mrad
PAIRS = 21  # of opposite displacements, each at its own k-point: a Fibonacci number, see `fibonacci_points`
MARGIN_CELLS = 1.5  # beyond the period of the stack, so that every row has its surroundings in the image
MATCH = 0.3  # of the lattice parameter: farther away a column is another one
NAMES = ("v", "u", "gamma", "alternation")


@dataclass(frozen=True)
class Twin:
    """A recorded twin.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
        Counted electrons, `simulated`.
    truth : pandas.DataFrame
        `twins.twin_crystals.column_truth` of every B column in the image, with `x_px`, `y_px` where the recorded
        image puts it; gamma_deg is what the image shows, as v_deg and u_deg are.
    attributes : dict
        Microscope, thickness and settings of the simulation.
    """

    image: StemImage
    truth: pd.DataFrame
    attributes: dict


def open_twin(
    name, *, dose=5e4, lean=False, pixel_size_A=0.15, rotation_deg=2.5, repeats=None, source_A=0.35,
    drift_A=(0.3, -0.2), shear=0.004, jitter_A=0.02, seed=0, folder=None,
):  # fmt: skip
    """Record one twin.

    Parameters
    ----------
    name : str
        "cto_lsat", "lsmo_esmo" or "diffuse", see `unitcell.twins.twin_crystals`.
    dose : float or None
        Electrons per Å²; None for the expected intensity, as a fraction of the beam, without noise.
    lean : bool
        Whether the specimen leans by 3 mrad.
    pixel_size_A : float
        Edge of a pixel [Å].
    rotation_deg : float
        From image right to [110], positive towards image down [degrees].
    repeats : int, optional
        Lateral periods side by side; as many as make the field about square by default. They repeat atoms and
        thermal displacements alike, only electrons differ.
    source_A : float
        Standard deviation of the effective source [Å].
    drift_A : (float, float)
        Drift (x, y) over the frame [Å].
    shear : float
        Displacement along the fast scan per height.
    jitter_A : float
        Rms displacement of a scan line [Å].
    seed : int
        Of electrons and jitter.
    folder : path, optional
        Where the twins' files are; by default the committed ones.

    Returns
    -------
    Twin

    Raises
    ------
    InputError
        No such twin or file, or settings that cannot be (see `Recording`).
    """
    data = twin_dataset(name, folder)
    cell = data.abf.sel(lean=LEAN_MRAD if lean else 0.0).values
    period = float(data.attrs["period_x_A"]), float(data.attrs["period_y_A"])
    repeats = max(1, round(period[1] / period[0])) if repeats is None else repeats
    if repeats < 1:
        raise InputError(f"repeats = {repeats} leaves no image: give 1 or more.")
    extent = period[1] + 2 * MARGIN_CELLS * IN_PLANE_A, repeats * period[0]
    shape = tuple(round(length / pixel_size_A) for length in extent)
    recording = Recording(
        pixel_size_A=pixel_size_A, centre_A=(extent[1] / 2, (period[1] - IN_PLANE_A) / 2),
        source_fwhm_A=FWHM * source_A, dose_e_per_A2=dose, gain=dose * pixel_size_A**2 if dose else 1.0,
        affine=_rotated(rotation_deg, shear), drift_A=drift_A, jitter_A=jitter_A,
    )  # fmt: skip
    spacing = period[0] / cell.shape[1], period[1] / cell.shape[0]
    recorded = record_image(cell, spacing, recording, shape, seed)
    truth = _in_image(column_truth(name, data.attrs["thickness_A"]), period, extent, recorded)
    values = recorded.image.numpy()
    if dose:
        values = values.round()  # the recorded fraction times the dose is a count, but for rounding
    image = StemImage(values, pixel_size_A, f"twin {name}{' leaning' * lean}", simulated=True)
    return Twin(image, truth, dict(data.attrs))


def twin_dataset(name, folder=None):
    """One twin's committed file: xarray.Dataset of `abf` and its `standard_error` (lean, y, x)."""
    twin_layers(name)
    path = Path(folder) / f"twin_{name}.nc" if folder else fetch(f"twin_{name}")
    return load_dataset(path, ("abf", "standard_error"))


def twin_errors(tilts, truth, pixel_size_A):
    """Errors of a tilt table column by column.

    Parameters
    ----------
    tilts : pandas.DataFrame
        From `unitcell.tilts.inference.infer_tilts`.
    truth : pandas.DataFrame
        Of the `Twin`.
    pixel_size_A : float

    Returns
    -------
    pandas.DataFrame
        One row for each column that was read and has its truth within 0.3 a: what `truth` says of it; `row_image`,
        `col_image` of `tilts`; `away_A`, how far apart the two are; for v, u, gamma and alternation `_error` [degrees],
        on the mirror branch nearer to the truth, and `_inside`, whether the 90 % interval holds the truth; and `ood`.

    Raises
    ------
    InputError
        Not one column matches.
    """
    read = tilts.dropna(subset="v_deg")
    away, near = cKDTree(truth[["x_px", "y_px"]]).query(read[["x_px", "y_px"]])
    kept = away * pixel_size_A < MATCH * IN_PLANE_A
    if not kept.any():
        raise InputError("No column of the table lies where the twin has one: give the table and truth of one image.")
    read, found = read[kept], truth.iloc[near[kept]].reset_index(drop=True)
    centre = {name: read[f"{name}_deg"].to_numpy() for name in NAMES}
    wrong = errors(centre, found[[f"{name}_deg" for name in NAMES]].to_numpy())
    found["row_image"], found["col_image"] = read["row"].to_numpy(), read["col"].to_numpy()
    found["away_A"] = away[kept] * pixel_size_A
    for name in NAMES:
        true = centre[name] - wrong[name]
        found[f"{name}_error"] = wrong[name]
        inside = (read[f"{name}_deg_lo"].to_numpy() <= true) & (true <= read[f"{name}_deg_hi"].to_numpy())
        found[f"{name}_inside"] = inside
    found["ood"] = read["ood"].to_numpy()
    return found


def _rotated(rotation_deg, shear):
    """Shear along image x, then rotation: a 2 × 2 matrix."""
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    return (np.array([[c, -s], [s, c]]) @ [[1.0, shear], [0.0, 1.0]]).tolist()


def _in_image(table, period, extent, recorded):
    """The columns of as many periods as reach into the image, with their pixels."""
    reach_x, reach_y = int(np.ceil(extent[1] / period[0])), int(np.ceil(extent[0] / period[1]))
    copies = [(i, j) for j in range(-reach_y, reach_y + 1) for i in range(-reach_x, 2 * reach_x + 1)]
    tables = [table.assign(x_A=table.x_A + i * period[0], y_A=table.y_A + j * period[1]) for i, j in copies]
    found = pd.concat(tables, ignore_index=True)
    found[["x_px", "y_px"]] = recorded.pixels_of(found[["x_A", "y_A"]].to_numpy()).double().numpy()
    last = np.array(recorded.image.shape[::-1]) - 1
    seen = ((found[["x_px", "y_px"]] >= 0) & (found[["x_px", "y_px"]] <= last)).all(axis=1)
    found = found[seen].drop(columns="gamma_deg").rename(columns={"gamma_seen_deg": "gamma_deg"})
    return found.reset_index(drop=True)


def twin_image(name, lean_mrad, pair, k_point, settings):
    """Mean image of one specimen, displaced one way and the other, over one lateral period: ndarray (rows, columns).

    One k-point sees the specimen as if the probe met itself again after one period, a few ångströms; the mean over
    those of all pairs does not.
    """
    number = list(RECIPES).index(name)
    crystal = twin_crystal(name, settings["thickness_A"], (settings["seed"], number, pair))
    tilt = dict(zip(("crystal_tilt_x_mrad", "crystal_tilt_y_mrad"), _lean(lean_mrad), strict=True))
    width, height, depth = crystal.cell.lengths()
    shape = int(np.ceil(height / settings["pixel_A"])), int(np.ceil(width / settings["pixel_A"]))
    options = {key: settings[key] for key in ("sampling_A", "slice_A")}
    options |= {"configurations": [2 * pair, 2 * pair + 1], "opposed": True, "seed": settings["seed"] + number}
    options |= {"k_point": k_point, "progress": False}
    found = multislice_images(
        crystal, Microscope(**RESIDUAL, **tilt), [depth], scan_positions(crystal, shape), **options
    )
    return found.mean[0, 0].astype(np.float32)


def dataset(name, samples, settings):
    """Mean and standard error of one twin, from the images of pairs (lean, pairs, rows, columns)."""
    width, height, depth = twin_crystal(name, settings["thickness_A"], 0).cell.lengths()
    samples = np.asarray(samples, dtype=float)
    count, rows, columns = samples.shape[1:]
    error = samples.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else np.full(samples[:, 0].shape, np.nan)
    axes, fraction, angstrom = ("lean", "y", "x"), {"units": "1"}, {"units": "angstrom"}
    lean = dict(zip(("lean_x_mrad", "lean_y_mrad"), _lean(LEAN_MRAD), strict=True))
    attributes = Microscope(**RESIDUAL).as_attributes() | settings | lean
    attributes |= {"twin": name, "configurations": 2 * count, "thickness_A": float(depth)}
    attributes |= {"period_x_A": float(width), "period_y_A": float(height)}
    attributes |= {"film_misorientation_mrad": MISORIENTED_MRAD if name == "diffuse" else 0.0}
    coords = {
        "lean": ("lean", [0.0, LEAN_MRAD], {"units": "mrad"}),
        "y": ("y", np.arange(rows) * height / rows, angstrom),
        "x": ("x", np.arange(columns) * width / columns, angstrom),
    }
    variables = {"abf": (axes, samples.mean(axis=1), fraction), "standard_error": (axes, error, fraction)}
    return xr.Dataset(variables, coords=coords | _truth_coordinates(name, depth), attrs=attributes)


def _truth_coordinates(name, thickness_A):
    """`column_truth` on a dimension of its own, with units."""
    found = {}
    for key, values in column_truth(name, thickness_A).items():
        units = {"_deg": "degree", "_A": "angstrom"}.get("_deg" if key.endswith("_deg") else key[-2:], "1")
        kept = values.astype(np.int8) if values.dtype == bool else values
        kept = kept.to_numpy(dtype=str).astype(object) if kept.dtype.kind not in "iuf" else kept.to_numpy()
        found[f"column_{key}"] = ("column", kept, {"units": units})
    return found


def _lean(size_mrad):
    """Crystal tilt (x, y) of that size [mrad]."""
    azimuth = np.radians(LEAN_AZIMUTH_DEG)
    return [float(size_mrad * np.cos(azimuth)), float(size_mrad * np.sin(azimuth))]


def main():
    """`python -m unitcell.twins.abf_twins`."""
    parser = argparse.ArgumentParser(description="Twins of the experiments by frozen-phonon multislice (resumes).")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of opposite displacements")
    parser.add_argument("--thickness-A", type=float, default=THICKNESS_A)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(FOLDER), help="folder of the files")
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    given = parser.parse_args()
    settings = {"thickness_A": given.thickness_A, "sampling_A": SAMPLING_A, "slice_A": SLICE_A, "pixel_A": PIXEL_A}
    settings |= {"seed": given.seed}
    leans = (0.0, LEAN_MRAD)
    points = fibonacci_points(given.pairs).tolist()
    tasks = [(name, lean, n, k, settings) for n, k in enumerate(points) for name in RECIPES for lean in leans]
    images = run_structures(twin_image, tasks, given.scheduler, project_root() / "build" / "twins")
    for name in RECIPES:
        samples = [
            [image for task, image in zip(tasks, images, strict=True) if task[:2] == (name, lean)] for lean in leans
        ]
        save_dataset(dataset(name, samples, settings), Path(given.out) / f"twin_{name}.nc", step=STEP)


if __name__ == "__main__":
    main()
