"""From the tilts of single B columns to tilt patterns in Glazer notation, with a probability.

Columns are read one by one, but a pattern is how neighbours differ. For each B column the patterns compete to explain
neighbourhoods of 3 × 3 columns (`tilts.pattern_evidence`), nine of which hold the column: those that lie across an
interface explain themselves badly and lose their weight,

    P(pattern | columns) ∝ P(pattern) Σ_{w ∋ column} P(columns of w | pattern) / Π_{i ∈ w} P(column i alone),

so that an interface is not smeared. Then neighbours vote once more (a mean field of a Potts model). A window is four
columns wide and blends what it sees: a strip of one or two columns between others is what they blend into, and its
columns are given to the patterns on either side.

Where crystals are known (`known_crystals.columns`), the patterns of those that were fitted are likelier than others. A
row between two crystals that was read as a layer has been told from its neighbours, whatever they blend into.

A reported pattern is a class of Glazer patterns that one projection along [1-10] cannot tell apart:

* the mirror normal to the beam exchanges a and b: they are written in the order '-', '+', '0';
* '+' about a or b alternates along the beam: beside another '+' or none it is 'a+b?', '?' for '+' or '0';
* 'c±' is a tilt about c whose phase shows only beside a tilt u about [110], which there is none of;
* equal letters about a and b are equal tilts. Tilts of unlike signs get letters of their own: no symmetry makes them
  equal (Howard & Stokes 1998). So does c: `tilts.pattern_verdict.regions` says where its tilt may equal theirs.
"""

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.special import logsumexp

from unitcell.crystals.tilt_coordinates import canonical, to_projection, to_pseudocubic
from unitcell.errors import InputError
from unitcell.tilts.pattern_evidence import (
    CHUNK,
    COMMON,
    EQUAL_DEG,
    ERRORS,
    NAMES,
    at_tilts,
    class_evidence,
    class_prior,
    column_tables,
    layer_evidence,
    layer_signs,
    magnitude_priors,
    neighbourhood_sum,
    on_lattice,
    parity,
    phased,
    words,
)

COUPLING = 1.0  # of the Potts model: log odds that one sure neighbour adds
CAUTION = 0.5  # share of the coupling that enters probabilities: neighbours err alike. Calibrated on simulated tables
ROUNDS = 8  # of the mean field
THINNEST = 3  # columns of a domain that windows, two columns to each side, can tell from a blend of two others
BLENDED = 0.05  # belief that a blended column has in each pattern whatever it shows
COMMON_PATTERN = 0.05  # share of fitted columns, from which on a pattern is one of a crystal
SURE = 0.5  # least probability of a cell that belongs to a region
SMALLEST_REGION = 4  # cells
STRIP_CELLS = 8_000  # at a time: some 700 MB
HALO = 2  # rows: neighbourhoods of neighbourhoods
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # alternation along x, along y
UNREAD = "?"
TINY = 1e-6


def column_patterns(tilts, common=COMMON, coupling=COUPLING):
    """Tilt pattern at every B column, from its tilts and those of its neighbours.

    Parameters
    ----------
    tilts : pandas.DataFrame
        From `tilts.inference.infer_tilts`: row, col, and v, u, gamma, alternation with 90 % intervals [degrees]; and,
        where crystals are known, crystal and layer_signs.
    common : float
        Share of the error variance that neighbouring columns have in common (their windows overlap, and material,
        thickness and lens are the same): 0 to less than 1.
    coupling : float
        How much the pattern of one neighbour counts, 0 for nothing.

    Returns
    -------
    pandas.DataFrame
        With the index of `tilts`: `pattern` (see the module; '?' where nothing was read), `pattern_probability`;
        `alternation_x` and `alternation_y`, the probability that v is the other way round in the next column along
        [110] and along [001]; `u_alternation_x`, `u_alternation_y`, the same of the sign of u where γ ≥ 0 (about 0 and
        0 for c⁻, 0 and 1 for c⁺; all four are 0.5 where there is nothing to alternate); `region`, a number for each
        connected set of cells of one pattern, the largest 0, and −1 where no pattern has the probability `SURE` or the
        set is smaller than `SMALLEST_REGION`.

    Raises
    ------
    InputError
        See `unitcell.tilts.pattern_evidence.on_lattice`, and `common` or `coupling` out of their range.
    """
    if not 0 <= common < 1 or not coupling >= 0:
        raise InputError(
            f"common = {common} and coupling = {coupling} cannot be: give a share from 0 to less than 1 and at least 0."
        )
    maps, places = on_lattice(tilts)
    belief, alternation = _beliefs(tilts, maps, places, common, coupling)
    names, member = _names()
    by_name = belief @ member.T
    best = by_name.argmax(-1)
    likeliest = np.where(member[best] > 0, belief, -1).argmax(-1)
    table = {"pattern": names[best], "pattern_probability": by_name.max(-1)} | alternation
    table["region"] = _connected(likeliest, maps["read"] & (table["pattern_probability"] >= SURE))
    table = pd.DataFrame({name: each[places] for name, each in table.items()}, index=tilts.index)
    unread = ~maps["read"][places]
    table.loc[unread, "pattern"] = UNREAD
    table.loc[unread, ["pattern_probability", *alternation]] = np.nan
    return table


def _names():
    """The patterns that are told apart (N,), and which of `CLASSES` each is (N, K), 1 or 0."""
    names = np.array(sorted(set(NAMES)))
    return names, (np.array(NAMES) == names[:, None]).astype(float)


def _beliefs(tilts, maps, places, common, coupling):
    """`_belief`, and once more with the patterns that fitted crystals turn out to have, where there are any."""
    signs, crystal = (
        np.where(maps["read"][places], each, "") for each in (layer_signs(tilts), words(tilts, "crystal"))
    )
    layer, fitted = (tuple(p[here] for p in places) for here in (signs != "", (crystal != "") & (signs == "")))
    own, prior = layer_evidence({name: each[layer] for name, each in maps.items()}, signs[signs != ""]), class_prior()
    found = _belief(maps, common, coupling, prior, layer, own * prior)
    if not len(fitted[0]):
        return found
    _, member = _names()
    seen = (found[0] @ member.T).argmax(-1)[fitted]
    usual = np.bincount(seen, minlength=len(member)) >= COMMON_PATTERN * len(seen)
    expected, beside = class_prior(member[usual].any(0)), _beside(maps["read"].shape, fitted)[layer]
    own *= np.where(beside[:, None], expected, prior)  # the last row of a crystal is likely to be as it is
    return _belief(maps, common, coupling, expected, layer, own)


def _belief(maps, common, coupling, prior, layers, own):
    """Probability of each class (R, C, K), given what layers show by themselves, and the four alternations (R, C)."""
    belief, alternation = _posterior(maps, common, prior)
    belief[layers] = own / own.sum(-1, keepdims=True)
    voted, thick = _unblended(_vote(belief, maps["read"], coupling))
    careful = _vote(belief, maps["read"], CAUTION * coupling)
    found = _averaged(careful, voted, thick)
    found[layers] = careful[layers]  # no blends of their neighbours
    return found, alternation


def _beside(shape, places):
    """Whether the column above or below is one of some: ndarray of bool (R, C)."""
    here = np.zeros(shape, bool)
    here[places] = True
    padded = np.pad(here, ((1, 1), (0, 0)))
    return padded[:-2] | padded[2:]


def _posterior(maps, common, prior):
    """Probability of each class (R, C, K) before neighbours vote, and the four alternations (R, C), strip by strip."""
    rows, cols = maps["read"].shape
    step = max(8, 2 * (STRIP_CELLS // (2 * cols)))  # even, so that parities begin alike
    beliefs, alternations = [], []
    for start in range(0, rows, step):
        low, high = max(0, start - HALO), min(rows, start + step + HALO)
        belief, alternation = _strip({name: each[low:high] for name, each in maps.items()}, common, prior)
        kept = slice(start - low, start - low + min(step, rows - start))
        beliefs.append(belief[kept])
        alternations.append({name: each[kept] for name, each in alternation.items()})
    joined = {name: np.concatenate([each[name] for each in alternations]) for name in alternations[0]}
    return np.concatenate(beliefs), joined


def _strip(maps, common, prior):
    """`_posterior` of some rows; those within `HALO` of a cut are not what they are in the whole."""
    shape = maps["read"].shape
    v, w, s = column_tables(maps, common)
    alone = logsumexp(np.log(prior) + _evidence(v, w, w, s, None), axis=-1)
    alone = np.where(maps["read"], alone, 0)
    of_v = {phase: neighbourhood_sum(phased(v, parity(shape, *phase))) for phase in PHASES}
    of_u = {phase: neighbourhood_sum(phased(w, parity(shape, *phase))) for phase in PHASES}
    alternation = _alternations(of_v, of_u)
    blur = {name: np.sqrt(common) * _mean_around(maps[f"sigma_{name}"], maps["read"]) for name in ERRORS}
    evidence = _evidence(of_v[1, 1], of_u[0, 0], of_u[0, 1], neighbourhood_sum(s), blur)
    evidence -= neighbourhood_sum(alone)[..., None]
    padded = np.pad(evidence, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, cols = shape
    held = [padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3)]
    logs = np.log(prior) + logsumexp(held, axis=0)
    return np.exp(logs - logsumexp(logs, axis=-1, keepdims=True)), alternation


def _evidence(v, minus, plus, s, blur):
    """`class_evidence` over a lattice, some of it at a time: (R, C, K)."""
    flat = [table.reshape(-1, *table.shape[2:]) for table in (v, minus, plus, s)]
    count = len(flat[0])
    blur = {name: np.ravel(blur[name]) if blur else np.zeros(count) for name in ERRORS}
    parts = [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
    found = [class_evidence(*(t[part] for t in flat), {name: b[part] for name, b in blur.items()}) for part in parts]
    return np.concatenate(found).reshape(*v.shape[:2], -1).astype(float)


def _mean_around(values, read):
    """Mean of what was read in 3 × 3 columns; 1 where nothing was."""
    total, number = neighbourhood_sum(np.where(read, values, 0)), neighbourhood_sum(read.astype(float))
    return np.where(number > 0, total / np.maximum(number, 1), 1.0)


def _alternations(of_v, of_u):
    """Probability that v, and u on the canonical branch, alternate along x and along y, from the four phases' sums."""
    seen, _, gammas = magnitude_priors()
    v_prior, u_prior = seen.sum(2).mean(0), seen.sum(1).mean(0)
    w_prior = u_prior[:, None] * gammas.mean(1)
    found = {}
    of_tilts = {phase: at_tilts(table) for phase, table in of_u.items()}
    for name, sums, prior in (("", of_v, v_prior), ("u_", of_tilts, w_prior)):
        weight = np.log(prior + 1e-30).astype(np.float32)
        logs = np.stack([logsumexp(sums[phase] + weight, tuple(range(2, 2 + weight.ndim))) for phase in PHASES])
        share = np.exp(logs - logsumexp(logs, axis=0))
        found |= {f"{name}alternation_x": share[2] + share[3], f"{name}alternation_y": share[1] + share[3]}
    return found


def _vote(belief, read, coupling):
    """Mean field of a Potts model: each cell's belief times exp(coupling · its four neighbours' beliefs)."""
    start = np.log(np.maximum(belief, 1e-12))
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])[..., None]
    for _ in range(ROUNDS if coupling else 0):
        around = ndimage.convolve(np.where(read[..., None], belief, 0), cross, mode="constant")
        logs = start + coupling * around
        belief = np.exp(logs - logsumexp(logs, axis=-1, keepdims=True))
    return belief


def _unblended(belief):
    """Give the columns of strips thinner than `THINNEST` to the patterns within two columns, by how much there is.

    Returns
    -------
    belief, thick : ndarray (R, C, K)
        `thick` is true where the likeliest class fills a block, to which the column belongs.
    """
    label, block = belief.argmax(-1), np.ones((THINNEST, THINNEST), bool)
    thick = np.zeros(belief.shape, bool)
    for value in np.unique(label):
        opened = ndimage.binary_opening(np.pad(label == value, THINNEST, mode="edge"), block)
        thick[..., value] = opened[THINNEST:-THINNEST, THINNEST:-THINNEST]
    around = _local_mean(thick.astype(float))
    thin = ~thick.any(-1) & (around.sum(-1) > TINY)
    shared = (belief + BLENDED) * around
    shared /= np.maximum(shared.sum(-1, keepdims=True), TINY)
    return np.where(thin[..., None], shared, belief), thick


def _averaged(before, voted, thick):
    """Probabilities of neighbours that agree: votes say whose they are, for columns that err alike add no certainty.

    P_i = Σ_k voted_i(k) ⟨before_j⟩ over the columns j of 5 × 5 that are `thick` in k.
    """
    found, weight = np.zeros_like(before), np.zeros(before.shape[:2])
    for value in np.flatnonzero(thick.any((0, 1))):
        member = thick[..., value].astype(float)
        share = _local_mean(member)
        vote = np.where(share > TINY, voted[..., value], 0)
        found += (vote / np.maximum(share, TINY))[..., None] * _local_mean(before * member[..., None])
        weight += vote
    return found + np.clip(1 - weight, 0, 1)[..., None] * before


def _local_mean(values):
    """Mean over 5 × 5 of the first two axes of (R, C) or (R, C, K), zero outside."""
    size = (5, 5) + (1,) * (values.ndim - 2)
    return ndimage.uniform_filter(values, size, mode="constant").clip(0)


def _connected(label, sure):
    """Number the connected sets of equal labels, the largest first; −1 elsewhere."""
    region, sizes = np.full(label.shape, -1), []
    for value in np.unique(label[sure]):
        parts, count = ndimage.label(sure & (label == value))
        for part in range(1, count + 1):
            here = parts == part
            if here.sum() >= SMALLEST_REGION:
                region[here] = len(sizes)
                sizes.append(here.sum())
    order = np.argsort(-np.array(sizes, dtype=int), kind="stable")
    rank = np.empty(len(sizes) + 1, int)
    rank[order], rank[-1] = np.arange(len(sizes)), -1
    return rank[region]


def reduced_pattern(alpha, beta, gamma, signs, zero_deg=1.0, equal_deg=EQUAL_DEG):
    """The class of patterns that one projection can tell, as `column_patterns` writes it.

    Parameters
    ----------
    alpha, beta, gamma : float
        Tilts about a, b, c [degrees].
    signs : str
        Three of '-', '+', '0', see `unitcell.crystals.octahedra.tilt_signs`.
    zero_deg : float
        Tilts below it count as none [degrees].
    equal_deg : float
        Tilts about a and b of one sign that differ by less share a letter [degrees].

    Returns
    -------
    str
        For instance 'a-a-c+'.
    """
    tilts = np.array([alpha, beta, gamma], float)
    signs = "".join("0" if abs(t) < zero_deg else sign for t, sign in zip(tilts, signs, strict=True))
    in_plane = "".join(sorted(signs[:2], key="-+0".index))
    equal = abs(abs(alpha) - abs(beta)) < equal_deg
    plane = {
        "00": "a0a0", "-0": "a-b0", "--": "a-a-" if equal else "a-b-", "+0": "a+b?", "++": "a+b?", "-+": "a-b+",
    }[in_plane]  # fmt: skip
    hidden = "-" not in in_plane or (plane == "a-a-" and alpha * beta < 0)
    return f"{plane}c{'±' if hidden and signs[2] != '0' else signs[2]}"


def folded_truth(tilts_deg, signs, row, col):
    """What the image shows of B columns with known tilts, folded as the network's answers are.

    Parameters
    ----------
    tilts_deg : array_like (n, 3) or (3,)
        α, β, γ at octahedron (0, 0, 0) of the pattern that each column belongs to [degrees].
    signs : sequence of str (n,), or str
        Its pattern.
    row, col : array_like of int (n,)
        Along [001] and along [110].

    Returns
    -------
    pandas.DataFrame
        row, col, and v, u, gamma, alpha, beta, alternation as `_deg` on the canonical branch.
    """
    row, col = np.asarray(row), np.asarray(col)
    tilts = np.broadcast_to(np.asarray(tilts_deg, float), (len(row), 3))
    signs = np.array([list(signs)] * len(row) if isinstance(signs, str) else [list(each) for each in signs])
    checker, stripes = 1 - 2 * ((row + col) % 2), 1 - 2 * (col % 2)
    in_plane = np.where(signs[:, :2] == "-", tilts[:, :2] * checker[:, None], 0.0)
    gamma = np.select([signs[:, 2] == "-", signs[:, 2] == "+"], [checker, stripes], 0) * tilts[:, 2]
    v, u, _ = to_projection(*in_plane.T, gamma)
    u, gamma = canonical(u, gamma)
    alpha, beta, _ = to_pseudocubic(v, u, gamma)
    alternation = np.linalg.norm(np.where(signs[:, :2] == "+", tilts[:, :2], 0.0), axis=1)
    named = {"v": v, "u": u, "gamma": gamma, "alpha": alpha, "beta": beta, "alternation": alternation}
    return pd.DataFrame({"row": row, "col": col} | {f"{name}_deg": value for name, value in named.items()})
