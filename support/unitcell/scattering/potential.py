"""Fourier coefficients of crystal potentials, differentiable in the positions of the atoms.

The potential projected over one period c of the cell [V Å] has the coefficients

    V_hkl = Σ_j f_j(|g_hk|) exp(−B_j g_hk²/4) exp(−2πi (h x_j + k y_j + l z_j)) / area,              (1)

with Lobato and Van Dyck's projected factors f (Acta Cryst. A70, 636, 2014) and Debye–Waller factors B.
"""

from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
import torch
from abtem.parametrizations import LobatoParametrization

from unitcell.crystals.checks import require_sound
from unitcell.errors import InputError
from unitcell.scattering.debye_waller import b_factors

NEGLIGIBLE = 1e-9
ABSORPTION_BOX_A = 8.0  # isolated atom on a fine grid, for the absorptive factors
ABSORPTION_PIXELS = 512


@dataclass(frozen=True)
class Atomic:
    """A crystal, or a batch of equal ones that differ in their positions, ready to scatter.

    lengths : ndarray (3,), cell [Å]; symbols : ndarray of str (n,); positions : tensor (batch, n, 3) [Å];
    b_A2 : dict, Debye–Waller factor of each element [Å²], 0 for a static lattice; shares : dict of symbol to dict,
    of the elements that share the sites written as that symbol (virtual crystal).
    """

    lengths: np.ndarray
    symbols: np.ndarray
    positions: torch.Tensor
    b_A2: dict
    shares: dict = field(default_factory=dict)

    @classmethod
    def of(cls, crystal, thermal, debye_waller_A2, positions, device, shares=None):
        """From ASE atoms (one, or a list with equal cells and elements) or from a tensor of positions.

        Raises
        ------
        InputError
            Unequal members, positions that do not fit, and what `require_sound` refuses.
        """
        crystals = crystal if isinstance(crystal, (list, tuple)) else [crystal]
        first = crystals[0]
        for other in crystals:
            if list(other.symbols) != list(first.symbols) or not np.allclose(other.cell, first.cell):
                raise InputError("Crystals of one batch need the same cell and elements: run them one by one.")
        if positions is None:
            positions = torch.as_tensor(np.stack([c.positions for c in crystals]), dtype=torch.float64)
        elif positions.shape[-2:] != (len(first), 3):
            raise InputError(f"Positions of shape {tuple(positions.shape)} do not fit {len(first)} atoms: give (n, 3).")
        if positions.dim() == 2:
            positions = positions[None]
        for member in positions.detach().cpu().numpy():
            moved = first.copy()
            moved.positions = member
            require_sound(moved)
        positions = positions.to(device)
        symbols = np.array(first.get_chemical_symbols(), dtype=str)
        elements = {*symbols.tolist(), *(name for site in (shares or {}).values() for name in site)}
        factors = b_factors(elements, debye_waller_A2)
        factors = factors if thermal else dict.fromkeys(factors, 0.0)
        return cls(first.cell.lengths(), symbols, positions, factors, shares or {})

    def coefficients(self, h, k, layers, *, factors=None, members=None):
        """Equation (1) on the grid h × k × layers: complex128 tensor (batch, H, K, L) [V Å].

        `factors(symbol, g2, B)` replaces the scattering factor, `members` (n,) masks atoms.
        """
        g2 = np.add.outer((h / self.lengths[0]) ** 2, (k / self.lengths[1]) ** 2)
        total = 0
        for symbol in np.unique(self.symbols):
            chosen = (self.symbols == symbol) & (True if members is None else members)
            site, of_element = self.shares.get(symbol, {symbol: 1.0}), factors or scattering_factor
            factor = torch.as_tensor(sum(part * of_element(name, g2, self.b_A2[name]) for name, part in site.items()))
            waves = [self._waves(n, axis, chosen) for axis, n in enumerate((h, k, layers))]
            total = total + factor.to(waves[0].device)[..., None] * torch.einsum("bhn,bkn,bln->bhkl", *waves)
        shape = (len(self.positions), len(h), len(k), len(layers))
        empty = torch.zeros(shape, dtype=torch.complex128, device=self.positions.device)
        return empty + total / np.prod(self.lengths[:2])

    def _waves(self, indices, axis, chosen):
        """exp(−2πi h x) of the chosen atoms along one axis: (batch, indices, atoms)."""
        positions = self.positions[:, torch.as_tensor(chosen, device=self.positions.device), axis].double()
        frequencies = torch.as_tensor(np.asarray(indices) / self.lengths[axis], device=positions.device)
        return torch.exp(-2j * np.pi * frequencies[:, None] * positions[:, None, :])


def scattering_factor(symbol, g2, b_A2):
    """Projected scattering factor [V Å³] at squared spatial frequencies g² [1/Å²], damped by exp(−B g²/4)."""
    return _lobato(symbol)(g2) * np.exp(-b_A2 * g2 / 4)


@cache
def _lobato(symbol):
    """abTEM's factor of one element, whose table is read from a file."""
    return LobatoParametrization().projected_scattering_factor(symbol)


def absorptive_factor(interaction):
    """Factor of the potential that thermal diffuse scattering takes electrons out of the elastic wave with.

    An atom that vibrates averages its transmission to ⟨exp(iσv)⟩ ≈ exp(iσ⟨v⟩ − σ²/2 (⟨v²⟩ − ⟨v⟩²)): an
    imaginary potential (σ/2)(⟨v²⟩ − ⟨v⟩²), the real-space form of Einstein-model absorptive factors
    (Bird, King, Acta Cryst. A46, 202, 1990) for one projected atom.

    Parameters
    ----------
    interaction : float
        σ [rad / (V Å)].

    Returns
    -------
    callable (symbol, g2, b_A2) → ndarray [V Å³], as `Atomic.coefficients` takes it.
    """

    def factor(symbol, g2, b_A2):
        frequency, values = _variance_spectrum(symbol, float(b_A2))
        return interaction / 2 * np.interp(np.sqrt(g2), frequency, values)

    return factor


@lru_cache(maxsize=64)
def _variance_spectrum(symbol, b_A2):
    """Radial Fourier transform of ⟨v²⟩ − ⟨v⟩² [V² Å⁴] of one atom along x: frequencies [1/Å] and values."""
    n, pixel = ABSORPTION_PIXELS, ABSORPTION_BOX_A / ABSORPTION_PIXELS
    f = np.fft.fftfreq(n, pixel)
    g2 = f[:, None] ** 2 + f**2
    static = np.fft.ifft2(scattering_factor(symbol, g2, 0.0)).real / pixel**2
    mean = np.fft.ifft2(scattering_factor(symbol, g2, b_A2)).real / pixel**2
    spectrum = np.fft.fft2(static**2) * np.exp(-b_A2 * g2 / 4) - np.fft.fft2(mean**2)
    return f[: n // 2], spectrum[0, : n // 2].real * pixel**2


def is_real(coefficients):
    """Whether coefficients have no imaginary part: the crystal has an inversion centre at its origin."""
    return vanish(coefficients.imag, coefficients)


def vanish(part, coefficients):
    """Whether a part of the coefficients is zero by symmetry.

    Where gradients flow, it must also stay zero to first order in whatever the positions depend on: tilts keep a
    centre of inversion that moving a single atom destroys.
    """
    size = float(coefficients.detach().abs().max())
    if float(part.detach().abs().amax() if part.numel() else 0.0) > NEGLIGIBLE * size:
        return False
    return not part.requires_grad or _slope(part) <= 1e-6 * _slope(coefficients)


def _slope(values):
    """Largest derivative of a random combination of values with respect to the leaves they depend on."""
    real = torch.view_as_real(values) if values.is_complex() else values
    mixture = torch.rand(real.shape, generator=torch.Generator().manual_seed(0), dtype=real.dtype).to(real.device)
    slopes = torch.autograd.grad((mixture * real).sum(), _leaves(real), retain_graph=True, allow_unused=True)
    return max((float(slope.abs().max()) for slope in slopes if slope is not None), default=0.0)


def _leaves(tensor):
    """Tensors that require a gradient and that a tensor was computed from."""
    seen, waiting, leaves = set(), [tensor.grad_fn], []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(parent for parent, _ in node.next_functions)
            leaves.extend([node.variable] if hasattr(node, "variable") else [])
    return leaves
