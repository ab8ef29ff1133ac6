"""Crystals that are no tilted perovskites: the second paper's, files, other zones, blocks, and what is unsound."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from calcium_titanate import calcium_titanate
from unitcell.crystals import (
    PAPER_BLOCK,
    along_zone,
    from_file,
    measure_tilts,
    random_vacancies,
    repeat_to,
    require_sound,
    rock_salt,
    ruddlesden_popper,
    tilted_perovskite,
)
from unitcell.errors import InputError

ROOT2 = np.sqrt(2)


@pytest.mark.parametrize(("zone", "edge", "formulas"), [("100", 3.87098, 2), ("110", 3.87098 * ROOT2, 4)])
def test_ruddlesden_popper_is_that_of_table_s1(zone, edge, formulas):
    crystal = require_sound(ruddlesden_popper(zone))
    assert crystal.cell.lengths() == pytest.approx([edge, 20.20233, edge])
    assert crystal.symbols.formula.count() == {"Sr": 3 * formulas, "Fe": 2 * formulas, "O": 7 * formulas}
    iron = crystal.positions[crystal.symbols == "Fe", 1]
    assert np.unique(iron.round(4)) == pytest.approx(20.20233 * np.array([0.0986, 0.4014, 0.5986, 0.9014]), abs=1e-4)
    partial = crystal.arrays["occupancy"] < 1
    assert set(crystal.symbols[partial]) == {"O"}
    assert crystal.arrays["occupancy"][partial] == pytest.approx(0.78)
    assert partial.sum() == formulas


def test_vacancies_are_seeded_and_only_inner_oxygens():
    crystal = ruddlesden_popper("100").repeat((10, 1, 10))
    left = random_vacancies(crystal, seed=3)
    missing = len(crystal) - len(left)
    assert missing == pytest.approx(0.22 * 200, abs=3 * np.sqrt(200 * 0.22 * 0.78))
    assert (left.symbols == "O").sum() == (crystal.symbols == "O").sum() - missing
    assert np.array_equal(random_vacancies(crystal, seed=3).positions, left.positions)
    assert "occupancy" not in left.arrays
    with pytest.raises(InputError, match="occupancy"):
        random_vacancies(left, seed=3)


@pytest.mark.parametrize(("zone", "edges"), [("100", (1, 1, 1)), ("110", (1 / ROOT2, 1, 1 / ROOT2))])
def test_rock_salt_has_six_neighbours_at_half_the_edge(zone, edges):
    crystal = require_sound(rock_salt(zone))
    assert crystal.cell.lengths() == pytest.approx(4.177 * np.array(edges))
    block = crystal.repeat(3)
    bonds = block.get_all_distances(mic=True)[np.ix_(block.symbols == "Ni", block.symbols == "O")]
    assert (np.isclose(bonds, 4.177 / 2).sum(axis=1) == 6).all()


@pytest.mark.parametrize("crystal", [rock_salt, ruddlesden_popper])
def test_unprepared_zones_are_refused(crystal):
    with pytest.raises(InputError, match="'111'"):
        crystal("111")


@pytest.mark.parametrize(
    ("crystal", "zone", "up", "lengths"),
    [
        (bulk("Cu", cubic=True), (1, 1, 1), (1, 1, -2), 3.61 * np.array([1 / ROOT2, np.sqrt(1.5), np.sqrt(3)])),
        (bulk("Cu"), (1, 1, 1), None, 3.61 * np.array([1 / ROOT2, np.sqrt(1.5), np.sqrt(3)])),
        (bulk("Mg"), (0, 0, 1), None, [3.21, 3.21 * np.sqrt(3), 3.21 * 1.624]),
        (calcium_titanate(), (0, 1, 0), (0, 0, 1), [5.440, 5.380, 7.639]),
    ],
)
def test_any_zone_is_cut_to_one_orthogonal_period(crystal, zone, up, lengths):
    cut = require_sound(along_zone(crystal, zone, up))
    assert cut.cell.lengths() == pytest.approx(lengths, rel=1e-3)
    assert len(cut) / cut.get_volume() == pytest.approx(len(crystal) / crystal.get_volume())
    here, there = (
        np.sort(np.tile(neighbor_list("d", block, 3.9), len(other)))
        for block, other in ((crystal, cut), (cut, crystal))
    )
    assert here == pytest.approx(there, abs=1e-3)


def test_a_cut_turns_the_crystal_and_does_not_mirror_it():
    handed = Atoms("HHeLiBe", [(0, 0, 0), (1, 0, 0), (0, 1.2, 0), (0, 0, 1.4)], cell=[5, 6, 7], pbc=True)
    cut = along_zone(handed, (1, 0, 0), (0, 1, 0))
    assert cut.cell.lengths() == pytest.approx([7, 6, 5])
    assert cut.get_distances(0, [1, 2, 3], mic=True, vector=True) == pytest.approx(
        np.array([(0, 0, 1), (0, 1.2, 0), (-1.4, 0, 0)])  # x = y × z is what was −z
    )


@pytest.mark.parametrize(
    ("crystal", "zone", "up", "names"),
    [
        (bulk("Cu", cubic=True), (7, 5, 3), None, "No orthogonal cell"),
        (bulk("Cu", cubic=True), (1, 1, 0), (1, 0, 0), "up = "),
        (bulk("Cu", cubic=True), (0, 0, 0), None, "zone = "),
        (bulk("Cu", cubic=True), (0.5, 0, 0), None, "zone = "),
        (bulk("Cu", cubic=True), (1, 0, 0), "001", "up = "),
        (Atoms("Cu", cell=[3, 3, 3]), (1, 0, 0), None, "periodic"),
    ],
)
def test_impossible_zones_are_refused(crystal, zone, up, names):
    with pytest.raises(InputError, match=names):
        along_zone(crystal, zone, up)


@pytest.mark.parametrize("name", ["a.cif", "a.xyz", "a.extxyz", "a.vasp", "POSCAR", "a.xsf"])
def test_a_crystal_survives_a_file(tmp_path, name):
    crystal = calcium_titanate()
    ase.io.write(tmp_path / name, crystal)
    read = from_file(tmp_path / name)
    assert read.cell.lengths() == pytest.approx(crystal.cell.lengths(), abs=1e-4)
    assert str(measure_tilts(read).glazer) == "a⁻a⁻c⁺"


CUBIC = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3'
PARTIAL_CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Sr1 Sr 0 0 0 1.0
O1 O 0.5 0.5 0.5 0.78
"""


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.cif", None, "no file"),
        ("broken.cif", "hello", "cannot be read"),
        ("empty.cif", "", "0 structures"),
        ("partial.cif", PARTIAL_CIF, "O 0.78"),
        ("molecule.xyz", "1\n\nO 0 0 0\n", "no periodic cell"),
        ("movie.xyz", f"1\n{CUBIC}\nO 0 0 0\n" * 2, "2 structures"),
        ("lost.xyz", f"1\n{CUBIC}\nO 0 nan 0\n", "no periodic cell with finite"),
        ("CONTCAR", "\0", "cannot be read"),
        ("crystal.traj", "", "no crystal file"),
        ("crystal.pckl", "", "no crystal file"),
        ("crystal.db", "", "no crystal file"),
        ("crystal", "", "no crystal file"),
    ],
)
def test_a_file_without_one_whole_crystal_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*{says}|{says}.*{name}"):
        from_file(tmp_path / name)


def test_the_papers_block_is_2root2_by_4_by_80root2_cells():
    block = repeat_to(tilted_perovskite(6, 2, 4))
    assert block.cell.lengths() / 3.905 == pytest.approx(PAPER_BLOCK)
    assert len(block) == 5 * 1280  # 2√2 × 4 × 80√2 formula units


@pytest.mark.parametrize(
    ("crystal", "units", "unit_A", "cells"),
    [
        (tilted_perovskite(6, 2, 4, contraction=True), PAPER_BLOCK, None, (2, 2, 80)),
        (tilted_perovskite(6, 2, 4, "+--"), PAPER_BLOCK, None, (1, 2, 40)),
        (tilted_perovskite(6, 2, 4), (3, 3, 3), None, (3, 2, 3)),
        (rock_salt("100"), (2, 2, 2), 3.905, (2, 2, 2)),
    ],
)
def test_blocks_hold_at_least_what_is_asked(crystal, units, unit_A, cells):
    lengths = repeat_to(crystal, units, unit_A).cell.lengths()
    assert lengths == pytest.approx(crystal.cell.lengths() * cells)


@pytest.mark.parametrize(
    ("crystal", "units", "names"),
    [
        (rock_salt("100"), (1, 1, 1), "unit_A"),
        (tilted_perovskite(0, 0, 0), (0, 1, 1), "positive"),
        (tilted_perovskite(0, 0, 0), (1, 1, float("nan")), "positive"),
        (tilted_perovskite(0, 0, 0), (300, 300, 300), "atoms"),
    ],
)
def test_impossible_blocks_are_refused(crystal, units, names):
    with pytest.raises(InputError, match=names):
        repeat_to(crystal, units)


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms("O2", [(0, 0, 0), (0, 0, 0.3)], cell=[4, 4, 4]), "Atoms 0 \\(O\\) and 1 \\(O\\) are closer"),
        (Atoms("O2", [(0, 0, 0), (0, 0, 3.9)], cell=[4, 4, 4], pbc=True), "closer"),
        (Atoms("O", [(0, np.nan, 0)], cell=[4, 4, 4]), "Atom 0 \\(O\\)"),
        (Atoms("O", cell=[(4, 0, 0), (0, 4, 0), (1, 0, 4)]), "not orthogonal"),
        (Atoms("O"), "0 × 0 × 0"),
        (Atoms("O", cell=[4, 4, -4]), "positive"),
        (Atoms("O", cell=[4, 4, np.inf]), "finite"),
    ],
)
def test_unsound_crystals_are_refused(atoms, says):
    with pytest.raises(InputError, match=says):
        require_sound(atoms)


def test_vacuum_and_whole_crystals_are_sound():
    assert len(require_sound(Atoms(cell=[4, 4, 4]))) == 0
    crystal = tilted_perovskite(6, 2, 4)
    crystal.positions -= 1e-17
    assert require_sound(crystal) is crystal
