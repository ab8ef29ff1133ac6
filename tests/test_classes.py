"""cVAE against AtomAI's, three descriptors, what is known, turned sub-images; bad inputs."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from unitcell.environments import baselines, known, local_descriptors
from unitcell.environments.autoencoder import train
from unitcell.environments.cvae import ConditionalVAE, checked_labels
from unitcell.environments.latent_figures import density
from unitcell.errors import InputError
from unitcell.peers import import_atomai


def test_cvae_loss_equals_atomai():
    """AtomAI gives the class to the decoder only: our encoder's weights of the class are set to 0."""
    side, classes = 16, 3
    peer = import_atomai().models.VAE((side, side), latent_dim=2, nb_classes=classes)
    peer.loss = "mse"
    encoder, decoder = peer.encoder_net.state_dict(), peer.decoder_net.state_dict()
    ours = ConditionalVAE(side, classes)
    layers = {
        "encoder.dense.0": "dense.0",
        "encoder.dense.2": "dense.2",
        "encoder.mean": "fc11",
        "encoder.log_sd": "fc12",
    }
    layers |= {"decoder.0": "decoder.0", "decoder.2": "decoder.2", "decoder.4": "out"}
    weights = {}
    for name in ours.state_dict():
        layer, kind = name.rsplit(".", 1)
        weights[name] = (encoder if layer.startswith("encoder") else decoder)[f"{layers[layer]}.{kind}"]
    weights["encoder.dense.0.weight"] = torch.nn.functional.pad(weights["encoder.dense.0.weight"], (0, classes))
    ours.load_state_dict(weights)
    images, labels = torch.rand(24, side, side), torch.arange(24) % classes
    torch.manual_seed(3)
    expected = -peer.forward_compute_elbo(images.to(peer.device), labels.to(peer.device)).item()
    torch.manual_seed(3)
    assert sum(ours.terms(images, labels, torch.randn(24, 2)).values()).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "words"),
    [(None, "no labels"), ([0, 1], "2 labels for 3"), ([0, 1, np.nan], "whole numbers"), ([0, 1, 2], "0 to 2")],
)
def test_bad_labels(labels, words):
    with pytest.raises(InputError, match=words):
        checked_labels(labels, 3, 2)


def test_missing_labels_stop_the_training():
    with pytest.raises(InputError, match="no labels"):
        train(ConditionalVAE(8, 2), torch.rand(4, 8, 8), None, epochs=1)


def lattice():
    """Columns of two heights on a square lattice, as a patches Dataset: bright ones and, at the centres, dim ones."""
    step, size = 16, 160
    y, x = np.mgrid[:size, :size].astype(float)
    at = np.array(
        [(step * (i + half), step * (j + half)) for half in (0.0, 0.5) for i in range(1, 10) for j in range(1, 9)]
    )
    species = np.repeat(["A", "B"], 72)
    image = sum(
        h * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 10)
        for (px, py), h in zip(at, np.where(species == "A", 1.0, 0.4), strict=True)
    )
    coords = {"x_px": ("atom", at[:, 0]), "y_px": ("atom", at[:, 1]), "species": ("atom", species)}
    patch = np.zeros((len(at), 16, 16), np.float32)
    data = xr.Dataset(
        {"patch": (("atom", "y", "x"), patch), "image": (("row", "column"), np.round(200 * image).astype(np.uint8))},
        coords,
    )
    return data.assign_attrs(patch_pixel_size_A=0.2, image_pixel_size_A=0.2)


def test_turned_windows_turn_counter_clockwise():
    data = lattice()
    data.image.values[:, :] = 0
    data.image.values[80, 86:89] = 255  # to the right of the atom at (80, 80)
    atom = int(np.argmin(np.hypot(data.x_px.values - 80, data.y_px.values - 80)))
    patches, kept = local_descriptors.turned_patches(data, np.full(data.sizes["atom"], np.pi / 2))
    row, column = np.unravel_index(patches[list(kept).index(atom)].argmax(), (16, 16))
    assert row < 4
    assert column in (7, 8)


def test_descriptors_tell_what_they_can():
    data = lattice()
    points = np.column_stack([data.x_px, data.y_px])
    vectors = local_descriptors.neighbour_vectors(points, 4)
    inner = (np.abs(points - 80) < 40).all(1)
    assert np.linalg.norm(vectors[inner], axis=-1) == pytest.approx(np.full((inner.sum(), 4), 8 * np.sqrt(2)), rel=1e-6)
    magnitude, x, _ = local_descriptors.sliding_fft(data.image.values / 255, 64, 16)
    strongest = np.unravel_index(magnitude[1, 1].argmax(), magnitude.shape[2:])
    assert np.hypot(*(np.array(strongest) - magnitude.shape[2] // 2)) in (4.0, np.hypot(4, 4))  # 64 px / 16 px
    assert x[0] == 31.5
    patches, kept = local_descriptors.turned_patches(data, np.zeros(data.sizes["atom"]))
    label, _, _ = local_descriptors.clusters(patches, 2)
    assert known.purity(label, data.species.values[kept]) == 1


def test_bad_descriptors():
    with pytest.raises(InputError, match="larger than the image"):
        local_descriptors.sliding_fft(np.zeros((8, 8)), 9, 1)
    with pytest.raises(InputError, match="too few"):
        local_descriptors.neighbour_vectors(np.zeros((5, 2)), 4)
    with pytest.raises(InputError, match="clusters of 3"):
        local_descriptors.clusters(np.zeros((3, 2)), 3)


def test_latents_of_other_patches_are_refused():
    data, table = lattice(), pd.DataFrame({"angle_rad": np.zeros(144), "z1": 0.0})
    with pytest.raises(InputError, match="latent has 10 rows"):
        known.matching_latents(table[:10], data)
    with pytest.raises(InputError, match="not finite"):
        known.matching_latents(table.assign(z1=np.nan), data)
    assert known.matching_latents(table, data) is table


def test_truth_of_a_twin():
    data = lattice().assign_coords(true_environment=("atom", np.r_[np.nan, np.arange(143) % 5]))
    with pytest.raises(InputError, match="none of the twins"):
        known.facts(data)
    data = data.assign_attrs(image_name="twin sr3fe2o7")
    facts = known.facts(data)
    assert [value[0] for value in facts.values()] == [-1, -1, -1]
    assert next(iter(facts.values()))[1:6].tolist() == [0, 1, 1, 2, 2]
    assert known.agreement(data.true_environment.fillna(9).values.astype(int) + 1, facts).ARI.iloc[2] == 1


def test_density_of_an_angle_goes_round():
    rng = np.random.default_rng(0)
    angle = (rng.normal(np.pi, 0.3, 4000) + np.pi) % (2 * np.pi) - np.pi
    x, y, value = density(angle, rng.normal(0, 1, 4000), angle_x=True)
    assert value.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1, abs=0.02)
    assert value[:, 0].sum() == pytest.approx(value[:, -1].sum(), rel=0.1)


def test_routes_are_scored():
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1], 60)
    table = baselines.scored(
        {"apart": (rng.normal(0, 0.1, (120, 2)) + 4 * kind[:, None], 1.0), "given": (kind, 2.0)}, kind
    )
    assert table["ARI, told 2 classes"].tolist() == [1, 1]
    assert table["classes by BIC"]["apart"] == 2
    with pytest.raises(InputError, match="n_classes = 9"):
        baselines.jrvae_classes(torch.rand(9, 8, 8), 9)
