"""Figures of chapter 04: what the paper's network is shown, learns and looks at, and how well ours reads."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from unitcell.book.figures import OKABE_ITO, draw_image
from unitcell.networks.paper_network import activation_map, edge_share
from unitcell.networks.paper_training import AUGMENTATION, STILL, paper_windows

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "v": "v", "u": "u"}
A_ROWS, B_ROWS = (0.25, 0.75), (0.5,)  # of a window's height: A columns with apical O, B columns with equatorial O


def augmentation_figure(surrogate, recipe, states, seed=0):
    """Figures 2A and 2B: two states as they are, then one of them through each change and through all.

    Parameters
    ----------
    surrogate, recipe
        See `paper_training`.
    states : tensor (2, 3)
        (v, u, γ) [degrees].
    """
    steps = {
        "affine": replace(STILL, shear=0.06, rotation_deg=4.0),
        "magnified by up to 5 %": replace(STILL, magnification=0.05),
        "cropped elsewhere": replace(STILL, crop_A=AUGMENTATION.crop_A),
        "counted": replace(STILL, dose=(3e4, 3e4)),
        "all of them": replace(AUGMENTATION, dose=(3e4, 3e4)),
    }
    plain = paper_windows(surrogate, states, recipe)
    titles = [f"({v:.0f}, {u:.0f}, {g:.0f})°" for v, u, g in states.tolist()]
    shown = dict(zip(titles, plain, strict=True))
    for name, conditions in steps.items():
        generator = torch.Generator().manual_seed(seed)
        shown[name] = paper_windows(surrogate, states[:1], recipe, conditions, generator)[0]
    figure, axes = plt.subplots(2, 4, figsize=(8, 3.4))
    pixel_A = 2 * surrogate.settings["lattice_A"] / recipe.shape[0]
    axes.flat[-1].set_axis_off()
    for ax, (title, window) in zip(axes.flat, shown.items(), strict=False):
        draw_image(ax, window, pixel_A, title=title, bar_A=4)
    return figure


def epoch_figure(history, images):
    """Figure 2C: rms error of each angle over epochs of `images`, as answered and on the nearer branch."""
    epochs = [entry["windows"] / images for entry in history]
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), sharey=True)
    for ax, kind, names in zip(axes, ("rms", "folded"), (("alpha", "beta", "gamma"), ("v", "u", "gamma")), strict=True):
        for colour, name in zip(OKABE_ITO, names, strict=False):
            ax.plot(epochs, [entry[f"{kind}_{name}_deg"] for entry in history], color=colour, label=GREEK[name])
        ax.legend(frameon=False, ncol=3)
        ax.set(xlabel="epochs", ylim=(0, None))
    axes[0].set(ylabel="rms error [degrees]", title="α, β, γ with their signs")
    axes[1].set(title="v, u, γ on the nearer branch")
    return figure


def cause_figure(found, truth):
    """Why errors of α and β go together: one over the other, and what is answered for u.

    Parameters
    ----------
    found, truth : ndarray (n, 3)
        α, β, γ [degrees].
    """
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.1))
    wrong = found - truth
    axes[0].plot(wrong[:, 0], wrong[:, 1], ".", ms=2, color=OKABE_ITO[0])
    axes[0].set(xlabel="error of α [degrees]", ylabel="error of β [degrees]", aspect="equal")
    for name, sign, colour in (("u", 1, OKABE_ITO[1]), ("v", -1, OKABE_ITO[0])):
        told, answered = ((x[:, 0] + sign * x[:, 1]) / np.sqrt(2) for x in (truth, found))
        axes[1].plot(told, answered, ".", ms=2, color=colour, label=name)
    axes[1].axline((0, 0), slope=1, color="black", lw=0.8)
    axes[1].set(xlabel="true tilt [degrees]", ylabel="answer [degrees]", aspect="equal")
    axes[1].legend(frameon=False, markerscale=5)
    return figure


def row_profiles(image):
    """Mean of an image of a window over the A rows and over the B row, a tenth of a repeat high: two ndarrays."""
    half = max(1, round(0.025 * len(image)))

    def along(places):
        rows = [slice(round(place * len(image)) - half, round(place * len(image)) + half + 1) for place in places]
        return np.mean([image[row].mean(0) for row in rows], axis=0)

    return along(A_ROWS), along(B_ROWS)


def attention(activation):
    """Peak-to-peak of the activation along the A rows and along the B row."""
    return tuple(float(np.ptp(profile)) for profile in row_profiles(activation))


def activation_figure(network, window, pixel_A):
    """Figure 3: a window, the activation it causes, and both along the A rows and along the B row.

    Returns
    -------
    figure, activation : ndarray
    """
    activation = activation_map(network, window)
    figure, axes = plt.subplots(2, 2, figsize=(7.5, 4.4))
    zoom = len(activation) / len(window)
    draw_image(axes[0, 0], window, pixel_A, title="A  simulated window", bar_A=4)
    draw_image(axes[0, 1], activation, pixel_A / zoom, title="B  activation", bar_A=4, cmap="viridis")
    for ax, image in zip(axes[1], (window.numpy(), activation), strict=True):
        x = np.arange(image.shape[1]) * pixel_A * window.shape[1] / image.shape[1]
        for profile, label, colour in zip(
            row_profiles(image), ("A columns", "B and O columns"), OKABE_ITO, strict=False
        ):
            ax.plot(x, profile, color=colour, label=label)
        ax.set(xlabel="along [110] [Å]")
    axes[1, 0].set(ylabel="intensity [sd]")
    axes[1, 1].set(ylabel="activation")
    axes[1, 0].legend(frameon=False, fontsize=8)
    return figure, activation


def kernel_figure(network):
    """Figure S3: the kernels of the first layer, and how much of each a gradient explains.

    Returns
    -------
    figure, share : float
        Share of edge filters, see `unitcell.networks.paper_network.edge_share`.
    """
    kernels = network.features[1].weight[:, 0].detach().float().cpu().numpy()
    share, explained = edge_share(kernels)
    figure, axes = plt.subplots(1, len(kernels), figsize=(10, 1.5))
    bound = np.abs(kernels).max()
    for ax, kernel, part in zip(axes, kernels, explained, strict=True):
        draw_image(ax, kernel, None, title=f"{part:.2f}", cmap="RdBu_r", vmin=-bound, vmax=bound)
    return figure, share


def truth_figure(centre, wrong, limit=17):
    """Predicted over true v, u and γ; `centre` and `wrong` are dictionaries of ndarrays [degrees]."""
    figure, axes = plt.subplots(1, 3, figsize=(8, 2.9))
    for ax, name in zip(axes, ("v", "u", "gamma"), strict=True):
        rms = np.sqrt(np.mean(wrong[name] ** 2))
        ax.plot(centre[name] - wrong[name], centre[name], ".", ms=2, color=OKABE_ITO[0], alpha=0.5)
        ax.axline((0, 0), slope=1, color="black", lw=0.8)
        ax.set(xlabel=f"true {GREEK[name]} [degrees]", ylabel=f"predicted {GREEK[name]} [degrees]", aspect="equal")
        ax.set(title=f"rms {rms:.2f}°", xlim=(-limit, limit), ylim=(-limit, limit))
    return figure


def dose_plot(table):
    """Rms errors of v, u, γ over dose, as an interactive plot; needs `hvplot.pandas` imported.

    Parameters
    ----------
    table : pandas.DataFrame
        dose [e/Å²], and v, u, gamma [degrees].
    """
    style = {"x": "dose", "y": ["v", "u", "γ"], "logx": True, "logy": True, "color": list(OKABE_ITO[:3])}
    style |= {"xlabel": "dose [e/Å²]", "ylabel": "rms error [degrees]"}
    style["xlim"] = (table.dose.min() / 1.5, table.dose.max() * 1.5)
    drawn = table.rename(columns={"gamma": "γ"})
    lines = drawn.hvplot.line(**style, frame_width=420, frame_height=240, grid=True)
    return lines * drawn.hvplot.scatter(**style, size=40)
