"""Electron scattering by crystals: from atoms and a microscope to annular-detector images."""

from unitcell.scattering.beams import brillouin_zone, fibonacci_points, supercell_points
from unitcell.scattering.bloch import annular_images
from unitcell.scattering.convergence import Sampling, choose_sampling
from unitcell.scattering.microscope import Microscope
from unitcell.scattering.multislice import MultisliceImages, multislice_images, scan_positions
from unitcell.scattering.phonons import Vibrations, frozen_phonon_images
from unitcell.scattering.thermal import thermal_images

__all__ = [
    "Microscope",
    "MultisliceImages",
    "Sampling",
    "Vibrations",
    "annular_images",
    "brillouin_zone",
    "choose_sampling",
    "fibonacci_points",
    "frozen_phonon_images",
    "multislice_images",
    "scan_positions",
    "supercell_points",
    "thermal_images",
]
