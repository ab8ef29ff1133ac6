"""A conditional variational autoencoder: content common to all classes, disentangled from the class.

Kalinin et al. 2020, Fig. 3c and 6: the class label is concatenated to the sub-image on the way in
and to the latent variables on the way out.
"""

import numpy as np
import torch
from torch import nn

from unitcell.artefacts import load_weights, save_weights
from unitcell.environments.autoencoder import Encoder, kl_normal
from unitcell.errors import InputError

ARCHITECTURE = "cvae"


def checked_labels(labels, count, n_classes):
    """Class labels from 0 as a tensor of int64, shape (count,), or InputError where they are missing or wrong."""
    if labels is None or len(labels) != count:
        given = "no labels" if labels is None else f"{len(labels)} labels"
        raise InputError(f"There are {given} for {count} sub-images: give the class of each.")
    values = np.asarray(labels, float)
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise InputError("labels holds values that are not whole numbers: give the class of each sub-image, from 0.")
    if values.min() < 0 or values.max() >= n_classes:
        raise InputError(
            f"labels run from {values.min():g} to {values.max():g}, but classes are {n_classes}: number from 0."
        )
    return torch.from_numpy(values.astype(np.int64))


class ConditionalVAE(nn.Module):
    """cVAE of square sub-images with fully connected layers.

    The class goes into the encoder and the decoder, as in the paper's Fig. 3c. AtomAI's `nb_classes` gives it to the
    decoder only: with the weights of the class in the encoder at 0, this loss is AtomAI's.

    Parameters
    ----------
    side : int
        Pixels along an edge of a sub-image.
    n_classes : int
    latent_dim : int
    noise_sd : float
        Standard deviation of an intensity in [0, 1]; see `RotationalVAE`.
    hidden : int
    """

    def __init__(self, side, n_classes, latent_dim=2, *, noise_sd=1.0, hidden=128):
        super().__init__()
        self.side, self.n_classes, self.latent_dim, self.latents = side, n_classes, latent_dim, latent_dim
        self.noise_sd, self.hidden = noise_sd, hidden
        self.encoder = Encoder(side * side + n_classes, latent_dim, hidden)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim + n_classes, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(),
            nn.Linear(hidden, side * side),
        )  # fmt: skip

    def encode(self, images, labels):
        """(B, side, side) and labels (B,) → mean and log sd, (B, latent_dim) each."""
        return self.encoder(torch.cat([images.flatten(1), self._one_hot(labels)], 1))

    def decode(self, z, labels):
        """Latents (B, d) and labels (B,) → intensities (B, side²)."""
        return self.decoder(torch.cat([z, self._one_hot(labels)], 1))

    def terms(self, images, labels, noise, pixels=None):
        """Mean loss terms of a batch, whose negative sum is the ELBO; all pixels are always decoded."""
        if labels is None:
            raise InputError("There are no labels: a conditional autoencoder needs the class of each sub-image.")
        mean, log_sd = self.encode(images, labels)
        decoded = self.decode(mean + torch.exp(log_sd) * noise, labels)
        squares = ((decoded.float() - images.flatten(1)) ** 2).sum(1)
        return {
            "reconstruction": (squares / (2 * self.noise_sd**2)).mean(),
            "kl_content": kl_normal(mean, log_sd).mean(),
        }

    @torch.no_grad()
    def tableau(self, label, steps=3, reach=1.0):
        """Images of class `label` on a grid in its first two latents.

        Returns
        -------
        ndarray, shape (steps, steps, side, side)
            z1 grows to the right and z2 upwards, from -reach to +reach.
        """
        axis = torch.linspace(-reach, reach, steps)
        z = torch.zeros(steps * steps, self.latent_dim)
        z[:, 0], z[:, 1] = axis.repeat(steps), axis.flip(0).repeat_interleave(steps)
        labels = torch.full((steps * steps,), int(label))
        return self.decode(z, labels).reshape(steps, steps, self.side, self.side).numpy()

    def _one_hot(self, labels):
        return nn.functional.one_hot(labels, self.n_classes).float()

    @property
    def architecture(self):
        """Name and sizes, for the weights' file."""
        return f"{ARCHITECTURE} side={self.side} classes={self.n_classes} latent={self.latent_dim} hidden={self.hidden}"


def save_cvae(model, path, **card):
    """Write the weights and what is needed to use them; `card` adds to it."""
    settings = {name: getattr(model, name) for name in ("side", "n_classes", "latent_dim", "noise_sd", "hidden")}
    save_weights(model.state_dict(), path, model.architecture, {"settings": settings} | card)


def load_cvae(path):
    """Read a model written by `save_cvae`; returns (model, card)."""
    tensors, card = load_weights(path, ARCHITECTURE + " ")
    model = ConditionalVAE(**card["settings"])
    model.load_state_dict(tensors)
    return model.eval(), card


def framed(tableau):
    """A tableau (rows, columns, side, side) as one image, its squares a pixel apart (NaN between)."""
    rows, columns = tableau.shape[:2]
    squares = np.pad(tableau, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    return squares.transpose(0, 2, 1, 3).reshape(rows * squares.shape[2], columns * squares.shape[3])[:-1, :-1]


def spread(tableau):
    """A tableau minus the mean of its images (the lower row of the paper's Fig. 6)."""
    return tableau - np.mean(tableau, axis=(0, 1))
