"""How the book draws: one style, scale bars, captions and alternative text."""

import base64
import html
import io

import matplotlib as mpl
import matplotlib.patheffects
import matplotlib.pyplot as plt
from IPython.display import HTML, display

# Okabe-Ito: eight colours that stay apart for every kind of colour vision.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def use_style():
    """Set the book's matplotlib style (call once at the head of a chapter)."""
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": mpl.cycler(color=OKABE_ITO),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "image.origin": "upper",
            "font.size": 9,
            "axes.titlesize": 9,
        }
    )


def show(figure, caption, alt):
    """Display a matplotlib figure with a caption and alternative text, then close it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    caption : str
        What the figure shows, with the units and this run's numbers.
    alt : str
        What a reader who cannot see the figure needs to know.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    png = base64.b64encode(buffer.getvalue()).decode()
    display(
        HTML(
            f'<figure class="unitcell"><img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{png}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    )


def show_interactive(plot, caption, alt):
    """Display an hvPlot/HoloViews object followed by its caption; `alt` labels it for screen readers."""
    display(plot)
    display(
        HTML(
            f'<div class="unitcell-caption" role="note" aria-label="{html.escape(alt, quote=True)}">'
            f"{html.escape(caption)}</div>"
        )
    )


def banner(text):
    """Display a warning across the page, for instance that an image is simulated."""
    display(HTML(f'<div class="unitcell-banner" role="alert"><strong>{html.escape(text)}</strong></div>'))


def draw_image(axes, image, pixel_size_A, *, title="", bar_A=None, cmap="gray", **limits):
    """Draw an image without ticks and with a scale bar.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    image : ndarray, shape (rows, columns)
    pixel_size_A : float or None
        Pixel size [Å]; None draws no scale bar.
    bar_A : float, optional
        Length of the bar [Å]; by default about a quarter of the image's width.
    **limits
        Passed to `imshow` (vmin, vmax, norm, ...).
    """
    artist = axes.imshow(image, cmap=cmap, **limits)
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(False)
    if pixel_size_A:
        draw_scale_bar(axes, image.shape, pixel_size_A, bar_A)
    return artist


def draw_scale_bar(axes, shape, pixel_size_A, bar_A=None):
    """Draw a labelled scale bar in the lower left corner of an image of `shape` (rows, columns)."""
    rows, columns = shape[:2]
    width_A = columns * pixel_size_A
    bar_A = bar_A or min((1, 2, 4, 5, 10, 20, 40, 50, 100, 200, 500), key=lambda b: abs(b - width_A / 4))
    label = f"{bar_A:g} Å" if bar_A < 100 else f"{bar_A / 10:g} nm"
    left, bottom = 0.05 * columns - 0.5, 0.93 * rows - 0.5
    outline = [mpl.patheffects.withStroke(linewidth=5, foreground="black")]
    axes.plot([left, left + bar_A / pixel_size_A], [bottom, bottom], color="white", lw=3, path_effects=outline)
    axes.text(
        left, bottom - 0.03 * rows, label, color="white", va="bottom", ha="left", fontsize=8,
        path_effects=[mpl.patheffects.withStroke(linewidth=2, foreground="black")],
    )  # fmt: skip


def log_ticks(axes, ticks, most):
    """Make x logarithmic, with plain numbers at those `ticks` that do not exceed `most`, and no others."""
    shown = [tick for tick in ticks if tick <= most]
    axes.set_xscale("log")
    axes.set_xticks(shown, labels=shown)
    axes.minorticks_off()
