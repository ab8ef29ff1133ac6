"""`unitcell chapter`, `build`, `pages` and `times`: rerun a chapter, build the book, see what it cost."""

import ast
import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from unitcell.book.workflow import BUILD_PID, CHAPTERS, JOBS_AT_A_TIME, load_profile, threads_per_job
from unitcell.data import DataUnavailable, fetch, load_manifest
from unitcell.errors import InputError
from unitcell.project import project_root

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def add_to(app):
    """Add the commands of this module to a typer application."""
    for command in (chapter, build, pages, times):
        app.command()(command)


def paired(arguments):
    """Arguments with papermill's '-p NAME VALUE' written as the one value 'NAME=VALUE' that an option can take."""
    result = []
    while arguments:
        pair = arguments[0] == "-p" and len(arguments) > 2 and "=" not in arguments[1]
        taken = 3 if pair else 1
        result += ["-p", f"{arguments[1]}={arguments[2]}"] if pair else arguments[:1]
        arguments = arguments[taken:]
    return result


ProfileName = Annotated[str, typer.Option(help="Which of profiles/*.yml.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat warnings of the pages as errors.")]


def chapter(
    name: Annotated[str, typer.Argument(help="For instance 05_infer_tilts.")],
    given: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME VALUE", help="A parameter, as papermill takes it.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Take the other parameters and earlier chapters' files from this profile.")
    ] = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for the results.")] = None,
):
    """Run chapter NAME (for instance 05_infer_tilts) and keep the executed notebook with its results."""
    from unitcell.book.runner import ChapterFailed, end_with_build, run_chapter

    end_with_build()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # its kernel sees it go, and goes too
    parameters = load_profile(profile).parameters(name) if profile else {}
    parameters |= {key: _literal(value) for key, _, value in (pair.partition("=") for pair in given or ())}
    out = out or Path(parameters.pop("output_dir", None) or Path("build") / "by_hand" / name)
    try:
        run_chapter(name, parameters, out)
    except ChapterFailed as failure:
        typer.echo(str(failure), err=True)
        sys.exit(failure.exit_status)


def _literal(text):
    """A Python literal where `text` is one (3, 1e-4, [100, 200], None, True), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def build(
    targets: Annotated[list[str] | None, typer.Argument(help="Of the workflow; all of it where none is given.")] = None,
    profile: ProfileName = "book",
    strict: Strict = False,
):
    """Run the chapters that need it, then the pages; their path is printed last."""
    pages = load_profile(profile).pages / "_build" / "html" / "index.html"
    os.chdir(project_root())
    _gather_data()
    with alone(Path("build") / profile):
        status = run_graph(profile, targets, config={"strict": strict})
    if status:
        typer.echo("unitcell: the build stopped at the error above; what had finished is kept.", err=True)
        sys.exit(status)
    if not targets:
        typer.echo(pages.resolve())


def _gather_data():
    """Download what is missing before the chapters start; say aloud what cannot be had."""
    for name in load_manifest():
        try:
            fetch(name)
        except DataUnavailable as error:
            typer.echo(f"[data] {error} Until then, chapters use a simulated image in its place, and say so.", err=True)


def run_graph(profile, targets=None, *, config=None, snakefile="Snakefile", jobs=JOBS_AT_A_TIME):
    """Run a workflow; its own log goes to a file, so that the screen shows the chapters only. Returns its status."""
    log = Path("build") / profile / ("workflow.log" if snakefile == "Snakefile" else f"{Path(snakefile).stem}.log")
    given = [f"{key}={value}" for key, value in {"profile": profile, **(config or {})}.items()]
    environment = os.environ | dict.fromkeys(THREADS, str(threads_per_job())) | {BUILD_PID: str(os.getpid())}
    command = [
        sys.executable, "-m", "snakemake", *(targets or ()),
        "--snakefile", snakefile, "--cores", str(jobs * threads_per_job()), "--config", *given,
        "--rerun-triggers", "input", "mtime", "params",
        "--rerun-incomplete", "--nolock", "--keep-going",
    ]  # fmt: skip
    with open(log, "w") as stream:
        status = subprocess.run(command, env=environment, stderr=stream, check=False).returncode
    text = log.read_text()
    if status and "Error in rule" not in text:  # else the chapter that failed has said why
        typer.echo("\n".join(text.splitlines()[-20:]), err=True)
    return status


@contextmanager
def alone(folder):
    """Hold the lock of a build folder; the system frees it however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            typer.echo(f"Another build of {folder} is running: waiting for it to end.", err=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pages(profile: ProfileName = "book", strict: Strict = False):
    """Make the HTML from the executed chapters of a profile."""
    from unitcell.book.pages import make_pages

    sys.exit(make_pages(load_profile(profile), strict))


def times(profile: ProfileName = "book"):
    """Print the measured time and memory of each chapter as a Markdown table."""
    typer.echo("| chapter | time | memory |\n|---|---|---|")
    for name in CHAPTERS:
        path = project_root() / load_profile(profile).folder(name) / "provenance.json"
        if not path.is_file():
            raise InputError(f"No file at {path}: run 'unitcell build --profile {profile}' first.")
        run = json.loads(path.read_text())
        typer.echo(f"| {name} | {run['seconds'] / 60:.1f} min | {run['peak_memory_MB'] / 1000:.1f} GB |")
