"""Windows of images that nothing is trained on: what they show, and what the committed network makes of them."""

import numpy as np
import pytest
import torch
from unitcell.artefacts import load_dataset
from unitcell.data import fetch
from unitcell.networks.tilt_network import load_network
from unitcell.networks.truth_windows import REPEATS, SHARP, TrueImages, score_truth, true_images


@pytest.fixture(scope="module")
def truth():
    return true_images(load_dataset(fetch("phonon_truth"), ("abf",)))


def test_patterns_that_alternate_along_the_beam_stand_apart(truth):
    counts = {images.material: len(images.cells) for images in truth}
    assert counts == {
        "SrTiO3": 20, "SrTiO3 alternating": 4, "CaTiO3": 2, "LaMnO3": 2, "EuMnO3": 2, "LaAlO3": 2,
    }  # fmt: skip
    for images in truth:
        assert (images.projection[:, 3] > 0).all() == ("alternating" in images.material)
        assert images.cells.shape[1:] == (3, 40, 28)
        assert len(images.depth_A) == 3


def test_windows_show_their_structures(truth):
    first = truth[0]
    two = TrueImages(first.material, first.depth_A, first.cells[[3, 5]], first.projection[[3, 5]])
    windows, projection = two.windows(1, 1e7, SHARP, torch.Generator().manual_seed(0))
    assert windows.shape == (2 * REPEATS, 40, 56)
    assert np.ptp(projection[::2], axis=0).max() == 0
    mean = [windows[i::2].mean(0).roll(-20, 0)[:, :28].flatten() for i in (0, 1)]
    alike = np.array([[np.corrcoef(window, cell.flatten())[0, 1] for cell in two.cells[:, 1]] for window in mean])
    assert np.diag(alike).min() > 0.97
    assert (np.diag(alike) > alike[[0, 1], [1, 0]] + 0.01).all()


def test_committed_network_reads_them(truth):
    few = [TrueImages(t.material, t.depth_A[2:], t.cells[:, 2:], t.projection) for t in truth]
    table = score_truth(load_network(), few, (3e4,)).set_index("material")
    assert len(table) == 6
    assert table.loc["SrTiO3", "v"] < 0.5
    assert table.loc["SrTiO3", ["u", "gamma"]].max() < 1.0
    assert table.loc["SrTiO3 alternating", "u"] < 1.0  # read as alternating: as if uniform, it would be 5°
    assert 0.8 < table.loc["SrTiO3", "coverage"] < 0.96


def test_alternation_is_recognised(truth):
    network, found = load_network(), {}
    for images in truth[:2]:
        windows, _ = images.windows(2, 3e4, SHARP, torch.Generator().manual_seed(0))
        found[images.material] = np.median(network.predict(windows.numpy())["alternation_deg"])
    assert found["SrTiO3 alternating"] > 2.0
    assert found["SrTiO3"] < 1.0
