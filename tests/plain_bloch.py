"""Annular-detector images of a crystal by their definition: one dense matrix, one exponential, one probe at a time.

The optic axis is moved by hand: a tilted crystal is an upright one whose beams, aperture and detector all lie about
another axis.
"""

import numpy as np
from abtem.core.energy import energy2sigma, energy2wavelength
from abtem.parametrizations import LobatoParametrization
from scipy.linalg import expm


def lattice_beams(lengths, k, centre, radius):
    """Spatial frequencies k + g within a disc [1/Å], ndarray (n, 2)."""
    h, m = np.meshgrid(np.arange(-60, 61), np.arange(-60, 61), indexing="ij")
    q = np.stack([h.ravel() / lengths[0], m.ravel() / lengths[1]], axis=1) + k
    return q[np.hypot(*(q - centre).T) <= radius]


def potential_between(crystal, q, b_A2):
    """V_{g−h} of the potential projected over the cell [V Å], atom by atom."""
    steps = q[:, None] - q[None, :]
    g2 = (steps**2).sum(axis=-1)
    total = np.zeros(g2.shape, dtype=complex)
    for atom in crystal:
        factor = LobatoParametrization().projected_scattering_factor(atom.symbol)(g2)
        total += factor * np.exp(-b_A2[atom.symbol] * g2 / 4 - 2j * np.pi * steps @ atom.position[:2])
    return total / np.prod(crystal.cell.lengths()[:2])


def plain_images(crystal, microscope, thickness_A, positions_A, cutoff_mrad, b_A2, k=(0.0, 0.0), loss=None):
    """Share of the electrons of each probe that reach the detector, ndarray (n,); `loss` is an imaginary potential."""
    wavelength, lengths = energy2wavelength(microscope.energy_eV), crystal.cell.lengths()
    per_mrad = 1e-3 / wavelength
    axis = np.array([microscope.crystal_tilt_x_mrad, microscope.crystal_tilt_y_mrad]) * per_mrad
    probe = axis + np.array([microscope.beam_tilt_x_mrad, microscope.beam_tilt_y_mrad]) * per_mrad
    q = lattice_beams(lengths, np.asarray(k) / lengths[:2] + axis, axis, cutoff_mrad * per_mrad)
    potential = potential_between(crystal, q, b_A2) + (0 if loss is None else 1j * loss(q))
    matrix = potential * energy2sigma(microscope.energy_eV) / lengths[2]
    matrix = matrix + np.diag(-np.pi * wavelength * (q**2).sum(axis=1))
    scattering = expm(1j * matrix * thickness_A)
    inside = np.hypot(*(q - probe).T) <= microscope.semiangle_mrad * per_mrad
    angle = np.hypot(*(q - axis).T) / per_mrad
    seen = (angle >= microscope.inner_mrad) & (angle <= microscope.outer_mrad)
    images = []
    for position in positions_A:
        phase = 2 * np.pi * q @ position + microscope.aberration_phase(*(q - probe).T)
        incident = np.where(inside, np.exp(-1j * phase), 0) / np.sqrt(inside.sum())
        images.append((np.abs(scattering @ incident)[seen] ** 2).sum())
    return np.array(images)
