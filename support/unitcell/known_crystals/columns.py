"""Tilts column by column of an image whose crystals are known.

Averaged windows that look alike are fitted together (`known_crystals.specimen_fit`), those of odd columns shifted by
one column spacing, which turns all tilts round. What no fit explains yet is fitted next, until all has been tried;
thickness and lens are expected to be those of the best fit before. Where crystals of like scattering fit that one as
well as each other, each with a thickness of its own, it is what is fitted next that tells them apart. A window is read
by the fit that it misses least.
A fit of single rows between others is dropped: they are no crystal but an interface. Rows between two crystals are read
as layers afterwards (`known_crystals.gaps`). The network's answer stays where neither explains a column, and where
quite other tilts of a crystal explain it nearly as well.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from unitcell.crystals.tilt_coordinates import canonical, doubled, to_pseudocubic
from unitcell.known_crystals.gaps import read_gaps
from unitcell.known_crystals.materials import parse_material
from unitcell.known_crystals.search import Reading
from unitcell.known_crystals.specimen_fit import (
    POOR,
    UNEXPLAINED,
    SpecimenFit,
    alike,
    believed,
    fit_specimen,
    likeliest,
    of_next_row,
)
from unitcell.networks.tilt_network import doubled_sigma
from unitcell.networks.training_windows import WINDOW_SHAPE
from unitcell.scattering import Microscope

ALIKE = 0.06  # rms difference of windows that are fitted together, beyond noise
TALL = 0.5  # share of the windows of a fit with another of its crystal above or below
FARTHEST_DEG = 2.0  # from a fit, beyond which windows are not linear in tilts
NOBODY, UNSEEN = -1, -2  # claim a window, or see it
CANDIDATES = 32  # windows that are asked how many look like them
FEWEST = 3  # windows worth a fit
MOST_FITS = 24
STANDS_OUT_DEG = 3.0  # alternation along the beam for which patterns are tried
RECORDED_DEG = 0.2  # of v: what every other oxygen is off by, 0.007 Å, after scan and registration
HALF_WIDTH = stats.norm.ppf(0.95)
TILTS = ("v", "u", "gamma", "alpha", "beta", "alternation")


def known_crystals(texts, card):
    """Crystals as `parse_material` reads them, seen by the microscope of a network's card: KnownCrystals."""
    scope = Microscope(*(card[key] for key in ("energy_eV", "semiangle_mrad", "inner_mrad", "outer_mrad")))
    return KnownCrystals(tuple(parse_material(text) for text in texts), scope)


@dataclass(frozen=True)
class Claim:
    """Windows that a fit explains, with their v, u, γ, alternation and standard deviations [degrees]."""

    fit: SpecimenFit
    places: np.ndarray
    tilts: np.ndarray
    spread: np.ndarray


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
            As the network has it; gets a column `crystal`, '' where no fit explains the window, `crystal_share`, how
            much of a row that was read as a layer is of the crystal that it has more of, and 1 elsewhere, and
            `layer_signs`, of the tilts in such a row, and '' elsewhere.
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
        flat, share = _transmitted(flat, self.microscope, self.materials[0].lattice_A)
        claims = _sound(table, self._claims(table, flat, share * noise, odd, progress))
        between = read_gaps(table, claims, flat, share * noise, odd, self.microscope, progress)
        table["crystal"], table["crystal_share"], table["layer_signs"] = "", np.nan, ""
        for claim in claims:
            _enter(table, claim.places, claim.tilts, claim.spread, odd)
            table.loc[table.index[claim.places], ["crystal", "crystal_share"]] = str(claim.fit.material), 1.0
        for row in between:
            count = len(row.places)
            _enter(table, row.places, np.tile(row.tilts, (count, 1)), np.tile(row.spread, (count, 1)), odd)
            entered = str(row.material), row.share, row.signs
            table.loc[table.index[row.places], ["crystal", "crystal_share", "layer_signs"]] = entered
        return [claim.fit for claim in claims]

    def _claims(self, table, flat, noise, odd, progress):
        """What one fit after the other explains, every window by the fit that it is nearest to: list of Claim."""
        whole = np.isfinite(flat).all(1)
        left, fits, tried = whole.copy(), [], 0
        with tqdm(total=int(left.sum()), desc="fits", disable=not progress) as bar:
            while left.any() and tried < MOST_FITS:
                group = _alike(flat, noise, left)
                left[group] = False
                if len(group) >= FEWEST:
                    tried += 1
                    fits, found = self._beside(fits, partial(self._fit, table, flat, noise, odd, group), flat.shape[1])
                    for fit in found:
                        left &= np.isinf(_misfit(fit, flat, noise, whole))
                bar.update(bar.total - int(left.sum()) - bar.n)
        fits = [row for fit in fits for row in self._rows(fit)]
        return _nearest(fits, [_misfit(fit, flat, noise, whole) for fit in fits], flat, noise)

    def _beside(self, fits, fit_group, pixels):
        """Fits with one more, if windows can decide, and what it explains: two lists of SpecimenFit.

        The best fit before gives way to a rival of another crystal beside which the new windows cost less.
        `fit_group` fits the new windows near another fit.
        """
        place = int(np.argmin([fit.cost for fit in fits])) if fits else None
        family, ends = fits[place].family if fits else ((None, 0.0),), []
        for known, _ in family:
            same = ends and known.material == family[0][0].material
            ends.append(ends[0] if same else fit_group(known))
        least = [min((fit.cost for fit in some), default=np.inf) for some in ends]
        best, others = 0, []
        if fits and min(least) < POOR * pixels:  # what explains no crystal says nothing of another
            totals = np.array([excess for _, excess in family]) + least
            best = int(np.argmin(totals))
            unlike = [n for n in range(len(family)) if ends[n] is not ends[best] and (n == 0 or ends[n] is not ends[0])]
            others = [(fit, family[n][1] - family[best][1]) for n in unlike for fit in ends[n]]
            fits = [*fits[:place], likeliest(family, least), *fits[place + 1 :]]
        fit = believed(ends[best], others)
        return (fits, []) if fit is None else ([*fits, fit], self._rows(fit))

    def _rows(self, fit):
        """The fit as windows of its row, and of the next one where they differ, show it: list of SpecimenFit."""
        return [fit, of_next_row(fit, self.microscope)] if fit.signs[2] == "+" else [fit]

    def _fit(self, table, flat, noise, odd, group, best):
        """Fits of the windows at some places, the best first, near another fit of the image if there is one."""
        weight = 1 / (noise[group] + ALIKE**2)
        seen = np.average(flat[group], axis=0, weights=weight)
        seen = (seen - seen.mean()) / seen.std()
        v = np.where(odd, -1, 1) * table.v_deg.to_numpy()
        half = [(table[f"{name}_deg_hi"] - table[f"{name}_deg"]).to_numpy()[group] / HALF_WIDTH for name in ("v", "u")]
        u, gamma = table.loc[table.index[group], ["u_deg", "gamma_deg"]].median()
        sigma_pair = np.median(doubled_sigma(np.full(len(group), np.hypot(*doubled(u, gamma))), half[1]))
        read = Reading(np.median(v[group]), u, gamma, np.median(half[0]), sigma_pair)
        alternates = np.median(table.alternation_deg.to_numpy()[group]) > STANDS_OUT_DEG
        options = {"alternates": alternates, "known": best.point if best else None}
        return fit_specimen(seen, noise[group].min() / 2, read, self.materials, self.microscope, **options)


def _transmitted(flat, microscope, lattice_A):
    """Windows with what the aperture can transmit, 2α/λ, standardised, and the share of white noise that is left.

    What is finer is not of the specimen, and need not be white: scans that beat with the lattice show in every window.
    """
    y, x = (np.fft.fftfreq(size) * size for size in WINDOW_SHAPE)
    finest = 2e-3 * microscope.semiangle_mrad / microscope.wavelength_A
    kept = np.hypot(*np.meshgrid(x / (8**0.5 * lattice_A), y / (2 * lattice_A))) <= finest
    found = np.fft.ifft2(np.fft.fft2(flat.reshape(-1, *WINDOW_SHAPE)) * kept).real.reshape(flat.shape)
    return (found - found.mean(1, keepdims=True)) / found.std(1, keepdims=True), kept.mean()


def _alike(flat, noise, left):
    """Places of the most windows left that look like one of them."""
    places = np.flatnonzero(left)
    asked = places[np.unique(np.linspace(0, len(places) - 1, CANDIDATES).astype(int))]
    apart = (
        2 - 2 * (flat @ flat[asked].T) / flat.shape[1] - np.add.outer(noise, noise[asked])
    )  # as windows are standard
    groups = [
        np.union1d(np.flatnonzero(left & (each < ALIKE**2)), first) for each, first in zip(apart.T, asked, strict=True)
    ]
    return max(groups, key=len)


def _shifted(windows):
    """Windows, flat, as they are around the next column along [110]."""
    return np.roll(windows, WINDOW_SHAPE[1] // 4, axis=2).reshape(len(windows), -1)


def _misfit(fit, flat, noise, whole):
    """Variance per pixel by which windows miss a fit: ndarray (n,), infinite where it does not explain them."""
    found = np.full(len(flat), np.inf)
    tilts, _, misfit = fit.read_alone(flat[whole], noise[whole])
    turned = np.abs((tilts - fit.shown)[:, :3]).max(1)
    found[whole] = np.where((misfit < UNEXPLAINED**2) & (turned < FARTHEST_DEG), misfit, np.inf)
    return found


def _nearest(fits, misfits, flat, noise):
    """Every window that is explained, with the fit that it misses least: list of Claim."""
    found = []
    for number, fit in enumerate(fits):
        here = np.flatnonzero(np.isfinite(misfits[number]) & (np.argmin(misfits, axis=0) == number))
        if len(here):
            found.append(Claim(fit, here, *fit.read(flat[here], noise[here])[:2]))
    return found


def _sound(table, claims):
    """Claims whose crystal is at least two rows high: a fit of one row between others is a fit of what it is not."""
    index = pd.MultiIndex.from_frame(table[["row", "col"]])
    whose = pd.Series(np.where(table.v_deg.notna(), NOBODY, UNSEEN), index=index)
    for number, claim in enumerate(claims):
        whose.iloc[claim.places] = number
    found = []
    for claim in claims:
        kin = [number for number, other in enumerate(claims) if alike(claim.fit, other.fit)]
        rows, cols = (table[name].to_numpy()[claim.places] for name in ("row", "col"))
        beside = np.stack([whose.reindex(zip(rows + step, cols, strict=True), fill_value=UNSEEN) for step in (-1, 1)])
        tall, can_tell = np.isin(beside, kin).any(0), (beside != UNSEEN).any(0)
        if tall.sum() >= TALL * can_tell.sum():
            found.append(claim)
    return found


def _enter(table, group, tilts, spread, odd):
    """Write the tilts of some windows, as even columns show them, and their standard deviations into the table."""
    spread = np.sqrt(spread**2 + np.array([RECORDED_DEG, 0.0, 0.0, 0.0]) ** 2)
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
