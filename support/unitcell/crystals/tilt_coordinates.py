"""Tilt coordinates: pseudo-cubic angles and what one projection along [1-10] can tell.

The pseudo-cubic tilts (α, β, γ) about a, b, c become, in the image's own axes,

    v = (α − β)/√2   about the beam [1-10],
    u = (α + β)/√2   about image x ∥ [110],
    γ                about image y ∥ [001].

A mirror normal to the beam maps (v, u, γ) to (v, −u, −γ) and leaves the projected potential as it
is: one projection gives v with its sign, (u, γ) only up to a common sign. The canonical branch has
γ > 0, or u > 0 where γ = 0. Every function takes NumPy arrays or torch tensors, in degrees.
"""

import math

import numpy as np

ROOT2 = math.sqrt(2.0)


def to_projection(alpha, beta, gamma):
    """(α, β, γ) → (v, u, γ) [degrees]."""
    return (alpha - beta) / ROOT2, (alpha + beta) / ROOT2, gamma


def to_pseudocubic(v, u, gamma):
    """(v, u, γ) → (α, β, γ) [degrees]."""
    return (u + v) / ROOT2, (u - v) / ROOT2, gamma


def canonical(u, gamma):
    """The branch of ±(u, γ) with γ > 0, or u > 0 where γ = 0 [degrees]."""
    u, gamma = np.asarray(u, dtype=float), np.asarray(gamma, dtype=float)
    sign = np.where((gamma < 0) | ((gamma == 0) & (u < 0)), -1.0, 1.0)
    return sign * u, sign * gamma


# Below this tilt [degrees] an image changes with the square of (γ, u), above it about linearly.
SOFTNESS_DEG = 4.0


def doubled(u, gamma):
    """(γ² − u², 2uγ) / √(γ² + u² + r₀²) [degrees], r₀ = 4°: the same on both branches, and smooth.

    The square of γ + iu doubles its angle, so that ±(u, γ) coincide; the denominator leaves it quadratic, as
    images are, for small tilts and makes it linear, so that errors are degrees, for large ones.
    """
    scale = 1.0 / (u**2 + gamma**2 + SOFTNESS_DEG**2) ** 0.5
    return (gamma**2 - u**2) * scale, 2.0 * u * gamma * scale


def softened(size):
    """A tilt's size s as s²/√(s² + r₀²), as smooth in an image as `doubled` coordinates [degrees]."""
    return size**2 / (size**2 + SOFTNESS_DEG**2) ** 0.5


def length_of_doubled(size):
    """√(γ² + u²) from the length of its doubled coordinates, the inverse of `softened` [degrees]."""
    return np.sqrt((size**2 + size * np.sqrt(size**2 + 4 * SOFTNESS_DEG**2)) / 2)


def halved(p, q):
    """The canonical (u, γ) whose doubled coordinates are (p, q) [degrees]."""
    length, angle = length_of_doubled(np.hypot(p, q)), 0.5 * np.arctan2(q, p)
    return canonical(length * np.sin(angle), length * np.cos(angle))
