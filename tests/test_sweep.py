"""The sweep's graph and what is kept of it."""

import numpy as np
import pytest
from unitcell.book.workflow import Profile, load_profile
from unitcell.data import fetch
from unitcell.environments import conclusions, sweep
from unitcell.environments.sweep_results import agreement, gather, load_groups, stability
from unitcell.errors import InputError


@pytest.fixture(scope="module")
def kept():
    return load_groups(fetch("two_crystals"))


def test_every_run_reads_what_an_earlier_one_writes():
    settings = sweep.chosen_settings(["lsmo_nio-36-raw", "sr3fe2o7-32-segmented"])
    jobs = sweep.jobs(load_profile("smoke"), settings, seeds=(0, 1))
    written = set()
    for job in jobs:
        assert set(job.reads) <= written, job.folder
        written |= set(job.outputs)
    assert len(jobs) == 2 * (1 + 2 + 2 * 3)
    assert len({job.name for job in jobs}) == len(jobs)


def test_a_changed_setting_reruns_only_what_depends_on_it():
    profile, setting = load_profile("smoke"), sweep.chosen_settings(["lsmo_nio-24-raw"])
    changed = Profile("smoke", profile.chapters | {"07_rvae": profile.chapters["07_rvae"] | {"epochs": 4}})
    before, after = (sweep.jobs(p, setting, (0,)) for p in (profile, changed))
    differ = {a.chapter for a, b in zip(before, after, strict=True) if a.recipe != b.recipe}
    assert differ == {"07_rvae"}  # and 08, since it reads what 07 writes anew
    assert all(any("07_rvae" in path for path in job.reads) for job in after if job.chapter == "08_gmm_cvae")


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
    lsmo, sfo = kept["lsmo_nio-36-raw"], kept["sr3fe2o7-32-raw"]
    board = conclusions.checkerboard(lsmo)
    assert board["apart_deg"] > 3 * max(board["A_deg"], board["B_deg"])
    assert conclusions.edges_apart_deg(sfo) == pytest.approx(180, abs=10)
    assert conclusions.thickness_share(sfo) > 0.5
    assert conclusions.separation(lsmo, "z1", [2]) > 0.95


def test_stability_has_a_row_for_each_case(kept):
    table = stability({"lsmo_nio-24-segmented": kept["lsmo_nio-24-segmented"]})
    assert len(table) == 3 * 3
    assert table["median ARI"].between(-1, 1).all()


def test_scan_lines_are_seen_where_they_are():
    import xarray as xr

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(100) * 4.0, 20)
    noise = {name: ("atom", rng.normal(0, 0.1, 2000)) for name in conclusions.LATENTS}
    data = xr.Dataset(noise | {"y_px": ("atom", y), "true_environment": ("atom", np.zeros(2000, int))})
    data["dx"] = data.dx + np.repeat(rng.normal(0, 0.1, 100), 20)
    shares = conclusions.line_shares(data)
    assert shares.pop("dx") == pytest.approx(0.5, abs=0.1)
    assert max(map(abs, shares.values())) < 0.05
