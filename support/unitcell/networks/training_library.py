"""Cells to train the tilt network on, simulated directly: each with its own crystal, specimen tilt and lens.

Tilts of the crystal and aberrations change images in ways that no filter of a perfect image imitates, and they are
too many for a grid. But one structure costs a tenth of a second for all its thicknesses, so each training cell draws
its own. Cells are registered as `registration.lattice` registers an image: their B columns stand at the lattice points.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from unitcell.abf.simulation import CELL_SHAPE
from unitcell.campaign import run_structures
from unitcell.crystals import beam_periods, tilted_perovskite
from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.errors import InputError
from unitcell.scattering import Microscope, thermal_images
from unitcell.scattering.beams import fibonacci_points
from unitcell.scattering.debye_waller import b_factors

MATERIALS = (
    ("Sr", "Ti", 3.905), ("Ca", "Ti", 3.82), ("La", "Al", 3.79), ("La", "Mn", 3.93), ("Eu", "Mn", 3.85),
    ("La", "Fe", 3.93), ("Bi", "Fe", 3.96), ("Sr", "Ru", 3.93),
)  # fmt: skip
# Of these, strangers take any A with any B: what stands on the sites must not be taken for a tilt.
STRANGE_A = ("Ca", "Sr", "Ba", "La", "Nd", "Eu", "Pb", "Bi")
STRANGE_B = ("Al", "Ti", "Cr", "Mn", "Fe", "Ni", "Zr", "Nb", "Ru", "Ta")
STRANGE_LATTICE_A = (3.75, 4.05)
UNIFORM = ("---", "--+")
ALTERNATING = ("+--", "-+-", "++-", "+-+", "-++", "+++")
STEP = 1 / 65535
BLUR_PX = 1.8  # about the source, as registration sees columns
PATCH = 4  # pixels on each side of a B column
STEPS = 15  # of its centre of darkness towards the middle of that patch
FARTHEST_PX = 3.0  # 0.6 Å: what is darker farther away is an oxygen beside a light B column


@dataclass(frozen=True)
class Specimens:
    """Ranges from which each structure draws its crystal and its microscope's imperfections.

    Parameters
    ----------
    materials : tuple of (A, B, lattice parameter [Å])
        The first is drawn four times out of ten.
    alternating : float
        Probability of a pattern with '+' about a or b, whose tilts alternate along the beam.
    tilt_deg, untilted, equal : float
        Each of α, β, γ is uniform in ±tilt_deg [degrees], and zero with the probability `untilted`; β is ±α with the
        probability `equal`, as in most perovskites.
    a_shift : (float, float)
        Largest displacements of A, antipolar and alternating, where the pattern has one '+' and all angles tilt
        [lattice parameters].
    strain : float
        Largest strain along each of the image's axes and the beam: films are strained, few perovskites are cubic.
    crystal_tilt_mrad : float
        Largest tilt of the zone axis, its size and direction uniform [mrad]. (Uniform in a disc, upright crystals
        would be rare, and read as if they leant.)
    defocus_A, astigmatism_A, coma_A, spherical_A : float
        Standard deviations of the aberrations [Å].
    returned : (float, float)
        Range of the share of thermally scattered electrons that reach the detector, see `thermal_images`.
    strange : float
        Probability of a stranger: a crystal of random cations and lattice parameter, whose vibrations and whose
        microscope's apertures are not those that are stated.
    apertures, vibrations : float
        Of strangers, largest relative error of semi-angle and detector angles, and largest factor on the Debye–Waller
        factors (or its inverse).
    thickness_A : (float, float)
        Range of thickness [Å].
    depths : int
        Thicknesses of each structure, evenly spread from a random start.
    """

    materials: tuple = MATERIALS
    alternating: float = 0.25
    tilt_deg: float = 12.5
    untilted: float = 0.2
    equal: float = 0.3
    a_shift: tuple = (0.11, 0.025)
    strain: float = 0.03
    crystal_tilt_mrad: float = 5.0
    defocus_A: float = 12.0
    astigmatism_A: float = 6.0
    coma_A: float = 120.0
    spherical_A: float = 4e3
    returned: tuple = (0.08, 0.28)
    strange: float = 0.0
    apertures: float = 0.08
    vibrations: float = 1.5
    thickness_A: tuple = (20.0, 420.0)
    depths: int = 12

    def draw(self, count, seed):
        """`count` specimens: list of dict.

        With material, signs, tilts [degrees], a_shift, strain, microscope, k_shift, depths [Å], returned, apertures
        (factors on semi-angle, inner and outer angle) and vibration (a factor).
        """
        generator, apart = np.random.default_rng(seed), np.random.default_rng((seed, 1))
        return [self._draw_rest(self._draw_one(generator), apart) for _ in range(count)]

    def _draw_rest(self, specimen, generator):
        """The specimen with what has a generator of its own: whoever switches it off draws the same crystals."""
        antipolar, _ = specimen["a_shift"]
        found = specimen | {
            "returned": float(generator.uniform(*self.returned)), "strain": self.strain * generator.uniform(-1, 1, 3),
            "a_shift": (antipolar, generator.uniform(0, self.a_shift[1]) * (antipolar > 0)),
            "apertures": (1.0, 1.0, 1.0), "vibration": 1.0,
        }  # fmt: skip
        if not (self.strange and generator.random() < self.strange):
            return found
        a_site, b_site = str(generator.choice(STRANGE_A)), str(generator.choice(STRANGE_B))
        return found | {
            "material": (a_site, b_site, generator.uniform(*STRANGE_LATTICE_A)),
            "apertures": tuple(1 + self.apertures * generator.uniform(-1, 1, 3)),
            "vibration": self.vibrations ** generator.uniform(-1, 1),
        }

    def _draw_one(self, generator):
        first = generator.random() < 0.4 or len(self.materials) == 1
        material = self.materials[0 if first else generator.integers(1, len(self.materials))]
        signs = str(generator.choice(ALTERNATING if generator.random() < self.alternating else UNIFORM))
        tilts = generator.uniform(-self.tilt_deg, self.tilt_deg, 3)
        if generator.random() < self.equal:
            tilts[1] = tilts[0] * generator.choice((-1, 1))
        tilts = tilts * (generator.random(3) >= self.untilted)
        shifted = signs.count("+") == 1 and tilts.all() and generator.random() < 0.7
        size, angle = self.crystal_tilt_mrad * generator.random(), generator.uniform(0, 2 * np.pi)
        lens = {
            "defocus_A": self.defocus_A * generator.normal(),
            "astigmatism_A": self.astigmatism_A * abs(generator.normal()),
            "astigmatism_deg": generator.uniform(0, 180),
            "coma_A": self.coma_A * abs(generator.normal()),
            "coma_deg": generator.uniform(0, 360),
            "spherical_A": self.spherical_A * generator.normal(),
            "crystal_tilt_x_mrad": size * np.cos(angle),
            "crystal_tilt_y_mrad": size * np.sin(angle),
        }
        low, high = self.thickness_A
        step = (high - low) / self.depths
        return {
            "material": material, "signs": signs, "tilts": tilts,
            "a_shift": (generator.uniform(0, self.a_shift[0]), 0.0) if shifted else (0.0, 0.0),
            "microscope": lens, "k_shift": generator.random(2),
            "depths": low + step * (np.arange(self.depths) + generator.random()),
        }  # fmt: skip

    def as_dict(self):
        """The ranges as JSON types."""
        return {key: _listed(value) for key, value in asdict(self).items()}


class SimulatedCells:
    """Registered cells with what they show; `sample` draws some, in any of their four equal orientations.

    Parameters
    ----------
    images : ndarray of uint16 (n, T, rows, columns)
        In steps of `STEP`.
    projection : ndarray (n, 4), from `seen_tilts` [degrees]
    depths : ndarray (n, T) [Å]
    settings : dict
        Attributes for the network's card.
    """

    def __init__(self, images, projection, depths, settings):
        self.images = torch.from_numpy(np.ascontiguousarray(images).view(np.int16))
        self.projection, self.depths = torch.as_tensor(projection).float(), torch.as_tensor(depths).float()
        self.settings, self.device = settings, torch.device("cpu")

    def __len__(self):
        return self.images.shape[0] * self.images.shape[1]

    def __add__(self, other):
        """Both as one; the settings are those of the first."""
        merged = SimulatedCells.__new__(SimulatedCells)
        for name in ("images", "projection", "depths"):
            setattr(merged, name, torch.cat([getattr(self, name), getattr(other, name)]))
        merged.settings, merged.device = self.settings, self.device
        return merged

    def sample(self, count, generator):
        """Cells (count, rows, columns), their (v, u, γ, alternation) (count, 4) and thickness (count,)."""
        member = torch.randint(len(self.images), (count,), generator=generator)
        depth = torch.randint(self.images.shape[1], (count,), generator=generator)
        cells = self.images[member, depth].to(torch.int32).bitwise_and(0xFFFF).float() * STEP
        flips = torch.rand((count, 3), generator=generator) < 0.5
        cells, projection = turned(cells, self.projection[member], flips)
        return cells, projection, self.depths[member, depth]


def turned(cells, projection, flips):
    """Equal views of cells: mirrored in x, mirrored in y, shifted by one column, where `flips` (count, 3) says so.

    The mirror normal to image x turns (v, u, γ) into (−v, u, −γ), the one normal to y into (−v, −u, γ), and the
    neighbouring column is tilted the other way altogether. The B column stays at the first pixel.
    """
    signs = torch.ones_like(projection)  # of v, u, γ, and of what has none
    for flip, change, view in (
        (flips[:, 0], (-1, 1, -1), lambda c: c.flip(-1).roll(1, -1)),
        (flips[:, 1], (-1, -1, 1), lambda c: c.flip(-2).roll(1, -2)),
        (flips[:, 2], (-1, -1, -1), lambda c: c.roll(CELL_SHAPE[1] // 2, -1)),
    ):
        cells = torch.where(flip[:, None, None], view(cells), cells)
        signs = torch.where(flip[:, None], signs * torch.tensor((*change, 1)[: signs.shape[1]]), signs)
    return cells, projection * signs


def seen_tilts(tilts, signs):
    """(v, u, γ, alternation) [degrees] that the image of a crystal shows.

    Where '+' acts about a or b, that tilt alternates along the beam: the image shows the mean of both, without it, and
    `alternation` is its size, √(α² + β²) over such axes.
    """
    alternating = np.array([sign == "+" for sign in signs[:2]] + [False])
    kept = np.where(alternating, 0.0, tilts)
    return np.array([*to_projection(*kept), np.linalg.norm(np.where(alternating, tilts, 0.0))])


def simulate_cells(count, microscope, specimens=None, *, seed=0, chunk=16, scheduler=None, folder=None, progress=True):
    """Simulate and register `count` structures.

    Parameters
    ----------
    count : int
        Rounded up to a multiple of `chunk`.
    microscope : unitcell.scattering.Microscope
        Energy, apertures; its lens and tilts are replaced by drawn ones.
    specimens : Specimens, optional
    seed, chunk : int
        Structures of a chunk are made, kept and resumed together.
    scheduler, folder, progress
        See `unitcell.campaign.run_structures`.

    Returns
    -------
    SimulatedCells
    """
    specimens = specimens or Specimens()
    if count < 1:
        raise InputError(f"{count} training structures cannot be: give at least one.")
    kept = {"microscope": microscope.as_attributes(), "specimens": specimens.as_dict()}
    tasks = [(seed * 1_000_000 + number, chunk, kept) for number in range(-(-count // chunk))]
    images = np.concatenate(run_structures(simulate_chunk, tasks, scheduler, folder, progress))
    drawn = [specimen for task in tasks for specimen in specimens.draw(chunk, task[0])]
    projection = np.array([seen_tilts(specimen["tilts"], specimen["signs"]) for specimen in drawn])
    (a_site, b_site, lattice_A), *_ = specimens.materials
    settings = microscope.as_attributes() | {"a_site": a_site, "b_site": b_site, "lattice_A": lattice_A, "signs": "---"}
    settings["specimens"] = specimens.as_dict()
    return SimulatedCells(images, projection, np.array([specimen["depths"] for specimen in drawn]), settings)


def simulate_chunk(seed, count, settings):
    """Registered images of `count` specimens: uint16 (count, T, rows, columns), in steps of `STEP`."""
    specimens = Specimens(**{key: _tupled(value) for key, value in settings["specimens"].items()})
    images = [specimen_images(specimen, settings["microscope"]) for specimen in specimens.draw(count, seed)]
    return np.round(np.clip(images, 0, 1) / STEP).astype(np.uint16)


def specimen_crystal(specimen):
    """The crystal of one of `Specimens.draw`'s dictionaries: ase.Atoms, see `unitcell.crystals.tilted_perovskite`."""
    a_site, b_site, lattice_A = specimen["material"]
    lengths_A = tuple(lattice_A * (1 + np.asarray(specimen["strain"])))
    shift = tuple(specimen["a_shift"])
    return tilted_perovskite(*specimen["tilts"], specimen["signs"], a_site, b_site, lengths_A, a_shift=shift)


def specimen_images(specimen, microscope):
    """Registered images of one specimen at its depths, float (T, rows, columns)."""
    angles = ("semiangle_mrad", "inner_mrad", "outer_mrad")
    apertures = {name: microscope[name] * by for name, by in zip(angles, specimen["apertures"], strict=True)}
    scope = Microscope(**microscope | apertures | specimen["microscope"])
    wide = beam_periods(specimen["signs"])  # its projection repeats twice in such a cell
    options = {"cutoff_mrad": max(50.0, 1.2 * scope.outer_mrad), "excitation_per_A": 0.0}
    options |= {"returned": specimen["returned"]}
    factors = b_factors((*specimen["material"][:2], "O"))
    options["debye_waller_A2"] = {symbol: factor * specimen["vibration"] for symbol, factor in factors.items()}
    # Few k-points err by some 3 %; shifted at random they err otherwise in each specimen, and no error is learnt.
    points = fibonacci_points(3 if wide > 1 else 5) + np.array(specimen["k_shift"])
    options |= {"k_points": (points + 0.5) % 1 - 0.5}
    shape = CELL_SHAPE[0], wide * CELL_SHAPE[1]
    return registered(
        thermal_images(specimen_crystal(specimen), scope, specimen["depths"], shape, **options)[..., : CELL_SHAPE[1]]
    ).numpy()


def registered(cells):
    """Cells (count, rows, columns) shifted so that their B columns, the dark spots there, stand at lattice points.

    A light B column beside darker oxygens is not found; such a cell stays between its A columns, where it is.
    """
    rows, columns = cells.shape[1:]
    qy, qx = torch.fft.fftfreq(rows)[:, None], torch.fft.fftfreq(columns)
    spectrum = torch.fft.fft2(cells)
    even = torch.zeros(rows, columns)
    even[::2, ::2] = 1  # what all four B columns of the cell have in common
    folded = spectrum * even * torch.exp(-2 * (np.pi * BLUR_PX) ** 2 * (qx**2 + qy**2))
    shift = torch.zeros(len(cells), 2)
    y, x = torch.meshgrid(*(torch.arange(-PATCH, PATCH + 1.0),) * 2, indexing="ij")
    for _ in range(STEPS):
        phase = torch.exp(2j * np.pi * (qy * shift[:, 0, None, None] + qx * shift[:, 1, None, None]))
        patch = torch.fft.ifft2(folded * phase).real[:, y.long() % rows, x.long() % columns]
        dark = (patch.amax((1, 2), keepdim=True) - patch) ** 2
        total = dark.sum((1, 2)).clamp_min(1e-12)
        shift = shift + torch.stack([(dark * y).sum((1, 2)) / total, (dark * x).sum((1, 2)) / total], dim=1)
    shift = torch.where(shift.norm(dim=1, keepdim=True) > FARTHEST_PX, 0.0, shift)
    phase = torch.exp(2j * np.pi * (qy * shift[:, 0, None, None] + qx * shift[:, 1, None, None]))
    return torch.fft.ifft2(spectrum * phase).real


def _listed(value):
    return [_listed(each) for each in value] if isinstance(value, (tuple, list)) else value


def _tupled(value):
    return tuple(_tupled(each) for each in value) if isinstance(value, (tuple, list)) else value
