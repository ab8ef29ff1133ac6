"""Interfaces and superlattices: the bulk where nothing changes, corner sharing where something does."""

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from unitcell.crystals import Layer, graded_layers, layered_perovskite, measure_tilts, require_sound, tilted_perovskite
from unitcell.errors import InputError

SOFT = Layer(a_site="Sr", b_site="Ti", lattice_A=3.905)
TILTED = Layer(8, 8, 6, "--+", "Ca", "Mn", 3.75, a_shift=(0.05, 0.01))


def farthest(crystal, reference):
    """Largest distance [Å] from an atom to the nearest of its kind in a reference with the same cell."""
    steps = crystal.positions[:, None] - reference.positions
    lengths = crystal.cell.lengths()
    distances = np.linalg.norm(steps - np.round(steps / lengths) * lengths, axis=-1)
    return np.where(crystal.numbers[:, None] == reference.numbers, distances, np.inf).min(axis=1).max()


@pytest.mark.parametrize("normal", ["x", "y"])
@pytest.mark.parametrize("signs", ["---", "--+", "+--", "-+0", "++-", "+++"])
def test_equal_layers_make_the_bulk_crystal(signs, normal):
    a_shift = (0.05, 0.0) if {"+", "-"} <= set(signs) else (0.0, 0.0)
    bulk = tilted_perovskite(6, 2, 4, signs, a_shift=a_shift)
    stack = layered_perovskite([Layer(6, 2, 4, signs, a_shift=a_shift)] * 4, normal, periodic=True)
    bulk = bulk.repeat(np.round(stack.cell.lengths() / bulk.cell.lengths()).astype(int))
    assert stack.cell.lengths() == pytest.approx(bulk.cell.lengths())
    assert len(stack) == len(bulk)
    assert farthest(stack, bulk) < 1e-9


@pytest.mark.parametrize("normal", ["x", "y"])
def test_octahedra_share_every_corner_through_an_interface(normal):
    stack = layered_perovskite(graded_layers(SOFT, TILTED, (4, 4)) + [SOFT] * 4, normal, periodic=True)
    require_sound(stack)
    first, second = neighbor_list("ij", stack, 2.25)
    is_b, is_oxygen = np.isin(stack.symbols, ("Ti", "Mn")), stack.symbols == "O"
    assert (np.bincount(first[is_oxygen[first] & is_b[second]])[is_oxygen] == 2).all()
    assert (np.bincount(first[is_b[first] & is_oxygen[second]], minlength=len(stack))[is_b] == 6).all()


@pytest.mark.parametrize("normal", ["x", "y"])
def test_species_and_tilts_follow_the_profile(normal):
    layers = graded_layers(SOFT, TILTED, (5, 6), width=1.0)
    assert layers[0].gamma < 0.001
    assert layers[-1].gamma > 5.99
    stack = layered_perovskite(layers, normal)
    number = stack.arrays["layer"]
    for symbol, expected in (("Sr", range(5)), ("Ti", range(5)), ("Ca", range(5, 11)), ("Mn", range(5, 11))):
        assert set(number[stack.symbols == symbol]) == set(expected)
    measured = measure_tilts(stack, ("Ti", "Mn"))
    assert measured.signs == "--+"
    for layer in range(1, 11):  # layer 0 ends the slab: its octahedra lack a corner
        tilts = measured.local_deg[number[measured.atoms] == layer].mean(axis=0)
        neighbours = np.array([layers[near].tilts for near in range(layer - 1, min(layer + 2, 11))])
        assert (neighbours.min(axis=0) - 0.5 < tilts).all()
        assert (tilts < neighbours.max(axis=0) + 0.5).all()


@pytest.mark.parametrize(("normal", "per_cell"), [("x", np.sqrt(2)), ("y", 1.0)])
def test_lattice_changes_along_the_normal_and_is_coherent_in_the_plane(normal, per_cell):
    axis = "xyz".index(normal)
    layers = graded_layers(SOFT, TILTED, (3, 5), width=0)
    stack = layered_perovskite(layers, normal, vacuum_A=8.0)
    expected = np.sqrt([2, 4, 2]) * 3.905
    expected[axis] = (3 * 3.905 + 5 * 3.75) / per_cell + 8.0
    assert stack.cell.lengths() == pytest.approx(expected)
    heights = np.unique(stack.positions[np.isin(stack.symbols, ("Ti", "Mn")), axis].round(6))
    steps = [3.905] * 2 + [(3.905 + 3.75) / 2] + [3.75] * 4
    assert np.diff(heights) == pytest.approx(np.array(steps) / per_cell, abs=1e-5)
    assert stack.pbc.tolist() == [name != normal for name in "xyz"]
    low, high = stack.positions[:, axis].min(), stack.positions[:, axis].max()
    assert low == pytest.approx(expected[axis] - high)
    assert low > 4.0


def test_in_plane_lattice_may_be_given():
    lengths = layered_perovskite([SOFT] * 2, "y", in_plane_A=3.8, periodic=True).cell.lengths()
    assert lengths == pytest.approx([np.sqrt(2) * 3.8, 2 * 3.905, np.sqrt(2) * 3.8])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"layers": []}, "at least one"),
        ({"normal": "z"}, "'z'"),
        ({"vacuum_A": -1.0}, "-1"),
        ({"vacuum_A": 5.0, "periodic": True}, "periodic"),
        ({"layers": [TILTED] * 3, "periodic": True}, "3 layers"),
        ({"layers": [TILTED] * 3, "normal": "x", "periodic": True}, "3 layers"),
        ({"layers": [Layer(3, 2, 1, "+--")] * 2, "normal": "x", "periodic": True}, "multiple of 4"),
        ({"layers": [Layer(b_site="Xx")]}, "Xx"),
        ({"layers": [Layer(alpha=50)]}, "50"),
        ({"layers": [Layer(lattice_A=39.0)]}, "39"),
        ({"layers": [Layer(signs="--")]}, "pattern"),
        ({"in_plane_A": 1.0}, "lattice_A = 1 "),
    ],
)
def test_impossible_stacks_are_refused(arguments, names):
    with pytest.raises(InputError, match=names):
        layered_perovskite(**({"layers": [SOFT, TILTED]} | arguments))


def test_opposite_phases_have_nothing_in_between():
    with pytest.raises(InputError, match="gamma tilts as '-' below and '\\+' above"):
        graded_layers(Layer(gamma=3), TILTED, (2, 2))
    with pytest.raises(InputError, match="width"):
        graded_layers(SOFT, TILTED, (2, 2), width=-1)
