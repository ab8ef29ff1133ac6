"""Artefacts, the ledger and a chapter's signature: whole files or none, and a failed hard check fails the run."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from unitcell import artefacts
from unitcell.book import chapter
from unitcell.book.chapter import Chapter
from unitcell.book.ledger import Ledger
from unitcell.errors import CheckFailed, InputError


class Trouble(Exception):
    pass


def test_written_leaves_nothing_behind_on_failure(tmp_path):
    (tmp_path / "kept.txt").write_text("before")

    def half_write():
        with artefacts.written(tmp_path / "kept.txt") as path:
            path.write_text("half")
            raise Trouble

    with pytest.raises(Trouble):
        half_write()
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
    assert (tmp_path / "kept.txt").read_text() == "before"


def test_sha256_is_the_standard_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert artefacts.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_table_round_trip_and_missing_column(tmp_path):
    artefacts.save_table(pd.DataFrame({"x_px": [1.5, 2.25], "species": ["A", "B"]}), tmp_path / "t.csv")
    assert artefacts.load_table(tmp_path / "t.csv", ["x_px"])["x_px"].tolist() == [1.5, 2.25]
    with pytest.raises(InputError, match=r"t\.csv lacks the column\(s\) y_px: it has x_px, species"):
        artefacts.load_table(tmp_path / "t.csv", ["y_px"])


def test_dataset_round_trip_keeps_units(tmp_path):
    data = xr.Dataset({"v": ("x", np.arange(3.0), {"units": "degree"}), "n": ((), 2)})
    artefacts.save_dataset(data, tmp_path / "d.nc")
    xr.testing.assert_identical(artefacts.load_dataset(tmp_path / "d.nc", ["v"]), data)
    with pytest.raises(InputError, match=r"d\.nc lacks the variable\(s\) u"):
        artefacts.load_dataset(tmp_path / "d.nc", ["u"])


@pytest.mark.parametrize("load", [artefacts.load_table, artefacts.load_dataset])
def test_missing_and_unreadable_files_are_named(tmp_path, load):
    with pytest.raises(InputError, match=f"No file at {tmp_path / 'none'}: run the chapter that writes it"):
        load(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="empty is not a readable"):
        load(tmp_path / "empty")


def test_weights_round_trip(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3).T}  # not contiguous
    artefacts.save_weights(tensors, tmp_path / "w.safetensors", "tilt-network 3x16", {"sigma": 0.5})
    found, card = artefacts.load_weights(tmp_path / "w.safetensors", "tilt-network")
    assert torch.equal(found["w"], tensors["w"])
    assert card == {"sigma": 0.5, "architecture": "tilt-network 3x16"}


def test_weights_of_another_architecture_are_refused(tmp_path):
    artefacts.save_weights({"w": torch.zeros(2)}, tmp_path / "w.safetensors", "rvae 2x128", {})
    with pytest.raises(InputError, match=r"holds weights of architecture 'rvae 2x128', but 'tilt-network' is needed"):
        artefacts.load_weights(tmp_path / "w.safetensors", "tilt-network")


def test_weights_that_are_none(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"pickle")
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        artefacts.load_weights(tmp_path / "w.safetensors", "tilt-network")
    with pytest.raises(InputError, match=r"No file at .*: train a network \(chapter 04\)"):
        artefacts.load_weights(tmp_path / "none.safetensors", "tilt-network")


def test_json_refuses_nan_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        artefacts.save_json({"x": float("nan")}, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "limits", "hard", "verdict", "tolerance"),
    [
        (1.0, {"low": 0.5, "high": 1.5}, True, "holds", "0.5 to 1.5"),
        (1.5, {"high": 1.5}, True, "holds", "≤ 1.5"),
        (0.4, {"low": 0.5}, True, "fails", "≥ 0.5"),
        (0.4, {"low": 0.5}, False, "differs", "≥ 0.5"),
        (float("nan"), {"low": 0.5, "high": 1.5}, True, "fails", "0.5 to 1.5"),
    ],
)
def test_verdicts(value, limits, hard, verdict, tolerance):
    check = Ledger().check("a claim", value, published="1 (source)", hard=hard, **limits)
    assert (check.verdict, check.tolerance) == (verdict, tolerance)


def test_a_number_without_a_unit_is_shown_without_one():
    rows = [Ledger().check("a", 1.3, published="", low=0, high=1.5, unit=unit).row() for unit in ("", "1", "Å")]
    assert [row["this run"] for row in rows] == ["1.3", "1.3", "1.3 Å"]
    assert [row["tolerance"] for row in rows] == ["0 to 1.5", "0 to 1.5", "0 to 1.5 Å"]


def test_failed_hard_checks_are_all_named():
    ledger = Ledger()
    ledger.check("good", 1, published="1", low=0, high=2)
    ledger.check("soft", 9, published="1", high=2, hard=False)
    ledger.require()
    ledger.check("bad", 9, published="1", high=2, unit="Å")
    ledger.check("worse", 99, published="1", high=2)
    with pytest.raises(CheckFailed, match=r"does not balance: bad: 9 Å, tolerance ≤ 2; worse: 99, tolerance ≤ 2\.$"):
        ledger.require()
    assert list(ledger.table()["verdict"]) == ["holds", "differs", "fails", "fails"]


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Start a chapter of a project that declares `seed` and `output_dir`."""
    monkeypatch.setattr(chapter, "project_root", lambda: tmp_path)
    cell = nbformat.v4.new_code_cell("seed = 0  # start\noutput_dir = None", metadata={"tags": ["parameters"]})
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "09_test.ipynb")
    return lambda **namespace: Chapter.begin("09_test", namespace)


def test_unknown_chapter_parameter_is_named(begin):
    with pytest.raises(InputError, match=r"^09_test has no parameter 'sede': it takes seed, output_dir\.$"):
        begin(sede=3, output_dir=None, seed=0)


def test_chapter_signs_its_run(begin, tmp_path):
    run = begin(seed=3, output_dir=str(tmp_path / "out"), _hidden=1, In=[])
    (tmp_path / "input.txt").write_text("abc")
    run.read(tmp_path / "input.txt")
    run.check("a claim", 1.0, published="1 (definition)", low=0.9, high=1.1)
    run.close()
    signed = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert signed["parameters"] == {"seed": 3}
    assert signed["inputs_sha256"]["input.txt"].startswith("ba7816bf")
    assert signed["seconds"] >= 0
    assert pd.read_csv(tmp_path / "out" / "checks.csv")["verdict"].tolist() == ["holds"]


def test_chapter_with_a_failed_check_fails_but_keeps_its_ledger(begin, tmp_path):
    run = begin(seed=0, output_dir=str(tmp_path / "out"))
    run.check("a claim", 2.0, published="1 (definition)", high=1.1)
    with pytest.raises(CheckFailed, match=r"a claim: 2, tolerance ≤ 1\.1"):
        run.close()
    assert pd.read_csv(tmp_path / "out" / "checks.csv")["verdict"].tolist() == ["fails"]


def test_an_input_error_shows_no_traceback():
    assert InputError("No image at x.")._render_traceback_() == ["InputError: No image at x."]
