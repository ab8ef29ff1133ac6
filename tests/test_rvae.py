"""The rVAE against AtomAI's on the same batch and weights, against known angles, and its bad inputs."""

import numpy as np
import pytest
import torch
from unitcell.autoencoder import checked_patches, kl_normal, train
from unitcell.cvae import ConditionalVAE, load_cvae, save_cvae
from unitcell.darkfield import rotated_twin
from unitcell.errors import InputError
from unitcell.peers import import_atomai
from unitcell.rvae import RotationalVAE, circular, circular_sd, latent_table, load_rvae, pixel_grid, save_rvae


@pytest.fixture(scope="module")
def twin():
    patches, environment, angle = rotated_twin(200, side=20, pixel_size_A=0.375, spread_rad=0.3, seed=1)
    return checked_patches(patches), environment, angle


# our name of each layer → AtomAI's
LAYERS = {
    "encoder.dense.0": ("encoder", "dense.0"),
    "encoder.dense.2": ("encoder", "dense.2"),
    "encoder.mean": ("encoder", "fc11"),
    "encoder.log_sd": ("encoder", "fc12"),
    "decoder.position": ("decoder", "coord_latent.fc_coord"),
    "decoder.content": ("decoder", "coord_latent.fc_latent"),
    "decoder.hidden.1": ("decoder", "fc_decoder.0"),
    "decoder.hidden.3": ("decoder", "fc_decoder.2"),
    "decoder.hidden.5": ("decoder", "out"),
}


def test_loss_equals_atomai(twin):
    images = twin[0][:32]
    peer = import_atomai().models.rVAE((20, 20), latent_dim=2)
    peer.dx_prior, peer.loss, peer.kdict_["phi_prior"] = 0.1, "mse", 0.3
    nets = {"encoder": peer.encoder_net.state_dict(), "decoder": peer.decoder_net.state_dict()}
    ours = RotationalVAE(20, 2, rotation_prior=0.3, translation_prior=0.1, noise_sd=1.0)
    weights = {}
    for name in ours.state_dict():
        layer, kind = name.rsplit(".", 1)
        net, theirs = LAYERS[layer]
        weights[name] = nets[net][f"{theirs}.{kind}"]
    ours.load_state_dict(weights)
    torch.manual_seed(3)
    expected = -peer.forward_compute_elbo(images.to(peer.device)).item()
    torch.manual_seed(3)
    terms = ours.terms(images, None, torch.randn(32, 5))
    assert sum(terms.values()).item() == pytest.approx(expected, rel=1e-4)


def test_kl_of_normals_against_torch():
    mean, log_sd = torch.randn(7, 3), 0.3 * torch.randn(7, 3)
    q = torch.distributions.Normal(mean, log_sd.exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_normal(mean, log_sd), expected, rtol=1e-5, atol=1e-5)


def test_drawn_pixels_estimate_the_same_loss(twin):
    torch.manual_seed(0)
    model, images = RotationalVAE(20, noise_sd=0.3), twin[0][:16]
    noise = torch.randn(16, 5)
    full = model.terms(images, None, noise)["reconstruction"].item()
    halves = [
        model.terms(images, None, noise, part)["reconstruction"].item() for part in torch.randperm(400).split(200)
    ]
    assert np.mean(halves) == pytest.approx(full, rel=1e-5)  # two disjoint halves average to the whole


def test_decoded_angle_turns_counter_clockwise():
    model = RotationalVAE(21)
    spot = torch.tensor([0.0, -0.5])  # (down, left): half a half-window to the right
    model.decode = lambda z, angle: torch.exp(-20 * ((turned(model.grid, angle) - spot) ** 2).sum(-1))
    image = model.images(np.zeros((1, 2)), np.pi / 2)[0]
    assert np.unravel_index(image.argmax(), image.shape) == (5, 10)  # right, turned counter-clockwise, is up


def turned(grid, angle):
    cos, sin = torch.cos(angle), torch.sin(angle)
    return grid.expand(len(angle), -1, -1) @ torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)


def test_grid_runs_down_and_left():
    grid = pixel_grid(3)
    assert grid[0].tolist() == [-1, 1]
    assert grid[-1].tolist() == [1, -1]


def test_angles_of_a_known_stack(twin):
    images, environment, angle = twin
    torch.manual_seed(0)
    model = RotationalVAE(20, rotation_prior=0.3, translation_prior=0.03, noise_sd=0.1, detail=4.0)
    history = train(model, images, epochs=25, batch=16, pixels=80, learning_rate=4e-3)
    assert history.elbo.iloc[-1] > history.elbo.iloc[0]
    latent = latent_table(model, images, 0.375)
    for kind in (0, 1):
        error = latent.angle_rad[environment == kind] - angle[environment == kind]
        assert np.degrees(circular_sd(error)) < 5


def test_latent_shift_is_where_the_content_lies():
    model = RotationalVAE(21, translation_prior=0.5)
    mean = torch.tensor([[np.pi / 2, 0.0, 0.4, 0.0, 0.0]], dtype=torch.float32)  # the encoder's answer
    model.encode = lambda images: (mean, torch.full_like(mean, -2.0))
    row = latent_table(model, torch.zeros(1, 21, 21), 0.5).iloc[0]
    position = turned(model.grid, mean[:, 0])[0] + 0.5 * mean[:, 1:3]
    nearest = int((position**2).sum(1).argmin())  # the pixel that shows the content's origin
    down, left = model.grid[nearest].tolist()
    assert row.dx == pytest.approx(-left * 10 * 0.5, abs=0.26)
    assert row.dy == pytest.approx(down * 10 * 0.5, abs=0.26)
    assert row.dx_sd == pytest.approx(0.5 * np.exp(-2) * 10 * 0.5, rel=1e-4)


def test_circular():
    assert circular(np.pi + 0.1) == pytest.approx(-np.pi + 0.1)
    assert circular_sd(np.array([np.pi - 0.1, -np.pi + 0.1])) == pytest.approx(0.1, rel=0.01)


def test_weights_round_trip(tmp_path):
    model = RotationalVAE(16, 3, rotation_prior=0.4)
    save_rvae(model, tmp_path / "rvae.safetensors", epochs=1)
    loaded, card = load_rvae(tmp_path / "rvae.safetensors")
    z = np.ones((1, 3))
    np.testing.assert_array_equal(loaded.images(z, 0.3), model.images(z, 0.3))
    assert card["epochs"] == 1
    with pytest.raises(InputError, match=r"rvae.*cvae"):
        load_cvae(tmp_path / "rvae.safetensors")


def test_cvae_round_trip_and_tableau(tmp_path):
    model = ConditionalVAE(16, 3)
    save_cvae(model, tmp_path / "cvae.safetensors")
    loaded, _ = load_cvae(tmp_path / "cvae.safetensors")
    tableau = loaded.tableau(1)
    assert tableau.shape == (3, 3, 16, 16)
    expected = model.decode(torch.tensor([[1.0, 1.0]]), torch.tensor([1])).detach().numpy().reshape(16, 16)
    np.testing.assert_allclose(tableau[0, 2], expected, rtol=1e-5, atol=1e-6)  # upper right: both latents +1


@pytest.mark.parametrize(
    ("patches", "words"),
    [
        (np.zeros((5, 8, 9)), "square"),
        (np.full((5, 8, 8), np.nan), "not finite"),
        (np.random.default_rng(0).poisson(100, (5, 8, 8)), r"scale the sub-images to \[0, 1\]"),
        (np.full((5, 8, 8), 0.5), "constant"),
    ],
)
def test_bad_patches(patches, words):
    with pytest.raises(InputError, match=words):
        checked_patches(patches)


def test_stops_at_the_first_loss_that_is_not_finite(twin):
    model = RotationalVAE(20)
    with torch.no_grad():
        model.encoder.log_sd.bias.fill_(1e4)
    with pytest.raises(InputError, match=r"loss is .* at epoch 1"):
        train(model, twin[0][:32], epochs=3)
