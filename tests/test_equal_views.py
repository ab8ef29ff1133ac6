"""The tilt network takes equal views of a window for what they are, by construction."""

import numpy as np
import pytest
import torch
from unitcell.networks.equal_views import EqualLinear
from unitcell.networks.tilt_network import TiltNetwork
from unitcell.networks.tilt_training import targets
from unitcell.networks.training_library import turned


def test_equal_views_change_signs_alone():
    cells = torch.rand(5, 40, 28, dtype=torch.float64)
    projection = torch.tensor([[3.0, 4.0, 5.0, 0.0]], dtype=torch.float64).repeat(5, 1)
    network = TiltNetwork().double().eval()

    def read(cells):
        """What the network makes of still windows of two such cells, the B column in their middle."""
        hidden, mean, log_variance = network(torch.cat([cells, cells], dim=2).roll((20, 28), (1, 2)))
        return hidden, mean, log_variance

    before = read(cells)
    assert before[1].abs().min() > 1e-6
    for flips in np.ndindex(2, 2, 2):
        view, seen = turned(cells, projection, torch.tensor([flips], dtype=torch.bool).repeat(5, 1))
        signs = torch.sign(targets(seen)[:, :3] / targets(projection)[:, :3])
        hidden, mean, log_variance = read(view)
        assert mean[:, :3].numpy(force=True) == pytest.approx((signs * before[1][:, :3]).numpy(force=True), abs=1e-12)
        assert mean[:, 3].numpy(force=True) == pytest.approx(before[1][:, 3].numpy(force=True), abs=1e-12)
        for after, kept in ((hidden, before[0]), (log_variance, before[2])):
            assert after.numpy(force=True) == pytest.approx(kept.numpy(force=True), abs=1e-12)


def test_a_layer_is_the_same_for_all_views():
    layer, values = EqualLinear(3, 2).double(), torch.rand(8, 4, 3, dtype=torch.float64)
    layer.bias.data = torch.tensor([0.3, -1.0], dtype=torch.float64)
    for moved in range(8):
        order = [view ^ moved for view in range(8)]
        assert torch.allclose(layer(values[order]), layer(values)[order], atol=1e-12)
    # And it is what a full matrix with these symmetries makes of them: W[g, h] = w[g + h].
    kernel = torch.fft.ifftn(layer.weight.reshape(2, 2, 2, 3, 2), dim=(0, 1, 2)).real.reshape(8, 3, 2)
    full = torch.stack([torch.stack([kernel[g ^ h] for h in range(8)]) for g in range(8)])
    assert torch.allclose(torch.einsum("ghio,hbi->gbo", full, values) + layer.bias, layer(values), atol=1e-12)
