"""The committed network that reads an image is the one whose card agrees with what is known of its microscope."""

import sys

import numpy as np
import pytest
from unitcell import cli
from unitcell.commands.chapter_report import _parameters
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.inference import simulated_control
from unitcell.tilts.network_choice import choose_network

PIXEL_A = 0.12


@pytest.mark.parametrize(
    ("known", "name", "agrees"),
    [
        ({}, "tilt_network", True),
        ({"energy_eV": 2e5}, "tilt_network", True),
        ({"energy_eV": 2e5, "semiangle_mrad": 29.0}, "tilt_network", True),
        ({"energy_eV": 2e5, "semiangle_mrad": 21.4}, "tilt_network_20mrad", True),
        ({"semiangle_mrad": 20.0, "inner_mrad": 11.0, "outer_mrad": 22.0}, "tilt_network_20mrad", True),
        ({"semiangle_mrad": 25.0, "inner_mrad": 11.0, "outer_mrad": 22.0}, "tilt_network_20mrad", False),
        ({"energy_eV": 3e5, "semiangle_mrad": 25.0}, "tilt_network_300kv", True),
        ({"energy_eV": 2e5, "semiangle_mrad": 24.0}, "tilt_network_20mrad", False),
        ({"energy_eV": 2e5, "semiangle_mrad": 26.0}, "tilt_network", False),
        ({"energy_eV": 3e5}, "tilt_network_300kv", True),
        ({"energy_eV": 3e5, "semiangle_mrad": 30.0}, "tilt_network_300kv", False),
        ({"energy_eV": 2e5, "semiangle_mrad": None}, "tilt_network", True),
    ],
)
def test_energy_must_agree_and_apertures_be_the_nearest(known, name, agrees):
    choice = choose_network(known)
    assert choice.path == fetch(name)
    assert choice.agrees is agrees
    assert f"{choice.card['semiangle_mrad']:g} mrad" in choice.reason
    assert choice.reason.endswith(".")
    assert ("does not agree" in choice.reason) is not agrees
    assert ("which apertures" in choice.reason) is not bool(known.get("semiangle_mrad"))


def test_no_network_for_the_energy_and_impossible_values_are_one_sentence():
    with pytest.raises(InputError, match=r"at 80 kV, and the networks here were trained for 200 and 300 kV") as refused:
        choose_network({"energy_eV": 8e4})
    assert "\n" not in str(refused.value)
    for value in (-1.0, np.nan):
        with pytest.raises(InputError, match="cannot be"):
            choose_network({"semiangle_mrad": value})


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """An image of the 20 mrad microscope."""
    card = load_network(fetch("tilt_network_20mrad")).card
    path = tmp_path_factory.mktemp("choice") / "mine.npy"
    np.save(path, simulated_control(card, field_A=26.0, pixel_size_A=PIXEL_A).intensity)
    return path


def run(mine, monkeypatch, *more):
    out = mine.parent / "out"
    command = ["unitcell", "tilts", str(mine), "--pixel-size-A", str(PIXEL_A), "--out", str(out), *more]
    monkeypatch.setattr(sys, "argv", command)
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code or 0, out
    return 0, out


def test_the_command_says_which_network_it_took_and_why(mine, monkeypatch, capsys):
    code, out = run(mine, monkeypatch, "--semiangle-mrad", "20")
    assert code == 0
    assert "probe 20 mrad, detector 11 to 22 mrad, whose card agrees" in capsys.readouterr().err
    page = (out / "report.html").read_text()
    assert "probe 20 mrad" in page
    assert "whose card agrees with what is known of the image: a probe of 20 mrad" in page


def test_a_microscope_file_an_option_and_a_network_come_in_this_order(mine, monkeypatch, capsys, tmp_path):
    (tmp_path / "my.yml").write_text("semiangle_mrad: 20\ninner_mrad: 11\nouter_mrad: 22\n")
    assert run(mine, monkeypatch, "--microscope", str(tmp_path / "my.yml"))[0] == 0
    assert "a detector to 22 mrad" in capsys.readouterr().err
    code, _ = run(mine, monkeypatch, "--microscope", str(tmp_path / "my.yml"), "--energy-eV", "120000")
    assert code == 2
    assert "at 120 kV" in capsys.readouterr().err
    assert run(mine, monkeypatch, "--semiangle-mrad", "20", "--network", str(fetch("tilt_network")))[0] == 0
    said = capsys.readouterr()
    assert "The network is that" not in said.err
    assert "Its probe has 20 mrad, the network was trained for 30 mrad" in said.out


def test_none_that_agrees_is_warned_of(mine, monkeypatch, capsys):
    assert run(mine, monkeypatch, "--semiangle-mrad", "24")[0] == 0
    said = capsys.readouterr()
    assert "its card does not agree" in said.err
    assert "warning   Its probe has 24 mrad, the network was trained for 20 mrad" in said.out


def test_chapters_get_what_is_known_and_leave_their_twins_out(tmp_path):
    image = StemImage(np.ones((64, 64), np.float32), PIXEL_A, "mine.dm4", recorded={"semiangle_mrad": 20.0})
    given = _parameters(image, tmp_path, None, None, choose_network(image.recorded).card)
    assert given["05_infer_tilts"]["microscope"] == {"semiangle_mrad": 20.0}
    assert given["05_infer_tilts"]["network"] is None
    assert given["07_rvae"]["twin_count"] == 0
