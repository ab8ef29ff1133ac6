"""The sweep's graph and what is kept of it."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from unitcell.atoms.subimages import cut_patches
from unitcell.book.workflow import Profile, load_profile
from unitcell.data import fetch
from unitcell.environments import claims, conclusions, sweep
from unitcell.environments.sweep_cuts import narrowed
from unitcell.environments.sweep_figures import places_of_classes
from unitcell.environments.sweep_results import SORTED, agreement, complete, gather, load_groups, stability
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage


@pytest.fixture(scope="module")
def kept():
    return load_groups(fetch("two_crystals"))


def test_every_run_reads_what_an_earlier_one_writes():
    profile, settings = load_profile("smoke"), sweep.chosen_settings(["lsmo_nio-36-raw", "sr3fe2o7-32-segmented"])
    jobs, cuts = sweep.jobs(profile, settings, 2), sweep.cuts(profile, settings)
    found = {name for job in jobs if job.chapter == sweep.FIND for name in job.outputs}
    assert {cut.source for cut in cuts} <= found
    written = found | {cut.target for cut in cuts}
    for job in jobs:
        assert set(job.reads) <= written, job.folder
        written |= set(job.outputs)
    assert len(jobs) == 2 + (2 + 2 * 2) + (1 + 1)  # two seeds and two numbers of classes of the paper's setting
    assert len({job.name for job in jobs}) == len(jobs)


def test_atoms_are_found_once_a_system_and_representation():
    jobs = sweep.jobs(load_profile("smoke"), sweep.chosen_settings())
    runs = Counter(job.chapter for job in jobs)
    assert runs == {sweep.FIND: 4, sweep.LEARN: 2 * 5 + 10, sweep.SORT: 2 * 5 * 2 + 10}
    assert {job.parameters["window_px"] for job in jobs if job.chapter == sweep.FIND} == {48}


def test_a_changed_setting_reruns_only_what_depends_on_it():
    profile, setting = load_profile("smoke"), sweep.chosen_settings(["lsmo_nio-24-raw"])
    changed = Profile("smoke", profile.chapters | {"07_rvae": profile.chapters["07_rvae"] | {"epochs": 4}})
    before, after = (sweep.jobs(p, setting, 1) for p in (profile, changed))
    differ = {a.chapter for a, b in zip(before, after, strict=True) if a.recipe != b.recipe}
    assert differ == {"07_rvae"}  # and 08, since it reads what 07 writes anew
    assert all(any("07_rvae" in path for path in job.reads) for job in after if job.chapter == "08_gmm_cvae")


def test_a_narrower_window_is_the_middle_of_the_wider_one():
    rng = np.random.default_rng(0)
    image = StemImage(rng.random((90, 120)), 0.2, "noise", simulated=True)
    atoms = pd.DataFrame({"x_px": rng.uniform(20, 100, 50), "y_px": rng.uniform(20, 70, 50)})
    atoms = atoms.assign(species="A", probability=1.0)
    wide, narrow = (cut_patches(image, atoms, image.intensity, window_px=edge) for edge in (24, 16))
    assert narrowed(wide, 16).patch.equals(narrow.patch)
    few = narrowed(wide, 16, most=7)
    assert np.abs(few.y_px - 45).max() <= np.sort(np.abs(atoms.y_px - 45))[6]
    for edge in (15, 26):
        with pytest.raises(InputError, match=f"window of {edge} px has no place"):
            narrowed(wide, edge)


def test_unknown_setting():
    with pytest.raises(InputError, match="no setting 'gold-36-raw'"):
        sweep.chosen_settings(["gold-36-raw"])


def test_nothing_finished_is_said_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match="No setting of the sweep has finished"):
        gather(Profile(str(tmp_path / "empty"), {}), tmp_path / "none.nc")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="No file at"):
        load_groups(tmp_path / "none.nc")


def test_kept_lsmo_classes_are_the_environments(kept):
    against, pairs = agreement(kept["lsmo_nio-36-raw"], 3)
    (index,) = against.values()
    assert np.median(index) >= 0.95
    assert index.min() >= 0.85
    assert pairs.min() >= 0.85


def test_kept_angles(kept):
    lsmo, sfo = (kept[name].isel(seed=0) for name in ("lsmo_nio-36-raw", "sr3fe2o7-32-raw"))
    assert conclusions.edges_apart_deg(sfo) == pytest.approx(180, abs=10)
    assert conclusions.thickness_share(sfo) > 0.5
    assert conclusions.best_separation(lsmo, [2]) > 0.95


def test_kept_settings_are_the_sweeps_and_fit(kept):
    assert set(SORTED) <= set(kept) == set(sweep.SETTINGS)
    assert fetch("two_crystals").stat().st_size < 2e6
    for name, data in kept.items():
        assert data.sizes["atom"] == sweep.SUB_IMAGES, name
        assert tuple(data.seed.values) == sweep.SETTINGS[name].seeds(), name
        assert list(data.components.values) == list(sweep.SETTINGS[name].components), name


def test_an_unfinished_sweep_is_refused(kept):
    assert complete(kept) is kept
    with pytest.raises(InputError, match="lacks sr3fe2o7-32-raw: run"):
        complete({name: data for name, data in kept.items() if name != "sr3fe2o7-32-raw"})
    name = "lsmo_nio-24-segmented"
    with pytest.raises(InputError, match=f"lacks classes of {name}: run"):
        complete(kept | {name: kept[name].assign({"class": kept[name]["class"] * 0})})


def test_stability_has_a_row_for_each_case(kept):
    table = stability({"lsmo_nio-24-segmented": kept["lsmo_nio-24-segmented"]})
    assert len(table) == 3
    assert table["median ARI"].between(-1, 1).all()


def test_a_verdict_needs_every_part():
    claim = claims.Claim("all are ones", "nowhere", [("one", 1.0, 1, 1), ("two", 2.0, 1, 1)])
    assert claim.verdict == "partly"
    assert claims.Claim("", "", claim.parts[:1]).verdict == "reproduced"
    assert claims.Claim("", "", claim.parts[1:]).verdict == "not"
    assert claims.Claim("", "", [("absent", np.nan, 0, 1)]).verdict == "not run"


def test_claims_say_what_was_not_run(kept):
    made = claims.claims({"sr3fe2o7-32-raw": kept["sr3fe2o7-32-raw"]})
    table = claims.verdicts(made)
    assert (table.verdict[table["the paper says"].str.startswith("LSMO")] == "not run").all()
    thick = table[table["the paper says"].str.contains("grow with the thickness")].iloc[0]
    assert thick.verdict in ("reproduced", "partly")
    assert "R²" in thick.measured


def test_mirror_images_are_found():
    side = 20
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    slope, round_one = np.exp(-((x - 3) ** 2 + (y - 5) ** 2) / 9), np.exp(-(x**2 + y**2) / 20)
    images = np.array([slope, round_one, slope[::-1, ::-1]])
    data = xr.Dataset({"mean3": (("class3", "row", "col"), images)})
    assert conclusions.mirror_pair(data, 3) == pytest.approx((1, 1))
    data["mean3"][2] = slope  # not a mirror image but the same
    assert conclusions.mirror_pair(data, 3)[0] < 0.5


def test_scan_lines_are_seen_where_they_are():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(100) * 4.0, 20)
    noise = {name: ("atom", rng.normal(0, 0.1, 2000)) for name in conclusions.LATENTS}
    data = xr.Dataset(noise | {"y_px": ("atom", y), "true_environment": ("atom", np.zeros(2000, int))})
    data["dx"] = data.dx + np.repeat(rng.normal(0, 0.1, 100), 20)
    shares = conclusions.line_shares(data)
    assert shares.pop("dx") == pytest.approx(0.5, abs=0.1)
    assert max(map(abs, shares.values())) < 0.05
    assert conclusions.gathered_in_one(data) > 10
    assert conclusions.in_the_offsets(data) > 10
    even = data.assign(dx=noise["dx"])
    assert 0 <= conclusions.in_the_offsets(even) < 5  # no share is less than none


def test_a_class_has_the_colour_of_its_environment():
    environment = np.repeat([0, 1, 2], 10)
    known = [environment == n for n in range(3)]
    assert places_of_classes(np.array([3, 1, 2])[environment], known) == [1, 2, 0]
    split = np.where(np.arange(30) % 10 < 3, 4, np.array([3, 1, 2])[environment])
    assert places_of_classes(split, known) == [1, 2, 0, 3]  # the fourth is a part of each
    assert places_of_classes(np.ones(30, int), known) in ([0], [1], [2])
