"""Rows beside a crystal that differ from it: where descents start, and which of their ends is believed."""

from dataclasses import replace
from itertools import product

import numpy as np

from unitcell.crystals.tilt_coordinates import to_projection, to_pseudocubic
from unitcell.known_crystals.interfaces import shown
from unitcell.known_crystals.layers import Row, mirrored, other_ways
from unitcell.known_crystals.search import FRESH
from unitcell.known_crystals.sought import ROUGH
from unitcell.known_crystals.specimen_fit import OVERSTATED, RIVAL

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
PARTS = (0.5, 1.0)  # of the tilts of a row beyond, which are tried
UNTILTED_DEG = 1.0


def between(interface, anchors, read):
    """Fit the rows between two crystals.

    Parameters
    ----------
    interface : unitcell.known_crystals.interfaces.Interface
    anchors : dict of int to unitcell.known_crystals.layers.Row
        Rows around those sought: one below and two above; where the image ends, a guess.
    read : dict of int to (v, u, gamma)
        What the windows of the rows that are sought show, as a network reads them or the fit of the crystal that they
        end has it [degrees].

    Returns
    -------
    rows : dict of int to Row
    tilts : ndarray (windows, 4), v, u, γ and alternation as the image shows them [degrees]
    covariance : ndarray (windows, 3, 3), of v, u, γ; with what other tilts of nearly the same cost differ by
    """
    seen = sorted(interface.seen)
    ends = sorted((interface.descend(start, steps=3) for start in _starts(interface, anchors, read)), key=_cost)[:2]
    rows, _ = ends[0]
    patterns = sorted({row.signs for row in anchors.values()} | {"---"})
    rows = interface.best_of(rows, lambda at, rows: _others(rows[at], (rows[at - 1], rows[at + 1]), patterns))
    ends[0] = interface.descend(rows)
    least = min(cost for _, cost in ends)
    ends = sorted((interface.descend(rows, ROUGH, FRESH) for rows, cost in ends if cost < least + RIVAL), key=_cost)
    best, least = ends[0]
    tilts, covariance = shown(best, seen), interface.spread(best)
    for rows, cost in ends[1:]:
        if cost < least + RIVAL:
            apart = _nearer(shown(rows, seen)[:, :3], tilts[:, :3]) - tilts[:, :3]
            share = 1 / (1 + np.exp((cost - least) / (2 * OVERSTATED)))
            covariance = covariance + share * (1 - share) * np.einsum("ri,rj->rij", apart, apart)
    return best, tilts, covariance


def _starts(interface, anchors, read):
    """Rows to descend from: iterator of dict.

    Tilts go over from one anchor to the others, or are the network's. An image says of a crystal's (u, γ) that they are
    either these or their opposites; of two that meet, it can say whether they go together.
    """
    sought = interface.sought
    below = sought[0] - 1
    opposite = {at: row if at == below else mirrored(row) for at, row in anchors.items()}
    for around in (anchors, opposite) if np.hypot(*anchors[below].tilts[1:]) > UNTILTED_DEG else (anchors,):
        rows = {**around, **_interpolated(sought, around)}
        for _ in range(2 if interface.composed else 0):
            rows = interface.best_of(rows, lambda at, rows: [replace(rows[at], share=share) for share in SHARES])
        yield rows
        tilts = np.array([rows[at].tilts for at in sought])
        nearer = _nearer(np.array([rows[at].asked(read[at], at) for at in sought]), tilts).tolist()
        yield {**rows, **{at: replace(rows[at], tilts=tuple(each)) for at, each in zip(sought, nearer, strict=True)}}


def _interpolated(sought, anchors):
    """Rows that go over from the anchor below to the one above."""
    below, above = anchors[sought[0] - 1], anchors[sought[-1] + 1]
    found = {}
    for place, at in enumerate(sought):
        part = (place + 0.5) / len(sought)
        tilts = (1 - part) * np.array(below.tilts) + part * np.array(above.tilts)
        signs = below.signs if part < 0.5 else above.signs
        found[at] = Row(tuple(tilts.tolist()), signs, (1 - part) * below.share + part * above.share)
    return found


def _others(row, beside, patterns):
    """A row with other signs of its tilts, in other patterns, or with parts of the tilts of the rows beside it."""
    found = []
    for signs in patterns:
        alpha, beta, gamma = to_pseudocubic(*row.tilts)
        turned = [(alpha, beta, gamma), (alpha, -beta, gamma), (-alpha, beta, gamma), (alpha, beta, -gamma)]
        found += [replace(row, tilts=tuple(map(float, to_projection(*each))), signs=signs) for each in turned]
    for other, part, signs in product(beside, PARTS, patterns):
        tilts = [(part * form @ other.tilts).tolist() for form in other_ways(signs, other.signs)]
        scaled = [Row(tuple(each), signs, row.share) for each in tilts]
        found += [*scaled, mirrored(scaled[0])] if signs == other.signs else scaled
    return list(dict.fromkeys(found))


def _cost(end):
    return end[1]


def _nearer(tilts, to):
    """Each of some tilts or its mirror (v, −u, −γ), whichever is nearer to others: ndarray (n, 3)."""
    both = np.stack([tilts, tilts * [1, -1, -1]])
    return both[np.linalg.norm(both - to, axis=2).argmin(axis=0), np.arange(len(to))]
