"""Training, calibration and honest testing of the tilt network."""

from copy import copy

import numpy as np
import torch
from torch import distributed

from unitcell.crystals.tilt_coordinates import doubled, softened, to_projection
from unitcell.networks.tilt_network import (
    COORDINATES,
    SCALE_DEG,
    TiltEnsemble,
    TiltNetwork,
    errors,
    estimates,
    mahalanobis,
    oddity,
    unexplained,
)
from unitcell.networks.training_loop import Training, processes, train
from unitcell.networks.training_windows import WindowPool, draw_windows, record, standardise

GROUPS = 8  # of windows by their stated standard deviation, each with a conformal factor of its own
LEAST_IN_GROUP = 400  # windows


def train_member(
    source, conditions, *, windows, batch=128, shown=1, learning_rate=2e-3, bfloat16=False, seed=0, network=None,
    checkpoint=None, every=500, progress=True,
):  # fmt: skip
    """Train one network on windows drawn as it goes.

    Parameters
    ----------
    source : unitcell.surrogates.surrogate.Surrogate or unitcell.networks.training_library.SimulatedCells
    conditions : unitcell.networks.training_windows.Conditions
        Approached from easier ones, see `Conditions.eased`.
    windows : int
        Number of windows to train on.
    batch : int
    shown : int
        How often each is shown, at another dose and with other noise; by default none is seen twice.
    learning_rate : float
        Peak of a one-cycle schedule for Adam.
    bfloat16 : bool
        Multiply in bfloat16: twice as fast on processors that have it, slower on others.
    seed : int
    network : torch.nn.Module, optional
        To go on from, or of another architecture with the same outputs; a new `TiltNetwork` by default.
    checkpoint : path, optional
        Kept every `every` steps, and gone on from when it is there: the same network, bit for bit on a processor.
    every : int

    Returns
    -------
    network : TiltNetwork
    history : list of dict
        See `unitcell.networks.training_loop.train`.

    Raises
    ------
    InputError
        The loss became NaN or infinite.
    """
    training = member_training(
        source, conditions, windows=windows, batch=batch, shown=shown, learning_rate=learning_rate, bfloat16=bfloat16,
        seed=seed, network=network,
    )  # fmt: skip
    return train(training, checkpoint=checkpoint, every=every, label=f"member {seed}", progress=progress)


def member_training(
    source, conditions, *, windows, batch, learning_rate, bfloat16, seed, shown=1, network=None, wanted=None
):
    """The `Training` of one network of the ensemble, see `train_member`; `wanted` are its targets if not `targets`."""
    torch.manual_seed(seed)
    network, wanted = network or TiltNetwork(), wanted or targets
    network = network.to(source.device).to(memory_format=torch.channels_last)
    steps = max(windows // batch, 2)

    rank = distributed.get_rank() if processes() > 1 else 0
    order = {"seed": seed * processes() + rank, "shown": shown}
    pool = WindowPool(source, batch, lambda step: conditions.eased(step / steps), **order)

    def draw(step, generator):
        windows, projection = pool.draw(step, generator)
        return windows, wanted(projection)

    def loss(outputs, target, rate):
        _, mean, log_variance = outputs
        return beta_nll(mean.float(), log_variance.float(), target, taught(target))

    def one_cycle(optimiser):
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.2)

    what = {
        "batch": batch,
        "shown": shown,
        "bfloat16": bfloat16,
        "conditions": conditions.as_dict(),
        "settings": source.settings,
    }
    options = {"steps": steps, "learning_rate": learning_rate, "bfloat16": bfloat16, "seed": seed}
    return Training(network, draw, loss, one_cycle, what, **options)


def targets(projection):
    """(v, u, γ) or (v, u, γ, alternation) [degrees], shape (B, 3 or 4) → scaled means (B, 6) of the network."""
    v, u, gamma, *rest = projection.unbind(1)
    alternation, pair = rest[0] if rest else torch.zeros_like(v), doubled(u, gamma)
    return torch.stack([v, *pair, softened(alternation), *pair], dim=1) / SCALE_DEG


def taught(target):
    """Which targets (B, 6) are taught: the first (p, q) where tilts are uniform along the beam, the second elsewhere.

    Of a source in which nothing alternates both are taught: an answer taken for alternating by chance is right as well.
    See `unitcell.networks.tilt_network.supposed`.
    """
    uniform = (target[:, 3:4] == 0).to(target.dtype)
    always, pair = torch.ones_like(uniform), uniform.expand(-1, 2)
    other = pair if uniform.all() else 1 - pair
    return torch.cat([always, pair, always, other], dim=1)


def beta_nll(mean, log_variance, target, weight, beta=0.5):
    """Normal negative log-likelihood, weighted by variance^β so that hard windows still teach (Seitzer 2022)."""
    likelihood = 0.5 * (log_variance + (target - mean) ** 2 * torch.exp(-log_variance))
    return (weight * likelihood * torch.exp(beta * log_variance).detach()).sum() / weight.sum()


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
    """Set the conformal factors so that intervals cover `coverage` of these windows, sure ones and unsure ones alike.

    Windows are grouped by the standard deviation that is stated for them. In a group of n the factor is the
    ⌈(n + 1)·coverage⌉-th smallest of |error| / σ (Lei et al. 2018; by groups, Vovk et al. 2003), and between the
    medians of groups it is interpolated. No group gets less than the factor of all windows together: the surest ones
    are those that an image which is not quite like the simulated ones betrays first.
    """
    _, mean, variance = ensemble.raw(windows)
    centre, spread = estimates(mean.double().numpy(), variance.double().numpy())
    wrong = errors(centre, projection)
    for name in COORDINATES:
        here = judged(name, projection)
        order = np.argsort(spread[name][here])
        ratio = (np.abs(wrong[name]) / spread[name])[here][order]
        least = _conformal(ratio, coverage)
        groups = min(GROUPS, max(1, len(ratio) // LEAST_IN_GROUP))
        ensemble.calibration[name] = {
            "spread_deg": [float(np.median(part)) for part in np.array_split(spread[name][here][order], groups)],
            "factor": [max(least, _conformal(part, coverage)) for part in np.array_split(ratio, groups)],
        }
    return ensemble.calibration


def widening(ensemble, windows, projection):
    """By how much intervals must grow to hold the truth of other windows as often, given their stated σ.

    Calibration images are what a network was trained on: random crystals on average. Windows of frozen phonons say
    what it costs that a crystal is one of them.

    Returns
    -------
    dict of str to dict
        Of each coordinate `spread_deg`, stated standard deviations in rising order [degrees], and `ratio`, ≥ 1 at each.
    """
    other = copy(ensemble)
    other.calibration = dict(ensemble.calibration)
    found = {}
    for name, wanted in calibrate(other, windows, projection).items():
        known = _factor(ensemble.calibration[name], wanted["spread_deg"])
        ratio = np.maximum(wanted["factor"], known) / np.maximum(known, np.finfo(float).tiny)
        found[name] = {"spread_deg": wanted["spread_deg"], "ratio": np.maximum(ratio, 1.0).tolist()}
    return found


def widen(ensemble, ratios):
    """Multiply the conformal factors of an ensemble, in place, by `ratios` of `widening`, interpolated over log σ."""
    for name, known in ensemble.calibration.items():
        nodes = sorted({*known["spread_deg"], *ratios[name]["spread_deg"]})
        grown = np.interp(np.log(nodes), np.log(ratios[name]["spread_deg"]), ratios[name]["ratio"])
        ensemble.calibration[name] = {"spread_deg": nodes, "factor": (_factor(known, nodes) * grown).tolist()}


def _factor(known, spread_deg):
    """Conformal factor of a coordinate at stated standard deviations."""
    return np.interp(np.log(spread_deg), np.log(known["spread_deg"]), known["factor"])


def _conformal(ratio, coverage):
    """The ⌈(n + 1)·coverage⌉-th smallest of n ratios."""
    rank = min(int(np.ceil((len(ratio) + 1) * coverage)), len(ratio)) - 1
    return float(np.sort(ratio)[rank])


def judged(name, projection):
    """Windows on which a coordinate is judged: for all but v and the alternation, where nothing alternates."""
    projection = np.asarray(projection)
    uniform = projection[:, 3] == 0 if projection.shape[1] > 3 else np.ones(len(projection), bool)
    return uniform if name not in ("v", "alternation") and uniform.any() else np.ones(len(projection), bool)


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
    """Root-mean-square error [degrees] and coverage of the 90 % intervals of every coordinate, as a dictionary.

    u, γ, α and β are judged where nothing alternates along the beam, or everywhere if all windows alternate.
    """
    _, mean, variance = ensemble.raw(windows)
    centre, spread = estimates(mean.double().numpy(), variance.double().numpy())
    wrong = errors(centre, projection)
    result = {}
    for name in COORDINATES:
        here = judged(name, projection)
        result[f"rms_{name}_deg"] = float(np.sqrt(np.mean(wrong[name][here] ** 2)))
        inside = np.abs(wrong[name]) <= ensemble.reach(name, spread[name])
        result[f"coverage_{name}"] = float(inside[here].mean())
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
