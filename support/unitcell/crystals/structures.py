"""The crystals of Kalinin et al. (2020) that are no perovskites: Sr3Fe2O7 and NiO."""

import numpy as np
from ase.spacegroup import crystal

from unitcell.crystals.perovskite import check_species
from unitcell.crystals.zones import along_zone
from unitcell.errors import InputError

# Neutron refinement of Sr3Fe2O(7−x) at 500 K, I4/mmm: Kalinin et al. (2020), table S1. The values are
# element, fractional coordinates and occupancy.
SR3FE2O7_A, SR3FE2O7_C = 3.87098, 20.20233  # Å
SR3FE2O7_SITES = (
    ("Sr", (0.0, 0.0, 0.5), 1.0),
    ("Sr", (0.0, 0.0, 0.3176), 1.0),
    ("Fe", (0.0, 0.0, 0.0986), 1.0),
    ("O", (0.0, 0.5, 0.0927), 1.0),
    ("O", (0.0, 0.0, 0.1941), 1.0),
    ("O", (0.0, 0.0, 0.0), 0.78),
)
# Zone and upward direction, so that [001] is the image's y and, for '110', [110] its x.
ZONES = {"100": ((1, 0, 0), (0, 0, 1)), "110": ((1, -1, 0), (0, 0, 1))}


def ruddlesden_popper(zone="100"):
    """Sr3Fe2O7, the n = 2 Ruddlesden–Popper phase, seen along [100] or [1-10], with [001] along y.

    Parameters
    ----------
    zone : str
        '100' for a cell a × c × a, '110' for √2·a × c × √2·a.

    Returns
    -------
    ase.Atoms
        All sites filled. Array `occupancy` is 0.78 on the inner oxygen between the two FeO2 planes and 1
        elsewhere; `random_vacancies` empties sites by it.

    References
    ----------
    Kalinin et al. (2020), Deep Bayesian local crystallography, table S1.
    """
    symbols, sites, occupancies = zip(*SR3FE2O7_SITES, strict=True)
    cell = [SR3FE2O7_A, SR3FE2O7_A, SR3FE2O7_C, 90, 90, 90]
    atoms = crystal(symbols, sites, spacegroup=139, cellpar=cell, onduplicates="error")
    atoms.set_array("occupancy", np.array(occupancies)[atoms.arrays["spacegroup_kinds"]])
    return _seen_along(atoms, zone)


def rock_salt(zone="110", cation="Ni", anion="O", lattice_A=4.177):
    """A rock-salt crystal, NiO unless told otherwise, with [001] along y.

    Parameters
    ----------
    zone : str
        '100' for a cell a × a × a, '110' for a beam along [1-10] and a cell a/√2 × a × a/√2.
    cation, anion : str
        Chemical symbols.
    lattice_A : float
        Edge of the cubic cell [Å].

    Returns
    -------
    ase.Atoms
    """
    check_species(cation, anion)
    if not 3.0 <= lattice_A <= 8.0:
        raise InputError(f"lattice_A = {lattice_A:g} Å is no rock salt's: give 3 to 8 Å, NiO has 4.177.")
    cell = [lattice_A] * 3 + [90] * 3
    return _seen_along(crystal((cation, anion), [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=cell), zone)


def random_vacancies(atoms, seed):
    """Empty each site with the probability that its `occupancy` leaves.

    Repeat the crystal to its full size first: a vacancy repeats with its cell.

    Parameters
    ----------
    atoms : ase.Atoms
        With an array `occupancy` from 0 to 1, as `ruddlesden_popper` gives it.
    seed : int
        The same seed empties the same sites.

    Returns
    -------
    ase.Atoms
        The atoms that remain, without `occupancy`.
    """
    if "occupancy" not in atoms.arrays:
        raise InputError("The crystal has no array `occupancy`: set it, one value from 0 to 1 for each atom.")
    occupancy = atoms.arrays["occupancy"]
    if not ((occupancy >= 0) & (occupancy <= 1)).all():
        raise InputError(f"occupancy runs from {occupancy.min():g} to {occupancy.max():g}: give values from 0 to 1.")
    filled = atoms[np.random.default_rng(seed).random(len(atoms)) < occupancy]
    del filled.arrays["occupancy"]
    return filled


def _seen_along(atoms, zone):
    """Along one of the named zones, its directions and symmetry bookkeeping left behind."""
    if zone not in ZONES:
        raise InputError(f"zone = '{zone}' is not prepared for this crystal: give '100' or '110', or use `along_zone`.")
    cut = along_zone(atoms, *ZONES[zone])
    del cut.arrays["spacegroup_kinds"]
    return cut
