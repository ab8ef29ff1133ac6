"""The book's image library: ABF images of tilted perovskites over tilts and thickness."""

import numpy as np
import torch
import xarray as xr

from unitcell.campaign import run_structures
from unitcell.crystals import beam_periods, tilted_perovskite
from unitcell.crystals.tilt_coordinates import to_projection, to_pseudocubic
from unitcell.errors import InputError
from unitcell.scattering import Microscope, Vibrations, annular_images, fibonacci_points, frozen_phonon_images

# 28 × 40 probe positions over √2·a × 2a: the Nyquist sampling of a 30 mrad probe at 200 kV, rounded up.
CELL_SHAPE = (40, 28)


def tilt_grid(step_deg, limit_deg=10.0):
    """All (α, β, γ) on a cubic grid from −limit to limit [degrees], ndarray of shape (n, 3)."""
    count = limit_deg / step_deg
    if not (step_deg > 0 and abs(count - round(count)) < 1e-9):
        raise InputError(f"tilt_step_deg = {step_deg:g} does not divide {limit_deg:g}°: give for instance 5 or 2.5.")
    axis = np.linspace(-limit_deg, limit_deg, 2 * round(count) + 1)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def simulate_stack(
    tilts_deg, thicknesses_A, microscope, *, signs="---", a_site="Sr", b_site="Ti", lattice_A=3.905,
    cutoff_mrad=60.0, k_points=(4, 3), configurations=0, seed=0, scheduler=None, folder=None, device="cpu",
    progress=True,
):  # fmt: skip
    """Images of one cell (√2·a × 2a) for every tilt and thickness, elastic or with frozen phonons.

    Mirrors and a shift by one column make every sign combination a copy of the octant v, u, γ ≥ 0, so
    a grid of 125 structures costs 27 scattering matrices. (A microscope that a mirror normal to image x changes,
    by a tilt, coma or oblique astigmatism, needs all 125.)

    Parameters
    ----------
    tilts_deg : ndarray, shape (n, 3)
        (α, β, γ) [degrees].
    thicknesses_A : sequence of float, shape (T,)
    microscope : unitcell.scattering.Microscope
    signs, a_site, b_site, lattice_A
        See `unitcell.crystals.tilted_perovskite`; patterns that are uniform along the beam.
    cutoff_mrad, k_points, device
        See `unitcell.scattering.annular_images`; `k_points` is a grid (int, int). Without upper Laue zones, which
        are too weak to matter at 300 K.
    configurations : int
        0 for elastic images, else the number of frozen-phonon configurations, shared out over five k-points
        (`beams.fibonacci_points`, in place of `k_points`) where they divide.
    seed : int
        Of the phonons.
    scheduler : str, optional
        Address of a Dask scheduler that shares out the structures; None computes here.
    folder : path, optional
        Keeps every finished structure, so that a stopped run goes on where it was.

    Returns
    -------
    xarray.Dataset
        `abf` (tilt, thickness, y, x), float32, fraction of the incident electrons, and with phonons its standard
        error `abf_error`; coordinates alpha, beta, gamma [degrees], thickness, x and y [Å]; settings as attributes.
    """
    if beam_periods(signs) != 1:
        raise InputError(f"Pattern '{signs}' alternates along the beam: the library holds '-' or '0' about a and b.")
    tilts_deg = np.asarray(tilts_deg, dtype=float)
    fold = _is_mirrored(microscope)
    distinct, member = np.unique(_octant(tilts_deg) if fold else _projections(tilts_deg), axis=0, return_inverse=True)
    settings = microscope.as_attributes() | {
        "signs": signs, "a_site": a_site, "b_site": b_site, "lattice_A": lattice_A, "cutoff_mrad": cutoff_mrad,
        "k_points": [int(n) for n in k_points], "configurations": int(configurations), "seed": int(seed),
    }  # fmt: skip
    thicknesses = [float(t) for t in np.asarray(thicknesses_A, dtype=float)]
    tasks = [(tuple(map(float, projection)), thicknesses, settings, device) for projection in distinct]
    found = run_structures(_structure_images, tasks, scheduler, folder, progress)
    stack = [found[m] for m in member.reshape(-1)]
    if fold:
        stack = [_from_octant(images, tilt) for images, tilt in zip(stack, tilts_deg, strict=True)]
    return _dataset(np.stack(stack), tilts_deg, thicknesses, settings)


def _structure_images(projection, thicknesses_A, settings, device):
    """Images of one (v, u, γ), and with phonons their standard error: float32 (1 or 2, T, rows, columns)."""
    crystal = {key: settings[key] for key in ("signs", "a_site", "b_site", "lattice_A")}
    crystal = tilted_perovskite(*to_pseudocubic(*projection), **crystal)
    microscope, count = Microscope.from_attributes(settings), settings["configurations"]
    if not count:
        k_points = tuple(settings["k_points"])
        options = {"cutoff_mrad": settings["cutoff_mrad"], "excitation_per_A": 0.0, "k_points": k_points}
        images = annular_images(crystal, microscope, thicknesses_A, CELL_SHAPE, device=device, **options)
        return images.cpu().numpy().astype(np.float32)[None]
    vibrations = Vibrations(seed=settings["seed"])
    options = {"cutoff_mrad": settings["cutoff_mrad"], "k_points": fibonacci_points(5 if count % 5 == 0 else 1)}
    images = frozen_phonon_images(
        crystal, microscope, thicknesses_A, CELL_SHAPE, count, vibrations, device=device, **options
    )
    error = images.std(dim=0) / np.sqrt(count) if count > 1 else torch.full_like(images[0], torch.nan)
    return torch.stack([images.mean(dim=0), error]).cpu().numpy().astype(np.float32)


def unseen_structures(settings, thicknesses_A, count, limit_deg, seed):
    """Simulate structures with random tilts, for testing and calibration only.

    Parameters
    ----------
    settings : dict
        Attributes of a stack: its crystal and microscope.
    thicknesses_A : ndarray, shape (T,)
        Thicknesses of that stack; the new ones lie halfway between them (or on a single one).
    count : int
    limit_deg : float
        Each of α, β, γ is uniform in ±limit_deg [degrees].
    seed : int
        Of the tilts, and of the phonons.

    Returns
    -------
    xarray.Dataset
        As from `simulate_stack`.
    """
    known = np.asarray(thicknesses_A, dtype=float)
    between = (known[:-1] + known[1:]) / 2 if len(known) > 1 else known
    tilts = np.random.default_rng(seed).uniform(-limit_deg, limit_deg, (count, 3))
    known = ("signs", "a_site", "b_site", "lattice_A", "cutoff_mrad", "k_points", "configurations")
    kept = {key: settings[key] for key in known if key in settings}
    return simulate_stack(tilts, between, Microscope.from_attributes(settings), seed=seed, progress=False, **kept)


def _octant(tilts_deg):
    """(|v|, |u|, |γ|) of every tilt."""
    return np.abs(_projections(tilts_deg))


def _projections(tilts_deg):
    """(v, u, γ) of every tilt, rounded so that equal structures compare equal."""
    return np.round(np.stack(to_projection(*tilts_deg.T), axis=-1), 9) + 0.0  # −0 is 0


def _is_mirrored(microscope):
    """Whether the mirror normal to image x leaves probe and specimen as they are."""
    q = np.linspace(-1, 1, 7)  # [1/Å]
    phase = microscope.aberration_phase(*np.meshgrid(q, q, indexing="ij"))
    upright = not (microscope.crystal_tilt_x_mrad or microscope.beam_tilt_x_mrad)
    return upright and np.allclose(phase, phase[::-1])


def _from_octant(images, tilt_deg):
    """Turn the images of (|v|, |u|, |γ|) into those of (v, u, γ).

    Shifting by one column flips all three signs, the mirror normal to the beam flips (u, γ) and
    changes nothing, the mirror normal to image x flips (v, γ) and the image.
    """
    sign = np.where(np.round(to_projection(*tilt_deg), 9) < 0, -1, 1)
    shifted = sign.prod() < 0
    if sign[0] * (-1 if shifted else 1) < 0:
        images = np.roll(images[..., ::-1], 1, axis=-1)
    return np.roll(images, images.shape[-1] // 2, axis=-1) if shifted else images


def _dataset(stack, tilts_deg, thicknesses_A, settings):
    """`stack` (tilt, 1 or 2, thickness, y, x) as a Dataset."""
    rows, columns = stack.shape[-2:]
    width, height = tilted_perovskite(0, 0, 0, lattice_A=settings["lattice_A"]).cell.lengths()[:2]
    degrees, angstrom = {"units": "degree"}, {"units": "angstrom"}
    meanings = {"abf": "fraction of incident electrons", "abf_error": "standard error of abf over configurations"}
    arrays = {
        name: (("tilt", "thickness", "y", "x"), stack[:, index], {"units": "1", "long_name": meaning})
        for index, (name, meaning) in enumerate(meanings.items())
        if index < stack.shape[1]
    }
    coordinates = {
        "alpha": ("tilt", tilts_deg[:, 0], degrees),
        "beta": ("tilt", tilts_deg[:, 1], degrees),
        "gamma": ("tilt", tilts_deg[:, 2], degrees),
        "thickness": ("thickness", np.asarray(thicknesses_A, dtype=float), angstrom),
        "y": ("y", np.arange(rows) * height / rows, angstrom),
        "x": ("x", np.arange(columns) * width / columns, angstrom),
    }
    return xr.Dataset(arrays, coords=coordinates, attrs=settings)
