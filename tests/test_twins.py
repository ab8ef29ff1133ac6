"""Twins of the experiments: crystals, images and truth agree with each other and with other code."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from unitcell.artefacts import load_dataset
from unitcell.crystals import (
    Layer,
    corner_rotations,
    layered_perovskite,
    measure_tilts,
    require_sound,
    tilted_perovskite,
)
from unitcell.crystals.octahedra import lattice_block, tilt_signs
from unitcell.errors import InputError
from unitcell.registration.lattice import register
from unitcell.scattering import Microscope, annular_images
from unitcell.scattering.slices import cut_slices
from unitcell.twins.abf_twins import (
    FOLDER,
    LEAN_MRAD,
    PAIRS,
    SLICE_A,
    dataset,
    open_twin,
    twin_dataset,
    twin_errors,
    twin_image,
)
from unitcell.twins.twin_crystals import (
    IN_PLANE_A,
    RECIPES,
    THICKNESS_A,
    column_truth,
    twin_crystal,
    twin_layers,
)

B_SITES = ("Ti", "Al", "Ta", "Mn")
STILL = {"dose": None, "rotation_deg": 0.0, "drift_A": (0.0, 0.0), "shear": 0.0, "jitter_A": 0.0}


def stacked(name):
    return layered_perovskite([each.layer for each in twin_layers(name)], "y", IN_PLANE_A, periodic=True)


@pytest.mark.parametrize("name", RECIPES)
def test_truth_is_what_the_octahedra_of_the_crystal_do(name):
    crystal = stacked(name)
    require_sound(crystal)
    measured = measure_tilts(crystal, B_SITES)
    layers = [each.layer for each in twin_layers(name)]
    difference = measured.rotations_deg - corner_rotations(layers, measured.indices)
    # Second order: rotations of 9° about two axes do not commute, by 0.7°.
    assert np.abs(difference).max() < 0.7
    assert np.sqrt((difference**2).mean(axis=0)).max() < 0.25
    nominal = np.array([tilt_signs(layers[n[2]].signs, n[None])[0] * layers[n[2]].tilts for n in measured.indices])
    mixed = np.array([twin_layers(name)[n[2]].mixed for n in measured.indices])
    if name == "cto_lsat":  # where patterns meet, the layers' own tilts are not what the corners allow
        assert np.abs(measured.rotations_deg - nominal)[mixed].max() > 2.5


@pytest.mark.parametrize("signs", ["---", "--+", "-+-", "+-+"])
def test_corner_rotations_of_a_bulk_crystal_are_its_tilts(signs):
    octahedra = lattice_block(4, 4, 4)
    found = corner_rotations([Layer(7, 5, 3, signs)] * 4, octahedra)
    assert found == pytest.approx(tilt_signs(signs, octahedra) * [7, 5, 3], abs=1e-12)


def test_the_paper_s_interface_is_in_the_truth_of_calcium_titanate():
    truth = column_truth("cto_lsat")
    bulk = truth[truth.row.between(10, 11)]
    assert bulk.v_deg.abs().to_numpy() == pytest.approx(8 / np.sqrt(2))
    assert bulk.u_deg.to_numpy() == pytest.approx(bulk.v_deg.to_numpy())
    assert bulk.alternation_deg.to_numpy() == pytest.approx(9.0)
    assert set(bulk.signs) == {"-+-"}
    assert sorted(truth[truth.mixed].row.unique()) == [6, 7, 8]
    last = truth[truth.row == 5]
    assert last.alpha_deg.abs().to_numpy() == pytest.approx(4.0, abs=0.1)
    assert (last.alpha_deg / last.gamma_deg).to_numpy() == pytest.approx(2.0, abs=0.1)
    assert set(truth[truth.material == "LSAT"].row) == set(range(6))
    assert truth.drop_duplicates("row").distance_cells.tolist()[:7] == [0.5, 1.5, 2.5, 2.5, 1.5, 0.5, 0.5]
    # A '-' tilt is turned over from column to column along both directions.
    table = truth.pivot(index="row", columns="col", values="gamma_seen_deg").to_numpy()[3:]
    assert (np.sign(table[:, 1:]) == -np.sign(table[:, :-1])).all()
    assert (np.sign(table[1:]) == -np.sign(table[:-1])).all()


def test_the_superlattice_changes_the_phase_of_its_gamma():
    truth = column_truth("lsmo_esmo")
    assert np.abs(truth.v_deg).max() < 1e-9
    for material, same in (("LSMO", False), ("ESMO", True)):
        table = truth[truth.material == material].pivot(index="row", columns="col", values="gamma_seen_deg").to_numpy()
        assert ((np.sign(table[1:]) == np.sign(table[:-1])) == same).all()


def test_species_are_drawn_by_composition_and_anew_for_every_configuration():
    first, second, again = (twin_crystal("lsmo_esmo", THICKNESS_A, (0, n)) for n in (0, 1, 0))
    symbols = np.array(first.get_chemical_symbols())
    assert (symbols == again.symbols).all()
    assert (symbols != second.symbols).sum() > 100
    a_sites, layer = first.arrays["site"] == 0, first.arrays["layer"]
    for members, element, share in ((range(8), "La", 0.7), (range(8, 16), "Eu", 0.7), (range(16), "Sr", 0.3)):
        here = symbols[a_sites & np.isin(layer, members)]
        assert (here == element).mean() == pytest.approx(share, abs=0.06)
    shares = [each.composition[1]["Ti"] for each in twin_layers("diffuse")]
    assert [each.composition[0]["Ca"] for each in twin_layers("diffuse")] == pytest.approx(shares)
    assert shares[3] < 0.02
    assert shares[10] > 0.97
    assert np.diff(shares[3:11]).min() > 0.01
    assert all(sum(site.values()) == pytest.approx(1) for name in RECIPES for t in twin_layers(name)
               for site in t.composition)  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_slices_split_no_plane_of_a_specimen(name):
    crystal = twin_crystal(name, THICKNESS_A, 0)
    assert len(crystal) == len(stacked(name)) * round(crystal.cell[2, 2] / stacked(name).cell[2, 2])
    assert crystal.cell[2, 2] == pytest.approx(THICKNESS_A, abs=0.1)
    slices = cut_slices(crystal, SLICE_A)
    assert slices.thicknesses_A == pytest.approx(IN_PLANE_A / np.sqrt(2))
    still = crystal[np.isin(crystal.symbols, B_SITES)]
    depth = np.mod(still.positions[:, 2], IN_PLANE_A / np.sqrt(2))
    assert depth == pytest.approx(IN_PLANE_A / np.sqrt(32), abs=1e-6)


def test_the_diffuse_twin_s_film_leans():
    crystal = twin_crystal("diffuse", THICKNESS_A, 0)
    titanium = crystal[np.isin(crystal.symbols, B_SITES)]
    for row, mrad in ((3, 0.0), (10, 4.0)):
        here = titanium[titanium.arrays["layer"] == row]
        pitch = IN_PLANE_A / np.sqrt(2)
        turns = np.exp(2j * np.pi * here.positions[:, 0] / pitch)
        order = np.argsort(here.positions[:, 2])
        moved = np.unwrap(np.angle(turns[order])) * pitch / (2 * np.pi)
        slope = np.polyfit(here.positions[order, 2], moved, 1)[0]
        assert slope * 1e3 == pytest.approx(-mrad, abs=0.15)


def test_files_hold_what_the_recipes_say():
    assert sum((FOLDER / f"twin_{name}.nc").stat().st_size for name in RECIPES) < 12e6
    for name in RECIPES:
        data = twin_dataset(name)
        truth = column_truth(name, data.attrs["thickness_A"])
        assert data.attrs["configurations"] == 2 * PAIRS
        assert data.lean.values.tolist() == [0.0, LEAN_MRAD]
        assert np.hypot(data.attrs["lean_x_mrad"], data.attrs["lean_y_mrad"]) == pytest.approx(LEAN_MRAD)
        assert min(data.attrs["lean_x_mrad"], data.attrs["lean_y_mrad"]) > 1.5
        assert 0.02 < float(data.abf.min()) < float(data.abf.max()) < 1.0
        assert float((data.x[1] - data.x[0]) * data.sizes["x"]) == pytest.approx(data.attrs["period_x_A"])
        for key in ("v_deg", "u_deg", "gamma_seen_deg", "alternation_deg", "x_A", "y_A"):
            assert data[f"column_{key}"].values == pytest.approx(truth[key].to_numpy())
        assert data.column_material.values.tolist() == truth.material.tolist()
        assert data.column_signs.values.tolist() == truth.signs.tolist()


def test_an_image_is_that_of_its_frozen_specimen():
    settings = {"thickness_A": 5.5, "sampling_A": 0.2, "slice_A": SLICE_A, "pixel_A": 0.8, "seed": 0}
    centre = (0.0, 0.0)
    upright, again, other = (twin_image("diffuse", 0.0, n, centre, settings) for n in (0, 0, 1))
    leaning = twin_image("diffuse", 40.0, 0, centre, settings)
    elsewhere = twin_image("diffuse", 0.0, 0, (0.5, 0.5), settings)
    assert upright == pytest.approx(again, abs=1e-7)
    assert upright.shape == (68, 7)
    assert np.abs(upright - other).max() > 1e-3
    assert np.abs(upright - leaning).max() > 1e-2
    assert 1e-4 < np.abs(upright - elsewhere).max() < 5e-2  # a thin specimen brings no probe to its next copy
    made = dataset("diffuse", [[upright, other]] * 2, settings)
    assert made.abf[0].values == pytest.approx((upright.astype(float) + other) / 2)
    assert made.standard_error[0].values == pytest.approx(np.abs(upright.astype(float) - other) / 2)
    assert made.attrs["configurations"] == 4


def bulk_image(name, row):
    """A cell of √2·a × 2a by Bloch waves: the elastic image of the crystal that a layer is in bulk."""
    layer, data = twin_layers(name)[row].layer, twin_dataset(name)
    crystal = tilted_perovskite(
        layer.alpha, layer.beta, layer.gamma, layer.signs, layer.a_site, layer.b_site,
        (IN_PLANE_A, layer.lattice_A, IN_PLANE_A), a_shift=layer.a_shift,
    )  # fmt: skip
    scope = replace(Microscope.from_attributes(data.attrs), source_fwhm_A=0.0)
    wide = round(crystal.cell[0, 0] / (np.sqrt(2) * IN_PLANE_A))
    options = {"cutoff_mrad": 50.0, "excitation_per_A": 0.0, "k_points": (1, 1)}
    return annular_images(crystal, scope, [data.attrs["thickness_A"]], (36, 28 * wide), **options)[0, :, :28].numpy()


def correlation(one, other):
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def test_calcium_titanate_far_from_its_interface_looks_as_bloch_waves_have_it():
    data, truth = twin_dataset("cto_lsat"), column_truth("cto_lsat")
    here = truth[(truth.row == 10) & (truth.col == 0)].iloc[0]  # an even column and row, as the origin of the bulk
    x = (here.x_A + np.arange(28) / 28 * np.sqrt(2) * IN_PLANE_A) % data.attrs["period_x_A"]
    y = here.y_A + np.arange(36) / 36 * 2 * 3.80
    cell = data.abf[0].pad(x=(0, 1), mode="wrap").values
    cell = cell_at(cell, x / float(data.x[1]), y / float(data.y[1]))
    bulk = bulk_image("cto_lsat", 10)
    assert correlation(cell, bulk) > 0.96
    mirrored = np.roll(bulk[:, ::-1], 1, axis=1), np.roll(bulk[::-1], 1, axis=0)  # the B column stays where it is
    for wrong in (*mirrored, np.roll(bulk, 14, axis=1)):
        assert correlation(cell, bulk) > correlation(cell, wrong) + 0.04


def cell_at(image, columns, rows):
    """An image interpolated at columns and rows [px], all combinations."""
    return map_coordinates(image, np.meshgrid(rows, columns, indexing="ij"), order=3, mode="nearest")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("lean", [False, True])
def test_columns_are_found_where_the_truth_has_them(name, lean):
    twin = open_twin(name, lean=lean)
    found = register(twin.image, 3.86)
    assert found.rotation_deg == pytest.approx(2.5, abs=0.2)
    assert found.a_A == pytest.approx(3.85, abs=0.03)
    columns = found.b_columns[found.b_columns.found]
    _, near = cKDTree(twin.truth[["x_px", "y_px"]]).query(columns[["x_px", "y_px"]])
    offsets = 0.15 * (columns[["x_px", "y_px"]].to_numpy() - twin.truth[["x_px", "y_px"]].to_numpy()[near])
    assert len(columns) > 0.9 * len(twin.truth)
    assert np.hypot(*offsets.mean(axis=0)) < 0.1
    assert np.sqrt(offsets.var(axis=0).mean()) < 0.1
    assert not twin.truth[["x_px", "y_px"]].round(3).duplicated().any()


def test_electrons_are_counted():
    plain = {key: value for key, value in STILL.items() if key != "dose"} | {"repeats": 4}
    expected = open_twin("lsmo_esmo", dose=None, **plain).image.intensity
    counted = open_twin("lsmo_esmo", dose=2e4, seed=3, **plain).image.intensity
    mean = 2e4 * 0.15**2 * expected
    assert (counted == np.round(counted)).all()
    assert ((counted - mean) / np.sqrt(mean)).std() == pytest.approx(1.0, abs=0.02)
    assert (counted - mean).mean() == pytest.approx(0.0, abs=0.5)


def test_truth_moves_with_rotation_and_drift():
    still = open_twin("lsmo_esmo", **STILL, repeats=4)
    turned = open_twin("lsmo_esmo", **(STILL | {"rotation_deg": 4.0}), repeats=4)
    drifted = open_twin("lsmo_esmo", **(STILL | {"drift_A": (1.5, 0.0)}), repeats=4)
    keys = ["row", "col", "x_A", "y_A"]
    both = still.truth.merge(turned.truth, on=keys, suffixes=("", "_turned"))
    both = both.merge(drifted.truth, on=keys, suffixes=("", "_drifted"))
    assert len(both) > 100
    rows, columns = still.image.intensity.shape
    centre = np.array([columns - 1, rows - 1]) / 2
    before, after = (both[[f"x_px{s}", f"y_px{s}"]].to_numpy() - centre for s in ("", "_turned"))
    c, s = np.cos(np.radians(4.0)), np.sin(np.radians(4.0))
    assert after == pytest.approx(before @ np.array([[c, s], [-s, c]]), abs=0.02)
    moved = 0.15 * (both.x_px_drifted - both.x_px)  # from −0.75 Å at the top to +0.75 Å at the bottom
    assert moved.to_numpy() == pytest.approx(1.5 * (both.y_px / rows - 0.5).to_numpy(), abs=0.02)


def read_off(truth, off_deg=1.0):
    """A table as `infer_tilts` gives it, from the truth: v too large by `off_deg`, and the other mirror branch."""
    table = pd.DataFrame({"row": truth.row, "col": truth.col, "x_px": truth.x_px + 2, "y_px": truth.y_px, "ood": 0.5})
    values = {"v": truth.v_deg + off_deg, "u": -truth.u_deg, "gamma": -truth.gamma_deg}
    for name, value in (values | {"alternation": truth.alternation_deg}).items():
        table[f"{name}_deg"], table[f"{name}_deg_lo"], table[f"{name}_deg_hi"] = value, value - 0.8, value + 0.8
    return table


def test_errors_are_on_the_nearer_branch_and_only_of_columns_that_match():
    truth = open_twin("cto_lsat", repeats=2).truth
    table = read_off(truth)
    table.loc[:9, "x_px"] += 7.0  # half a repeat: no column's
    table.loc[10:14, "v_deg"] = np.nan
    found = twin_errors(table, truth, 0.15)
    assert len(found) == len(table) - 15
    assert found.v_error.to_numpy() == pytest.approx(1.0)
    assert found[["u_error", "gamma_error", "alternation_error"]].abs().to_numpy().max() < 1e-9
    assert not found.v_inside.any()
    assert found[["u_inside", "gamma_inside", "alternation_inside"]].to_numpy().all()
    assert found.away_A.to_numpy() == pytest.approx(0.3)
    assert set(found.material) == {"LSAT", "CaTiO3"}
    with pytest.raises(InputError, match="truth of one image"):
        twin_errors(table.assign(x_px=1e5), truth, 0.15)


def test_impossible_twins_are_refused(tmp_path):
    with pytest.raises(InputError, match="'sto': give one of cto_lsat"):
        open_twin("sto")
    with pytest.raises(InputError, match="repeats = 0"):
        open_twin("diffuse", repeats=0)
    with pytest.raises(InputError, match="twin_diffuse"):
        open_twin("diffuse", folder=tmp_path)


def test_files_are_as_wide_as_asked_for():
    twin = open_twin("lsmo_esmo", repeats=3, pixel_size_A=0.2)
    assert twin.image.intensity.shape[1] == round(3 * load_dataset(FOLDER / "twin_lsmo_esmo.nc").period_x_A / 0.2)
    assert twin.image.simulated
    assert twin.image.pixel_size_A == 0.2
