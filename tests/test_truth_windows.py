"""Windows of another engine's images: what they show, and which structures have a tilt to be right about."""

import numpy as np
import pytest
import torch
from unitcell.artefacts import load_dataset
from unitcell.data import fetch
from unitcell.tilt_network import load_network
from unitcell.training_library import registered
from unitcell.truth_windows import REPEATS, materials_of, score_truth, truth_windows


@pytest.fixture(scope="module")
def truth():
    return load_dataset(fetch("phonon_truth"), ("abf",))


def test_patterns_along_the_beam_are_left_out(truth):
    found = materials_of(truth)
    assert set(found) == {"SrTiO3", "CaTiO3", "LaMnO3", "EuMnO3", "LaAlO3"}
    assert len(found["SrTiO3"]) == 20
    assert not {str(s) for s in truth.signs.values[found["SrTiO3"]]} & {"+--", "-+-", "++-", "+++"}


def test_windows_show_their_structures(truth):
    windows, projection = truth_windows(truth, np.array([3, 5]), 1, 1e7, torch.Generator().manual_seed(0))
    assert windows.shape == (2 * REPEATS, 40, 56)
    assert np.ptp(projection[::2], axis=0).max() == 0
    cells = registered(torch.tensor(truth.abf.values[[3, 5], 1], dtype=torch.float32))
    mean = [windows[i::2].mean(0).roll(-20, 0)[:, :28].flatten() for i in (0, 1)]
    alike = np.array([[np.corrcoef(window, cell.flatten())[0, 1] for cell in cells] for window in mean])
    assert np.diag(alike).min() > 0.9
    assert (np.diag(alike) > alike[[0, 1], [1, 0]] + 0.005).all()


def test_committed_network_reads_them(truth):
    few = truth.isel(thickness=[2])
    table = score_truth(load_network(), few, (1e5,)).set_index("material")
    assert len(table) == 5
    assert table.loc["SrTiO3", "v"] < 0.8
    assert table.loc["SrTiO3", ["u", "gamma"]].max() < 3.0
    assert table.coverage.between(0, 1).all()
