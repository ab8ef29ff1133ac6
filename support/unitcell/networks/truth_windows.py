"""Noisy windows of images that no network is trained on, and what a network makes of them.

The images are abTEM's frozen phonons of crystals that stand upright (`abf.validation`), and our own frozen phonons
of crystals that do not (`unitcell.networks.leaning`).
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from unitcell.crystals import beam_periods
from unitcell.networks.tilt_training import score
from unitcell.networks.training_library import registered, seen_tilts
from unitcell.networks.training_windows import Conditions, record

REPEATS = 40  # windows of each image
REFERENCE_A = 3.905  # lattice parameter by which source and jitter are scaled
NAMES = ("v", "u", "gamma")
# Noise, and what a registration leaves over.
SHARP = Conditions(
    source_A=(0.0, 0.0), ellipticity=1.0, tail=0.0, mistilt_shift_A=0.0, magnification=0.01, shear=0.005,
    rotation_deg=0.3, offset_A=0.03, jitter_A=0.02,
)  # fmt: skip
# The same seen by a source of finite size.
BLURRED = replace(SHARP, source_A=(0.2, 0.4), ellipticity=1.2)


@dataclass(frozen=True)
class TrueImages:
    """Images of one material with what they show.

    Parameters
    ----------
    material : str
    depth_A : ndarray (T,)
        Thicknesses [Å].
    cells : tensor (n, T, rows, columns)
        Registered images of √2·a × 2a.
    projection : ndarray (n, 4)
        v, u, γ and alternation, see `unitcell.networks.training_library.seen_tilts` [degrees].
    """

    material: str
    depth_A: np.ndarray
    cells: torch.Tensor
    projection: np.ndarray

    def windows(self, thickness, dose, conditions, generator):
        """Every structure `REPEATS` times at one thickness (an index): windows (n, 40, 56), projection (n, 4)."""
        conditions = replace(conditions, dose=(dose, dose))
        cells = self.cells[:, thickness].repeat(REPEATS, 1, 1)
        return record(cells, REFERENCE_A, conditions, generator), np.tile(self.projection, (REPEATS, 1))


def true_images(truth):
    """The committed `phonon_truth` or `leaning_truth` by material, alternating patterns apart: list of TrueImages."""
    signs = [str(one) for one in truth.signs.values]
    names = np.array(
        [
            f"{a}{b}O3" + (" alternating" if beam_periods(pattern) > 1 else "")
            for a, b, pattern in zip(truth.a_site.values, truth.b_site.values, signs, strict=True)
        ]
    )
    tilts = np.stack([truth[name].values for name in ("alpha", "beta", "gamma")], axis=-1)
    seen = np.array([seen_tilts(tilt, pattern) for tilt, pattern in zip(tilts, signs, strict=True)])
    found = []
    for name in dict.fromkeys(names):
        here = names == name
        cells = torch.tensor(truth.abf.values[here], dtype=torch.float32)
        cells = registered(cells.flatten(0, 1)).unflatten(0, cells.shape[:2])
        found.append(TrueImages(str(name), truth.depth.values[here].mean(0), cells, seen[here]))
    return found


def score_truth(network, truth, doses, conditions=SHARP, *, least_A=0.0, seed=0):
    """Rms errors and coverage of a network by material, thickness and dose.

    Parameters
    ----------
    network : unitcell.networks.tilt_network.TiltEnsemble
    truth : list of TrueImages
    doses : sequence of float
        Electrons per Å².
    conditions : unitcell.networks.training_windows.Conditions
        `SHARP` or `BLURRED`; their dose is not used.
    least_A : float
        Thinner images are left out [Å].
    seed : int

    Returns
    -------
    pandas.DataFrame
        `material`, `thickness` [Å], `dose`; rms errors of v, u, gamma, alternation [degrees], u and gamma on the branch
        nearer to the truth; `coverage` of the 90 % intervals, mean of v, u and gamma.
    """
    generator, rows = torch.Generator().manual_seed(seed), []
    for images in truth:
        for index, depth in enumerate(images.depth_A):
            for dose in doses if depth >= least_A else ():
                scores = score(network, *images.windows(index, dose, conditions, generator))
                rms = {name: scores[f"rms_{name}_deg"] for name in (*NAMES, "alternation")}
                covered = np.mean([scores[f"coverage_{name}"] for name in NAMES])
                rows.append({"material": images.material, "thickness": depth, "dose": dose, **rms, "coverage": covered})
    return pd.DataFrame(rows)
