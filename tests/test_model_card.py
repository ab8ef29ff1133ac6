"""What a network tells about itself, and the tables that are committed with it."""

import json

import numpy as np
import pytest
from unitcell.artefacts import load_dataset, load_table
from unitcell.data import fetch
from unitcell.networks.leaning import DEPTH_A, leaning_image, specimens
from unitcell.networks.model_card import card_table, model_card
from unitcell.networks.tilt_network import load_network
from unitcell.networks.truth_windows import true_images


@pytest.mark.parametrize(
    ("name", "microscope", "material"),
    [
        ("tilt_network", "200 kV, probe 30 mrad, detector 15 to 30 mrad", "SrTiO3 (3.905 Å), "),
        ("tilt_network_300kv", "300 kV, probe 25 mrad, detector 11 to 22 mrad", "LaMnO3 (3.93 Å)"),
        ("tilt_network_20mrad", "200 kV, probe 20 mrad, detector 11 to 22 mrad", "SrTiO3 (3.905 Å), "),
    ],
)
def test_committed_networks_say_what_they_are(name, microscope, material):
    network = load_network(fetch(name))
    card = model_card(network)
    assert card["microscope"] == microscope
    assert card["materials"].startswith(material)
    assert card["networks"].startswith("4 of 1,593,036 parameters")
    assert card["command"].startswith("unitcell train ")
    assert "seed 0" in card["recipe"]
    assert "common sign" in card["limits"]
    assert len(card["training images, SHA-256"]) == 64
    for coordinate in ("v", "u", "gamma"):
        # Frozen phonons widen intervals, those of v above all; these test windows have no sampling noise.
        assert 0.88 < network.card["test"][f"coverage_{coordinate}"] < 0.985
    assert max(network.card["widening"]["v"]["ratio"]) > 1.2
    assert "limits" in card_table(network).to_html()
    assert json.dumps(network.card)


def test_ablations_table_is_that_of_the_benchmark():
    table = load_table(fetch("ablations"), ["network", "sharp_v", "distorted_gamma"]).set_index("network")
    assert len(table) == 13
    compact = table.loc["compact network"]
    assert compact.parameters == 1_593_036
    # Signs that the image does not have are answered with zero: u and γ cannot be better than their own spread.
    assert table.loc["fully connected, regresses signs", "sharp_gamma"] > 2 * compact.sharp_gamma
    assert compact.distorted_v < table.loc["without source size", "distorted_v"]
    assert compact.sharp_v < 0.9 * table.loc["without equal views (fully connected)", "sharp_v"]


def test_leaning_truth_is_made_by_its_command():
    truth = load_dataset(fetch("leaning_truth"), ("abf",))
    assert truth.sizes["structure"] == 20
    lean = np.hypot(truth.crystal_tilt_x, truth.crystal_tilt_y)
    assert 2.0 < float(lean.max()) <= 3.0
    drawn = specimens(4, 3.0, 0)
    assert truth.alpha.values == pytest.approx([one["tilts"][0] for one in drawn])
    again = leaning_image(drawn[0], 0)
    assert again.shape == (len(DEPTH_A), 40, 28)
    assert np.abs(again - truth.abf.values[0]).max() < 2e-3
    found = true_images(truth)
    assert [one.material for one in found] == ["SrTiO3", "CaTiO3", "LaAlO3", "LaMnO3", "EuMnO3"]
    assert found[0].cells.shape == (4, 3, 40, 28)
