"""Images of crystals that lean: our own frozen phonons of random perovskites with crystal tilts, to test networks on.

By another scattering code than the images that networks are trained on, with every atom displaced on its own.
`python -m unitcell.networks.leaning` makes the committed file; it resumes.
"""

import argparse
from dataclasses import replace

import numpy as np
import xarray as xr

from unitcell.abf.simulation import CELL_SHAPE
from unitcell.artefacts import save_dataset
from unitcell.campaign import run_structures
from unitcell.networks.training_library import MATERIALS, STEP, Specimens, specimen_crystal
from unitcell.project import project_root
from unitcell.scattering import Microscope, multislice_images, scan_positions
from unitcell.scattering.beams import disc, fibonacci_points

DEPTH_A = (100.0, 200.0, 300.0)
PAIRS = 21  # of opposite displacements, each at its own k-point: a Fibonacci number, see `fibonacci_points`
SAMPLING_A, SLICE_A = 0.14, 1.5  # 60 mrad


def specimens(count, lean_mrad, seed):
    """`count` specimens of each of five materials, without aberrations, leaning by up to `lean_mrad`: list of dict.

    Their tilts fill the disc evenly, so that most lean nearly as far as any: a harder test than training's even sizes.
    """
    found = []
    for number, material in enumerate(MATERIALS[:5]):
        ranges = Specimens(materials=(material,), alternating=0.0, tilt_deg=10.0, crystal_tilt_mrad=lean_mrad)
        found += replace(ranges, a_shift=(0.11, 0.0), strain=0.0).draw(count, 100 * seed + number)
    for specimen in found:
        lens = specimen["microscope"]
        factor = np.sqrt(lean_mrad / np.hypot(*_lean(specimen).values()))
        lens |= {name: factor * value for name, value in _lean(specimen).items()}
    return found


def leaning_image(specimen, seed, pairs=PAIRS):
    """Mean image of one specimen at `DEPTH_A`: ndarray (T, rows, columns)."""
    crystal, microscope = specimen_crystal(specimen), Microscope(**_lean(specimen))
    positions, lengths = scan_positions(crystal, CELL_SHAPE), crystal.cell.lengths()
    options = {"sampling_A": SAMPLING_A, "slice_A": SLICE_A, "opposed": True, "seed": seed, "progress": False}
    radius, images, beams = microscope.semiangle_mrad * 1e-3 / microscope.wavelength_A, [], []
    for pair, k_point in enumerate(fibonacci_points(pairs)):
        both = [2 * pair, 2 * pair + 1]
        found = multislice_images(
            crystal, microscope, DEPTH_A, positions, configurations=both, k_point=k_point, **options
        )
        images.append(found.mean[0])
        beams.append(len(disc(lengths, k_point / lengths[:2], radius)))
    return np.average(images, axis=0, weights=beams)  # equation (3) of `unitcell.scattering.multislice`


def dataset(drawn, images, seed):
    """Specimens and images in the form of the manifest's `phonon_truth`: xarray.Dataset."""
    degree, mrad, angstrom = {"units": "degree"}, {"units": "mrad"}, {"units": "angstrom"}
    tilts = np.array([specimen["tilts"] for specimen in drawn])
    lean = np.array([list(_lean(specimen).values()) for specimen in drawn])
    coords = {name: ("structure", tilts[:, axis], degree) for axis, name in enumerate(("alpha", "beta", "gamma"))}
    coords |= {f"crystal_tilt_{name}": ("structure", lean[:, axis], mrad) for axis, name in enumerate("xy")}
    coords |= {
        "signs": ("structure", [specimen["signs"] for specimen in drawn]),
        "a_site": ("structure", [specimen["material"][0] for specimen in drawn]),
        "b_site": ("structure", [specimen["material"][1] for specimen in drawn]),
        "depth": (("structure", "thickness"), np.tile(DEPTH_A, (len(drawn), 1)), angstrom),
    }
    axes = ("structure", "thickness", "y", "x")
    attributes = Microscope().as_attributes() | {"configurations": 2 * PAIRS, "seed": seed}
    return xr.Dataset({"abf": (axes, np.stack(images), {"units": "1"})}, coords=coords, attrs=attributes)


def _lean(specimen):
    """The specimen's crystal tilt [mrad], as keywords of `Microscope`."""
    return {name: specimen["microscope"][name] for name in ("crystal_tilt_x_mrad", "crystal_tilt_y_mrad")}


def main():
    """`python -m unitcell.networks.leaning`."""
    parser = argparse.ArgumentParser(description="Frozen-phonon images of leaning crystals (minutes; resumes).")
    parser.add_argument("--count", type=int, default=4, help="of each material")
    parser.add_argument("--lean-mrad", type=float, default=3.0, help="largest crystal tilt [mrad]")
    parser.add_argument("--seed", type=int, default=0)
    default = project_root() / "support" / "unitcell" / "reference" / "leaning_truth.nc"
    parser.add_argument("--out", default=str(default))
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    given = parser.parse_args()
    drawn = specimens(given.count, given.lean_mrad, given.seed)
    tasks = [(_plain(specimen), given.seed) for specimen in drawn]
    images = run_structures(leaning_image, tasks, given.scheduler, project_root() / "build" / "leaning")
    save_dataset(dataset(drawn, images, given.seed), given.out, step=STEP)


def _plain(specimen):
    """A specimen as JSON types, by which its finished image is found again."""
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in specimen.items()}


if __name__ == "__main__":
    main()
