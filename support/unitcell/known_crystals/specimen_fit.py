"""The specimen that some windows show, if its crystal is known, and what single windows add.

A network has to read every crystal at every thickness through every lens, and what it cannot tell apart at a glance it
gets wrong alike in every window. Where somebody knows what the crystal is made of, its image can be simulated: the mean
of windows that show the same is fitted (`known_crystals.search`) from where the network puts it, under every tilt
pattern. There the window is linear in what it shows, near enough for windows a few degrees away: their tilts t and
distortion follow from one linear solution,

    t = x + (JᵀJ / s² + P)⁻¹ Jᵀ (m − w(x)) / s²,                                                              (1)

with J = dw/dt, s² their noise, and P what neighbours may differ by.

Crystals of like scattering, each with a thickness of its own, can suit as well as each other and say other tilts. So a
window is read as the mean over all fits k that are nearly as good as the best, with weights

    p_k ∝ exp(−(cost_k − cost_best) / 2c),                                                                    (2)

c = `OVERSTATED`, for pixels of a window are off together.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.known_crystals.search import SIMULATION_OFF, Search, far
from unitcell.known_crystals.sought import DISTORTION, MIDDLE, NAMES, ROUGH
from unitcell.networks.training_library import seen_tilts
from unitcell.scattering import Microscope

PATTERNS = ("---", "--+")
ALTERNATING = ("+--", "-+-")  # tried where an alternation along the beam stands out
# Steps of every start, how many of their ends go on, and up to how many times the least cost.
STAGES = ((1, 8, 3.0), (2, 4, 1.4))
STARTS = 2  # besides the network's
POOR = 0.65  # cost per pixel, beyond which starts are spread over thicknesses
GIVEN_UP = 2.0  # the same, beyond which another specimen of an image is not what windows show
HOPELESS = 2.5  # starts are not tried whose misfit is so many times the least
MAYBE_NONE_DEG = 2.5, 6.0  # v, and u and γ together, up to which a fit without u and γ is tried
BELIEVED = 0.02  # share of the cost that tilts gain, from which on they are believed
LIKE_DEG = 2.5  # within which tilts count as the same
RIVAL = 80.0  # by how much more, at most, other tilts may cost to be as likely
OVERSTATED = 20.0  # c of equation (2): as many pixels of a window are off together
UNEXPLAINED = 0.1  # rms by which a window may miss what explains it, beyond noise
SPREAD_DEG = 2.0  # of the tilts of windows that were averaged
UNSEEN_DEG = 2.5  # of u and γ where an image shows none: simulated LSAT with γ = 4° can hardly be told from untilted
# v, u, γ [degrees] that fits are off by beyond their covariance: an estimate from fifteen frozen-phonon images of five
# leaning materials, other than the committed ones. Intervals of twins show it to be too small where crystals meet.
OFF_DEG = np.array([0.1, 0.4, 0.2])
OFFSET_A, STRETCH = 0.03, 0.006  # what registration leaves of a window's position and distortion
LOCAL = (0, 1, 2, *DISTORTION)


@dataclass(frozen=True)
class SpecimenFit:
    """A specimen of known crystal that shows a window.

    Parameters
    ----------
    values : dict
        Of `unitcell.known_crystals.sought.SOUGHT`.
    material : unitcell.known_crystals.materials.Material
    signs : str
        Its tilt pattern.
    cost : float
        Equation (1) of `unitcell.known_crystals.search`.
    covariance : ndarray (3, 3)
        Of v, u and γ of the mean window, whatever the rest of the specimen [degrees²].
    window : ndarray (pixels,)
        w, what the specimen looks like.
    slopes : ndarray (pixels, 9)
        Of w along `LOCAL`.
    rivals : tuple of (SpecimenFit, float)
        Other fits of the same windows, and by how much more the image costs with them.
    """

    values: dict
    material: object
    signs: str
    cost: float
    covariance: np.ndarray = field(repr=False)
    window: np.ndarray = field(repr=False)
    slopes: np.ndarray = field(repr=False)
    rivals: tuple = field(default=(), repr=False)

    @property
    def point(self):
        """The values as `unitcell.known_crystals.sought` has them: ndarray."""
        return np.array([self.values[name] for name in NAMES])

    @property
    def family(self):
        """The fit and its rivals, each with by how much more the image costs: tuple of (SpecimenFit, float)."""
        return (replace(self, rivals=()), 0.0), *self.rivals

    @property
    def shown(self):
        """v, u, γ and alternation as the image shows them: ndarray (4,) [degrees]."""
        return seen_tilts(np.array(to_pseudocubic(*self.point[:3])), self.signs)

    def tilted_like(self, other):
        """Whether another fit has as good as the same tilts."""
        return np.abs(np.abs(self.shown[:3]) - np.abs(other.shown[:3])).max() < LIKE_DEG

    def read(self, windows, noise):
        """Equations (1) and (2): tilts of single windows.

        Parameters
        ----------
        windows : ndarray (n, pixels)
            Standardised.
        noise : float or ndarray (n,)
            Variance per pixel.

        Returns
        -------
        tilts : ndarray (n, 4), v, u, γ and alternation as the image shows them [degrees]
        spread : ndarray (n, 4), their standard deviations
        misfit : ndarray (n,), variance per pixel that the windows have over noise and what this fit explains
        """
        tilts, spread, misfit = self.read_alone(windows, noise)
        parts = [(1.0, tilts, spread)]
        for rival, excess in self.rivals:
            other, of_other, _ = rival.read_alone(windows, noise)
            parts.append((np.exp(-excess / (2 * OVERSTATED)), rival.nearer(self.shown) * other, of_other))
        weights = np.array([weight for weight, *_ in parts]) / sum(weight for weight, *_ in parts)
        mean = sum(weight * each for weight, (_, each, _) in zip(weights, parts, strict=True))
        second = sum(w * (each_spread**2 + each**2) for w, (_, each, each_spread) in zip(weights, parts, strict=True))
        return mean, np.sqrt(second - mean**2), misfit

    def nearer(self, shown):
        """Signs of v, u, γ, alternation with which a fit, or its mirror, is nearer to some tilts: ndarray (4,)."""
        mirror = np.array([1.0, -1.0, -1.0, 1.0])
        away = [np.abs(signs * self.shown - shown)[:3].max() for signs in (np.ones(4), mirror)]
        return mirror if away[1] < away[0] else np.ones(4)

    def read_alone(self, windows, noise):
        """Equation (1), by this fit without its rivals."""
        noise = np.broadcast_to(noise, len(windows))
        apart, turned, spreads, misfit = windows - self.window, [], [], []
        for one, variance in zip(apart, noise, strict=True):
            inverse = np.linalg.inv(
                self.slopes.T @ self.slopes / (variance + SIMULATION_OFF**2) + np.diag(self._stiffness())
            )
            moved = inverse @ self.slopes.T @ one / (variance + SIMULATION_OFF**2)
            turned.append(moved[:3])
            spreads.append(inverse[:3, :3] + self.covariance + np.diag(OFF_DEG**2))
            misfit.append(np.mean((one - self.slopes @ moved) ** 2) - variance)
        tilts, spread = self._seen(np.array(turned), np.array(spreads))
        return tilts, spread, np.array(misfit)

    def _stiffness(self):
        """P of equation (1): ndarray (9,)."""
        tilts = np.where(self.slopes[:, :3].any(0), SPREAD_DEG, UNSEEN_DEG)
        return np.concatenate([tilts, [OFFSET_A] * 2, [STRETCH] * 4]) ** -2.0

    def _seen(self, turned, covariance):
        """What the image shows of octahedra turned by so much from the fit's, and its standard deviation."""
        tilts = [seen_tilts(np.array(to_pseudocubic(*(self.point[:3] + one))), self.signs) for one in turned]
        linear = np.stack([seen_tilts(np.array(to_pseudocubic(*one)), self.signs)[:3] for one in np.eye(3)], axis=1)
        variance = np.einsum("ij,njk,ik->ni", linear, covariance, linear)
        return np.array(tilts), np.sqrt(np.column_stack([variance, covariance[:, [0, 1], [0, 1]].mean(1)]))


def alike(fit, other):
    """Whether two fits are of one crystal."""
    return fit.material == other.material and fit.tilted_like(other)


def believed(fits, others=()):
    """The best of some fits, with those that are nearly as good as its rivals.

    Parameters
    ----------
    fits : list of SpecimenFit
        From `fit_specimen`. One without u and γ that comes first is believed without rivals.
    others : sequence of (SpecimenFit, float)
        Fits of the same windows beside others of the image, and what these cost more: rivals if their tilts are alike.

    Returns
    -------
    SpecimenFit or None
        None where there are none, or where quite different tilts are nearly as good.
    """
    if not fits:
        return None
    best = fits[0]
    if not best.point[1:3].any():
        return best
    near = [fit for fit in fits[1:] if fit.cost < best.cost + RIVAL]
    if not all(fit.tilted_like(best) for fit in near):
        return None
    rivals = [(fit, fit.cost - best.cost) for fit in near] + [
        (fit, fit.cost + more - best.cost) for fit, more in others
    ]
    return replace(best, rivals=tuple(each for each in rivals if each[1] < RIVAL and _signed_like(each[0], best)))


def _signed_like(fit, other):
    """Whether tilts are the same with their signs, but for the mirror."""
    return np.abs(fit.nearer(other.shown) * fit.shown - other.shown)[:3].max() < LIKE_DEG


def likeliest(family, costs):
    """The fit of some rivals that the rest of an image costs least with, the others as its rivals.

    Parameters
    ----------
    family : sequence of (SpecimenFit, float)
        See `SpecimenFit.family`.
    costs : sequence of float
        Of the rest of the image, with each.

    Returns
    -------
    SpecimenFit
    """
    totals = np.array([excess for _, excess in family]) + costs
    order = np.argsort(totals)
    best, apart = family[order[0]][0], totals - totals.min()
    others = [(family[place][0], float(apart[place])) for place in order[1:] if apart[place] < RIVAL]
    return replace(best, rivals=tuple(other for other in others if _signed_like(other[0], best)))


def of_next_row(fit, microscope):
    """The fit as windows one row further show it: where '+' acts about c, γ is the other way round there."""
    x = fit.point * np.where(np.array(NAMES) == "gamma_deg", -1, 1)
    search = Search(fit.window, 0.0, (fit.material, fit.signs, microscope), None)
    turned = np.diag([1.0, 1.0, -1.0])
    return replace(
        fit, values=dict(zip(NAMES, map(float, x), strict=True)), covariance=turned @ fit.covariance @ turned,
        window=search.window(x), slopes=search.slopes(x, LOCAL),
        rivals=tuple((of_next_row(each, microscope), excess) for each, excess in fit.rivals if each.signs[2] == "+"),
    )  # fmt: skip


def fit_specimen(seen, noise, read, materials, microscope=None, *, alternates=False, known=None):
    """Fit the specimen whose window is seen.

    Parameters
    ----------
    seen : ndarray (pixels,)
        Mean of standardised windows, each 40 × 56 around a B column.
    noise : float
        Variance per pixel that is left in the mean.
    read : unitcell.known_crystals.search.Reading
        Its tilts, as a network reads them.
    materials : sequence of unitcell.known_crystals.materials.Material
        Of which it is one.
    microscope : unitcell.scattering.Microscope, optional
        Energy and apertures.
    alternates : bool
        Whether patterns whose tilts alternate along the beam are tried as well.
    known : ndarray, optional
        Another fit of the same image, near which its thickness and lens are expected.

    Returns
    -------
    list of SpecimenFit
        Of every material and pattern that was not given up, the best first, none where `known` leads nowhere; before
        them the best without u and γ if what these gain is too little to be believed.
    """
    patterns = PATTERNS + (ALTERNATING if alternates else ())
    hows = [(material, signs, microscope or Microscope()) for material in materials for signs in patterns]
    fits = _ends([Search(seen, noise, how, read, known) for how in hows])
    if not fits:
        return []
    if known is None and fits[0].cost > POOR * len(seen):
        hows = [how for how in hows if any(how[:2] == (fit.material, fit.signs) for fit in fits)]
        fits += _ends([Search(seen, noise, how, read) for how in hows], spread=True)
        fits = sorted(fits, key=lambda fit: fit.cost)
    how = (fits[0].material, PATTERNS[0], hows[0][2])
    return [*_untilted(fits[0], Search(seen, noise, how, read, known, turned=1)), *fits]


def _untilted(best, search):
    """The best fit without u and γ if what they gain is too little to be believed.

    Images hardly change with the first degrees of u and γ: a simulation that is a little off finds some where none are.
    They do with those of v, which is why crystals with a v are believed to be tilted otherwise as well.
    """
    x, fixed, read, found = best.point, slice(search.turned.stop, 3), search.read, []
    if _maybe_none(*x[:3]):
        x[fixed] = 0
        found.append(_end(search, *search.descend(x)))
    if search.known is None and _maybe_none(read.v, read.u, read.gamma):
        found += _ends([search], spread=True)  # which tilts may have led astray
    fit = min(found, key=lambda fit: fit.cost, default=None)
    if fit is None or fit.cost > best.cost * (1 + BELIEVED):
        return []
    slopes = fit.slopes.copy()
    slopes[:, 1:3] = 0  # of which windows say nothing
    return [replace(fit, slopes=slopes)]


def _maybe_none(v, u, gamma):
    """Whether a crystal that seems so tilted may be one without u and γ."""
    return abs(v) <= MAYBE_NONE_DEG[0] and np.hypot(u, gamma) <= MAYBE_NONE_DEG[1]


def _ends(searches, spread=False):
    """Fits where the best of some starts of every search end, the best first."""
    trials = []
    for material in dict.fromkeys(search.how[0] for search in searches):
        of_one = [search for search in searches if search.how[0] == material]
        trials += [(misfit, search, x) for misfit, x in of_one[0].starts(STARTS, spread) for search in of_one]
    least = min(misfit for misfit, *_ in trials)
    trials = [(search, x) for misfit, search, x in trials if spread or misfit < HOPELESS * least]
    for steps, most, worse in STAGES:
        ends = [(search, *search.descend(x, steps, effort=MIDDLE, rough=ROUGH)) for search, x in trials]
        least = min(cost for *_, cost in ends) + len(NAMES)
        ends = sorted((end for end in ends if end[2] <= worse * least), key=lambda end: end[2])
        trials = []
        for search, x, _ in ends:
            if len(trials) < most and all(search is not other or far(x, there) for other, there in trials):
                trials.append((search, x))
    if ends[0][2] > GIVEN_UP * len(ends[0][0].seen) and searches[0].known is not None:
        return []
    if not spread:  # the lowest end of each material and pattern is enough
        trials = {search.how: (search, x) for search, x in reversed(trials)}.values()
    return sorted((_end(search, *search.descend(x)) for search, x in trials), key=lambda fit: fit.cost)


def _end(search, x, cost):
    """The fit where a descent ended."""
    places = np.union1d(search.free, LOCAL)
    slopes, covariance = search.slopes(x, places), np.zeros((3, 3))
    turned = search.turned
    of_free = search.curvature(x, slopes[:, np.isin(places, search.free)])
    covariance[turned, turned] = np.linalg.inv(of_free)[turned, turned]
    values = dict(zip(NAMES, map(float, x), strict=True))
    local = slopes[:, np.isin(places, LOCAL)]
    return SpecimenFit(values, search.how[0], search.how[1], float(cost), covariance, search.window(x), local)
