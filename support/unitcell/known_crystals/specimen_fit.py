"""The specimen that some windows show, if its crystal is known, and what single windows add.

A network has to read every crystal at every thickness through every lens, and what it cannot tell apart at a glance it
gets wrong alike in every window. Where somebody knows what the crystal is made of, its image can be simulated: the mean
of windows that show the same is fitted (`known_crystals.search`) from where the network puts it, under every tilt
pattern. There the window is linear in what it shows, near enough for windows a few degrees away: their tilts t and
distortion follow from one linear solution,

    t = x + (JᵀJ / s² + P)⁻¹ Jᵀ (m − w(x)) / s²,                                                              (1)

with J = dw/dt, s² their noise, and P what neighbours may differ by.
"""

from dataclasses import dataclass, field

import numpy as np

from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.known_crystals.search import SIMULATION_OFF, Search
from unitcell.known_crystals.sought import DISTORTION, MIDDLE, NAMES, ROUGH
from unitcell.networks.training_library import seen_tilts
from unitcell.scattering import Microscope

PATTERNS = ("---", "--+")
ALTERNATING = ("+--", "-+-")  # tried where an alternation along the beam stands out
# Steps of every start, how many of their ends go on, and up to how many times the least cost.
STAGES = ((1, 5, 3.0), (2, 3, 1.4))
STARTS = (2, 8)  # besides the network's; the more where the first end poorly
POOR = 0.65  # cost per pixel
HOPELESS = 2.5  # starts are not tried whose misfit is so many times the least
SPREAD_DEG = 2.0  # of the tilts of windows that were averaged
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
    """

    values: dict
    material: object
    signs: str
    cost: float
    covariance: np.ndarray = field(repr=False)
    window: np.ndarray = field(repr=False)
    slopes: np.ndarray = field(repr=False)

    @property
    def point(self):
        """The values as `unitcell.known_crystals.sought` has them: ndarray."""
        return np.array([self.values[name] for name in NAMES])

    def read(self, windows, noise):
        """Equation (1): tilts of single windows.

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
        misfit : ndarray (n,), variance per pixel that the windows have over noise and what is explained
        """
        noise = np.broadcast_to(noise, len(windows))
        apart, turned, spreads, misfit = windows - self.window, [], [], []
        for one, variance in zip(apart, noise, strict=True):
            inverse = np.linalg.inv(
                self.slopes.T @ self.slopes / (variance + SIMULATION_OFF**2) + np.diag(_stiffness())
            )
            moved = inverse @ self.slopes.T @ one / (variance + SIMULATION_OFF**2)
            turned.append(moved[:3])
            spreads.append(inverse[:3, :3] + self.covariance + np.diag(OFF_DEG**2))
            misfit.append(np.mean((one - self.slopes @ moved) ** 2) - variance)
        tilts, spread = self._seen(np.array(turned), np.array(spreads))
        return tilts, spread, np.array(misfit)

    def _seen(self, turned, covariance):
        """What the image shows of octahedra turned by so much from the fit's, and its standard deviation."""
        start = np.array([self.values[name] for name in NAMES[:3]])
        tilts = np.array([seen_tilts(np.array(to_pseudocubic(*(start + one))), self.signs) for one in turned])
        linear = np.stack([seen_tilts(np.array(to_pseudocubic(*one)), self.signs)[:3] for one in np.eye(3)], axis=1)
        variance = np.einsum("ij,njk,ik->ni", linear, covariance, linear)
        return tilts, np.sqrt(np.column_stack([variance, covariance[:, [0, 1], [0, 1]].mean(1)]))


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
        A point near which all that is not a tilt is expected, from another fit of the same image.

    Returns
    -------
    list of SpecimenFit
        Of every material and pattern that was not given up, the best first.
    """
    patterns = PATTERNS + (ALTERNATING if alternates else ())
    hows = [(material, signs, microscope or Microscope()) for material in materials for signs in patterns]
    searches = [Search(seen, noise, how, read) for how in hows]
    fits = []
    for starts in STARTS if known is None else STARTS[:1]:
        fits += _ends(searches, starts, known)
        if min(fit.cost for fit in fits) < POOR * len(seen):
            break
    return sorted(fits, key=lambda fit: fit.cost)


def _ends(searches, count, known):
    """Fits where the best of some starts of every search end."""
    trials = []
    for material in dict.fromkeys(search.how[0] for search in searches):
        of_one = [search for search in searches if search.how[0] == material]
        trials += [(misfit, search, x) for misfit, x in of_one[0].starts(count, known) for search in of_one]
    least = min(misfit for misfit, *_ in trials)
    trials = [(search, x) for misfit, search, x in trials if misfit < HOPELESS * least]
    for steps, most, worse in STAGES:
        ends = [(search, *search.descend(x, steps, effort=MIDDLE, rough=ROUGH)) for search, x in trials]
        least = min(cost for *_, cost in ends) + len(NAMES)
        ends = sorted((end for end in ends if end[2] <= worse * least), key=lambda end: end[2])
        trials = [(search, x) for search, x, _ in ends[:most]]
    best = {search.how: (search, x) for search, x in reversed(trials)}  # the lowest end of each material and pattern
    return [_end(search, *search.descend(x)) for search, x in best.values()]


def _end(search, x, cost):
    """The fit where a descent ended."""
    places = np.union1d(search.free, LOCAL)
    slopes = search.slopes(x, places)
    covariance = np.linalg.inv(search.curvature(x, slopes[:, np.isin(places, search.free)]))[:3, :3]
    values = dict(zip(NAMES, map(float, x), strict=True))
    local = slopes[:, np.isin(places, LOCAL)]
    return SpecimenFit(values, search.how[0], search.how[1], float(cost), covariance, search.window(x), local)


def _stiffness():
    """P of equation (1)."""
    return np.array([SPREAD_DEG**-2] * 3 + [OFFSET_A**-2] * 2 + [STRETCH**-2] * 4)
