"""Chapters 05 to 08 run on one image, as one HTML page that needs nothing else."""

import base64
import html
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
from traitlets.config import Config

from unitcell.artefacts import load_table, written
from unitcell.book.pages import PANEL_THERE, panel_folder, scripts
from unitcell.book.runner import ChapterFailed, run_chapter
from unitcell.errors import InputError
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.inference import disagreements
from unitcell.tilts.network_choice import choose_network

__all__ = ["ChapterFailed", "report_of_image"]

WINDOW_CELLS = 2.0  # edge of the sub-images of chapters 06 to 08, in lattice parameters
MATH = (
    r"window.MathJax = {tex: {inlineMath: [['$', '$'], ['\\(', '\\)']]}};"  # notebooks write formulas between dollars
)
ALERT = "border-left: 4px solid #d55e00; padding: 0.3rem 0.8rem; background: #fdf1e9; color: #1a1a1a"
ABOUT_OTHERS = ("book-only",)  # tag of cells about other images than the reader's
WINDOW_POINTS = 24  # after binning


def report_of_image(image, folder, reading=None, network=None, seed=0, more=None):
    """Run the chapters that read an image and bind them into `report.html`.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
        Bright-field: dark columns. Chapters 06 to 08 get it turned round, for they read bright ones.
    folder : path
        Each chapter leaves its results in a folder of its own there.
    reading : dict, optional
        How chapter 05 shall read the image itself: its parameters image, pixel_size_A, frame, invert, lattice_A,
        crystals and microscope. By default it gets the pixels and what `image.recorded` says.
    network : path, optional
        Tilt network; by default the committed one that fits best (`unitcell.tilts.network_choice`).
    seed : int
    more : dict of str to dict, optional
        Further parameters by chapter.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        No such network, one for another electron energy, or parameters that cannot be.
    unitcell.book.runner.ChapterFailed
        A chapter failed; those before it are kept. One whose checks do not all hold on this image is bound with the
        others, and chapter 05 is left out where it refuses a dark-field image: the page says so in its first line.
    """
    folder = Path(folder)
    card = load_network(network).card if network else choose_network(image.recorded).card
    disagreements(image, card)
    executed, doubts = [], []
    for chapter, parameters in _parameters(image, folder, reading, network, card).items():
        given = parameters | (more or {}).get(chapter, {}) | {"seed": seed}
        try:
            executed.append(run_chapter(chapter, given, folder / chapter, left_out=ABOUT_OTHERS))
        except ChapterFailed as failure:
            if failure.complete:
                executed.append(failure.notebook)
                doubts.append(_doubt(chapter, folder / chapter / "checks.csv"))
            elif image.inverted and chapter == "05_infer_tilts" and failure.exit_status == 2:
                doubts.append(f"No tilts were read: {failure.reason}")
            else:
                raise
            print(doubts[-1])
    page = folder / "report.html"
    with written(page) as temporary:
        temporary.write_text(bound(executed, f"Report of {image.name}", doubts), encoding="utf-8")
    return page


def _doubt(chapter, path):
    """What of a chapter's ledger does not hold on this image, in a sentence."""
    checks = load_table(path, ("check", "this run", "tolerance", "verdict"))
    failed = checks[checks.verdict == "fails"]
    lines = [
        f"{row.check} is {value}, tolerance {row.tolerance}"
        for row, value in zip(failed.itertuples(), failed["this run"], strict=True)
    ]
    return f"Do not trust chapter {chapter[:2]} on this image: {'; '.join(lines)}."


def _parameters(image, folder, reading, network, card):
    """Parameters of each chapter; the image is written for them as they read it."""
    stem = re.sub(r"[^\w.-]", "_", Path(image.name).stem)
    bright = replace(image, intensity=image.intensity.max() + image.intensity.min() - image.intensity)
    paths = {folder / f"{stem}.npy": image, folder / f"{stem}_turned.npy": bright}
    for path, content in paths.items():
        with written(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, content.intensity, allow_pickle=False)
    dark, turned = ({"image": str(path), "pixel_size_A": image.pixel_size_A} for path in paths)
    window_px = WINDOW_CELLS * card["lattice_A"] / image.pixel_size_A
    binning = max(1, int(window_px // WINDOW_POINTS))
    windows = {"window_px": 2 * binning * round(window_px / (2 * binning)), "binning": binning, "a_spacing_A": None}
    patches = str(folder / "06_find_atoms" / "patches.nc")
    return {
        "05_infer_tilts": (reading or dark | {"microscope": image.recorded})
        | {"network": str(network) if network else None},
        "06_find_atoms": turned | windows,
        "07_rvae": {"patches": patches, "twin_count": 0},
        # Its comparison of methods is about them, not about the image.
        "08_gmm_cvae": {"patches": patches, "latent": str(folder / "07_rvae" / "latent.csv"), "turned_epochs": 0},
    }


def bound(notebooks, title, doubts=()):
    """Executed notebooks as one page, with every script and picture inside it.

    Parameters
    ----------
    notebooks : list of Path
    title : str
    doubts : sequence of str
        Sentences to stand above everything.

    Returns
    -------
    str
    """
    from nbconvert import HTMLExporter  # half a second, for those who bind

    if not notebooks:
        raise InputError("There is no chapter to bind: give at least one executed notebook.")
    exporter = HTMLExporter(
        config=Config({"HTMLExporter": {"embed_images": True, "mathjax_url": "", "require_js_url": ""}})
    )
    exporter.exclude_input = exporter.exclude_output_prompt = True  # the code is in the executed notebooks
    pages = [exporter.from_notebook_node(_without_hidden(nbformat.read(path, as_version=4)))[0] for path in notebooks]
    head, _, rest = pages[0].partition("</head>")
    head = re.sub(r"<title>.*?</title>", lambda _: f"<title>{html.escape(title)}</title>", head, flags=re.DOTALL)
    head = re.sub(r'<script src="[^"]*"[^>]*></script>', "", head)
    bodies = [re.search(r"<main>(.*)</main>", page, re.DOTALL).group(1) for page in pages]
    opening = re.match(r"\s*<body[^>]*>", rest).group(0)
    above = "".join(f'<p role="alert" style="{ALERT}">{html.escape(doubt)}</p>' for doubt in doubts)
    code = f"<script>{MATH}</script>" + "".join(f"<script>{_embeddable(path)}</script>" for path in scripts())
    return _inlined(f"{head}{code}</head>{opening}<main>{above}{'<hr>'.join(bodies)}</main></body></html>")


def _embeddable(script):
    """The text of a script such that the page's parser does not end it early."""
    return script.read_text(encoding="utf-8").replace("</script", "<\\/script")


def _without_hidden(notebook):
    """A notebook without what pages leave out, warnings of libraries, and widgets, which fetch their scripts."""
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if "remove-cell" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if "outputs" not in cell:
            continue
        shown = [output for output in cell.outputs if output.get("name") != "stderr"]
        cell.outputs = [] if "remove-output" in cell.metadata.get("tags", []) else shown
        for output in cell.outputs:
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def _inlined(page):
    """The page with Panel's style sheets inside it."""
    for name in set(PANEL_THERE.findall(page)):
        data = base64.b64encode((panel_folder() / name).read_bytes()).decode()
        address = rf"https://cdn\.holoviz\.org/panel/[^/]+/dist/{re.escape(name)}(\?v=[\d.]+)?"
        page = re.sub(address, f"data:text/css;base64,{data}", page)
    return page
