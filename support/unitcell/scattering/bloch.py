"""Images of a periodic crystal from its Bloch waves: every thickness from one diagonalisation.

A fast electron in a crystal obeys, in the small-angle approximation and in the basis of the beams (h, k, l),

    dψ/dz = i A ψ,   A_gh = 2π s_g δ_gh + (σ / c) V_{g−h},                                          (1)

with s_g the excitation error, σ the interaction constant and V_g/c the Fourier coefficients of the potential in
three dimensions. A is Hermitian, A = U Λ U†, so the scattering matrix of every thickness t is
S(t) = U exp(iΛt) U† (Bethe 1928; Kirkland, Advanced Computing in Electron Microscopy, chapter 6). Beams of upper
Laue zones take part where they are near the Ewald sphere; without them A is that of one projected potential.
Weak beams w, far from the Ewald sphere, only lend their strength to the others (Bethe potentials):

    A_gh → A_gh − Σ_w A_gw A_wh / 2π s_w.                                                           (2)

Where the ring of an upper zone meets the detector, the beams of all zones at one angle interfere there,

    ψ_hk(t) = Σ_l ψ_hkl(t) exp(2πi l t/c).                                                          (3)
"""

import numpy as np
import torch

from unitcell.errors import InputError
from unitcell.scattering.beams import (
    brillouin_zone,
    centrings,
    excitation_errors,
    independent_blocks,
    require_sampled,
    select_beams,
)
from unitcell.scattering.potential import Atomic, absorptive_factor, is_real
from unitcell.scattering.probe import ImageSum, complex_of

CUTOFF_MRAD = 60.0
EXCITATION_PER_A = 0.025
WEAK = 1.7  # weak beams reach to so many times the cut-off
STEP_A = 20.0  # through which absorption is followed at once
SAME_A = 1e-3  # lengths that differ by less need no other step


def annular_images(
    crystal, microscope, thicknesses_A, shape, *, cutoff_mrad=CUTOFF_MRAD, excitation_per_A=None,
    k_points=(2, 2), fold=True, thermal=True, absorption=0.0, debye_waller_A2=None, shares=None, detectors_mrad=None,
    positions=None, crystal_tilt_mrad=None, device="cpu", dtype=torch.float32,
):  # fmt: skip
    """Elastic annular-detector images of one cell at every thickness, for one crystal or a batch.

    Parameters
    ----------
    crystal : ase.Atoms, or a list of them with equal cell and elements
        Orthogonal periodic cell, beam along z.
    microscope : unitcell.scattering.Microscope
    thicknesses_A : sequence of float or tensor, shape (T,)
        Thicknesses [Å].
    shape : (rows, columns)
        Probe positions over the cell: rows along y, columns along x, the first at the origin.
    cutoff_mrad : float
        Beams of the zeroth Laue zone up to this angle [mrad]; from there to 1.7 times it they count as weak.
    excitation_per_A : float, optional
        Largest excitation error of the beams of upper zones [1/Å]; 0 for one projected potential. None: 0.025 for a
        static lattice, 0 for a thermal one, whose Debye–Waller factors damp upper zones away.
    k_points : (int, int) or ndarray (n, 2)
        Sampling of the Brillouin zone, see `beams.brillouin_zone`: the probe repeats after so many cells.
    fold : bool
        Let k stand for −k too, where the crystal has an inversion centre at the origin. Exact for one projected
        potential; with upper zones it averages the crystal with its mirror image, which differs by some 0.1 %.
    thermal : bool
        Damp the potential by Debye–Waller factors, `debye_waller_A2` or the table of 300 K.
    absorption : float or bool
        Take away this share (True: 1) of the electrons that thermal diffuse scattering takes out of the elastic wave.
        Where they go, `thermal.thermal_images` says.
    shares : dict of str to dict, optional
        Of the elements that share the sites written as one symbol, {"La": {"La": 0.7, "Sr": 0.3}}: a virtual crystal.
    detectors_mrad : list of (inner, outer), optional
        Several detectors at once, instead of the microscope's.
    positions : tensor (n, 3) or (batch, n, 3), optional
        Atomic positions [Å] instead of the crystal's; gradients flow back to them.
    crystal_tilt_mrad : tensor (2,), optional
        Crystal tilt instead of the microscope's; gradients flow back to it.
    device, dtype : torch device and real dtype

    Returns
    -------
    torch.Tensor, shape ([batch,] [detectors,] T, rows, columns)
        Fraction of the incident electrons that reach the detector.

    Raises
    ------
    InputError
        Negative thickness, a detector beyond the cut-off, probes too near to each other, an unsound crystal.
    """
    detectors = detectors_mrad or [(microscope.inner_mrad, microscope.outer_mrad)]
    thicknesses = require_thicknesses(thicknesses_A, dtype, device)
    atomic = Atomic.of(crystal, thermal, debye_waller_A2, positions, device, shares)
    if excitation_per_A is None:
        excitation_per_A = 0.0 if thermal else EXCITATION_PER_A
    require_sampled(atomic.lengths, microscope, cutoff_mrad, detectors, k_points)
    tilt = crystal_tilt_mrad
    if tilt is None:
        tilt = torch.tensor([microscope.crystal_tilt_x_mrad, microscope.crystal_tilt_y_mrad], dtype=torch.float64)
    matrices = BlochMatrices(atomic, microscope, cutoff_mrad, excitation_per_A, absorption, tilt, dtype)
    batch = (len(atomic.positions), len(detectors), len(thicknesses))
    total = ImageSum(atomic.lengths, microscope, batch, device, dtype)
    upright = not (tilt.requires_grad or bool(tilt.any()))
    halve = fold and matrices.real and upright and _is_round(microscope)
    incident = 0.0
    for k, weight in brillouin_zone(k_points, atomic.lengths, inversion=halve):
        for blocks in matrices.groups(k, max(outer for _, outer in detectors)):
            incident += weight * _add_blocks(total, matrices, blocks, k, weight, detectors, thicknesses)
    if halve:
        total.coefficients = total.coefficients.real.to(total.coefficients.dtype)  # −k gives the image turned by 180°
    images = total.images(shape, incident)
    images = images if detectors_mrad else images[:, 0]
    return images if isinstance(crystal, (list, tuple)) or _batched(positions) else images[0]


class BlochMatrices:
    """The matrices A of equation (1) of a crystal, block by block and k by k.

    Parameters are those of `annular_images`; `real` says whether A is real (inversion centre at the origin).
    """

    def __init__(self, atomic, microscope, cutoff_mrad, excitation_per_A, absorption, tilt_mrad, dtype):
        if absorption and (atomic.positions.requires_grad or tilt_mrad.requires_grad):
            raise InputError("Gradients do not pass through the absorptive potential: set absorption=0.")
        self.atomic, self.microscope, self.tilt, self.dtype = atomic, microscope, tilt_mrad, dtype
        self.cutoff_mrad, self.excitation = cutoff_mrad, excitation_per_A
        reach = 2 * np.abs(self._all_beams(np.zeros(2))).max(axis=0) + [2, 2, 0]
        self.grid = [np.arange(-n, n + 1) for n in (*reach[:2], reach[2] // 2)]
        potential = atomic.coefficients(*self.grid)
        self.real = is_real(potential)
        self.potential = potential.real if self.real else potential
        self.centrings = centrings(self.potential, self.grid)
        factors = absorptive_factor(microscope.interaction)
        self.loss = float(absorption) * atomic.coefficients(*self.grid, factors=factors) if absorption else None

    def _all_beams(self, k):
        lean = self.tilt.detach().cpu().numpy() * 1e-3
        return select_beams(self.atomic.lengths, k, self.microscope, WEAK * self.cutoff_mrad, self.excitation, lean)

    def groups(self, k, outer_mrad):
        """Lists of independent blocks at k, each its strong and weak beams (h, k, l); zones that meet stay together."""
        beams = self._all_beams(k)
        angle = 1e3 * self.microscope.wavelength_A * np.hypot(*(beams[:, :2] / self.atomic.lengths[:2] + k).T)
        strong = (beams[:, 2] != 0) | (angle <= self.cutoff_mrad)
        blocks = [(beams[mask & strong], beams[mask & ~strong]) for mask in independent_blocks(beams, self.centrings)]
        meet = ((beams[:, 2] != 0) & (angle <= outer_mrad)).any()
        return [blocks] if meet else [[block] for block in blocks]

    def matrix(self, strong, weak, k):
        """A [rad/Å] of one block with equation (2): tensor (batch, n, n)."""
        matrix = self._gather(self.potential, strong, strong)
        matrix = matrix + torch.diag(self._kinetic(strong, k)).to(matrix.dtype)
        coupling = self._gather(self.potential, strong, weak)
        return matrix - (coupling / self._kinetic(weak, k).to(matrix.dtype)) @ coupling.mH

    def _kinetic(self, beams, k):
        """2π s of each beam [rad/Å]."""
        lengths, device = self.atomic.lengths, self.potential.device
        upright = excitation_errors(beams, k, lengths, self.microscope.wavelength_A)
        q = torch.as_tensor(beams[:, :2] / lengths[:2] + k, device=device)
        leaning = q @ (self.tilt.to(device).double() * 1e-3)  # here, so that gradients flow back to the tilt
        return 2 * np.pi * (torch.as_tensor(upright, device=device) - leaning)

    def losses(self, beams, vectors):
        """U†LU of the absorptive potential L between Bloch waves [1/Å]: tensor (batch, n, n)."""
        loss = self._gather(self.loss.real if self.real else self.loss, beams, beams).to(vectors.dtype)
        return vectors.mH @ loss @ vectors

    def _gather(self, table, rows, columns):
        """(σ/c) V_{g−h} between two sets of beams."""
        strides = np.array([table.shape[2] * table.shape[3], table.shape[3], 1])
        centre = int(strides @ [-n[0] for n in self.grid])
        index = torch.as_tensor((rows @ strides)[:, None] - (columns @ strides)[None, :] + centre, device=table.device)
        values = table.flatten(1).to(complex_of(self.dtype) if table.is_complex() else self.dtype)
        return values[:, index] * (self.microscope.interaction / self.atomic.lengths[2])


class Propagation(torch.autograd.Function):
    """S(t) = U exp(iΛt) U† between some rows and columns, differentiable also where Bloch waves are degenerate.

    The derivative needs no differences of eigenvectors: dS = U (Φ ∘ U† dA U) U† with the divided differences
    Φ_mn = (exp(iλ_m t) − exp(iλ_n t)) / (λ_m − λ_n), which stay finite.
    """

    @staticmethod
    def forward(ctx, matrix, thicknesses, rows, columns):
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors, thicknesses)
        ctx.rows, ctx.columns = rows, columns
        return evolved(values, vectors, thicknesses, rows, columns)

    @staticmethod
    def backward(ctx, gradient):
        values, vectors, thicknesses = ctx.saved_tensors
        full = vectors.to(gradient.dtype)
        inner = full[:, ctx.rows].mH[:, None] @ gradient @ full[:, ctx.columns][:, None]  # U†ḠU: (batch, T, n, n)
        mean, half = (values[:, :, None] + values[:, None, :]) / 2, (values[:, :, None] - values[:, None, :]) / 2
        through_matrix, through_thickness = 0, []
        for index, t in enumerate(thicknesses):
            divided = 1j * t * torch.exp(1j * mean * t) * torch.sinc(half * t / torch.pi)
            through_matrix = through_matrix + divided.conj() * inner[:, index]
            slope = 1j * values * torch.exp(1j * values * t)
            through_thickness.append((slope.conj() * inner[:, index].diagonal(dim1=-2, dim2=-1)).real.sum())
        through_matrix = full @ through_matrix @ full.mH
        real = not vectors.is_complex()
        return through_matrix.real if real else through_matrix, torch.stack(through_thickness), None, None


def evolved(values, vectors, thicknesses, rows, columns):
    """U exp(iΛt) U† [rows, columns] for every thickness: complex tensor (batch, T, rows, columns)."""
    angles = (values[:, None, :] * thicknesses[None, :, None])[:, :, None]
    left, right = vectors[:, rows][:, None], vectors[:, columns].mH[:, None]
    if vectors.is_complex():
        return (left * torch.exp(1j * angles)) @ right
    return torch.complex((left * angles.cos()) @ right, (left * angles.sin()) @ right)


def absorbed(values, vectors, losses, thicknesses, rows, columns):
    """`evolved` with losses L (batch, n, n) between Bloch waves, which damp each wave and mix them.

    From one thickness to the next by `transfer`: a wave that mixing changes goes on to be mixed.
    """
    kind = complex_of(values.dtype)
    left, state = vectors[:, rows].to(kind), vectors[:, columns].mH.to(kind)
    waves, depth, step, gap = [None] * len(thicknesses), 0.0, None, 0.0
    for index in torch.argsort(thicknesses).tolist():
        further = float(thicknesses[index]) - depth
        if further > 0:
            if abs(further - gap) > SAME_A:
                step, gap = transfer(values, losses, further), further
            state, depth = step @ state, depth + further
        waves[index] = left @ state
    return torch.stack(waves, dim=1)


def transfer(values, losses, length_A):
    """Bloch waves after `length_A`: tensor (batch, n, n), the square of the square … of a step h ≤ `STEP_A`.

    To first order in L a step is S(h) = exp(Γh) − (L − diag L) ∘ Φ, Γ = iΛ − diag L,
    Φ_mn = h exp((Γ_m + Γ_n) h/2) sinc((λ_m − λ_n) h/2); 2 S(h/2)² − S(h) takes the second order's error away.
    """
    doublings = max(0, int(np.ceil(np.log2(length_A / STEP_A))))
    h = length_A / 2**doublings
    rates = 1j * values - losses.diagonal(dim1=-2, dim2=-1).real
    mixing = losses - torch.diag_embed(losses.diagonal(dim1=-2, dim2=-1))
    apart = (values[:, :, None] - values[:, None, :]) / (2 * torch.pi)

    def first_order(h):
        grown = torch.exp(rates * h / 2)
        return torch.diag_embed(grown**2) - h * mixing * torch.sinc(apart * h) * grown[:, :, None] * grown[:, None, :]

    half = first_order(h / 2)
    step = 2 * half @ half - first_order(h)
    for _ in range(doublings):
        step = step @ step
    return step


def require_thicknesses(thicknesses_A, dtype, device):
    """Thicknesses as a tensor (T,), refused where none, negative or not finite."""
    if not isinstance(thicknesses_A, torch.Tensor):
        thicknesses_A = torch.as_tensor(np.asarray(thicknesses_A, dtype=float))
    thicknesses = thicknesses_A.to(device=device, dtype=dtype).reshape(-1)
    if len(thicknesses) == 0 or not bool(((thicknesses >= 0) & thicknesses.isfinite()).all()):
        raise InputError(f"Thicknesses of {thicknesses.tolist()} Å cannot be: give one or more, none negative.")
    return thicknesses


def _add_blocks(total, matrices, blocks, k, weight, detectors, thicknesses):
    """Add blocks whose waves meet on the detectors to the sum; return their number of incident beams."""
    parts = [_leaving(total, matrices, strong, weak, k, detectors, thicknesses) for strong, weak in blocks]
    phases, incident = (torch.cat([part[n] for part in parts]) for n in (2, 3))
    plane, waves = _interfered([part[0] for part in parts], [part[1] for part in parts])
    _, seen, _ = total.beams(plane, k, detectors)
    for index, detector in enumerate(seen):
        chosen = torch.as_tensor(detector, device=waves.device)
        total.add(waves[:, :, chosen], phases, incident.cpu().numpy(), weight, (slice(None), index))
    return len(incident)


def _leaving(total, matrices, beams, weak, k, detectors, thicknesses):
    """Beams of one block on any detector (rows, 3), their waves (batch, T, rows, columns), and what enters it.

    The last two are the phases (columns,) and indices (columns, 2) of the incident beams.
    """
    aperture, seen, phases = total.beams(beams[:, :2], k, detectors)
    incoming = beams[aperture, 2] == 0  # the same angle in an upper zone is another wave, not yet there
    columns, rows = aperture[incoming], np.unique(np.concatenate(seen))
    matrix = matrices.matrix(beams, weak, k)
    if matrices.loss is None:
        waves = Propagation.apply(matrix, thicknesses, rows, columns)
    else:
        values, vectors = torch.linalg.eigh(matrix)
        waves = absorbed(values, vectors, matrices.losses(beams, vectors), thicknesses, rows, columns)
    periods, layers = thicknesses / matrices.atomic.lengths[2], beams[rows, 2]
    if layers.any():
        layers = torch.as_tensor(layers, device=waves.device)
        waves = waves * torch.exp(2j * np.pi * periods[:, None] * layers).to(waves.dtype)[:, :, None]  # equation (3)
    phases = phases[torch.as_tensor(incoming, device=phases.device)]
    return beams[rows], waves, phases, torch.as_tensor(beams[columns, :2])


def _interfered(beams, waves):
    """Equation (3): beams of any block and zone at one angle are one wave. Indices (rows, 2), waves of all columns."""
    if len(beams) == 1 and not beams[0][:, 2].any():
        return beams[0][:, :2], waves[0]
    plane, group = np.unique(np.concatenate(beams)[:, :2], axis=0, return_inverse=True)
    groups = np.split(group.reshape(-1), np.cumsum([len(each) for each in beams])[:-1])
    sums = []
    for rows, part in zip(groups, waves, strict=True):
        empty = part.new_zeros((*part.shape[:2], len(plane), part.shape[-1]))
        sums.append(empty.index_add(2, torch.as_tensor(rows, device=part.device), part))
    return plane, torch.cat(sums, dim=-1)


def _is_round(microscope):
    """Whether the probe is the same at −q, so that k may stand for −k."""
    return not (microscope.coma_A or microscope.beam_tilt_x_mrad or microscope.beam_tilt_y_mrad)


def _batched(positions):
    return positions is not None and positions.dim() == 3
