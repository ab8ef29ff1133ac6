"""A compact network that reads tilts off a window, in coordinates that respect the mirror, with its own uncertainty.

Each member of an ensemble predicts v and the doubled coordinates (p, q) of (u, γ) (`tilt_coordinates.doubled`),
in which both mirror branches agree, how much tilts alternate along the beam, and a variance for each. The
ensemble's mean and variance are those of the mixture; (u, γ) follows by halving the angle, with γ ≥ 0.
Intervals are split-conformal: ± c(σ)·σ, with c the factor that made 90 % of calibration windows of about that σ, of
structures never trained on, fall inside, and as many of frozen-phonon images (`tilt_training.widening`).
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from unitcell.artefacts import load_weights, save_weights
from unitcell.crystals.tilt_coordinates import canonical, halved, length_of_doubled, to_pseudocubic
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.networks.equal_views import EqualLinear, EqualNorm, EqualShortcut, view_index, walsh_hadamard
from unitcell.networks.training_windows import WINDOW_SHAPE, standardise

ARCHITECTURE = "tilt-network-views-12out"
SCALE_DEG = 5.0  # of the network's outputs, which are of order one
# Character of each mean: which of the mirrors in x (1) and y (2) and the shift (4) turn its sign. v is turned by all,
# q = 2uγ by the mirrors, p and the alternation by none; (p, q) are there twice, see `supposed`.
CHARACTERS = (7, 0, 3, 0, 0, 3)
STANDS_OUT = 1.645  # standard deviations of an alternation from zero
A_PLACES = ([10, 30], [0, 14, 28, 42])  # rows and columns of a window at which A columns stand
BRIGHT = 0.5  # standard deviations above the mean at which they cannot be those of an ABF image
COORDINATES = ("v", "u", "gamma", "alpha", "beta", "alternation")


class TiltNetwork(nn.Module):
    """Shortcuts over layers that see the eight equal views of a window alike, a tanh layer, twelve outputs.

    Convolutions look for the same thing everywhere. But windows are registered: a pixel always shows the same place of
    the cell, give or take what registration leaves over, and a weight of its own for each says more for less work.
    What windows do have is the symmetry of `unitcell.networks.equal_views`, which is built in. Batch normalisation
    stands before each ReLU and the last hidden layer ends in tanh, as in Laanait 2019; the
    outputs are means and log-variances of v, of (p, q) if the pattern is uniform along the beam, of the alternation,
    softened, and of (p, q) if it alternates, each with the character by which the group changes its sign.

    Parameters
    ----------
    width : int
        Channels between which shortcuts run, each with a value for every view.
    inner : int
        Of the layer within each shortcut.
    blocks : int
        Number of shortcuts.
    hidden : int
        Channels of the tanh layer.
    """

    def __init__(self, width=256, inner=96, blocks=3, hidden=32):
        super().__init__()
        self.register_buffer("views", view_index(), persistent=False)
        self.features = nn.Sequential(
            EqualLinear(self.views.shape[1], width), *[EqualShortcut(width, inner) for _ in range(blocks)],
            EqualNorm(width), nn.ReLU(), EqualLinear(width, hidden), nn.Tanh(),
        )  # fmt: skip
        self.outputs = nn.Parameter((2 * torch.rand(12, hidden) - 1) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, windows):
        """Standardised windows (B, 40, 56) → features (B, hidden), mean (B, 6), log-variance (B, 6), both scaled."""
        left, right = windows.chunk(2, dim=-1)
        cells = (left + right).flatten(1) / 2  # (B, 1120), the mean of both cells
        views = self.features(cells[:, self.views].transpose(0, 1))  # (8, B, hidden)
        by_character = walsh_hadamard(views).to(self.outputs.dtype)
        characters = CHARACTERS + (0,) * len(CHARACTERS)
        outputs = torch.stack([by_character[c] @ w for c, w in zip(characters, self.outputs, strict=True)], dim=1)
        # What a mirror turns around has no bias.
        even = torch.tensor([character == 0 for character in characters], device=windows.device)
        mean, log_variance = (outputs + self.bias * even).chunk(2, dim=1)
        return by_character[0], mean, log_variance.clamp(-12, 6)


class TiltEnsemble:
    """Networks trained alike from different seeds, their calibration and their card.

    Parameters
    ----------
    members : list of TiltNetwork
    card : dict
        Microscope, crystal, training conditions, recipe and measured errors.
    calibration : dict of str to dict, optional
        Of each of `COORDINATES`: `spread_deg`, stated standard deviations in rising order [degrees], and `factor`, the
        conformal factor at each of them; 1.645 (a normal distribution's) everywhere if absent.
    familiarity : dict of str to tensor, optional
        What `ood` is measured by, learnt from training-like windows by `unitcell.networks.tilt_training.familiarise`.
    """

    def __init__(self, members, card, calibration=None, familiarity=None):
        self.members = [member.eval() for member in members]
        self.card = card
        self.calibration = {name: {"spread_deg": [1.0], "factor": [1.645]} for name in COORDINATES}
        self.calibration |= calibration or {}
        self.familiarity = familiarity

    @torch.inference_mode()
    def raw(self, windows, batch=512):
        """Hidden features (n, members · hidden), mean (n, 4) [°] and variance (n, 4) [°²] of the outputs."""
        parts = []
        for chunk in standardise(windows).split(batch):
            hidden, mean, log_variance = zip(*(member(chunk) for member in self.members), strict=True)
            mean, variance = torch.stack(mean), torch.stack(log_variance).exp()
            total = variance.mean(0) + mean.var(0, unbiased=False)
            parts.append((torch.cat(hidden, 1), mean.mean(0) * SCALE_DEG, total * SCALE_DEG**2))
        hidden, mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return hidden, *supposed(mean, variance)

    def predict(self, windows, seed=0):
        """Tilts with 90 % intervals for each window.

        Parameters
        ----------
        windows : ndarray (n, 40, 56)
            Raw intensities, in the frame of `unitcell.networks.training_windows`.
        seed : int
            Unused: the prediction is deterministic. Kept so that samplers can share the interface.

        Returns
        -------
        dict of ndarray (n,)
            `v_deg`, `u_deg`, `gamma_deg`, `alpha_deg`, `beta_deg` on the canonical branch (γ ≥ 0), read as if the
            pattern were uniform along the beam unless an alternation stands out; `alternation_deg`, the size of tilts
            about a and b that alternate along it; each with `_lo` and `_hi`; and `ood`: the share of training-like
            windows that are more ordinary than this one.

        Raises
        ------
        InputError
            Wrong shape, NaN, bright columns or no windows.
        """
        windows = _checked(windows)
        hidden, mean, variance = self.raw(windows)
        centre, spread = estimates(mean.double().numpy(), variance.double().numpy())
        table = {}
        for name in COORDINATES:
            reach = self.reach(name, spread[name])
            # On the canonical branch γ cannot be negative, nor can an alternation: nor can their intervals.
            least = 0.0 if name in ("gamma", "alternation") else -np.inf
            low = np.maximum(centre[name] - reach, least)
            table |= {f"{name}_deg": centre[name], f"{name}_deg_lo": low, f"{name}_deg_hi": centre[name] + reach}
        return table | {"ood": self.unfamiliarity(standardise(windows), hidden)}

    def reach(self, name, spread):
        """Half width of the 90 % intervals of a coordinate whose standard deviation is stated as `spread` [degrees]."""
        known = self.calibration[name]
        return spread * np.interp(np.log(spread), np.log(known["spread_deg"]), known["factor"])

    def unfamiliarity(self, windows, hidden):
        """Share of training-like windows that are more ordinary than these standardised windows: (n,) in [0, 1]."""
        if self.familiarity is None:
            return np.full(len(hidden), np.nan)
        rank = oddity(windows, hidden, self.familiarity)
        return ranks(rank, self.familiarity["oddity_quantiles"]).numpy()

    def save(self, path):
        """Write weights (of eight significant bits: 0.003° off, and a fifth smaller), calibration and card."""
        tensors = {
            f"member{i}.{name}": _rounded(value) if value.is_floating_point() else value
            for i, member in enumerate(self.members)
            for name, value in member.state_dict().items()
        }
        tensors |= {f"familiarity.{key}": value for key, value in (self.familiarity or {}).items()}
        save_weights(
            tensors, path, f"{ARCHITECTURE}-{len(self.members)}", self.card | {"calibration": self.calibration}
        )


def load_network(path=None):
    """Read an ensemble; None gives the committed one, verified. InputError for weights of another architecture."""
    path = Path(path) if path else fetch("tilt_network")
    tensors, card = load_weights(path, ARCHITECTURE)
    parts = {}
    for key, value in tensors.items():
        owner, _, name = key.partition(".")
        parts.setdefault(owner, {})[name] = value
    familiarity = parts.pop("familiarity", None)
    members = []
    for state in parts.values():
        member = TiltNetwork()
        member.load_state_dict(state)
        members.append(member)
    return TiltEnsemble(members, card, card.pop("calibration", None), familiarity)


def supposed(mean, variance):
    """Outputs (n, 4): v, p, q and the alternation, of (n, 6), with (p, q) by the pattern that the window shows.

    In projection, tilts about [110] that alternate along the beam look like ones that do not, unless γ tells them
    apart. So (p, q) are learnt twice, for patterns that are uniform along the beam and for alternating ones, and the
    second is taken where an alternation stands out.
    """
    alternates = (mean[:, 3] > STANDS_OUT * variance[:, 3].sqrt())[:, None]

    def chosen(each):
        return torch.cat([each[:, :1], torch.where(alternates, each[:, 4:], each[:, 1:3]), each[:, 3:4]], dim=1)

    return chosen(mean), chosen(variance)


def estimates(mean, variance):
    """Centre and standard deviation of every coordinate from those of the outputs, each (n, 4).

    The error of (u, γ) is that of its length, as a finite difference over ±σ: its derivative is infinite at zero. So is
    that of the alternation.
    """
    v, p, q, soft = mean.T
    u, gamma = halved(p, q)
    sigma_v = np.sqrt(variance[:, 0])
    sigma_w = _length_sigma(np.hypot(p, q), np.sqrt((variance[:, 1] + variance[:, 2]) / 2))
    sigma_ab = np.sqrt((sigma_v**2 + sigma_w**2) / 2)
    centre = {"v": v, "u": u, "gamma": gamma} | dict(zip(("alpha", "beta"), to_pseudocubic(v, u, gamma), strict=False))
    centre["alternation"] = length_of_doubled(np.maximum(soft, 0))
    sigma_s = _length_sigma(np.maximum(soft, 0), np.sqrt(variance[:, 3]))
    spread = {"v": sigma_v, "u": sigma_w, "gamma": sigma_w, "alpha": sigma_ab, "beta": sigma_ab, "alternation": sigma_s}
    return centre, spread


def doubled_sigma(size, sigma):
    """Standard deviation of doubled coordinates of some length from that of their tilt: what `estimates` made of it.

    size, sigma : ndarray (n,) [degrees], NaN where they are unknown.
    """
    steps = np.concatenate([np.geomspace(1e-3, 1, 40), np.arange(1.05, 40, 0.1)])
    of_steps = _length_sigma(np.nan_to_num(np.asarray(size, float))[:, None], steps)
    return np.array([np.interp(one, row, steps) for one, row in zip(sigma, of_steps, strict=True)])


def _length_sigma(size, sigma):
    """Standard deviation of `length_of_doubled(size)`, where `size` has `sigma`."""
    return (length_of_doubled(size + sigma) - length_of_doubled(np.maximum(size - sigma, 0))) / 2


def errors(centre, projection):
    """Prediction minus truth of every coordinate, on the branch of the truth that is nearer [degrees].

    Parameters
    ----------
    centre : dict of ndarray (n,)
        From `estimates`; coordinates that it lacks are left out.
    projection : ndarray (n, 3) or (n, 4)
        True (v, u, γ) and, zero if absent, alternation.
    """
    v, u, gamma, *rest = np.asarray(projection, dtype=float).T
    u, gamma = canonical(u, gamma)
    other = np.hypot(centre["u"] + u, centre["gamma"] + gamma) < np.hypot(centre["u"] - u, centre["gamma"] - gamma)
    u, gamma = np.where(other, -u, u), np.where(other, -gamma, gamma)
    alpha, beta, _ = to_pseudocubic(v, u, gamma)
    truth = {"v": v, "u": u, "gamma": gamma, "alpha": alpha, "beta": beta}
    truth["alternation"] = rest[0] if rest else np.zeros_like(v)
    return {name: centre[name] - truth[name] for name in COORDINATES if name in centre}


def mahalanobis(hidden, familiarity):
    """Mahalanobis distance of features (n, d) from the familiar ones."""
    away = hidden - familiarity["mean"]
    return ((away @ familiarity["precision"]) * away).sum(1).clamp_min(0).sqrt()


def unexplained(windows, familiarity):
    """Share of the variance of standardised windows outside the principal components of familiar ones: (n,)."""
    flat = windows.flatten(1)
    return 1 - (flat @ familiarity["components"]).pow(2).sum(1) / flat.pow(2).sum(1)


def ranks(values, quantiles):
    """Where values stand among those whose equally spaced quantiles are given: 0 below all, 1 above all."""
    steps = np.linspace(0, 1, len(quantiles))
    return torch.from_numpy(np.interp(values.numpy(), quantiles.numpy(), steps)).float()


def oddity(windows, hidden, familiarity):
    """The larger rank of two distances: of what the network makes of a window, and of the window itself.

    The network answers noise, and anything else it cannot read, alike and in the middle of its range: the first
    distance alone takes noise for ordinary.
    """
    of_features = ranks(mahalanobis(hidden, familiarity), familiarity["distance_quantiles"])
    of_window = ranks(unexplained(windows, familiarity), familiarity["unexplained_quantiles"])
    return torch.maximum(of_features, of_window)


def _rounded(weights, bits=8):
    """Weights of so many significant bits, in half precision; rounded bits compress to nothing."""
    mantissa, exponent = torch.frexp(weights.float())
    return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent).half()


def _checked(windows):
    """Windows as a float tensor, or InputError."""
    windows = np.asarray(windows, dtype=np.float32)
    if windows.ndim != 3 or windows.shape[1:] != WINDOW_SHAPE:
        raise InputError(
            f"Windows of shape {windows.shape} do not fit: the network takes (n, {WINDOW_SHAPE[0]}, {WINDOW_SHAPE[1]})."
        )
    if len(windows) == 0:
        raise InputError("There is no window to read tilts from: no B column has its neighbours within the image.")
    if not np.isfinite(windows).all():
        bad = (~np.isfinite(windows)).any((1, 2)).sum()
        raise InputError(f"{bad} of {len(windows)} windows hold NaN or infinity: leave them out.")
    windows = torch.from_numpy(windows)
    heavy = standardise(windows)[:, A_PLACES[0]][:, :, A_PLACES[1]].mean((1, 2)).median()
    if heavy > BRIGHT:
        raise InputError(
            f"A columns stand out bright from these windows (by {heavy:.1f} standard deviations): give an ABF image, "
            "in which columns are dark, or invert the contrast."
        )
    return windows
