"""What the smoke run of every chapter left: the files of the table, whole, with units, and checks that hold."""

import json
import re

import nbformat
import pandas as pd
import pytest
import xarray as xr
from safetensors import safe_open
from unitcell.book.workflow import CHAPTERS, load_profile
from unitcell.project import project_root

TILTS = ("v", "u", "gamma", "alpha", "beta", "alternation")
COLUMNS = {
    "tilts.csv": {"row", "col", "x_px", "y_px", "ood"} | {f"{t}_deg{end}" for t in TILTS for end in ("", "_lo", "_hi")},
    "atoms.csv": {"x_px", "y_px", "species", "probability"},
    "classes.csv": {"x_px", "y_px", "class", "class_probability"},
    "latent.csv": {"angle_rad", "dx", "dy", "z1", "z2"},
}
FILES = [(chapter, name) for chapter, step in CHAPTERS.items() for name in step.writes]


@pytest.fixture(scope="module")
def smoke():
    return load_profile("smoke")


def artefact(profile, chapter, name):
    path = project_root() / profile.folder(chapter) / name
    assert path.is_file(), f"no {path}: run 'make smoke' first"
    return path


@pytest.mark.parametrize(("chapter", "name"), [pair for pair in FILES if pair[1].endswith(".csv")])
def test_table(smoke, chapter, name):
    table = pd.read_csv(artefact(smoke, chapter, name))
    assert len(table)
    assert set(table) >= COLUMNS.get(name, set())
    assert not table.isna().all().any(), "a column without a single value"


@pytest.mark.parametrize(("chapter", "name"), [pair for pair in FILES if pair[1].endswith(".nc")])
def test_arrays_state_their_units(smoke, chapter, name):
    with xr.open_dataset(artefact(smoke, chapter, name), engine="h5netcdf") as dataset:
        assert dataset.data_vars or name == "posterior.nc"  # a posterior keeps its arrays in groups
        numbers = [v for v, array in dataset.data_vars.items() if array.dtype.kind == "f"]
        without = [v for v in numbers if "units" not in dataset[v].attrs]
    assert not without, f"{name}: no units for {without}"


@pytest.mark.parametrize(("chapter", "name"), [pair for pair in FILES if pair[1].endswith(".safetensors")])
def test_weights_name_their_architecture(smoke, chapter, name):
    with safe_open(artefact(smoke, chapter, name), framework="np") as archive:
        assert archive.metadata()["architecture"]
        assert list(archive.keys())


def test_metrics_are_numbers(smoke):
    assert json.loads(artefact(smoke, "04_train_tilt_network", "metrics.json").read_text())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_ledger_balances(smoke, chapter):
    checks = pd.read_csv(artefact(smoke, chapter, "checks.csv"))
    assert len(checks) >= 3
    assert set(checks) == {"check", "published or expected", "this run", "tolerance", "verdict"}
    assert set(checks["verdict"]) <= {"holds", "differs"}
    assert checks["published or expected"].str.len().min() > 3, "an expected value without its source"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_provenance_is_complete(smoke, chapter):
    signed = json.loads(artefact(smoke, chapter, "provenance.json").read_text())
    assert signed["chapter"] == chapter
    assert signed["commit"]
    assert signed["versions"]["torch"].startswith("2.13")
    assert 0 < signed["seconds"] < 300
    assert signed["peak_memory_MB"] > 50
    given = {key: value for key, value in smoke.parameters(chapter).items() if key != "output_dir"}
    assert {key: signed["parameters"][key] for key in given} == given
    read = {path.rsplit("/", 1)[-1] for path in smoke.upstream(chapter).values()}
    assert read <= set(signed["inputs_sha256"]), "a file of an earlier chapter was not noted as an input"
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in signed["inputs_sha256"].values())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_executed_notebook_opens_alike(smoke, chapter):
    cells = nbformat.read(artefact(smoke, chapter, f"{chapter}.ipynb"), as_version=4).cells
    for words in ("**Question.**", "**What you will see.**", "**What you need.**", "**Cost.**"):
        assert words in cells[0].source
    assert 15 <= len(cells) <= 45
    assert max(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code") <= 20


def test_no_pickles(smoke):
    kinds = {path.suffix for path in (project_root() / smoke.folder("")).glob("0*/*")}
    assert kinds <= {".nc", ".csv", ".json", ".safetensors", ".ipynb", ".png", ".npy", ""}
