"""Regions of one tilt pattern: what was measured there, and what the projection leaves open, in words."""

from itertools import product

import numpy as np
import pandas as pd

from unitcell.artefacts import written
from unitcell.crystals.tilt_coordinates import ROOT2
from unitcell.errors import InputError
from unitcell.tilts.patterns import COMMON

MEDIAN_VARIANCE = np.pi / 2  # of a median over that of a mean, of normal errors
MAD_TO_SIGMA = 1.4826
NORMAL_90 = 1.645
NAMED_IN_VERDICT = 4
MIRROR = "The mirror normal to the beam, which turns (v, u, γ) into (v, −u, −γ), is equally likely"


def regions(tilts, patterns, common=COMMON):
    """One row per region of `column_patterns`, the largest first.

    Parameters
    ----------
    tilts : pandas.DataFrame
        From `unitcell.tilts.inference.infer_tilts`.
    patterns : pandas.DataFrame
        From `unitcell.tilts.patterns.column_patterns`, for these tilts.
    common : float
        Share of the error variance that all columns have in common: it does not average out.

    Returns
    -------
    pandas.DataFrame
        Indexed by region: `pattern`; `glazer`, the same with c sharing a letter where the intervals allow equal '-'
        tilts; `probability`, the mean over its cells; `cells`; `row_min`, `row_max`, `col_min`, `col_max`; medians
        `v_deg`, `u_deg` (sizes), `gamma_deg`, and the sizes `alpha_deg`, `beta_deg` about a and b (which is which
        cannot be told), each with `_lo`, `_hi`, a 90 % interval of the median [degrees]; and `undecided`, a sentence.
        `beta_deg` is NaN beside 'a+b?', where `alpha_deg` is √(α² + β²).

    Raises
    ------
    InputError
        `patterns` does not belong to `tilts`.
    """
    if not tilts.index.equals(patterns.index) or "region" not in patterns:
        raise InputError(
            f"{len(patterns)} patterns do not belong to {len(tilts)} tilts: give what 'column_patterns' made of them."
        )
    rows = {}
    for number in sorted(set(patterns.region) - {-1}):
        here = patterns.region == number
        rows[number] = _region(tilts[here], patterns[here], common)
    columns = None if rows else ["pattern", "glazer", "probability", "cells", "undecided"]
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="region", dtype=int), columns=columns)


def _region(tilts, patterns, common):
    pattern = patterns.pattern.iloc[0]
    row = {"pattern": pattern, "glazer": pattern, "probability": patterns.pattern_probability.mean()}
    row |= {"cells": len(tilts)}
    row |= {f"{axis}_{end}": int(getattr(tilts[axis], end)()) for axis in ("row", "col") for end in ("min", "max")}
    for name, (size, sigma) in _sizes(tilts, pattern).items():
        low, middle, high = median_interval(size, sigma, common)
        row |= {f"{name}_deg": middle, f"{name}_deg_lo": low, f"{name}_deg_hi": high}
    row["glazer"] = _lettered(pattern, row)
    return row | {"undecided": undecided(pattern)}


def _sizes(tilts, pattern):
    """Size of each tilt [degrees] in each column and its standard deviation, with α and β as the pattern orders them.

    On the canonical branch α and β change places from column to column, as v changes its sign: only the pattern says
    which sizes belong together.
    """
    sigma = {
        name: ((tilts[f"{name}_deg_hi"] - tilts[f"{name}_deg"]) / NORMAL_90).to_numpy(float)
        for name in ("v", "u", "gamma", "alternation")
    }
    v, u, gamma, s = (tilts[f"{name}_deg"].abs().to_numpy(float) for name in ("v", "u", "gamma", "alternation"))
    of_plane = np.sqrt((sigma["v"] ** 2 + sigma["u"] ** 2) / 2)
    nothing, length = (np.zeros_like(v), of_plane), np.hypot(u, v)
    in_plane = {
        "a0a0": (nothing, nothing),
        "a-b0": ((length, of_plane), nothing),
        "a-a-": ((np.maximum(u, v) / ROOT2, of_plane),) * 2,
        "a-b-": (((u + v) / ROOT2, of_plane), (np.abs(u - v) / ROOT2, of_plane)),
        "a+b?": ((s, sigma["alternation"]), (np.full_like(v, np.nan), of_plane)),
        "a-b+": ((length, of_plane), (s, sigma["alternation"])),
    }
    alpha, beta = in_plane[pattern[:4]]
    alone = {"v": (v, sigma["v"]), "u": (u, sigma["u"]), "gamma": (gamma, sigma["gamma"])}
    return alone | {"alpha": alpha, "beta": beta}


def median_interval(size, sigma, common=COMMON):
    """Median of sizes with its 90 % interval: what columns have in common does not average out, their scatter does.

    Parameters
    ----------
    size, sigma : ndarray (n,)
        And their standard deviations.
    common : float
        Share of sigma² that all have in common.

    Returns
    -------
    low, median, high : float
        low ≥ 0.
    """
    middle = np.median(size)
    scatter = MAD_TO_SIGMA * np.median(np.abs(size - middle))
    reach = NORMAL_90 * np.sqrt(common * np.median(sigma**2) + MEDIAN_VARIANCE * scatter**2 / len(size))
    return np.maximum(middle - reach, 0.0), middle, middle + reach


def _lettered(pattern, row):
    """The pattern with c sharing the letter of a '-' tilt about a or b whose interval overlaps that of γ."""
    if not pattern.endswith("c-"):
        return pattern
    for axis, name in ((0, "alpha"), (2, "beta")):
        if pattern[axis + 1] != "-":
            continue
        reach = np.hypot(*(row[f"{each}_deg_hi"] - row[f"{each}_deg"] for each in (name, "gamma")))
        if abs(row[f"{name}_deg"] - row["gamma_deg"]) <= reach:
            return f"{pattern[:4]}{pattern[axis]}-"
    return pattern


def alternatives(pattern):
    """The Glazer patterns, about a, b, c in this order, that show as one reduced pattern: tuple of str.

    For instance 'a-b+c±' is any of 'a-b+c-', 'a-b+c+', 'a+b-c-', 'a+b-c+'.
    """
    first, second, third = (pattern[i : i + 2] for i in (0, 2, 4))
    seconds = [second] if second != "b?" else ["b0", "b+", "a+"]
    thirds = [third] if third != "c±" else ["c-", "c+"]
    found = []
    for b, c in product(seconds, thirds):
        orders = [first + b + c]
        if first[1] != b[1]:  # the mirror exchanges a and b
            orders.append(f"a{b[1]}b{first[1]}{c}")
        found += [order for order in orders if order not in found]
    return tuple(found)


def undecided(pattern):
    """What the projection along [1-10] cannot decide about a region of this pattern: a sentence."""
    return f"{'; '.join([MIRROR, *_left_open(pattern)])}."


def _left_open(pattern):
    """What is open beside the mirror: list of str."""
    plane, sign, parts = pattern[:4], pattern[5:], []
    if plane in ("a-b0", "a-b-"):
        parts.append("the mirror exchanges a and b")
    if plane == "a-b+":
        parts.append("'+' about a cannot be told from '+' about b")
    if plane == "a+b?":
        parts.append("'+' may act about a, about b or about both")
    if sign == "±":
        parts.append("without a tilt u about [110] the phase of γ is not seen: c may be '-' or '+'")
    others = alternatives(pattern)
    if len(others) > 1:
        parts[-1] += f" ({', '.join(others)} look alike)"
    return parts


def verdict(tilts, patterns, found=None):
    """The tilt patterns of an image in one short paragraph.

    Parameters
    ----------
    tilts, patterns : pandas.DataFrame
        As for `regions`.
    found : pandas.DataFrame, optional
        What `regions` made of them.

    Returns
    -------
    str
    """
    found = regions(tilts, patterns) if found is None else found
    read = int((patterns.pattern_probability >= 0).sum())
    if found.empty:
        return f"No tilt pattern stands out from the {read} B columns that were read."
    words = [
        f"{row.glazer} in {row.cells} cells (probability {row.probability:.2f}; "
        f"|v| {row.v_deg:.1f}°, |u| {row.u_deg:.1f}°, |γ| {row.gamma_deg:.1f}°)"
        for row in found.head(NAMED_IN_VERDICT).itertuples()
    ]
    more = f"; and {len(found) - NAMED_IN_VERDICT} smaller regions" if len(found) > NAMED_IN_VERDICT else ""
    left = read - int(found.cells.sum())
    named = dict.fromkeys(found.pattern.head(NAMED_IN_VERDICT))
    open_ = [f"{name}: {'; '.join(_left_open(name))}." for name in named if _left_open(name)]
    return (
        f"{len(found)} region{'s' if len(found) > 1 else ''} of one tilt pattern: {'; '.join(words)}{more}. "
        f"{left} of {read} cells are undecided. {' '.join([MIRROR + '.', *open_])}"
    )


def save_regions(found, path):
    """Write the table of `regions` as CSV."""
    with written(path) as temporary:
        found.to_csv(temporary, float_format="%.6g")
