"""The Gaussian process against scikit-learn, and its images against what it was fitted to."""

import json

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern
from unitcell.abf.simulation import simulate_stack
from unitcell.crystals.tilt_coordinates import to_projection
from unitcell.errors import InputError
from unitcell.scattering import Microscope
from unitcell.surrogates.surrogate import (
    NUGGET,
    Surrogate,
    fit_lengths,
    leave_one_out,
    log_marginal_likelihood,
    paper_grid,
    principal_components,
)

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
    process = Surrogate.fit(stack, restarts=3, truncation=1e-6)
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


def peer_of(process, stack):
    """scikit-learn's process with the same product of kernels over (v, u, γ, thickness), fitted to the same images."""
    points = np.stack(to_projection(stack.alpha, stack.beta, stack.gamma), axis=-1)
    depths = np.tile(stack.thickness.values, len(points))[:, None]
    inputs = np.hstack([np.repeat(points, stack.sizes["thickness"], axis=0), depths])
    never = 1e9
    kernel = Matern([*np.broadcast_to(process.tilt_lengths, 3), never], nu=2.5)
    kernel = kernel * Matern([never] * 3 + [process.thickness_length.item()], nu=2.5)
    outputs = (stack.abf.values.astype(float) - process.mean.numpy()).reshape(len(inputs), -1)
    return GaussianProcessRegressor(kernel, alpha=NUGGET, optimizer=None).fit(inputs, outputs), outputs


def test_predictions_equal_scikit_learn(stack):
    process = Surrogate.fit(stack, restarts=2, truncation=1e-8, dtype=torch.float64)
    peer, _ = peer_of(process, stack)
    asked = np.random.default_rng(0).uniform([-9, -9, -9, 60], [9, 9, 9, 100], (20, 4))
    tilts, depths = torch.tensor(asked[:, :3]), torch.tensor(asked[:, 3])
    theirs, sd = peer.predict(asked, return_std=True)
    ours = (process.images(tilts, depths) - process.mean).flatten(1).numpy()
    assert ours == pytest.approx(theirs, abs=1e-5)
    ours_sd = (process.variance(tilts, depths) / process.amplitude).sqrt().numpy()
    assert ours_sd == pytest.approx(sd[:, 0], abs=1e-5)


def test_truncation_is_what_it_says(stack):
    exact, cut = (Surrogate.fit(stack, restarts=2, truncation=t, dtype=torch.float64) for t in (1e-9, 1e-3))
    tilts, depths = paper_grid()[::40_000].double(), torch.full((19,), 75.0).double()
    difference = exact.images(tilts, depths) - cut.images(tilts, depths)
    assert 1e-4 < float(difference.square().mean().sqrt()) < 2e-3
    assert len(cut.basis) < len(exact.basis)
    assert len(cut.modes) < len(exact.modes)


def test_single_precision_streams_the_same_images(stack):
    single, double = (Surrogate.fit(stack, restarts=2, dtype=dtype) for dtype in (torch.float32, torch.float64))
    tilts = paper_grid()[::9000]
    depths = torch.full((len(tilts),), 70.0)
    batches = list(single.stream(tilts, depths, batch=32))
    assert [len(batch) for batch in batches] == [32, 32, 17]
    exact = double.images(tilts.double(), depths.double())
    assert torch.cat(batches).double().numpy() == pytest.approx(exact.numpy(), abs=3e-5)


def test_grid_of_the_paper():
    grid = paper_grid()
    assert grid.shape == (729_000, 3)
    assert (grid[:, 2].min(), grid[:, 2].max()) == (-11.25, 11.0)


def test_components_leave_out_what_they_say(stack):
    outputs = torch.tensor(stack.abf.values.reshape(-1, 1120), dtype=torch.float64)
    for truncation in (1e-2, 1e-4):
        basis = principal_components(outputs, truncation)
        rest = outputs - outputs @ basis.T @ basis
        assert 0.3 * truncation < float(rest.square().mean().sqrt()) <= truncation
        assert (basis @ basis.T).numpy() == pytest.approx(np.eye(len(basis)), abs=1e-10)


def test_jacobian_is_finite_differences(stack):
    process = Surrogate.fit(stack, restarts=2, dtype=torch.float64)
    tilts, depths = torch.tensor([[3.0, -2.0, 4.0], [1.0, 6.0, -2.0]]).double(), torch.tensor([70.0, 85.0]).double()
    found = process.jacobian(tilts, depths)
    for axis in range(4):
        step = 1e-4 * torch.eye(4, dtype=torch.float64)[axis]
        ends = [process.images(tilts + sign * step[:3], depths + sign * step[3]) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-4
        assert found[:, axis].numpy() == pytest.approx(slope.numpy(), abs=1e-6 * float(slope.abs().max()) + 1e-9)


def test_leaving_one_out_equals_doing_so(data):
    points, values = data
    error, sd = leave_one_out("matern52", points, values, np.array([7.0]))
    for index in (0, 17):
        rest = np.arange(len(points)) != index
        _, amplitude = log_marginal_likelihood(
            "matern52", torch.tensor(points[rest]), torch.tensor(values[rest] @ values[rest].T), 3, torch.tensor([7.0])
        )
        peer = GaussianProcessRegressor(Matern(7.0, nu=2.5), alpha=NUGGET, optimizer=None)
        peer.fit(points[rest], values[rest])
        guess, stated = peer.predict(points[[index]], return_std=True)
        assert error[index] == pytest.approx(guess[0] - values[index], abs=1e-6)
        assert sd[index] == pytest.approx(np.sqrt(float(amplitude)) * stated[0, 0], rel=1e-3)


def test_saved_and_loaded_alike(stack):
    process = Surrogate.fit(stack, restarts=2)
    again = Surrogate.from_dataset(
        process.to_dataset().assign_attrs(configurations=np.int64(0), k_points=np.array([2, 1]))
    )
    point, depth = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([75.0])
    assert torch.allclose(process.images(point, depth), again.images(point, depth))
    assert again.settings["a_site"] == "Sr"
    assert json.dumps(again.settings["k_points"]) == "[2, 1]"


def test_unknown_kernel_is_refused(data):
    with pytest.raises(InputError, match="cubic"):
        fit_lengths("cubic", *data)
