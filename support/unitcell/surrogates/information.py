"""What one image can tell: Fisher information of an ABF image, and the least error that any reader of it can have.

N electrons that fall into pixels with expectation N p_j(θ) are Poisson-distributed, so the Fisher information is

    F_ab = N Σ_j (∂p_j/∂θ_a) (∂p_j/∂θ_b) / p_j,                                                      (1)

and no unbiased estimate of θ_a has a smaller standard deviation than √(F⁻¹)_aa (Cramér and Rao), the inverse being
taken over all parameters that are unknown together.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from unitcell.abf.simulation import CELL_SHAPE
from unitcell.crystals import tilted_perovskite
from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.errors import InputError
from unitcell.scattering import annular_images
from unitcell.scattering.beams import fibonacci_points

# Parameter → step of the central difference: degrees, Å, Å, mrad.
STEPS = {
    "v": 0.05, "u": 0.05, "gamma": 0.05, "thickness": 0.5, "defocus": 1.0, "crystal_tilt_x": 0.1, "crystal_tilt_y": 0.1,
}  # fmt: skip
MICROSCOPE_FIELDS = {
    "defocus": "defocus_A", "crystal_tilt_x": "crystal_tilt_x_mrad", "crystal_tilt_y": "crystal_tilt_y_mrad",
}  # fmt: skip
CELLS = 2  # of √2·a × 2a in the window that the tilt network sees


def image_and_slopes(projection, thicknesses_A, microscope, parameters=tuple(STEPS), *, crystal=None, **options):
    """Images of one cell at every thickness, and their derivatives by central differences.

    Parameters
    ----------
    projection : (float, float, float)
        v, u, γ [degrees].
    thicknesses_A : sequence of float, shape (T,)
    microscope : unitcell.scattering.Microscope
        Defocus and crystal tilt are varied about its own.
    parameters : sequence of str
        Keys of `STEPS`.
    crystal : dict, optional
        Keywords of `tilted_perovskite`.
    **options
        Of `annular_images`; five k-points of a rank-1 lattice unless given.

    Returns
    -------
    images : ndarray (T, rows, columns), fraction of the incident electrons
    slopes : ndarray (T, parameters, rows, columns), per degree, Å, Å or mrad
    """
    unknown = [name for name in parameters if name not in STEPS]
    if unknown:
        raise InputError(f"{', '.join(unknown)} is no parameter of an image: give some of {', '.join(STEPS)}.")
    options = {"k_points": fibonacci_points(5), "cutoff_mrad": 60.0, "fold": False} | options

    depths = np.asarray(thicknesses_A, dtype=float)

    def images(moved=None, step=0.0):
        tilts = [angle + step * (moved == name) for name, angle in zip(("v", "u", "gamma"), projection, strict=True)]
        scope = microscope
        if moved in MICROSCOPE_FIELDS:
            scope = replace(scope, **{MICROSCOPE_FIELDS[moved]: getattr(scope, MICROSCOPE_FIELDS[moved]) + step})
        atoms = tilted_perovskite(*to_pseudocubic(*tilts), **(crystal or {}))
        return annular_images(atoms, scope, depths + step * (moved == "thickness"), CELL_SHAPE, **options).numpy()

    slopes = [(images(name, STEPS[name]) - images(name, -STEPS[name])) / (2 * STEPS[name]) for name in parameters]
    return images(), np.stack(slopes, axis=1)


def fisher_information(image, slopes, electrons):
    """Equation (1): ndarray (parameters, parameters).

    Parameters
    ----------
    image : ndarray (rows, columns)
        Fraction of the incident electrons.
    slopes : ndarray (parameters, rows, columns)
    electrons : float
        Incident electrons of each pixel.
    """
    weighted = slopes / image
    return electrons * np.einsum("ayx,byx->ab", weighted, slopes)


def cramer_rao(information, names, known=()):
    """Least standard deviation of each unknown parameter, as a dictionary; infinite where the image says nothing.

    Parameters
    ----------
    information : ndarray (parameters, parameters)
    names : sequence of str
        Of its axes.
    known : sequence of str
        Parameters that are known otherwise.
    """
    kept = [index for index, name in enumerate(names) if name not in known]
    part = information[np.ix_(kept, kept)]
    scale = np.sqrt(np.maximum(part.diagonal(), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(part / np.outer(scale, scale))
    blind = values < 1e-10  # directions along which the image does not change
    variance = (vectors[:, ~blind] ** 2 / values[~blind]).sum(axis=1)
    variance[(vectors[:, blind] ** 2).sum(axis=1) > 1e-6] = np.inf
    return {names[index]: float(np.sqrt(v) / s) for index, v, s in zip(kept, variance, scale, strict=True)}


def bounds_table(states, thicknesses_A, dose, microscope, known=(), **options):
    """Cramér–Rao bounds for windows of two cells: one row for each state and thickness.

    Parameters
    ----------
    states : ndarray (n, 3)
        (v, u, γ) [degrees].
    thicknesses_A : sequence of float
    dose : float
        Electrons per Å².
    microscope : unitcell.scattering.Microscope
    known : sequence of str
        Parameters of `STEPS` that need not be found from the image.
    **options
        Of `image_and_slopes`.

    Returns
    -------
    pandas.DataFrame
        `v_deg`, `u_deg`, `gamma_deg`, `thickness_A` of the state, and the bound of every unknown parameter.
    """
    crystal = options.get("crystal") or {}
    electrons, rows = window_electrons(dose, crystal.get("lattice_A", 3.905)), []
    for state in tqdm(states, desc="states", disable=len(states) < 4):
        images, slopes = image_and_slopes(state, thicknesses_A, microscope, **options)
        for depth, image, slope in zip(thicknesses_A, images, slopes, strict=True):
            bounds = cramer_rao(fisher_information(image, slope, electrons), tuple(STEPS), known)
            names = ("v_deg", "u_deg", "gamma_deg", "thickness_A")
            rows.append(dict(zip(names, (*map(float, state), float(depth)), strict=True)) | bounds)
    return pd.DataFrame(rows)


def window_electrons(dose, lattice_A):
    """Incident electrons of each pixel of one cell when a window of two cells is read [dose in e/Å²]."""
    width, height = np.sqrt(2) * lattice_A, 2 * lattice_A
    return CELLS * dose * width * height / np.prod(CELL_SHAPE)
