"""Exact posterior of a mean and a scatter, for every number of observations at once, without sampling.

Observations are N(μ, σ²) (Kalinin et al. 2020, section 1). Their likelihood depends on three numbers only, n, their
mean and their sum of squares about it, so "updated with each datapoint" is a running sum, and every posterior a
small grid in (μ, σ), centred and scaled by its own data. Module `chain` samples the same model by NUTS, as the check.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from unitcell.errors import InputError

MU_POINTS, SIGMA_POINTS = 241, 48
CHUNK = 128  # posteriors evaluated together: bounds the memory, about 12 MB an array
FINEST = 1e-5  # of the prior's largest σ: the narrowest scatter that a grid resolves
TAIL = 1e-10  # probability that a grid may leave out at one end


@dataclass(frozen=True)
class LaplaceUniform:
    """The paper's prior: μ ~ Laplace(centre, width), σ ~ Uniform(0, sd_max); numbers, or arrays with one a
    posterior."""

    centre: np.ndarray
    width: np.ndarray
    sd_max: np.ndarray

    def log_density(self, mu, sigma):
        """Logarithm of the density at (μ, σ), which broadcast with one row a posterior."""
        centre, width, sd_max = (_column(value, mu) for value in (self.centre, self.width, self.sd_max))
        return -np.abs(mu - centre) / width - np.log(2 * width * sd_max) + 0 * sigma

    @property
    def reach(self):
        """Distance from the centre beyond which μ is not looked for."""
        return 25 * np.asarray(self.width, float)

    def rows(self, index):
        """The priors of the posteriors `index`."""
        return LaplaceUniform(*(_rows(value, index) for value in (self.centre, self.width, self.sd_max)))


@dataclass(frozen=True)
class NormalInverseGamma:
    """The conjugate prior, whose posterior is known: σ² ~ InverseGamma(shape, scale), μ ~ N(centre, σ²/strength)."""

    centre: float
    strength: float
    shape: float
    scale: float

    def log_density(self, mu, sigma):
        """Logarithm of the density at (μ, σ)."""
        of_sigma = np.log(2) + self.shape * np.log(self.scale) - special.gammaln(self.shape)
        of_sigma = of_sigma - (2 * self.shape + 1) * np.log(sigma) - self.scale / sigma**2
        return of_sigma + stats.norm.logpdf(mu, self.centre, sigma / np.sqrt(self.strength))

    @property
    def sd_max(self):
        """σ that the prior exceeds with a probability of 1e-10."""
        return np.sqrt(self.scale / special.gammaincinv(self.shape, TAIL))

    @property
    def reach(self):
        """Distance from the centre beyond which μ is not looked for."""
        spread = np.sqrt(self.scale / (self.shape * self.strength))
        return float(stats.t.isf(TAIL, 2 * self.shape) * spread)

    def rows(self, _):
        """One prior for all."""
        return self

    def posterior_mean(self, n, mean, squares):
        """Closed form: the marginal posterior of μ, a Student distribution of scipy.stats."""
        strength, shape = self.strength + n, self.shape + n / 2
        shift = self.strength * n * (mean - self.centre) ** 2 / (2 * strength)
        centre = (self.strength * self.centre + n * mean) / strength
        return stats.t(2 * shape, centre, np.sqrt((self.scale + squares / 2 + shift) / (shape * strength)))


@dataclass(frozen=True)
class GridPosterior:
    """Posteriors of (μ, σ), one a row.

    Parameters
    ----------
    n, average, squares : ndarray, shape (k,)
        Observations (an effective number may be fractional), their mean, and their sum of squares about it.
    mu, mu_density, mu_cdf : ndarray, shape (k, 241)
        Grid of μ, marginal density, and cumulative probability.
    sigma, sigma_mass : ndarray, shape (k, 48)
        Nodes of σ, and the probability that each stands for (Gauss-Legendre).
    log_evidence : ndarray, shape (k,)
        Logarithm of p(D).
    prior : LaplaceUniform or NormalInverseGamma
    """

    n: np.ndarray
    average: np.ndarray
    squares: np.ndarray
    mu: np.ndarray
    mu_density: np.ndarray
    mu_cdf: np.ndarray
    sigma: np.ndarray
    sigma_mass: np.ndarray
    log_evidence: np.ndarray
    prior: object

    def moments(self):
        """Mean and standard deviation of μ, then of σ: four arrays (k,)."""
        centre = self.mu[:, [self.mu.shape[1] // 2]]
        first = np.trapezoid((self.mu - centre) * self.mu_density, self.mu)
        second = np.trapezoid((self.mu - centre) ** 2 * self.mu_density, self.mu)
        sigma = (self.sigma * self.sigma_mass).sum(1)
        spread = np.sqrt(((self.sigma - sigma[:, None]) ** 2 * self.sigma_mass).sum(1))
        return centre[:, 0] + first, np.sqrt(second - first**2), sigma, spread

    def probability_below(self, value):
        """P(μ < value) of each posterior, for one value or one a posterior: (k,)."""
        values = np.broadcast_to(value, self.n.shape)
        return np.array([np.interp(v, x, c) for v, x, c in zip(values, self.mu, self.mu_cdf, strict=True)])

    def probability_in(self, rope):
        """P(rope[0] < μ < rope[1]) of each posterior: (k,)."""
        return self.probability_below(rope[1]) - self.probability_below(rope[0])

    def sigma_below(self, value):
        """P(σ < value) of each posterior: (k,), from the nodes of σ at half their own mass."""
        cumulative = np.cumsum(self.sigma_mass, 1) - self.sigma_mass / 2
        values = np.broadcast_to(value, self.n.shape)
        rows = zip(values, np.log(self.sigma), cumulative, strict=True)
        return np.array([np.interp(np.log(v), x, c, left=0, right=1) for v, x, c in rows])

    def hdi(self, probability=0.94, points=241):
        """Highest-density interval of μ: the shortest that holds `probability`. Two arrays (k,): low, high."""
        below = np.linspace(0, 1 - probability, points)
        lowest = np.array([np.interp(below, c, x) for c, x in zip(self.mu_cdf, self.mu, strict=True)])
        highest = np.array([np.interp(below + probability, c, x) for c, x in zip(self.mu_cdf, self.mu, strict=True)])
        best = np.clip((highest - lowest).argmin(1), 1, points - 2)
        near = best[:, None] + np.arange(-1, 2)
        width = np.take_along_axis(highest - lowest, near, 1)  # a parabola through the three shortest
        bend = width[:, 0] - 2 * width[:, 1] + width[:, 2]
        slope = (width[:, 0] - width[:, 2]) / 2
        step = np.clip(np.divide(slope, bend, out=np.zeros_like(bend), where=bend > 0), -1, 1)
        return tuple(_between(np.take_along_axis(edge, near, 1), step) for edge in (lowest, highest))

    def log_density_at(self, value):
        """Logarithm of the posterior density of μ at `value`, however far out: (k,)."""
        squares = self.squares + self.n * (self.average - value) ** 2
        sigma, weights = _sigma_nodes(self.n, squares, self.prior)
        mu = np.full_like(sigma, value)
        log_p = _log_likelihood(self.n[:, None], squares[:, None], sigma) + self.prior.log_density(mu, sigma)
        return special.logsumexp(log_p, b=weights, axis=1) - self.log_evidence

    def log_bayes_factor(self, value=0.0):
        """ln BF of μ ≠ value against μ = value, by the Savage-Dickey ratio: prior over posterior density there, (k,).

        Only for the prior `LaplaceUniform`, in which μ and σ are independent.
        """
        width, centre = np.asarray(self.prior.width, float), np.asarray(self.prior.centre, float)
        return -np.abs(value - centre) / width - np.log(2 * width) - self.log_density_at(value)


def sequential_posterior(values, prior):
    """The posteriors of (μ, σ) after the first 1, 2, … N observations, all of them.

    Parameters
    ----------
    values : array_like, shape (N,)
    prior : LaplaceUniform or NormalInverseGamma

    Returns
    -------
    GridPosterior
        Row n − 1 belongs to the first n observations.

    Raises
    ------
    InputError
        No, not finite or constant observations; a prior without width.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise InputError(f"Observations have shape {values.shape}: give a list of numbers, one an observation.")
    if not np.isfinite(values).all():
        raise InputError(f"Observations hold {np.sum(~np.isfinite(values))} NaN or infinite values: drop them.")
    if len(values) > 1 and np.ptp(values) <= 1e-12 * np.abs(values).max():
        raise InputError(f"All {len(values)} observations are {values[0]:.4g}: give measured values with scatter.")
    return moment_posterior(*running_moments(values), prior)


def running_moments(values):
    """n, mean, and sum of squares about the mean of the first 1, 2, … N `values` (..., N): three arrays."""
    values = np.asarray(values, float)
    n = np.arange(1, values.shape[-1] + 1)
    origin = values[..., :1]  # near the data: the squares do not cancel
    mean = np.cumsum(values - origin, -1) / n
    squares = np.cumsum((values - origin) ** 2, -1) - n * mean**2
    return n.astype(float), mean + origin, np.maximum(squares, 0)


def moment_posterior(n, mean, squares, prior):
    """The posteriors of (μ, σ) given numbers, means and sums of squares about the mean: `GridPosterior`, one a row.

    Parameters
    ----------
    n, mean, squares : array_like, shape (k,)
    prior : LaplaceUniform or NormalInverseGamma
        One for all, or with one entry a posterior.
    """
    n, mean, squares = (np.array(value, float) for value in np.broadcast_arrays(n, mean, squares))
    if np.any(np.asarray(prior.sd_max) <= 0) or np.any(np.asarray(prior.reach) <= 0):
        raise InputError("A prior has no width: give a positive mean bond length or lattice parameter.")
    chunks = [np.arange(start, min(start + CHUNK, len(n))) for start in range(0, len(n), CHUNK)]
    parts = [_on_grid(n[rows], mean[rows], squares[rows], prior.rows(rows)) for rows in chunks]
    return GridPosterior(n, mean, squares, *map(np.concatenate, zip(*parts, strict=True)), prior)


def _on_grid(n, mean, squares, prior):
    """Marginals of some posteriors: mu, mu_density, mu_cdf, sigma, sigma_mass, log_evidence."""
    mu, jacobian = _mu_nodes(n, mean, squares, prior)  # (k, g)
    sigma, weights = _sigma_nodes(n, squares, prior)  # (k, h)
    around = squares[:, None] + n[:, None] * (mu - mean[:, None]) ** 2  # (k, g)
    log_p = prior.log_density(mu[:, :, None], sigma[:, None, :])  # (k, g, h)
    log_p = log_p - (n[:, None] * (np.log(sigma) + np.log(2 * np.pi) / 2))[:, None, :]
    log_p -= around[:, :, None] * (0.5 / sigma**2)[:, None, :]
    top = log_p.max((1, 2), keepdims=True)
    log_p -= top
    p = np.exp(log_p, out=log_p)
    of_mu = np.einsum("kgh,kh->kg", p, weights)
    of_sigma = np.einsum("kgh,kg->kh", p, jacobian) * weights
    step = of_mu * jacobian  # jacobian holds dμ/dt and the pitch of t
    cdf = np.cumsum(step, 1) - (step + step[:, :1]) / 2  # trapezoids
    total = cdf[:, -1]
    cdf, density = cdf / total[:, None], of_mu / total[:, None]
    return mu, density, cdf, sigma, of_sigma / of_sigma.sum(1, keepdims=True), np.log(total) + top[:, 0, 0]


def _mu_nodes(n, mean, squares, prior):
    """Grid of μ about the mean, dense where the likelihood is narrow, and dμ of each point: mean + s sinh(t)."""
    sd_max = np.broadcast_to(prior.sd_max, n.shape)
    scale = np.maximum(np.sqrt(squares / n) / np.sqrt(n), 10 * FINEST * sd_max)
    far = np.abs(mean - prior.centre) + prior.reach
    tail = stats.t.isf(TAIL, np.maximum(n - 2, 1)) * scale * np.sqrt(n / np.maximum(n - 2, 0.5))
    pull = n * scale**2 / (prior.reach / 25)  # of a narrow prior, at most σ²/(n width)
    half = np.where(n > 3, np.minimum(far, tail + pull / np.maximum(n - 2, 1)), far)
    limit = np.arcsinh(half / scale)[:, None]
    t = limit * np.linspace(-1, 1, MU_POINTS)
    return mean[:, None] + scale[:, None] * np.sinh(t), scale[:, None] * np.cosh(t) * (2 * limit / (MU_POINTS - 1))


def _sigma_nodes(n, squares, prior):
    """Gauss-Legendre nodes and weights in ln σ between where the likelihood and the prior end: two arrays (k, 48)."""
    sd_max = np.broadcast_to(prior.sd_max, n.shape)
    low = np.sqrt(squares / stats.chi2.isf(1e-12, n))
    high = np.where(n > 2.5, np.sqrt(squares / stats.chi2.ppf(TAIL, np.maximum(n - 2, 0.5))), sd_max)
    high = np.maximum(np.minimum(high, sd_max), 2 * FINEST * sd_max)
    low = np.clip(low, FINEST * sd_max, 0.5 * high)
    node, weight = np.polynomial.legendre.leggauss(SIGMA_POINTS)
    half = np.log(high / low)[:, None] / 2
    sigma = np.sqrt(low * high)[:, None] * np.exp(half * node)
    return sigma, weight * half * sigma


def _log_likelihood(n, squares_about_mu, sigma):
    return -n * np.log(sigma) - n * np.log(2 * np.pi) / 2 - squares_about_mu / (2 * sigma**2)


def _column(value, like):
    """A prior's number, or its array with one entry a posterior, shaped to broadcast with rows of posteriors."""
    value = np.asarray(value, float)
    return value.reshape(value.shape + (1,) * (like.ndim - 1)) if value.ndim else value


def _rows(value, index):
    value = np.asarray(value, float)
    return value[index] if value.ndim else value


def _between(three, step):
    """Quadratic interpolation of three equidistant values (k, 3) at `step` from the middle one."""
    left, middle, right = three.T
    return middle + step * (right - left) / 2 + step**2 * (left - 2 * middle + right) / 2
