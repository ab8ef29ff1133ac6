"""The book's HTML: stage prose, executed chapters and scripts in one folder, then jupyter-book."""

import hashlib
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from unitcell.book.workflow import CHAPTERS
from unitcell.errors import InputError
from unitcell.project import project_root

# Where plots look for Panel's style sheets, and where the pages keep them.
PANEL_THERE = re.compile(r"https://cdn\.holoviz\.org/panel/[^/]+/dist/([\w./-]+\.css)")
PANEL_HERE = Path("_extra") / "_static" / "panel"
# Scripts that pages would otherwise fetch from the network, taken from the installed packages that
# made the plots, so that their versions always agree. Bokeh's go before the Panel that builds on them.
BOKEH = ("bokeh.min.js", "bokeh-widgets.min.js", "bokeh-tables.min.js")
MATHJAX = "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js"


def sources():
    """The files under book/ that make the pages, without what was built."""
    book = project_root() / "book"
    return sorted(p for p in book.rglob("*") if p.is_file() and "_build" not in p.relative_to(book).parts)


def recipe():
    """Digests of the book's own sources: a change makes the pages again."""
    code = Path(__file__)
    return {str(path.name): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in [code, *sources()]}


def scripts():
    """Paths of the JavaScript files that the pages need, in the order in which they load."""
    bokeh = Path(str(files("bokeh"))) / "server" / "static" / "js"
    panel = panel_folder() / "panel.min.js"
    mathjax = Path(distribution("sphinx-mathjax-offline").locate_file(MATHJAX))
    return [*(bokeh / name for name in BOKEH), panel, mathjax]


def make_pages(profile, strict=False):
    """Stage the book of a profile and run jupyter-book on it.

    Parameters
    ----------
    profile : unitcell.book.workflow.Profile
    strict : bool
        Whether a warning fails the build.

    Returns
    -------
    int
        Exit status of jupyter-book.
    """
    root = project_root()
    staged = root / "build" / profile.name / "pages" / "source"
    stage(profile, staged)
    shutil.rmtree(root / profile.pages / "_build", ignore_errors=True)  # a warning must show each time, not once
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [
        str(jupyter_book), "build", str(staged), "--path-output", str(root / profile.pages), "--quiet",
        *(("-W", "-n", "--keep-going") if strict else ()),
    ]  # fmt: skip
    print("[pages] jupyter-book", flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        print(result.stdout, file=sys.stderr)
    return result.returncode


def stage(profile, folder):
    """Copy prose, executed chapters and scripts into `folder`, which is emptied first."""
    root = project_root()
    shutil.rmtree(folder, ignore_errors=True)
    for path in sources():
        target = folder / path.relative_to(root / "book")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    for chapter in CHAPTERS:
        executed = root / profile.executed(chapter)
        if not executed.is_file():
            raise InputError(f"No executed chapter at {executed}: run 'unitcell build --profile {profile.name}' first.")
        (folder / executed.name).write_text(_local(executed.read_text(), folder / PANEL_HERE))
    extra = (
        folder / "_extra" / "_static"
    )  # not _static: jupyter-book loads each script there on each page, in any order
    extra.mkdir(parents=True, exist_ok=True)
    for script in scripts():
        shutil.copy2(script, extra)


def panel_folder():
    """Folder of the files that the installed Panel serves."""
    return Path(str(files("panel"))) / "dist"


def _local(notebook, folder):
    """The text of a notebook with Panel's style sheets looked up beside the page; copies them to `folder`."""
    for name in set(PANEL_THERE.findall(notebook)):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(panel_folder() / name, target)
    return PANEL_THERE.sub(rf"{PANEL_HERE.relative_to('_extra')}/\1", notebook)
