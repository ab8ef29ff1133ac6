"""The rVAE against AtomAI's on the same batch and weights, against known angles, and its bad inputs."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from unitcell.environments.autoencoder import ElboTraining, checked_patches, kl_normal, train
from unitcell.environments.cvae import ConditionalVAE, load_cvae, save_cvae
from unitcell.environments.motif_angles import motif_angles, read_again
from unitcell.environments.rvae import (
    RotationalVAE,
    circular,
    circular_sd,
    latent_table,
    load_rvae,
    pixel_grid,
    save_rvae,
)
from unitcell.errors import InputError
from unitcell.peers import import_atomai
from unitcell.twins.darkfield import rotated_twin


@pytest.fixture(scope="module")
def twin():
    patches, environment, angle = rotated_twin(200, side=20, pixel_size_A=0.375, spread_rad=0.3, seed=1)
    return checked_patches(patches), environment, angle


# our name of each layer → AtomAI's
DECODER = {
    "decoder.position": ("decoder", "coord_latent.fc_coord"),
    "decoder.content": ("decoder", "coord_latent.fc_latent"),
    "decoder.hidden.1": ("decoder", "fc_decoder.0"),
    "decoder.hidden.3": ("decoder", "fc_decoder.2"),
    "decoder.hidden.5": ("decoder", "out"),
}
HEADS = {"encoder.mean": ("encoder", "fc11"), "encoder.log_sd": ("encoder", "fc12")}
DENSE = {"encoder.dense.0": ("encoder", "dense.0"), "encoder.dense.2": ("encoder", "dense.2")}
CONVOLUTIONAL = {
    "encoder.convolve.0": ("encoder", "conv.block.0"),
    "encoder.convolve.2": ("encoder", "conv.block.2"),
}


@pytest.mark.parametrize(("kind", "first"), [("dense", DENSE), ("convolutional", CONVOLUTIONAL)])
def test_loss_equals_atomai(twin, kind, first):
    images = twin[0][:32]
    conv = {"conv_encoder": True, "numhidden_encoder": 16, "numhidden_decoder": 16} if kind != "dense" else {}
    peer = import_atomai().models.rVAE((20, 20), latent_dim=2, **conv)
    peer.dx_prior, peer.loss, peer.kdict_["phi_prior"] = 0.1, "mse", 0.3
    nets = {"encoder": peer.encoder_net.state_dict(), "decoder": peer.decoder_net.state_dict()}
    ours = RotationalVAE.like_atomai(20, 2, encoder=kind, rotation_prior=0.3, hidden=16 if conv else 128)
    weights, layers = {}, first | HEADS | DECODER
    for name in ours.state_dict():
        layer, part = name.rsplit(".", 1)
        net, theirs = layers[layer]
        weights[name] = nets[net][f"{theirs}.{part}"]
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
    model, images = RotationalVAE(20, noise_sd=0.3, encoder="dense"), twin[0][:16]
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


def test_any_rotation_is_read_and_the_classes_part():
    patches, environment, angle = rotated_twin(300, side=20, pixel_size_A=0.375, spread_rad=np.pi, seed=1)
    images = checked_patches(patches)
    torch.manual_seed(0)
    model = RotationalVAE(20, rotation_prior=0.1, translation_prior=0.03)
    history = train(model, images, epochs=16, batch=20, pixels=80, learning_rate=4e-3, dtype=torch.bfloat16)
    assert history.elbo.iloc[-1] > history.elbo.iloc[0]
    latent = latent_table(model, images, 0.375)
    for kind, symmetry in ((0, 1), (1, 2)):
        error = symmetry * (latent.angle_rad - angle)[environment == kind]
        assert np.degrees(circular_sd(error)) / symmetry < 5
    classes = GaussianMixture(2, n_init=3, random_state=0).fit_predict(latent[["z1", "z2"]])
    assert adjusted_rand_score(environment, classes) > 0.95


def test_the_polar_encoder_turns_with_the_image():
    """Turned by whole steps of a smooth image: the same content, and the angle goes along."""
    torch.manual_seed(0)
    model = RotationalVAE(41)
    with torch.no_grad():
        model.encoder.score[-1].weight.mul_(1e3)  # decided, as after training
    towards = torch.arange(6) * 2 * torch.pi / 48 * 5
    centre = torch.stack([0.4 * torch.cos(towards), 0.4 * torch.sin(towards)], 1)  # (down, left)
    squares = ((model.grid - centre[:, None]) ** 2).sum(2)
    images = torch.exp(-squares / (2 * 0.25**2)).reshape(-1, 41, 41)
    with torch.no_grad():
        mean, log_sd = model.encode(images)
    # x(φ) = D(φ + γ): a spot that moves ahead along φ has a smaller γ
    np.testing.assert_allclose(circular((mean[:, 0] + towards - mean[0, 0]).numpy()), 0, atol=0.01)
    np.testing.assert_allclose(mean[:, 1:], mean[:1, 1:].expand(6, -1), atol=0.02)
    np.testing.assert_allclose(log_sd, log_sd[:1].expand(6, -1), atol=0.02)


def test_search_finds_the_view_that_was_drawn():
    """The match of each view equals the plain sum over the disc, and is best where the image was decoded."""
    torch.manual_seed(0)
    model = RotationalVAE(41, detail=6.0)
    step = 2 * torch.pi / model.encoder.views
    z, view = torch.randn(5, 2), torch.tensor([0, 3, 17, 30, 47])
    with torch.no_grad():
        images = model.decode(z, view * step).reshape(5, 41, 41)
        rings, wrong = model.encoder.sample(images), torch.zeros(5, dtype=torch.int64)
        match = model.encoder.match(rings, wrong, lambda grid: model.decode(z, torch.zeros(5), grid=grid))
        inside = (model.grid**2).sum(1) < 1
        plain = [
            (images.flatten(1) * model.decode(z, torch.full((5,), k * step)))[:, inside].sum(1)
            for k in range(model.encoder.views)
        ]
    assert match.argmax(1).tolist() == view.tolist()
    np.testing.assert_allclose(match, torch.stack(plain, 1), atol=0.03 * float(match.abs().max()))


def test_the_angle_beside_a_boundary_is_that_of_the_motif():
    """Half of each window shows something else, and the encoder's angles are anything."""
    rng = np.random.default_rng(0)
    model, count = RotationalVAE(41), 40
    spots = torch.tensor([[[0.5, 0.0], [0.0, 0.4], [-0.3, -0.3]], [[0.2, 0.6], [-0.6, 0.0], [0.1, -0.4]]])

    def decode(z, angle, shift, grid):
        places = turned(grid, angle)  # (B, P, 2)
        squares = ((places[:, :, None] - spots[(z[:, 0] > 0).long()][:, None]) ** 2).sum(-1)
        return torch.exp(-squares / (2 * 0.12**2)).sum(-1)

    motif, angle = rng.integers(0, 2, count), rng.uniform(-np.pi, np.pi, count)
    z = torch.from_numpy(np.where(motif, 1.0, -1.0))[:, None].float()
    images = decode(z, torch.from_numpy(angle).float(), None, model.grid).reshape(-1, 41, 41)
    images[:, 26:] = torch.rand(count, 15, 41, generator=torch.Generator().manual_seed(0))
    model.decode = decode
    mean = np.column_stack([rng.uniform(-np.pi, np.pi, count), np.zeros((count, 2)), z.numpy(), np.zeros(count)])
    model.posterior = lambda images: (mean, np.ones_like(mean))
    again, found = motif_angles(model, images, motif + 1)
    error = np.degrees(circular(again - angle))
    assert np.median(np.abs(error)) < 1
    assert (np.abs(error) < 5).mean() > 0.9
    assert (found == motif + 1).mean() > 0.9


def test_other_encoders_keep_their_angle(twin):
    latent = latent_table(RotationalVAE(20, encoder="dense"), twin[0], 0.4)
    assert read_again(RotationalVAE(20, encoder="dense"), twin[0], latent).motif_angle_rad.equals(latent.angle_rad)


def test_symmetric_motifs_take_the_smallest_turn():
    encoder = RotationalVAE(12).encoder
    scores = torch.full((3, 48), -50.0)
    scores[0, [5, 17, 29, 41]] = torch.tensor([0.0, 0.5, 0.2, 0.9])  # four equal views: 5 is 37.5°, 41 is −52.5°
    scores[1, [5, 41]] = torch.tensor([0.0, 9.0])  # not equal
    scores[2, 24] = 1.0
    assert encoder.chosen(scores).tolist() == [5, 41, 24]


def test_training_goes_on_from_a_checkpoint(twin, tmp_path):
    def run(checkpoint=None, stop=None):
        torch.manual_seed(0)
        model = RotationalVAE(20)
        training = ElboTraining(
            model, twin[0], None, epochs=3, batch=64, learning_rate=1e-3, pixels=50, seed=1, dtype=torch.float32
        )
        if stop:
            for _ in range(stop):
                training.advance()
            training.save(checkpoint)
            return None
        history = train(
            model, twin[0], epochs=3, batch=64, learning_rate=1e-3, pixels=50, seed=1, checkpoint=checkpoint
        )
        return model, history

    whole, history = run()
    run(tmp_path / "half.safetensors", stop=6)  # of 12, in the middle of an epoch
    resumed, again = run(tmp_path / "half.safetensors")
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert history.drop(columns="seconds").equals(again.drop(columns="seconds"))


def test_bytes_on_the_disk_train_like_numbers(twin, tmp_path):
    grey = np.round(255 * twin[0].numpy()).astype(np.uint8)
    grey.tofile(tmp_path / "patches.u8")
    mapped = checked_patches(np.memmap(tmp_path / "patches.u8", np.uint8, "r", shape=grey.shape))
    assert mapped.dtype == torch.uint8
    losses = []
    for images in (mapped, checked_patches(grey / 255)):
        torch.manual_seed(0)
        losses.append(train(RotationalVAE(20), images, epochs=2, batch=50, pixels=50).elbo.to_numpy())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_history_logs_the_terms_apart(twin):
    history = train(RotationalVAE(20), twin[0], epochs=2, pixels=50)
    bound = history[["reconstruction", "kl_angle", "kl_translation", "kl_content"]].sum(axis=1)
    np.testing.assert_allclose(history.elbo, -bound, rtol=1e-6)
    assert {"search", "unsteadiness", "seconds", "epoch"} < set(history)


def test_parts_decode_like_the_whole(twin):
    model = RotationalVAE(20)
    whole = model.reconstruct(twin[0])
    np.testing.assert_allclose(model.reconstruct(twin[0], batch=33), whole, atol=1e-5)
    mean, _ = model.posterior(twin[0][:3])
    alone = model.decode(*model.pose(torch.from_numpy(mean))).detach().reshape(3, 20, 20)
    np.testing.assert_allclose(whole[:3], alone, atol=1e-5)


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
        model.encoder.describe.log_sd.bias.fill_(1e4)
    with pytest.raises(InputError, match=r"loss is .* at epoch 1: 'reconstruction' overflowed"):
        train(model, twin[0][:32], epochs=3)
    spoilt = twin[0][:32].clone()
    spoilt[5, 3, 3] = torch.nan
    with pytest.raises(InputError, match="1 of 32 sub-images hold NaN"):
        train(RotationalVAE(20), spoilt, epochs=3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"side": 4}, "side = 4"),
        ({"side": 20, "latent_dim": 0}, "latent_dim = 0"),
        ({"side": 20, "encoder": "square"}, "encoder = 'square' is unknown: give one of polar"),
        ({"side": 20, "activation": "step"}, "activation = 'step'"),
        ({"side": 20, "noise_sd": 0.0}, r"noise_sd = 0.0 must be greater"),
        ({"side": 20, "rotation_prior": -1.0}, "rotation_prior"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(InputError, match=words):
        RotationalVAE(**settings)


def test_bad_training(twin):
    with pytest.raises(InputError, match="batch = 0"):
        train(RotationalVAE(20), twin[0], epochs=1, batch=0)
    with pytest.raises(InputError, match="3 labels were given for 200"):
        train(ConditionalVAE(20, 2), twin[0], torch.zeros(3, dtype=torch.int64), epochs=1)
    with pytest.raises(InputError, match="24 pixels wide"):
        train(RotationalVAE(24), twin[0], epochs=1)
