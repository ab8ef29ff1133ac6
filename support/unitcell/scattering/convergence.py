"""Beams and k-points chosen by a tolerance instead of by habit."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from unitcell.errors import InputError
from unitcell.scattering.beams import PROBE_BEAMS, largest_angle
from unitcell.scattering.bloch import EXCITATION_PER_A, annular_images

CUTOFFS_MRAD = (40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0)
CHECK_SHAPE = (20, 14)


@dataclass(frozen=True)
class Sampling:
    """Settings that meet a tolerance, as keywords of `annular_images` (see `keywords`), and the error they leave."""

    cutoff_mrad: float
    excitation_per_A: float
    k_points: tuple
    error: float

    def keywords(self):
        """The settings, for `annular_images`."""
        return {"cutoff_mrad": self.cutoff_mrad, "excitation_per_A": self.excitation_per_A, "k_points": self.k_points}


def choose_sampling(crystal, microscope, thicknesses_A, tolerance=0.01, **options):
    """The cheapest cut-off and k-points whose image stays within a tolerance of finer ones.

    Steps through cut-offs, upper zones on and off, and k-grids, each until the next finer step changes the image by
    less than half the tolerance (relative rms over the cell, largest over thickness).

    Parameters
    ----------
    crystal : ase.Atoms
    microscope : unitcell.scattering.Microscope
    thicknesses_A : sequence of float [Å]
    tolerance : float
        Largest relative rms error of the image.
    **options
        Passed to `annular_images`, for instance thermal=False.

    Returns
    -------
    Sampling
        Its `error` is the sum of the last changes.

    Raises
    ------
    InputError
        The tolerance is not positive, or not met at the finest step.
    """
    if not tolerance > 0:
        raise InputError(f"tolerance = {tolerance:g} cannot be met: give a positive one, for instance 0.01.")

    def image(cutoff_mrad, excitation_per_A, k_points):
        settings = {"cutoff_mrad": cutoff_mrad, "excitation_per_A": excitation_per_A, "k_points": k_points}
        return annular_images(crystal, microscope, thicknesses_A, CHECK_SHAPE, **settings, **options)

    grids = k_grids(crystal, microscope)
    coarse, needed = grids[0], largest_angle(microscope, options.get("detectors_mrad") or [(0, microscope.outer_mrad)])
    cutoffs = [c for c in CUTOFFS_MRAD if c > 1.05 * needed]
    cutoff, error = _settle(cutoffs, lambda c: image(c, EXCITATION_PER_A, coarse), tolerance / 2, "cutoff_mrad")
    without = relative_rms(image(cutoff, 0.0, coarse), image(cutoff, EXCITATION_PER_A, coarse))
    excitation, error = (0.0, error + without) if error + without < tolerance / 2 else (EXCITATION_PER_A, error)
    k_points, change = _settle(grids, lambda k: image(cutoffs[0], 0.0, k), tolerance / 2, "k_points")
    return Sampling(cutoff, excitation, k_points, error + change)


def k_grids(crystal, microscope):
    """Monkhorst-Pack grids from coarse to fine, about equally dense along x and y: list of (int, int)."""
    lengths = crystal.cell.lengths()[:2]
    coarsest = max(5.0, PROBE_BEAMS * microscope.wavelength_A * 1e3 / microscope.semiangle_mrad)
    grids = []
    for span in coarsest * np.arange(1.0, 8.1, 0.5):
        grid = tuple(max(1, int(np.ceil(span / length))) for length in lengths)
        if grid not in grids:
            grids.append(grid)
    return grids


def relative_rms(image, reference):
    """Relative rms difference over the cell, the largest over all thicknesses."""
    change = (image - reference).double().square().mean(dim=(-2, -1)).sqrt() / reference.double().mean(dim=(-2, -1))
    return float(torch.max(change))


def _settle(steps, image, limit, name):
    """The first step whose image the next one changes by less than the limit, and that change."""
    previous = image(steps[0]) if len(steps) > 1 else None
    for step, finer in itertools.pairwise(steps):
        current = image(finer)
        change = relative_rms(previous, current)
        if change < limit:
            return step, change
        previous = current
    raise InputError(f"No {name} of {steps} meets {limit:g}: allow a larger tolerance or a thinner crystal.")
