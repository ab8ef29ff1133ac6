"""From a microscope file to its network."""

import sys
from dataclasses import replace

import pytest
import torch
from unitcell import cli
from unitcell.errors import InputError
from unitcell.networks import your_microscope
from unitcell.networks.tilt_network import load_network
from unitcell.networks.training_library import Specimens
from unitcell.networks.your_microscope import Recipe, load_microscope_file, train_for
from unitcell.scattering import Microscope

SMALL = Recipe(structures=16, members=1, windows=512, batch=32)
FEW = Specimens(depths=3, materials=(("La", "Mn", 3.93),))
OTHER = Microscope(300e3, 25, 11, 22)


def written(folder, text):
    path = folder / "my.yml"
    path.write_text(text)
    return path


def test_microscope_file(tmp_path):
    text = "energy_eV: 3.0e+5\nsemiangle_mrad: 25\ninner_mrad: 11\nouter_mrad: 22\nmaterials:\n  - [La, Mn, 3.93]\n"
    microscope, specimens = load_microscope_file(written(tmp_path, text))
    assert microscope == OTHER
    assert specimens.materials == (("La", "Mn", 3.93),)
    assert load_microscope_file(written(tmp_path, "outer_mrad: 24\n"))[1] == Specimens()
    wider = "specimens:\n  thickness_A: [20, 620]\n  defocus_A: 20\n  depths: 6\n"
    expected = Specimens(thickness_A=(20.0, 620.0), defocus_A=20.0, depths=6)
    assert load_microscope_file(written(tmp_path, wider))[1] == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("colour: 3\n", "my.yml holds colour: give keys among energy_eV"),
        ("- 3\n", "my.yml holds no mapping"),
        ("energy_eV: [\n", "my.yml is not readable YAML"),
        ("energy_eV: fast\n", "my.yml holds a value that is no number"),
        ("energy_eV: 3\n", "energy_eV = 3 is no STEM's"),
        ("materials: [[La, Mn]]\n", "no \\[A, B, lattice parameter\\]"),
        ("materials: []\n", "the list of materials is empty"),
        ("specimens: {colour: 3}\n", "specimens may hold alternating, tilt_deg"),
        ("specimens: {thickness_A: 20}\n", "thickness_A is 20"),
        ("specimens: {thickness_A: [400, 20]}\n", "thickness_A is \\[400, 20\\]"),
        ("specimens: {defocus_A: fast}\n", "could not convert"),
    ],
)
def test_bad_microscope_files_are_refused_in_one_sentence(tmp_path, text, names):
    with pytest.raises(InputError, match=names) as refused:
        load_microscope_file(written(tmp_path, text))
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mine")


@pytest.fixture(scope="module")
def first(folder):
    return train_for(OTHER, FEW, SMALL, folder=folder, progress=False)


def test_network_of_another_microscope_tells_what_it_is(first):
    assert first.card["energy_eV"] == 300e3
    assert (first.card["a_site"], first.card["lattice_A"]) == ("La", 3.93)
    assert 0 < first.card["test"]["rms_v_deg"] < 20
    assert min(first.calibration["v"]["factor"]) > 0


def test_a_second_run_finds_everything_done(first, folder, monkeypatch):
    monkeypatch.setattr(your_microscope, "train_member", None)
    again = train_for(OTHER, FEW, SMALL, folder=folder, progress=False)
    assert again.card["test"] == pytest.approx(first.card["test"], rel=1e-5)
    for name, value in first.members[0].state_dict().items():
        assert torch.equal(value, again.members[0].state_dict()[name])


@pytest.mark.usefixtures("first")
def test_a_member_of_another_recipe_is_not_taken(folder, monkeypatch):
    monkeypatch.setattr(your_microscope, "train_member", lambda *_, **__: 1 / 0)
    other = replace(SMALL, windows=1024)
    with pytest.raises(ZeroDivisionError):
        train_for(OTHER, FEW, other, folder=folder, progress=False)


def test_command_line(first, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(your_microscope, "train_for", lambda *_, **__: first)
    monkeypatch.setattr(sys, "argv", ["unitcell", "train", str(tmp_path / "mine.safetensors")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "v: rms error" in capsys.readouterr().out
    assert load_network(tmp_path / "mine.safetensors").card["outer_mrad"] == 22
    missing = tmp_path / "none.yml"
    monkeypatch.setattr(sys, "argv", ["unitcell", "train", "x.safetensors", "--microscope", str(missing)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "none.yml" in capsys.readouterr().err
