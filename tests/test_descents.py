"""Descents to a specimen: what they find, how far they go, and the detector's trail that they allow for."""

import numpy as np
import pytest
import torch
from unitcell.known_crystals import specimen_fit
from unitcell.known_crystals.materials import parse_material
from unitcell.known_crystals.search import Reading, Search
from unitcell.known_crystals.sought import COARSE, FINE, MEAN, PLACE, SPECIMEN, recorded, simulated
from unitcell.networks.training_windows import refine
from unitcell.scattering import Microscope

LAO = parse_material("La,Al,3.79")


def test_a_detector_that_fades_drags_an_image_and_keeps_its_place():
    rows, columns, extent_A, lag_A = 40, 28, (7.6, 5.4), torch.tensor([[0.3, -0.2]])
    y, x = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    source = torch.zeros(1, 3)
    for (m, n), drag in (((0, 2), 0.3 / extent_A[1]), ((3, 0), -0.2 / extent_A[0])):
        wave, turns = torch.cos(2 * np.pi * (m * y + n * x)), 2j * np.pi * (m + n) * drag
        sharp, dragged = (
            torch.fft.rfft2(refine(wave[None], source, extent_A, lag_A=lag))[0, m, n] for lag in (None, lag_A)
        )
        # ∫ exp(−s) cos(k (x − s l)) ds, moved back by the mean of s l
        assert complex(dragged / sharp) == pytest.approx(np.exp(turns) / (1 + turns), abs=1e-5)
    flat = refine(torch.full((1, rows, columns), 0.4), source, extent_A, lag_A=lag_A)
    assert flat.numpy() == pytest.approx(0.4, abs=1e-6)


def test_a_descent_lowers_its_cost_and_finds_thickness_and_lag():
    how, x = (LAO, "---", Microscope()), MEAN.copy()
    x[PLACE["lag_x_A"]] = 0.2
    x[[0, 1, 2, PLACE["thickness_A"], SPECIMEN, SPECIMEN + 2]] = 3.0, 2.0, 4.0, 90.0, 0.04, 0.04
    search = Search(recorded(simulated(x, how, COARSE), x, 3.79)[0], 1e-4, how, Reading(2.0, 3.0, 3.0, 0.5, 6.0))
    begin = x.copy()
    begin[[0, 1, 2, PLACE["thickness_A"], PLACE["lag_x_A"]]] = 2.0, 3.0, 3.0, 100.0, 0.0
    end, cost = search.descend(begin, 10, effort=COARSE)
    assert cost < 0.05 * search.cost(begin, search.window(begin, COARSE))
    spread = np.sqrt(np.diag(specimen_fit._end(search, end, cost).covariance))
    assert (spread < [0.12, 0.9, 0.8]).all()
    assert (np.abs(end - x)[:3] < 2 * spread).all()
    assert end[PLACE["thickness_A"]] == pytest.approx(90, abs=3)
    assert end[[PLACE["lag_x_A"], PLACE["lag_y_A"]]] == pytest.approx([0.2, 0.0], abs=0.06)


@pytest.mark.parametrize(
    ("costs", "wanted"),
    [
        ((100.0, 130.0, 141.0), (80.0, 110.0, 141.0)),  # up to 1.4 times the least
        ((700.0, 720.0), (700.0, 720.0)),  # 0.7 of a pixel each: no crystal shows like this
    ],
)
def test_low_ends_go_on_with_fine_slopes_where_a_crystal_is_shown(costs, wanted):
    class Valley:
        seen = np.zeros(1000)

        def descend(self, x, rough):
            assert rough == FINE
            return x + 1, x[0] - 20

    ends = specimen_fit._polished([(Valley(), np.array([cost]), cost) for cost in costs])
    assert tuple(cost for *_, cost in ends) == wanted
    assert [x[0] for _, x, _ in ends] == [cost + (cost != end) for cost, end in zip(costs, wanted, strict=True)]
