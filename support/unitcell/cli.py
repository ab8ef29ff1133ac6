"""The `unitcell` command: rerun a chapter, build the book, see what it cost."""

import ast
import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import click

from unitcell.data import DataUnavailable, fetch, load_manifest
from unitcell.errors import InputError
from unitcell.project import project_root
from unitcell.workflow import BUILD_PID, CHAPTERS, JOBS_AT_A_TIME, load_profile, threads_per_job

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
LIBRARY_STEP = 1 / 65535  # intensities from 0 to 1 in 16 bits: rounded to 8e-6


def main():
    """Entry point: an InputError is one sentence and exit status 2, never a traceback."""
    try:
        commands(standalone_mode=True)
    except InputError as error:
        click.echo(f"unitcell: {error}", err=True)
        sys.exit(2)


@click.group()
def commands():
    """Unit Cell by Unit Cell: rerun a chapter on your own image, or build the book."""


@commands.command()
@click.argument("name")
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter, as papermill takes it.")
@click.option("--profile", help="Take the other parameters and earlier chapters' files from this profile.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
def chapter(name, given, profile, out):
    """Run chapter NAME (for instance 05_infer_tilts) and keep the executed notebook with its results."""
    from unitcell.runner import ChapterFailed, end_with_build, run_chapter

    end_with_build()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # its kernel sees it go, and goes too
    parameters = load_profile(profile).parameters(name) if profile else {}
    parameters |= {key: _literal(value) for key, value in given}
    out = out or Path(parameters.pop("output_dir", None) or Path("build") / "by_hand" / name)
    try:
        run_chapter(name, parameters, out)
    except ChapterFailed as failure:
        click.echo(str(failure), err=True)
        sys.exit(failure.exit_status)


@commands.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--configurations", default=0, show_default=True, help="Frozen-phonon configurations; 0 for elastic images."
)
@click.option(
    "--step", "step_deg", default=5.0, show_default=True, help="Step of the tilt grid from -10° to 10° [degrees]."
)
@click.option("--scheduler", help="Address of a Dask scheduler that shares out the structures.")
@click.option("--device", default="cpu", show_default=True, help="Torch device.")
@click.option("--seed", default=0, show_default=True, help="Of the phonons.")
def simulate(out, configurations, step_deg, scheduler, device, seed):
    """Simulate the book's library of SrTiO3 (every tilt × 2 to 42 nm) into the netCDF file OUT; resumes."""
    from unitcell.artefacts import save_dataset
    from unitcell.scattering import Microscope
    from unitcell.simulation import simulate_stack, tilt_grid

    stack = simulate_stack(
        tilt_grid(step_deg), range(20, 421, 20), Microscope(), configurations=configurations, seed=seed,
        scheduler=scheduler, folder=project_root() / "build" / "campaign", device=device,
    )  # fmt: skip
    save_dataset(stack, out, step=LIBRARY_STEP)
    click.echo(str(out))


@commands.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--microscope", "file", type=click.Path(path_type=Path), help="YAML file of the microscope [the book's].")
@click.option("--fine-tune", is_flag=True, help="Start from the committed networks: an eighth of the work by default.")
@click.option("--structures", type=int, help="Simulated for training  [8000; to fine-tune: 1000].")
@click.option("--members", default=4, show_default=True, help="Networks in the ensemble.")
@click.option("--windows", type=int, help="Each of them is trained on  [4000000; to fine-tune: 500000].")
@click.option("--bfloat16", is_flag=True, help="Multiply in bfloat16: faster on processors that have it.")
@click.option("--seed", default=0, show_default=True)
@click.option("--scheduler", help="Address of a Dask scheduler that shares out the simulations.")
def train(out, file, fine_tune, structures, members, windows, bfloat16, seed, scheduler):
    """Simulate, train and calibrate the tilt network of a microscope into OUT (.safetensors); resumes."""
    from unitcell.scattering import Microscope
    from unitcell.your_microscope import FINE_TUNED, Recipe, load_microscope_file, train_for

    microscope, specimens = load_microscope_file(file) if file else (Microscope(), None)
    given = {"structures": structures, "windows": windows, "members": members, "bfloat16": bfloat16, "seed": seed}
    chosen = {key: value for key, value in given.items() if value is not None}
    recipe = Recipe(**(FINE_TUNED if fine_tune else {}) | chosen)
    folder = out.with_suffix(".training")
    ensemble = train_for(microscope, specimens, recipe, folder=folder, scheduler=scheduler)
    ensemble.card["command"] = " ".join(["unitcell", *sys.argv[1:]])
    ensemble.save(out)
    for name in ("v", "u", "gamma"):
        rms, covered = (ensemble.card["test"][f"{key}_{name}{end}"] for key, end in (("rms", "_deg"), ("coverage", "")))
        click.echo(f"{name}: rms error {rms:.2f}° on unseen specimens, {covered:.3f} within the 90 % intervals")
    click.echo(str(out))


@commands.command("paper-network")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--surrogate", type=click.Path(path_type=Path), help="surrogate.nc of chapter 03 [the book's].")
@click.option("--filters", default=64, show_default=True)
@click.option("--hidden", default=512, show_default=True)
@click.option("--images", default=656_100, show_default=True, help="Training images of an epoch.")
@click.option("--epochs", default=12, show_default=True)
@click.option("--bfloat16", is_flag=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="Torch device; cuda is shared out under torchrun.")
def paper_network(out, surrogate, filters, hidden, images, epochs, bfloat16, seed, device):
    """Train the network of Laanait 2019 by its recipe into OUT (.safetensors); resumes; runs under torchrun."""
    from unitcell.paper_training import PaperRecipe, train_paper_network
    from unitcell.project import default_artefact

    recipe = PaperRecipe(filters, hidden, images=images, epochs=epochs, bfloat16=bfloat16, seed=seed)
    history = train_paper_network(out, surrogate or default_artefact("03_gp_surrogate", "surrogate.nc"), recipe, device)
    if history:
        last = history[-1]
        errors = ", ".join(f"{name} {last[f'rms_{name}_deg']:.2f}°" for name in ("alpha", "beta", "gamma"))
        click.echo(f"{last['windows']} images; rms errors with signs {errors}; of v {last['folded_v_deg']:.2f}°")


def _literal(text):
    """A Python literal where `text` is one (3, 1e-4, [100, 200], None, True), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@commands.command()
@click.option("--profile", default="book", show_default=True)
@click.option("--strict", is_flag=True, help="Treat warnings of the pages as errors.")
@click.argument("targets", nargs=-1)
def build(profile, strict, targets):
    """Run the chapters that need it, then the pages; their path is printed last."""
    pages = load_profile(profile).pages / "_build" / "html" / "index.html"
    os.chdir(project_root())
    _gather_data()
    with _alone(Path("build") / profile):
        status = _snakemake(profile, strict, targets)
    if status:
        click.echo("unitcell: the build stopped at the error above; what had finished is kept.", err=True)
        sys.exit(status)
    if not targets:
        click.echo(pages.resolve())


def _gather_data():
    """Download what is missing before the chapters start; say aloud what cannot be had."""
    for name in load_manifest():
        try:
            fetch(name)
        except DataUnavailable as error:
            click.echo(f"[data] {error} Until then, chapters use a simulated image in its place, and say so.", err=True)


def _snakemake(profile, strict, targets):
    """Run the workflow; its own log goes to a file, so that the screen shows the chapters only."""
    log = Path("build") / profile / "workflow.log"
    environment = os.environ | dict.fromkeys(THREADS, str(threads_per_job())) | {BUILD_PID: str(os.getpid())}
    command = [
        sys.executable, "-m", "snakemake", *targets,
        "--cores", str(JOBS_AT_A_TIME * threads_per_job()),
        "--config", f"profile={profile}", f"strict={strict}",
        "--rerun-triggers", "input", "mtime", "params",
        "--rerun-incomplete", "--nolock", "--keep-going",
    ]  # fmt: skip
    with open(log, "w") as stream:
        status = subprocess.run(command, env=environment, stderr=stream, check=False).returncode
    text = log.read_text()
    if status and "Error in rule" not in text:  # else the chapter that failed has said why
        click.echo("\n".join(text.splitlines()[-20:]), err=True)
    return status


@contextmanager
def _alone(folder):
    """Hold the lock of a build folder; the system frees it however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo(f"Another build of {folder} is running: waiting for it to end.", err=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@commands.command()
@click.option("--profile", default="book", show_default=True)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
def pages(profile, strict):
    """Make the HTML from the executed chapters of a profile."""
    from unitcell.pages import make_pages

    sys.exit(make_pages(load_profile(profile), strict))


@commands.command()
@click.option("--profile", default="book", show_default=True)
def times(profile):
    """Print the measured time and memory of each chapter as a Markdown table."""
    click.echo("| chapter | time | memory |\n|---|---|---|")
    for name in CHAPTERS:
        path = project_root() / load_profile(profile).folder(name) / "provenance.json"
        if not path.is_file():
            raise InputError(f"No file at {path}: run 'unitcell build --profile {profile}' first.")
        run = json.loads(path.read_text())
        click.echo(f"| {name} | {run['seconds'] / 60:.1f} min | {run['peak_memory_MB'] / 1000:.1f} GB |")
