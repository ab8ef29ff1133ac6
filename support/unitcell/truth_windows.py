"""Noisy windows of abTEM's frozen-phonon images, on which no network is trained, and what a network makes of them."""

import numpy as np
import pandas as pd
import torch

from unitcell.crystals import beam_periods
from unitcell.tilt_training import score
from unitcell.tilts import to_projection
from unitcell.training_library import registered
from unitcell.training_windows import Conditions, record

REPEATS = 40  # windows of each image
REFERENCE_A = 3.905  # lattice parameter by which source and jitter are scaled
STEADY = {
    "source_A": (0.2, 0.4), "ellipticity": 1.2, "tail": 0.0, "mistilt_shift_A": 0.0, "magnification": 0.01,
    "shear": 0.005, "rotation_deg": 0.3, "offset_A": 0.03, "jitter_A": 0.02,
}  # fmt: skip


def materials_of(truth):
    """Material → indices of its structures whose pattern is uniform along the beam; others have no single tilt."""
    uniform = np.array([beam_periods(str(signs)) == 1 for signs in truth.signs.values])
    names = np.array([f"{a}{b}O3" for a, b in zip(truth.a_site.values, truth.b_site.values, strict=True)])
    return {str(name): np.flatnonzero(uniform & (names == name)) for name in dict.fromkeys(names[uniform])}


def truth_windows(truth, members, thickness, dose, generator):
    """Noisy windows and true (v, u, γ) of some structures at one thickness, every one `REPEATS` times.

    Parameters
    ----------
    truth : xarray.Dataset
        `phonon_truth`.
    members : ndarray of int
    thickness : int
        Index.
    dose : float
        Electrons per Å².
    generator : torch.Generator

    Returns
    -------
    windows : tensor (n, 40, 56)
    projection : ndarray (n, 3) [degrees]
    """
    cells = registered(torch.tensor(truth.abf.values[members, thickness], dtype=torch.float32))
    angles = np.stack(to_projection(*(truth[name].values[members] for name in ("alpha", "beta", "gamma"))), axis=-1)
    conditions = Conditions(dose=(dose, dose), **STEADY)
    return record(cells.repeat(REPEATS, 1, 1), REFERENCE_A, conditions, generator), np.tile(angles, (REPEATS, 1))


def score_truth(network, truth, doses, seed=0):
    """Rms errors and coverage of a network by material, thickness and dose.

    Parameters
    ----------
    network : unitcell.tilt_network.TiltEnsemble
    truth : xarray.Dataset
        `phonon_truth`.
    doses : sequence of float
        Electrons per Å².

    Returns
    -------
    pandas.DataFrame
        `material`, `thickness` [Å], `dose`, rms errors `v`, `u`, `gamma` [degrees] on the branch nearer to the truth,
        and `coverage` of the 90 % intervals, mean of the three.
    """
    generator, rows = torch.Generator().manual_seed(seed), []
    for material, members in materials_of(truth).items():
        for thickness in range(truth.sizes["thickness"]):
            depth = float(truth["depth"].values[members, thickness].mean())
            for dose in doses:
                scores = score(network, *truth_windows(truth, members, thickness, dose, generator))
                rms = {name: scores[f"rms_{name}_deg"] for name in ("v", "u", "gamma")}
                covered = np.mean([scores[f"coverage_{name}"] for name in ("v", "u", "gamma")])
                rows.append({"material": material, "thickness": depth, "dose": dose} | rms | {"coverage": covered})
    return pd.DataFrame(rows)
