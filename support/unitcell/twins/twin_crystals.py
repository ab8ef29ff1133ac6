"""The specimens of the paper's two experiments, rebuilt as stacks of layers whose every tilt is known.

Interfaces are normal to image y ∥ [001] and a stack joins itself after its last layer, so each twin is a
superlattice with two interfaces: the one under study in the middle, and a second one at its ends. Angles and
lattices are those of the materials, strained to the substrate of the experiments (LSAT); what the paper says of
the interfaces (Laanait et al. 2019, Figs. 4, 5, S6) is built in: a mixture of a⁻b⁻c⁻ and a⁻b⁺c⁻ in the first cells
of CaTiO3, and tilts of 4° about the in-plane axes, twice those about the normal, in the last ones of LSAT.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from unitcell.crystals import Layer, beam_periods, corner_rotations, layered_perovskite
from unitcell.crystals.octahedra import lattice_block
from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.errors import InputError

IN_PLANE_A = 3.868  # LSAT
LSAT = ({"La": 0.3, "Sr": 0.7}, {"Al": 0.65, "Ta": 0.35})
CTO = ({"Ca": 1.0}, {"Ti": 1.0})
LSMO = ({"La": 0.7, "Sr": 0.3}, {"Mn": 1.0})
ESMO = ({"Eu": 0.7, "Sr": 0.3}, {"Mn": 1.0})
COMPOSITIONS = {"CaTiO3": CTO, "LSAT": LSAT, "LSMO": LSMO, "ESMO": ESMO}
DIFFUSE_CELLS = 1.6  # of the tanh: 10 % to 90 % take 3.5 cells
MISORIENTED_MRAD = 4.0
THICKNESS_A = 186.0


@dataclass(frozen=True)
class TwinLayer:
    """One layer of a twin.

    Parameters
    ----------
    layer : unitcell.crystals.Layer
        Tilts, pattern, lattice and A displacements; its species only stand for their sites.
    material : str
        One of `COMPOSITIONS`.
    mixed : bool
        Whether its pattern is not yet that of its material, or 10 % to 90 % of its species are the other's.
    film_share : float
        Share of the species that are those of `film` and not of `material`.
    film : str
    lean_mrad : float
        How far its columns lean along x against the rest of the specimen [mrad].
    """

    layer: Layer
    material: str
    mixed: bool = False
    film_share: float = 0.0
    film: str = ""
    lean_mrad: float = 0.0

    @property
    def composition(self):
        """Shares of the elements on A and on B: two dict."""
        parts = [(1 - self.film_share, COMPOSITIONS[self.material])]
        parts += [(self.film_share, COMPOSITIONS[self.film])] if self.film else []
        sites = {}, {}
        for weight, elements in parts:
            for shares, site in zip(elements, sites, strict=True):
                for symbol, share in shares.items():
                    site[symbol] = site.get(symbol, 0.0) + weight * share
        return sites


def cto_lsat():
    """CaTiO3 a⁻b⁺c⁻ (rows 6–13) on LSAT (rows 0–5): list of TwinLayer."""
    substrate = [(0.0, 0.0, 0.0)] * 3 + [(0.8, 0.8, 0.4), (2.5, 2.5, 1.2), (4.0, 4.0, 2.0)]
    found = [TwinLayer(_layer(tilts, "---", "Sr", "Al", IN_PLANE_A), "LSAT") for tilts in substrate]
    first = [((6.0, 5.0, 4.0), "---"), ((7.2, 7.0, 5.5), "-+-"), ((8.0, 7.5, 6.5), "---")]
    found += [TwinLayer(_layer(tilts, signs, "Ca", "Ti", 3.80), "CaTiO3", True) for tilts, signs in first]
    bulk = Layer(8.0, 9.0, 7.0, "-+-", "Ca", "Ti", 3.80, (0.05, 0.009))
    last = Layer(6.5, 7.5, 5.5, "-+-", "Ca", "Ti", 3.80, (0.03, 0.005))
    return found + [TwinLayer(layer, "CaTiO3") for layer in (bulk, bulk, bulk, bulk, last)]


def lsmo_esmo():
    """La0.7Sr0.3MnO3 a⁻a⁻c⁻ (rows 0–7), Eu0.7Sr0.3MnO3 a⁻a⁻c⁺ with A displacements (rows 8–15): list of TwinLayer."""
    soft, bulk = _layer((5.5, 5.5, 2.0), "---", "La", "Mn", 3.89), _layer((4.5, 4.5, 3.5), "---", "La", "Mn", 3.89)
    found = [TwinLayer(layer, "LSMO") for layer in (soft, *[bulk] * 6, soft)]
    edge = Layer(7.0, 7.0, 4.0, "--+", "Eu", "Mn", 3.80, (0.05, 0.008))
    inner = Layer(8.0, 8.0, 7.0, "--+", "Eu", "Mn", 3.80, (0.07, 0.012))
    return found + [TwinLayer(layer, "ESMO") for layer in (edge, *[inner] * 6, edge)]


def diffuse():
    """CaTiO3 in its variant a⁻a⁻c⁺ (rows 7–13) on LSAT (rows 0–6): list of TwinLayer.

    Tilts, lattice, species and the film's misorientation all go over as a hyperbolic tangent, at both interfaces.
    """
    found = []
    for row in range(14):
        depth = 3.5 - abs((row + 0.5 - 10.5 + 7) % 14 - 7)  # into the film, in cells; negative in the substrate
        share = float(0.5 * (1 + np.tanh(depth / DIFFUSE_CELLS)))
        tilts = share * np.array([7.5, -7.5, 8.0])
        lattice_A = float((1 - share) * IN_PLANE_A + share * 3.80)
        layer = Layer(*tilts.tolist(), "--+", "Ca", "Ti", lattice_A, (0.05 * share, 0.009 * share))
        material = "CaTiO3" if depth > 0 else "LSAT"
        other, part = ("LSAT", 1 - share) if depth > 0 else ("CaTiO3", share)
        found.append(TwinLayer(layer, material, 0.1 < share < 0.9, part, other, MISORIENTED_MRAD * share))
    return found


RECIPES = {"cto_lsat": cto_lsat, "lsmo_esmo": lsmo_esmo, "diffuse": diffuse}


def twin_layers(name):
    """The layers of a twin, along [001]: list of TwinLayer.

    Raises
    ------
    InputError
        No twin of that name.
    """
    if name not in RECIPES:
        raise InputError(f"There is no twin '{name}': give one of {', '.join(RECIPES)}.")
    return RECIPES[name]()


def twin_crystal(name, thickness_A, seed):
    """One specimen: species drawn anew for every site, and the film leaning against the substrate.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    thickness_A : float
        Whole periods of the beam direction that come nearest to it are taken [Å].
    seed : int or sequence of int
        Of the species.

    Returns
    -------
    ase.Atoms
        One period across the beam; not periodic along it. Atomic planes lie clear of multiples of a/√2.
    """
    stack = twin_layers(name)
    layers = [each.layer for each in stack]
    crystal = layered_perovskite(layers, "y", IN_PLANE_A, periodic=True)
    sites = len(crystal) // 5
    crystal.set_array("site", np.repeat([0, 1, 2], [sites, sites, 3 * sites]))
    crystal *= (1, 1, max(1, round(thickness_A / crystal.cell[2, 2])))
    crystal.pbc = (True, True, False)
    height = crystal.cell[2, 2]
    plane_A = IN_PLANE_A / np.sqrt(8)
    # Half a plane down, so that slices of whole planes split none; oxygens moved past an end come in at the other.
    crystal.positions[:, 2] = (crystal.positions[:, 2] + plane_A / 2) % height
    _draw_species(crystal, stack, np.random.default_rng(seed))
    lean = np.array([each.lean_mrad for each in stack]) * 1e-3
    crystal.positions[:, 0] -= lean[crystal.arrays["layer"]] * (crystal.positions[:, 2] - height / 2)
    crystal.wrap(eps=1e-9)
    return crystal


def column_truth(name, thickness_A=THICKNESS_A):
    """What each B column of one lateral period is.

    Octahedra that meet at a corner do not always ask the same of it, where their tilts or patterns differ. What an
    octahedron is turned by is taken from its corners as they are, to first order (`corner_rotations`): in a
    bulk crystal that is the layer's own tilt exactly.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    thickness_A : float
        Of the specimen [Å]; a film that leans meets the probe beside where half its depth projects.

    Returns
    -------
    pandas.DataFrame
        `row`, `col`; `x_A`, `y_A` [Å] from the first pixel of the image, at the surface that the beam enters and is
        focused on: a column guides the probe from there, so that is where the image shows it; `alpha_deg`, `beta_deg`,
        `gamma_deg` with the signs they have in the column's first octahedron; `v_deg`, `u_deg`, `gamma_seen_deg`, the
        mean along the beam in the image's axes; `alternation_deg`, the rms size of what alternates along the beam about
        a and b; `signs`, the layer's pattern; `material`; `distance_cells` from the middle of the cell to the
        nearest interface, ½ for those that touch it; `mixed`.
    """
    stack = twin_layers(name)
    layers = [each.layer for each in stack]
    thick = np.array([layer.lattice_A for layer in layers])
    centres = np.cumsum(thick) - thick / 2 - thick[0] / 2
    distances = _interface_distances([each.material for each in stack])
    periods = max(beam_periods(layer.signs) for layer in layers)
    octahedra = lattice_block(2 * periods, len(stack), 2 * periods)
    rotations = corner_rotations(layers, octahedra)
    rows = []
    for row, col in np.unique(octahedra @ [[0, 1], [0, 1], [1, 0]], axis=0).tolist():
        column = rotations[(octahedra[:, 2] == row) & (octahedra[:, :2].sum(axis=1) == col)]
        mean = column.mean(axis=0)
        rows.append(
            {"row": row, "col": col, "y_A": centres[row]}
            | {"x_A": col * IN_PLANE_A / np.sqrt(2) + stack[row].lean_mrad * 1e-3 * thickness_A / 2}
            | dict(zip(("alpha_deg", "beta_deg", "gamma_deg"), column[0], strict=True))
            | dict(zip(("v_deg", "u_deg", "gamma_seen_deg"), to_projection(*mean), strict=True))
            | {"alternation_deg": np.sqrt(((column - mean)[:, :2] ** 2).sum(axis=1).mean())}
            | {"signs": layers[row].signs, "material": stack[row].material, "mixed": stack[row].mixed}
            | {"distance_cells": distances[row]}
        )
    return pd.DataFrame(rows)


def _layer(tilts, signs, a_site, b_site, lattice_A):
    return Layer(*tilts, signs, a_site, b_site, lattice_A)


def _draw_species(crystal, stack, generator):
    """Elements at random by each layer's composition, in place."""
    symbols = np.array(crystal.get_chemical_symbols())
    for number, each in enumerate(stack):
        for site, shares in enumerate(each.composition):
            here = np.flatnonzero((crystal.arrays["layer"] == number) & (crystal.arrays["site"] == site))
            weights = np.array(list(shares.values()))
            symbols[here] = generator.choice(list(shares), len(here), p=weights / weights.sum())
    crystal.set_chemical_symbols(symbols.tolist())


def _interface_distances(materials):
    """Cells from the middle of each layer to the nearest change of material, the stack's ends joined: list."""
    count = len(materials)
    edges = [row for row in range(count) if materials[row] != materials[row - 1]]
    return [min(min(abs(row + 0.5 - edge - shift) for shift in (-count, 0, count)) for edge in edges)
            for row in range(count)]  # fmt: skip
