"""Frozen phonons in the beam basis: images of a vibrating crystal from products of period operators.

An electron that passes one period of the crystal, slice by slice, is multiplied by

    W = Π_j P T_j P,   (T_j)_gh = FT[exp(iσ v_j)]_{g−h},   P_g = exp(−iπλ Δz |k + g|²/2 − iπ Δz (k + g)·θ),     (1)

v_j the projected potential of slice j, whose atoms are displaced at random (Einstein model), and P half a slice of
free space before and behind them, which leaves an error of second order in Δz. A library of such
operators is made once; random products of its members are random crystals, at every thickness on the way:
ψ(n) = W_{m(n)} … W_{m(1)} ψ(0). Each costs one product of an n × n matrix with the beams of the aperture
(Loane, Xu, Silcox, Acta Cryst. A47, 267, 1991, for frozen phonons).

Electrons that T scatters beyond the cut-off are lost, as they should be: they hardly come back. But what the
thermal mean ⟨v⟩ sends there does come back, coherently, in the next slices. So the truncated T of ⟨v⟩ is
exchanged for its unitary form,

    T_j → T_j + exp(iσ [⟨v_j⟩]) − [exp(iσ ⟨v_j⟩)],                                                       (2)

[·] meaning: between beams within the cut-off. Without it 60 mrad would lose 2 % of the ABF signal in 200 Å.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from unitcell.errors import InputError
from unitcell.scattering.beams import brillouin_zone, disc, fibonacci_points, require_sampled
from unitcell.scattering.bloch import require_thicknesses
from unitcell.scattering.debye_waller import b_factors, rms_displacements
from unitcell.scattering.potential import Atomic
from unitcell.scattering.probe import ImageSum, complex_of

CUTOFF_MRAD = 60.0
SLICE_A = 1.5


@dataclass(frozen=True)
class Vibrations:
    """How a crystal vibrates and how finely it is cut.

    Parameters
    ----------
    library : int
        Randomly displaced periods per k-point, in pairs of opposite displacements.
    slice_A : float
        Largest slice thickness [Å].
    debye_waller_A2 : mapping, optional
        See `debye_waller.b_factors`; 0 for every element leaves a static crystal.
    seed : int
    """

    library: int = 8
    slice_A: float = SLICE_A
    debye_waller_A2: dict | None = None
    seed: int = 0

    def __post_init__(self):
        if self.library < 1 or self.slice_A <= 0:
            raise InputError(
                f"A library of {self.library} periods in slices of {self.slice_A:g} Å cannot be: give ≥ 1, and > 0 Å."
            )


def frozen_phonon_images(
    crystal, microscope, thicknesses_A, shape, configurations=15, vibrations=None, *, cutoff_mrad=CUTOFF_MRAD,
    k_points=None, detectors_mrad=None, device="cpu", dtype=torch.float32, progress=False,
):  # fmt: skip
    """Annular-detector images of one vibrating cell at every thickness.

    Parameters
    ----------
    crystal : ase.Atoms
        Orthogonal periodic cell, beam along z.
    microscope : unitcell.scattering.Microscope
    thicknesses_A : sequence of float, shape (T,)
        Thicknesses [Å]; between two exit planes the intensity is interpolated.
    shape : (rows, columns)
        Probe positions over the cell: rows along y, columns along x, the first at the origin.
    configurations : int
        Random crystals, shared out evenly over the k-points.
    vibrations : Vibrations, optional
    cutoff_mrad : float
        Electrons scattered beyond this angle are lost [mrad].
    k_points : (int, int) or ndarray (n, 2), optional
        See `beams.brillouin_zone`; None for `beams.fibonacci_points(5)`.
    detectors_mrad : list of (inner, outer), optional
        Several detectors at once, instead of the microscope's.
    device, dtype : torch device and real dtype
    progress : bool

    Returns
    -------
    torch.Tensor, shape (configurations, [detectors,] T, rows, columns)
        Fraction of the incident electrons that reach the detector. The mean over configurations is the image, their
        standard deviation over √configurations its standard error.

    Raises
    ------
    InputError
        Configurations that do not divide over the k-points, and what `bloch.annular_images` refuses.
    """
    detectors = detectors_mrad or [(microscope.inner_mrad, microscope.outer_mrad)]
    vibrations = vibrations or Vibrations()
    thicknesses = require_thicknesses(thicknesses_A, torch.float64, "cpu").numpy()
    atomic = Atomic.of(crystal, False, None, None, device)
    k_points = fibonacci_points(5) if k_points is None else k_points
    require_sampled(atomic.lengths, microscope, cutoff_mrad, detectors, k_points)
    zone = brillouin_zone(k_points, atomic.lengths)
    if configurations % len(zone) or configurations < 1:
        raise InputError(f"{configurations} configurations do not divide over {len(zone)} k-points: give a multiple.")
    total = ImageSum(atomic.lengths, microscope, (configurations, len(detectors), len(thicknesses)), device, dtype)
    incident = []
    with tqdm(total=configurations, desc="configurations", disable=not progress) as bar:
        for index, (k, _) in enumerate(zone):
            generator = np.random.default_rng([vibrations.seed, index])
            periods = PeriodOperators(atomic, microscope, k, cutoff_mrad, vibrations, generator, dtype)
            for configuration in range(index, configurations, len(zone)):
                # Of its own, so that neither other configurations nor deeper images change this one.
                own = np.random.default_rng([vibrations.seed, index, configuration])
                incident.append(periods.march(total, configuration, detectors, thicknesses, own))
                bar.update()
    order = np.concatenate([np.arange(i, configurations, len(zone)) for i in range(len(zone))])
    counts = torch.empty(configurations, dtype=torch.float64)
    counts[order] = torch.tensor(incident, dtype=torch.float64)
    images = total.images(shape, counts.to(device)[:, None, None, None, None])
    return images if detectors_mrad else images[:, 0]


class PeriodOperators:
    """Library of the operators W of equation (1) at one k, with the slices they are made of.

    `operators` is a list of tensors (n, n); `beams` (n, 2) are the beams within the cut-off.
    """

    def __init__(self, atomic, microscope, k, cutoff_mrad, vibrations, generator, dtype):
        self.atomic, self.microscope, self.k = atomic, microscope, k
        self.dtype, self.device = complex_of(dtype), atomic.positions.device
        radius = cutoff_mrad * 1e-3 / microscope.wavelength_A
        self.beams = disc(atomic.lengths, k, radius)
        z = atomic.positions[0, :, 2].cpu().numpy()
        self.planes, self.count = slices_of(z, atomic.lengths[2], vibrations.slice_A)
        self.slice_A = atomic.lengths[2] / self.count
        # Differences of two beams reach twice the cut-off; 1.3 times that keeps exp(iσv) free of aliases.
        reach = np.abs(self.beams).max(axis=0)
        self.gpts = [int(np.ceil(1.3 * (4 * n + 2) / 2)) * 2 for n in reach]
        self.steps = tuple(torch.as_tensor(np.subtract.outer(n, n), device=self.device) for n in self.beams.T)
        self.half = self._half_slice()
        members = self._displaced(vibrations, generator)
        corrections = self._corrections(vibrations)
        built = [self._period(member, corrections) for member in members]
        self.operators = [operator for operator, _ in built]
        self.partial = [rows for _, rows in built]

    def march(self, total, configuration, detectors, thicknesses, generator):
        """Add one random crystal to the sum at every thickness; return the number of incident beams."""
        aperture, seen, phases = total.beams(self.beams, self.k, detectors)
        columns = torch.as_tensor(aperture, device=self.device)
        wave = torch.zeros((len(self.beams), len(aperture)), dtype=self.dtype, device=self.device)
        wave[columns, torch.arange(len(aperture), device=self.device)] = 1
        exits = self._exits(thicknesses)
        for period in range(max(exits) + 1):
            member = int(generator.integers(len(self.operators)))
            for plane, index, weight in exits.get(period, ()):
                behind = wave if plane == 0 else self.partial[member][plane - 1] @ wave
                for number, detector in enumerate(seen):
                    rows = behind[torch.as_tensor(detector, device=self.device)]
                    total.add(rows, phases, self.beams[aperture], weight, (configuration, number, index))
            if period < max(exits):
                wave = self.operators[member] @ wave
        return len(aperture)

    def _exits(self, thicknesses):
        """Period → [(plane, thickness index, weight)]: a thickness lies between two exit planes."""
        exits = {}
        for index, depth in enumerate(thicknesses / self.slice_A):
            below, share = int(np.floor(depth + 1e-9)), depth - np.floor(depth + 1e-9)
            for plane, weight in ((below, 1 - share), (below + 1, share)):
                if weight > 1e-9:
                    exits.setdefault(plane // self.count, []).append((plane % self.count, index, weight))
        return exits

    def _half_slice(self):
        """P of equation (1)."""
        q = self.beams / self.atomic.lengths[:2] + self.k
        scope = self.microscope
        tilt = np.array([scope.crystal_tilt_x_mrad, scope.crystal_tilt_y_mrad]) * 1e-3
        phase = -np.pi * self.slice_A * (scope.wavelength_A * (q**2).sum(axis=1) / 2 + q @ tilt)
        return torch.as_tensor(np.exp(1j * phase), device=self.device).to(self.dtype)

    def _displaced(self, vibrations, generator):
        """Positions of every member of the library, tensors (1, n, 3): pairs of opposite displacements."""
        spread = rms_displacements(self.atomic.symbols, vibrations.debye_waller_A2)
        sigma = np.array([spread[symbol] for symbol in self.atomic.symbols])[:, None]
        half = [generator.normal(size=(len(sigma), 3)) * sigma for _ in range((vibrations.library + 1) // 2)]
        moves = [sign * move for move in half for sign in (1, -1)][: vibrations.library]
        return [self.atomic.positions + torch.as_tensor(move, device=self.device) for move in moves]

    def _tables(self, positions, b_A2):
        """Fourier coefficients of σv_j of every slice on the grid, as transmission needs them."""
        moved = Atomic(self.atomic.lengths, self.atomic.symbols, positions, b_A2)
        h, k = (np.fft.fftfreq(n, 1 / n) for n in self.gpts)
        for plane in range(self.count):
            values = moved.coefficients(h, k, [0], members=self.planes == plane)[0, :, :, 0]
            yield values * self.microscope.interaction

    def _between_beams(self, table):
        """Matrix of the coefficients g − h between beams."""
        return table.to(self.dtype)[self.steps]

    def _corrections(self, vibrations):
        """Equation (2) of every slice; it does not depend on the displacements."""
        b_A2 = b_factors(self.atomic.symbols, vibrations.debye_waller_A2)
        return [
            torch.linalg.matrix_exp(1j * self._between_beams(table)) - self._between_beams(transmission(table))
            for table in self._tables(self.atomic.positions, b_A2)
        ]

    def _period(self, positions, corrections):
        """Operator of one displaced period, and those of its first slices."""
        static = dict.fromkeys(self.atomic.b_A2, 0.0)
        operator, partial = None, []
        for table, correction in zip(self._tables(positions, static), corrections, strict=True):
            slice_matrix = self.half[:, None] * (self._between_beams(transmission(table)) + correction) * self.half
            operator = slice_matrix if operator is None else slice_matrix @ operator
            partial.append(operator)
        return operator, partial[:-1]


def transmission(table):
    """Fourier coefficients of exp(iσv) from those of σv, on the same grid."""
    return torch.fft.fft2(torch.exp(1j * torch.fft.ifft2(table, norm="forward").real), norm="forward")


def slices_of(z, period_A, slice_A):
    """Equal slices of one period, none thicker than asked, no atomic plane near a border.

    Returns
    -------
    ndarray of int (n,), the slice of every atom, and the number of slices
    """
    count = max(1, int(np.ceil(period_A / slice_A - 1e-9)))
    thickness = period_A / count
    borders = -np.arange(16) / 16 * thickness  # of the first slice, which holds what lies at z = 0
    margins = [np.abs((z - b + thickness / 2) % thickness - thickness / 2).min(initial=thickness) for b in borders]
    border = borders[int(np.argmax(np.round(margins, 9)))]
    return np.floor(((z - border) % period_A) / thickness + 1e-9).astype(int) % count, count
