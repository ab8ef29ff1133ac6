"""The probe's coherent sum and the detector's incoherent one, for every probe position at once.

A probe at r sends the beams g of its aperture into the crystal with the phases exp(−2πi g·r − iχ_g); the
detector D sums intensities:

    I(r) = Σ_k Σ_{h ∈ D} |Σ_g S_hg exp(−2πi g·r − iχ_g)|² = Σ_Q C_Q exp(2πi Q·r),
    C_Q = Σ_k Σ_{g' = g + Q} (S_D† S_D)_{g'g} ,                                                    (1)

a trigonometric polynomial whose coefficients are summed once, for all probe positions.
"""

import numpy as np
import torch


class ImageSum:
    """Accumulates equation (1) over k-points, blocks and configurations.

    Parameters
    ----------
    lengths : ndarray (3,)
        Cell [Å].
    microscope : unitcell.scattering.Microscope
    batch : tuple of int
        Leading axes of the images, for instance (structures, detectors, thicknesses).
    device, dtype : torch device and real dtype of the scattering matrices
    """

    def __init__(self, lengths, microscope, batch, device, dtype):
        self.lengths, self.microscope = np.asarray(lengths)[:2], microscope
        aperture = 2 * microscope.semiangle_mrad * 1e-3 / microscope.wavelength_A
        self.reach = [int(np.floor(aperture * length)) + 1 for length in self.lengths]
        size = (2 * self.reach[0] + 1) * (2 * self.reach[1] + 1)
        self.coefficients = torch.zeros((*batch, size), dtype=complex_of(dtype), device=device)
        self.incident = 0.0

    def beams(self, plane, k, detectors_mrad):
        """Which beams the probe fills and which each detector sees.

        Parameters
        ----------
        plane : ndarray of int (n, 2)
            Indices (h, k) of the beams of the zeroth zone.
        k : ndarray (2,) [1/Å]
        detectors_mrad : list of (inner, outer)

        Returns
        -------
        aperture : ndarray of int
        detectors : list of ndarray of int
        phases : complex tensor, exp(−iχ) of the aperture's beams
        """
        scope = self.microscope
        q = plane / self.lengths + k
        centre = np.array([scope.beam_tilt_x_mrad, scope.beam_tilt_y_mrad]) * 1e-3 / scope.wavelength_A
        angle = np.hypot(*q.T) * scope.wavelength_A * 1e3
        inside = np.hypot(*(q - centre).T) * scope.wavelength_A * 1e3
        aperture = np.flatnonzero(inside <= scope.semiangle_mrad)
        detectors = [np.flatnonzero((angle >= inner) & (angle <= outer)) for inner, outer in detectors_mrad]
        chi = scope.aberration_phase(*(q[aperture] - centre).T)
        return aperture, detectors, torch.as_tensor(np.exp(-1j * np.asarray(chi)), device=self.coefficients.device)

    def add(self, matrix, phases, plane, weight, where=()):
        """Add |S_D|² of one block.

        Parameters
        ----------
        matrix : complex tensor (…, detector beams, aperture beams)
        phases : complex tensor (aperture beams,)
        plane : ndarray of int (aperture beams, 2)
        weight : float
        where : tuple
            Index into the leading axes of the images.
        """
        matrix = matrix * phases.to(matrix.dtype)
        density = weight * (matrix.mH @ matrix)
        step = plane[:, None, :] - plane[None, :, :]
        target = (step[..., 0] + self.reach[0]) * (2 * self.reach[1] + 1) + step[..., 1] + self.reach[1]
        flat = torch.as_tensor(target.reshape(-1), device=matrix.device)
        block = torch.zeros(
            (*density.shape[:-2], self.coefficients.shape[-1]), dtype=matrix.dtype, device=matrix.device
        )
        block = block.index_add(-1, flat, density.flatten(-2))
        self.coefficients[where] = self.coefficients[where] + block

    def images(self, shape, incident):
        """Images (…, rows, columns), rows along y, as fractions of the incident beams; blurred by the source."""
        columns, rows = (np.arange(-n, n + 1) for n in self.reach)
        grid = self.coefficients.unflatten(-1, (len(columns), len(rows)))
        sigma = self.microscope.source_fwhm_A / np.sqrt(8 * np.log(2))
        q2 = np.add.outer((columns / self.lengths[0]) ** 2, (rows / self.lengths[1]) ** 2)
        damping = torch.as_tensor(np.exp(-2 * (np.pi * sigma) ** 2 * q2), device=grid.device)
        x, y = (torch.as_tensor(np.exp(2j * np.pi * np.outer(np.arange(n) / n, m)), device=grid.device)
                for n, m in ((shape[1], columns), (shape[0], rows)))  # fmt: skip
        series = (grid * damping.to(grid.dtype)).to(x.dtype)
        return (y @ series.transpose(-1, -2) @ x.T).real / incident


def complex_of(dtype):
    """The complex dtype of a real one."""
    return torch.complex64 if dtype == torch.float32 else torch.complex128
