"""Crystals as ASE atoms in the frame of the image: x ∥ [110], y ∥ [001], beam z ∥ [1-10]."""

from unitcell.crystals.perovskite import beam_periods, tilt_signs, tilted_perovskite

__all__ = ["beam_periods", "tilt_signs", "tilted_perovskite"]
