"""A rotationally and translationally invariant variational autoencoder (rVAE).

Kalinin et al. 2020, Eq. 2, after Bepler et al. 2019: the decoder is a function of position. It is
asked for the intensity at coordinates rotated by an angle γ and shifted by t, so that z need not
describe either. Conventions (grid, layers, loss) are those of AtomAI's `rVAE`, whose loss this one
equals on the same batch, noise and weights.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from unitcell.artefacts import load_weights, save_weights
from unitcell.autoencoder import Encoder, kl_normal
from unitcell.polar import PolarEncoder

ARCHITECTURE = "rvae"


class DenseEncoder(Encoder):
    """AtomAI's: all pixels into two tanh layers."""

    def __init__(self, side, latents, hidden=128):
        super().__init__(side * side, latents, hidden)

    def forward(self, images):
        """(B, side, side) → mean and log standard deviation, each (B, latents)."""
        return super().forward(images.flatten(1))


ENCODERS = {"polar": PolarEncoder, "dense": DenseEncoder}


def pixel_grid(side):
    """Coordinates of the pixels of a window, (side², 2): first axis down, second to the left, edges at ±1."""
    down, left = torch.linspace(-1, 1, side), torch.linspace(1, -1, side)
    return torch.cartesian_prod(down, left)


class CoordinateDecoder(nn.Module):
    """Intensity at a position given the content: p(x | z, position), three tanh layers.

    `detail` multiplies the initial weights of the position, so that the untrained decoder already
    varies over a fraction of the window; from PyTorch's own initial weights (1) it first has to grow
    them, which takes most of the training.
    """

    def __init__(self, content, hidden=128, detail=1.0):
        super().__init__()
        self.position = nn.Linear(2, hidden)
        with torch.no_grad():
            self.position.weight.mul_(detail)
            self.position.bias.mul_(detail)
        self.content = nn.Linear(content, hidden, bias=False)
        self.hidden = nn.Sequential(
            nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )

    def forward(self, position, z):
        """Positions (B, P, 2) and content (B, d) → intensities (B, P)."""
        return self.hidden(self.position(position) + self.content(z)[:, None]).squeeze(-1)  # (B, P, h) → (B, P)


class RotationalVAE(nn.Module):
    """rVAE of square sub-images.

    ELBO = −‖x − x̂‖²/(2σ²) − KL(γ) − KL(t) − KL(z), with q(γ|x) against N(0, s_γ²), t against
    N(0, s_t²) and z against N(0, 1). As in Bepler's and AtomAI's code, the mean of γ is not
    penalised, only its width: no orientation is preferred.

    Parameters
    ----------
    side : int
        Pixels along an edge of a sub-image.
    latent_dim : int
        Content latents z.
    rotation_prior : float
        s_γ [rad].
    translation_prior : float
        s_t, in half windows.
    noise_sd : float
        σ, standard deviation of an intensity in [0, 1]; 1 is AtomAI's loss, smaller values let
        finer differences into the latents.
    detail : float
        Initial fineness of the decoder; see `CoordinateDecoder`. 1 is AtomAI's.
    hidden : int
        Width of the layers.
    """

    def __init__(
        self,
        side,
        latent_dim=2,
        *,
        rotation_prior=0.1,
        translation_prior=0.1,
        noise_sd=1.0,
        detail=1.0,
        hidden=128,
        encoder="polar",
    ):
        super().__init__()
        self.side, self.latent_dim, self.latents = side, latent_dim, 3 + latent_dim
        self.rotation_prior, self.translation_prior, self.noise_sd = rotation_prior, translation_prior, noise_sd
        self.hidden = hidden
        self.encoder = ENCODERS[encoder](side, self.latents, hidden)
        self.decoder = CoordinateDecoder(latent_dim, hidden, detail)
        self.register_buffer("grid", pixel_grid(side), persistent=False)

    def sharpen(self, detail):
        """Replace the decoder by an untrained one that begins at another `detail`, keeping the encoder.

        A smooth decoder lets the encoder turn an image far in search of its angle, but cannot draw
        sharp columns soon; a fine one draws them soon, but holds the angle where it happens to be.
        So train the first, sharpen, and train again.
        """
        self.decoder = CoordinateDecoder(self.latent_dim, self.hidden, detail).to(self.grid.device)

    def encode(self, images):
        """(B, side, side) → mean and log sd (B, 3 + latent_dim): γ, two scaled shifts, z."""
        return self.encoder(images)

    def decode(self, z, angle=None, shift=None, grid=None):
        """Content (B, d), angle (B,) [rad], shift (B, 2) [half windows], positions (P, 2) → intensities (B, P)."""
        grid = self.grid if grid is None else grid
        position = grid.expand(len(z), *grid.shape)  # (B, P, 2)
        if angle is not None:
            cos, sin = torch.cos(angle), torch.sin(angle)
            turn = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)  # (B, 2, 2)
            position = position @ turn
        if shift is not None:
            position = position + shift[:, None]
        return self.decoder(position, z)

    def terms(self, images, labels, noise, pixels=None):
        """Mean loss terms of a batch, whose negative sum is the ELBO; `noise` is (B, latents).

        A polar encoder adds 'search', which teaches its scores and is no part of the bound.
        """
        if isinstance(self.encoder, PolarEncoder):
            rings = self.encoder.sample(images)
            scores = self.encoder.scores(rings)
            view = scores.argmax(1)
            mean, log_sd = self.encoder.described(rings, view)
        else:
            mean, log_sd = self.encode(images)
        sample = mean + torch.exp(log_sd) * noise
        pose = sample[:, 3:], sample[:, 0], sample[:, 1:3] * self.translation_prior
        decoded = self.decode(*pose, None if pixels is None else self.grid[pixels])
        target = images.flatten(1) if pixels is None else images.flatten(1)[:, pixels]
        share = target.shape[1] / images[0].numel()
        squares = ((decoded.float() - target) ** 2).sum(1)
        ratio = torch.exp(2 * log_sd[:, 0]) / self.rotation_prior**2
        terms = {
            "reconstruction": (squares / (2 * self.noise_sd**2 * share)).mean(),
            "kl_angle": (0.5 * (ratio - torch.log(ratio) - 1)).mean(),
            "kl_translation": kl_normal(mean[:, 1:3], log_sd[:, 1:3]).mean(),
            "kl_content": kl_normal(mean[:, 3:], log_sd[:, 3:]).mean(),
        }
        if isinstance(self.encoder, PolarEncoder):
            with torch.no_grad():
                pose = mean[:, 3:], mean[:, 0], mean[:, 1:3] * self.translation_prior
                match = self.encoder.match(rings, view, lambda grid: self.decode(*pose, grid))
                wanted = torch.softmax(match / self.noise_sd**2, 1)
            terms["search"] = -(wanted * torch.log_softmax(scores.float(), 1)).sum(1).mean()
        return terms

    @torch.no_grad()
    def images(self, z, angle=0.0):
        """Decode content (B, d) at `angle` [rad] (a number or (B,)) to images, ndarray (B, side, side)."""
        z = torch.as_tensor(np.atleast_2d(z), dtype=torch.float32, device=self.grid.device)
        angle = torch.as_tensor(angle, dtype=torch.float32, device=z.device).expand(len(z))
        return self.decode(z, angle).reshape(-1, self.side, self.side).cpu().numpy()

    @torch.no_grad()
    def reconstruct(self, images):
        """Images decoded from the posterior means, ndarray (B, side, side)."""
        mean, _ = self.encode(images.to(self.grid.device))
        decoded = self.decode(mean[:, 3:], mean[:, 0], mean[:, 1:3] * self.translation_prior)
        return decoded.reshape(-1, self.side, self.side).cpu().numpy()

    @property
    def architecture(self):
        """Name and sizes, for the weights' file."""
        return f"{ARCHITECTURE} side={self.side} latent={self.latent_dim} hidden={self.hidden}"


def circular(angle):
    """Angle [rad] brought to [-π, π)."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def circular_sd(angle):
    """Circular standard deviation of angles [rad]: √(−2 ln R), R the length of the mean unit vector."""
    return float(np.sqrt(-2 * np.log(np.abs(np.exp(1j * np.asarray(angle)).mean()))))


@torch.no_grad()
def latent_table(model, images, pixel_size_A):
    """Posterior means and standard deviations as a table.

    Parameters
    ----------
    model : RotationalVAE
    images : torch.Tensor, shape (n, side, side)
    pixel_size_A : float
        Pixel size of the sub-images [Å].

    Returns
    -------
    pandas.DataFrame
        `angle_rad` (counter-clockwise as seen, in [-π, π)), `dx`, `dy` (where the content's origin
        lies from the window's centre [Å], x right, y down), `z1`, `z2`, … and `*_sd` of each.
    """
    mean, log_sd = (part.float().cpu().numpy() for part in model.encode(images.to(model.grid.device)))
    sd = np.exp(log_sd)
    half_A = model.translation_prior * (model.side - 1) / 2 * pixel_size_A
    cos, sin = np.cos(mean[:, 0]), np.sin(mean[:, 0])
    # position = grid @ turn + shift, so the content's origin (position 0) is seen at -shift @ turnᵀ
    down, left = -(cos * mean[:, 1] + sin * mean[:, 2]), -(-sin * mean[:, 1] + cos * mean[:, 2])
    table = {
        "angle_rad": circular(mean[:, 0]), "dx": -left * half_A, "dy": down * half_A,
        "angle_rad_sd": sd[:, 0],
        "dx_sd": half_A * np.hypot(sin * sd[:, 1], cos * sd[:, 2]),
        "dy_sd": half_A * np.hypot(cos * sd[:, 1], sin * sd[:, 2]),
    }  # fmt: skip
    for k in range(model.latent_dim):
        table |= {f"z{k + 1}": mean[:, 3 + k], f"z{k + 1}_sd": sd[:, 3 + k]}
    return pd.DataFrame(table)


def save_rvae(model, path, **card):
    """Write the weights and what is needed to use them; `card` adds to it."""
    settings = {
        name: getattr(model, name)
        for name in ("side", "latent_dim", "rotation_prior", "translation_prior", "noise_sd", "hidden")
    }
    save_weights(model.state_dict(), path, model.architecture, {"settings": settings} | card)


def load_rvae(path):
    """Read a model written by `save_rvae`; returns (model, card)."""
    tensors, card = load_weights(path, ARCHITECTURE + " ")
    model = RotationalVAE(**card["settings"])
    model.load_state_dict(tensors)
    return model.eval(), card
