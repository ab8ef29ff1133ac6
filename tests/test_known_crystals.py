"""Tilts of crystals whose composition is known: what is simulated, what is fitted, what single windows add."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from unitcell.artefacts import load_dataset
from unitcell.crystals import tilted_perovskite
from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.data import fetch
from unitcell.known_crystals import columns, specimen_fit
from unitcell.known_crystals.columns import TILTS, KnownCrystals, known_crystals
from unitcell.known_crystals.gaps import ReadRow
from unitcell.known_crystals.materials import parse_material
from unitcell.known_crystals.search import BANDS_A, Reading, Search
from unitcell.known_crystals.sought import COARSE, MEAN, NAMES, PLACE, SPECIMEN, expected, recorded, simulated
from unitcell.known_crystals.specimen_fit import fit_specimen
from unitcell.networks.tilt_network import errors
from unitcell.networks.training_windows import standardise
from unitcell.networks.truth_windows import SHARP, true_images
from unitcell.scattering import Microscope, annular_images
from unitcell.scattering.potential import Atomic

LAO = parse_material("La,Al,3.79")


def test_elements_that_share_a_site_scatter_as_their_mean():
    crystal = tilted_perovskite(2, 1, 3, "---", "La", "Mn", 3.88)
    other = crystal.copy()
    other.symbols[[symbol == "La" for symbol in other.symbols]] = "Sr"
    axes = np.arange(-6, 7), np.arange(-8, 9), np.arange(1)
    pure = [Atomic.of(each, True, None, None, "cpu").coefficients(*axes) for each in (crystal, other)]
    mixed = Atomic.of(crystal, True, None, None, "cpu", {"La": {"La": 0.7, "Sr": 0.3}}).coefficients(*axes)
    torch.testing.assert_close(mixed, 0.7 * pure[0] + 0.3 * pure[1])
    options = {"k_points": (1, 1), "cutoff_mrad": 40.0, "absorption": 1.0}
    same = annular_images(crystal, Microscope(), [100.0], (10, 7), shares={"La": {"La": 1.0}}, **options)
    torch.testing.assert_close(same, annular_images(crystal, Microscope(), [100.0], (10, 7), **options))


def test_a_window_is_the_cell_twice_where_nothing_distorts_it():
    x = MEAN.copy()
    x[[0, 1, 2, PLACE["thickness_A"]]] = 3.0, 2.0, 4.0, 60.0
    cell = simulated(x, (LAO, "---", Microscope()), COARSE)
    window = recorded(cell, x, LAO.lattice_A)[0].reshape(40, 56)
    wanted = standardise(torch.roll(cell.repeat(1, 1, 2), (20, 28), (1, 2)))[0]
    np.testing.assert_allclose(window, wanted, atol=2e-4)
    x[PLACE["offset_x_A"]] = LAO.lattice_A / np.sqrt(2)  # one column further, all tilts are the other way round
    x[:3] *= -1
    turned = recorded(simulated(x, (LAO, "---", Microscope()), COARSE), x, LAO.lattice_A)[0].reshape(40, 56)
    assert np.abs(turned - window).max() < 0.05


def test_strains_keep_the_volume_and_a_shifts_follow_tilts_of_both_signs(monkeypatch):
    seen = {}
    images = "unitcell.known_crystals.sought.thermal_images"
    monkeypatch.setattr(images, lambda crystal, *_, **options: seen.update(crystal=crystal) or torch.zeros(1, 40, 28))
    x = MEAN.copy()
    x[[0, 1, 2, PLACE["thickness_A"], PLACE["strain_xx"], PLACE["strain_yy"]]] = 0.0, 12.0, 9.2, 60.0, 0.02, -0.01
    simulated(x, (parse_material("Ca,Ti,3.82"), "--+", Microscope()), COARSE)
    lengths = np.array(seen["crystal"].info["pseudocubic_A"])
    np.testing.assert_allclose(lengths[:2], [3.82 * 1.02, 3.82 * 0.99])
    assert lengths.prod() == pytest.approx(3.82**3)
    same = *to_pseudocubic(0.0, 12.0, 9.2), "--+", "Ca", "Ti", tuple(lengths)
    shifted = tilted_perovskite(*same, a_shift=(0.066, 0.01))  # 6e-4 · 12 · 9.2
    np.testing.assert_allclose(seen["crystal"].positions, shifted.positions, atol=0.003)
    plain = tilted_perovskite(*same)
    assert np.abs(seen["crystal"].positions - plain.positions).max() > 0.2


def test_fits_of_one_image_are_expected_to_share_thickness_and_lens():
    known = MEAN.copy()
    known[[0, PLACE["thickness_A"], PLACE["defocus_A"], PLACE["crystal_tilt_x_mrad"]]] = 5.0, 150.0, 20.0, 3.0
    mean, usual = expected(known)
    assert mean[[PLACE["thickness_A"], PLACE["defocus_A"]]].tolist() == [150.0, 20.0]
    assert mean[[0, PLACE["crystal_tilt_x_mrad"]]].tolist() == [0.0, 0.0]
    assert 0 < usual[PLACE["thickness_A"]] < 50
    assert expected()[1][PLACE["thickness_A"]] == 0  # anything


def test_a_reading_is_indifferent_to_the_mirror_and_its_slopes_are_its_own():
    read, tilts = Reading(1.0, 2.0, 3.0, 0.3, 0.8), np.array([1.2, -2.5, -2.0])
    np.testing.assert_allclose(read.misfit(tilts, "---"), read.misfit(tilts * [1, -1, -1], "---"))
    np.testing.assert_allclose(read.misfit(np.array([1.0, 2.0, 3.0]), "---"), 0, atol=1e-12)
    ahead = read.misfit(tilts + np.array([0, 1e-5, 0]), "--+") - read.misfit(tilts, "--+")
    np.testing.assert_allclose(read.slopes(tilts, "--+")[:, 1], ahead / 1e-5, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def aluminate():
    """Noisy windows of abTEM's LaAlO3 at 96 Å, tilted by v = 5.8°, γ = 3.7°, which the network reads as u = 1.8°."""
    torch.set_num_threads(1)
    images = next(one for one in true_images(load_dataset(fetch("phonon_truth"), ("abf",))) if one.material == "LaAlO3")
    windows, projection = images.windows(1, 3e4, SHARP, torch.Generator().manual_seed(0))
    return standardise(windows[1::2]).flatten(1).double().numpy(), projection[1::2]


@pytest.fixture(scope="module")
def fit(aluminate):
    windows, _ = aluminate
    noise = ((windows - windows.mean(0)) ** 2).mean() / len(windows)
    return fit_specimen(windows.mean(0), noise, Reading(5.5, 1.8, 0.3, 0.25, 2.0), [LAO])[0]


def test_frozen_phonons_of_a_known_crystal_are_fitted(fit, aluminate):
    _, projection = aluminate
    wrong = errors({"v": fit.point[:1], "u": fit.point[1:2], "gamma": fit.point[2:3]}, projection[:1])
    assert abs(wrong["v"][0]) < 0.3
    assert abs(wrong["u"][0]) < 1.0
    assert abs(wrong["gamma"][0]) < 0.6
    assert fit.values["thickness_A"] == pytest.approx(96, abs=8)
    assert abs(fit.values["defocus_A"]) < 8


def test_single_windows_are_read_with_the_scatter_that_is_stated(fit, aluminate):
    windows, projection = aluminate
    noise = ((windows - windows.mean(0)) ** 2).mean()
    tilts, spread, misfit = fit.read(windows, noise)
    wrong = errors(dict(zip(("v", "u", "gamma"), tilts[:, :3].T, strict=True)), projection)
    for axis, (name, most) in enumerate((("v", 0.4), ("u", 1.2), ("gamma", 0.9))):
        assert np.sqrt(np.mean(wrong[name] ** 2)) < most  # the network: 0.4, 3.5, 3.4
        assert 0.7 < (np.abs(wrong[name]) < 1.645 * spread[:, axis]).mean() <= 1
    assert np.median(misfit) < 0.02


def test_a_descent_lowers_its_cost_and_finds_a_thickness():
    how, x = (LAO, "---", Microscope()), MEAN.copy()
    x[[0, 1, 2, PLACE["thickness_A"], SPECIMEN, SPECIMEN + 2]] = 3.0, 2.0, 4.0, 90.0, 0.04, 0.04
    search = Search(recorded(simulated(x, how, COARSE), x, 3.79)[0], 1e-4, how, Reading(2.0, 3.0, 3.0, 0.5, 6.0))
    begin = x.copy()
    begin[[0, 1, 2, PLACE["thickness_A"]]] = 2.0, 3.0, 3.0, 100.0
    end, cost = search.descend(begin, 10, effort=COARSE)
    assert cost < 0.05 * search.cost(begin, search.window(begin, COARSE))
    spread = np.sqrt(np.diag(specimen_fit._end(search, end, cost).covariance))
    assert (spread < [0.12, 0.9, 0.7]).all()
    assert (np.abs(end - x)[:3] < 2 * spread).all()
    assert end[PLACE["thickness_A"]] == pytest.approx(90, abs=3)


def test_an_untilted_crystal_is_found_where_tilts_gain_too_little():
    how, x = (LAO, "---", Microscope()), MEAN.copy()
    x[[PLACE["thickness_A"], PLACE["defocus_A"], SPECIMEN, SPECIMEN + 2]] = 120.0, 5.0, 0.06, 0.06
    seen = recorded(simulated(x, how, COARSE), x, 3.79)[0]
    seen = seen + np.random.default_rng(0).normal(0, 0.03, len(seen))
    search = Search(seen / seen.std(), 1e-3, how, Reading(0.1, 0.5, 2.5, 0.3, 2.0))
    x[1:3] = 0.5, 2.5
    tilted = specimen_fit._end(search, x, search.cost(x, search.window(x)))
    fixed = Search(search.seen, 1e-3, how, search.read, turned=0)
    (fit,) = specimen_fit._untilted(tilted, fixed)
    assert fit.point[:3].tolist() == [0.0, 0.0, 0.0]
    assert fit.values["thickness_A"] == pytest.approx(120, abs=6)
    tilts, spread, _ = fit.read(search.seen[None], 1e-3)
    np.testing.assert_allclose(tilts[0, :3], 0, atol=0.3)
    assert 2.3 < spread[0, 1] < 3  # windows say as good as nothing of so small u and γ
    x[:3] = 0.8, 1.0, 2.0
    without = Search(search.seen, 1e-3, how, search.read, turned=1)
    (fit,) = specimen_fit._untilted(specimen_fit._end(search, x, tilted.cost), without)
    assert fit.point[1:3].tolist() == [0.0, 0.0]
    assert abs(fit.point[0]) < 0.3  # which an image shows to first order, so it is found
    x[:3] = 0.0, 6.5, 4.0
    assert specimen_fit._untilted(specimen_fit._end(search, x, 1.0), fixed) == []  # tilted beyond doubt
    x[:3] = 0.0, 3.0, 4.0
    assert specimen_fit._untilted(specimen_fit._end(search, x, -1e5), fixed) == []  # tilts explain much more


def test_starts_can_be_spread_over_thicknesses(aluminate):
    windows, _ = aluminate
    search = Search(windows.mean(0), 1e-3, (LAO, "---", Microscope()), Reading(5.5, 1.8, 0.3, 0.25, 2.0))
    few, many = ([x[PLACE["thickness_A"]] for _, x in search.starts(2, spread)] for spread in (False, True))
    assert len(few) <= 3
    assert len(set(np.digitize(many, BANDS_A))) == len(BANDS_A) + 1


def test_crystals_that_lean_are_among_the_starts():
    how, x = (LAO, "---", Microscope()), MEAN.copy()
    leans = [PLACE["crystal_tilt_x_mrad"], PLACE["crystal_tilt_y_mrad"]]
    x[[PLACE["thickness_A"], PLACE["defocus_A"], *leans, SPECIMEN, SPECIMEN + 2]] = 165, 0, 3.0, -1.5, 0.04, 0.04
    seen, read = recorded(simulated(x, how, COARSE), x, 3.79)[0], Reading(0.0, 0.5, 3.0, 0.3, 8.0)
    search = Search(seen, 1e-4, how, read, turned=0)
    start = search.starts()[0][1]
    assert start[:3].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(start[leans], x[leans])
    assert start[PLACE["thickness_A"]] == pytest.approx(165, abs=16)
    near = Search(search.seen, 1e-4, how, search.read, known=x)  # whose defocus is known then
    assert {each["crystal_tilt_x_mrad"] for each in near._lenses()} == {-3.0, -1.5, 0.0, 1.5, 3.0}
    assert all("defocus_A" not in each for each in near._lenses())
    assert near.starts()[0][1][PLACE["defocus_A"]] == 0


def test_what_no_aperture_transmits_is_taken_out_of_windows(fit):
    waves = 0.3 * np.cos(np.pi * np.arange(40))[:, None] * np.ones(56)  # 0.38 Å long
    seen = np.stack([fit.window, fit.window + waves.ravel(), np.full(2240, np.nan)])
    found, share = columns._transmitted(
        seen, Microscope(semiangle_mrad=20, inner_mrad=11, outer_mrad=22), LAO.lattice_A
    )
    np.testing.assert_allclose(found[1], found[0], atol=1e-9)
    assert np.isnan(found[2]).all()
    wide, whole = columns._transmitted(seen, Microscope(), LAO.lattice_A)
    np.testing.assert_allclose(wide[0], fit.window, atol=0.03)  # a simulation at 30 mrad holds nothing finer
    white = np.random.default_rng(0).normal(size=(1, 2240)) + 10 * fit.window
    left = columns._transmitted(white, Microscope(), LAO.lattice_A)[0] * 10 - 10 * fit.window
    assert left.var() == pytest.approx(whole, rel=0.1)
    assert 0.2 < share < 0.4 < whole < 0.8


def test_windows_are_read_by_the_fit_that_they_miss_least(fit):
    other = replace(fit, values=fit.values | {"gamma_deg": fit.values["gamma_deg"] + 6})
    misfits = [np.array([1.0, 2.0, np.inf, np.inf]), np.array([2.0, 1.0, 1.0, np.inf])]
    claims = columns._nearest([fit, other], misfits, np.tile(fit.window, (4, 1)), np.full(4, 1e-3))
    assert [(claim.fit, claim.places.tolist()) for claim in claims] == [(fit, [0]), (other, [1, 2])]
    assert columns._nearest([], [], np.zeros((4, 2240)), np.zeros(4)) == []


def test_a_single_row_between_others_is_no_crystal(fit):
    table = pd.DataFrame([(row, col) for row in range(5) for col in range(4)], columns=["row", "col"])
    table["v_deg"] = 1.0
    other = replace(fit, values=fit.values | {"gamma_deg": fit.values["gamma_deg"] + 6})
    rows = table.row.to_numpy()
    claims = [columns.Claim(one, np.flatnonzero(np.isin(rows, which)), None, None)
              for one, which in ((fit, (0, 1)), (other, (2,)), (fit, (4,)), (fit, (3,)))]  # fmt: skip
    assert [claim.places.tolist() for claim in columns._sound(table, claims)] == [
        claims[0].places.tolist(), claims[2].places.tolist(), claims[3].places.tolist()
    ]  # fmt: skip
    table.loc[np.isin(rows, (1, 3)), "v_deg"] = np.nan  # outside the image: nobody can tell
    assert columns._sound(table, claims[1:2]) == claims[1:2]


def test_fits_that_other_tilts_rival_do_not_count(fit):
    other = replace(fit, values=fit.values | {"gamma_deg": fit.values["gamma_deg"] + 6}, cost=fit.cost + 50)
    near = replace(fit, values=fit.values | {"gamma_deg": fit.values["gamma_deg"] + 1}, cost=fit.cost + 50)
    none = replace(fit, values=fit.values | dict.fromkeys(("v_deg", "u_deg", "gamma_deg"), 0.0), cost=fit.cost + 20)
    assert specimen_fit.believed([fit, other]) is None
    assert specimen_fit.believed([]) is None
    for sure in ([fit], [fit, replace(other, cost=fit.cost + 200)], [none, fit, other]):
        found = specimen_fit.believed(sure)
        assert (found.cost, found.values, found.rivals) == (sure[0].cost, sure[0].values, ())
    assert specimen_fit.believed([fit, near]).rivals == ((near, pytest.approx(50)),)
    # Beside another crystal, which costs 20 more; tilts of the other sign are no rivals.
    fit, near = (replace(one, values=one.values | {"u_deg": 4.0}) for one in (fit, near))
    turned = replace(fit, values=fit.values | {"gamma_deg": -fit.values["gamma_deg"]})
    assert specimen_fit.believed([fit], [(near, 20.0), (turned, 0.0)]).rivals == ((near, pytest.approx(70)),)


def test_windows_are_read_as_the_mean_over_rivals(fit):
    near = replace(fit, values=fit.values | {"gamma_deg": fit.values["gamma_deg"] + 2})
    windows = np.tile(fit.window, (2, 1))
    alone, spread, _ = fit.read(windows, 1e-3)
    for excess, weight in ((0.0, 0.5), (2 * specimen_fit.OVERSTATED, 1 / (1 + np.e))):
        tilts, wider, _ = replace(fit, rivals=((near, excess),)).read(windows, 1e-3)
        np.testing.assert_allclose(tilts[:, 2] - alone[:, 2], 2 * weight, atol=1e-6)
        np.testing.assert_allclose(wider[:, 2] ** 2 - spread[:, 2] ** 2, 4 * weight * (1 - weight), atol=1e-6)
    mirror = replace(near, values=near.values | {name: -near.values[name] for name in ("u_deg", "gamma_deg")})
    tilts, _, _ = replace(fit, rivals=((mirror, 0.0),)).read(windows, 1e-3)
    np.testing.assert_allclose(tilts[0, :3], alone[0, :3] + [0, 0, 1], atol=1e-6)


def test_what_is_fitted_next_decides_between_rivals(fit):
    other = replace(fit, material=parse_material("Pr,Al,3.77"), cost=fit.cost + 8)
    family = replace(fit, rivals=((other, 8.0),)).family
    kept = specimen_fit.likeliest(family, [100.0, 100.0])
    assert (kept.material, [excess for _, excess in kept.rivals]) == (LAO, [8.0])
    changed = specimen_fit.likeliest(family, [130.0, 100.0])
    assert (changed.material, changed.rivals[0][0].material) == (other.material, LAO)
    assert changed.rivals[0][1] == pytest.approx(22)
    assert specimen_fit.likeliest(family, [np.inf, 100.0]).rivals == ()


def test_crystals_that_explain_as_much_are_told_apart_by_what_is_fitted_next(fit):
    other = replace(fit, material=parse_material("Pr,Al,3.77"), cost=fit.cost + 8)
    best = replace(fit, rivals=((other, 8.0),))
    ends = {LAO: [replace(fit, cost=700.0)], other.material: [replace(other, cost=600.0), replace(fit, cost=620.0)]}
    known = KnownCrystals((LAO, other.material), Microscope())
    fits, found = known._beside([best], lambda near: ends[near.material], 2240)
    assert [one.material for one in fits] == [other.material, other.material]
    assert [(rival.material, excess) for rival, excess in fits[0].rivals] == []  # 92 more is too much
    assert [round(excess) for _, excess in fits[1].rivals] == [20]
    assert found[0].cost == 600
    fits, _ = known._beside([best], lambda near: [replace(one, cost=3 * one.cost) for one in ends[near.material]], 2240)
    assert [one.material for one in fits] == [LAO, LAO]  # what explains no crystal says nothing of another
    assert known._beside([best], lambda near: [], 2240) == ([best], [])
    assert known._beside([], lambda near: [], 2240) == ([], [])


def test_where_plus_acts_about_c_the_next_row_shows_the_crystal_the_other_way():
    x = MEAN.copy()
    x[[0, 1, 2, PLACE["thickness_A"]]] = 1.0, 6.0, 4.0, 60.0
    how = (LAO, "--+", Microscope())
    search = Search(np.zeros(2240), 0.0, how, None)
    fit = specimen_fit.SpecimenFit(
        dict(zip(NAMES, x, strict=True)), LAO, "--+", 1.0, np.eye(3), search.window(x), search.slopes(x, [0, 1, 2])
    )
    above = specimen_fit.of_next_row(fit, Microscope())
    assert above.values["gamma_deg"] == -4.0
    # The next row, around the next column along [110]: the image a row and a column further.
    moved = np.roll(fit.window.reshape(40, 56), (-20, -14), (0, 1)).ravel()
    assert np.sqrt(np.mean((above.window - moved) ** 2)) < 0.01
    assert np.sqrt(np.mean((above.window - fit.window) ** 2)) > 0.1


def test_columns_get_the_fit_of_their_crystal_and_others_keep_the_networks(aluminate, monkeypatch, fit):
    windows, projection = aluminate
    monkeypatch.setattr("unitcell.known_crystals.columns.fit_specimen", lambda *given, **options: [fit])
    noise = np.full(13, ((windows - windows.mean(0)) ** 2).mean() / 10)
    mean = windows.reshape(-1, 40, 56)[:40].reshape(4, 10, 40, 56).mean(1)
    shown = np.concatenate([np.repeat(mean, 3, axis=0), np.random.default_rng(0).normal(size=(1, 40, 56))])
    table = pd.DataFrame({"row": [0] * 6 + [1] * 7, "col": [*range(6), *range(7)]})
    odd = (table.row + table.col).to_numpy() % 2 == 1
    shown[odd] = np.roll(shown[odd], 14, axis=2)  # what the next column sees
    table = table.assign(**{f"{name}_deg{end}": 1.0 for name in TILTS for end in ("", "_lo", "_hi")})
    fits = known_crystals(["La,Al,3.79"], Microscope().as_attributes()).refine(table, shown, noise)
    assert isinstance(known_crystals(["La,Al,3.79"], Microscope().as_attributes()), KnownCrystals)
    assert len(fits) >= 1
    assert (table.crystal[:12] == "LaAlO3").all()
    assert table.crystal[12] == ""
    assert (table.crystal_share[:12] == 1).all()
    assert np.isnan(table.crystal_share[12])
    assert table.v_deg[12] == 1.0
    signs = np.where(odd[:12], -1, 1)
    np.testing.assert_allclose(table.v_deg[:12] * signs, projection[0, 0], atol=0.6)
    assert (table.gamma_deg_lo >= 0).all()
    assert ((table.v_deg_lo <= table.v_deg) & (table.v_deg <= table.v_deg_hi)).all()
    assert len(NAMES) == len(fit.values)
    between = ReadRow(np.array([11, 12]), LAO, 0.7, "-+-", np.array([2.0, -3.0, -4.0, 0.0]), np.full(4, 0.1))
    monkeypatch.setattr("unitcell.known_crystals.columns.read_gaps", lambda *given: [between])
    known_crystals(["La,Al,3.79"], Microscope().as_attributes()).refine(table, shown, noise)
    assert table.crystal_share[[10, 11, 12]].tolist() == [1.0, 0.7, 0.7]
    assert table.layer_signs[[10, 11, 12]].tolist() == ["", "-+-", "-+-"]
    assert (table.v_deg[[11, 12]] * np.where(odd[[11, 12]], -1, 1)).tolist() == [2.0, 2.0]
    np.testing.assert_allclose(
        table.loc[12, ["u_deg", "gamma_deg", "gamma_deg_hi"]].astype(float), [3, 4, 4.1645], atol=1e-3
    )
