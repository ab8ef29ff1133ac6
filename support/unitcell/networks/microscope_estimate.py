"""Which microscope took this image? Apertures, lens and thickness with which a known crystal looks like it.

A file seldom says all of it, and a tilt network answers for its own microscope only: a narrower aperture or another
detector changes columns as a tilt does. Where the crystal is known and not tilted, the mean window m of its image is
simulated (thermal images) and compared,

    cost = mean (w − m)² + c² Σ_k (x_k / s_k)²,   w and m with zero mean and unit variance,      (1)

where x are defocus, aberrations, crystal tilt and vibration, s their usual sizes and c small: it chooses the plainer
lens among those that draw alike. Gauss-Newton steps with Marquardt's damping go down from several apertures and
thicknesses; the lowest end is the answer, the other ends say how well it is known.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import yaml
from ase.data import atomic_numbers
from tqdm.auto import tqdm

from unitcell.artefacts import written
from unitcell.errors import InputError
from unitcell.micrographs.image_formation import source_covariance
from unitcell.networks.training_library import Specimens, specimen_images
from unitcell.networks.training_windows import (
    WINDOW_SHAPE,
    cell_extent_A,
    pixel_positions,
    refine,
    sample_periodic,
    standardise,
)
from unitcell.registration.lattice import extract_windows, register
from unitcell.scattering import Microscope
from unitcell.scattering.thermal import RETURNED

# Step, least and largest value, and usual size (0: no opinion) of what is searched. An aberration or tilt with a
# direction has two components.
SEARCHED = {
    "semiangle_mrad": (3.0, 12.0, 40.0, 0.0), "inner_mrad": (1.5, 3.0, 25.0, 0.0), "outer_mrad": (3.0, 10.0, 50.0, 0.0),
    "defocus_A": (20.0, -150.0, 150.0, 20.0),
    "astigmatism_x_A": (8.0, -50.0, 50.0, 10.0), "astigmatism_y_A": (8.0, -50.0, 50.0, 10.0),
    "coma_x_A": (80.0, -500.0, 500.0, 120.0), "coma_y_A": (80.0, -500.0, 500.0, 120.0),
    "spherical_A": (4e3, -3e4, 3e4, 6e3),
    "crystal_tilt_x_mrad": (3.0, -10.0, 10.0, 4.0), "crystal_tilt_y_mrad": (3.0, -10.0, 10.0, 4.0),
    "log_vibration": (0.3, -0.7, 0.7, 0.4),
    "thickness_A": (40.0, 20.0, 800.0, 0.0),
    "log_source_A": (0.3, -4.0, 0.0, 0.0), "log_ellipticity": (0.2, -1.5, 1.5, 0.0),
    "source_rad": (0.5, -10.0, 10.0, 0.0),
    "offset_x_A": (0.1, -0.6, 0.6, 0.0), "offset_y_A": (0.1, -0.6, 0.6, 0.0),
}  # fmt: skip
APERTURES = ("semiangle_mrad", "inner_mrad", "outer_mrad")
SPECIMEN = 13  # of these must be simulated anew; source and offset need not
PLAINNESS = 0.02  # c of equation (1)
DIFFERENCE = 0.1  # of a step, for derivatives
STARTS = ((30.0, 100.0), (30.0, 250.0), (25.0, 250.0), (20.0, 100.0), (20.0, 250.0), (20.0, 400.0))  # mrad, Å
K_SHIFT = (0.3, 0.6)  # of the points over which the beam's directions are averaged


@dataclass(frozen=True)
class Estimate:
    """An end of the search.

    Parameters
    ----------
    values : dict
        Of `SEARCHED`.
    residual : float
        mean (w − m)²: the share of the image's variance that is left unexplained.
    cost : float
        Equation (1).
    window : ndarray (40, 56)
        w, what the crystal looks like.
    """

    values: dict
    residual: float
    cost: float
    window: np.ndarray = field(repr=False)

    def microscope(self, energy_eV=2e5):
        """Energy and apertures, rounded to 0.1 mrad, with a perfect lens: unitcell.scattering.Microscope."""
        apertures = {name: round(self.values[name], 1) for name in APERTURES}
        return replace(Microscope(), energy_eV=energy_eV, **apertures)


def estimate_microscope(
    window, material=("Sr", "Ti", 3.905), energy_eV=2e5, starts=STARTS, *, keep=(), steps=12, progress=True
):
    """Search for the microscopes that show an untilted crystal as `window` does.

    Parameters
    ----------
    window : ndarray (40, 56)
        Mean of `unitcell.registration.lattice.extract_windows`.
    material : (A, B, lattice parameter [Å])
    energy_eV : float
        Not searched: files state it, and apertures make up for it.
    starts : sequence of (float, float)
        Convergence semi-angles [mrad], each with a detector from half of it to all of it, and thicknesses [Å].
    keep : sequence of str
        Of `SEARCHED`, what stays as it starts: `APERTURES`, where they are known.
    steps : int
        Most Gauss-Newton steps from each.

    Returns
    -------
    list of Estimate
        One for each start, the best first.

    Raises
    ------
    InputError
        A window of another shape or with pixels that are not finite.
    """
    ends = []
    for semiangle, thickness in tqdm(starts, desc="microscopes", disable=not progress):
        apertures = {"semiangle_mrad": semiangle, "inner_mrad": semiangle / 2, "outer_mrad": semiangle}
        known = apertures | {"thickness_A": thickness, "log_source_A": -1.2, "log_ellipticity": 0.2, "source_rad": 0.5}
        ends.append(refined(_Comparison(window, material, energy_eV), known, steps, keep))
    return sorted(ends, key=lambda end: end.cost)


def mean_window(image, lattice_A):
    """Mean of the windows around all B columns of an image: ndarray (40, 56)."""
    windows = extract_windows(image, register(image, lattice_A))
    whole = np.isfinite(windows).all((1, 2))
    if not whole.any():
        raise InputError(f"{image.name} has no B column farther than a unit cell from its edge: give a larger image.")
    return standardise(torch.from_numpy(windows[whole])).mean(0).numpy()


def known_crystal(text):
    """Parse 'Sr,Ti,3.905' into (A, B, lattice parameter [Å])."""
    try:
        a_site, b_site, lattice_A = (part.strip() for part in text.split(","))
        material = a_site, b_site, float(lattice_A)
        known = a_site in atomic_numbers and b_site in atomic_numbers and 3 <= material[2] <= 6
    except ValueError:
        known = False
    if not known:
        raise InputError(f"'{text}' is no crystal: give A cation, B cation and lattice parameter, such as Sr,Ti,3.905.")
    return material


def save_microscope(estimate, material, energy_eV, path):
    """Write a file for `unitcell.networks.your_microscope.load_microscope_file`; returns its path.

    Ranges of thickness and defocus are widened, where need be, so that the image lies well within them.
    """
    usual, found = Specimens(), estimate.values
    widest = max(usual.thickness_A[1], round(1.5 * found["thickness_A"], -1))
    given = {field: getattr(estimate.microscope(energy_eV), field) for field in APERTURES}
    given |= {"energy_eV": float(energy_eV), "materials": [list(material)]}
    given["specimens"] = {
        "thickness_A": [usual.thickness_A[0], float(widest)],
        "defocus_A": float(max(usual.defocus_A, round(abs(found["defocus_A"])))),
    }
    with written(path) as part:
        part.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def refined(comparison, known, steps, keep=()):
    """Gauss-Newton steps with Marquardt's damping from the values `known` (others zero): Estimate."""
    step, low, high, _ = (np.array(part) for part in zip(*SEARCHED.values(), strict=True))
    step = np.where([name in keep for name in SEARCHED], 0.0, step)
    point = np.clip([known.get(name, 0.0) for name in SEARCHED], low, high)
    misfit, damping = comparison(point), 0.05
    for _ in range(steps):
        moved = [(comparison(point + DIFFERENCE * each) - misfit) / DIFFERENCE for each in np.diag(step)]
        slope = np.stack(moved, axis=1)
        curvature, before = slope.T @ slope, misfit @ misfit
        floor = 1e-4 * np.trace(curvature) / len(point) * np.eye(len(point))
        for _ in range(6):
            damped = curvature + damping * (np.diag(np.diag(curvature)) + floor)
            tried = np.clip(point - step * np.linalg.solve(damped, slope.T @ misfit), low, high)
            found = comparison(tried)
            if found @ found < before:
                point, misfit, damping = tried, found, max(damping / 4, 1e-4)
                break
            damping *= 4
        if misfit @ misfit > 0.997 * before:
            break
    return comparison.estimate(point)


class _Comparison:
    """Square root of equation (1), term by term, at points in the order of `SEARCHED`."""

    def __init__(self, window, material, energy_eV):
        self.seen, self.material, self.energy_eV, self.simulated = _checked(window), material, energy_eV, (None, None)
        usual = np.array([size for *_, size in SEARCHED.values()])
        self.plain = np.divide(PLAINNESS, usual, out=np.zeros_like(usual), where=usual > 0)

    def __call__(self, point):
        difference = (self.window(point) - self.seen).numpy().ravel().astype(float)
        return np.concatenate([difference / np.sqrt(difference.size), self.plain * point])

    def estimate(self, point):
        misfit, window = self(point), self.window(point).numpy()
        difference = misfit[: window.size]
        values = dict(zip(SEARCHED, map(float, point), strict=True))
        return Estimate(values, float(difference @ difference), float(misfit @ misfit), window)

    def window(self, point):
        """What the crystal looks like: tensor (40, 56) with zero mean and unit variance."""
        key = tuple(point[:SPECIMEN])
        if self.simulated[0] != key:
            self.simulated = key, _cell(dict(zip(SEARCHED, point, strict=True)), self.material, self.energy_eV)
        return _recorded(self.simulated[1], point[SPECIMEN:], self.material[2])


def _cell(values, material, energy_eV):
    """Registered image of the untilted crystal: tensor (1, rows, columns)."""
    astigmatism = values["astigmatism_x_A"] + 1j * values["astigmatism_y_A"]
    coma = values["coma_x_A"] + 1j * values["coma_y_A"]
    lens = {
        "astigmatism_A": abs(astigmatism), "astigmatism_deg": np.degrees(np.angle(astigmatism)) / 2 % 180,
        "coma_A": abs(coma), "coma_deg": np.degrees(np.angle(coma)) % 360,
    }  # fmt: skip
    same = ("defocus_A", "spherical_A", "crystal_tilt_x_mrad", "crystal_tilt_y_mrad")
    specimen = {
        "material": material, "signs": "---", "tilts": np.zeros(3), "a_shift": (0.0, 0.0), "strain": np.zeros(3),
        "microscope": lens | {name: values[name] for name in same}, "depths": np.array([values["thickness_A"]]),
        "k_shift": K_SHIFT, "returned": RETURNED, "apertures": (1.0, 1.0, 1.0),
        "vibration": np.exp(values["log_vibration"]),
    }  # fmt: skip
    inner = min(values["inner_mrad"], 0.85 * values["outer_mrad"])
    angles = {"semiangle_mrad": values["semiangle_mrad"], "inner_mrad": inner, "outer_mrad": values["outer_mrad"]}
    images = specimen_images(specimen, Microscope().as_attributes() | {"energy_eV": energy_eV} | angles)
    return torch.as_tensor(images, dtype=torch.float32)


def _recorded(cell, source, lattice_A):
    """A window (40, 56) of a cell (1, rows, columns), blurred and set off by the last five of `SEARCHED`."""
    sd, ratio, angle = (torch.tensor([float(value)]) for value in source[:3])
    fine = refine(cell, source_covariance(torch.exp(sd), torch.exp(ratio), angle), cell_extent_A(lattice_A))
    position = pixel_positions((lattice_A, lattice_A)) + torch.tensor(source[3:]).float()
    return standardise(sample_periodic(fine, position[None], cell_extent_A(lattice_A)))[0]


def _checked(window):
    """The window as a tensor, standardised."""
    window = np.asarray(window, dtype=np.float32)
    if window.shape != WINDOW_SHAPE or not np.isfinite(window).all():
        raise InputError(f"A window of shape {window.shape} was given: give a finite one of {WINDOW_SHAPE} pixels.")
    return standardise(torch.from_numpy(window)[None])[0]
