"""Figures of chapter 03: the contrast function, calibration, bounds, and the posterior of one window."""

import matplotlib.pyplot as plt
import numpy as np

from unitcell.book.figures import OKABE_ITO

LABELS = {"v": "v", "u": "u", "gamma": "γ"}


def contrast_figure(coarse, fine, label):
    """An intensity over (α, β) in simulated steps and between them; each is (tilts, tilts, map (α, β))."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    limits = {"vmin": fine[1].min(), "vmax": fine[1].max(), "cmap": "viridis"}
    for ax, (tilts, values), title in zip(axes, (coarse, fine), ("simulated", "Gaussian process"), strict=True):
        artist = ax.pcolormesh(tilts, tilts, values.T, shading="nearest", **limits)
        step = tilts[1] - tilts[0]
        ax.set(aspect="equal", xlabel="α [degrees]", title=f"{title}, steps of {step:g}°", xlim=(-12.5, 12.5))
    axes[0].set(ylabel="β [degrees]", ylim=(-12.5, 12.5))
    figure.colorbar(artist, ax=axes, label=label, shrink=0.85)
    return figure


def calibration_figure(error, sd):
    """Errors of structures left out, over what the process stated, by pixel: ndarrays (n, P) and (n,)."""
    score = np.sort((np.abs(error) / sd[:, None]).ravel())
    figure, ax = plt.subplots(figsize=(5, 2.8))
    ax.plot(score, np.linspace(0, 1, len(score)), color=OKABE_ITO[0], label="left out")
    normal = np.abs(np.random.default_rng(0).normal(size=20_000))
    ax.plot(np.sort(normal), np.linspace(0, 1, len(normal)), "--", color="black", label="normal distribution")
    ax.set(xlim=(0, 4), ylim=(0, 1), xlabel="|error| over stated sd", ylabel="share of pixels below")
    ax.legend(frameon=False)
    return figure


def bounds_figure(by_depth, by_dose):
    """Median Cramér–Rao bounds of v, u, γ: against thickness, others unknown and known, and against dose.

    Parameters
    ----------
    by_depth : dict of str to DataFrame
        Label → medians indexed by thickness [Å].
    by_dose : DataFrame
        Medians indexed by dose [e/Å²].
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for (label, table), line in zip(by_depth.items(), ("-", "--"), strict=True):
        for name, colour in zip(LABELS, OKABE_ITO, strict=False):
            axes[0].plot(table.index, table[name], line, color=colour, label=f"{LABELS[name]}, {label}")
    for name, colour in zip(LABELS, OKABE_ITO, strict=False):
        axes[1].plot(by_dose.index, by_dose[name], "o-", color=colour, label=LABELS[name])
    axes[0].set(xlabel="thickness [Å]", ylabel="least sd [degrees]", ylim=(0, None))
    axes[1].set(xlabel="dose [e/Å²]", xscale="log", yscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
    return figure


def modes_figure(draws, truth, answer):
    """Posterior draws of one window in two planes, the truth and what the network says.

    Parameters
    ----------
    draws : ndarray (n, 3)
        (v, u, γ) [degrees].
    truth : (float, float, float)
    answer : dict
        One row of the network's `predict`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
    for ax, (first, second) in zip(axes, ((1, 2), (0, 2)), strict=True):
        names = [list(LABELS)[i] for i in (first, second)]
        ax.plot(*draws[:, (first, second)].T, ".", ms=2, alpha=0.4, color=OKABE_ITO[0], label="posterior")
        ax.plot(truth[first], truth[second], "*", ms=13, color="black", label="truth")
        centre = [answer[f"{name}_deg"] for name in names]
        reach = [[c - answer[f"{n}_deg_lo"], answer[f"{n}_deg_hi"] - c] for c, n in zip(centre, names, strict=True)]
        style = {"fmt": "s", "color": OKABE_ITO[5], "capsize": 3, "label": "network, 90 %"}
        ax.errorbar(*centre, xerr=np.array(reach[0])[:, None], yerr=np.array(reach[1])[:, None], **style)
        ax.axhline(0, color="black", lw=0.6)
        ax.axvline(0, color="black", lw=0.6)
        ax.set(xlabel=f"{LABELS[names[0]]} [degrees]", ylabel=f"{LABELS[names[1]]} [degrees]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=3, frameon=False)
    return figure
