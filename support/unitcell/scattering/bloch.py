"""ABF images of a periodic crystal from its scattering matrix: every thickness from one diagonalisation.

A fast electron in a crystal whose projected potential V has the period of the cell obeys, in the
small-angle approximation and in the basis of beams k + g,

    dψ/dz = i A ψ,   A_gh = −π λ |k + g|² δ_gh + (σ / c) V_{g−h},                       (1)

with λ the wavelength, σ the interaction constant, c the period along the beam and V_g the Fourier
coefficients of the potential projected over c. A is Hermitian, A = U Λ U†, so the scattering matrix
of every thickness t is S(t) = U exp(iΛt) U† (Bethe 1928; Kirkland, Advanced Computing in Electron
Microscopy, chapter 6). A convergent probe at r is a coherent sum of the beams g inside its aperture,
separately for every k of the first Brillouin zone, and the detector D sums intensities:

    I(r) = Σ_k Σ_{h ∈ D} |Σ_{g ∈ aperture} S_hg exp(−2πi g·r − iχ_g)|²
         = Σ_{g,g'} exp(2πi (g − g')·r) Σ_k (S_D† S_D)_gg' ,                            (2)

a trigonometric polynomial in r whose coefficients are summed once, for all probe positions.
"""

import itertools

import numpy as np
import torch
from abtem.parametrizations import LobatoParametrization

from unitcell.errors import InputError

# B [Å²] at 300 K for SrTiO3 (Peng, Dudarev, Whelan, High-Energy Electron Diffraction and Microscopy,
# 2004); other elements get the value of a thermal displacement of 0.08 Å, B = 8π²·0.08².
DEBYE_WALLER_A2 = {"Sr": 0.6214, "Ti": 0.4398, "O": 0.7323}
DEBYE_WALLER_OTHER_A2 = 0.505
NEGLIGIBLE = 1e-9


def annular_images(
    crystal, microscope, thicknesses_A, shape, *, cutoff_mrad=90.0, k_points=(2, 2), thermal=True,
    device="cpu", dtype=torch.float64,
):  # fmt: skip
    """Annular-detector images of one cell at every thickness.

    Parameters
    ----------
    crystal : ase.Atoms
        Orthogonal periodic cell, beam along z.
    microscope : Microscope
    thicknesses_A : sequence of float, shape (T,)
        Thicknesses [Å].
    shape : (rows, columns)
        Probe positions over the cell: rows along y, columns along x, the first at the origin.
    cutoff_mrad : float
        Beams beyond this angle are left out [mrad].
    k_points : (int, int)
        Sampling of the Brillouin zone of the cell along x and y: the probe repeats after so many cells.
    thermal : bool
        Damp the potential by the Debye-Waller factors of 300 K (elastic scattering only).
    device, dtype : torch device and real dtype

    Returns
    -------
    torch.Tensor, shape (T, rows, columns)
        Fraction of the incident electrons that reach the detector.

    Raises
    ------
    InputError
        Negative thickness, or a detector beyond the cut-off.
    """
    thicknesses = torch.as_tensor(np.asarray(thicknesses_A, dtype=float), dtype=dtype, device=device)
    _require_sensible(thicknesses, microscope, cutoff_mrad)
    potential = projected_potential(crystal, microscope, cutoff_mrad, thermal, device, dtype)
    coefficients = torch.zeros((len(thicknesses), *shape), dtype=_complex(dtype), device=device)
    incident = 0
    for k, weight in brillouin_zone(k_points, crystal.cell.lengths()[:2], inversion=not potential.is_complex()):
        beams = select_beams(crystal.cell.lengths()[:2], k, microscope, cutoff_mrad)
        for block in independent_blocks(beams, potential):
            incident += weight * _add_block(
                coefficients, beams[block], k, weight, potential, crystal, microscope, thicknesses
            )
    if not potential.is_complex():
        coefficients = coefficients.real  # −k gives the image of k turned by 180°: their sum is even
    return torch.fft.ifft2(coefficients, norm="forward").real / incident


def projected_potential(crystal, microscope, cutoff_mrad, thermal=True, device="cpu", dtype=torch.float64):
    """Fourier coefficients V_hk of the projected potential [V Å], indices running over (−2H…2H, −2K…2K).

    V_g = Σ_j f_j(|g|) exp(−B_j g²/4) exp(−2πi g·r_j) / area, with Lobato and Van Dyck's (2014) factors.
    Real-valued where the cell has an inversion centre at its origin.
    """
    lengths = crystal.cell.lengths()[:2]
    reach = [2 * int(np.floor(cutoff_mrad * 1e-3 / microscope.wavelength_A * length)) + 2 for length in lengths]
    h, k = np.meshgrid(
        *(np.arange(-n, n + 1) / length for n, length in zip(reach, lengths, strict=True)), indexing="ij"
    )
    total = np.zeros(h.shape, dtype=complex)
    symbols = np.array(crystal.get_chemical_symbols())
    for symbol in np.unique(symbols):
        factor = LobatoParametrization().projected_scattering_factor(symbol)(h**2 + k**2)
        if thermal:
            factor = factor * np.exp(-DEBYE_WALLER_A2.get(symbol, DEBYE_WALLER_OTHER_A2) * (h**2 + k**2) / 4)
        x, y = crystal.positions[symbols == symbol, :2].T
        phases = np.exp(-2j * np.pi * np.multiply.outer(h, x)) * np.exp(-2j * np.pi * np.multiply.outer(k, y))
        total += factor * phases.sum(axis=-1)
    total /= lengths.prod()
    if np.abs(total.imag).max() < NEGLIGIBLE * np.abs(total).max():
        return torch.as_tensor(total.real, dtype=dtype, device=device)
    return torch.as_tensor(total, dtype=_complex(dtype), device=device)


def brillouin_zone(k_points, lengths, inversion):
    """Points of a Monkhorst-Pack grid [1/Å] with their weights.

    With an inversion centre at the origin, −k gives the image of k turned by 180°: half are computed.
    """
    axes = [((np.arange(n) + 0.5) / n - 0.5) / length for n, length in zip(k_points, lengths, strict=True)]
    points = list(itertools.product(*axes))
    if not inversion:
        return [(point, 1.0) for point in points]
    half = [point for point in points if point > (0.0, 0.0)]
    return [(point, 2.0) for point in half] + [(point, 1.0) for point in points if point == (0.0, 0.0)]


def select_beams(lengths, k, microscope, cutoff_mrad):
    """Indices (h, k) of the beams within the cut-off, ndarray of int, shape (n, 2)."""
    limit = cutoff_mrad * 1e-3 / microscope.wavelength_A
    reach = [int(np.ceil(limit * length)) + 1 for length in lengths]
    indices = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    return indices[np.hypot(*(indices / lengths + k).T) <= limit]


def independent_blocks(beams, potential):
    """Masks of the beams that the potential does not couple, from translations by half a cell.

    Where the crystal repeats after half a cell (as c⁻ patterns do along the diagonal), every second
    coefficient V_g vanishes and the beams fall into independent classes.
    """
    centre = (np.array(potential.shape) - 1) // 2
    h, k = np.meshgrid(*(np.arange(n) - c for n, c in zip(potential.shape, centre, strict=True)), indexing="ij")
    size = potential.abs().cpu().numpy()
    labels = np.zeros(len(beams), dtype=int)
    for along_x, along_y in ((1, 0), (0, 1), (1, 1)):
        odd = (along_x * h + along_y * k) % 2 == 1
        if size[odd].max() <= NEGLIGIBLE * size.max():
            labels = 2 * labels + (beams @ (along_x, along_y)) % 2
    return [labels == label for label in np.unique(labels)]


def scattering_rows(beams, k, potential, crystal, microscope, thicknesses, rows, columns):
    """S(t)[rows, columns] for every thickness, from equation (1): complex tensor (T, rows, columns)."""
    lengths = crystal.cell.lengths()
    centre = [(n - 1) // 2 for n in potential.shape]
    step = torch.as_tensor(beams[:, None, :] - beams[None, :, :], device=potential.device)
    coupling = potential[step[..., 0] + centre[0], step[..., 1] + centre[1]]
    q2 = torch.as_tensor(((beams / lengths[:2] + k) ** 2).sum(axis=1), device=potential.device)
    matrix = coupling * (microscope.interaction / lengths[2])
    matrix.diagonal().sub_((np.pi * microscope.wavelength_A * q2).to(matrix.dtype))
    values, vectors = torch.linalg.eigh(matrix)
    phases = torch.exp(1j * torch.outer(thicknesses, values))
    left = vectors[rows].to(phases.dtype)
    right = vectors[columns].mH.to(phases.dtype)
    return (left * phases[:, None, :]) @ right


def _add_block(coefficients, beams, k, weight, potential, crystal, microscope, thicknesses):
    """Add one block of beams to the coefficients of equation (2); return its number of incident beams."""
    lengths = crystal.cell.lengths()[:2]
    q = beams / lengths + k
    angle_mrad = np.hypot(*q.T) * microscope.wavelength_A * 1e3
    aperture = np.flatnonzero(angle_mrad <= microscope.semiangle_mrad)
    detector = np.flatnonzero((angle_mrad >= microscope.inner_mrad) & (angle_mrad <= microscope.outer_mrad))
    matrix = scattering_rows(beams, k, potential, crystal, microscope, thicknesses, detector, aperture)
    chi = -np.pi * microscope.wavelength_A * microscope.defocus_A * (q[aperture] ** 2).sum(axis=1)
    matrix = matrix * torch.exp(-1j * torch.as_tensor(chi, device=matrix.device)).to(matrix.dtype)
    density = weight * (matrix.mH @ matrix)
    step = beams[aperture][:, None, :] - beams[aperture][None, :, :]
    rows, columns = coefficients.shape[1:]
    target = torch.as_tensor((step[..., 1] % rows) * columns + step[..., 0] % columns, device=matrix.device)
    coefficients.view(len(thicknesses), -1).index_add_(1, target.reshape(-1), density.reshape(len(thicknesses), -1))
    return len(aperture)


def _require_sensible(thicknesses, microscope, cutoff_mrad):
    if len(thicknesses) == 0 or bool((thicknesses < 0).any()):
        raise InputError(f"Thicknesses of {thicknesses.tolist()} Å cannot be: give one or more, none negative.")
    needed = max(microscope.outer_mrad, microscope.semiangle_mrad)
    if needed > cutoff_mrad:
        raise InputError(f"The cut-off of {cutoff_mrad:g} mrad leaves out beams at {needed:g} mrad: raise cutoff_mrad.")


def _complex(dtype):
    return torch.complex64 if dtype == torch.float32 else torch.complex128
