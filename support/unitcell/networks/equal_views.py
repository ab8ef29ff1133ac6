"""Layers to which the eight equal views of a window are alike by construction.

Mirrored in x, mirrored in y or moved by one column, a window is as likely as it was, and its tilts differ by signs
alone (`training_library.turned`). A network that has to learn this from examples spends most of them on it. Here every
channel has one value for each view, and a view's channels move with it. A linear layer that allows this can only be

    y = H (W_χ · (H x)_χ),    H_χg = χ(g)/√8,                                                         (1)

with χ the eight characters of the group Z₂ × Z₂ × Z₂ and H the Walsh–Hadamard matrix: eight small matrices, one for
each way in which signs can change, instead of one eight times as high and wide (Cohen and Welling 2016).
"""

import torch
from torch import nn

from unitcell.abf.simulation import CELL_SHAPE

VIEWS = 8  # view g is mirrored in x, mirrored in y, moved by one column where bits 0, 1, 2 of g are set
QUARTER = (21, 8)  # pixels of a cell of `CELL_SHAPE`, the B column at the first, whose eight views cover it


def view_index():
    """Pixels of a flattened cell that stand, in each view, where those of its first corner do: (8, 21 · 8)."""
    pixels, found = torch.arange(CELL_SHAPE[0] * CELL_SHAPE[1]).reshape(CELL_SHAPE), []
    for view in range(VIEWS):
        seen = pixels.roll(CELL_SHAPE[1] // 2, 1) if view & 4 else pixels
        seen = seen.flip(0).roll(1, 0) if view & 2 else seen
        seen = seen.flip(1).roll(1, 1) if view & 1 else seen
        found.append(seen[: QUARTER[0], : QUARTER[1]].flatten())
    return torch.stack(found)


def walsh_hadamard(values):
    """From views to characters, or back: (8, …) → (8, …), H of equation (1)."""
    order = torch.arange(VIEWS, device=values.device)
    odd = sum((order[:, None] & order) >> bit & 1 for bit in range(3)) % 2
    matrix = (1.0 - 2.0 * odd.to(values.dtype)) / VIEWS**0.5
    return (matrix @ values.flatten(1)).unflatten(1, values.shape[1:])


class EqualLinear(nn.Module):
    """Equation (1): channels by view (8, B, inputs) → (8, B, outputs).

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    scale : float
        Of the initial weights, relative to those of `torch.nn.Linear`.
    """

    def __init__(self, inputs, outputs, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(scale * (2 * torch.rand(VIEWS, inputs, outputs) - 1) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        by_character = torch.bmm(walsh_hadamard(x), self.weight)
        return walsh_hadamard(by_character) + self.bias.to(by_character.dtype)


class EqualNorm(nn.BatchNorm1d):
    """Batch normalisation of (8, B, channels): all views of a channel share their mean and variance."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class EqualShortcut(nn.Module):
    """x + what two layers make of it, the first normalised (He et al. 2016): (8, B, width) → (8, B, width)."""

    def __init__(self, width, inner):
        super().__init__()
        self.body = nn.Sequential(
            EqualNorm(width), nn.ReLU(), EqualLinear(width, inner), nn.ReLU(), EqualLinear(inner, width, scale=0.3)
        )

    def forward(self, x):
        return x + self.body(x)
