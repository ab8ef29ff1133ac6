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
from unitcell.autoencoder import Encoder, kl_normal, scaled
from unitcell.errors import InputError
from unitcell.polar import PolarEncoder, rotation

ARCHITECTURE = "rvae"
BATCH = 200  # images encoded or decoded at once: a hidden layer of these at 36 × 36 positions is 130 MB


class DenseEncoder(Encoder):
    """AtomAI's: all pixels into two tanh layers."""

    def __init__(self, side, latents, hidden=128):
        super().__init__(side * side, latents, hidden)

    def forward(self, images):
        """(B, side, side) → mean and log standard deviation, each (B, latents)."""
        return super().forward(images.flatten(1))


class ConvolutionalEncoder(nn.Module):
    """AtomAI's other one: two convolutions of 3 × 3, leaky rectifiers, then all pixels of all filters."""

    def __init__(self, side, latents, filters=128):
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(1, filters, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(filters, filters, 3, padding=1),
            nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.mean = nn.Linear(filters * side * side, latents)
        self.log_sd = nn.Linear(filters * side * side, latents)

    def forward(self, images):
        """(B, side, side) → mean and log standard deviation, each (B, latents)."""
        h = self.convolve(images[:, None]).flatten(1)
        return self.mean(h), self.log_sd(h)


ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU}
ENCODERS = {"polar": PolarEncoder, "dense": DenseEncoder, "convolutional": ConvolutionalEncoder}


def pixel_grid(side):
    """Coordinates of the pixels of a window, (side², 2): first axis down, second to the left, edges at ±1."""
    down, left = torch.linspace(-1, 1, side), torch.linspace(1, -1, side)
    return torch.cartesian_prod(down, left)


class CoordinateDecoder(nn.Module):
    """Intensity at a position given the content: p(x | z, position), three hidden layers.

    `detail` multiplies the initial weights of the position, so that the untrained decoder already
    varies over a fraction of the window; from PyTorch's own initial weights (1) it first has to grow
    them, which takes most of the training.
    """

    def __init__(self, content, hidden=128, detail=1.0, activation="tanh"):
        super().__init__()
        self.position = nn.Linear(2, hidden)
        with torch.no_grad():
            self.position.weight.mul_(detail)
            self.position.bias.mul_(detail)
        self.content = nn.Linear(content, hidden, bias=False)
        bend = ACTIVATIONS[activation]
        self.hidden = nn.Sequential(
            bend(), nn.Linear(hidden, hidden), bend(), nn.Linear(hidden, hidden), bend(), nn.Linear(hidden, 1)
        )

    def forward(self, grid, z, turn=None, shift=None):
        """Positions (P, 2), turned by (B, 2, 2) and shifted by (B, 2), and content (B, d) → intensities (B, P).

        Each image turns the weights instead of the positions: its first layer is then one small matrix, (3, h).
        """
        slope = self.position.weight.T.expand(len(z), -1, -1)  # (B, 2, h)
        level = self.content(z) + self.position.bias  # (B, h)
        if shift is not None:
            level = level + shift @ self.position.weight.T
        if turn is not None:
            slope = turn @ slope
        places = nn.functional.pad(grid, (0, 1), value=1.0).expand(len(z), -1, -1)  # (B, P, 3)
        return self.hidden(places @ torch.cat([slope, level[:, None]], 1)).squeeze(-1)  # (B, P, h) → (B, P)


class RotationalVAE(nn.Module):
    """rVAE of square sub-images.

    ELBO = −‖x − x̂‖²/(2σ²) − KL(γ) − KL(t) − KL(z), with q(γ|x) against N(0, s_γ²), t against
    N(0, s_t²) and z against N(0, 1). As in Bepler's and AtomAI's code, the mean of γ is not
    penalised, only its width: no orientation is preferred. `RotationalVAE.like_atomai` is AtomAI's.

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
    encoder : {'polar', 'dense', 'convolutional'}
        'polar' turns with the image; the others are AtomAI's.
    activation : {'silu', 'tanh'}
        Of the decoder; 'tanh' is AtomAI's, and several times slower than 'silu' on a processor.

    Raises
    ------
    InputError
        Sub-images of fewer than 8 pixels, no content latents, an unknown encoder, or a width that is not positive.
    """

    def __init__(
        self,
        side,
        latent_dim=2,
        *,
        rotation_prior=0.1,
        translation_prior=0.1,
        noise_sd=0.1,
        detail=4.0,
        hidden=128,
        encoder="polar",
        activation="silu",
    ):
        super().__init__()
        _require_sensible(side, latent_dim, encoder, activation, rotation_prior, translation_prior, noise_sd)
        self.side, self.latent_dim, self.latents = side, latent_dim, 3 + latent_dim
        self.rotation_prior, self.translation_prior, self.noise_sd = rotation_prior, translation_prior, noise_sd
        self.hidden, self.activation, self.encoder_kind = hidden, activation, encoder
        self.encoder = ENCODERS[encoder](side, self.latents, hidden)
        self.decoder = CoordinateDecoder(latent_dim, hidden, detail, activation)
        self.register_buffer("grid", pixel_grid(side), persistent=False)

    @classmethod
    def like_atomai(cls, side, latent_dim=2, *, encoder="dense", rotation_prior=0.1, translation_prior=0.1, hidden=128):
        """AtomAI 0.8.1's rVAE: the same function and the same loss for the same weights."""
        return cls(
            side, latent_dim, rotation_prior=rotation_prior, translation_prior=translation_prior, noise_sd=1.0,
            detail=1.0, hidden=hidden, encoder=encoder, activation="tanh",
        )  # fmt: skip

    def encode(self, images):
        """(B, side, side) → mean and log sd (B, 3 + latent_dim): γ, two scaled shifts, z."""
        return self.encoder(images)

    def decode(self, z, angle=None, shift=None, grid=None):
        """Content (B, d), angle (B,) [rad], shift (B, 2) [half windows], positions (P, 2) → intensities (B, P)."""
        grid = self.grid if grid is None else grid
        turn = None if angle is None else rotation(angle)
        return self.decoder(grid, z, turn, shift)

    def terms(self, images, labels, noise, pixels=None):
        """Mean loss terms of a batch, whose negative sum is the ELBO; `noise` is (B, latents).

        A polar encoder adds what teaches it and is no part of the bound: 'search' and 'unsteadiness'.
        """
        if not isinstance(self.encoder, PolarEncoder):
            return self._bound(images, *self.encode(images), noise, pixels)
        rings = self.encoder.sample(images)
        scores = self.encoder.scores(rings)
        view = scores.argmax(1)
        mean, log_sd = self.encoder.described(rings, view)
        ahead = np.pi / self.encoder.views * torch.tanh(noise[:, 0])  # within a step
        return self._bound(images, mean, log_sd, noise, pixels) | {
            "search": self._search(rings, scores, view, mean, len(images) // 4 + 1).mean(),
            "unsteadiness": self.encoder.unsteadiness(images, view, mean, ahead).mean(),
        }

    def _bound(self, images, mean, log_sd, noise, pixels):
        """The terms of the paper's Eq. 2, as AtomAI has them."""
        sample = mean + torch.exp(log_sd) * noise
        decoded = self.decode(*self._pose(sample), None if pixels is None else self.grid[pixels])
        target = images.flatten(1) if pixels is None else images.flatten(1)[:, pixels]
        share = target.shape[1] / images[0].numel()
        squares = ((decoded.float() - target) ** 2).sum(1)
        ratio = torch.exp(2 * log_sd[:, 0]) / self.rotation_prior**2
        return {
            "reconstruction": (squares / (2 * self.noise_sd**2 * share)).mean(),
            "kl_angle": (0.5 * (ratio - torch.log(ratio) - 1)).mean(),
            "kl_translation": kl_normal(mean[:, 1:3], log_sd[:, 1:3]).mean(),
            "kl_content": kl_normal(mean[:, 3:], log_sd[:, 3:]).mean(),
        }

    def _search(self, rings, scores, view, mean, few):
        """Cross-entropy of the scores against the posterior over all views of the first `few` images, (few,)."""
        with torch.no_grad():
            pose = self._pose(mean[:few])
            match = self.encoder.match(rings[:few], view[:few], lambda grid: self.decode(*pose, grid))
            wanted = torch.softmax(match / self.noise_sd**2, 1)
        return -(wanted * torch.log_softmax(scores[:few].float(), 1)).sum(1)

    def _pose(self, latents):
        """Latents (B, 3 + d) → content (B, d), angle (B,) and shift (B, 2), as `decode` takes them."""
        return latents[:, 3:], latents[:, 0], latents[:, 1:3] * self.translation_prior

    @torch.no_grad()
    def images(self, z, angle=0.0):
        """Decode content (B, d) at `angle` [rad] (a number or (B,)) to images, ndarray (B, side, side)."""
        z = torch.as_tensor(np.atleast_2d(z), dtype=torch.float32, device=self.grid.device)
        angle = torch.as_tensor(angle, dtype=torch.float32, device=z.device).expand(len(z))
        return self.decode(z, angle).reshape(-1, self.side, self.side).cpu().numpy()

    @torch.no_grad()
    def reconstruct(self, images, batch=BATCH):
        """Images decoded from the posterior means, any number of them, ndarray (n, side, side)."""
        means = (self.encode(scaled(part).to(self.grid.device))[0] for part in images.split(batch))
        drawn = torch.cat([self.decode(*self._pose(mean)).cpu() for mean in means])
        return drawn.reshape(images.shape).numpy()

    @torch.no_grad()
    def posterior(self, images, batch=BATCH):
        """Means and standard deviations of the latents of any number of images: two ndarrays (n, 3 + latent_dim)."""
        parts = [self.encode(scaled(part).to(self.grid.device)) for part in images.split(batch)]
        mean, log_sd = (torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True))
        return mean, np.exp(log_sd)

    @property
    def settings(self):
        """What the class needs to make the same model again, apart from its weights."""
        names = ("side", "latent_dim", "rotation_prior", "translation_prior", "noise_sd", "hidden", "activation")
        return {name: getattr(self, name) for name in names} | {"encoder": self.encoder_kind}

    @property
    def architecture(self):
        """Name and sizes, for the weights' file."""
        sizes = f"side={self.side} latent={self.latent_dim} hidden={self.hidden}"
        return f"{ARCHITECTURE} {sizes} encoder={self.encoder_kind} activation={self.activation}"


def _require_sensible(side, latent_dim, encoder, activation, *widths):
    if not isinstance(side, int) or side < 8:
        raise InputError(f"side = {side!r}: sub-images need at least 8 × 8 pixels.")
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise InputError(f"latent_dim = {latent_dim!r}: give a whole number of content latents, at least 1.")
    for name, given, known in (("encoder", encoder, ENCODERS), ("activation", activation, ACTIVATIONS)):
        if given not in known:
            raise InputError(f"{name} = '{given}' is unknown: give one of {', '.join(known)}.")
    for name, width in zip(("rotation_prior", "translation_prior", "noise_sd"), widths, strict=True):
        if not width > 0:
            raise InputError(f"{name} = {width!r} must be greater than zero.")


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
    mean, sd = model.posterior(images)
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
    save_weights(model.state_dict(), path, model.architecture, {"settings": model.settings} | card)


def load_rvae(path):
    """Read a model written by `save_rvae`; returns (model, card)."""
    tensors, card = load_weights(path, ARCHITECTURE + " ")
    model = RotationalVAE(**card["settings"])
    model.load_state_dict(tensors)
    return model.eval(), card
