"""The book as a reader has it: every page of the smoke run in a browser without network, every link followed."""

import re
from functools import cache
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from browser import REMEDY, Browser, chromium
from bs4 import BeautifulSoup
from unitcell.artefacts import load_dataset
from unitcell.book.explorer import ZOOM
from unitcell.book.workflow import CHAPTERS
from unitcell.project import project_root

HTML = project_root() / "build" / "smoke" / "pages" / "_build" / "html"
PAGES = sorted(path.name for path in HTML.glob("*.html")) or ["index.html"]  # none built: the tests say so
BLANK = 2.0  # standard deviation of grey levels below which a picture shows nothing

# The figures of a page: images of its text, explorers and Bokeh plots; each with its box in the page.
FIGURES = """
(() => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY, r.width, r.height]; };
  const images = [...document.querySelectorAll("article img")].map(
    e => ({kind: "image", alt: e.alt, natural: e.naturalWidth, box: box(e)}));
  const explorers = [...document.querySelectorAll("article .unitcell-explorer canvas")].map(
    e => ({kind: "explorer", alt: e.getAttribute("aria-label"), box: box(e)}));
  const plots = [...document.querySelectorAll("article [data-root-id]")].map(
    e => ({kind: "plot", alt: e.dataset.rootId, drawn: e.childElementCount > 0, box: box(e.firstElementChild ?? e)}));
  return [...images, ...explorers, ...plots];
})()
"""
MATHS = """
({all: document.querySelectorAll("article .math").length,
  set: document.querySelectorAll("article .math mjx-container").length,
  wrong: document.querySelectorAll("article [data-mml-node=merror]").length})
"""
# Move every slider of the page to its other end, as a reader would, and say how many there are.
SLIDE = """
(() => {
  const models = Bokeh.documents.flatMap(d => [...d._all_models.values()]);
  const sliders = models.filter(m => m.end > m.start && "step" in m && typeof m.value === "number");
  for (const slider of sliders) slider.value = slider.value < slider.end ? slider.end : slider.start;
  return sliders.length;
})()
"""
# Set the sliders of an explorer by name, as a reader would, and return the grey levels of its pixels, row by row.
EXPLORE = """
((values, zoom) => {
  const figure = document.querySelector("article .unitcell-explorer");
  for (const [name, value] of Object.entries(values)) {
    const slider = figure.querySelector(`input[name=${name}]`);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  }
  const canvas = figure.querySelector("canvas"), {width, height} = canvas, half = zoom / 2;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const rows = [...Array(height / zoom).keys()], columns = [...Array(width / zoom).keys()];
  return rows.map(y => columns.map(x => data[4 * ((y * zoom + half) * width + x * zoom + half)]));
})
"""


@cache
def soup(name):
    """A parsed page."""
    assert (HTML / name).is_file(), f"{HTML / name} is not built: run 'make smoke' first"
    return BeautifulSoup((HTML / name).read_text(), "html.parser")


@pytest.fixture(scope="module")
def browser():
    if not chromium():
        pytest.skip(REMEDY)
    with Browser() as page:
        yield page


def test_every_chapter_and_prose_page_is_there():
    prose = {f"{name}.html" for name in ("index", "rerun", "conventions", "data", "references")}
    assert prose | {f"{chapter}.html" for chapter in CHAPTERS} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    broken = []
    for tag in soup(name).find_all(["a", "link", "img", "script"]):
        address = tag.get("href") or tag.get("src")
        if not address or address.startswith(("data:", "mailto:")):
            continue
        link = urlsplit(address)
        if link.scheme or link.netloc:
            if link.scheme != "https" or not re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", link.netloc) or tag.name != "a":
                broken.append(address)
            continue
        target, anchor = unquote(link.path) or name, unquote(link.fragment)
        there = (HTML / target).is_file()
        if not there or (anchor and target.endswith(".html") and not soup(target).find(id=anchor)):
            broken.append(address)
    assert not broken, f"{name} links to nothing at {broken}"


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_no_complaint(name):
    text = soup(name).find("main").get_text()
    for word in ("Traceback (most recent call last)", "Warning:", str(project_root())):
        assert word not in text, f"{name} shows '{word}'"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_page_has_its_ledger_and_signature(chapter):
    page = soup(f"{chapter}.html")
    assert len(page.select("table.ledger")[-1].select("tbody tr")) >= 3
    assert "seconds" in page.select_one("table.provenance").get_text()
    assert all(caption.get_text(strip=True) for caption in page.find_all("figcaption"))


@pytest.mark.parametrize("name", PAGES)
def test_page_is_alive_offline(browser, name):
    browser.open(HTML / name)
    figures = browser.script(FIGURES)
    for figure in figures:
        assert figure["alt"].strip(), f"{name}: a figure without alternative text"
        assert figure.get("natural", 1) > 0, f"{name}: an image that did not load: {figure['alt']}"
        assert figure.get("drawn", True), f"{name}: a plot that was not drawn"
        assert min(figure["box"][2:]) > 1, f"{name}: a figure of no size: {figure['alt']}"
        assert browser.painted(figure["box"], BLANK).std() > BLANK, f"{name}: a blank figure: {figure['alt']}"
    maths = browser.script(MATHS)
    assert maths["set"] == maths["all"], f"{name}: mathematics not set"
    assert not maths["wrong"], f"{name}: mathematics with errors"
    assert not browser.errors, f"{name}: console errors"
    away = [address for address in browser.requests if urlsplit(address).scheme not in ("file", "data", "blob")]
    assert not away, f"{name}: asks the network for {away}"


@pytest.mark.parametrize("name", [f"{chapter}.html" for chapter in CHAPTERS])
def test_sliders_change_their_plots(browser, name):
    if not soup(name).select("[data-root-id]"):
        pytest.skip("no interactive plot on this page")
    browser.open(HTML / name)
    boxes = [figure["box"] for figure in browser.script(FIGURES) if figure["kind"] == "plot"]
    before = [browser.painted(box, BLANK) for box in boxes]
    sliders = browser.script(SLIDE)
    browser.settle()
    changed = sum((browser.picture(box) != old).any() for box, old in zip(boxes, before, strict=True))
    assert changed >= min(sliders, 1), f"{name}: {sliders} slider(s), and no plot follows"
    assert not browser.errors


def test_explorer_shows_the_library(browser):
    """The page turns its few distinct images into the stack's image of every tilt (its foot is under the scale bar)."""
    name = "02_simulate_abf"
    stack = load_dataset(project_root() / "build" / "smoke" / name / "abf_stack.nc", ["abf"])
    browser.open(HTML / f"{name}.html")
    last = stack.sizes["thickness"] - 1
    images = stack.abf.values[:, last]
    grey = 255 * (images - images.min()) / np.ptp(images)
    seen = []
    for tilt in range(stack.sizes["tilt"]):
        at = {angle: float(stack[angle][tilt]) for angle in ("alpha", "beta", "gamma")} | {"thickness": last}
        shown = np.array(browser.script(f"{EXPLORE}({at}, {ZOOM})"))[:30]
        assert np.abs(shown - np.tile(grey[tilt], (1, 2))[:30]).max() < 1.5, f"{at}: another image"
        seen.append(shown)
    assert np.ptp(seen, axis=0).max() > 20, "the sliders change nothing"
    assert not browser.errors
