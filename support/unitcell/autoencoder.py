"""What the variational autoencoders share: an encoder, the KL terms, input checks and one training loop."""

import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from unitcell.errors import InputError


class Encoder(nn.Module):
    """Two tanh layers, then a mean and a log standard deviation for each latent: q(z|x)."""

    def __init__(self, inputs, latents, hidden=128):
        super().__init__()
        self.dense = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.mean = nn.Linear(hidden, latents)
        self.log_sd = nn.Linear(hidden, latents)

    def forward(self, x):
        """(B, inputs) → mean and log standard deviation, each (B, latents)."""
        h = self.dense(x)
        return self.mean(h), self.log_sd(h)


def kl_normal(mean, log_sd):
    """KL divergence of N(mean, sd²) from N(0, 1), summed over the last axis: (B, d) → (B,)."""
    return (-log_sd + 0.5 * torch.exp(2 * log_sd) + 0.5 * mean**2 - 0.5).sum(-1)


def checked_patches(patches, name="patches"):
    """Return `patches` as a float32 tensor of shape (n, side, side), or raise InputError.

    A mean-squared reconstruction term supposes intensities between 0 and 1: on unscaled counts the
    loss overflows.
    """
    stack = np.asarray(patches, dtype=np.float32)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or len(stack) == 0:
        raise InputError(f"{name} has shape {stack.shape}: give a stack of square sub-images (atom, y, x).")
    if not np.isfinite(stack).all():
        raise InputError(
            f"{name} holds {np.count_nonzero(~np.isfinite(stack))} values that are not finite: remove them."
        )
    low, high = stack.min(), stack.max()
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(f"{name} runs from {low:.3g} to {high:.3g}: scale the sub-images to [0, 1] (chapter 06 does).")
    if high - low < 1e-6:
        raise InputError(f"{name} is constant ({low:.3g} everywhere): give sub-images with contrast.")
    return torch.from_numpy(stack)


def train(
    model,
    images,
    labels=None,
    *,
    epochs,
    batch=64,
    learning_rate=1e-3,
    pixels=None,
    seed=0,
    dtype=torch.float32,
    device="cpu",
):
    """Maximise the evidence lower bound (ELBO) by Adam with a one-cycle learning rate.

    Parameters
    ----------
    model : torch.nn.Module
        Has `terms(images, labels, noise, pixels)`: a dictionary of the mean reconstruction loss
        ('reconstruction') and KL terms of a batch, and `latents`.
    images : torch.Tensor, shape (n, side, side)
        Scaled to [0, 1]; see `checked_patches`.
    labels : torch.Tensor of int64, shape (n,), optional
    pixels : int, optional
        Decode only this many randomly drawn pixels a step, an unbiased estimate of the
        reconstruction term; None decodes all.
    dtype : torch.dtype
        Type in which the layers compute (torch.bfloat16 is faster where the hardware has it).

    Returns
    -------
    pandas.DataFrame
        One row an epoch: `epoch`, `elbo`, every term (mean per image) and `seconds`; empty for no epochs.

    Raises
    ------
    InputError
        The loss is not finite; training stops at that step.
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same noise
    model.to(device).train()
    images = images.to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(steps, 2))
    history = []
    for epoch in tqdm(range(1, epochs + 1), desc="epochs", mininterval=5):
        started, sums = time.perf_counter(), {}
        for rows in torch.randperm(len(images), generator=generator).split(batch):
            noise = torch.randn(len(rows), model.latents, generator=generator).to(device)
            drawn = _draw_pixels(images[0].numel(), pixels, generator)
            with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
                terms = model.terms(images[rows], None if labels is None else labels[rows].to(device), noise, drawn)
            loss = sum(terms.values())
            if not torch.isfinite(loss):
                raise InputError(
                    f"The loss is {loss.item()} at epoch {epoch}: lower learning_rate (it was {learning_rate:g}), "
                    "or check that the sub-images are scaled to [0, 1]."
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
        means = {name: value / len(images) for name, value in sums.items()}
        history.append(
            {"epoch": epoch, "elbo": -sum(means.values())} | means | {"seconds": time.perf_counter() - started}
        )
    model.eval()
    return pd.DataFrame(history)


def _draw_pixels(total, wanted, generator):
    """Indices of `wanted` of `total` pixels, or None for all."""
    if wanted is None or wanted >= total:
        return None
    return torch.randperm(total, generator=generator)[:wanted]
