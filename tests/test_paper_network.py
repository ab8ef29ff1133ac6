"""The paper's network and recipe: its layers, its split, what it can and cannot learn; two processes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from unitcell.abf.simulation import simulate_stack
from unitcell.artefacts import save_dataset
from unitcell.errors import InputError
from unitcell.networks.paper_network import PaperNetwork, activation_map, edge_share, layer_table
from unitcell.networks.paper_training import (
    PaperRecipe,
    angles_of,
    load_paper_network,
    paper_training,
    paper_windows,
    split_errors,
    split_grid,
    train_paper_network,
)
from unitcell.networks.training_loop import train
from unitcell.scattering import Microscope
from unitcell.surrogates.surrogate import Surrogate

SMALL = PaperRecipe(4, 16, (20, 28), images=256, epochs=4, validated=100, thickness_A=120.0)


@pytest.fixture(scope="module")
def process():
    axis = np.array([-11.25, 0.0, 11.25])
    tilts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    stack = simulate_stack(tilts, [100.0, 140.0], Microscope(), cutoff_mrad=45, k_points=(2, 1), progress=False)
    return Surrogate.fit(stack, restarts=2)


def test_layers_are_the_papers():
    table = layer_table(PaperNetwork())
    convolutions = table[table.layer == "Conv2d"]
    assert list(convolutions.kernel) == ["4 × 4"] * 10
    assert [int(shape.split(" ")[0]) for shape in convolutions.output] == [64] * 7 + [128] * 3
    assert list(table[table.layer == "AvgPool2d"].output) == ["64 × 30 × 40", "128 × 15 × 20"]
    assert list(table[table.layer == "Linear"].output) == ["512", "3"]
    # 4·4·(64 + 6·64² + 64·128 + 2·128²) weights, two per normalised channel, and the two full layers.
    full = (128 * 15 * 20 + 1) * 512 + 513 * 3
    assert table.parameters.sum() == 16 * (64 + 6 * 64**2 + 64 * 128 + 2 * 128**2) + 2 * (7 * 64 + 3 * 128) + full


def test_weights_are_drawn_as_he_draws_them():
    torch.manual_seed(0)
    layer = PaperNetwork(filters=32, shape=(16, 16)).features[5]
    assert float(layer.weight.detach().std()) == pytest.approx(np.sqrt(2 / (16 * 32)), rel=0.03)


def test_split_is_nine_to_one_without_overlap():
    taught, held_out = split_grid(3)
    assert (len(taught), len(held_out)) == (656_100, 72_900)
    both = torch.cat([taught, held_out])
    assert len(torch.unique((angles_of(both) * 4).round().int(), dim=0)) == 729_000
    assert not torch.equal(taught[:100], split_grid(4)[0][:100])


def test_errors_with_signs_and_folded():
    projection = torch.tensor([[1.0, 4.0, 5.0], [2.0, -3.0, 6.0]])
    mirrored = angles_of(projection * torch.tensor([1.0, -1.0, -1.0])).numpy()
    result = split_errors(mirrored, projection)
    assert result["rms_gamma_deg"] == pytest.approx(np.sqrt((100 + 144) / 2))
    assert result["folded_gamma_deg"] == pytest.approx(0, abs=1e-6)
    assert result["folded_alpha_deg"] == pytest.approx(0, abs=1e-6)
    assert result["rms_alpha_deg"] == pytest.approx(np.sqrt((64 + 36) / 2 / 2), rel=1e-5)


def test_learning_rate_and_huber_delta_halve_every_two_epochs(process):
    training = paper_training(process, SMALL)
    seen, loss = [], training.loss
    training.loss = lambda answers, wanted, rate: seen.append(rate) or loss(answers, wanted, rate)
    train(training, progress=False)
    assert seen == [1.0] * 16 + [0.5] * 16
    assert training.optimiser.param_groups[0]["weight_decay"] == 2e-4
    far = torch.tensor([[100.0, 0.0, 0.0]])
    halved = float(loss(far, torch.zeros(1, 3), 0.5))
    assert halved == pytest.approx(12.5 * (100 - 12.5 / 2) / 3)  # equation (5) beyond δ = 12.5°


def test_it_learns_v_and_nothing_else(process):
    recipe = PaperRecipe(4, 32, (20, 28), images=6400, epochs=3, validated=300, thickness_A=120.0)
    network, history = train(paper_training(process, recipe), progress=False)
    last = history[-1]
    assert last["folded_v_deg"] < 1.5
    assert last["rms_gamma_deg"] > 5.0
    assert last["correlation"] > 0.8
    _, held_out = split_grid()
    shown = paper_windows(process, held_out[:1] * torch.tensor([1.0, -1.0, -1.0]), recipe)
    told = network(shown) - network(paper_windows(process, held_out[:1], recipe))
    assert float(told.detach().abs().max()) < 1.5  # the mirror gets the same answer


def test_activation_map_has_half_a_pixel_steps_and_is_scaled():
    network = PaperNetwork(4, 16, (20, 28))
    activation = activation_map(network, torch.randn(20, 28))
    assert activation.shape == (40, 56)
    assert (activation.min(), activation.max()) == (0, 1)


def test_a_constant_window_is_answered_alike_by_both_forms():
    network = PaperNetwork(4, 16, (20, 28)).eval()
    features = torch.rand(1, 8, 1, 1)
    full = network.hidden(features.expand(1, 8, 5, 7).flatten(1))
    weight = network.hidden.weight.unflatten(1, (-1, *network.grid)).sum((2, 3))
    assert torch.allclose(full, features[:, :, 0, 0] @ weight.T + network.hidden.bias, atol=1e-5)


def test_edges_are_told_from_blobs():
    y, x = np.meshgrid(np.arange(4) - 1.5, np.arange(4) - 1.5, indexing="ij")
    share, explained = edge_share([x + 0.2 * y, np.exp(-(x**2) - y**2), np.sign(x) + 0 * y])
    assert explained[0] == pytest.approx(1)
    assert explained[1] == pytest.approx(0, abs=1e-12)
    assert explained[2] == pytest.approx(0.8)
    assert share == pytest.approx(2 / 3)
    random = np.random.default_rng(0).normal(size=(4000, 4, 4))
    assert edge_share(random)[1].mean() == pytest.approx(2 / 15, rel=0.05)


def test_file_goes_there_and_back(process, tmp_path):
    save_dataset(process.to_dataset(), tmp_path / "surrogate.nc")
    history = train_paper_network(tmp_path / "p.safetensors", tmp_path / "surrogate.nc", SMALL)
    network, again, recipe = load_paper_network(tmp_path / "p.safetensors")
    assert recipe == SMALL
    assert again == history
    assert (tmp_path / "p.csv").read_text().count("\n") == len(history) + 1
    assert not list(tmp_path.glob("*.checkpoint"))
    assert network(torch.zeros(1, 20, 28)).shape == (1, 3)
    with pytest.raises(InputError, match="missing"):
        load_paper_network(tmp_path / "missing.safetensors")


def test_two_processes_train_one_network(process, tmp_path):
    save_dataset(process.to_dataset(), tmp_path / "surrogate.nc")
    script = tmp_path / "both.py"
    script.write_text(
        "import os, torch\n"
        "from unitcell.networks import paper_training as p\n"
        "torch.set_num_threads(1)\n"
        "recipe = p.PaperRecipe(4, 16, (20, 28), images=256, epochs=2, validated=50, thickness_A=120.0)\n"
        "history = p.train_paper_network('p.safetensors', 'surrogate.nc', recipe)\n"
        "print('rank', os.environ['RANK'], history and history[-1]['windows'])\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517", str(script)]
    options = {"capture_output": True, "text": True, "cwd": tmp_path, "timeout": 300}
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rank 0 512" in done.stdout
    assert "rank 1 None" in done.stdout
    assert len(load_paper_network(tmp_path / "p.safetensors")[1]) == 8  # 2 epochs of 4 steps of 2 × 32 images
