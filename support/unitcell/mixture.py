"""Classes of environments: Gaussian mixtures in the latent space (Kalinin et al. 2020, Fig. 5)."""

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from unitcell.errors import InputError

COVARIANCES = ("full", "tied", "diag", "spherical")
PER_COMPONENT = ("covariances_", "precisions_", "precisions_cholesky_")  # of all but tied mixtures
MOST_COMPONENTS = 8
MOST_PIECES = 15  # normal distributions that a motif's stripe of content may need together
MISTAKEN = 0.01  # share of the points of each of two pieces that is taken for the other's, where they touch
LEAST_SHARE = 0.05  # of the points; a smaller group is no motif of its own
MOST_POINTS = 3000  # that criteria and groups are computed from
LEAST_SPREAD = 0.25  # of a latent's unit prior; one that carries nothing spreads less, and is not to be blown up


def latent_features(latent, columns=None):
    """Features for clustering, standardised together so that a distance means the same in each.

    An angle has no ends, so it enters as its cosine and sine; content latents enter divided by their spread, but one
    that the encoder leaves at its prior (and whose means are therefore all near 0) is not blown up.

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
    columns = columns or [*(name for name in ["angle_rad"] if name in latent), *content_names(latent)]
    parts = []
    for name in columns:
        if name not in latent:
            raise InputError(f"The latent table has no column '{name}': it has {', '.join(latent)}.")
        value = latent[name].to_numpy(float)
        if name.startswith("angle"):
            parts += [np.cos(value), np.sin(value)]
        else:
            parts.append((value - value.mean()) / max(value.std(), LEAST_SPREAD))
    features = np.column_stack(parts)
    if not np.isfinite(features).all():
        raise InputError("The latent table holds values that are not finite: train the rVAE again (chapter 07).")
    return features


def content_names(latent):
    """Names of the content latents of a table: z1, z2, …"""
    return [name for name in latent if name[0] == "z" and name[1:].isdigit()]


def latent_at(features, latent, columns=None):
    """Angles [rad] and content latents at points of the space of `latent_features`: its inverse.

    Parameters
    ----------
    features : ndarray, shape (k, d)
        For instance the means of a mixture.
    latent, columns
        As given to `latent_features`.

    Returns
    -------
    angle : ndarray, shape (k,), or None where the angle was not among the columns
    z : ndarray, shape (k, number of content latents)
        Content latents that were not among the columns are at their median.
    """
    columns = columns or ["angle_rad", *content_names(latent)]
    angle, at, z = None, 0, {name: np.full(len(features), latent[name].median()) for name in content_names(latent)}
    for name in columns:
        if name.startswith("angle"):
            angle, at = np.arctan2(features[:, at + 1], features[:, at]), at + 2
        else:
            z[name] = features[:, at] * max(latent[name].std(ddof=0), LEAST_SPREAD) + latent[name].mean()
            at += 1
    return angle, np.column_stack([z[name] for name in content_names(latent)])


def criterion_curves(features, covariance_type="full", most=MOST_COMPONENTS, seed=0):
    """Information criteria for 1 to `most` components, smaller being better.

    BIC weighs likelihood against parameters. ICL (Biernacki, Celeux and Govaert 2000) adds twice the entropy of the
    class probabilities, so that components that overlap earn less: it counts clusters, BIC normal distributions.
    At most `MOST_POINTS` points are used, drawn at random.

    Returns
    -------
    pandas.DataFrame
        `n_components`, `bic`, `icl`.
    """
    features = features[np.random.default_rng(seed).permutation(len(features))[:MOST_POINTS]]
    rows = []
    for k in range(1, min(most, len(features) - 1) + 1):
        fitted = fit_mixture(features, k, covariance_type, seed)
        probability = fitted.predict_proba(features)
        entropy = -np.sum(probability * np.log(np.maximum(probability, 1e-300)))
        bic = fitted.bic(features)
        rows.append({"n_components": k, "bic": bic, "icl": bic + 2 * entropy})
    return pd.DataFrame(rows)


def fit_mixture(features, n_components, covariance_type="full", seed=0, **more):
    """Fit a Gaussian mixture; its components come in order of their weight, the heaviest first.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    n_components : int
    covariance_type : {'full', 'tied', 'diag', 'spherical'}
    more
        Further settings of `sklearn.mixture.GaussianMixture`.

    Returns
    -------
    sklearn.mixture.GaussianMixture

    Raises
    ------
    InputError
        More components than points, an unknown covariance type, or features that are not finite.
    """
    if not np.isfinite(features).all():
        raise InputError(
            f"features holds {np.count_nonzero(~np.isfinite(features))} values that are not finite: remove these "
            "sub-images, or train the rVAE again (chapter 07)."
        )
    if covariance_type not in COVARIANCES:
        raise InputError(f"covariance_type = '{covariance_type}' is unknown: give one of {', '.join(COVARIANCES)}.")
    if not isinstance(n_components, int | np.integer) or not 1 <= n_components < len(features):
        raise InputError(
            f"n_components = {n_components!r} cannot be fitted to {len(features)} sub-images: give a whole number "
            f"between 1 and {len(features) - 1}, or 'auto'."
        )
    # an angle's cosine and sine lie on a circle: without a floor a component could shrink onto it
    settings = {"n_init": 10, "reg_covar": 1e-3} | more
    mixture = GaussianMixture(n_components, covariance_type=covariance_type, random_state=seed, **settings)
    mixture.fit(features)
    order = np.argsort(-mixture.weights_)
    each = ("weights_", "means_") if covariance_type == "tied" else ("weights_", "means_", *PER_COMPONENT)
    for name in each:
        setattr(mixture, name, getattr(mixture, name)[order])
    return mixture


def choose_components(curve, share=0.01, criterion="bic"):
    """Number of components at the knee of a criterion's curve.

    BIC of a few hundred points that are not exactly normal goes on falling slowly. The number kept
    is the smallest whose BIC is within `share` of the whole fall from the lowest.
    """
    value = curve[criterion]
    return int(curve.n_components[value <= value.min() + share * (value.iloc[0] - value.min())].iloc[0])


def classify(features, mixture):
    """Class of each point, 1 being the mixture's heaviest component, and the probability of it: two arrays."""
    probability = mixture.predict_proba(features)
    return probability.argmax(1) + 1, probability.max(1)


def motifs(latent, count=None, seed=0):
    """Motifs: groups of the content latents alone, whatever the angle.

    What varies within a motif (thickness, scan) varies within the others too, so all share one covariance: a
    component of its own shape would rather cover one end of two motifs' stripes, or the sparse points between them.
    The likelier of two fits is kept, begun by k-means and from `groups`.

    Parameters
    ----------
    latent : pandas.DataFrame
        From `rvae.latent_table`.
    count : int, optional
        By default the number of `groups` of the content.

    Returns
    -------
    label : ndarray of int, shape (n,)
        1 is the commonest motif.
    probability : ndarray, shape (n,)
    """
    content = latent_features(latent, content_names(latent))
    some = content[np.random.default_rng(seed).permutation(len(content))[:MOST_POINTS]]
    group = groups(some, seed)
    count = count or group.max() + 1
    fits = [fit_mixture(content, count, "tied", seed)]
    if count <= group.max() + 1:
        cores = [some[group == k] for k in range(count)]
        around = np.concatenate([core - core.mean(0) for core in cores])
        start = {"means_init": [core.mean(0) for core in cores], "precisions_init": np.linalg.inv(np.cov(around.T))}
        fits.append(fit_mixture(content, count, "tied", seed, n_init=1, **start))
    return classify(content, max(fits, key=lambda fitted: fitted.lower_bound_))


def groups(features, seed=0):
    """Groups that no bridge of points joins, whatever their shape.

    A bent stripe takes several normal distributions. Two components of the mixture of the least BIC belong to one group
    where either is taken for the other by more than `MISTAKEN` of its points (estimated misclassification
    probabilities, Hennig 2010; here of both, as a sparse bridge is often taken for its end, but not its end for it).

    Returns
    -------
    ndarray of int, shape (n,)
        0 for the heaviest; -1 for points in groups of less than `LEAST_SHARE`.
    """
    how = {"reg_covar": 1e-5, "n_init": 2, "init_params": "random_from_data"}
    pieces = [fit_mixture(features, k, seed=seed, **how) for k in range(1, min(MOST_PIECES, len(features) - 1) + 1)]
    share = min(pieces, key=lambda fitted: fitted.bic(features)).predict_proba(features)
    piece, weight = share.argmax(1), share.sum(0)
    taken = share.T @ np.eye(len(weight))[piece] / weight[:, None]  # of row's points, for column's
    _, group = connected_components(np.minimum(taken, taken.T) > MISTAKEN, directed=False)
    heaviness = np.bincount(group, weights=weight / len(features))
    rank = np.argsort(np.argsort(-heaviness))
    return np.where(heaviness < LEAST_SHARE, -1, rank)[group[piece]]


def likeness(images):
    """Correlation of each pair of images over the disc inscribed in them, ndarray (k, k) for images (k, side, side)."""
    images = np.asarray(images, float)
    side = images.shape[1]
    disc = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)) < side / 2
    return np.atleast_2d(np.corrcoef(images[:, disc]))


def merged(labels, images, least=0.97):
    """Classes whose mean images are alike made one: a motif that a turn leaves as it is has several angles.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        From `classify`: 1 is the first image's.
    images : ndarray, shape (k, side, side)
        From `class_means`.
    least : float
        Correlation (see `likeness`) from which two images are alike, directly or through others.

    Returns
    -------
    ndarray of int, shape (n,)
        1 is the largest class.
    """
    _, group = connected_components(likeness(images) >= least, directed=False)
    found = group[np.asarray(labels) - 1]
    rank = np.argsort(np.argsort(-np.bincount(found, minlength=group.max() + 1)))
    return rank[found] + 1


def pca_features(patches, n_features=8, seed=0):
    """Baseline features: principal components of the sub-images, blind to their orientation.

    Returns
    -------
    ndarray, shape (n, n_features), the first of unit standard deviation.
    """
    flat = np.asarray(patches).reshape(len(patches), -1)
    features = PCA(n_features, random_state=seed).fit_transform(flat)
    return features / features[:, 0].std()


def class_means(patches, labels, count=None):
    """Mean sub-image of classes 1 to `count`, ndarray (count, side, side); of a class without atoms, zeros."""
    patches, count = np.asarray(patches), count or int(np.max(labels))
    empty = np.zeros((1, *patches.shape[1:]), patches.dtype)
    return np.stack([(patches[labels == k] if (labels == k).any() else empty).mean(0) for k in range(1, count + 1)])


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
