"""`unitcell report`: chapters 05 to 08 on somebody's image, in one page that asks for nothing."""

from dataclasses import replace

import nbformat
import pytest
from browser import REMEDY, Browser, chromium
from unitcell.artefacts import load_table, save_table
from unitcell.book.ledger import Ledger
from unitcell.book.workflow import load_profile
from unitcell.commands import chapter_report
from unitcell.commands.chapter_report import ChapterFailed, bound, report_of_image
from unitcell.errors import InputError
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.inference import simulated_control

CHAPTERS = ("05_infer_tilts", "06_find_atoms", "07_rvae", "08_gmm_cvae")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    image = simulated_control(load_network().card, field_A=40.0, pixel_size_A=0.12)
    smoke = load_profile("smoke")
    quick = {name: smoke.parameters(name) for name in CHAPTERS[2:]}
    quick = {
        name: {k: v for k, v in given.items() if k not in ("patches", "latent", "rvae")}
        for name, given in quick.items()
    }
    return report_of_image(image, tmp_path_factory.mktemp("report"), more=quick)


def test_every_chapter_has_read_the_image(page):
    tables = {"05_infer_tilts": "tilts.csv", "06_find_atoms": "atoms.csv", "08_gmm_cvae": "classes.csv"}
    counts = {name: len(load_table(page.parent / name / file)) for name, file in tables.items()}
    assert counts["05_infer_tilts"] > 100
    assert counts["06_find_atoms"] > counts["05_infer_tilts"]  # B columns and A columns
    assert counts["08_gmm_cvae"] > 50


def test_no_other_image_is_read(page):
    for name in CHAPTERS:
        cells = nbformat.read(page.parent / name / f"{name}.ipynb", 4).cells
        assert not [cell for cell in cells if "book-only" in cell.metadata.get("tags", [])]
        assert len(cells) > 20


def test_the_page_is_alive_and_asks_for_nothing(page):
    if not chromium():
        pytest.skip(REMEDY)
    with Browser() as browser:
        browser.open(page)
        assert not [error for error in browser.errors if "favicon" not in error]
        assert {address.split(":")[0] for address in browser.requests} <= {"file", "data", "blob"}
        heads = browser.script("[...document.querySelectorAll('h1')].map(h => h.textContent.slice(0, 2))")
        assert heads == [name[:2] for name in CHAPTERS]
        assert browser.script("[...document.images].every(i => i.naturalWidth > 0)")
        plots = browser.script("[...document.querySelectorAll('[data-root-id]')].map(p => p.childElementCount)")
        assert len(plots) >= 2
        assert min(plots) > 0


def one_cell(folder, chapter):
    """An executed notebook of one line."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {chapter}")])
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / "one.ipynb")
    return folder / "one.ipynb"


def test_a_check_that_does_not_hold_is_the_first_line_of_the_page(tmp_path, monkeypatch):
    def run(chapter, parameters, folder, left_out):
        executed = one_cell(folder, chapter)
        if chapter == "08_gmm_cvae":
            ledger = Ledger()
            ledger.check("ARI", 0.2, published="1", low=0.9, high=1)
            save_table(ledger.table(), folder / "checks.csv")
            raise ChapterFailed("[08] failed\n  reason\n  kept", 1, executed, complete=True)
        return executed

    monkeypatch.setattr(chapter_report, "run_chapter", run)
    image = simulated_control(load_network().card, field_A=30.0, pixel_size_A=0.2)
    text = report_of_image(image, tmp_path).read_text()
    doubt = text.index("Do not trust chapter 08 on this image: ARI is 0.2, tolerance 0.9 to 1.")
    assert doubt < text.index("05_infer_tilts")
    assert 'role="alert"' in text


def test_only_a_dark_field_image_goes_on_without_tilts(tmp_path, monkeypatch):
    def run(chapter, parameters, folder, left_out):
        if chapter == "05_infer_tilts":
            raise ChapterFailed("[05] failed\n  No lattice.\n  kept", 2, folder / "failed.ipynb")
        return one_cell(folder, chapter)

    monkeypatch.setattr(chapter_report, "run_chapter", run)
    image = simulated_control(load_network().card, field_A=30.0, pixel_size_A=0.2)
    with pytest.raises(ChapterFailed, match="No lattice"):
        report_of_image(image, tmp_path / "bright")
    assert not (tmp_path / "bright" / "report.html").exists()
    text = report_of_image(replace(image, inverted=True), tmp_path / "dark").read_text()
    assert "No tilts were read: No lattice." in text
    assert "06_find_atoms" in text


def test_nothing_cannot_be_bound():
    with pytest.raises(InputError, match="no chapter to bind"):
        bound([], "x")


def test_code_and_widgets_stay_out(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Words"),
            nbformat.v4.new_markdown_cell("# Unseen", metadata={"tags": ["remove-cell"]}),
            nbformat.v4.new_code_cell(
                "secret = 1",
                outputs=[
                    nbformat.v4.new_output("stream", name="stderr", text="grumble"),
                    nbformat.v4.new_output(
                        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
                    ),
                ],
            ),
        ]
    )
    nbformat.write(notebook, tmp_path / "one.ipynb")
    text = bound([tmp_path / "one.ipynb"], "A & B")
    assert "<title>A &amp; B</title>" in text
    assert "Words" in text
    assert "secret" not in text
    assert "Unseen" not in text
    assert "grumble" not in text
    assert "widget-view" not in text
