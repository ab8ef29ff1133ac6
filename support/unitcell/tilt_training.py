"""Training, calibration and honest testing of the tilt network."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from unitcell.artefacts import load_weights, save_weights
from unitcell.errors import InputError
from unitcell.tilt_network import (
    COORDINATES,
    SCALES,
    TiltEnsemble,
    TiltNetwork,
    errors,
    estimates,
    mahalanobis,
    oddity,
    unexplained,
)
from unitcell.tilts import doubled, to_projection
from unitcell.training_windows import draw_windows, record, standardise

CHECKPOINT = "tilt-training"


class MemberTraining:
    """The training of one network, step by step; `save` and `restore` make a stopped one go on exactly.

    Parameters
    ----------
    source, conditions, windows, batch, learning_rate, bfloat16, seed
        See `train_member`.
    """

    def __init__(self, source, conditions, windows, batch, learning_rate, bfloat16, seed):
        torch.manual_seed(seed)
        self.source, self.conditions, self.batch, self.bfloat16 = source, conditions, batch, bfloat16
        self.generator = torch.Generator(device=source.device).manual_seed(seed)
        self.network = TiltNetwork().to(source.device).train().to(memory_format=torch.channels_last)
        self.steps, self.rate = max(windows // batch, 2), learning_rate
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, learning_rate, total_steps=self.steps, pct_start=0.2
        )
        self.step, self.seconds, self.history, self.recent = 0, 0.0, [], []
        self.what = {
            "windows": windows, "batch": batch, "learning_rate": learning_rate, "bfloat16": bfloat16, "seed": seed,
            "conditions": conditions.as_dict(), "settings": source.settings,
        }  # fmt: skip

    def advance(self):
        """One step of Adam on new windows; InputError where the loss is NaN or infinite."""
        started = time.monotonic()
        images, projection, _ = draw_windows(self.source, self.batch, self.conditions, self.generator)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            _, mean, log_variance = self.network(images)
        loss = beta_nll(mean.float(), log_variance.float(), targets(projection))
        if not torch.isfinite(loss):
            raise InputError(f"The loss became {loss.item()} at step {self.step}: lower learning_rate = {self.rate:g}.")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        self.recent.append(loss.item())
        self.seconds += time.monotonic() - started
        if self.step % max(self.steps // 50, 1) == 0:
            entry = {"windows": self.step * self.batch, "loss": float(np.mean(self.recent)), "seconds": self.seconds}
            self.history.append(entry)
            self.recent = []

    def save(self, path):
        """Write everything that the next step depends on."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        adam = self.optimiser.state_dict()
        for index, moments in adam["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        tensors["generator"] = self.generator.get_state()
        card = {"what": self.what, "groups": adam["param_groups"], "schedule": self.schedule.state_dict()}
        card |= {name: getattr(self, name) for name in ("step", "seconds", "history", "recent")}
        save_weights(tensors, path, CHECKPOINT, card)

    def restore(self, path):
        """Go back to where `save` was called, if that was the same training; whether it was."""
        tensors, card = load_weights(path, CHECKPOINT)
        if card["what"] != json.loads(json.dumps(self.what)):
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
        self.generator.set_state(tensors["generator"])
        for name in ("step", "seconds", "history", "recent"):
            setattr(self, name, card[name])
        return True


def train_member(
    source, conditions, *, windows, batch=64, learning_rate=2e-3, bfloat16=False, seed=0, checkpoint=None, every=500,
    progress=True,
):  # fmt: skip
    """Train one network on windows drawn as it goes; none is seen twice.

    Parameters
    ----------
    source : unitcell.surrogate.Surrogate or unitcell.training_library.SimulatedCells
    conditions : unitcell.training_windows.Conditions
    windows : int
        Number of windows to train on.
    batch : int
    learning_rate : float
        Peak of a one-cycle schedule for Adam.
    bfloat16 : bool
        Convolve in bfloat16: twice as fast on processors that have it, slower on others.
    seed : int
    checkpoint : path, optional
        Kept every `every` steps, and gone on from when it is there: the same network, bit for bit on a processor.
    every : int

    Returns
    -------
    network : TiltNetwork
    history : list of dict
        `windows`, `loss` and `seconds`, about fifty entries.

    Raises
    ------
    InputError
        The loss became NaN or infinite.
    """
    training = MemberTraining(source, conditions, windows, batch, learning_rate, bfloat16, seed)
    if checkpoint and Path(checkpoint).is_file():
        training.restore(checkpoint)
    bar = {"unit": "window", "unit_scale": batch, "mininterval": 5, "disable": not progress}
    for _ in tqdm(range(training.step, training.steps), desc=f"member {seed}", **bar):
        training.advance()
        if checkpoint and training.step % every == 0:
            training.save(checkpoint)
    return training.network.eval(), training.history


def targets(projection):
    """(v, u, γ) [degrees], shape (B, 3) → scaled (v, p, q), see `unitcell.tilts.doubled`."""
    v, u, gamma = projection.unbind(1)
    return torch.stack([v, *doubled(u, gamma)], dim=1) / torch.tensor(SCALES, device=projection.device)


def beta_nll(mean, log_variance, target, beta=0.5):
    """Normal negative log-likelihood, weighted by variance^β so that hard windows still teach (Seitzer 2022)."""
    likelihood = 0.5 * (log_variance + (target - mean) ** 2 * torch.exp(-log_variance))
    return (likelihood * torch.exp(beta * log_variance).detach()).mean()


def unseen_windows(stack, conditions, generator, repeats=1):
    """Noisy windows of directly simulated structures: `repeats` of each structure and thickness of a stack.

    Returns
    -------
    windows : tensor (n, 40, 56)
    projection : ndarray (n, 3), true (v, u, γ) [degrees]
    """
    images = torch.as_tensor(stack["abf"].values).flatten(0, 1).repeat(repeats, 1, 1)
    true = np.stack(to_projection(*(stack[name].values for name in ("alpha", "beta", "gamma"))), axis=-1)
    true = np.tile(np.repeat(true, stack.sizes["thickness"], axis=0), (repeats, 1))
    return record(images, stack.attrs["lattice_A"], conditions, generator), true


def calibrate(ensemble, windows, projection, coverage=0.9):
    """Set the conformal factors so that intervals cover `coverage` of these windows (Lei et al. 2018).

    The factor is the ⌈(n + 1)·coverage⌉-th smallest of |error| / σ.
    """
    _, mean, variance = ensemble.raw(windows)
    centre, spread = estimates(mean.double().numpy(), variance.double().numpy())
    wrong = errors(centre, projection)
    rank = min(int(np.ceil((len(projection) + 1) * coverage)), len(projection)) - 1
    ensemble.calibration = {name: float(np.sort(np.abs(wrong[name]) / spread[name])[rank]) for name in COORDINATES}
    return ensemble.calibration


def familiarise(ensemble, windows, components=32):
    """Learn what ordinary windows look like, and what the ensemble makes of them, so that others stand out.

    One half of the windows gives the means and components, the other half the quantiles.
    """
    hidden, _, _ = ensemble.raw(windows)
    windows = standardise(windows)
    half = len(windows) // 2
    flat, centred = windows[:half].flatten(1), hidden[:half] - hidden[:half].mean(0)
    covariance = centred.T @ centred / half
    ridge = 1e-2 * covariance.diagonal().mean() * torch.eye(len(covariance))
    _, axes = torch.linalg.eigh(flat.T @ flat)
    known = {
        "mean": hidden[:half].mean(0),
        "precision": torch.linalg.inv(covariance + ridge),
        "components": axes[:, -components:],  # (pixels, components), those of most variance
    }
    known["distance_quantiles"] = _quantiles(mahalanobis(hidden[half:], known))
    known["unexplained_quantiles"] = _quantiles(unexplained(windows[half:], known))
    known["oddity_quantiles"] = _quantiles(oddity(windows[half:], hidden[half:], known))
    ensemble.familiarity = known


def _quantiles(values):
    return torch.quantile(values, torch.linspace(0, 1, 201))


def score(ensemble, windows, projection):
    """Root-mean-square error [degrees] and coverage of the 90 % intervals of every coordinate, as a dictionary."""
    _, mean, variance = ensemble.raw(windows)
    centre, spread = estimates(mean.double().numpy(), variance.double().numpy())
    wrong = errors(centre, projection)
    result = {}
    for name in COORDINATES:
        result[f"rms_{name}_deg"] = float(np.sqrt(np.mean(wrong[name] ** 2)))
        inside = np.abs(wrong[name]) <= ensemble.calibration[name] * spread[name]
        result[f"coverage_{name}"] = float(inside.mean())
    return result


def train_ensemble(source, conditions, *, members, windows, seed=0, **recipe):
    """Train `members` networks from consecutive seeds (`recipe`: see `train_member`).

    Returns the ensemble, not yet calibrated, and the histories of all members as one list.
    """
    trained = [train_member(source, conditions, windows=windows, seed=seed + i, **recipe) for i in range(members)]
    histories = [dict(row, member=i) for i, (_, history) in enumerate(trained) for row in history]
    card = source.settings | {
        "conditions": conditions.as_dict(),
        "windows": windows,
        "members": members,
        "seed": seed,
    }
    ensemble = TiltEnsemble([network for network, _ in trained], card)
    generator = torch.Generator(device=source.device).manual_seed(seed + 10_000)
    familiarise(ensemble, draw_windows(source, min(windows, 4000), conditions, generator)[0])
    return ensemble, histories


def predict_errors(ensemble, windows, projection):
    """Centres of every coordinate, and prediction minus truth on the nearer branch: two dictionaries [degrees]."""
    _, mean, variance = ensemble.raw(windows)
    centre, _ = estimates(mean.double().numpy(), variance.double().numpy())
    return centre, errors(centre, projection)
