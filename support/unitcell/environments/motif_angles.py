"""Angles of motifs: what the decoder draws of each motif, held against sub-images that may show two of them.

Beside a boundary a window shows two crystals. The encoder has to describe it as a whole, and the angle that it gives is
then neither's. But an atom belongs to one motif, and the rVAE knows how that looks: here its pictures, at a few levels
of the content of its members, are laid over the sub-image at every angle, and what does not fit is let be.
"""

import numpy as np
import torch
from tqdm.auto import tqdm

from unitcell.environments import mixture
from unitcell.environments.autoencoder import scaled
from unitcell.environments.polar import PolarEncoder
from unitcell.environments.rvae import circular

REACH = 0.7  # half windows, standard deviation of the weights about the centre
FORGIVEN = 0.15  # of the intensity range, a difference from which on the picture shows something else
LEVELS = 3  # of a motif's content, as thickness varies it
STEPS = 2  # angles for each spoke of the rings
EQUAL = 0.05  # of the best fit, by which it must be better than at the encoder's angle to take its place


def read_again(model, images, latent, count=None, seed=0):
    """The latent table with one more column, `motif_angle_rad`; with AtomAI's encoders it is the encoder's angle.

    Parameters
    ----------
    model : unitcell.environments.rvae.RotationalVAE
    images : torch.Tensor, shape (n, side, side)
    latent : pandas.DataFrame
        From `rvae.latent_table`.
    count : int, optional
        Motifs; by default as many as `mixture.motifs` finds.
    """
    if not isinstance(model.encoder, PolarEncoder):
        return latent.assign(motif_angle_rad=latent.angle_rad)
    motif, _ = mixture.motifs(latent, count, seed)
    return latent.assign(motif_angle_rad=motif_angles(model, images, motif)[0])


@torch.no_grad()
def motif_angles(model, images, motif, batch=100):
    """The motif and the angle at which the decoder's pictures of the motifs fit best.

    The fit is Σ w exp(−(x − x̂)²/2s²) over the rings of the polar encoder (Welsch's robust loss), w falling off from
    the centre. Of peaks about as good as the best, the nearest to the encoder's angle is taken: symmetry has equals.

    Parameters
    ----------
    model : unitcell.environments.rvae.RotationalVAE
        With a polar encoder.
    images : torch.Tensor, shape (n, side, side)
    motif : ndarray of int, shape (n,)
        From `mixture.motifs`; only used to find the typical member of each.

    Returns
    -------
    angle : ndarray, shape (n,)
        [rad] in [−π, π), counter-clockwise as seen.
    found : ndarray of int, shape (n,)
        The motif that fits best.
    """
    mean, _ = model.posterior(images)
    pictures, motifs = _pictures(model, mean, motif)
    read = torch.from_numpy(mean[:, 0]).to(model.grid.device)
    bar = {"unit_scale": batch, "unit": "sub-image", "mininterval": 5, "disable": len(images) < 2000}
    parts = zip(tqdm(images.split(batch), "angles", **bar), read.split(batch), strict=True)
    fits = [_fits(model.encoder, part, angle, pictures) for part, angle in parts]
    angle, found = (torch.cat(part).cpu().numpy() for part in zip(*fits, strict=True))
    return circular(angle), motifs[found]


def _pictures(model, mean, motif):
    """A few members of each motif, at all angles on the rings: list of (A, R, S), and the motif of each."""
    encoder = model.encoder
    angles = torch.arange(STEPS * encoder.spokes, device=model.grid.device) * (2 * np.pi / STEPS / encoder.spokes)
    places, drawn, motifs = encoder.points.flatten(0, 1), [], []
    for k in np.unique(motif):
        for member in _typical(mean[motif == k]):
            z, _, shift = model.pose(torch.from_numpy(member).to(angles).expand(len(angles), -1))
            drawn.append(model.decode(z, angles, shift, places).unflatten(1, (encoder.rings, encoder.spokes)))
            motifs.append(k)
    return drawn, np.array(motifs)


def _typical(mean):
    """Latents at levels along the direction in which the content of a motif's members varies most."""
    content = mean[:, 3:] - np.median(mean[:, 3:], 0)
    along = content @ np.linalg.svd(content, full_matrices=False)[2][0]
    order = np.argsort(along)
    parts = [mean[part] for part in np.array_split(order, LEVELS) if len(part)]
    return [np.median(part, 0) for part in parts]


def _fits(encoder, images, angle, pictures):
    """Best angle [rad] and picture for each image, given the encoder's angle: (B,) each."""
    radius = encoder.points[:, 0].norm(dim=1)
    weight = encoder.weight * torch.exp(-((radius / REACH) ** 2) / 2)  # (R,)
    rings = encoder.sample(scaled(images).to(weight.device))[:, None]  # (B, 1, R, S)
    fit = [(torch.exp(-((rings - picture) ** 2) / (2 * FORGIVEN**2)).sum(3) @ weight) for picture in pictures]
    fit = torch.stack(fit, 1)  # (B, K, A)
    found = fit.amax(2).argmax(1)
    fit = fit[torch.arange(len(fit), device=fit.device), found]
    before, after = fit.roll(1, 1), fit.roll(-1, 1)
    count = fit.shape[1]
    turn = torch.arange(count, device=fit.device) * (2 * np.pi / count)
    away = 1 - torch.cos(turn - angle[:, None])
    peak = (fit >= before) & (fit >= after) & (fit >= (1 - EQUAL) * fit.amax(1, keepdim=True))
    best = torch.where(peak, away, torch.inf).argmin(1, keepdim=True)
    low, top, high = (part.gather(1, best) for part in (before, fit, after))  # a parabola through the three
    between = 0.5 * (low - high) / (low - 2 * top + high).clamp(max=-1e-9)
    return (2 * np.pi / count * (best + between))[:, 0], found
