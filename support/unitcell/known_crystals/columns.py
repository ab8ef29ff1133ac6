"""Tilts column by column of an image whose crystals are known.

Averaged windows that look alike are fitted together (`known_crystals.specimen_fit`), those of odd columns shifted by
one column spacing, which turns all tilts round. One fit after the other takes the windows that it explains, until all
have been tried; thickness and lens are expected to be those of the fits before. Columns that no crystal explains, at
interfaces above all, keep what the network says.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from tqdm.auto import tqdm

from unitcell.crystals.tilt_coordinates import canonical, doubled, to_pseudocubic
from unitcell.known_crystals.materials import parse_material
from unitcell.known_crystals.search import Reading
from unitcell.known_crystals.specimen_fit import fit_specimen
from unitcell.networks.tilt_network import doubled_sigma
from unitcell.networks.training_windows import WINDOW_SHAPE
from unitcell.scattering import Microscope

ALIKE = 0.06  # rms difference of windows that are fitted together, beyond noise
UNEXPLAINED = 0.1  # rms difference from the best fit, beyond noise, with which a window keeps the network's answer
FARTHEST_DEG = 3.0  # from a fit, beyond which windows are not linear in tilts
FEWEST = 3  # windows worth a fit
MOST_FITS = 24
STANDS_OUT_DEG = 3.0  # alternation along the beam for which patterns are tried
HALF_WIDTH = stats.norm.ppf(0.95)
TILTS = ("v", "u", "gamma", "alpha", "beta", "alternation")


def known_crystals(texts, card):
    """Crystals as `parse_material` reads them, seen by the microscope of a network's card: KnownCrystals."""
    scope = Microscope(*(card[key] for key in ("energy_eV", "semiangle_mrad", "inner_mrad", "outer_mrad")))
    return KnownCrystals(tuple(parse_material(text) for text in texts), scope)


@dataclass(frozen=True)
class KnownCrystals:
    """What is known of a specimen.

    Parameters
    ----------
    materials : tuple of unitcell.known_crystals.materials.Material
    microscope : unitcell.scattering.Microscope
        Energy and apertures.
    """

    materials: tuple
    microscope: Microscope

    def refine(self, table, windows, noise, progress=False):
        """Put tilts of fitted columns into the table of `unitcell.tilts.inference.infer_tilts`, in place.

        Parameters
        ----------
        table : pandas.DataFrame
            As the network has it; gets a column `crystal`, '' where no fit explains the window.
        windows : ndarray (n, 40, 56)
            Averaged and standardised, NaN where they leave the image.
        noise : ndarray (n,)
            Their variance per pixel.
        progress : bool

        Returns
        -------
        list of unitcell.known_crystals.specimen_fit.SpecimenFit
        """
        odd = ((table.row + table.col) % 2 == 1).to_numpy()
        flat = np.where(odd[:, None], _shifted(windows), windows.reshape(len(windows), -1)).astype(float)
        flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
        left, fits, known = np.isfinite(flat).all(1), [], None
        table["crystal"] = ""
        with tqdm(total=int(left.sum()), desc="fits", disable=not progress) as bar:
            while left.any() and len(fits) < MOST_FITS:
                group = _alike(flat, noise, left)
                left[group] = False
                if len(group) >= FEWEST:
                    fits.append(self._fit(table, flat, noise, odd, group, known))
                    # Windows that look otherwise may show the same specimen, turned a little further.
                    explained = _enter(table, fits[-1], flat, noise, odd, np.union1d(group, np.flatnonzero(left)))
                    known = fits[-1].point if len(explained) else known
                    left[explained] = False
                bar.update(bar.total - int(left.sum()) - bar.n)
        return fits

    def _fit(self, table, flat, noise, odd, group, known):
        """The fit of the windows at some places."""
        weight = 1 / (noise[group] + ALIKE**2)
        seen = np.average(flat[group], axis=0, weights=weight)
        seen = (seen - seen.mean()) / seen.std()
        v = np.where(odd, -1, 1) * table.v_deg.to_numpy()
        half = [(table[f"{name}_deg_hi"] - table[f"{name}_deg"]).to_numpy()[group] / HALF_WIDTH for name in ("v", "u")]
        u, gamma = table.loc[table.index[group], ["u_deg", "gamma_deg"]].median()
        sigma_pair = np.median(doubled_sigma(np.full(len(group), np.hypot(*doubled(u, gamma))), half[1]))
        read = Reading(np.median(v[group]), u, gamma, np.median(half[0]), sigma_pair)
        alternates = np.median(table.alternation_deg.to_numpy()[group]) > STANDS_OUT_DEG
        options = {"alternates": alternates, "known": known}
        return fit_specimen(seen, noise[group].min() / 2, read, self.materials, self.microscope, **options)[0]


def _alike(flat, noise, left):
    """Places of the windows that look like the surest one left."""
    first = np.flatnonzero(left)[np.argmin(noise[left])]
    apart = ((flat - flat[first]) ** 2).mean(1) - noise - noise[first]
    return np.union1d(np.flatnonzero(left & (apart < ALIKE**2)), first)


def _shifted(windows):
    """Windows, flat, as they are around the next column along [110]."""
    return np.roll(windows, WINDOW_SHAPE[1] // 4, axis=2).reshape(len(windows), -1)


def _enter(table, fit, flat, noise, odd, group):
    """Write what a fit says of its windows into the table, where it explains them; returns those places."""
    tilts, spread, misfit = fit.read(flat[group], noise[group])
    turned = np.abs(tilts[:, :3] - fit.read(fit.window[None], 1.0)[0][:, :3]).max(1)
    good = (misfit < UNEXPLAINED**2) & (turned < FARTHEST_DEG)
    group, tilts, spread = group[good], tilts[good], spread[good]
    v = np.where(odd[group], -1, 1) * tilts[:, 0]
    u, gamma = canonical(tilts[:, 1], tilts[:, 2])
    alpha, beta, _ = to_pseudocubic(v, u, gamma)
    both = np.hypot(spread[:, 0], spread[:, 1]) / np.sqrt(2)
    centres = dict(zip(TILTS, (v, u, gamma, alpha, beta, tilts[:, 3]), strict=True))
    spreads = dict(zip(TILTS, (*spread[:, :3].T, both, both, spread[:, 3]), strict=True))
    rows = table.index[group]
    for name in TILTS:
        least = 0.0 if name in ("gamma", "alternation") else -np.inf  # as in `TiltEnsemble.predict`
        table.loc[rows, f"{name}_deg"] = centres[name]
        table.loc[rows, f"{name}_deg_lo"] = np.maximum(centres[name] - HALF_WIDTH * spreads[name], least)
        table.loc[rows, f"{name}_deg_hi"] = centres[name] + HALF_WIDTH * spreads[name]
    table.loc[rows, "crystal"] = str(fit.material)
    return group
