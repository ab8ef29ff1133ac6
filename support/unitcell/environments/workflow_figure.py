"""The chain of Kalinin et al. 2020 as a drawing (their Fig. 3)."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from unitcell.book.figures import OKABE_ITO

FACE = {"data": "#FFFFFF", "network": "#CFE4F2", "latent": "#FBE3B3", "label": "#CDEBDF"}


def draw_workflow():
    """Three panels: the chain of chapters 06 to 08, the rVAE and the cVAE; returns the figure."""
    figure, axes = plt.subplots(3, 1, figsize=(9.5, 6.4), height_ratios=(1, 1.35, 1.2))
    for axis, draw, title in zip(axes, (_chain, _rotational, _conditional), TITLES, strict=True):
        axis.set(xlim=(0, 100), ylim=(0, 30), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_title(title, loc="left", fontweight="bold")
        draw(axis)
    return figure


TITLES = (
    "(a) From an image to classes and their variation",
    "(b) rVAE: the decoder is a function of position",
    "(c) cVAE: the class goes in with the image and with the latents",
)


def _chain(axis):
    steps = (
        ("STEM\nimage", "data"), ("U-Net:\natoms (06)", "network"), ("sub-images\nof each atom", "data"),
        ("rVAE (07)", "network"), ("γ, Δx, Δy,\nz₁, z₂", "latent"), ("Gaussian\nmixture (08)", "network"),
        ("class of\neach atom", "label"), ("cVAE (08)", "network"),
    )  # fmt: skip
    for n, (text, kind) in enumerate(steps):
        _box(axis, 0.5 + 12.6 * n, 8, 10.6, 14, text, kind)
        if n:
            _arrow(axis, (12.6 * n - 1.5, 15), (0.5 + 12.6 * n, 15))
    axis.annotate(
        "", (33, 8), (95, 8), arrowprops={"arrowstyle": "<-", "connectionstyle": "bar,fraction=-0.06", "color": "grey"}
    )
    axis.text(64, 3.4, "the same sub-images, with their classes", ha="center", color="grey", fontsize=8)


def _rotational(axis):
    _box(axis, 0.5, 8, 11, 14, "sub-image\nx", "data")
    _funnel(axis, 16, 13, "encoder\nq(γ, t, z | x)", narrows=True)
    for y, text in ((21, "angle γ"), (12, "shift t"), (3, "content z")):
        _box(axis, 35, y, 11, 7, text, "latent")
        _arrow(axis, (29.5, 15), (35, y + 3.5))
    _box(axis, 54, 14, 19, 13, "pixel grid, turned\nby γ, moved by t:\nR(γ) r + t", "data")
    _arrow(axis, (46, 24.5), (54, 22.5))
    _arrow(axis, (46, 15.5), (54, 18))
    _funnel(axis, 77, 10.5, "decoder\np(x | z, r)", narrows=False)
    _arrow(axis, (73, 20), (77, 16.5))
    _arrow(axis, (46, 6.5), (77, 12.5))
    _box(axis, 92, 8, 7.5, 14, "x̂", "data")
    _arrow(axis, (11.5, 15), (16, 15))
    _arrow(axis, (87.5, 15), (92, 15))


def _conditional(axis):
    _box(axis, 0.5, 14, 13, 12, "sub-image x", "data")
    _box(axis, 0.5, 0.5, 13, 7, "class k", "label")
    _funnel(axis, 22, 16, "encoder\nq(z | x, k)", narrows=True)
    _box(axis, 45, 15, 11, 8, "content z", "latent")
    _box(axis, 45, 0.5, 11, 7, "class k", "label")
    _funnel(axis, 64, 16, "decoder\np(x | z, k)", narrows=False)
    _box(axis, 88, 9, 11, 12, "x̂", "data")
    for start, end in (
        ((13.5, 20), (22, 17)), ((13.5, 5.5), (22, 12)), ((38, 15), (45, 18.5)), ((13.5, 2.5), (45, 2.5)),
        ((56, 19), (64, 16.5)), ((56, 4), (64, 12.5)), ((80, 15), (88, 15)),
    ):  # fmt: skip
        _arrow(axis, start, end)


def _box(axis, x, y, width, height, text, kind):
    style = "round,pad=0,rounding_size=1.2"
    axis.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=FACE[kind], edgecolor="black", lw=0.8))
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8.5)


def _funnel(axis, x, width, text, narrows):
    left, right = (11, 6) if narrows else (6, 11)
    corners = [(x, 15 - left), (x, 15 + left), (x + width, 15 + right), (x + width, 15 - right)]
    axis.add_patch(Polygon(corners, facecolor=FACE["network"], edgecolor=OKABE_ITO[0], lw=1))
    axis.text(x + width / 2, 15, text, ha="center", va="center", fontsize=8.5)


def _arrow(axis, start, end):
    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color="black", lw=0.9, shrinkA=0, shrinkB=0)
    )
