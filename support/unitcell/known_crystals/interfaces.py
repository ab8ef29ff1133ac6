"""Tilts, patterns and composition of rows between two crystals, from their windows fitted as layers of one stack.

    cost = Σ_rows ( |m − w − D d|² / s² + |d / σ_d|² ) + Σ_k (x_k / σ_k)² + Σ_rows c |t − t_above|² / σ_t²,         (1)

m the window of a row, w(x) the simulated one (`known_crystals.layers`), x the tilts and shares of all rows, s² the
noise of m and what simulations are off by. Every window has its own d: offset and stretch, and smooth brightness along
the rows' normal, for what an interface scatters to large angles is not simulated well. The cost is least in d always.
Tilts t of one row and the next, which share corners, are seldom far apart; c is how much pixels overstate what they
say (`known_crystals.specimen_fit`). Slopes are simulated at every third step, and corrected between (Broyden 1965).
"""

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from unitcell.crystals import corner_rotations
from unitcell.crystals.octahedra import lattice_block
from unitcell.crystals.tilt_coordinates import to_projection, to_pseudocubic
from unitcell.known_crystals.layers import A_SITES, AROUND, B_SITES, Row, Stack, mirrored, moved, other_ways
from unitcell.known_crystals.search import FRESH, corrected
from unitcell.known_crystals.sought import ROUGH
from unitcell.known_crystals.specimen_fit import OVERSTATED, RIVAL
from unitcell.networks.training_windows import WINDOW_SHAPE

QUICK = (1, 38.0)  # effort of searches, see `sought`
OFF = 0.06  # rms by which simulated windows of a stack are off
DISTORTIONS = np.diag([0.02, 0.02, 0.004, 0.004, 0.004, 0.004])  # steps of offset [Å] and stretch
USUAL_OF_WINDOW = np.array([0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.3, 0.3, 0.3, 0.3])
USUAL_OF_ROW = np.array([10.0, 10.0, 10.0, 0.5])  # of v, u, γ [degrees] about none, and of the share about a half
USUAL_OF_NEXT = 3.0 / OVERSTATED**0.5  # of v, u, γ of one row and the next [degrees]: tilts fade over some cells
STEP = np.array([0.5, 0.7, 0.7, 0.15])
MOST_DEG = 5.0  # that one step may turn a row
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
PARTS = (0.5, 1.0)  # of the tilts of a row beyond, which are tried
SETTLED = 2e-3
SIMULATIONS_KEPT = 400
UNTILTED_DEG = 1.0


@dataclass
class Interface:
    """Rows between two crystals, compared with their windows.

    Parameters
    ----------
    stack : unitcell.known_crystals.layers.Stack
    seen : dict of int to ndarray (pixels,)
        Standardised mean window of each row that is sought.
    noise : dict of int to float
        Their variance per pixel.
    simulated : callable
        Called for every image that is simulated.
    """

    stack: Stack
    seen: dict
    noise: dict
    simulated: object = field(default=lambda: None, repr=False)
    images: dict = field(default_factory=dict)

    @property
    def composed(self):
        """Whether rows have a composition to seek."""
        return self.stack.first.material != self.stack.second.material

    def windows(self, rows, wanted, effort):
        """Windows of some rows and their derivatives by d: dict of int to (ndarray (pixels,), ndarray (pixels, 10))."""
        first = min(self.seen or wanted)  # one image shows two windows, always the same two: images are not quite alike
        lower = {at: at - (at - first) % 2 for at in sorted(wanted)}
        return {at: _with_slopes(self._image(rows, below, effort), at - below) for at, below in lower.items()}

    def _image(self, rows, at, effort):
        around = tuple(rows[at + step] for step in AROUND)
        key = (around, at % 2, effort)
        if key not in self.images:
            if len(self.images) > SIMULATIONS_KEPT:
                self.images.clear()
            self.images[key] = self.stack.image(around, at % 2 == 1, effort)
            self.simulated()
        return self.images[key]

    def cost(self, rows, wanted=None, effort=QUICK):
        """Equation (1), of some windows only if they are given."""
        wanted = self.seen if wanted is None else wanted
        found = sum(self._misfit(at, *each)[0] for at, each in self.windows(rows, wanted, effort).items())
        found += sum(np.sum(_unusual(rows[at]) ** 2) for at in self.seen)
        return found + sum(apart @ apart for apart, *_ in self._bends(rows))

    def _bends(self, rows):
        """How unlike successive rows are, and the slopes of it by the tilts of both: iterator, from below."""
        for below in range(min(self.seen, default=0) - 1, max(self.seen, default=-2) + 1):
            yield _unlike(rows[below], rows[below + 1])

    def excess(self, rows, effort=ROUGH):
        """Rms by which each window misses the simulated one beyond its noise: dict of int to float."""
        found = {}
        for at, (window, slopes) in self.windows(rows, self.seen, effort).items():
            left = self.seen[at] - window - slopes @ self._misfit(at, window, slopes)[1]
            found[at] = np.sqrt(max(0.0, np.mean(left**2) - self.noise[at]))
        return found

    def _misfit(self, at, window, slopes):
        """Cost of one window, and d."""
        variance, usual = self.noise[at] + OFF**2, np.diag(USUAL_OF_WINDOW**-2)
        apart = self.seen[at] - window
        d = np.linalg.solve(slopes.T @ slopes / variance + usual, slopes.T @ apart / variance)
        left = apart - slopes @ d
        return left @ left / variance + d @ usual @ d, d

    def beside(self, at):
        """Rows sought whose windows show a row."""
        return [row for row in (at - 1, at, at + 1) if row in self.seen]

    def best_of(self, rows, options, effort=QUICK):
        """Rows of which each, one after the other, is the best of its options: function of row and rows."""
        for at in self.seen:
            least = self.cost(rows, self.beside(at), effort)
            for option in options(at, rows):
                tried = {**rows, at: option}
                if (cost := self.cost(tried, self.beside(at), effort)) < least:
                    rows, least = tried, cost
        return rows

    def descend(self, rows, effort=QUICK, steps=6):
        """Rows of least cost near some, and the cost."""
        cost, damping, slopes, age = self.cost(rows, effort=effort), 1e-2, None, 0
        for _ in range(steps):
            if slopes is None or age >= FRESH:
                slopes, age = self.slopes(rows, effort), 0
            curvature, pull = self.system(rows, slopes, effort)
            before, age = cost, age + 1
            for _ in range(6):
                step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), pull).reshape(-1, 4)
                step[:, 3] *= self.composed
                tried = {**rows, **{at: moved(rows[at], by) for at, by in zip(self.seen, step, strict=True)}}
                small = np.abs(step[:, :3]).max() < MOST_DEG
                if small and (lower := self.cost(tried, effort=effort)) < cost:
                    slopes = self._corrected(slopes, rows, tried, effort)
                    rows, cost, damping = tried, lower, max(damping / 5, 1e-4)
                    break
                damping *= 5
            if before - cost < SETTLED * cost and age == 1:
                break
            if before - cost < SETTLED * cost:
                slopes = None  # corrected ones may be what ended it
        return rows, cost

    def slopes(self, rows, effort):
        """Of the windows by the rows' tilts and shares: dict of int to ndarray (pixels, 4 · rows)."""
        here, count = self.windows(rows, self.seen, effort), 4 * len(self.seen)
        slopes = {at: np.zeros((len(window), count)) for at, (window, _) in here.items()}
        for number, at in enumerate(self.seen):
            for axis in range(4 if self.composed else 3):
                by = np.zeros(4)
                by[axis] = STEP[axis] * _inwards(rows[at], axis)
                there = self.windows({**rows, at: moved(rows[at], by)}, self.beside(at), effort)
                for row, (window, _) in there.items():
                    slopes[row][:, 4 * number + axis] = (window - here[row][0]) / by[axis]
        return slopes

    def _corrected(self, slopes, rows, tried, effort):
        """Slopes that say of a step what came of it."""
        here, there = (self.windows(each, self.seen, effort) for each in (rows, tried))
        before, after = (
            np.concatenate([[*each[at].tilts, each[at].share] for at in self.seen]) for each in (rows, tried)
        )
        unit = np.tile(STEP, len(self.seen))
        return {at: corrected(slopes[at], (after - before) / unit, there[at][0] - here[at][0], unit) for at in slopes}

    def system(self, rows, slopes, effort):
        """Half the second derivative of the cost by the rows' tilts and shares, and minus half the first."""
        here, places = self.windows(rows, self.seen, effort), {at: 4 * n for n, at in enumerate(self.seen)}
        curvature = np.diag(np.tile(USUAL_OF_ROW**-2, len(self.seen)))
        pull = -np.concatenate([_unusual(rows[at]) / USUAL_OF_ROW for at in self.seen])
        for below, (apart, *of_tilts) in enumerate(self._bends(rows), min(self.seen) - 1):
            of_both = np.zeros((3, len(pull)))
            for at, slope in zip((below, below + 1), of_tilts, strict=True):
                if at in places:
                    of_both[:, places[at] : places[at] + 3] = slope
            curvature += of_both.T @ of_both
            pull -= of_both.T @ apart
        for at, (window, of_window) in here.items():
            variance, of_rows = self.noise[at] + OFF**2, slopes[at]
            inner = of_window.T @ of_window / variance + np.diag(USUAL_OF_WINDOW**-2)
            taken = np.linalg.solve(inner, of_window.T / variance)  # d, of what a window is off by
            left = of_rows - of_window @ (taken @ of_rows)
            curvature += of_rows.T @ left / variance
            pull += left.T @ (self.seen[at] - window) / variance
        return curvature, pull

    def spread(self, rows, effort=ROUGH):
        """Covariance of v, u, γ as the image shows them, row by row: ndarray (rows, 3, 3) [degrees²]."""
        curvature, _ = self.system(rows, self.slopes(rows, effort), effort)
        covariance, here, slopes = OVERSTATED * np.linalg.inv(curvature), shown(rows, self.seen)[:, :3], []
        for at in self.seen:
            for by in np.eye(4):
                slopes.append((shown({**rows, at: moved(rows[at], 0.1 * by)}, self.seen)[:, :3] - here) / 0.1)
        slopes = np.moveaxis(np.array(slopes), 0, -1)
        return np.einsum("rip,pq,rjq->rij", slopes, covariance, slopes)


def between(interface, anchors, read):
    """Fit the rows between two crystals.

    Parameters
    ----------
    interface : Interface
    anchors : dict of int to unitcell.known_crystals.layers.Row
        Rows around those sought: one below and two above.
    read : dict of int to (v, u, gamma)
        What windows of the rows that are sought show, as a network reads them or the fit of the crystal that they end
        has it [degrees].

    Returns
    -------
    rows : dict of int to Row
    tilts : ndarray (rows sought, 4), v, u, γ and alternation as the image shows them [degrees]
    covariance : ndarray (rows sought, 3, 3), of v, u, γ; with what other tilts of nearly the same cost differ by
    """
    sought = sorted(interface.seen)
    ends = sorted((interface.descend(start, steps=3) for start in _starts(interface, anchors, read)), key=_cost)[:2]
    rows, _ = ends[0]
    patterns = sorted({row.signs for row in anchors.values()} | {"---"})
    rows = interface.best_of(rows, lambda at, rows: _others(rows[at], (rows[at - 1], rows[at + 1]), patterns))
    ends[0] = interface.descend(rows)
    least = min(cost for _, cost in ends)
    ends = sorted((interface.descend(rows, ROUGH, FRESH) for rows, cost in ends if cost < least + RIVAL), key=_cost)
    best, least = ends[0]
    tilts, covariance = shown(best, sought), interface.spread(best)
    for rows, cost in ends[1:]:
        if cost < least + RIVAL:
            apart = _nearer(shown(rows, sought)[:, :3], tilts[:, :3]) - tilts[:, :3]
            share = 1 / (1 + np.exp((cost - least) / (2 * OVERSTATED)))
            covariance = covariance + share * (1 - share) * np.einsum("ri,rj->rij", apart, apart)
    return best, tilts, covariance


def _starts(interface, anchors, read):
    """Rows to descend from: iterator of dict.

    Tilts go over from one anchor to the others, or are the network's. An image says of a crystal's (u, γ) that they are
    either these or their opposites; of two that meet, it can say whether they go together.
    """
    sought = sorted(interface.seen)
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


def shown(rows, sought):
    """v, u, γ and alternation along the beam as the image shows them, of octahedra with the corners that they share.

    Returns
    -------
    ndarray (rows sought, 4) [degrees]
    """
    octahedra = lattice_block(4, 1, 4)
    column = octahedra[octahedra[:, :2].sum(axis=1) == 0]
    found = []
    for at in sought:
        around = zip((rows[at + step] for step in AROUND), A_SITES, B_SITES, strict=True)
        turned = corner_rotations([row.layer(*sites, 3.9, odd=at % 2 == 1) for row, *sites in around], column)
        mean = turned.mean(axis=0)
        found.append([*to_projection(*mean), np.sqrt(((turned - mean)[:, :2] ** 2).sum(axis=1).mean())])
    return np.array(found)


def _with_slopes(image, which):
    """A window, and its derivatives by d."""
    windows = image.windows(which, np.vstack([np.zeros(6), DISTORTIONS]))
    distorted = (windows[1:] - windows[0]) / np.diag(DISTORTIONS)[:, None]
    y = np.repeat(np.linspace(-1, 1, WINDOW_SHAPE[0], endpoint=False), WINDOW_SHAPE[1])
    smooth = np.stack([y, y**2 - np.mean(y**2), y**3, y * windows[0]])
    return windows[0], np.vstack([distorted, smooth]).T


def _unusual(row):
    """How many usual sizes tilts and share lie from none and from a half: ndarray (4,)."""
    return np.array([*row.tilts, row.share - 0.5]) / USUAL_OF_ROW


def _unlike(below, above):
    """How many usual differences the tilts of two rows are apart: (3,), and its slopes by those of each: (3, 3).

    Where signs differ, those of a tilt about one axis in one row say nothing of those in the other.
    """
    forms = other_ways(below.signs, above.signs)
    apart = [form @ above.tilts - below.tilts for form in forms]
    best = int(np.argmin([each @ each for each in apart]))
    return apart[best] / USUAL_OF_NEXT, -np.eye(3) / USUAL_OF_NEXT, forms[best] / USUAL_OF_NEXT


def _inwards(row, axis):
    """Sign of a step that leaves neither a share's range nor, as images are nearly even there, the side of zero."""
    return -1.0 if (row.share > 0.8 if axis == 3 else row.tilts[axis] < 0) else 1.0


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
