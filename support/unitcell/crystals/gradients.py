"""Atomic positions as differentiable functions of the tilts."""

import numpy as np
import torch

from unitcell.crystals.octahedra import ROOT2, beam_periods, lattice_block, tilt_signs
from unitcell.crystals.perovskite import lattice_lengths, perovskite_sites


def tilted_positions(tilts_deg, signs="---", lattice_A=3.905):
    """Positions of the atoms of `tilted_perovskite`, in its order, with gradients to the tilts.

    Parameters
    ----------
    tilts_deg : tensor (3,) or (batch, 3)
        (α, β, γ) [degrees].
    signs : str
        Tilt pattern, see `octahedra.tilt_signs`.
    lattice_A : float or tuple of three floats
        As in `tilted_perovskite`.

    Returns
    -------
    tensor (n, 3) or (batch, n, 3) [Å]
        Not wrapped into the cell: periodic images of the crystal's own.
    """
    octahedra = lattice_block(2 * beam_periods(signs), 2, 2 * beam_periods(signs))
    sites, _ = perovskite_sites(octahedra, lambda n: np.zeros(n.shape), np.zeros(octahedra.shape))
    oxygens = torch.cat([_displacements(tilts_deg, octahedra, axis, signs) for axis in range(3)], dim=-2)
    still = torch.zeros((*tilts_deg.shape[:-1], 2 * len(octahedra), 3), dtype=oxygens.dtype, device=oxygens.device)
    moved = torch.as_tensor(sites, dtype=oxygens.dtype, device=oxygens.device) + torch.cat([still, oxygens], dim=-2)
    i, j, k = moved.unbind(dim=-1)
    frame = torch.stack([(i + j) / ROOT2, k, (i - j) / ROOT2], dim=-1)
    return frame * torch.as_tensor(lattice_lengths(lattice_A), dtype=frame.dtype, device=frame.device)


def _displacements(tilts_deg, octahedra, axis, signs):
    """Displacements of the oxygens between n and n + e: half the difference of the arms R_n·e/2 and R_{n+e}·e/2."""
    step = np.eye(3, dtype=int)[axis]
    arms = [_rotations(tilts_deg, tilt_signs(signs, n))[..., axis] / 2 for n in (octahedra, octahedra + step)]
    return (arms[0] - arms[1]) / 2


def _rotations(tilts_deg, alternation):
    """Rotation matrices exp([ω]×) of every octahedron: (…, n, 3, 3)."""
    signs = torch.as_tensor(alternation, dtype=tilts_deg.dtype, device=tilts_deg.device)
    x, y, z = torch.deg2rad(tilts_deg[..., None, :] * signs).unbind(dim=-1)
    zero = torch.zeros_like(x)
    rows = [(zero, -z, y), (z, zero, -x), (-y, x, zero)]
    return torch.linalg.matrix_exp(torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2))
