"""The grid that multislice waves live on: frequencies, band limit, lens, free-space propagation and detectors."""

from dataclasses import dataclass

import numpy as np
import torch

from unitcell.errors import InputError

# A product of two functions within 2/3 of the Nyquist frequency folds back only onto the outer third.
BAND_SHARE = 2 / 3
FEWEST_BEAMS = 5


@dataclass(frozen=True)
class WaveGrid:
    """A grid over one orthogonal supercell, and what the microscope does to a wave on it.

    Parameters
    ----------
    lengths_A : (float, float)
        Supercell along x and y [Å].
    shape : (int, int)
        Grid points along x and y.
    microscope : Microscope
    k_point : (float, float)
        Of the Bloch waves, as fractions of the reciprocal lattice: all wave frequencies are shifted by it.
    """

    lengths_A: tuple
    shape: tuple
    microscope: object
    k_point: tuple = (0.0, 0.0)

    @property
    def frequencies(self):
        """qx of shape (X, 1) and qy of shape (1, Y) [1/Å], in the order of the FFT."""
        qx, qy = (np.fft.fftfreq(n, length / n) for n, length in zip(self.shape, self.lengths_A, strict=True))
        return qx[:, None], qy[None, :]

    @property
    def band_limit(self):
        """Largest spatial frequency that is kept [1/Å]: 2/3 of the lower of the two Nyquist frequencies."""
        return BAND_SHARE * min(n / length / 2 for n, length in zip(self.shape, self.lengths_A, strict=True))

    @property
    def band_limit_mrad(self):
        """The same as an angle [mrad]."""
        return self.band_limit * self.microscope.wavelength_A * 1e3

    @property
    def band(self):
        """Mask of the frequencies that are kept, shape (X, Y), in the order of the FFT."""
        return np.hypot(*self.frequencies) <= self.band_limit

    @property
    def wave_frequencies(self):
        """qx of shape (X, 1) in the order of the FFT and qy of shape (1, K), from the lowest kept to the highest."""
        highest = int(np.floor(self.band_limit * self.lengths_A[1]))
        kx, ky = np.divide(self.k_point, self.lengths_A)
        return self.frequencies[0] + kx, np.arange(-highest, highest + 1)[None, :] / self.lengths_A[1] + ky

    @property
    def wave_angles_mrad(self):
        """Angle of every wave frequency to the optic axis [mrad], shape (X, K)."""
        return np.hypot(*self.wave_frequencies) * self.microscope.wavelength_A * 1e3

    @property
    def beam_tilt(self):
        """Transverse frequency of the tilted probe's axis [1/Å]."""
        tilt = np.array([self.microscope.beam_tilt_x_mrad, self.microscope.beam_tilt_y_mrad])
        return tilt * 1e-3 / self.microscope.wavelength_A

    def aperture(self):
        """Indices of the wave frequencies in the probe's hard aperture (angle ≤ semi-angle), two of shape (G,)."""
        (qx, qy), tilt = self.wave_frequencies, self.beam_tilt
        angle_mrad = np.hypot(qx - tilt[0], qy - tilt[1]) * self.microscope.wavelength_A * 1e3
        return np.nonzero(angle_mrad <= self.microscope.semiangle_mrad)

    def detectors(self, rings_mrad):
        """Wave frequencies that hit any ring: indices, two of shape (H,), and which rings each hits, (H, D) of 0 and 1.

        Both limits of a ring belong to it.
        """
        angle_mrad = self.wave_angles_mrad
        hits = np.stack([(angle_mrad >= inner) & (angle_mrad <= outer) for inner, outer in rings_mrad], axis=-1)
        indices = np.nonzero(hits.any(axis=-1) & (angle_mrad <= self.band_limit_mrad))
        return indices, hits[indices].astype(float)

    def probe_coefficients(self, positions_A, aperture):
        """Amplitudes exp(−2πi q·r − iχ(q − q_tilt)) / √G of a probe at r, complex (positions, G); one electron each.

        The tilt pivots on the specimen: the probe keeps its shape and place.
        """
        (qx, qy), tilt = self.wave_frequencies, self.beam_tilt
        qx, qy = qx[aperture[0], 0], qy[0, aperture[1]]
        chi = self.microscope.aberration_phase(qx - tilt[0], qy - tilt[1])
        phase = 2 * np.pi * (np.outer(positions_A[:, 0], qx) + np.outer(positions_A[:, 1], qy)) + chi
        return np.exp(-1j * phase) / np.sqrt(len(qx))

    def propagator(self, thickness_A):
        """exp(−iπλΔz(|q|² + 2 q·K)) within the band limit, over the number of grid points: complex (X, K).

        K = θ/λ is the transverse wave vector of the beam in the tilted crystal's frame, while probe and
        detector stay, as in `annular_images`: for θx > 0 the columns lean towards −x as the beam goes down,
        by θx Δz in each slice. Dividing by the number of points makes up for two FFTs without a norm.
        """
        qx, qy = self.wave_frequencies
        tilt_x, tilt_y = self.microscope.crystal_tilt_x_mrad * 1e-3, self.microscope.crystal_tilt_y_mrad * 1e-3
        path = self.microscope.wavelength_A * (qx**2 + qy**2) + 2 * (qx * tilt_x + qy * tilt_y)
        kept = self.wave_angles_mrad <= self.band_limit_mrad
        return kept * np.exp(-1j * np.pi * thickness_A * path) / (self.shape[0] * self.shape[1])


def smooth_size(least):
    """The smallest product of powers of 2, 3 and 5 that is not below `least`: a fast FFT's length."""
    size = max(1, int(np.ceil(least - 1e-9)))
    while any_other_prime(size):
        size += 1
    return size


def any_other_prime(number):
    """Whether a prime other than 2, 3 and 5 divides the number."""
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number > 1


def make_grid(crystal, microscope, sampling_A, rings_mrad, k_point=(0.0, 0.0)):
    """The grid of a supercell, refused where it cannot hold the probe or the detectors.

    Raises
    ------
    InputError
        A cell that is not orthogonal or smaller than the probe's interference needs, or a sampling
        whose band limit lies inside the detector.
    """
    if not np.allclose(crystal.cell[:], np.diag(crystal.cell.lengths()), atol=1e-6):
        raise InputError("The crystal's cell is not orthogonal along x, y and z: give an orthogonal supercell.")
    if not (np.isfinite(sampling_A) and sampling_A > 0):
        raise InputError(f"sampling_A = {sampling_A} cannot be: give a positive length.")
    lengths = tuple(float(length) for length in crystal.cell.lengths()[:2])
    if min(lengths) == 0:
        raise InputError("The crystal has no cell: set crystal.cell to the supercell's lengths [Å].")
    grid = WaveGrid(
        lengths, tuple(smooth_size(length / sampling_A) for length in lengths), microscope, _checked_k_point(k_point)
    )
    radius = microscope.semiangle_mrad * 1e-3 / microscope.wavelength_A
    for axis, length in zip("xy", lengths, strict=True):
        if radius * length < FEWEST_BEAMS:
            raise InputError(
                f"The cell of {length:.2f} Å along {axis} puts only {radius * length:.1f} beams across the aperture's "
                f"radius: repeat the cell {int(np.ceil(FEWEST_BEAMS / radius / length))} times along {axis}."
            )
    widest = max(outer for _, outer in rings_mrad)
    needed = max(widest, microscope.semiangle_mrad + float(np.hypot(*grid.beam_tilt)) * microscope.wavelength_A * 1e3)
    if needed > grid.band_limit_mrad:
        finer = BAND_SHARE * microscope.wavelength_A * 1e3 / (2 * needed)
        raise InputError(
            f"sampling_A = {sampling_A:g} keeps angles up to {grid.band_limit_mrad:.0f} mrad, but {needed:g} mrad are "
            f"needed: give sampling_A = {np.floor(finer * 1e4) / 1e4:g} or less."
        )
    return grid


def _checked_k_point(k_point):
    """Two fractions within the Brillouin zone."""
    found = np.asarray(k_point, dtype=float)
    if found.shape != (2,) or not (np.abs(found) <= 0.5).all():
        raise InputError(f"k_point = {k_point} is none: give two fractions from -0.5 to 0.5.")
    return tuple(found.tolist())


def as_tensor(array, dtype, device):
    """A NumPy array on the device, complex where the array is, in the given real precision."""
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return torch.as_tensor(array, dtype=complex_dtype if np.iscomplexobj(array) else dtype, device=device)
