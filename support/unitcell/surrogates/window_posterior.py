"""The posterior of one window: every tilt and thickness that its counts leave possible, by Hamiltonian Monte Carlo.

The likelihood is Poisson, its expectation the Gaussian process of chapter 03 written in PyTensor, so that PyMC has
its gradient. The mirror (v, u, γ) → (v, −u, −γ) makes two modes of equal height, between which no chain would ever
walk: each half of the chains starts on one of them.
"""

import warnings

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from unitcell.errors import InputError
from unitcell.surrogates.surrogate import KERNELS


def expected_image(surrogate, tilts, thickness):
    """Posterior mean of the surrogate as a PyTensor expression.

    Parameters
    ----------
    surrogate : unitcell.surrogates.surrogate.Surrogate
    tilts : tensor variable (3,)
        (v, u, γ) [degrees].
    thickness : scalar tensor variable [Å]

    Returns
    -------
    tensor variable (rows · columns,), fraction of the incident electrons
    """
    known, depths, lengths, depth_length, scores, basis, mean = (
        getattr(surrogate, name).cpu().double().numpy()
        for name in ("tilts", "thicknesses", "tilt_lengths", "thickness_length", "scores", "basis", "mean")
    )
    kernel, (across, along) = KERNELS[surrogate.kernel], (reader.cpu().numpy() for reader in surrogate.readers)
    near = pt.dot(kernel(pt.sqrt((((tilts - known) / lengths) ** 2).sum(axis=1) + 1e-20), pt.exp), across)
    deep = pt.dot(kernel(pt.sqrt(((thickness - depths) / depth_length) ** 2 + 1e-20), pt.exp), along)
    joint = (near[:, None] * deep[None, :]).flatten()
    return pt.dot(pt.dot(joint, scores), basis) + mean.flatten()


def window_model(surrogate, counts, electrons, limit_deg=11.25):
    """PyMC model of the counts of one cell (sums over a window's cells).

    Parameters
    ----------
    surrogate : unitcell.surrogates.surrogate.Surrogate
    counts : ndarray (rows, columns)
        Detected electrons.
    electrons : float
        Incident electrons of each pixel.
    limit_deg : float
        v, u and γ are uniform in ±limit_deg before the image is seen, the thickness over the surrogate's range.
    """
    counts = np.asarray(counts)
    if counts.shape != tuple(surrogate.mean.shape) or not np.isfinite(counts).all() or (counts < 0).any():
        raise InputError(
            f"Counts of shape {counts.shape} do not fit a cell of {tuple(surrogate.mean.shape)} pixels, or are "
            "negative or NaN: give detected electrons."
        )
    depths = surrogate.thicknesses.cpu().double().numpy()
    with pm.Model() as model:
        tilts = pm.Uniform("tilts", -limit_deg, limit_deg, shape=3)
        thickness = pm.Uniform("thickness", depths.min(), depths.max())
        expected = pm.math.maximum(expected_image(surrogate, tilts, thickness), 1e-4)
        pm.Poisson("counts", electrons * expected, observed=counts.flatten())
    return model


def sample_window(surrogate, counts, electrons, start, *, draws=500, tune=500, chains=4, seed=0, progress=False):
    """Draws from the posterior of one window on both branches of the mirror.

    Parameters
    ----------
    surrogate, counts, electrons
        See `window_model`.
    start : (float, float, float, float)
        v, u, γ [degrees] and thickness [Å] where the first half of the chains starts; the other half starts at the
        mirror image.
    draws, tune, chains, seed
        Of PyMC's No-U-Turn sampler.

    Returns
    -------
    arviz.InferenceData
        `tilts` (v, u, γ) and `thickness`.
    """
    v, u, gamma, thickness = map(float, start)
    starts = [
        {"tilts": np.array([v, sign * u, sign * gamma]), "thickness": thickness}
        for sign in np.where(np.arange(chains) < chains / 2, 1, -1)
    ]
    with window_model(surrogate, counts, electrons), warnings.catch_warnings():
        # PyTensor from a wheel finds no BLAS to link to. These products are small, and need none.
        warnings.filterwarnings("ignore", "PyTensor could not link to a BLAS", UserWarning)
        # Convergence checks compare chains, and these are meant to differ: they sit on two modes.
        return pm.sample(
            draws, tune=tune, chains=chains, cores=1, initvals=starts, random_seed=seed, progressbar=progress,
            init="adapt_diag", target_accept=0.9, compute_convergence_checks=False,
        )  # fmt: skip
