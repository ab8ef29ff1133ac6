"""Rows between crystals that no crystal explains, read as an interface (`known_crystals.interfaces`).

A window shows the rows above and below its own, so next to an interface no window is one of a crystal. The last row of
each crystal is read with them: its tilts need not be those of its bulk, and windows hardly tell small ones. Rows
between a crystal and the end of an image are left as they are, for what lies beyond them is not known.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from unitcell.known_crystals.interfaces import Interface, between
from unitcell.known_crystals.layers import Row, Stack, mirrored
from unitcell.known_crystals.specimen_fit import UNEXPLAINED, alike

OWNED = 0.8  # share of a row's windows that crystals explain, from which on it is theirs
MOST_ROWS = 6
UNEVEN = 0.06  # rms by which a row's windows may differ, beyond noise, for it to be a layer
# v, u, γ [degrees] that rows are off by beyond their covariance: what rows of two twins of chapter 05 are.
OFF_DEG = np.array([0.3, 1.5, 1.5])


@dataclass(frozen=True)
class ReadRow:
    """What was read in one row.

    Parameters
    ----------
    places : ndarray of int
        Of its windows.
    material : unitcell.known_crystals.materials.Material
        That of which it has more.
    share : float
        How much of it.
    signs : str
        Of its tilt pattern.
    tilts, spread : ndarray (4,)
        v, u, γ and alternation, as windows of even columns show them, and their standard deviations [degrees].
    """

    places: np.ndarray
    material: object
    share: float
    signs: str
    tilts: np.ndarray
    spread: np.ndarray


def read_gaps(table, claims, flat, noise, odd, microscope, progress=False):
    """Read the rows between crystals.

    Parameters
    ----------
    table : pandas.DataFrame
        As the network has it.
    claims : list of unitcell.known_crystals.columns.Claim
    flat : ndarray (n, pixels)
        Windows, those of odd columns shifted; NaN where they leave the image.
    noise : ndarray (n,)
        Their variance per pixel.
    odd : ndarray of bool (n,)
    microscope : unitcell.scattering.Microscope
    progress : bool

    Returns
    -------
    list of ReadRow
    """
    whole = np.isfinite(flat).all(1)
    rows = table.row.to_numpy()
    owners, found = _owners(rows, claims, whole), []
    with tqdm(desc="interfaces", unit=" images", disable=not progress) as bar:  # how many it takes is not known
        for gap in _gaps(owners):
            seen = {at: _layer(flat, noise, (rows == at) & whole) for at in gap}
            seen = {at: one for at, one in seen.items() if one or at not in owners}
            if seen and all(seen.values()):
                found += _read_gap(table, seen, owners, odd, whole, microscope, bar.update)
    return found


def _owners(rows, claims, whole):
    """The fit that explains most of each row of which crystals explain enough: dict of int to SpecimenFit."""
    found = {}
    for at in np.unique(rows[whole]).tolist():
        counts = [np.sum(rows[claim.places] == at) for claim in claims]
        if sum(counts) >= OWNED * np.sum(whole & (rows == at)):
            found[at] = claims[int(np.argmax(counts))].fit
    return found


def _gaps(owners):
    """Rows without an owner between crystals that differ, with the last of both crystals: list of list of int."""
    found = []
    for below, above in pairwise(sorted(owners)):
        if above - below - 1 <= MOST_ROWS and not alike(owners[below], owners[above]):
            ends = [at for at, beyond in ((below, below - 1), (above, above + 1)) if _same(owners, at, beyond)]
            if gap := sorted([*range(below + 1, above), *ends]):
                found.append(gap)
    return found


def _same(owners, at, beyond):
    """Whether a row and the one beyond it are of one crystal."""
    return beyond in owners and alike(owners[at], owners[beyond])


def _layer(flat, noise, here):
    """Mean window of a row and its noise; None where its windows differ, for then it is no layer."""
    windows, variance = flat[here], noise[here].mean() if here.any() else np.nan
    if not here.any():
        return None
    mean = windows.mean(0)
    if np.mean((windows - mean) ** 2) > UNEVEN**2 + variance:
        return None
    return (mean - mean.mean()) / mean.std(), variance / 2  # windows of even columns, and those of odd ones


def _read_gap(table, seen, owners, odd, whole, microscope, simulated):
    """What is read in successive rows between two crystals: list of ReadRow."""
    sought = sorted(seen)
    first, second = owners[sought[0] - 1], owners[sought[-1] + 1]
    windows, noise = ({at: seen[at][each] for at in sought} for each in (0, 1))
    interface = Interface(Stack(first, second, microscope), windows, noise, simulated)
    before = _read_before(table, sought, odd, whole)
    before |= {at: tuple(map(float, owners[at].point[:3])) for at in sought if at in owners}
    rows, tilts, covariance = between(interface, _anchors(owners, sought), before)
    excess, found = interface.excess(rows), []
    for at, one, spread in zip(sought, tilts, covariance, strict=True):
        share = rows[at].share if interface.composed else 1.0
        material, share = (first.material, 1 - share) if share < 0.5 else (second.material, share)
        variance = np.diag(spread) + OFF_DEG**2
        places = np.flatnonzero(whole & (table.row.to_numpy() == at))
        if excess[at] < UNEXPLAINED:
            found.append(
                ReadRow(places, material, share, rows[at].signs, one, np.sqrt([*variance, variance[:2].mean()]))
            )
    return found


def _anchors(owners, sought):
    """The row below those sought and the two above them: dict of int to Row."""
    below, above = sought[0] - 1, sought[-1] + 1
    found = {below: _anchor(owners[below], below, 0.0), above: _anchor(owners[above], above, 1.0)}
    after = _anchor(owners.get(above + 1, owners[above]), above + 1, 1.0)
    both = (after, mirrored(after))
    found[above + 1] = min(both, key=lambda row: np.abs(np.subtract(row.tilts, found[above].tilts)).sum())
    return found


def _anchor(fit, at, share):
    """What a fit says of a row's octahedra."""
    tilts = tuple(map(float, fit.point[:3]))
    row = Row(tilts, fit.signs, share)
    return replace(row, tilts=row.asked(tilts, at))


def _read_before(table, sought, odd, whole):
    """Median v, u, γ of rows as the table has them: dict of int to (v, u, γ)."""
    tilts = pd.DataFrame({"v": np.where(odd, -1, 1) * table.v_deg, "u": table.u_deg, "gamma": table.gamma_deg})
    median = tilts[whole].groupby(table.row.to_numpy()[whole]).median()
    return {at: tuple(median.loc[at].tolist()) for at in sought}
