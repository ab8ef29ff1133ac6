"""How well each tilt pattern explains the tilts of neighbouring B columns.

Octahedra of B column (m, k), m along [110] and k along [001], turn by α, β, γ times (−1)^(m+k) for '−' (about any
axis) and (−1)^m for '+' about c (`unitcell.crystals.octahedra`); '+' about a or b alternates along the beam and leaves
its size only. So over a neighbourhood

    v(m, k) = (−1)^(m+k) v,   (u, γ)(m, k) = ± (u, γ) for c⁻,   ± ((−1)^k u, γ) for c⁺,

with one unknown sign per column (the mirror). What a network reads is not (u, γ) but (p, q), their doubled coordinates
(`tilt_coordinates.doubled`): there both signs are one, c⁺ turns the sign of q from row to row, and errors are alike in
all directions and for all sizes, which they are not as angles: a tilt that is zero is read as some angle, never less.
So the likelihood of a neighbourhood is tabulated on a grid of v, of (p, q), and of the alternation, and a pattern's
evidence is its mean over the tilts that the pattern allows:

    P(columns | pattern) = ∫ p(v, u, γ, s | pattern) Π_columns p(column | v, p(u, γ), q(u, γ), s) dv du dγ ds.
"""

from functools import cache

import numpy as np
import pandas as pd
from scipy import sparse, stats

from unitcell.crystals.tilt_coordinates import doubled, halved, to_projection
from unitcell.errors import InputError
from unitcell.networks.tilt_network import doubled_sigma

READ = ("v", "u", "gamma", "alternation")
SMALLEST_DEG, LARGEST_DEG = 2.0, 12.5  # of an octahedron's tilt about one axis, where it tilts
REST_DEG = 0.5  # standard deviation of a tilt that is called zero, and of the difference of two that are called equal
ALTERNATION_REST_DEG = 1.5  # of an alternation that is none: images show its square, so that noise looks like some
EQUAL_DEG = 1.5  # least difference of two that are called different
STEP_DEG = 0.75
SIGNED = np.arange(-25, 26) * STEP_DEG  # v and u: √2 · 12.5° is 17.7°, and a little more
UNSIGNED = np.arange(25) * STEP_DEG  # alternation, of two axes
POLAR = np.arange(19) * STEP_DEG  # γ ≥ 0
ALONG_P = np.arange(-25, 19) * STEP_DEG  # doubled coordinates of these u and γ
ALONG_Q = np.arange(-28, 29) * STEP_DEG
ERRORS = ("v", "pair", "alternation")  # what has a standard deviation of its own: (p, q) have one together
FREEDOM = 4  # of Student's t: errors have heavier tails than a normal distribution
STRAY = 0.05  # share of columns that say nothing of their neighbourhood
COMMON = 0.5  # share of the variance of errors that neighbouring columns have in common
# Of 3 × 3 averages over n windows, those of one parity are of much the same windows: four stand for nine.
AVERAGES_APART = 9 / 4
AS_FITTED = 0.5  # prior probability of a pattern that a fitted crystal has, for this or that one
CHUNK = 512  # neighbourhoods at a time, to bound memory
SIGNS_RIGHT = 0.9  # probability of the signs with which a row was read as a layer
LEAST_SIGMA_DEG = 0.4  # below half a step of the grid, and below the differences between neighbouring cells

# In-plane parts: what acts about a and b, in the order '-', '+', '0', for the mirror exchanges them. The two kinds of
# a-a- turn about [110] (v = 0) and about the beam (u = 0).
PLANES = ("a0a0", "a-b0", "a-a- about [110]", "a-a- about the beam", "a-b-", "a+b?", "a-b+")
PLANE_PRIOR = np.array([1, 1, 0.75, 0.75, 1, 1, 1])
WITHOUT_U = ("a0a0", "a-a- about the beam", "a+b?")  # there the phase of γ cannot be seen
CLASSES = tuple((plane, sign) for plane in PLANES for sign in (("0", "±") if plane in WITHOUT_U else ("0", "-", "+")))
NAMES = tuple(f"{plane.split()[0]}c{sign}" for plane, sign in CLASSES)
SHARE = {"0": 1 / 3, "-": 1 / 3, "+": 1 / 3, "±": 2 / 3}


def class_prior(expected=None):
    """Prior probability of each of `CLASSES`; where crystals were found to be of some (bool), these are likelier."""
    weights = np.array([PLANE_PRIOR[PLANES.index(plane)] * SHARE[sign] for plane, sign in CLASSES])
    prior = weights / weights.sum()
    if expected is None or not expected.any():
        return prior
    of_these = np.where(expected, prior, 0)
    return AS_FITTED * of_these / of_these.sum() + (1 - AS_FITTED) * prior


def _shares(values, grid):
    """Values (n,) shared linearly between the two nearest points of a grid: (n, len(grid))."""
    return np.clip(1 - np.abs(values[:, None] - grid) / STEP_DEG, 0, None)


@cache
def magnitude_priors():
    """What each in-plane part expects: weights (P, V, U) of v and u, (P, A) of the alternation and (G, 2) of γ.

    Tilts that are not zero are uniform between `SMALLEST_DEG` and `LARGEST_DEG`, of either sign. The last axis of γ's
    weights is 'zero', 'not zero'.
    """
    sizes = np.arange(SMALLEST_DEG, LARGEST_DEG + 0.01, 0.25)
    both = np.concatenate([-sizes, sizes])
    rest = stats.norm.ppf((np.arange(9) + 0.5) / 9) * REST_DEG
    one, small = (part.ravel() for part in np.meshgrid(both, rest))
    first, second = (part.ravel() for part in np.meshgrid(both, both))
    unequal = np.abs(np.abs(first) - np.abs(second)) >= EQUAL_DEG
    at_rest = tuple(part.ravel() for part in np.meshgrid(rest, rest))
    # Tilts that alternate along the beam can be taken for u: half of the time, for it splits columns as they do.
    leaning = one, one + small
    spurious = tuple(np.concatenate([np.resize(still, len(one)), u]) for still, u in zip(at_rest, leaning, strict=True))
    single = np.concatenate([one, small]), np.concatenate([small, one])
    in_plane = {
        "a0a0": at_rest, "a-b0": single, "a-a- about [110]": leaning,
        "a-a- about the beam": (one, small - one), "a-b-": (first[unequal], second[unequal]), "a+b?": spurious,
        "a-b+": single,
    }  # fmt: skip
    none = np.abs(rest) * (ALTERNATION_REST_DEG / REST_DEG)
    still, turned = (_shares(part, UNSIGNED).mean(0) for part in (none, sizes))
    twice = _shares(np.hypot(*np.meshgrid(sizes, sizes)).ravel(), UNSIGNED).mean(0)
    alternating = {"a+b?": (turned + twice) / 2, "a-b+": turned}
    seen = []
    for plane in PLANES:
        v, u, _ = to_projection(*in_plane[plane], 0.0)
        seen.append(_shares(v, SIGNED).T @ _shares(u, SIGNED) / len(v))
    gammas = np.stack([_shares(np.abs(rest), POLAR).mean(0), _shares(sizes, POLAR).mean(0)], axis=1)
    return np.stack(seen), np.stack([alternating.get(plane, still) for plane in PLANES]), gammas


def on_lattice(tilts):
    """Put the table of `infer_tilts` on its lattice.

    Parameters
    ----------
    tilts : pandas.DataFrame
        row, col, and v, u, gamma, alternation as `_deg` and `_deg_hi`; and `windows_averaged`, of how many each is the
        mean, 1 where it is not there: those of single windows are taken to be wider by 1/√(c + (1 − c)/n),
        c = `COMMON`, except in rows read as layers (see `layer_signs`), whose tilts are of all their columns.

    Returns
    -------
    maps : dict of ndarray (R, C)
        Each of `READ`; the standard deviations `sigma_*` of these and of `ERRORS` [degrees] from the upper halves of
        90 % intervals (lower ones are cut at zero), `pair` being the doubled coordinates of (u, γ); `own`, the share
        of the variance of a column's own errors that its average keeps; and `read`, where there are tilts.
    places : tuple of two ndarray (n,)
        Row and column in these maps of each row of the table.

    Raises
    ------
    InputError
        A column is missing, a B column stands twice, or none has tilts.
    """
    wanted = ["row", "col", *(f"{name}_deg{end}" for name in READ for end in ("", "_hi"))]
    missing = [name for name in wanted if name not in tilts]
    if missing:
        raise InputError(
            f"The table of tilts lacks the column(s) {', '.join(missing)}: give the one that 'infer_tilts' makes."
        )
    if tilts.duplicated(["row", "col"]).any():
        twice = tilts[tilts.duplicated(["row", "col"])].iloc[0]
        raise InputError(
            f"B column ({twice.row:g}, {twice.col:g}) stands twice in the table of tilts: give one image at a time."
        )
    numbers = tilts[wanted[2:]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    read = np.isfinite(numbers).all(1)
    if not read.any():
        raise InputError("The table of tilts has no B column with tilts: give an image with whole windows in it.")
    places = tuple((tilts[name] - tilts[name].min()).to_numpy(int) for name in ("row", "col"))
    shape = places[0].max() + 1, places[1].max() + 1
    maps = {"read": np.zeros(shape, bool)}
    maps["read"][places] = read
    values = dict(zip(READ, numbers[:, ::2].T, strict=True))
    averaged = tilts.get("windows_averaged", pd.Series(1.0, tilts.index)).fillna(1).to_numpy(float)
    averaged = np.where(layer_signs(tilts) == "", averaged, 1.0)
    single = stats.norm.ppf(0.95) * np.sqrt(COMMON + (1 - COMMON) / averaged)
    spread = dict(zip(READ, (numbers[:, 1::2] - numbers[:, ::2]).T / single, strict=True))
    length = np.hypot(*doubled(values["u"], values["gamma"]))
    spread["pair"] = doubled_sigma(length, np.hypot(spread["u"], spread["gamma"]) / np.sqrt(2))
    spread = {f"sigma_{name}": np.maximum(sigma, LEAST_SIGMA_DEG) for name, sigma in spread.items()}
    own = {"own": np.minimum(1, AVERAGES_APART / averaged)}
    for name, each in (values | spread | own).items():
        maps[name] = np.full(shape, np.nan)
        maps[name][places] = np.where(read, each, np.nan)
    return maps, places


def layer_signs(tilts):
    """Signs of the tilts of columns in rows that were read as layers between crystals, '' elsewhere: ndarray of str."""
    return words(tilts, "layer_signs")


def words(tilts, name):
    """A column of words of a table, '' where there are none or no such column: ndarray of str."""
    return tilts.get(name, pd.Series("", tilts.index)).astype(object).fillna("").to_numpy(str)


def agreement(signs):
    """Which of `CLASSES` tilts of these signs may belong to: ndarray of bool (len(CLASSES),)."""
    in_plane = [plane == "a0a0" or ("+" in plane) == ("+" in signs[:2]) for plane, _ in CLASSES]
    return np.array([fits and sign in ("0", "±", signs[2]) for fits, (_, sign) in zip(in_plane, CLASSES, strict=True)])


def parity(shape, along_x, along_y):
    """±1 over a lattice (R, C): alternating along [110] and along [001] or not."""
    rows, cols = np.indices(shape)
    return 1 - 2 * ((along_x * cols + along_y * rows) % 2)


def column_tables(maps, common):
    """Log-likelihood of every column on the grid: v (R, C, V), (q, p) (R, C, Q, P), alternation (R, C, A).

    Student's t about the estimate; for the alternation, about its negative, too. Zero, which weighs nothing, where
    nothing was read. Errors in common with the neighbours, the share `common` of the variance, come later
    (`class_evidence`).
    """
    own = np.sqrt((1 - common) * maps["own"])
    spread = {name: np.maximum(maps[f"sigma_{name}"] * own, LEAST_SIGMA_DEG / 2) for name in ERRORS}
    spread = {name: np.where(maps["read"], each, 1.0).astype(np.float32) for name, each in spread.items()}
    value = {name: np.where(maps["read"], maps[name], 0.0).astype(np.float32) for name in READ}
    p, q = doubled(value["u"], value["gamma"])

    def away(value, name, grid):
        """Squared distance (R, C, len(grid)) to the grid in standard deviations."""
        return ((value[..., None] - grid.astype(np.float32)) / spread[name][..., None]) ** 2

    v = _floored(_student(away(value["v"], "v", SIGNED), spread["v"], 1), np.ptp(SIGNED))
    apart = away(q, "pair", ALONG_Q)[..., None] + away(p, "pair", ALONG_P)[..., None, :]
    w = _floored(_student(apart, spread["pair"], 2), np.ptp(ALONG_Q) * np.ptp(ALONG_P))
    both = (
        _student(away(value["alternation"], "alternation", s * UNSIGNED), spread["alternation"], 1) for s in (1, -1)
    )
    s = _floored(sum(both), np.ptp(UNSIGNED))
    for table in (v, w, s):
        table[~maps["read"]] = 0
    return v, w, s


def _student(square, sigma, dimensions):
    """Density of Student's t whose 90 % interval is that of a normal distribution with `sigma`."""
    scale = sigma * (stats.norm.ppf(0.95) / stats.t.ppf(0.95, FREEDOM))
    scale = scale.reshape(scale.shape + (1,) * (square.ndim - scale.ndim)).astype(np.float32)
    square = square * np.float32((stats.t.ppf(0.95, FREEDOM) / stats.norm.ppf(0.95)) ** 2)
    constant = stats.t.pdf(0, FREEDOM) if dimensions == 1 else 1 / (2 * np.pi)
    return np.float32(constant) * (1 + square / FREEDOM) ** (-(FREEDOM + dimensions) / 2) / scale**dimensions


def _floored(density, extent):
    """Logarithm of a density of which the share `STRAY` is even over the grid."""
    return np.log((1 - STRAY) * density + np.float32(STRAY / extent))


def phased(table, signs):
    """A table with its first grid axis reversed (v → −v or q → −q) where `signs` (R, C) are −1."""
    signs = signs.reshape(signs.shape + (1,) * (table.ndim - 2))
    return np.where(signs > 0, table, np.flip(table, 2))


def neighbourhood_sum(table):
    """Sum over each column and its eight neighbours: 3 × 3 of the first two axes."""
    for axis in (0, 1):
        padded = np.pad(table, [(int(axis == each),) * 2 for each in range(table.ndim)])
        size = table.shape[axis]
        table = sum(np.take(padded, range(start, start + size), axis) for start in range(3))
    return table


def class_evidence(v, minus, plus, s, blur):
    """Log evidence of each of `CLASSES`.

    Parameters
    ----------
    v, s : ndarray (n, V), (n, A)
        Log-likelihoods, v in the phase of the checkerboard.
    minus, plus : ndarray (n, Q, P)
        Of (q, p) in the phase of c⁻ and of c⁺.
    blur : dict of ndarray (n,)
        Standard deviation of the errors that all columns of a neighbourhood have in common, by `ERRORS` [degrees].

    Returns
    -------
    ndarray (n, len(CLASSES))
    """
    seen, alternating, gammas = (part.astype(np.float32) for part in magnitude_priors())
    v, v_top = _exponential(v)
    s, s_top = _exponential(s)
    w, w_top = _exponential(np.stack([minus, plus], axis=1))  # (n, 2, Q, P)
    v = (_kernel(SIGNED, blur["v"]) @ v[..., None])[..., 0]
    s = (_kernel(UNSIGNED, blur["alternation"]) @ s[..., None])[..., 0]
    w = _kernel(ALONG_Q, blur["pair"])[:, None] @ w @ _kernel(ALONG_P, blur["pair"]).swapaxes(1, 2)[:, None]
    w = at_tilts(w)  # (n, 2, U, G)
    reach = (v @ seen.swapaxes(0, 1).reshape(len(SIGNED), -1)).reshape(len(v), len(PLANES), len(SIGNED))
    joint = np.einsum("npu,nqug->npqg", reach, w @ gammas, optimize=True)  # g: zero, not zero
    by_sign = {"0": joint[..., 0].mean(2), "±": joint[..., 1].mean(2), "-": joint[:, :, 0, 1], "+": joint[:, :, 1, 1]}
    planes = s @ alternating.T
    each = [by_sign[sign][:, p] * planes[:, p] for p, sign in ((PLANES.index(plane), sign) for plane, sign in CLASSES)]
    return np.log(np.maximum(np.stack(each, axis=1), 1e-30)) + (v_top + s_top + w_top)[:, None]


def layer_evidence(maps, signs):
    """Evidence for each of `CLASSES` in columns of rows that were read as layers, by themselves: (n, K), at most 1.

    Parameters
    ----------
    maps : dict of ndarray (n,)
        See `on_lattice`.
    signs : ndarray of str (n,)
        See `layer_signs`.
    """
    if not len(signs):
        return np.empty((0, len(CLASSES)))
    evidence = []
    for start in range(0, len(signs), CHUNK):
        part = slice(start, start + CHUNK)
        v, w, s = _layer_tables({name: each[part] for name, each in maps.items()})
        evidence.append(class_evidence(v, w, w, s, dict.fromkeys(ERRORS, np.zeros(len(v)))))
    right = np.array([agreement(each) for each in signs])
    logs = np.concatenate(evidence) + np.log(np.where(right, SIGNS_RIGHT, 1 - SIGNS_RIGHT))
    return np.exp(logs - logs.max(-1, keepdims=True)).astype(float)


def _layer_tables(maps):
    """The same as `column_tables` for columns (n,) of rows read as layers, whose errors are those of u and γ."""
    v, _, s = column_tables({name: each[None] for name, each in maps.items()}, 0.0)
    u, gamma = halved(ALONG_P, ALONG_Q[:, None])
    (read_u, sigma_u), (read_gamma, sigma_gamma) = (
        (maps[name][:, None, None], maps[f"sigma_{name}"][:, None, None]) for name in ("u", "gamma")
    )
    apart = [((s * u - read_u) / sigma_u) ** 2 + ((s * gamma - read_gamma) / sigma_gamma) ** 2 for s in (1, -1)]
    density = _student(np.minimum(*apart), np.sqrt(sigma_u * sigma_gamma)[:, 0, 0], 2)
    return v[0], _floored(density, np.ptp(SIGNED) * np.ptp(POLAR)), s[0]


def _exponential(table):
    """exp(table − its largest value) and that value, for each first index."""
    top = table.reshape(len(table), -1).max(1)
    return np.exp(table - top.reshape(-1, *(1,) * (table.ndim - 1))), top


@cache
def _doubled_grid():
    """Weights (U · G, Q · P) by which values on the grid of (q, p) are interpolated at the tilts (u, γ) of theirs."""
    p, q = (part.ravel() for part in doubled(SIGNED[:, None], POLAR))
    along = sparse.csr_array(_shares(q, ALONG_Q)), sparse.csr_array(_shares(p, ALONG_P))
    rows = [sparse.kron(along[0][[i]], along[1][[i]]) for i in range(len(p))]
    return sparse.vstack(rows).tocsr().astype(np.float32)


def at_tilts(table):
    """Values on the grid of (q, p), (…, Q, P), at the grid of (u, γ): (…, U, G)."""
    flat = _doubled_grid() @ table.reshape(-1, table.shape[-2] * table.shape[-1]).T
    return flat.T.reshape(*table.shape[:-2], len(SIGNED), len(POLAR))


def _kernel(grid, sigma):
    """Normal kernels (n, len(grid), len(grid)) of standard deviations `sigma` (n,) on a grid."""
    sigma = np.maximum(sigma, 0.1 * STEP_DEG)[:, None, None]
    weight = np.exp(-0.5 * ((grid[:, None] - grid) / sigma) ** 2) * STEP_DEG / (sigma * np.sqrt(2 * np.pi))
    return (weight / np.maximum(1, STEP_DEG / (sigma * np.sqrt(2 * np.pi)))).astype(np.float32)
