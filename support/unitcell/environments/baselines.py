"""What the rVAE and its mixture are held against on the same sub-images: principal components, VAE, AtomAI's jrVAE."""

import contextlib
import functools
import io
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_rand_score

from unitcell.environments import mixture
from unitcell.environments.autoencoder import train
from unitcell.environments.cvae import ConditionalVAE
from unitcell.environments.rvae import RotationalVAE, latent_table
from unitcell.errors import InputError
from unitcell.peers import import_atomai


def vae_features(images, *, latent_dim=2, noise_sd=0.1, epochs=40, seed=0, device="cpu"):
    """Standardised latents of a plain VAE: a cVAE of one class, which knows neither turns nor shifts.

    Parameters
    ----------
    images : torch.Tensor, shape (n, side, side)
        From `autoencoder.checked_patches`.

    Returns
    -------
    ndarray, shape (n, latent_dim)
    """
    torch.manual_seed(seed)
    model, labels = ConditionalVAE(images.shape[1], 1, latent_dim, noise_sd=noise_sd), torch.zeros(len(images)).long()
    train(model, images, labels, epochs=epochs, batch=32, learning_rate=2e-3, seed=seed, device=device)
    with torch.no_grad():
        mean, _ = model.cpu().encode(images.cpu(), labels)
    return mixture.latent_features(pd.DataFrame({f"z{k + 1}": mean[:, k].numpy() for k in range(latent_dim)}))


def rvae_features(images, *, latent_dim=2, noise_sd=0.1, epochs=10, seed=0, device="cpu"):
    """Standardised content latents of an rVAE trained on the same sub-images; the angle is left out."""
    torch.manual_seed(seed)
    settings = {"rotation_prior": 0.1, "translation_prior": 0.05, "noise_sd": noise_sd, "detail": 4.0}
    model = RotationalVAE(images.shape[1], latent_dim, **settings)
    train(model, images, epochs=epochs, batch=32, learning_rate=2e-3, pixels=192, seed=seed, device=device)
    table = latent_table(model, images, 1.0)
    return mixture.latent_features(table, mixture.content_names(table))


def jrvae_classes(images, n_classes, *, latent_dim=2, noise_sd=0.3, epochs=15, learning_rate=1e-3, seed=0):
    """Classes by AtomAI's jrVAE: an rVAE with a discrete latent beside the continuous ones.

    AtomAI's loss supposes a noise of 1, so the sub-images are divided by `noise_sd` beforehand. Its capacity terms are
    AtomAI's own.

    Returns
    -------
    ndarray of int, shape (n,)
        Most probable class, from 1.
    """
    if not 2 <= n_classes < len(images):
        raise InputError(f"n_classes = {n_classes} of {len(images)} sub-images cannot be: give 2 to {len(images) - 1}.")
    atomai, scaled = import_atomai(), images.cpu() / noise_sd
    optimiser = functools.partial(torch.optim.Adam, lr=learning_rate)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        # AtomAI calls it without its `indexing`; torch's default for that is the one it means
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        model = atomai.models.jrVAE(tuple(images.shape[1:]), latent_dim, [n_classes], seed=seed)
        model.fit(
            scaled, training_cycles=epochs, batch_size=min(64, len(images)), optimizer=optimiser,
            rotation_prior=np.pi, filename=str(Path(folder) / "jrvae"), verbose="False",
        )  # fmt: skip
        _, _, probability = model.encode(scaled)
    return probability.argmax(1) + 1


def scored(routes, kind):
    """Each route's classes against known kinds.

    Parameters
    ----------
    routes : dict of str to (ndarray of features, seconds) or (ndarray of labels, seconds)
        Features (n, d) are clustered twice: told the number of kinds, and with the number that BIC chooses. Labels (n,)
        are taken as they are.
    kind : ndarray, shape (n,)
        What is known.

    Returns
    -------
    pandas.DataFrame
        A row for each route.
    """
    count, rows = len(np.unique(kind)), {}
    for name, (given, seconds) in routes.items():
        told, free, by_bic = given, np.nan, np.nan
        if given.ndim == 2:
            by_bic = mixture.choose_components(mixture.criterion_curves(given))
            told, free = (mixture.classify(given, mixture.fit_mixture(given, k))[0] for k in (count, by_bic))
            free = adjusted_rand_score(kind, free)
        rows[name] = {
            f"ARI, told {count} classes": adjusted_rand_score(kind, told),
            "classes by BIC": by_bic,
            "ARI at those": free,
            "seconds": seconds,
        }
    return pd.DataFrame(rows).T


def timed(function, *arguments, **more):
    """What a function returns, and the seconds that it took."""
    started = time.perf_counter()
    return function(*arguments, **more), time.perf_counter() - started
