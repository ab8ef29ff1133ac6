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
    curve = mixture.bic_curve(mixture.latent_features(latent))
    assert mixture.choose_components(curve) == 3


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
    means = mixture.class_means(patches, np.array([1, 2, 1, 2]))
    assert means[:, 0, 0].tolist() == [1, 2]


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
