"""Crystals as ASE atoms in the frame of the image: x ∥ [110], y ∥ [001], beam z ∥ [1-10]."""

from unitcell.crystals.checks import require_sound
from unitcell.crystals.files import from_file
from unitcell.crystals.glazer import (
    GLAZER_SYSTEMS,
    GlazerTilt,
    glazer_of,
    glazer_perovskite,
    glazer_system,
    parse_glazer,
)
from unitcell.crystals.gradients import tilted_positions
from unitcell.crystals.layers import Layer, corner_rotations, graded_layers, layered_perovskite
from unitcell.crystals.measurement import MeasuredTilts, measure_tilts, pseudocubic_axes
from unitcell.crystals.octahedra import beam_periods, tilt_signs
from unitcell.crystals.perovskite import tilted_perovskite
from unitcell.crystals.structures import random_vacancies, rock_salt, ruddlesden_popper
from unitcell.crystals.supercell import PAPER_BLOCK, repeat_to
from unitcell.crystals.zones import along_zone

__all__ = [
    "GLAZER_SYSTEMS",
    "PAPER_BLOCK",
    "GlazerTilt",
    "Layer",
    "MeasuredTilts",
    "along_zone",
    "beam_periods",
    "corner_rotations",
    "from_file",
    "glazer_of",
    "glazer_perovskite",
    "glazer_system",
    "graded_layers",
    "layered_perovskite",
    "measure_tilts",
    "parse_glazer",
    "pseudocubic_axes",
    "random_vacancies",
    "repeat_to",
    "require_sound",
    "rock_salt",
    "ruddlesden_popper",
    "tilt_signs",
    "tilted_perovskite",
    "tilted_positions",
]
