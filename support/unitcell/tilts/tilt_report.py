"""The report of one image: a single HTML page that needs nothing else, and the files beside it."""

import base64
import html
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from unitcell.artefacts import save_dataset, save_table, written
from unitcell.book.figures import use_style
from unitcell.networks.model_card import microscope_words
from unitcell.tilts.map_figures import SYMBOL, column_figure, glazer_text, pattern_figure, profile_figure, tilt_figure
from unitcell.tilts.pattern_verdict import save_regions

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
img { max-width: 100%; } figure { margin: 1.5rem 0; } figcaption { color: #444; font-size: 0.9rem; }
table { border-collapse: collapse; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
.warning { border-left: 4px solid #d55e00; padding: 0.3rem 0.8rem; background: #fdf1e9; }
"""
LIMITS = (
    "One projection cannot tell (v, u, γ) from its mirror image (v, −u, −γ): the table holds the branch with γ ≥ 0.",
    "Where u is near zero, |γ| is measured but its phase along [001] is not: c⁺ and c⁻ look alike.",
    "Unless γ tells them apart, tilts that alternate along the beam ('+' about a or b) look like tilts that do not; "
    "where `alternation` is not zero, u and γ may be something else.",
)


def save_report(analysis, maps, folder, network_card, chosen=""):
    """Write tilts.csv, regions.csv, tilt_maps.nc and report.html of one image.

    Parameters
    ----------
    analysis : unitcell.tilts.analysis.Analysis
    maps : xarray.Dataset
        See `unitcell.tilts.analysis.all_maps`.
    folder : path
        Made if it is not there.
    network_card : dict
        Of the network, for the page's last lines.
    chosen : str
        Why that network, in a sentence.

    Returns
    -------
    Path
        Of report.html, which is written last.
    """
    folder = Path(folder)
    page = report_page(analysis, network_card, chosen)
    save_table(analysis.tilts, folder / "tilts.csv")
    save_regions(analysis.regions, folder / "regions.csv")
    save_dataset(maps, folder / "tilt_maps.nc")
    with written(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "report.html"


def report_page(analysis, network_card, chosen=""):
    """The page as text, its figures inside it."""
    use_style()
    image, name = analysis.image, html.escape(analysis.image.name)
    rows, columns = image.intensity.shape
    parts = [
        f"<h1>Tilts of {name}</h1>",
        *(f'<p class="warning" role="alert">{html.escape(warning)}</p>' for warning in analysis.warnings),
        f"<p>{html.escape(analysis.verdict)}</p>",
        f"<p>{columns} × {rows} pixels of {image.pixel_size_A:.4g} Å; lattice parameter {analysis.lattice.a_A:.3f} Å, "
        f"[110] {analysis.lattice.rotation_deg:.1f}° clockwise from image right; "
        f"{analysis.tilts.v_deg.notna().sum()} of {len(analysis.tilts)} B columns have their whole window in the image."
        "</p>",
        *_figures(analysis),
        "<h2>Over the whole image</h2>",
        _table(summary_rows(analysis.summary)),
        "<h2>Regions of one pattern</h2>",
        _table(region_rows(analysis.regions)),
        "<h2>What this projection cannot tell</h2>",
        "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in LIMITS) + "</ul>",
        f"<p>Read by a network trained for {html.escape(microscope_words(network_card))}. {html.escape(chosen)}</p>",
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Tilts of {name}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _figures(analysis):
    """The page's figures with captions and alternative texts."""
    image, tilts = analysis.image, analysis.tilts
    yield _figure(
        column_figure(image, analysis.lattice),
        f"The {analysis.lattice.b_columns.found.sum()} B columns that were located, and both repeats of the lattice.",
        "The image in grey with a ring on every B column and two arrows along [110] and [001].",
    )
    yield _figure(
        tilt_figure(image, tilts),
        "Tilts about the beam (v), about [110] (u) and about [001] (γ ≥ 0), one dot per B column.",
        "Three copies of the image with a coloured dot on every B column: v, u and gamma.",
    )
    yield _figure(
        pattern_figure(image, tilts),
        "Tilt patterns in Glazer notation, with how many columns have each (faint: not sure), and their probability.",
        "Two copies of the image: dots coloured by tilt pattern, and by the probability of that pattern.",
    )
    yield _figure(
        profile_figure(tilts),
        "Sizes of the tilts from row to row along [001]: medians, and medians of the 90 % intervals.",
        "Three line plots of the sizes of v, u and gamma against the row, each in a shaded band.",
    )


def _figure(figure, caption, alt):
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(alt, quote=True)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def summary_rows(summary):
    """Heads and cells of `unitcell.tilts.inference.summarise`'s table, for people."""
    yield ("", "median", "scatter", "half width of the 90 % intervals", "intervals that hold zero")
    for name, row in summary.iterrows():
        angles = (f"{row[key]:.2f}°" for key in ("median_deg", "mad_deg", "half_width_deg"))
        yield (SYMBOL[name], *angles, f"{row.contains_zero:.0%}")


def region_rows(regions):
    """Heads and cells of the table of regions, for people."""
    yield ("pattern", "probability", "columns", "rows", "|v|", "|u|", "γ", "undecided")
    for _, row in regions.iterrows():
        yield (
            glazer_text(row.glazer), f"{row.probability:.2f}", f"{row.cells}", f"{row.row_min} to {row.row_max}",
            *(f"{row[f'{name}_deg']:.1f}°" for name in ("v", "u", "gamma")), row.undecided,
        )  # fmt: skip


def _table(rows):
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    )  # fmt: skip
    return f"<table><tr>{cells}</tr>{lines}</table>"


def terminal_lines(analysis):
    """What the command prints: pattern, medians with intervals, warnings."""
    yield f"pattern   {analysis.verdict}"
    read = analysis.tilts.dropna(subset="v_deg")
    yield f"tilts     medians over {len(read)} B columns, and of their 90 % intervals"
    for name in ("v", "u", "gamma"):
        middle, low, high = (np.median(read[f"{name}_deg{end}"]) for end in ("", "_lo", "_hi"))
        yield f"{SYMBOL[name]:<9} {middle:+.2f}° ({low:+.2f}° to {high:+.2f}°)"
    if "crystal" in read:
        shares = read.crystal.replace("", "none (the network's answer)").value_counts(normalize=True)
        yield "crystals  " + ", ".join(f"{name}: {share:.0%} of columns" for name, share in shares.items())
    yield from (f"warning   {warning}" for warning in analysis.warnings)
