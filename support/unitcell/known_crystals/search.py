"""Levenberg-Marquardt descent to the specimen that shows a window.

    cost = Σ (w − m)² / s² + Σ_k ((x_k − x̄_k) / σ_k)² + network,   w and m with zero mean and unit variance,    (1)

m the window seen, w(x) the simulated one, s² the noise of m and what simulations are off by, x̄ ± σ what is usual, and
the last term what a network reads, in the coordinates in which it is sure of it: v and the doubled (u, γ).
Slopes are simulated coarsely and corrected after every step (Broyden 1965), for a step costs one simulation and new
slopes fifteen.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from unitcell.crystals.tilt_coordinates import doubled, to_pseudocubic
from unitcell.known_crystals.sought import (
    COARSE,
    FINE,
    HIGH,
    LOW,
    MIDDLE,
    NAMES,
    PLACE,
    ROUGH,
    SPECIMEN,
    STEP,
    expected,
    recorded,
    simulated,
)
from unitcell.networks.training_library import seen_tilts
from unitcell.networks.training_windows import WINDOW_SHAPE

# Standardised thermal images differ by 0.03 rms from frozen phonons, but smoothly: it weighs as much noise as this.
SIMULATION_OFF = 0.1
DIFFERENCE = 0.2  # of a step, for slopes
EVEN_DEG = 1.5  # images are even in (u, γ) together: nearer to zero than this, slopes are taken over this length
FARTHEST_DEG = 4.0  # that one step may turn an octahedron
FRESH = 3  # steps after which slopes are simulated anew
TRIES = 8  # of shorter and shorter steps, before slopes are simulated anew
SETTLED = 2e-3  # relative gain below which a descent ends
DEPTHS_A = np.arange(30.0, 530.0, 15.0)
BANDS_A = (100.0, 170.0, 240.0, 310.0)
SOURCES_A2 = (0.005, 0.04, 0.12)
DIRECTIONS_DEG = (-60, -20, 20, 60, 90)  # of (γ, u)
# Crystals that lean are tried as well: from upright ones, descents end in wrong tilts and thicknesses.
LEANS_MRAD = (-3.0, -1.5, 0.0, 1.5, 3.0)
DEFOCI_A = (-30.0, 0.0, 30.0)
LEANING = 2  # of the pairs (u, γ): as read, and none
# By how much, in one of these, starts differ.
APART = {"u_deg": 1.0, "gamma_deg": 1.0, "thickness_A": 30.0, "crystal_tilt_x_mrad": 2.0, "crystal_tilt_y_mrad": 2.0}
LEAST_TILT_DEG = 3.0


@dataclass(frozen=True)
class Reading:
    """What a network reads: v ± sigma_v, and (u, γ) whose doubled coordinates are each ± sigma_pair [degrees]."""

    v: float
    u: float
    gamma: float
    sigma_v: float
    sigma_pair: float

    def misfit(self, tilts, signs):
        """Differences of octahedra tilted by (v, u, γ) from it, in standard deviations: ndarray (3,)."""
        v, u, gamma, _ = seen_tilts(np.array(to_pseudocubic(*tilts)), signs)
        pair = np.subtract(doubled(u, gamma), doubled(self.u, self.gamma))
        return np.array([(v - self.v) / self.sigma_v, *(pair / self.sigma_pair)])

    def slopes(self, tilts, signs, by=0.01):
        """Their derivatives by v, u, γ: ndarray (3, 3)."""
        return np.stack([(self.misfit(tilts + by * axis, signs) - self.misfit(tilts - by * axis, signs)) / (2 * by)
                         for axis in np.eye(3)], axis=1)  # fmt: skip


class Search:
    """The window of a specimen of known crystal, pattern and microscope, compared with the one seen.

    Parameters
    ----------
    seen : ndarray (pixels,)
        Standardised window, the mean of some.
    noise : float
        Its variance per pixel.
    how : (Material, str, unitcell.scattering.Microscope)
        See `unitcell.known_crystals.sought.simulated`.
    read : Reading
        What a network makes of it.
    known : ndarray, optional
        Another fit of the same image, near which its thickness and lens are expected.
    turned : int
        How many of v, u, γ are sought, the first of them; the others stay as they are.
    """

    def __init__(self, seen, noise, how, read, known=None, *, turned=3):
        self.seen, self.how, self.read, self.variance = seen, how, read, noise + SIMULATION_OFF**2
        shifted = "+" in how[1] and "-" in how[1]
        self.turned = slice(turned)
        fixed = [*range(turned, 3), *([] if shifted else [PLACE["a_shift"]])]
        self.free = np.setdiff1d(np.arange(len(NAMES)), fixed)
        self.known, (self.mean, usual) = known, expected(known)
        self.stiffness = np.divide(1.0, usual**2, out=np.zeros_like(usual), where=usual > 0)[self.free]

    def window(self, x, effort=FINE):
        """w(x): ndarray (pixels,)."""
        return recorded(simulated(x, self.how, effort), x, self.how[0].lattice_A)[0]

    def cost(self, x, window):
        """Equation (1)."""
        misfit = self.seen - window
        of_network = self.read.misfit(x[:3], self.how[1])
        usual = self.stiffness @ (x - self.mean)[self.free] ** 2
        return misfit @ misfit / self.variance + usual + of_network @ of_network

    def slopes(self, x, places, effort=COARSE):
        """dw/dx along some places: ndarray (pixels, n)."""
        cell, lattice_A = simulated(x, self.how, effort), self.how[0].lattice_A
        here, found = recorded(cell, x, lattice_A)[0], []
        for place in places:
            by, moved = _difference(x, place), x.copy()
            moved[place] += by
            there = self.window(moved, effort) if place < SPECIMEN else recorded(cell, moved, lattice_A)[0]
            found.append((there - here) / by)
        return np.stack(found, axis=1)

    def curvature(self, x, slopes):
        """Half the second derivative of the cost along the free places: ndarray (n, n)."""
        found = slopes.T @ slopes / self.variance + np.diag(self.stiffness)
        of_network = self.read.slopes(x[:3], self.how[1])
        found[self.turned, self.turned] += (of_network.T @ of_network)[self.turned, self.turned]
        return found

    def descend(self, x, steps=24, effort=FINE, rough=MIDDLE):
        """From x down to a point and its cost, with windows of some effort and slopes of another."""
        window = self.window(x, effort)
        cost, damping, slopes, age = self.cost(x, window), 1e-2, None, 0
        for _ in range(steps):
            if slopes is None or age >= FRESH:
                slopes, age = self.slopes(x, self.free, rough), 0
            slopes, found = self._step(x, window, cost, slopes, damping, effort)
            age += 1
            if found is None and age == 1:
                break
            if found is None:
                slopes, damping = None, 1e-2
                continue
            gain, (x, window, cost, damping) = cost - found[2], found
            if gain < SETTLED * cost and age == 1:
                break
            if gain < SETTLED * cost:
                slopes = None
        return x, cost

    def _step(self, x, window, cost, slopes, damping, effort):
        """Corrected slopes, and the next point with its window, cost and damping, or None if none is lower."""
        curvature, by_network = self.curvature(x, slopes), self.read.slopes(x[:3], self.how[1])
        pull = slopes.T @ (self.seen - window) / self.variance - self.stiffness * (x - self.mean)[self.free]
        pull[self.turned] -= (by_network.T @ self.read.misfit(x[:3], self.how[1]))[self.turned]
        for _ in range(TRIES):
            damped = curvature + damping * np.diag(np.diag(curvature)) + 1e-9 * np.eye(len(pull))
            tried = x.copy()
            tried[self.free] += np.linalg.solve(damped, pull)
            tried = np.clip(tried, LOW, HIGH)
            if np.abs(tried - x)[:3].max() > FARTHEST_DEG:
                damping *= 5
                continue
            there = self.window(tried, effort)
            slopes = corrected(slopes, (tried - x)[self.free] / STEP[self.free], there - window, STEP[self.free])
            if (lower := self.cost(tried, there)) < cost:
                return slopes, (tried, there, lower, max(damping / 5, 1e-5))
            damping *= 5
        return slopes, None

    def starts(self, count=2, spread=False):
        """Points to descend from: list of (misfit, ndarray), the likeliest first.

        Parameters
        ----------
        count : int
            Besides what the network reads; its v is trusted, (u, γ) is tried in other directions and lengths.
        spread : bool
            Add what suits best within bands of thickness: where tilts are wrong, so is the thickness that suits best.
        """
        tilts, found = np.zeros(3), []
        tilts[self.turned] = np.array([self.read.v, self.read.u, self.read.gamma])[self.turned]
        for place, (u, gamma) in enumerate(_pairs(*tilts[1:]) if self.turned.stop == 3 else [tilts[1:]]):
            for lens in self._lenses() if place < LEANING else [{}]:
                x = self.mean.copy()
                x[:3] = tilts[0], u, gamma
                x[[PLACE[name] for name in lens]] = list(lens.values())
                found += self._by_depth(x)
        found.sort(key=lambda each: each[0])
        own = [each for each in found if np.allclose(each[1][1:3], tilts[1:])]
        kept = []
        for misfit, x in found:
            if len(kept) < count and all(far(x, other) for _, other in kept):
                kept.append((misfit, x))
        kept += [*_by_band(own), *_by_band(found)] if spread else own[:1]
        return list({id(x): (misfit, x) for misfit, x in kept}.values())

    def _lenses(self):
        """Crystal tilts, and where fits of the image are not known defoci as well, to start from: iterator of dict."""
        names = ("crystal_tilt_x_mrad", "crystal_tilt_y_mrad", *(["defocus_A"] if self.known is None else []))
        for each in product(LEANS_MRAD, LEANS_MRAD, *([DEFOCI_A] if self.known is None else [])):
            yield dict(zip(names, each, strict=True))

    def _by_depth(self, x):
        """(misfit, point) at some thicknesses, with some sources."""
        anew = self.known is None
        depths = DEPTHS_A if anew else x[PLACE["thickness_A"]] * np.array([0.9, 1.0, 1.1])
        cells, found = simulated(x, self.how, ROUGH, depths), []
        for source in SOURCES_A2 if anew else (None,):
            points = np.tile(x, (len(depths), 1))
            points[:, PLACE["thickness_A"]] = depths
            if anew:
                points[:, [PLACE["source_xx_A2"], PLACE["source_yy_A2"]]] = source
                offsets = [self._offset_A(each) for each in recorded(cells, points, self.how[0].lattice_A)]
                points[:, PLACE["offset_x_A"] : PLACE["offset_y_A"] + 1] = offsets
            misfit = ((recorded(cells, points, self.how[0].lattice_A) - self.seen) ** 2).mean(1)
            found += zip(misfit.tolist(), points, strict=True)
        return found

    def _offset_A(self, window):
        """How far (x, y) a window stands off the one seen [Å], to a pixel, by their correlation."""
        spectra = (np.fft.fft2(each.reshape(WINDOW_SHAPE)) for each in (self.seen, window))
        correlation = np.fft.ifft2(np.conj(next(spectra)) * next(spectra)).real
        dy, dx = np.meshgrid(*(np.arange(-4, 5),) * 2, indexing="ij")
        best = np.argmax(correlation[dy, dx])
        pitch = self.how[0].lattice_A * np.array([8**0.5 / WINDOW_SHAPE[1], 2 / WINDOW_SHAPE[0]])
        return dx.flat[best] * pitch[0], dy.flat[best] * pitch[1]


def _difference(x, place):
    """By how much a value is moved for its slope."""
    if NAMES[place] not in ("u_deg", "gamma_deg"):
        return DIFFERENCE * STEP[place]
    return max(DIFFERENCE, EVEN_DEG - np.hypot(x[1], x[2])) * (1.0 if x[place] >= 0 else -1.0)


def corrected(slopes, step, change, unit):
    """Slopes that say of a step (in `unit`) what came of it."""
    length = step @ step
    if not length:
        return slopes
    return slopes + np.outer(change - slopes @ (step * unit), step / (length * unit))


def _pairs(u, gamma):
    """(u, γ) to start from: as read, and others."""
    size = max(np.hypot(u, gamma), LEAST_TILT_DEG)
    turned = [(s * np.sin(a), s * np.cos(a)) for s in (0.8 * size, 1.3 * size) for a in np.radians(DIRECTIONS_DEG)]
    return [(u, gamma), (0.0, 0.3), *turned]


def _by_band(found):
    """The first point of each band of thickness."""
    bands = np.digitize([x[PLACE["thickness_A"]] for _, x in found], BANDS_A)
    return [found[place] for place in np.unique(bands, return_index=True)[1]]


def far(x, other):
    """Whether two points are worth a descent each."""
    return any(abs(x[PLACE[name]] - other[PLACE[name]]) > by for name, by in APART.items())
