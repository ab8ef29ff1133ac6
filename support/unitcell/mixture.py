"""Classes of environments: Gaussian mixtures in the latent space (Kalinin et al. 2020, Fig. 5)."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from unitcell.errors import InputError

COVARIANCES = ("full", "tied", "diag", "spherical")
MOST_COMPONENTS = 8


def latent_features(latent, columns=None):
    """Features for clustering, standardised together so that a distance means the same in each.

    An angle has no ends, so it enters as its cosine and sine; content latents enter as they are.

    Parameters
    ----------
    latent : pandas.DataFrame
        From `rvae.latent_table`.
    columns : list of str, optional
        Which of its columns; by default the angle and all content latents.

    Returns
    -------
    ndarray, shape (n, d)
    """
    columns = columns or ["angle_rad", *content_names(latent)]
    parts = []
    for name in columns:
        if name not in latent:
            raise InputError(f"The latent table has no column '{name}': it has {', '.join(latent)}.")
        value = latent[name].to_numpy(float)
        if name.startswith("angle"):
            parts += [np.cos(value), np.sin(value)]
        else:
            parts.append((value - value.mean()) / max(value.std(), 1e-12))
    features = np.column_stack(parts)
    if not np.isfinite(features).all():
        raise InputError("The latent table holds values that are not finite: train the rVAE again (chapter 07).")
    return features


def content_names(latent):
    """Names of the content latents of a table: z1, z2, …"""
    return [name for name in latent if name[0] == "z" and name[1:].isdigit()]


def bic_curve(features, covariance_type="full", most=MOST_COMPONENTS, seed=0):
    """Bayesian information criterion for 1 to `most` components: DataFrame `n_components`, `bic`."""
    counts = range(1, min(most, len(features) - 1) + 1)
    return pd.DataFrame(
        {"n_components": counts, "bic": [fit_mixture(features, k, covariance_type, seed).bic(features) for k in counts]}
    )


def fit_mixture(features, n_components, covariance_type="full", seed=0):
    """Fit a Gaussian mixture.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    n_components : int
    covariance_type : {'full', 'tied', 'diag', 'spherical'}

    Returns
    -------
    sklearn.mixture.GaussianMixture

    Raises
    ------
    InputError
        More components than points, or an unknown covariance type.
    """
    if covariance_type not in COVARIANCES:
        raise InputError(f"covariance_type = '{covariance_type}' is unknown: give one of {', '.join(COVARIANCES)}.")
    if not isinstance(n_components, int | np.integer) or not 1 <= n_components < len(features):
        raise InputError(
            f"n_components = {n_components!r} cannot be fitted to {len(features)} sub-images: give a whole number "
            f"between 1 and {len(features) - 1}, or 'auto'."
        )
    # an angle's cosine and sine lie on a circle: without a floor a component could shrink onto it
    return GaussianMixture(
        n_components, covariance_type=covariance_type, n_init=5, reg_covar=1e-3, random_state=seed
    ).fit(features)


def choose_components(curve, share=0.01):
    """Number of components at the knee of a BIC curve.

    BIC of a few hundred points that are not exactly normal goes on falling slowly. The number kept
    is the smallest whose BIC is within `share` of the whole fall from the lowest.
    """
    fall = curve.bic.iloc[0] - curve.bic.min()
    return int(curve.n_components[curve.bic <= curve.bic.min() + share * fall].iloc[0])


def classify(features, mixture):
    """Class of each point, 1 being the largest, and the probability of it: two arrays."""
    probability = mixture.predict_proba(features)
    order = np.argsort(-np.bincount(probability.argmax(1), minlength=probability.shape[1]))
    probability = probability[:, order]
    return probability.argmax(1) + 1, probability.max(1)


def pca_features(patches, n_features=8, seed=0):
    """Baseline features: principal components of the sub-images, blind to their orientation.

    Returns
    -------
    ndarray, shape (n, n_features), the first of unit standard deviation.
    """
    flat = np.asarray(patches).reshape(len(patches), -1)
    features = PCA(n_features, random_state=seed).fit_transform(flat)
    return features / features[:, 0].std()


def class_means(patches, labels):
    """Mean sub-image of each class, ndarray (k, side, side), classes in ascending order."""
    return np.stack([np.asarray(patches)[labels == k].mean(0) for k in np.unique(labels)])


def side_of_neighbour(points, neighbours, side):
    """The `side` of the neighbour nearest to the left and above of each point; NaN where it has none.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        (x, y) [px], y down.
    neighbours : ndarray, shape (m, 2)
    side : ndarray, shape (m,)
    """
    step = neighbours[None] - points[:, None]  # (n, m, 2)
    distance = np.hypot(*step.transpose(2, 0, 1))
    distance[(step[..., 0] > 0) | (step[..., 1] > 0)] = np.inf
    nearest = distance.argmin(1)
    close = distance.min(1) < 1.5 * np.median(distance.min(1))
    return np.where(close, np.asarray(side)[nearest], np.nan)
