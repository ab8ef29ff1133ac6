"""Electron scattering by crystals: from atoms and a microscope to annular-detector images."""

from unitcell.scattering.bloch import annular_images, brillouin_zone, projected_potential
from unitcell.scattering.microscope import Microscope

__all__ = ["Microscope", "annular_images", "brillouin_zone", "projected_potential"]
