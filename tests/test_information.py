"""Fisher information and posteriors of windows against algebra, samples, autograd and each other."""

import numpy as np
import pytest
import torch
from unitcell.abf.simulation import CELL_SHAPE, simulate_stack, tilt_grid
from unitcell.crystals import tilted_perovskite, tilted_positions
from unitcell.crystals.tilt_coordinates import to_projection, to_pseudocubic
from unitcell.errors import InputError
from unitcell.scattering import Microscope, annular_images
from unitcell.surrogates.information import (
    bounds_table,
    cramer_rao,
    fisher_information,
    image_and_slopes,
    window_electrons,
)
from unitcell.surrogates.surrogate import Surrogate
from unitcell.surrogates.window_posterior import expected_image, sample_window, window_model

QUICK = {"k_points": (2, 1), "cutoff_mrad": 40.0}
STATE, DEPTHS = (3.0, 4.0, 5.0), [60.0, 100.0]


@pytest.fixture(scope="module")
def surrogate():
    stack = simulate_stack(tilt_grid(10.0), [80.0, 100.0, 120.0], Microscope(), progress=False, **QUICK)
    return Surrogate.fit(stack, restarts=3, dtype=torch.float64)


def test_slopes_are_the_kernels_gradients():
    microscope = Microscope(crystal_tilt_x_mrad=1.0, defocus_A=20.0)
    names = ("v", "u", "gamma", "thickness", "crystal_tilt_x")
    found, slopes = image_and_slopes(STATE, DEPTHS, microscope, names, dtype=torch.float64, **QUICK)
    weights = torch.randn(CELL_SHAPE, generator=torch.manual_seed(0), dtype=torch.float64)
    leaves = [
        torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in ([3.0, 4, 5], [100.0], [1.0, 0])
    ]
    tilts = torch.stack(to_pseudocubic(*leaves[0]))
    images = annular_images(
        tilted_perovskite(*tilts.tolist()), microscope, leaves[1], CELL_SHAPE, positions=tilted_positions(tilts),
        crystal_tilt_mrad=leaves[2], excitation_per_A=0.0, dtype=torch.float64, **QUICK,
    )  # fmt: skip
    (images[0] * weights).sum().backward()
    truth = [*leaves[0].grad.tolist(), leaves[1].grad.item(), leaves[2].grad[0].item()]
    assert found[1] == pytest.approx(images[0].detach().numpy(), abs=1e-9)
    assert (slopes[1] * weights.numpy()).sum(axis=(1, 2)) == pytest.approx(truth, rel=2e-3, abs=1e-5)


def test_information_is_the_variance_of_the_score():
    generator = np.random.default_rng(0)
    image, slopes = generator.uniform(0.3, 0.8, (8, 6)), generator.normal(size=(2, 8, 6)) * 0.01
    electrons = 500.0
    counts = generator.poisson(electrons * image, (20_000, 8, 6))
    score = ((counts / image - electrons)[:, None] * slopes).sum(axis=(2, 3))
    assert fisher_information(image, slopes, electrons) == pytest.approx(np.cov(score.T), rel=0.05, abs=5e-3)


def test_bounds_are_the_inverse_of_the_information():
    information = np.array([[4.0, 1.0, 0.5], [1.0, 9.0, 0.2], [0.5, 0.2, 1.0]])
    names = ("v", "u", "thickness")
    everything = cramer_rao(information, names)
    assert list(everything.values()) == pytest.approx(np.sqrt(np.linalg.inv(information).diagonal()))
    fewer = cramer_rao(information, names, known=("thickness",))
    assert list(fewer) == ["v", "u"]
    assert list(fewer.values()) == pytest.approx(np.sqrt(np.linalg.inv(information[:2, :2]).diagonal()))
    assert fewer["v"] < everything["v"]
    assert cramer_rao(100 * information, names)["u"] == pytest.approx(everything["u"] / 10)


def test_what_the_image_does_not_show_has_no_bound():
    information = np.array([[4.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])  # two that act alike
    bounds = cramer_rao(information, ("v", "u", "gamma"))
    assert bounds["v"] == pytest.approx(0.5)
    assert np.isinf([bounds["u"], bounds["gamma"]]).all()
    images, slopes = image_and_slopes((3.0, 0.0, 0.0), [100.0], Microscope(), ("v", "u", "gamma"), **QUICK)
    untilted = cramer_rao(fisher_information(images[0], slopes[0], 100.0), ("v", "u", "gamma"))
    assert np.isfinite(untilted["v"])
    assert min(untilted["u"], untilted["gamma"]) > 50 * untilted["v"]  # the mirror: even in (u, γ)


def test_unknown_parameters_are_refused():
    with pytest.raises(InputError, match="colour is no parameter of an image: give some of v, u"):
        image_and_slopes(STATE, DEPTHS, Microscope(), ("v", "colour"), **QUICK)


def test_table_of_bounds():
    few = ("thickness", "defocus", "crystal_tilt_x", "crystal_tilt_y")
    scope = Microscope()
    table = bounds_table([STATE], DEPTHS, 1e4, scope, **QUICK)
    assert list(table.thickness_A) == DEPTHS
    assert (
        table[["v", "u", "gamma"]] > bounds_table([STATE], DEPTHS, 1e4, scope, few, **QUICK)[["v", "u", "gamma"]]
    ).all(axis=None)
    more = bounds_table([STATE], DEPTHS, 4e4, scope, **QUICK)
    assert more.v.values == pytest.approx(table.v.values / 2, rel=1e-6)


def test_electrons_of_a_window():
    assert window_electrons(1e4, 3.905) * np.prod(CELL_SHAPE) == pytest.approx(1e4 * 4 * np.sqrt(2) * 3.905**2)


def test_model_expects_what_the_surrogate_says(surrogate):
    expected = expected_image(surrogate, np.array([3.0, 4.0, 5.0]), 90.0).eval()
    truth = surrogate.images(torch.tensor([[3.0, 4.0, 5.0]]).double(), torch.tensor([90.0]).double())
    assert expected == pytest.approx(truth.flatten().numpy(), abs=1e-9)


def test_posterior_has_both_modes_and_the_bounds_width(surrogate):
    projection = torch.tensor([to_projection(6.0, 0.0, 6.0)], dtype=torch.float64)
    depth = torch.tensor([100.0], dtype=torch.float64)
    image, electrons = surrogate.images(projection, depth)[0].numpy(), window_electrons(3e4, 3.905)
    counts = np.random.default_rng(0).poisson(electrons * image)
    start = (*projection[0].tolist(), 100.0)
    draws = sample_window(surrogate, counts, electrons, start, draws=150, tune=250, chains=2).posterior
    tilts = draws.tilts.values  # (chain, draw, 3)
    spread = tilts.std(axis=1).mean(axis=0)
    slopes = surrogate.jacobian(projection, depth)[0].numpy()
    bounds = cramer_rao(fisher_information(image, slopes, electrons), ("v", "u", "gamma", "thickness"))
    assert spread == pytest.approx([bounds[name] for name in ("v", "u", "gamma")], rel=0.3)
    assert np.abs(tilts[0].mean(axis=0) - projection[0].numpy()).max() < 4 * max(spread)
    assert np.sign(tilts[1, :, 2].mean()) == -np.sign(tilts[0, :, 2].mean())
    assert tilts[1].mean(axis=0) == pytest.approx(tilts[0].mean(axis=0) * [1, -1, -1], abs=0.5 * max(spread))


@pytest.mark.parametrize("counts", [np.ones((3, 3)), np.full(CELL_SHAPE, np.nan), -np.ones(CELL_SHAPE)])
def test_impossible_counts_are_refused(surrogate, counts):
    with pytest.raises(InputError, match="give detected electrons"):
        window_model(surrogate, counts, 100.0)
