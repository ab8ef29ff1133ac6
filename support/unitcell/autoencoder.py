"""What the variational autoencoders share: an encoder, the KL terms, input checks and one training loop."""

import math
import time
import warnings

import numpy as np
import pandas as pd
import torch
from torch import nn

from unitcell import training_loop
from unitcell.errors import InputError
from unitcell.training_loop import Training

GUIDES = ("search", "unsteadiness")  # terms that teach, but are no part of the bound


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
    """Return `patches` as a tensor of shape (n, side, side), or raise InputError.

    Bytes (0 to 255) stay bytes and a memory-mapped array stays on the disk: a batch is scaled when it is drawn.
    All else becomes float32.

    A mean-squared reconstruction term supposes intensities between 0 and 1: on unscaled counts the
    loss overflows.
    """
    stack = np.asarray(patches)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or len(stack) == 0:
        raise InputError(f"{name} has shape {stack.shape}: give a stack of square sub-images (atom, y, x).")
    if stack.dtype == np.uint8:
        low, high = stack.min() / 255, stack.max() / 255
    else:
        stack = np.ascontiguousarray(stack, dtype=np.float32)
        low, high = stack.min(), stack.max()  # NaN where any is
        if not np.isfinite([low, high]).all():
            wrong = np.count_nonzero(~np.isfinite(stack))
            raise InputError(f"{name} holds {wrong} values that are not finite: remove them.")
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(f"{name} runs from {low:.3g} to {high:.3g}: scale the sub-images to [0, 1] (chapter 06 does).")
    if high - low < 1e-6:
        raise InputError(f"{name} is constant ({low:.3g} everywhere): give sub-images with contrast.")
    with warnings.catch_warnings():  # a memory-mapped file is read only, and nothing here writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(stack)


class ElboTraining(Training):
    """Maximises the evidence lower bound by Adam with a one-cycle learning rate, an entry of the history an epoch.

    See `train` for the parameters. Order, noise and pixels of a step follow from the seed and the step alone, so a
    training goes on from its checkpoint as if it had never stopped.
    """

    def __init__(self, model, images, labels, *, epochs, batch, learning_rate, pixels, seed, dtype):
        self.images, self.labels, self.batch, self.pixels, self.dtype = images, labels, batch, pixels, dtype
        self.steps_an_epoch = -(-len(images) // batch)
        steps = epochs * self.steps_an_epoch
        what = {
            "model": model.architecture,
            "settings": getattr(model, "settings", {}),
            "images": [*images.shape, _fingerprint(images)],
            "batch": batch,
        }
        what |= {"pixels": pixels, "dtype": str(dtype)}
        super().__init__(
            model, None, None, lambda adam: torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, max(steps, 2)),
            what, steps=steps, learning_rate=learning_rate, seed=seed,
        )  # fmt: skip
        for group in self.optimiser.param_groups:
            group["fused"] = True  # one pass over the weights instead of a dozen
        self.order = None

    def advance(self):
        """One step; InputError where the loss is no number."""
        started = time.monotonic()
        images, labels = self._batch()
        self.generator.manual_seed((self.seed + 1) * 10_000_019 + self.step)
        device = images.device
        noise = torch.randn(len(images), self.network.latents, generator=self.generator, device=device)
        drawn = _draw_pixels(images[0].numel(), self.pixels, self.generator)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            terms = self.network.terms(images, labels, noise, drawn)
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            raise InputError(f"The loss is {loss.item()} at epoch {self._epoch() + 1}: {self._cause(images, terms)}.")
        self._descend(loss)
        self.recent.append({name: value.item() * len(images) for name, value in terms.items()})
        self.seconds += time.monotonic() - started
        if self.step % self.steps_an_epoch == 0:
            self._note()

    def _epoch(self):
        return self.step // self.steps_an_epoch

    def _batch(self):
        """The images and labels of this step, every image once an epoch."""
        turn = self.step % self.steps_an_epoch
        if turn == 0 or self.order is None:
            self.generator.manual_seed((self.seed + 1) * 10_000_019 - 1 - self._epoch())
            self.order = torch.randperm(len(self.images), generator=self.generator, device=self.generator.device)
        rows = self.order[turn * self.batch : (turn + 1) * self.batch]
        images = scaled(self.images[rows.to(self.images.device)].to(rows.device))
        return images, None if self.labels is None else self.labels[rows.to(self.labels.device)].to(rows.device)

    def _note(self):
        """An entry of the history: the mean of each term over the epoch."""
        means = {name: sum(terms[name] for terms in self.recent) / len(self.images) for name in self.recent[0]}
        elbo = -math.fsum(value for name, value in means.items() if name not in GUIDES)  # whatever their order
        before = sum(entry["seconds"] for entry in self.history)
        self.history.append({"epoch": self._epoch(), "elbo": elbo} | means | {"seconds": self.seconds - before})
        self.recent = []

    def _cause(self, images, terms):
        """Why the loss is no number, and the remedy."""
        if not torch.isfinite(images).all():
            return (
                f"{(~torch.isfinite(images)).flatten(1).any(1).sum()} of {len(images)} sub-images hold NaN; remove them"
            )
        first = next(name for name, value in terms.items() if not torch.isfinite(value))
        return (
            f"'{first}' overflowed; lower learning_rate (it was {self.learning_rate:g}), "
            "or check that the sub-images are scaled to [0, 1]"
        )


def _fingerprint(images):
    """A number that tells one stack from another, from a thousand of its images."""
    some = images[:: max(len(images) // 1000, 1)]
    return float(scaled(some).double().sum())


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
    checkpoint=None,
    every=500,
):
    """Maximise the evidence lower bound (ELBO) by Adam with a one-cycle learning rate.

    Parameters
    ----------
    model : torch.nn.Module
        Has `terms(images, labels, noise, pixels)`: a dictionary of the mean reconstruction loss
        ('reconstruction') and KL terms of a batch, `latents`, and `architecture`.
    images : torch.Tensor, shape (n, side, side)
        Scaled to [0, 1], or uint8; see `checked_patches`.
    labels : torch.Tensor of int64, shape (n,), optional
    pixels : int, optional
        Decode only this many randomly drawn pixels a step, an unbiased estimate of the
        reconstruction term; None decodes all.
    dtype : torch.dtype
        Type in which the layers compute (torch.bfloat16 is faster where the hardware has it).
    checkpoint : path, optional
        Kept every `every` steps, and gone on from when it is there: the same weights, bit for bit on a processor.
    every : int

    Returns
    -------
    pandas.DataFrame
        One row an epoch: `epoch`, `elbo`, every term (mean per image) and `seconds`; empty for no epochs.

    Raises
    ------
    InputError
        The loss is not finite; training stops at that step.
    """
    if labels is not None and len(labels) != len(images):
        raise InputError(f"{len(labels)} labels were given for {len(images)} sub-images: give one for each.")
    if images.shape[1:] != (model.side, model.side):
        raise InputError(
            f"The sub-images are {images.shape[2]} pixels wide and {images.shape[1]} high, but the model's are "
            f"{model.side} pixels wide: make the model for these."
        )
    if not (epochs >= 0 and batch > 0 and learning_rate > 0 and (pixels is None or pixels > 0)):
        raise InputError(
            f"epochs = {epochs}, batch = {batch}, learning_rate = {learning_rate:g}, pixels = {pixels}: "
            "all must be greater than zero."
        )
    training = ElboTraining(
        model.to(device), images, labels, epochs=epochs, batch=batch, learning_rate=learning_rate, pixels=pixels,
        seed=seed, dtype=dtype,
    )  # fmt: skip
    _, history = training_loop.train(training, checkpoint=checkpoint, every=every, label="steps")
    return pd.DataFrame(history, columns=list(history[-1]) if history else None)  # a checkpoint sorts the names


def scaled(images):
    """Images as float32 in [0, 1]: bytes are divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _draw_pixels(total, wanted, generator):
    """Indices of `wanted` of `total` pixels, or None for all."""
    if wanted is None or wanted >= total:
        return None
    return torch.randperm(total, generator=generator, device=generator.device)[:wanted]
