"""A Gaussian process that interpolates ABF images between simulated structures (Laanait 2019, eqs. 2–3).

All pixels share one kernel k(θ, θ') = s² κ(|θ − θ'| / ℓ) over the tilts θ = (v, u, γ), with κ a Matérn
function,

    κ_½(r) = exp(−r),  κ_3/2(r) = (1 + √3 r) exp(−√3 r),  κ_5/2(r) = (1 + √5 r + 5r²/3) exp(−√5 r),

or the radial basis function exp(−r²/2). A second kernel of the same kind interpolates thickness, and
the prior covariance of an image stack is their product. With P outputs that share K = κ + ε1, the
amplitude s² has the closed form tr(K⁻¹G)/(nP), G = YYᵀ, so that the log marginal likelihood

    −½ [nP log(2π s²) + P log|K| + nP]

costs one Cholesky factorisation of an n × n matrix, however many pixels an image has.

Images differ in few ways: the outputs Y are kept as scores on the R principal components of pixels and the M of tilts
(mirrors make many of them alike), as many as leave an rms of `TRUNCATION` unexplained. The posterior mean is linear in
Y, so its error is of that size too, and one image costs (MT + P) R multiplications instead of nT P. It is summed as
Σ_ij c_i(θ) d_j(t) Y_ij, c = K⁻¹k(θ) and d = K_T⁻¹k_T(t): these are of order one, where K⁻¹Y is not, so that single
precision is enough for the sum; c and d need double.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from scipy.optimize import minimize

from unitcell.artefacts import plain_attributes
from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.errors import InputError

# r → κ(r); `exp` is that of the library that r belongs to.
KERNELS = {
    "matern12": lambda r, exp=torch.exp: exp(-r),
    "matern32": lambda r, exp=torch.exp: (1 + math.sqrt(3) * r) * exp(-math.sqrt(3) * r),
    "matern52": lambda r, exp=torch.exp: (1 + math.sqrt(5) * r + 5 / 3 * r**2) * exp(-math.sqrt(5) * r),
    "rbf": lambda r, exp=torch.exp: exp(-(r**2) / 2),
}
TRUNCATION = 5e-5  # rms of what principal components leave out, in fractions of the incident electrons
# Added to the diagonal: far below the 1e-7 that the images are accurate to, far above rounding.
NUGGET = 1e-8


def covariance(kernel, left, right, lengths):
    """κ between two sets of points: (n, d), (m, d) and lengths (d,) or scalar → (n, m)."""
    left, right = left / lengths, right / lengths
    squared = sum((a[:, None] - b) ** 2 for a, b in zip(left.unbind(1), right.unbind(1), strict=True))
    # √(r² + tiny): the derivative of √ is infinite at 0, where a point meets itself.
    return KERNELS[kernel](torch.sqrt(squared + 1e-20))


def log_marginal_likelihood(kernel, points, gram, outputs, lengths, nugget=NUGGET):
    """Log marginal likelihood at the best amplitude, and that amplitude s².

    Parameters
    ----------
    points : tensor (n, d)
    gram : tensor (n, n)
        Y Yᵀ of the centred outputs Y (n, P).
    outputs : int
        P.
    lengths : tensor (d,) or (1,)
    """
    n = len(points)
    factor = torch.linalg.cholesky(
        covariance(kernel, points, points, lengths) + nugget * torch.eye(n, dtype=gram.dtype)
    )
    amplitude = torch.cholesky_solve(gram, factor).diagonal().sum() / (n * outputs)
    log_det = 2 * factor.diagonal().log().sum()
    value = -0.5 * (n * outputs * (torch.log(2 * math.pi * amplitude) + 1) + outputs * log_det)
    return value, amplitude


def fit_lengths(kernel, points, values, *, per_axis=False, restarts=20, seed=0):
    """Kernel lengths that maximise the marginal likelihood, from random starts.

    Parameters
    ----------
    kernel : str
        One of `KERNELS`.
    points : ndarray (n, d)
    values : ndarray (n, P)
        Centred outputs.
    per_axis : bool
        One length per axis instead of one for all.

    Returns
    -------
    lengths : ndarray (d,) or (1,), in the units of the points
    amplitude : float, s²
    likelihood : float, log marginal likelihood
    """
    if kernel not in KERNELS:
        raise InputError(f"'{kernel}' is not a kernel: give one of {', '.join(KERNELS)}.")
    points = torch.as_tensor(points, dtype=torch.float64)
    values = torch.as_tensor(values, dtype=torch.float64)
    gram, outputs = values @ values.T, values.shape[1]
    spread = float((points.max(0).values - points.min(0).values).max())

    def negative(log_lengths):
        free = torch.tensor(log_lengths, requires_grad=True)
        value = -log_marginal_likelihood(kernel, points, gram, outputs, free.exp())[0] / values.numel()
        value.backward()
        return value.item(), free.grad.numpy()

    dimensions = points.shape[1] if per_axis else 1
    starts = np.random.default_rng(seed).uniform(math.log(spread / 10), math.log(spread * 3), (restarts, dimensions))
    bounds = [(math.log(spread / 50), math.log(spread * 20))] * dimensions
    best = min((minimize(negative, s, jac=True, method="L-BFGS-B", bounds=bounds) for s in starts), key=lambda r: r.fun)
    lengths = torch.as_tensor(np.exp(best.x))
    likelihood, amplitude = log_marginal_likelihood(kernel, points, gram, outputs, lengths)
    return lengths.numpy(), float(amplitude), float(likelihood)


@dataclass
class Surrogate:
    """Posterior of the Gaussian process: images for any tilt and thickness.

    Build with `Surrogate.fit` or `Surrogate.load`.
    """

    kernel: str
    tilts: torch.Tensor  # (n, 3): v, u, γ [degrees]
    thicknesses: torch.Tensor  # (T,) [Å]
    tilt_lengths: torch.Tensor
    thickness_length: torch.Tensor
    amplitude: float
    mean: torch.Tensor  # (rows, columns)
    scores: torch.Tensor  # (M · T, R): Y − mean in principal components
    basis: torch.Tensor  # (R, rows · columns): those of pixels
    modes: torch.Tensor  # (M, n): those of tilts
    settings: dict

    @classmethod
    def fit(
        cls, stack, *, kernel="matern52", per_axis=False, restarts=20, seed=0, truncation=TRUNCATION, device="cpu",
        dtype=torch.float32,
    ):  # fmt: skip
        """Fit to the dataset of `unitcell.abf.simulation.simulate_stack`; device and dtype are those of sampling."""
        images = stack["abf"].values.astype(np.float64)
        n, depth = images.shape[:2]
        mean = images.mean(axis=(0, 1))
        centred = images - mean
        tilts = np.stack(to_projection(*(stack[name].values for name in ("alpha", "beta", "gamma"))), axis=-1)
        tilt_lengths, _, _ = fit_lengths(
            kernel, tilts, centred.reshape(n, -1), per_axis=per_axis, restarts=restarts, seed=seed
        )
        thicknesses = stack["thickness"].values.astype(float)
        by_thickness = np.moveaxis(centred, 1, 0).reshape(depth, -1)
        thickness_length = np.ones(1)  # a single thickness has no neighbours to learn a length from
        if depth > 1:
            thickness_length, _, _ = fit_lengths(kernel, thicknesses[:, None], by_thickness, restarts=5, seed=seed)
        fitted = (tilts, thicknesses, tilt_lengths, thickness_length)
        return cls._solve(kernel, fitted, mean, centred, plain_attributes(stack), truncation, device, dtype)

    @classmethod
    def _solve(cls, kernel, fitted, mean, centred, settings, truncation, device, dtype):
        fitted = [torch.as_tensor(x, dtype=torch.float64) for x in fitted]
        points, depths, lengths, depth_length = fitted
        outputs = torch.as_tensor(centred, dtype=torch.float64).flatten(2)  # (n, T, P)
        basis = principal_components(outputs.flatten(0, 1), truncation)
        scores = outputs @ basis.T  # (n, T, R)
        modes = principal_components(scores.flatten(1).T, truncation * math.sqrt(outputs.shape[2] / len(basis)))
        across, along = _inverse(kernel, points, lengths), _inverse(kernel, depths[:, None], depth_length)
        amplitude = float((torch.einsum("ij,kl,jlr->ikr", across, along, scores) * scores).sum() / outputs.numel())
        scores = torch.einsum("mi,ikr->mkr", modes, scores).flatten(0, 1)
        mean, scores, basis = (torch.as_tensor(x, device=device, dtype=dtype) for x in (mean, scores, basis))
        return cls(kernel, *(x.to(device) for x in fitted), amplitude, mean, scores, basis, modes.to(device), settings)

    @property
    def device(self):
        """Where images are made."""
        return self.mean.device

    def images(self, projection, thickness):
        """Posterior mean images.

        Parameters
        ----------
        projection : tensor (B, 3)
            (v, u, γ) [degrees].
        thickness : tensor (B,)
            Thickness [Å].

        Returns
        -------
        tensor (B, rows, columns), fraction of the incident electrons.
        """
        pixels = torch.addmm(self.mean.flatten(), self.predicted_scores(projection, thickness), self.basis)
        return pixels.reshape(-1, *self.mean.shape)

    def predicted_scores(self, projection, thickness):
        """Scores of the posterior mean on the principal components, (B, R); parameters as in `images`."""
        near, deep = (k @ reader for k, reader in zip(self._near(projection, thickness), self.readers, strict=True))
        joint = (near.to(self.scores)[:, :, None] * deep.to(self.scores)[:, None, :]).flatten(1)  # (B, n · T)
        return joint @ self.scores

    def _near(self, projection, thickness):
        """Covariance with the simulations, of tilt (B, n) and of thickness (B, T), in double precision."""
        for asked, known, lengths in (
            (projection, self.tilts, self.tilt_lengths),
            (thickness[:, None], self.thicknesses[:, None], self.thickness_length),
        ):
            yield covariance(self.kernel, asked.double(), known, lengths)

    @cached_property
    def inverses(self):
        """K⁻¹ of the tilts and K_T⁻¹ of the thicknesses, float64."""
        return (
            _inverse(self.kernel, self.tilts, self.tilt_lengths),
            _inverse(self.kernel, self.thicknesses[:, None], self.thickness_length),
        )

    @cached_property
    def readers(self):
        """What turns covariances into coefficients of `scores`: (n, M) and (T, T), float64."""
        across, along = self.inverses
        return across @ self.modes.T, along

    def jacobian(self, projection, thickness):
        """Derivatives of the images by v, u, γ [1/degree] and thickness [1/Å]: tensor (B, 4, rows, columns)."""
        slopes = []
        for axis in range(4):
            along = torch.zeros_like(projection), torch.zeros_like(thickness)
            if axis < 3:
                along[0][:, axis] = 1
            else:
                along[1][:] = 1
            slopes.append(torch.func.jvp(self.predicted_scores, (projection, thickness), along)[1])
        return (torch.stack(slopes, dim=1) @ self.basis).unflatten(-1, self.mean.shape)

    def stream(self, projection, thickness, batch=2048):
        """Yield the images of many tilts in batches, none kept: tensors (≤ batch, rows, columns)."""
        for tilts, depths in zip(projection.split(batch), thickness.split(batch), strict=True):
            yield self.images(tilts.to(self.mean.device), depths.to(self.mean.device))

    def variance(self, projection, thickness):
        """Posterior variance of every pixel (all pixels share it): (B,), squared fraction."""
        explained = 1.0
        for near, inverse in zip(self._near(projection, thickness), self.inverses, strict=True):
            explained = explained * ((near @ inverse) * near).sum(1)
        return self.amplitude * (1 - explained).clamp_min(0)

    def to_dataset(self):
        """Everything `load` needs, as an xarray Dataset."""
        scores = self.scores.cpu().numpy().reshape(len(self.modes), len(self.thicknesses), -1)
        basis = self.basis.cpu().numpy().reshape(-1, *self.mean.shape)
        return xr.Dataset(
            {
                "scores": (("mode", "thickness", "component"), scores, {"units": "1"}),
                "modes": (("mode", "tilt"), self.modes.cpu().numpy(), {"units": "1"}),
                "basis": (("component", "y", "x"), basis, {"units": "1"}),
                "mean": (("y", "x"), self.mean.cpu().numpy(), {"units": "1"}),
                "tilts": (("tilt", "projection"), self.tilts.cpu().numpy(), {"units": "degree"}),
                "thicknesses": (("thickness",), self.thicknesses.cpu().numpy(), {"units": "angstrom"}),
                "tilt_lengths": (("length",), self.tilt_lengths.cpu().numpy(), {"units": "degree"}),
                "thickness_length": ((), self.thickness_length.item(), {"units": "angstrom"}),
            },
            attrs=self.settings | {"kernel": self.kernel, "amplitude": self.amplitude},
        )

    @classmethod
    def from_dataset(cls, dataset, device="cpu", dtype=torch.float32):
        """The surrogate that `to_dataset` wrote."""
        settings = plain_attributes(dataset)
        kernel, amplitude = settings.pop("kernel"), float(settings.pop("amplitude"))
        exact = ("tilts", "thicknesses", "tilt_lengths", "thickness_length", "modes")
        tensors = {name: torch.as_tensor(dataset[name].values, device=device, dtype=torch.float64) for name in exact}
        tensors |= {
            name: torch.as_tensor(dataset[name].values, device=device, dtype=dtype)
            for name in ("mean", "scores", "basis")
        }
        tensors["scores"], tensors["basis"] = tensors["scores"].flatten(0, 1), tensors["basis"].flatten(1)
        tensors["thickness_length"] = tensors["thickness_length"].reshape(1)
        return cls(kernel=kernel, amplitude=amplitude, settings=settings, **tensors)


def paper_grid(step_deg=0.25, limit_deg=11.25):
    """The (v, u, γ) of the paper's 90³ interpolated images, (α, β, γ) from −11.25° in steps of 0.25°: (729000, 3)."""
    axis = torch.arange(-limit_deg, limit_deg - step_deg / 2, step_deg)
    return torch.stack(to_projection(*torch.cartesian_prod(axis, axis, axis).unbind(1)), dim=1)


def leave_one_out(kernel, points, values, lengths):
    """What the process says of each point when it has not seen it (Rasmussen & Williams 2006, eqs. 5.10–5.12).

    Parameters
    ----------
    kernel : str
    points : ndarray (n, d)
    values : ndarray (n, P)
        Centred outputs.
    lengths : ndarray (d,) or (1,)

    Returns
    -------
    error : ndarray (n, P)
        Prediction minus value.
    sd : ndarray (n,)
        Standard deviation that the process states, at the amplitude of the others.
    """
    points, values = torch.as_tensor(points), torch.as_tensor(values, dtype=torch.float64)
    inverse = _inverse(kernel, points.double(), torch.as_tensor(lengths))
    diagonal = inverse.diagonal()
    error = -(inverse @ values) / diagonal[:, None]
    total = (values * (inverse @ values)).sum()
    others = (total - diagonal * error.pow(2).sum(1)) / ((len(values) - 1) * values.shape[1])
    return error.numpy(), (others / diagonal).sqrt().numpy()


def principal_components(outputs, truncation=TRUNCATION):
    """Orthonormal rows (R, P) that span the outputs (N, P) but for an rms of `truncation`."""
    variances, axes = torch.linalg.eigh(outputs.T @ outputs)
    left_out = variances.clamp_min(0).cumsum(0) / outputs.numel()  # of all components up to this one
    return axes[:, left_out > truncation**2].T.flip(0).contiguous()


def _inverse(kernel, points, lengths):
    """(κ + ε1)⁻¹, float64."""
    matrix = covariance(kernel, points, points, lengths) + NUGGET * torch.eye(
        len(points), dtype=points.dtype, device=points.device
    )
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
