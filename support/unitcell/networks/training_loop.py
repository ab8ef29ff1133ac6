"""Training that survives: exact resume, a stop at the first loss that is no number, one seed for the whole run."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from unitcell.artefacts import load_weights, save_weights
from unitcell.errors import InputError

CHECKPOINT = "half-trained"
ENTRIES = 50  # of the history


class Training:
    """The training of one network by Adam, on batches drawn as it goes; `save` and `restore` go on exactly.

    Under `torchrun` every process draws its own batches and the gradients are averaged.

    Parameters
    ----------
    network : torch.nn.Module
        From one tensor to outputs.
    draw : function (step, generator) → (inputs, targets)
        The generator is seeded anew for each step, so nothing but the step needs to be remembered.
    loss : function (outputs, targets, rate) → tensor
        `rate` is the learning rate, relative to `learning_rate`.
    schedule : function of an optimiser → torch.optim.lr_scheduler.LRScheduler
    what : dict
        JSON description of the training; only a checkpoint of the same one is restored.
    steps : int
    learning_rate : float
    regularisation : float
        ε of an added ε·Σ‖W‖² over weights, not over biases and normalisations.
    bfloat16 : bool
    seed : int
    validate : function of a network → dict, optional
        Numbers for each entry of the history.
    """

    def __init__(
        self, network, draw, loss, schedule, what, *, steps, learning_rate, regularisation=0.0, bfloat16=False, seed=0,
        validate=None,
    ):  # fmt: skip
        self.network, self.draw, self.loss, self.steps = network, draw, loss, steps
        self.learning_rate, self.bfloat16, self.seed, self.validate = learning_rate, bfloat16, seed, validate
        self.ranks, self.rank = processes(), distributed.get_rank() if processes() > 1 else 0
        self.parallel = DistributedDataParallel(network) if self.ranks > 1 else network
        weights = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        # Adam adds weight_decay·W to the gradient: that of ε‖W‖² is 2εW.
        groups = [{"params": weights, "weight_decay": 2 * regularisation}, {"params": others}]
        self.optimiser = torch.optim.Adam(groups, lr=learning_rate, fused=True)
        self.schedule = schedule(self.optimiser)
        self.generator = torch.Generator(device=next(network.parameters()).device)
        self.step, self.seconds, self.history, self.recent = 0, 0.0, [], []
        self.what = json.loads(json.dumps(what | {"steps": steps, "learning_rate": learning_rate, "seed": seed}))

    def advance(self):
        """One step on a new batch; InputError where the loss is NaN or infinite."""
        started = time.monotonic()
        self.generator.manual_seed(((self.seed + 1) * 10_000_019 + self.step) * self.ranks + self.rank)
        inputs, targets = self.draw(self.step, self.generator)
        rate = self.optimiser.param_groups[0]["lr"] / self.learning_rate
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs = self.parallel(inputs)
        loss = self.loss(outputs, targets, rate)
        if not torch.isfinite(loss):
            raise InputError(f"The loss became {loss.item()} at step {self.step}: {self._cause(inputs, targets)}.")
        self._descend(loss)
        self.recent.append(loss.item())
        self.seconds += time.monotonic() - started
        if self.step % max(self.steps // ENTRIES, 1) == 0:
            self._note(len(inputs) * self.ranks, rate)

    def _descend(self, loss):
        """One step of the optimiser and of the learning rate, down the gradient of `loss`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.step += 1

    def _note(self, batch, rate):
        """An entry of the history."""
        entry = {"windows": self.step * batch, "loss": float(np.mean(self.recent)), "seconds": self.seconds}
        entry |= {"learning_rate": rate * self.learning_rate, "windows_per_s": self.step * batch / self.seconds}
        if self.validate:
            entry |= self.validate(self.network.eval())
            self.network.train()
        self.history.append(entry)
        self.recent = []

    def _cause(self, inputs, targets):
        """Why the loss is no number, and the remedy."""
        if not torch.isfinite(inputs).all():
            return f"{(~torch.isfinite(inputs)).flatten(1).any(1).sum()} of {len(inputs)} windows hold NaN; check them"
        if not torch.isfinite(targets).all():
            return "a target is NaN; check the tilts"
        return f"the weights ran away; lower learning_rate = {self.learning_rate:g}"

    def save(self, path):
        """Write network, optimiser, schedule and history as safetensors; under `torchrun` the first process does."""
        if self.rank:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        adam = self.optimiser.state_dict()
        for index, moments in adam["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        card = {"what": self.what, "groups": adam["param_groups"], "schedule": self.schedule.state_dict()}
        card |= {name: getattr(self, name) for name in ("step", "seconds", "history", "recent")}
        save_weights(tensors, path, CHECKPOINT, card)

    def restore(self, path):
        """Go back to where `save` was called, if that was the same training; whether it was."""
        tensors, card = load_weights(path, CHECKPOINT)
        if card["what"] != self.what:
            return False
        parts = {name: value for name, value in tensors.items() if name.startswith("network.")}
        self.network.load_state_dict({name.removeprefix("network."): value for name, value in parts.items()})
        moments = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        groups = [group | {"betas": tuple(group["betas"])} for group in card["groups"]]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.schedule.load_state_dict(card["schedule"])
        for name in ("step", "seconds", "history", "recent"):
            setattr(self, name, card[name])
        return True


def processes():
    """Processes that train together under `torchrun`; 1 without."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def train(training, *, checkpoint=None, every=500, label="network", progress=True):
    """Carry a training to its end.

    Parameters
    ----------
    training : Training
    checkpoint : path, optional
        Kept every `every` steps, and gone on from when it is there: the same network, bit for bit on a processor.
    every : int
    label : str
        Of the progress bar, which shows windows a second and the time left.
    progress : bool

    Returns
    -------
    network, in evaluation mode, and history : list of dict
        About fifty entries: windows, loss, seconds, learning_rate, windows_per_s, and what `validate` gave.
    """
    if checkpoint and Path(checkpoint).is_file():
        training.restore(checkpoint)
    training.network.train()
    bar = {"unit": "step", "mininterval": 5, "disable": not progress or training.rank > 0}
    for _ in tqdm(range(training.step, training.steps), label, initial=training.step, total=training.steps, **bar):
        training.advance()
        if checkpoint and training.step % every == 0:
            training.save(checkpoint)
    return training.network.eval(), training.history
