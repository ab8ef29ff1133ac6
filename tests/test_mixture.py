"""Gaussian mixtures of latents against known classes; bad inputs."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score
from unitcell import mixture
from unitcell.darkfield import rotated_twin
from unitcell.errors import InputError


@pytest.fixture(scope="module")
def latent():
    """Three known groups: one at angle ±π (split by the cut), one at 0, one apart in z1 only."""
    rng = np.random.default_rng(0)
    angle = np.concatenate([rng.normal(np.pi, 0.2, 120), rng.normal(0, 0.2, 90), rng.normal(0, 0.2, 60)])
    z1 = np.concatenate([rng.normal(0, 0.1, 210), rng.normal(2, 0.1, 60)])
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    return pd.DataFrame({"angle_rad": angle, "dx": 0.0, "z1": z1, "z2": rng.normal(0, 1, 270), "z1_sd": 0.1})


TRUTH = np.repeat([1, 2, 3], [120, 90, 60])


def test_angles_are_circular(latent):
    features = mixture.latent_features(latent)
    assert features.shape == (270, 4)  # cosine, sine, z1, z2: no dx, no standard deviations
    labels, probability = mixture.classify(features, mixture.fit_mixture(features, 3))
    assert adjusted_rand_score(TRUTH, labels) > 0.97
    assert (labels == TRUTH).mean() > 0.97  # 1 is the largest class
    assert probability.min() > 1 / 3


def test_automatic_number_of_components(latent):
    curves = mixture.criterion_curves(mixture.latent_features(latent))
    assert mixture.choose_components(curves) == mixture.choose_components(curves, criterion="icl") == 3
    assert (curves.icl >= curves.bic - 1e-6).all()  # an entropy is never negative
    assert curves.icl[2] - curves.bic[2] < 20  # and next to nothing where clusters are apart


def test_knee_of_a_curve():
    curve = pd.DataFrame({"n_components": [1, 2, 3, 4], "bic": [1000.0, 400.0, 10.0, 0.0]})
    assert mixture.choose_components(curve) == 3


def test_principal_components_mistake_orientation_for_kind():
    def index(patches, kind, k):
        features = mixture.pca_features(patches)
        return adjusted_rand_score(kind, mixture.classify(features, mixture.fit_mixture(features, k))[0])

    aligned, kind, _ = rotated_twin(150, spread_rad=0.0, seed=2)
    turned, turned_kind, _ = rotated_twin(150, spread_rad=np.pi, seed=2)
    assert index(aligned, kind, 2) == 1
    assert index(turned, turned_kind, 4) < 0.9  # more classes than kinds: orientations become classes


def test_class_means():
    patches = np.arange(4, dtype=float)[:, None, None] * np.ones((1, 2, 2))
    means = mixture.class_means(patches, np.array([1, 2, 1, 2]), 3)
    assert means[:, 0, 0].tolist() == [1, 2, 0]


def test_side_of_neighbour():
    neighbours = np.array([[0.0, 0.0], [10.0, 0.0]])
    side = mixture.side_of_neighbour(
        np.array([[5.0, 5.0], [15.0, 5.0], [-5.0, 5.0]]), neighbours, np.array([0.3, -0.3])
    )
    assert side[:2].tolist() == [0.3, -0.3]
    assert np.isnan(side[2])


@pytest.mark.parametrize(
    ("given", "words"),
    [((0, "full"), "n_components = 0"), ((9, "full"), "n_components = 9"), ((2, "round"), "covariance_type")],
)
def test_bad_parameters(given, words):
    with pytest.raises(InputError, match=words):
        mixture.fit_mixture(np.random.default_rng(0).normal(size=(9, 2)), *given)


def test_bad_latents(latent):
    with pytest.raises(InputError, match="no column 'z9'"):
        mixture.latent_features(latent, ["z9"])
    with pytest.raises(InputError, match="not finite"):
        mixture.latent_features(latent.assign(z1=np.nan))
    with pytest.raises(InputError, match="1 values that are not finite"):
        mixture.fit_mixture(np.array([[0.0], [1.0], [np.nan]]), 1)


def test_means_of_a_mixture_as_latents(latent):
    features = mixture.latent_features(latent)
    fitted = mixture.fit_mixture(features, 3)
    angle, z = mixture.latent_at(fitted.means_, latent)
    expected = [np.pi, 0.0, 0.0]
    assert np.abs(np.exp(1j * angle) - np.exp(1j * np.array(expected))).max() < 0.1
    assert z[:, 0] == pytest.approx([0, 0, 2], abs=0.1)
    assert mixture.latent_at(features[:2], latent)[1] == pytest.approx(latent[["z1", "z2"]].to_numpy()[:2])


def test_a_latent_without_content_is_not_blown_up():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"z1": rng.normal(0, 1, 500), "z2": rng.normal(0, 0.01, 500)})
    assert mixture.latent_features(table).std(0) == pytest.approx([1, 0.04], rel=0.1)


def test_classes_that_look_alike_are_made_one():
    y, x = np.mgrid[:25, :25] - 12.0
    spot = np.exp(-((x - 6) ** 2 + y**2) / 8)  # and the same brighter, a quarter turn further, and two of them
    images, labels = np.stack([spot, spot * 1.1, spot.T, spot + spot[:, ::-1]]), np.array([1, 2, 3, 4, 4])
    kinds = mixture.merged(labels, images)
    assert kinds[0] == kinds[1]
    assert len(set(kinds[1:4])) == 3


def stripes(count, seed=0):
    """Contents of three motifs that the thickness draws out alike, and bends; their angles are several."""
    rng = np.random.default_rng(seed)
    kind, thickness = rng.integers(0, 3, count), rng.uniform(-1, 1, count)
    z1 = 1.2 * thickness + 0.3 * kind + rng.normal(0, 0.03, count)
    z2 = thickness - 0.3 * thickness**2 + 0.9 * kind + rng.normal(0, 0.03, count)
    angle = np.pi / 2 * rng.integers(0, 4, count) + rng.normal(0, 0.02, count)
    return pd.DataFrame({"angle_rad": angle, "z1": z1, "z2": z2}), kind


def test_motifs_drawn_out_by_thickness_are_found():
    latent, kind = stripes(1200)
    motif, probability = mixture.motifs(latent)
    assert motif.max() == 3
    assert adjusted_rand_score(kind, motif) > 0.98
    assert adjusted_rand_score(kind, mixture.motifs(latent, 3)[0]) > 0.98
    assert probability.min() >= 1 / 3
    features = mixture.latent_features(latent, ["z1", "z2"])
    free = mixture.classify(features, mixture.fit_mixture(features, 3))[0]
    assert adjusted_rand_score(kind, free) < 0.9  # components of a shape of their own cut the stripes across


def test_groups_are_found_whatever_their_shape():
    rng = np.random.default_rng(0)
    turn = rng.uniform(0, 2 * np.pi, 600)
    ring = np.column_stack([np.cos(turn), np.sin(turn)]) + rng.normal(0, 0.05, (600, 2))
    assert mixture.groups(ring).max() == 0  # of about ten normal distributions
    found = mixture.groups(np.concatenate([ring, rng.normal(0, 0.1, (200, 2))]))
    assert adjusted_rand_score(np.repeat([0, 1], [600, 200]), found) > 0.99
    assert mixture.groups(rng.normal(size=(300, 3))).max() == 0
