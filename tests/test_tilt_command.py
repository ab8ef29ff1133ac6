"""`unitcell tilts`: one command from an image to tables, maps and a page, or to one sentence."""

import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner
from unitcell import cli
from unitcell.artefacts import load_dataset, load_table
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.analysis import _of_the_fits, _of_the_patterns, analyse
from unitcell.tilts.inference import COLUMNS, infer_tilts, simulated_control

PIXEL_A = 0.12


@pytest.fixture(scope="module")
def control():
    return simulated_control(load_network().card, field_A=30.0, pixel_size_A=PIXEL_A)


@pytest.fixture(scope="module")
def folder(control, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tilts")
    np.save(folder / "mine.npy", control.intensity)
    return folder


def run(*arguments):
    return CliRunner().invoke(cli.application(), ["tilts", *map(str, arguments)])


@pytest.fixture(scope="module")
def done(folder):
    return run(folder / "mine.npy", "--pixel-size-A", PIXEL_A, "--out", folder / "out")


def test_it_prints_pattern_medians_and_the_page(done, folder):
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(lines) >= {"pattern", "tilts", "v", "u", "γ", "report"}
    median, low, high = (float(n) for n in re.findall(r"[+-]\d+\.\d+", lines["v"]))
    assert abs(median) < 1.0
    assert low < 0 < high
    assert lines["report"].endswith(str(folder / "out" / "report.html"))


def test_its_files_hold_what_the_library_says(done, folder, control):
    tilts = load_table(folder / "out" / "tilts.csv", (*COLUMNS, "pattern", "pattern_probability", "region"))
    again = infer_tilts(StemImage(control.intensity, PIXEL_A, "mine"), load_network())
    assert len(tilts) == len(again)
    np.testing.assert_allclose(tilts[list(COLUMNS)], again[list(COLUMNS)], rtol=1e-4, atol=1e-5)
    maps = load_dataset(folder / "out" / "tilt_maps.nc")
    assert float(maps.v.median()) == pytest.approx(tilts.v_deg.median(), abs=1e-5)
    regions = load_table(folder / "out" / "regions.csv", ("pattern", "probability", "cells"))
    assert regions.cells.sum() <= tilts.v_deg.notna().sum()
    assert not list(folder.rglob("*.part"))


def test_the_page_needs_nothing_else(done, folder):
    page = (folder / "out" / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count('<img src="data:image/png;base64,') == 4
    assert not re.search(r'alt=""', page)
    assert "the mirror" in page.lower() or "mirror image" in page


def test_a_known_crystal_is_fitted_and_its_tilts_are_tabulated(folder):
    done = run(folder / "mine.npy", "--pixel-size-A", PIXEL_A, "--crystal", "Sr,Ti,3.905", "--out", folder / "known")
    assert done.exit_code == 0, done.output
    assert "SrTiO3: " in next(line for line in done.stdout.splitlines() if line.startswith("crystals"))
    tilts = load_table(folder / "known" / "tilts.csv", ("crystal",))
    fitted = tilts[tilts.crystal == "SrTiO3"]
    assert len(fitted) >= 0.9 * tilts.v_deg.notna().sum()
    assert (np.abs(fitted.v_deg) < 0.5).all()
    # Untilted: images are quadratic in u and γ there, and say little of 2°.
    assert np.hypot(fitted.u_deg, fitted.gamma_deg).median() < 4
    assert "crystal" in load_dataset(folder / "known" / "tilt_maps.nc")


def test_known_crystals_are_not_silently_left_out(control):
    with pytest.raises(InputError, match="leave them out"):
        infer_tilts(control, load_network(), averaged=False, known=object())


def test_what_fits_do_not_tell_is_warned_of():
    tilts = pd.DataFrame({"v_deg": [0.0] * 4, "crystal": ["SrTiO3", "SrTiO3", "LaAlO3", ""]})
    unexplained, interfaces = _of_the_fits(tilts)
    assert "25%" in unexplained
    assert "near interfaces" in interfaces
    assert not list(_of_the_fits(tilts[:2]))
    assert not list(_of_the_fits(tilts[["v_deg"]]))


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (lambda i: -i, [], "bright columns on a dark ground"),
        (lambda i: i[:20, :20], [], "fewer than 3 × 3 unit cells"),
        (lambda i: np.random.default_rng(0).normal(size=i.shape), [], "No projected perovskite lattice"),
        (lambda i: i, ["--lattice-A", 5.2], "correct pixel_size_A"),
        (lambda i: i, ["--crystal", "Sr,Ti"], "'Sr,Ti' is no crystal"),
        (lambda i: i, ["--network", "none.safetensors"], "No file at none.safetensors"),
        (lambda i: np.stack([i, i]), [], "frame"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    folder, control, tmp_path, monkeypatch, capsys, change, arguments, words
):
    np.save(tmp_path / "bad.npy", change(control.intensity))
    command = ["tilts", str(tmp_path / "bad.npy"), "--pixel-size-A", str(PIXEL_A), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["unitcell", *command, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    message = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unitcell: ")]
    assert len(message) == 1
    assert words in message[0]
    assert not (tmp_path / "out").exists()


def test_a_dark_field_image_may_be_inverted(done, folder, control, tmp_path):
    np.save(tmp_path / "adf.npy", control.intensity.max() - control.intensity)
    inverted = run(tmp_path / "adf.npy", "--pixel-size-A", PIXEL_A, "--invert", "--out", tmp_path / "out")
    assert inverted.exit_code == 0, inverted.output
    assert "was inverted on request" in inverted.stdout
    tilts, upright = (load_table(place / "tilts.csv") for place in (tmp_path / "out", folder / "out"))
    np.testing.assert_allclose(tilts.v_deg, upright.v_deg, atol=0.05)


def test_frames_are_averaged_or_chosen(control, tmp_path):
    noisy = np.random.default_rng(1).poisson(control.intensity / 4, (4, *control.intensity.shape))
    np.save(tmp_path / "series.npy", noisy.astype(np.float32))
    for frame in ("mean", "-1"):
        done = run(tmp_path / "series.npy", "--pixel-size-A", PIXEL_A, "--frame", frame, "--out", tmp_path / frame)
        assert done.exit_code == 0, done.output
        assert abs(load_table(tmp_path / frame / "tilts.csv").v_deg.median()) < 1.0


def test_warnings_name_what_is_wrong(control):
    network = load_network()
    stretched = replace(control, pixel_size_A=PIXEL_A * 1.06, recorded={"semiangle_mrad": 45.0})
    warnings = " ".join(analyse(stretched, network).warnings)
    assert "check pixel_size_A" in warnings
    assert "45 mrad" in warnings
    assert "simulated" in warnings


def test_a_pattern_that_rests_on_gamma_alone_is_warned_of():
    tilts = pd.DataFrame({"pattern": ["a0a0c±"] * 4 + ["a-a-c+"], "gamma_deg_lo": [0.0, 0.0, 0.0, 1.0, 0.0]})
    (warning,) = _of_the_patterns(tilts)
    assert "In 4 columns nothing but γ" in warning
    assert "75%" in warning
    assert not list(_of_the_patterns(tilts.assign(gamma_deg_lo=1.0)))
    assert not list(_of_the_patterns(tilts.assign(pattern="a0a0c0")))
