"""A crystal cut into slices, and what each slice does to a wave.

A slice of the crystal multiplies the wave by t = exp(iσv), where v is its projected potential,

    v(r) = 1/area Σ_q exp(2πi q·r) Σ_j f_j(|q|) exp(−2πi q·r_j),                       (1)

f the projected scattering factors of Lobato and Van Dyck (Acta Cryst. A 70, 636, 2014), and the sums
run over the atoms of the slice and the frequencies of the grid ("infinite" projection: an atom's whole
potential is put into the slice that holds its centre).
"""

from dataclasses import dataclass

import numpy as np
import torch
from abtem.parametrizations import LobatoParametrization

from unitcell.errors import InputError
from unitcell.scattering.wave_grid import as_tensor

CLEARANCE_A = 0.25
SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class Slices:
    """Slices of one period along the beam (or of the whole of a crystal that does not repeat).

    Parameters
    ----------
    thicknesses_A : ndarray, shape (S,)
        Thickness of each slice [Å].
    owner : ndarray of int, shape (atoms,)
        The slice that holds each atom.
    repeats : bool
        Whether the crystal goes on after the last slice with the first one.
    """

    thicknesses_A: np.ndarray
    owner: np.ndarray
    repeats: bool

    @property
    def period_A(self):
        """Height of the stack [Å]."""
        return float(self.thicknesses_A.sum())

    def exit_planes(self, thicknesses_A):
        """For each thickness the number of slices that comes nearest, ndarray of int, and the depth there [Å].

        Raises
        ------
        InputError
            No thickness, a negative one, or one beyond a crystal that does not repeat along the beam.
        """
        wanted = np.atleast_1d(np.asarray(thicknesses_A, dtype=float))
        if wanted.size == 0 or not np.isfinite(wanted).all() or wanted.min() < 0:
            raise InputError(f"Thicknesses of {wanted.tolist()} Å cannot be: give one or more numbers, none negative.")
        if not self.repeats and wanted.max() > self.period_A + self.thicknesses_A.max() / 2:
            raise InputError(
                f"A thickness of {wanted.max():g} Å is beyond the crystal's {self.period_A:g} Å: give a smaller one, "
                "or set crystal.pbc = True if it repeats along the beam."
            )
        periods = int(wanted.max() // self.period_A) + 1 if self.repeats else 1
        depths = np.concatenate([[0.0], np.cumsum(np.tile(self.thicknesses_A, periods))])
        planes = np.abs(wanted[:, None] - depths).argmin(axis=1)
        return planes, depths[planes]


def cut_slices(crystal, slice_A):
    """Cut a crystal into slices of about `slice_A`, no atomic plane split by a boundary.

    Equal slices are the start; a boundary closer than 0.25 Å to an atom moves to the nearest place
    that is clear, by less than half a slice, or to the clearest there. In a crystal that repeats along
    the beam (``crystal.pbc[2]``) the entrance plane moves too, and atoms are wrapped into the period.

    Parameters
    ----------
    crystal : ase.Atoms
    slice_A : float
        Slice thickness [Å].

    Returns
    -------
    Slices
    """
    height, repeats = float(crystal.cell.lengths()[2]), bool(crystal.pbc[2])
    if not (np.isfinite(slice_A) and slice_A > 0 and height > 0):
        raise InputError(f"slice_A = {slice_A} for a crystal {height:g} Å high cannot be: give two positive lengths.")
    z = crystal.positions[:, 2]
    if not np.isfinite(crystal.positions).all():
        raise InputError("Some atomic positions are not numbers: remove the NaN from the crystal.")
    count = max(1, int(np.ceil(height / slice_A - 1e-9)))
    step = height / count
    edges = np.arange(count + 1) * step
    movable = np.arange(count) if repeats else np.arange(1, count)
    for edge in movable:
        edges[edge] = _clear_place(edges[edge], step, z, height if repeats else np.inf)
    if repeats:
        edges[-1] = edges[0] + height
        z = edges[0] + np.mod(z - edges[0], height)
    owner = np.clip(np.searchsorted(edges, z, side="right") - 1, 0, count - 1)
    return Slices(np.diff(edges), owner, repeats)


def _clear_place(edge, step, z, period):
    """The place nearest to the edge that is clear of atoms, or the clearest one within half a step."""
    if len(z) == 0:
        return edge
    moves = np.linspace(-0.45, 0.45, 91) * step
    moves = moves[np.argsort(np.abs(moves).round(9), kind="stable")]
    away = np.abs(edge + moves[:, None] - z)
    if np.isfinite(period):
        away = np.mod(away, period)
        away = np.minimum(away, period - away)
    return edge + moves[np.minimum(away.min(axis=1), CLEARANCE_A).round(9).argmax()]


def displaced_positions(crystal, periods, sigmas_A, seed, sign=1):
    """Positions across the beam of every atom in every period [Å], ndarray (periods, atoms, 2).

    Einstein's model: every atom is displaced on its own, by a normal deviate of its element's rms
    displacement per axis, σ² = B / 8π². The displacement along the beam would only matter if it moved
    an atom into another slice, and is left out.

    Parameters
    ----------
    crystal : ase.Atoms
    periods : int
        Repeats along the beam, each displaced anew.
    sigmas_A : mapping of str to float, or None
        Rms displacement along one axis [Å] of each element; None leaves every atom in its place.
    seed : int or sequence of int
    sign : int
        −1 displaces every atom the opposite way.
    """
    still = np.broadcast_to(crystal.positions[:, :2], (periods, len(crystal), 2))
    if sigmas_A is None:
        return still
    sigma = np.array([sigmas_A[symbol] for symbol in crystal.get_chemical_symbols()])
    return still + sign * np.random.default_rng(seed).normal(size=still.shape) * sigma[:, None]


def slice_potentials(crystal, slices, grid, positions_A, count, *, first=0, device="cpu", dtype=torch.float32):
    """Projected potentials of `count` slices from number `first` on, from equation (1), a block of slices at a time.

    Parameters
    ----------
    crystal : ase.Atoms
    slices : Slices
    grid : WaveGrid
    positions_A : ndarray, shape (periods, atoms, 2)
        Positions across the beam, as `displaced_positions` returns them [Å].
    count, first : int
        Numbers of slices, counted through the periods.
    device, dtype : torch device and real dtype

    Yields
    ------
    torch.Tensor, shape (up to 16, X, Y) [V Å]
    """
    species = _species(crystal, slices, grid, dtype, device)
    for start in range(first, first + count, SLICES_AT_ONCE):
        number = np.arange(start, min(start + SLICES_AT_ONCE, first + count))
        yield _projected(species, grid, positions_A, *np.divmod(number, len(slices.thicknesses_A)), dtype, device)


def transmission_functions(crystal, slices, grid, positions_A, out, *, first=0):
    """Write t = exp(iσv) of the slices from number `first` on, within the band limit, into `out`.

    Parameters
    ----------
    crystal, slices, grid, positions_A, first
        As in `slice_potentials`.
    out : torch.Tensor, complex, shape (count, X, Y)
        Filled in place: for a thick crystal it is the largest thing in memory, and there is no room for two.
    """
    where = {"device": out.device, "dtype": out.real.dtype}
    band = as_tensor(grid.band / np.prod(grid.shape), where["dtype"], out.device)
    start = 0
    for potential in slice_potentials(crystal, slices, grid, positions_A, len(out), first=first, **where):
        transmitted = torch.polar(torch.ones_like(potential), grid.microscope.interaction * potential)
        block = torch.fft.ifft2(torch.fft.fft2(transmitted).mul_(band), norm="forward")
        out[start : start + len(block)] = block
        start += len(block)


def _species(crystal, slices, grid, dtype, device):
    """For each element its factor f / area (X, Y/2 + 1) and, per slice, its atoms' indices and a mask of padding."""
    symbols, (qx, qy) = np.array(crystal.get_chemical_symbols()), grid.frequencies
    square = qx**2 + qy[:, : grid.shape[1] // 2 + 1] ** 2
    found = []
    for symbol in np.unique(symbols):
        lists = [np.flatnonzero((symbols == symbol) & (slices.owner == s)) for s in range(len(slices.thicknesses_A))]
        members = np.zeros((len(lists), max(map(len, lists))), dtype=int)
        present = np.zeros(members.shape)
        for row, atoms in enumerate(lists):
            members[row, : len(atoms)], present[row, : len(atoms)] = atoms, 1
        factor = LobatoParametrization().projected_scattering_factor(symbol)(square) / np.prod(grid.lengths_A)
        found.append((as_tensor(factor, dtype, device), members, present))
    return found


def _projected(species, grid, positions_A, period, number, dtype, device):
    """Equation (1) for some slices, given by their period and their number in it: real (slices, X, Y) [V Å]."""
    qx, qy = grid.frequencies
    half = grid.shape[1] // 2 + 1
    total = as_tensor(np.zeros((len(number), grid.shape[0], half), dtype=complex), dtype, device)
    for factor, members, present in species:
        r = positions_A[period[:, None], members[number]]  # (slices, atoms, 2)
        along_x = np.exp(-2j * np.pi * qx * r[:, None, :, 0]) * present[number][:, None, :]  # (slices, X, atoms)
        along_y = np.exp(-2j * np.pi * qy[:, :half] * r[:, :, 1, None])  # (slices, atoms, Y/2 + 1)
        total += factor * (as_tensor(along_x, dtype, device) @ as_tensor(along_y, dtype, device))
    return torch.fft.irfft2(total, s=grid.shape, norm="forward")
