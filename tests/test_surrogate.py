"""The Gaussian process against scikit-learn, and its images against what it was fitted to."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern
from unitcell.errors import InputError
from unitcell.scattering import Microscope
from unitcell.simulation import simulate_stack
from unitcell.surrogate import NUGGET, Surrogate, fit_lengths, log_marginal_likelihood
from unitcell.tilts import to_projection

PEERS = {
    "matern12": lambda length: Matern(length, nu=0.5),
    "matern32": lambda length: Matern(length, nu=1.5),
    "matern52": lambda length: Matern(length, nu=2.5),
    "rbf": RBF,
}


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    points = generator.uniform(-10, 10, (40, 3))
    values = np.stack([np.sin(points[:, 0] / 5), points[:, 1] * points[:, 2] / 50, np.cos(points.sum(1) / 9)], axis=1)
    return points, values - values.mean(0)


@pytest.fixture(scope="module")
def stack():
    axis = np.array([-8.0, 0.0, 8.0])
    tilts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return simulate_stack(tilts, [60.0, 80.0, 100.0], Microscope(), cutoff_mrad=40, k_points=(2, 1), progress=False)


@pytest.mark.parametrize("kernel", PEERS)
def test_likelihood_equals_scikit_learn(kernel, data):
    points, values = data
    length = 7.0
    ours, amplitude = log_marginal_likelihood(
        kernel, torch.tensor(points), torch.tensor(values @ values.T), 3, torch.tensor([length])
    )
    peer = GaussianProcessRegressor(
        ConstantKernel(float(amplitude)) * PEERS[kernel](length), alpha=NUGGET * float(amplitude), optimizer=None
    ).fit(points, values)
    assert float(ours) == pytest.approx(peer.log_marginal_likelihood_value_, rel=1e-5)


def test_fit_finds_the_maximum_that_scikit_learn_finds(data):
    points, values = data
    lengths, _, likelihood = fit_lengths("matern52", points, values, restarts=5)
    peer = GaussianProcessRegressor(
        ConstantKernel(1.0, (1e-4, 1e4)) * Matern(5.0, (0.1, 1e3), nu=2.5),
        alpha=1e-10,
        n_restarts_optimizer=3,
        random_state=0,
    ).fit(points, values)
    assert lengths[0] == pytest.approx(peer.kernel_.k2.length_scale, rel=0.02)
    assert likelihood == pytest.approx(peer.log_marginal_likelihood_value_, rel=1e-3)


def test_longer_lengths_for_axes_that_matter_less(data):
    points, _ = data
    lengths, _, _ = fit_lengths("rbf", points, np.sin(points[:, :1] / 4), per_axis=True, restarts=3)
    assert lengths[1] > 5 * lengths[0]
    assert lengths[2] > 5 * lengths[0]


def test_images_pass_through_the_simulations_and_predict_new_ones(stack):
    process = Surrogate.fit(stack, restarts=3)
    tilts = torch.tensor(np.stack(to_projection(stack.alpha, stack.beta, stack.gamma), axis=-1), dtype=torch.float32)
    back = process.images(tilts, torch.full((len(tilts),), 80.0)).numpy()
    assert back == pytest.approx(stack["abf"].values[:, 1], abs=2e-4)
    new = np.array([[3.0, -2.0, 1.0], [-5.0, 4.0, 6.0]])
    truth = simulate_stack(new, [70.0], Microscope(), cutoff_mrad=40, k_points=(2, 1), progress=False)["abf"].values[
        :, 0
    ]
    guess = process.images(
        torch.tensor(np.stack(to_projection(*new.T), -1), dtype=torch.float32), torch.tensor([70.0, 70.0])
    )
    assert np.mean((guess.numpy() - truth) ** 2) < 0.1 * np.mean((stack["abf"].values.mean((0, 1)) - truth) ** 2)


def test_variance_vanishes_at_simulations_and_grows_outside(stack):
    process = Surrogate.fit(stack, restarts=3)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 4.0], [0.0, 0.0, 16.0]])
    known, between, outside = process.variance(points, torch.full((3,), 80.0)).tolist()
    assert known < 1e-3 * between < 1e-3 * outside


def test_saved_and_loaded_alike(stack):
    process = Surrogate.fit(stack, restarts=2)
    again = Surrogate.from_dataset(process.to_dataset())
    point, depth = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([75.0])
    assert torch.allclose(process.images(point, depth), again.images(point, depth))
    assert again.settings["a_site"] == "Sr"


def test_unknown_kernel_is_refused(data):
    with pytest.raises(InputError, match="cubic"):
        fit_lengths("cubic", *data)
