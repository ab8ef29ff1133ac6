"""CaTiO3 as refined in Pbnm: a perovskite that the package did not build."""

from ase.spacegroup import crystal

SITES = {"Ca": (0.00648, 0.0356, 0.25), "Ti": (0.0, 0.5, 0.0)}
OXYGENS = [(0.5711, -0.0161, 0.25), (0.2897, 0.2888, 0.0373)]
A_O, B_O, C_O = 5.380, 5.440, 7.639  # Å


def calcium_titanate():
    """Pbnm in the frame of the image: x ∥ b_o, y ∥ c_o, z ∥ a_o, which is the standard setting Pnma."""
    basis = [(y, z, x) for x, y, z in [*SITES.values(), *OXYGENS]]
    return crystal([*SITES, "O", "O"], basis, spacegroup=62, cellpar=[B_O, C_O, A_O, 90, 90, 90])
