"""Windows to train on: the surrogate's images, seen as a microscope and a lattice registration would show them."""

import math
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F

from unitcell.errors import InputError
from unitcell.micrographs.image_formation import source_covariance, source_damping
from unitcell.networks.training_library import SimulatedCells

# A window is 2√2·a × 2a around a B column, at its middle pixel: 14 columns per B-B spacing a/√2, 20 rows per a.
WINDOW_SHAPE = (40, 56)
POOLED = 16  # batches that are made together
TOGETHER = 256  # windows distorted at once: what stays in a processor's cache


@dataclass(frozen=True)
class Conditions:
    """Ranges of everything that differs from image to image; each window draws its own.

    Parameters
    ----------
    tilt_deg : float
        Each of α, β, γ is uniform in ±tilt_deg [degrees], unless it is zero.
    untilted : float
        Probability that a tilt is zero, as in patterns such as a⁰a⁰c⁻: without it a window that says nothing about
        a tilt would be taken for a tilted one.
    thickness_A : (float, float), optional
        Of a surrogate's images, uniform [Å]; by default all that it knows.
    dose : (float, float)
        Electrons per Å², log-uniform.
    source_A : (float, float)
        Standard deviation of the effective source [Å] (geometric mean of its axes), uniform.
    ellipticity : float
        Largest ratio of the source's long to short axis, in any direction (astigmatism, drift, vibration).
    tail : float
        Largest weight of a displaced copy of the image, relative to the image itself.
    tail_A : float
        Standard deviation of that copy's displacement [Å]: the one-sided tail that residual coma and a small
        crystal tilt give every column.
    mistilt_shift_A : float
        Standard deviation of the shift of the A rows against the B rows [Å]: to first order this is what a
        small tilt of the crystal does, since heavy and light columns channel differently.
    magnification, shear : float
        Residual scale and shear of the registration, uniform in ±.
    rotation_deg : float
        Residual rotation [degrees], uniform in ±.
    offset_A : float
        Standard deviation of the window's centre [Å].
    crop_A : float
        Further shift of the centre, uniform in ± along x and y [Å]: random crops. Beyond half a column spacing, 1.4 Å,
        neighbours that tilt the other way are taken for one another.
    jitter_A : float
        Largest standard deviation of the displacement of scan lines [Å].
    """

    tilt_deg: float = 11.25
    untilted: float = 0.25
    thickness_A: tuple | None = None
    dose: tuple = (3e3, 1e6)
    source_A: tuple = (0.1, 0.55)
    ellipticity: float = 1.5
    tail: float = 0.3
    tail_A: float = 0.6
    mistilt_shift_A: float = 0.1
    magnification: float = 0.05
    shear: float = 0.03
    rotation_deg: float = 2.0
    offset_A: float = 0.1
    crop_A: float = 0.0
    jitter_A: float = 0.05

    def __post_init__(self):
        if not 0 < self.dose[0] <= self.dose[1]:
            raise InputError(f"dose = {self.dose} e/Å² is no range: give two positive numbers, the smaller first.")

    def eased(self, progress):
        """Conditions to train under after a share `progress` of all windows: bright and sharp at first.

        What noise and blur hide, a network cannot learn, and their windows would drown the others' gradients. From the
        start to four fifths of the way, the least dose falls from three fifths up its logarithmic range, and the
        largest source grows from three fifths.
        """
        ease = max(0.0, 1 - progress / 0.8)
        least, most = self.dose
        sharp, blurred = self.source_A
        dose = (least * (most / least) ** (0.6 * ease), most)
        return replace(self, dose=dose, source_A=(sharp, blurred - 0.4 * ease * (blurred - sharp)))

    def as_dict(self):
        """The ranges as JSON types, for the model card."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def draw_windows(source, count, conditions, generator):
    """Sample structures and thicknesses, and windows of their images.

    Parameters
    ----------
    source : unitcell.surrogates.surrogate.Surrogate or unitcell.networks.training_library.SimulatedCells
    count : int
    conditions : Conditions
        Its tilts are for a surrogate; simulated cells have theirs.
    generator : torch.Generator

    Returns
    -------
    windows : tensor (count, 40, 56), each with zero mean and unit variance
    projection : tensor (count, 3), (v, u, γ) of the central octahedron [degrees]
    thickness : tensor (count,) [Å]
    """
    cells, projection, thickness = _draw_cells(source, count, conditions, generator)
    return record(cells, source.settings["lattice_A"], conditions, generator), projection, thickness


def _draw_cells(source, count, conditions, generator):
    """Cells (count, rows, columns) with their projection and thickness (count,)."""
    if isinstance(source, SimulatedCells):
        return source.sample(count, generator)
    projection, thickness = _draw_states(source, count, conditions, generator)
    return source.images(projection, thickness), projection, thickness


def _draw_states(surrogate, count, conditions, generator):
    """(v, u, γ) (count, 3) and thicknesses (count,) for a surrogate."""
    uniform = _Uniform(generator, surrogate.mean)
    tilts = uniform(-conditions.tilt_deg, conditions.tilt_deg, (3, count))
    alpha, beta, gamma = torch.where(uniform(0, 1, (3, count)) < conditions.untilted, 0.0, tilts)
    projection = torch.stack([(alpha - beta) / math.sqrt(2), (alpha + beta) / math.sqrt(2), gamma], dim=1)
    known = surrogate.thicknesses
    low, high = conditions.thickness_A or (float(known.min()), float(known.max()))
    return projection, uniform(low, high, (count,))


def record(cells, lattice_A, conditions, generator, shape=WINDOW_SHAPE):
    """Turn images of one cell (count, rows, columns) into noisy, standardised windows (count, *shape)."""
    ideal = distorted(cells, lattice_A, conditions, generator, shape)
    return counted(ideal, lattice_A, conditions, generator)


def distorted(cells, lattice_A, conditions, generator, shape=WINDOW_SHAPE):
    """Images of one cell (count, rows, columns) as windows (count, *shape): blurred, distorted, without noise."""
    uniform = _Uniform(generator, cells)
    count = len(cells)
    tails = _tails(count, conditions, uniform) if conditions.tail else None
    fine = refine(cells, _sources(count, conditions, uniform), cell_extent_A(lattice_A), tails)
    position = _positions(count, lattice_A, conditions, uniform, shape)
    return sample_periodic(fine, position, cell_extent_A(lattice_A))


def counted(ideal, lattice_A, conditions, generator):
    """Windows as a detector counts them at a dose drawn for each, standardised: (count, rows, columns)."""
    low, high = (math.log(x) for x in conditions.dose)
    area = math.prod(_pixel_A((lattice_A, lattice_A), ideal.shape[1:]))
    electrons = torch.exp(_Uniform(generator, ideal)(low, high, (len(ideal), 1, 1))) * area
    # Poisson counts: above 50 electrons a pixel, a normal distribution of the same variance.
    noise = torch.randn(ideal.shape, generator=generator, device=ideal.device, dtype=ideal.dtype)
    return standardise(ideal + noise * torch.sqrt(ideal.clamp_min(0) / electrons))


class WindowPool:
    """Windows to train on, each distorted once and shown some times, at another dose and with other noise.

    To distort a cell costs ten times as much as to count its electrons. Windows for some steps are made together, from
    a seed of their own, so that a resumed training has the same.

    Parameters
    ----------
    source
        See `draw_windows`.
    batch : int
        Windows of a step.
    conditions : function of a step → Conditions
    seed : int
    shown : int
        How often each window is shown: once, or so many times on average.
    """

    def __init__(self, source, batch, conditions, seed, shown=1):
        self.source, self.batch, self.conditions, self.seed = source, batch, conditions, seed
        self.shown, self.span, self.size = shown, POOLED * shown, POOLED * batch
        self.made = None

    def draw(self, step, generator):
        """Windows (batch, 40, 56) of a step and their projection."""
        if self.made != step // self.span:
            self._make(step // self.span)
        chosen = torch.arange(self.batch) + step % self.span * self.batch
        if self.shown > 1:
            chosen = torch.randint(self.size, (self.batch,), generator=generator, device=self.ideal.device)
        lattice_A = self.source.settings["lattice_A"]
        return counted(self.ideal[chosen], lattice_A, self.conditions(step), generator), self.projection[chosen]

    def _make(self, number):
        """The pool for the steps of span `number`."""
        conditions, lattice_A = self.conditions(number * self.span), self.source.settings["lattice_A"]
        generator = torch.Generator(device=self.source.device)
        generator.manual_seed((self.seed + 1) * 10_000_019 + number)
        cells, self.projection, _ = _draw_cells(self.source, self.size, conditions, generator)
        parts = [distorted(part, lattice_A, conditions, generator) for part in cells.split(TOGETHER)]
        self.ideal, self.made = torch.cat(parts), number


def standardise(windows):
    """Each window with zero mean and unit variance: no gain and no offset is left."""
    centred = windows - windows.mean(dim=(-2, -1), keepdim=True)
    return centred / centred.pow(2).mean(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-12)


def refine(cells, source_A2, extent_A, tail=None):
    """Blur with a Gaussian source (and a tail) and sample twice as finely, exactly, in Fourier space.

    Parameters
    ----------
    cells : tensor (count, rows, columns)
        Periodic images.
    source_A2 : tensor (count, 3)
        Covariance of the source (xx, xy, yy) [Å²].
    extent_A : (float, float)
        Height and width of the images [Å], see `cell_extent_A`.
    tail : tensor (count, 3), optional
        Weight, and displacement along x and y [Å], of a displaced copy.

    Returns
    -------
    tensor (count, 2 · rows, 2 · columns)
    """
    rows, columns = cells.shape[1:]
    height, width = extent_A
    qy = torch.fft.fftfreq(rows, height / rows, device=cells.device, dtype=cells.dtype)
    qx = torch.fft.rfftfreq(columns, width / columns, device=cells.device, dtype=cells.dtype)
    qy, qx = torch.meshgrid(qy, qx, indexing="ij")
    spectrum = torch.fft.rfft2(cells) * source_damping(qx, qy, source_A2)
    if tail is not None:
        weight, dx, dy = tail[:, :, None, None].unbind(1)
        spectrum = spectrum * (1 + weight * torch.exp(-2j * math.pi * (qx * dx + qy * dy))) / (1 + weight)
    half = rows // 2
    wide = torch.zeros((len(cells), 2 * rows, columns + 1), dtype=spectrum.dtype, device=cells.device)
    wide[:, :half, : columns // 2] = spectrum[:, :half, :-1]
    wide[:, -half + 1 :, : columns // 2] = spectrum[:, half + 1 :, :-1]
    return torch.fft.irfft2(wide, s=(2 * rows, 2 * columns)) * 4


def cell_extent_A(lattice_A):
    """Height 2a and width √2·a of the images of one cell [Å]."""
    return 2 * lattice_A, math.sqrt(2) * lattice_A


def pixel_positions(pitches_A, shape=WINDOW_SHAPE, dtype=torch.float32, device="cpu"):
    """Positions (x, y) [Å] of a window's pixels from its middle: tensor (rows, columns, 2).

    `pitches_A` are the lattice parameters along x and y: the window is 2√2 of the first wide, twice the second high.
    """
    y, x = (
        (torch.arange(n, dtype=dtype, device=device) - n // 2) * pitch
        for n, pitch in zip(shape, _pixel_A(pitches_A, shape), strict=True)
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def sample_periodic(images, position_A, period_A):
    """Bilinear samples of periodic images.

    Parameters
    ----------
    images : tensor (count, rows, columns)
    position_A : tensor (count, h, w, 2)
        Where to sample, (x, y) [Å] from the first pixel.
    period_A : (float, float)
        Period along y and x [Å].

    Returns
    -------
    tensor (count, h, w)
    """
    period = torch.tensor([period_A[1], period_A[0]], device=images.device, dtype=images.dtype)
    fraction = torch.remainder(position_A / period, 1.0)
    padded = F.pad(images[:, None], (0, 1, 0, 1), mode="circular")
    return F.grid_sample(padded, 2 * fraction - 1, mode="bilinear", align_corners=True)[:, 0]


def _sources(count, conditions, uniform):
    """Covariances (xx, xy, yy) [Å²] of elliptical Gaussian sources: (count, 3)."""
    size = uniform(*conditions.source_A, (count,))
    ratio = uniform(1.0, conditions.ellipticity, (count,))
    angle = uniform(0.0, math.pi, (count,))
    return source_covariance(size, ratio, angle)


def _tails(count, conditions, uniform):
    """Weight and displacement (x, y) [Å] of the displaced copies: (count, 3)."""
    return torch.cat([uniform(0, conditions.tail, (count, 1)), uniform.normal((count, 2)) * conditions.tail_A], dim=1)


def _pixel_A(pitches_A, shape):
    """Distance of the pixels along y and x [Å], see `pixel_positions`."""
    return 2 * pitches_A[1] / shape[0], 2 * math.sqrt(2) * pitches_A[0] / shape[1]


def _positions(count, lattice_A, conditions, uniform, shape):
    """Positions (x, y) [Å] of the window's pixels in the crystal, after affine errors and scan jitter."""
    flat = pixel_positions((lattice_A, lattice_A), shape, uniform.dtype, uniform.device)
    angle = uniform(-1, 1, (count,)) * math.radians(conditions.rotation_deg)
    scale = 1 + uniform(-1, 1, (count,)) * conditions.magnification
    shear = uniform(-1, 1, (count,)) * conditions.shear
    turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).reshape(-1, 2, 2)
    skew = torch.eye(2, dtype=uniform.dtype, device=uniform.device).repeat(count, 1, 1)
    skew[:, 0, 1] = shear
    moved = torch.einsum("nij,hwj->nhwi", scale[:, None, None] * (turn @ skew), flat)
    offset = uniform.normal((count, 1, 1, 2)) * conditions.offset_A
    if conditions.crop_A:
        offset = offset + uniform(-1, 1, (count, 1, 1, 2)) * conditions.crop_A
    # 1 on the rows of A columns (y = a/2), 0 on those of B columns (y = 0).
    on_a_rows = (1 - torch.cos(2 * math.pi * flat[..., 1:] / lattice_A)) / 2
    mistilt = uniform.normal((count, 1, 1, 2)) * conditions.mistilt_shift_A * on_a_rows
    return moved + offset + mistilt + _jitter(count, conditions, uniform, shape)


def _jitter(count, conditions, uniform, shape):
    """Displacement of scan lines, along rows or columns of the window: (count, rows, columns, 2) by broadcasting."""
    strength = uniform(0, conditions.jitter_A, (count, 1, 1, 1))
    by_row = uniform.normal((count, shape[0], 1, 2))
    by_column = uniform.normal((count, 1, shape[1], 2))
    rows_scanned = uniform(0, 1, (count, 1, 1, 1)) < 0.5
    return strength * torch.where(rows_scanned, by_row, by_column)


class _Uniform:
    """Random numbers with the device and dtype of a tensor."""

    def __init__(self, generator, like):
        self.generator, self.device, self.dtype = generator, like.device, like.dtype

    def __call__(self, low, high, shape):
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device, dtype=self.dtype)

    def normal(self, shape):
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=self.dtype)
