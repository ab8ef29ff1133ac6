"""The specimens of the dark-field twins, as lists of columns: what stands where, how it is turned, how thick it is.

Coordinates are x right, y down [Å] from the middle of the field; angles are counter-clockwise as seen.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from unitcell.crystals.structures import SR3FE2O7_A, SR3FE2O7_C
from unitcell.errors import InputError
from unitcell.twins.haadf import LA_SHARE, LAYER_KIND, LSMO_A, NIO_A, PHASES, SOURCE_A, column_profiles

MARGIN_A = 8.0  # beyond the field: columns whose tails reach into it, and room for drift
NIO_SHARE = 0.25  # of the area, about
HALF_WIDTH_A = (13.0, 26.0)  # of an inclusion
MISORIENTED_DEG = 1.0  # rms turn of an inclusion against the matrix
DIFFUSE_A = 1.5  # of the tanh across an interface, which does not run straight down
CLOSEST_A = 1.6  # columns of two phases nearer than this cannot both be there
OVERLAP_A = 1.5  # how far NiO reaches into the matrix where that leaves room
Z_EXPONENT = 1.7  # of dark-field intensity in the atomic number
GAP_A = 8.0  # between inclusions


@dataclass(frozen=True)
class Kind:
    """What a specimen is called and by default."""

    environments: tuple
    thickness_A: tuple
    build: object


@dataclass(frozen=True)
class Specimen:
    """Columns, and what scatters between them.

    Parameters
    ----------
    position_A : ndarray, shape (n, 2)
    amounts : dict of (phase, species) to ndarray (n,)
        How much of each kind of column stands there; mixed at interfaces.
    listed : ndarray of bool, shape (n,)
        False for pure oxygen, which is drawn but not listed.
    truth : dict of ndarray, shape (n,)
        species, phase, environment, side, angle_rad, symmetry, thickness_A, interface_A.
    thickness : callable (x) → [Å]
    shares : callable (positions (…, 2)) → dict of phase to share of it there
    """

    position_A: np.ndarray
    amounts: dict
    listed: np.ndarray
    truth: dict
    thickness: object
    shares: object

    def shapes(self, source_A):
        """Height [fraction of the beam], σ, τ [Å] and tail of every column, four ndarrays (n,)."""
        total = np.zeros((4, len(self.position_A)))
        for (phase, species), amount in self.amounts.items():
            profiles = column_profiles(phase, source_A)
            kind = profiles.species.index(species) if isinstance(species, str) else species
            height, *rest = (values[kind] for values in profiles.at(self.truth["thickness_A"])[:4])
            total[0] += amount * height
            total[1:] += amount * height * np.stack(rest)  # shapes are averaged by what they contribute
        return total[0], *np.where(total[0] > 0, total[1:] / np.where(total[0] > 0, total[0], 1.0), SOURCE_A)

    def background(self, positions_A, source_A):
        """What scatters everywhere, at positions (…, 2): fraction of the beam."""
        thickness = np.clip(self.thickness(positions_A[..., 0]), *_thickness_range())
        found = 0.0
        for phase, share in self.shares(positions_A).items():
            found = found + share * column_profiles(phase, source_A).at(thickness)[-1]
        return found


def specimen(name, field_A, thickness_A=None, disorder_A=0.0, seed=0):
    """Build a specimen.

    Parameters
    ----------
    name : str
        One of `SPECIMENS`.
    field_A : (float, float)
        Height and width that it has to fill at any rotation [Å].
    thickness_A : (float, float), optional
        At the left and right edge of the field [Å].
    disorder_A : float
        Rms static displacement along one axis [Å].
    seed : int

    Returns
    -------
    Specimen
    """
    if name not in SPECIMENS:
        raise InputError(f"There is no twin '{name}': give one of {', '.join(SPECIMENS)}.")
    kind = SPECIMENS[name]
    left, right = kind.thickness_A if thickness_A is None else thickness_A
    low, high = _thickness_range()
    if not (low <= left <= high and low <= right <= high):
        raise InputError(f"thickness_A = ({left:g}, {right:g}) was not simulated: give {low:g} to {high:g} Å.")
    if not (np.isfinite(disorder_A) and disorder_A >= 0):
        raise InputError(f"disorder_A = {disorder_A} cannot be: give 0 or more.")

    def thickness(x):
        return left + (right - left) * (np.asarray(x) / field_A[1] + 0.5)

    rng = np.random.default_rng([seed, 0])
    built = kind.build(np.hypot(*field_A) / 2 + MARGIN_A, field_A, rng)
    position = built.position_A + disorder_A * rng.normal(size=built.position_A.shape)
    depth = np.clip(thickness(position[:, 0]), low, high)
    amounts = built.amounts
    if ("lsmo", "A") in amounts:
        amounts = amounts | {("lsmo", "A"): amounts["lsmo", "A"] * _composition(depth, rng)}
    return Specimen(position, amounts, built.listed, built.truth | {"thickness_A": depth}, thickness, built.shares)


@dataclass(frozen=True)
class Lattice:
    """What a builder gives: a `Specimen` without thickness."""

    position_A: np.ndarray
    amounts: dict
    listed: np.ndarray
    truth: dict
    shares: object


@dataclass(frozen=True)
class Inclusions:
    """NiO in LSMO: rounded squares."""

    centre_A: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    half_width_A: np.ndarray = field(default_factory=lambda: np.empty(0))
    faces_rad: np.ndarray = field(default_factory=lambda: np.empty(0))
    angle_rad: np.ndarray = field(default_factory=lambda: np.empty(0))

    def distance(self, positions_A, only=None):
        """Distance of positions (…, 2) from the nearest border, or from that of one inclusion; negative inside [Å]."""
        nearest = np.full(positions_A.shape[:-1], np.inf, positions_A.dtype)
        for n in range(len(self.centre_A)) if only is None else [only]:
            x, y = np.moveaxis(positions_A - self.centre_A[n].astype(positions_A.dtype), -1, 0)
            cos, sin = float(np.cos(self.faces_rad[n])), float(np.sin(self.faces_rad[n]))
            u, v = (cos * x + sin * y) ** 2, (cos * y - sin * x) ** 2
            nearest = np.minimum(nearest, np.cbrt(u * u * u + v * v * v) ** 0.5 - float(self.half_width_A[n]))
        return nearest


def random_inclusions(reach_A, field_A, rng):
    """Inclusions that cover about `NIO_SHARE` of the field and keep their distance."""
    placed, area, wanted = [], 0.0, NIO_SHARE * np.prod(field_A)
    for _ in range(4000):
        if area >= wanted:
            break
        width = rng.uniform(*HALF_WIDTH_A)
        half = np.maximum(np.array(field_A[::-1]) / 2 - 0.6 * width, 1.0)
        centre = rng.uniform(-half, half)
        if all(np.hypot(*(centre - c)) > 1.25 * (width + w) + GAP_A for c, w in placed):
            placed.append((centre, width))
            area += 3.7 * width**2
    centres, widths = (np.array(part) for part in zip(*placed, strict=True))
    faces = rng.choice([0.0, np.pi / 4], len(placed))
    return Inclusions(centres, widths, faces, np.radians(MISORIENTED_DEG) * rng.normal(size=len(placed)))


def _grid(spacing, reach_A, centre=(0.0, 0.0), turn=0.0):
    """Points of a square lattice within `reach_A` of `centre`, turned counter-clockwise as seen."""
    count = int(np.ceil(reach_A / spacing)) + 1
    i, j = np.mgrid[-count : count + 1, -count : count + 1].reshape(2, -1) * spacing
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array(centre) + np.stack([cos * i + sin * j, cos * j - sin * i], -1)


def lsmo_nio(reach_A, field_A, rng):
    """The nanocomposite: perovskite along [100], with inclusions of rock salt, cube on cube but for small turns."""
    inclusions = random_inclusions(reach_A, field_A, rng)
    origin = rng.uniform(0, LSMO_A, 2)
    sites = {"A": (0, 0), "B": (0.5, 0.5), "O": (0.5, 0), "O2": (0, 0.5)}
    points = {s: _grid(LSMO_A, reach_A, origin + LSMO_A * np.array(o)) for s, o in sites.items()}
    points = {s: p[inclusions.distance(p) > 0] for s, p in points.items()}
    heavy = cKDTree(np.concatenate([points["A"], points["B"]]))
    nio, turns = [], []
    for number, (centre, turn) in enumerate(zip(inclusions.centre_A, inclusions.angle_rad, strict=True)):
        p = _grid(NIO_A / 2, 1.3 * inclusions.half_width_A[number], centre, turn)
        p = p[(inclusions.distance(p, number) < OVERLAP_A) & (heavy.query(p)[0] > CLOSEST_A)]
        nio.append(p)
        turns.append(np.full(len(p), turn))
    points["NiO"] = np.concatenate(nio)
    position = np.concatenate(list(points.values()))
    species = np.repeat([s[0] if s.startswith("O") else s for s in points], [len(p) for p in points.values()])
    distance = inclusions.distance(position)
    share = 0.5 + 0.5 * np.tanh(distance / DIFFUSE_A)  # of LSMO
    amounts = {("lsmo", s): np.where(species == s, share, 0.0) for s in "ABO"}
    if len(points["NiO"]):
        crowded = (species == "O") & (cKDTree(points["NiO"]).query(position)[0] < CLOSEST_A)
        amounts["lsmo", "O"] = np.where(crowded, 0.0, amounts["lsmo", "O"])
    amounts["nio", "NiO"] = np.where(species == "O", 0.0, 1 - share)
    amounts["lsmo", "B"] = amounts["lsmo", "B"] + np.where(species == "NiO", share, 0.0)  # Ni beside Mn
    angle = np.concatenate([np.zeros(len(position) - len(points["NiO"])), *turns])
    truth = {
        "species": species, "phase": np.where(species == "NiO", "NiO", "LSMO"),
        "environment": np.select([species == "A", species == "B"], [0, 1], 2), "side": np.zeros(len(position), int),
        "angle_rad": angle, "symmetry": np.full(len(position), 4), "interface_A": np.abs(distance),
    }  # fmt: skip

    def shares(positions_A):
        matrix = 0.5 + 0.5 * np.tanh(inclusions.distance(positions_A) / DIFFUSE_A)
        return {"lsmo": matrix, "nio": 1 - matrix}

    return Lattice(position, amounts, species != "O", truth, shares)


def sr3fe2o7(reach_A, field_A, rng):
    """Sr3Fe2O7 along [100], [001] up."""
    cell = np.array([SR3FE2O7_A, SR3FE2O7_C])
    count = np.ceil(reach_A / cell).astype(int) + 1
    i, j = (n.ravel() for n in np.meshgrid(np.arange(-count[0], count[0] + 1), np.arange(-count[1], count[1] + 1)))
    corner = np.stack([i, j], -1) * cell + rng.uniform(0, cell)
    # of `unitcell.twins.haadf.PHASES`: Sr middle, upper, lower, Fe upper, lower, five of O, twice (y points down)
    environment, group = np.tile([[0, 1, 2, 3, 4, *[-1] * 5], LAYER_KIND], 2)
    fractions = np.array(PHASES["sr3fe2o7"].sites)
    position = (corner[:, None] + fractions * cell).reshape(-1, 2)
    environment, group = np.tile(environment, len(corner)), np.tile(group, len(corner))
    near = (np.abs(position) < reach_A).all(axis=1)
    position, environment, group = position[near], environment[near], group[near]
    side = np.array([0, 1, -1, 1, -1, 0])[environment]
    truth = {
        "species": np.array(["Sr", "Sr", "Sr", "Fe", "Fe", "O"])[environment],
        "phase": np.full(len(position), "Sr3Fe2O7"),
        "environment": environment, "side": side,
        "angle_rad": np.where(side == 0, np.pi / 2, -side * np.pi / 2),
        "symmetry": np.where(side == 0, 2, 1), "interface_A": np.full(len(position), np.nan),
    }  # fmt: skip
    amounts = {("sr3fe2o7", kind): (group == kind).astype(float) for kind in range(max(LAYER_KIND) + 1)}
    return Lattice(position, amounts, environment >= 0, truth, lambda p: {"sr3fe2o7": np.ones(p.shape[:-1])})


def _composition(thickness_A, rng):
    """Relative height of mixed columns: their atoms are drawn at random, and scatter as Z^1.7."""
    atoms = np.maximum(np.round(thickness_A / LSMO_A), 1).astype(int)
    lanthanum = rng.binomial(atoms, LA_SHARE) / atoms
    la, sr = 57**Z_EXPONENT, 38**Z_EXPONENT
    return (lanthanum * la + (1 - lanthanum) * sr) / (LA_SHARE * la + (1 - LA_SHARE) * sr)


def _thickness_range():
    thickness = column_profiles("lsmo").thickness_A
    return float(thickness[0]), float(thickness[-1])


SPECIMENS = {
    "lsmo_nio": Kind(("A", "B", "NiO"), (200.0, 200.0), lsmo_nio),
    "sr3fe2o7": Kind(
        ("Sr, middle", "Sr, upper edge", "Sr, lower edge", "Fe, upper", "Fe, lower"), (100.0, 280.0), sr3fe2o7
    ),
}
