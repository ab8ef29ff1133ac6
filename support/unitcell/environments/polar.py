"""An encoder that turns with its image: it looks along every direction, chooses one, and describes what it sees there.

A dense encoder has to learn afresh, for every orientation of a motif, how far it is turned; its gradient only moves
the angle a little at a time, so it stays where it happens to begin. Here the image is sampled on rings, where turning
is a shift along the ring. One small network scores all K views of it, so a turn by 2π/K moves the scores by one place
exactly; the best view is described by a second network, which therefore sees every copy of a motif the same way up.
The scores are taught by search: the decoder's picture is held against all K views at once, by a correlation along the
rings (as projections are matched in electron cryo-microscopy; cf. Nasiri and Bepler 2022).
"""

import torch
from torch import nn

from unitcell.environments.autoencoder import Encoder

TIE_NATS = 2.0


class PolarEncoder(nn.Module):
    """q(γ, t, z | x) from the rings of a sub-image.

    Parameters
    ----------
    side : int
        Pixels along an edge of a sub-image.
    latents : int
        Means and log standard deviations to return: γ first.
    hidden : int
        Width of the layers.
    spokes : int
        Samples along each ring.
    views : int
        Directions that are scored; divides `spokes`. The angle within a step is regressed.
    """

    def __init__(self, side, latents, hidden=128, *, spokes=48, views=48):
        super().__init__()
        self.rings, self.spokes, self.views = side // 3, spokes, views
        self.score = nn.Sequential(
            nn.Linear(self.rings * spokes, hidden // 2), nn.Tanh(), nn.Linear(hidden // 2, hidden // 2), nn.Tanh(),
            nn.Linear(hidden // 2, 1, bias=False),
        )  # fmt: skip
        self.describe = Encoder(self.rings * spokes, latents, hidden)
        radius = (torch.arange(self.rings) + 0.5) / self.rings  # of rings of equal width, in half windows
        angle = 2 * torch.pi * torch.arange(spokes) / spokes
        points = radius[:, None, None] * torch.stack([torch.cos(angle), torch.sin(angle)], -1)  # (R, S, 2) down, left
        self.register_buffer("points", points, persistent=False)
        # a sample stands for the pixels of its piece of annulus: together the pixels of the disc
        self.register_buffer("weight", radius * torch.pi * (side - 1) ** 2 / 2 / self.rings / spokes, persistent=False)

    def sample(self, images, ahead=None):
        """(B, side, side) → the values on the rings (B, R, S), bilinear; begun `ahead` (B,) [rad] along them."""
        points = self.points.flatten(0, 1).expand(len(images), -1, -1)  # (B, R·S, 2) down, left
        points = points if ahead is None else points @ rotation(ahead)
        places = torch.stack([-points[..., 1], points[..., 0]], -1).unflatten(1, (self.rings, self.spokes))
        return nn.functional.grid_sample(images[:, None].float(), places, align_corners=True)[:, 0]  # wants right, down

    def scores(self, rings):
        """Rings (B, R, S) → a score [nats] for each of the K views."""
        step = self.spokes // self.views
        twice = torch.cat([rings, rings[..., :-1]], -1)
        ahead = twice.unfold(2, self.spokes, step)  # view m begins at spoke m·step: turned by −m·2π/K
        views = ahead.permute(0, 2, 1, 3).flatten(2)  # (B, K, R·S)
        return 8 * torch.roll(self.score(views).squeeze(-1).flip(1), 1, 1)

    def forward(self, images):
        """(B, side, side) → mean and log standard deviation, (B, latents) each, at the view of the highest score."""
        rings = self.sample(images)
        return self.described(rings, self.chosen(self.scores(rings)))

    def chosen(self, scores):
        """The view of the highest score; of symmetry's equals, within TIE_NATS of it, the smallest turn: (B,)."""
        turn = torch.arange(self.views, device=scores.device)
        turn = torch.minimum(turn, self.views - turn) - (turn <= self.views // 2) * 0.5  # 0, 1, −1, 2, −2, …
        tied = scores > scores.amax(1, keepdim=True) - TIE_NATS
        return torch.where(tied, turn, torch.inf).argmin(1)

    def described(self, rings, view):
        """What is seen in the given view (B,): mean and log standard deviation, the angle counted from no turn."""
        mean, log_sd = self.describe(turned(rings, view * (self.spokes // self.views)).flatten(1))
        angle = 2 * torch.pi / self.views * (view + torch.tanh(mean[:, 0]))
        return torch.cat([angle[:, None], mean[:, 1:]], 1), log_sd

    def unsteadiness(self, images, view, described, ahead):
        """How far the description breaks its promise when the images are looked at `ahead` (B,) [rad]: nats, (B,).

        The angle must follow, shifts and content must stay, else z could describe the turn within a step.
        """
        again, _ = self.described(self.sample(images, ahead), view)
        broken = again - described
        return 0.5 * (((broken[:, 0] - ahead) / 0.02) ** 2 + ((broken[:, 1:] / 0.1) ** 2).sum(1))

    def match(self, rings, view, decode):
        """How well every view would fit what is decoded at the present one: Σ x x̂ over the disc, (B, K).

        Apart from a constant it is minus half the squared difference, since turning changes neither Σ x² nor Σ x̂².

        Parameters
        ----------
        rings : tensor, shape (B, R, S)
        view : tensor of int64, shape (B,)
        decode : function of positions (P, 2) → intensities (B, P)
        """
        drawn = decode(self.points.flatten(0, 1)).float().reshape(rings.shape)
        product = torch.fft.rfft(rings).conj() * torch.fft.rfft(drawn) * self.weight[:, None]
        matched = torch.fft.irfft(product.sum(1), n=self.spokes)  # (B, S): Σ_φ x(φ) x̂(φ + θ)
        ahead = torch.arange(self.views, device=view.device) - view[:, None]  # x̂ was drawn at `view`
        return matched[:, :: self.spokes // self.views].gather(1, ahead % self.views)


def turned(rings, spokes):
    """Each image's rings (B, R, S) shifted forwards along φ by its own number of spokes (B,)."""
    index = (torch.arange(rings.shape[2], device=rings.device) - spokes[:, None]) % rings.shape[2]
    return rings.gather(2, index[:, None].expand_as(rings))


def rotation(angle):
    """Angles (B,) [rad] → matrices (B, 2, 2) that turn positions (down, left), written as rows, by them."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
