"""What is sought of a specimen of known composition, and the window that it shows.

A point x holds a value of each of `SOUGHT`. The first make an image of the crystal (thermal images, see
`unitcell.scattering.thermal`), the others are how it is recorded: source, offset, distortion.
"""

from dataclasses import replace

import numpy as np
import torch

from unitcell.abf.simulation import CELL_SHAPE
from unitcell.crystals import beam_periods, tilted_perovskite
from unitcell.crystals.perovskite import LARGEST_A_SHIFT
from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.networks.training_windows import cell_extent_A, pixel_positions, refine, sample_periodic, standardise
from unitcell.scattering import fibonacci_points, thermal_images
from unitcell.scattering.debye_waller import b_factors
from unitcell.scattering.thermal import RETURNED

# Step, least and largest value, usual size (0: any) of what is sought, and by how much it differs between fits of one
# image (0: as usual). What has a direction has two components; strains keep the volume.
# v, u and γ are those of the octahedron at the origin: where '+' alternates along the beam, the image shows a mean.
SOUGHT = {
    "v_deg": (1.0, -20.0, 20.0, 0.0, 0.0), "u_deg": (1.0, -20.0, 20.0, 0.0, 0.0),
    "gamma_deg": (1.0, -20.0, 20.0, 0.0, 0.0),
    "thickness_A": (15.0, 15.0, 600.0, 0.0, 15.0), "defocus_A": (10.0, -80.0, 80.0, 12.0, 6.0),
    "astigmatism_x_A": (8.0, -40.0, 40.0, 6.0, 3.0), "astigmatism_y_A": (8.0, -40.0, 40.0, 6.0, 3.0),
    "coma_x_A": (80.0, -500.0, 500.0, 85.0, 40.0), "coma_y_A": (80.0, -500.0, 500.0, 85.0, 40.0),
    "spherical_A": (4e3, -2e4, 2e4, 4e3, 2e3),
    "crystal_tilt_x_mrad": (1.5, -8.0, 8.0, 2.0, 0.0), "crystal_tilt_y_mrad": (1.5, -8.0, 8.0, 2.0, 0.0),
    "returned": (0.05, 0.0, 0.4, 0.06, 0.0), "log_vibration": (0.2, -0.5, 0.5, 0.15, 0.0),
    "a_shift": (0.5, -0.5, 3.0, 0.5, 0.0),
    "strain_xx": (0.02, -0.08, 0.08, 0.015, 0.0), "strain_yy": (0.02, -0.08, 0.08, 0.015, 0.0),
    "source_xx_A2": (0.03, -0.05, 0.5, 0.0, 0.02), "source_xy_A2": (0.03, -0.2, 0.2, 0.03, 0.01),
    "source_yy_A2": (0.03, -0.05, 0.5, 0.0, 0.02),
    "offset_x_A": (0.05, -0.8, 0.8, 0.1, 0.0), "offset_y_A": (0.05, -0.8, 0.8, 0.1, 0.0),
    "stretch_xx": (0.01, -0.1, 0.1, 0.01, 0.0), "stretch_xy": (0.01, -0.1, 0.1, 0.01, 0.0),
    "stretch_yx": (0.01, -0.1, 0.1, 0.01, 0.0), "stretch_yy": (0.01, -0.1, 0.1, 0.01, 0.0),
}  # fmt: skip
NAMES = tuple(SOUGHT)
PLACE = {name: place for place, name in enumerate(NAMES)}
SPECIMEN = PLACE["source_xx_A2"]  # of these must be simulated anew; what follows need not
DISTORTION = tuple(range(PLACE["offset_x_A"], len(NAMES)))
STEP, LOW, HIGH, USUAL, WITHIN = (np.array(part) for part in zip(*SOUGHT.values(), strict=True))
MEAN = np.array([{"returned": RETURNED, "a_shift": 1.0}.get(name, 0.0) for name in NAMES])
# Points over which the beam's directions are averaged, and cut-off [mrad]. With the first, slopes err by a tenth and
# windows by 3 % of their standard deviation; with the last, by a hundredth and 1 %.
ROUGH, COARSE, MIDDLE, FINE = (2, 38.0), (3, 40.0), (5, 40.0), (13, 42.0)
K_SHIFT = np.array([0.3, 0.6])
# Antipolar displacements of A come with tilts of both signs, by a trilinear coupling: so many lattice parameters per
# degree of '+' and degree of '-', which orthorhombic perovskites (CaTiO3, LaMnO3, EuMnO3) follow to a quarter; and the
# alternating part of theirs.
A_SHIFT, SECOND_SHIFT = 6e-4, 0.15
LEAST_DIRECTION_DEG = 0.1  # tilts that give A displacements a direction


def expected(known=None):
    """Mean and usual size (0: any) of all that is sought; near another fit of the same image, if one is known."""
    if known is None:
        return MEAN, USUAL
    return np.where(WITHIN > 0, known, MEAN), np.where(WITHIN > 0, WITHIN, USUAL)


def simulated(x, how, effort, depths=None):
    """Images of the specimen at a point: tensor (T, rows, columns), the B column at the first pixel.

    Parameters
    ----------
    x : ndarray (len(SOUGHT),)
    how : (Material, str, unitcell.scattering.Microscope)
        What is known: the crystal, its pattern's signs, energy and apertures.
    effort : (int, float)
        `ROUGH`, `COARSE`, `MIDDLE` or `FINE`.
    depths : ndarray (T,), optional
        Thicknesses [Å] instead of the one at x.
    """
    material, signs, microscope = how
    values, (count, cutoff) = dict(zip(NAMES, map(float, x), strict=True)), effort
    vibration = np.exp(values["log_vibration"])
    images = thermal_images(
        _crystal(values, material, signs), through(values, microscope),
        [values["thickness_A"]] if depths is None else depths, (CELL_SHAPE[0], beam_periods(signs) * CELL_SHAPE[1]),
        returned=values["returned"], cutoff_mrad=max(cutoff, 1.2 * microscope.outer_mrad), excitation_per_A=0.0,
        k_points=k_points(count), shares=material.shares,
        debye_waller_A2={name: b * vibration for name, b in b_factors(material.elements).items()},
    )  # fmt: skip
    return images[..., : CELL_SHAPE[1]].float()


def recorded(cells, x, lattice_A):
    """Standardised windows, flat: ndarray (n, pixels), of cells (n, rows, columns) recorded as points (n, ·) say."""
    rest = torch.as_tensor(np.atleast_2d(x)[:, SPECIMEN:], dtype=torch.float32)
    source, offset, stretch = rest[:, :3], rest[:, 3:5], rest[:, 5:].reshape(-1, 2, 2)
    extent_A = cell_extent_A(lattice_A)
    return windows_of(refine(cells, source, extent_A), extent_A, (lattice_A, lattice_A), offset, stretch)


def windows_of(fine, extent_A, pitches_A, offset, stretch):
    """Standardised windows, flat: ndarray (n, pixels).

    Parameters
    ----------
    fine : tensor (n, rows, columns)
        Periodic images.
    extent_A : (float, float)
        Their height and width [Å].
    pitches_A : (float, float)
        Lattice parameters along x and y [Å].
    offset, stretch : tensor (n, 2), (n, 2, 2)
        How far (x, y) the middle of a window lies from the first pixel [Å], and its distortion.
    """
    distortion = torch.eye(2) + stretch
    position = torch.einsum("nij,hwj->nhwi", distortion, pixel_positions(pitches_A)) + offset[:, None, None]
    return standardise(sample_periodic(fine, position, extent_A)).flatten(1).double().numpy()


def k_points(count):
    """Directions of the beam over which images are averaged: ndarray (count, 2)."""
    return (fibonacci_points(count) + K_SHIFT + 0.5) % 1 - 0.5


def lengths_A(values, material):
    """Pseudo-cubic lattice parameters along x, y, z [Å], strained, of the volume that is known: ndarray (3,)."""
    lengths = 1 + np.array([values["strain_xx"], values["strain_yy"]])
    return material.lattice_A * np.array([*lengths, 1 / lengths.prod()])


def a_displacements(tilts, signs, size):
    """A displacements, for `unitcell.crystals.tilted_perovskite`, that come with tilts (α, β, γ) of some signs."""
    sizes = [np.linalg.norm([t for t, sign in zip(tilts, signs, strict=True) if sign == each]) for each in "+-"]
    shift = A_SHIFT * size * np.prod(sizes) if min(sizes) > LEAST_DIRECTION_DEG else 0.0
    return tuple(np.clip((shift, SECOND_SHIFT * shift), -LARGEST_A_SHIFT, LARGEST_A_SHIFT))


def _crystal(values, material, signs):
    """The tilted crystal, sites that elements share written as one of them."""
    tilts = to_pseudocubic(values["v_deg"], values["u_deg"], values["gamma_deg"])
    a_shift = a_displacements(tilts, signs, values["a_shift"])
    return tilted_perovskite(*tilts, signs, *material.stand_ins, tuple(lengths_A(values, material)), a_shift=a_shift)


def through(values, microscope):
    """The microscope with the lens and crystal tilt of a point."""
    astigmatism = complex(values["astigmatism_x_A"], values["astigmatism_y_A"])
    coma = complex(values["coma_x_A"], values["coma_y_A"])
    same = ("defocus_A", "spherical_A", "crystal_tilt_x_mrad", "crystal_tilt_y_mrad")
    return replace(
        microscope, **{name: values[name] for name in same},
        astigmatism_A=abs(astigmatism), astigmatism_deg=np.degrees(np.angle(astigmatism)) / 2 % 180,
        coma_A=abs(coma), coma_deg=np.degrees(np.angle(coma)) % 360,
    )  # fmt: skip
