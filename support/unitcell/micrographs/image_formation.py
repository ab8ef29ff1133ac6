"""What a microscope records of a simulated image: source, scan distortion, sampling, electrons, detector.

A simulated image I(x, y) [fraction of the incident electrons] is a trigonometric series, periodic with its
cell (or with its mirror images, where it has no period). The source damps the coefficients F,

    F'_hk = F_hk exp(−2π² q·C·q),   q = (h / Lx, k / Ly),                                       (1)

with C the covariance of the Gaussian source. The pixel at p from the centre of the frame shows the point r
of the specimen that the beam stands on when that pixel is read,

    r = centre + A⁻¹ (p − d),   d = drift + line jitter − fly-back,                             (2)

so a column at r appears at p = A (r − centre) + d. There the series is summed, once and exactly,

    I(r) = Re Σ_hk F'_hk exp(2πi (h x / Lx + k y / Ly)).                                        (3)

With N electrons per pixel, n ~ Poisson(N (I + background)) are detected and the recorded value is

    offset + gain · n / N + readout noise                                                       (4)

(Sang and LeBeau, Ultramicroscopy 138 (2014) 28; Kirkland, Advanced Computing in Electron Microscopy, chapter 3).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from unitcell.errors import InputError

FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a Gaussian, in standard deviations
BLOCK = 2**20  # complex numbers held at once while a series is summed
POSITIVE = ("pixel_size_A", "dose_e_per_A2", "dose_e_per_px", "flyback_px", "gain")
NOT_NEGATIVE = ("source_fwhm_A", "jitter_A", "background", "readout_noise")


@dataclass(frozen=True)
class Recording:
    """Conditions under which an image is recorded; the defaults are an ideal microscope.

    x points right and y down; displacements say where the specimen's image moves to.

    Parameters
    ----------
    pixel_size_A : float
        Edge of a square pixel [Å]; the field of view is shape · pixel_size_A.
    centre_A : (float, float), optional
        Point of the specimen (x, y) [Å] at the centre of the frame; None: the middle of the simulated image.
    source_fwhm_A : float
        Full width at half maximum of the source image [Å] (geometric mean of its axes); 0 if simulated already.
    source_ellipticity, source_angle_deg : float
        Its long axis over its short one, and the direction of the long one in the specimen, x towards y [degrees].
    dose_e_per_A2, dose_e_per_px : float, optional
        Incident electrons per Å² or per pixel: one of them, or neither for an image without counting noise.
    affine : 2 × 2 matrix
        A column at (x, y) from the centre appears at affine @ (x, y): rotation, shear, stretch.
    magnification_error : float
        The image is larger by 1 + this than pixel_size_A says.
    drift_A : (float, float)
        Displacement (x, y) from the start to the end of the frame [Å], steady, and zero half-way.
    jitter_A : float
        Root-mean-square displacement of each scan line [Å], along x and along y alike.
    flyback_A, flyback_px : float
        The beam starts each line this far [Å] to the right of its place and settles with this 1/e length [px].
    background : float
        Uniform intensity added before counting [fraction of the incident electrons].
    gain, offset, readout_noise : float
        Recorded value per fraction of the incident electrons, that of none, and standard deviation of the
        detector's additive noise [recorded values].

    Raises
    ------
    InputError
        A value that cannot be.
    """

    pixel_size_A: float = 0.1
    centre_A: tuple | None = None
    source_fwhm_A: float = 0.0
    source_ellipticity: float = 1.0
    source_angle_deg: float = 0.0
    dose_e_per_A2: float | None = None
    dose_e_per_px: float | None = None
    affine: tuple = ((1.0, 0.0), (0.0, 1.0))
    magnification_error: float = 0.0
    drift_A: tuple = (0.0, 0.0)
    jitter_A: float = 0.0
    flyback_A: float = 0.0
    flyback_px: float = 20.0
    background: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    readout_noise: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None:
                shape = {"affine": (2, 2), "drift_A": (2,), "centre_A": (2,)}.get(name, ())
                object.__setattr__(self, name, _finite(name, value, shape))
        bounds = [(name, 0, False) for name in POSITIVE] + [(name, 0, True) for name in NOT_NEGATIVE]
        for name, low, included in (*bounds, ("source_ellipticity", 1, True), ("magnification_error", -1, False)):
            value = getattr(self, name)
            if value is not None and not (value > low or (included and value == low)):
                bound = f"{low} or more" if included else f"more than {low}"
                raise InputError(f"{name} = {value:g} cannot be: give {bound}.")
        if None not in (self.dose_e_per_A2, self.dose_e_per_px):
            raise InputError("dose_e_per_A2 and dose_e_per_px are both given: give the dose once.")
        if abs(np.linalg.det(self.affine)) < 1e-6:
            raise InputError(f"affine = {self.affine} flattens the image: give a matrix that can be inverted.")

    @property
    def electrons_px(self):
        """Incident electrons per pixel, or None without counting noise."""
        return self.dose_e_per_px if self.dose_e_per_A2 is None else self.dose_e_per_A2 * self.pixel_size_A**2


@dataclass(frozen=True)
class Recorded:
    """A recorded image (..., rows, columns) and the point (x, y) of the specimen [Å] that each pixel shows,
    (..., rows, columns, 2), counted from the simulated image's first pixel.
    """

    image: torch.Tensor
    positions: torch.Tensor
    recording: Recording

    def pixels_of(self, points_A):
        """Where points (n, 2) of the specimen appear: tensor (..., n, 2), equation (2) solved for p.

        Points are (x, y) [Å] from the simulated image's first pixel, and no copies by the cell's period are added;
        the result is (x, y) [px] from the centre of the recorded one's, with the jitter of the nearest line.
        """
        rows, columns = self.positions.shape[-3:-1]
        points = torch.as_tensor(points_A).to(self.positions)
        to_pixels = _affine(self.recording, self.positions).T / self.recording.pixel_size_A
        flat = self.positions.flatten(-3, -2)
        last = flat.new_tensor([columns - 1, rows - 1])
        pixels = (last / 2).expand(*flat.shape[:-2], *points.shape)
        for _ in range(6):  # each step takes the distortion of the pixel found before
            near = torch.minimum(pixels.round().clamp(min=0), last)
            index = near[..., 1].long() * columns + near[..., 0].long()  # beyond 2²⁴, floats skip whole numbers
            shown = torch.gather(flat, -2, index[..., None].expand(*index.shape, 2))
            pixels = near + (points - shown) @ to_pixels
        return pixels


def record_image(cell, spacing_A, recording, shape, seed=0, *, periodic=True, device=None, dtype=torch.float32):
    """Record a simulated image: equations (1) to (4), differentiable in `cell` where no electrons are counted.

    Parameters
    ----------
    cell : tensor or ndarray, shape (rows, columns) or (B, rows, columns)
        Simulated image, fraction of the incident electrons.
    spacing_A : (float, float)
        Distance of its pixels along x and along y [Å].
    recording : Recording
    shape : (int, int)
        Rows and columns of the recorded image.
    seed : int or sequence of B int
        One int gives each image of a batch noise of its own; an image recorded alone with its member of a
        sequence gets the noise that it has in the batch. Noise differs between kinds of device and dtypes.
    periodic : bool
        Whether the simulated image repeats over its cell; otherwise the field of view must lie within it.
    device, dtype : torch device (None: that of `cell`) and real dtype

    Returns
    -------
    Recorded
        With `image` (rows, columns) or (B, rows, columns), and `positions`.

    Raises
    ------
    InputError
        No image, spacing, shape or seed; a field of view beyond an image without period; intensities to be
        counted that are no fractions.
    """
    cells, spacing = _checked(cell, spacing_A, shape, recording, device, dtype)
    generators = _generators(seed, cells)
    positions = _positions(cells, spacing, recording, shape, generators)
    period = cells.shape[-1] * spacing[0], cells.shape[-2] * spacing[1]
    if not periodic:
        _require_inside(positions, spacing, period)
        cells = torch.cat([cells, cells.flip(-1)], -1)
        cells = torch.cat([cells, cells.flip(-2)], -2)
        period = 2 * period[0], 2 * period[1]
    ideal = sample_series(_damped(fourier_series(cells), period, recording), period, positions)
    image = _detect(ideal, recording, generators)
    both = image, positions.expand(len(image), *positions.shape[1:])
    return Recorded(*((part[0] for part in both) if np.ndim(cell) == 2 else both), recording)


def source_covariance(sigma_A, ratio, angle_rad):
    """Covariance (xx, xy, yy) [Å²], tensor (n, 3), of elliptical Gaussian sources, from tensors (n,).

    sigma_A is the geometric mean of the standard deviations along the axes [Å], ratio that of the long to the
    short one, angle_rad the direction of the long one from x towards y.
    """
    long, short = sigma_A**2 * ratio, sigma_A**2 / ratio
    mean, half = (long + short) / 2, (long - short) / 2
    along, across = half * torch.cos(2 * angle_rad), half * torch.sin(2 * angle_rad)
    return torch.stack([mean + along, across, mean - along], dim=1)


def source_damping(qx, qy, covariance_A2):
    """Damping of equation (1) at frequencies (rows, columns) [1/Å] by sources (n, 3): tensor (n, rows, columns)."""
    xx, xy, yy = covariance_A2[:, :, None, None].unbind(1)
    return torch.exp(-2 * math.pi**2 * (xx * qx**2 + 2 * xy * qx * qy + yy * qy**2))


def fourier_series(images):
    """Coefficients F of equation (3) for B images of one period: complex tensor (B, K, H).

    k runs from −(K−1)/2 to (K−1)/2 and h from 0 to H−1; the series passes through every pixel. Orders beyond
    the last that is more than rounding are left out.
    """
    rows, columns = images.shape[-2:]
    series = torch.fft.fftshift(torch.fft.rfft2(images, norm="forward"), dim=-2)
    both = torch.full((series.shape[-1],), 2.0, dtype=images.dtype, device=images.device)  # h and −h together
    both[[0, -1] if columns % 2 == 0 else [0]] = 1
    series = series * both
    if rows % 2 == 0:  # the Nyquist order belongs half to k, half to −k
        series = torch.cat([series[..., :1, :] / 2, series[..., 1:, :], series[..., :1, :] / 2], -2)
    size = series.detach().abs().amax(0)
    row, column = torch.nonzero(size >= torch.finfo(images.dtype).eps * size.max(), as_tuple=True)
    middle = rows // 2
    reach = int((row - middle).abs().max())
    return series[..., middle - reach : middle + reach + 1, : int(column.max()) + 1]


def sample_series(series, period_A, positions):
    """Equation (3) at positions (B or 1, rows, columns, 2) [Å], for a period (x, y) [Å]: tensor (B, rows, columns).

    It costs positions × coefficients; bilinear interpolation of a finely sampled image, as in
    `unitcell.networks.training_windows.sample_periodic`, is faster.
    """
    k, h = _orders(series)
    fraction = torch.remainder(positions / positions.new_tensor(period_A), 1.0).flatten(1, 2)  # (B, P, 2)
    sums = []
    for part in fraction.split(max(1, BLOCK // (len(series) * len(k))), dim=1):
        turns = part[..., :1] * h, part[..., 1:] * k  # (B, p, H), (B, p, K)
        along_x, along_y = (torch.polar(torch.ones_like(t), 2 * math.pi * t) for t in turns)
        sums.append(torch.einsum("bpk,bpk->bp", along_x @ series.transpose(1, 2), along_y).real)
    return torch.cat(sums, 1).unflatten(1, positions.shape[1:3])


def _orders(series):
    """Orders k and h of a series' coefficients."""
    _, rows, columns = series.shape
    like = {"device": series.device, "dtype": series.real.dtype}
    return torch.arange(rows, **like) - rows // 2, torch.arange(columns, **like)


def _damped(series, period_A, recording):
    """Equation (1)."""
    k, h = _orders(series)
    qy, qx = torch.meshgrid(k / period_A[1], h / period_A[0], indexing="ij")
    source = recording.source_fwhm_A / FWHM, recording.source_ellipticity, math.radians(recording.source_angle_deg)
    return series * source_damping(qx, qy, source_covariance(*qx.new_tensor(source)[:, None]))


def _positions(cells, spacing_A, recording, shape, generators):
    """Equation (2): (B, rows, columns, 2) [Å], or (1, rows, columns, 2) where no jitter tells images apart."""
    rows, columns = (torch.arange(n, device=cells.device, dtype=cells.dtype) for n in shape)
    frame = torch.stack(torch.meshgrid(columns - columns[-1] / 2, rows - rows[-1] / 2, indexing="xy"), -1)
    time = (rows[:, None] * len(columns) + columns + 0.5) / (len(rows) * len(columns)) - 0.5
    moved = time[None, :, :, None] * cells.new_tensor(recording.drift_A)
    lag = recording.flyback_A * torch.exp(-columns / recording.flyback_px)
    moved = moved - torch.stack([lag, torch.zeros_like(lag)], -1)
    if recording.jitter_A > 0:
        moved = moved + recording.jitter_A * _normal(cells.new_empty(len(cells), len(rows), 1, 2), generators)
    middle = [(n - 1) * step / 2 for n, step in zip(cells.shape[:0:-1], spacing_A, strict=True)]
    centre = cells.new_tensor(middle if recording.centre_A is None else recording.centre_A)
    return centre + (frame * recording.pixel_size_A - moved) @ torch.linalg.inv(_affine(recording, cells)).T


def _affine(recording, like):
    """A of equation (2), magnification error included."""
    return (1 + recording.magnification_error) * like.new_tensor(recording.affine)


def _detect(image, recording, generators):
    """Equation (4)."""
    image = image + recording.background
    if recording.electrons_px is not None:
        expected = recording.electrons_px * image.clamp_min(0)
        counts = [torch.poisson(mean, generator=g) for mean, g in zip(expected, generators, strict=True)]
        image = torch.stack(counts) / recording.electrons_px
    image = recording.offset + recording.gain * image
    return image + recording.readout_noise * _normal(image, generators) if recording.readout_noise > 0 else image


def _normal(like, generators):
    """Standard normal numbers (B, ...), each image's from its own generator."""
    one = {"dtype": like.dtype, "device": like.device}
    return torch.stack([torch.randn(like.shape[1:], generator=g, **one) for g in generators])


def _generators(seed, cells):
    """One generator for each image; seeds are hashed, so that neighbouring ones share no noise."""
    try:
        seeds = [np.random.SeedSequence(int(s)) for s in (seed if np.ndim(seed) else [seed])]
    except (TypeError, ValueError):
        raise InputError(f"seed = {seed!r} cannot be: give whole numbers of 0 or more.") from None
    if np.ndim(seed) and len(seeds) != len(cells):
        raise InputError(f"There are {len(seeds)} seeds for {len(cells)} images: give one, or one for each image.")
    words = [s.generate_state(1 if np.ndim(seed) else len(cells), np.uint64) for s in seeds]
    return [torch.Generator(cells.device).manual_seed(int(word)) for word in np.concatenate(words)]


def _checked(cell, spacing_A, shape, recording, device, dtype):
    """The simulated images as a tensor (B, rows, columns), and their spacing as floats."""
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype = {dtype} cannot be: give torch.float32 or torch.float64.")
    cells = torch.as_tensor(cell).to(device=device, dtype=dtype)
    if cells.ndim not in (2, 3) or min(cells.shape) < 1:
        raise InputError(f"An array of shape {tuple(cells.shape)} is no image: give (rows, columns), or a batch.")
    spacing = _finite("spacing_A", spacing_A, (2,))
    if min(spacing) <= 0:
        raise InputError(f"spacing_A = {spacing} Å cannot be: give two positive distances, along x and along y.")
    if np.shape(shape) != (2,) or any(n != int(n) or n < 1 for n in shape):
        raise InputError(f"shape = {shape} is no image's: give its rows and columns.")
    low, high = (float(value) for value in cells.detach().aminmax())
    if not math.isfinite(high - low):
        raise InputError("The simulated image has pixels that are not finite (NaN): simulate it again.")
    if recording.electrons_px is not None and not -0.01 <= low <= high <= 1.01:  # a little for ringing
        raise InputError(f"Intensities of {low:g} to {high:g} cannot be counted: give fractions of the beam, 0 to 1.")
    return cells.reshape(-1, *cells.shape[-2:]), spacing


def _require_inside(positions, spacing_A, period_A):
    """Refuse a field of view beyond the outer edges of an image without period."""
    half, size = positions.new_tensor(spacing_A) / 2, positions.new_tensor(period_A)
    beyond = float(torch.maximum(-half - positions, positions + half - size).max())
    if beyond > 1e-3 * min(spacing_A):  # rounding
        raise InputError(f"The field of view ends {beyond:.3g} Å beyond the simulated image: record fewer pixels.")


def _finite(name, value, shape):
    """A number, vector or matrix as (nested) tuples of floats."""
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.shape != shape or not np.isfinite(array).all():
        wanted = " × ".join(map(str, shape)) + " finite numbers" if shape else "a finite number"
        raise InputError(f"{name} = {value} cannot be: give {wanted}.")
    return tuple(map(tuple, array.tolist())) if len(shape) == 2 else tuple(array.tolist()) if shape else float(array)
