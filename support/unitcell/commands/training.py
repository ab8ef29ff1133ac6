"""`unitcell simulate`, `train` and `paper-network`: libraries of images, and the networks that learn from them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unitcell.project import default_artefact, project_root

LIBRARY_STEP = 1 / 65535  # intensities from 0 to 1 in 16 bits: rounded to 8e-6
Seed = Annotated[int, typer.Option()]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler that shares out the simulations.")]


def add_to(app):
    """Add the commands of this module to a typer application."""
    for command in (simulate, train, paper_network):
        app.command()(command)


def simulate(
    out: Annotated[Path, typer.Argument(dir_okay=False, help="netCDF file to write.")],
    configurations: Annotated[int, typer.Option(help="Frozen-phonon configurations; 0 for elastic images.")] = 0,
    step: Annotated[float, typer.Option(help="Step of the tilt grid from -10° to 10° [degrees].")] = 5.0,
    scheduler: Scheduler = None,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    seed: Seed = 0,
):
    """Simulate the book's library of SrTiO3 (every tilt × 2 to 42 nm) into the netCDF file OUT; resumes."""
    from unitcell.abf.simulation import simulate_stack, tilt_grid
    from unitcell.artefacts import save_dataset
    from unitcell.scattering import Microscope

    stack = simulate_stack(
        tilt_grid(step), range(20, 421, 20), Microscope(), configurations=configurations, seed=seed,
        scheduler=scheduler, folder=project_root() / "build" / "campaign", device=device,
    )  # fmt: skip
    save_dataset(stack, out, step=LIBRARY_STEP)
    typer.echo(str(out))


def train(
    out: Annotated[Path, typer.Argument(dir_okay=False, help=".safetensors file to write.")],
    microscope: Annotated[Path | None, typer.Option(help="YAML file of the microscope [the book's].")] = None,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Start from the committed networks: an eighth of the work by default.")
    ] = False,
    structures: Annotated[int | None, typer.Option(help="Simulated for training [8000; to fine-tune: 1000].")] = None,
    members: Annotated[int, typer.Option(help="Networks in the ensemble.")] = 4,
    windows: Annotated[
        int | None, typer.Option(help="Each of them is trained on [8000000; to fine-tune: 1000000].")
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Multiply in bfloat16: faster on processors that have it.")
    ] = False,
    seed: Seed = 0,
    scheduler: Scheduler = None,
):
    """Simulate, train and calibrate the tilt network of a microscope into OUT (.safetensors); resumes."""
    from unitcell.networks.your_microscope import FINE_TUNED, Recipe, load_microscope_file, train_for
    from unitcell.scattering import Microscope

    scope, specimens = load_microscope_file(microscope) if microscope else (Microscope(), None)
    given = {"structures": structures, "windows": windows, "members": members, "bfloat16": bfloat16, "seed": seed}
    chosen = {key: value for key, value in given.items() if value is not None}
    recipe = Recipe(**(FINE_TUNED if fine_tune else {}) | chosen)
    ensemble = train_for(scope, specimens, recipe, folder=out.with_suffix(".training"), scheduler=scheduler)
    ensemble.card["command"] = " ".join(["unitcell", *sys.argv[1:]])
    ensemble.save(out)
    for name in ("v", "u", "gamma"):
        rms, covered = (ensemble.card["test"][f"{key}_{name}{end}"] for key, end in (("rms", "_deg"), ("coverage", "")))
        typer.echo(f"{name}: rms error {rms:.2f}° on unseen specimens, {covered:.3f} within the 90 % intervals")
    typer.echo(str(out))


def paper_network(
    out: Annotated[Path, typer.Argument(dir_okay=False, help=".safetensors file to write.")],
    surrogate: Annotated[Path | None, typer.Option(help="surrogate.nc of chapter 03 [the book's].")] = None,
    filters: Annotated[int, typer.Option()] = 64,
    hidden: Annotated[int, typer.Option()] = 512,
    images: Annotated[int, typer.Option(help="Training images of an epoch.")] = 656_100,
    epochs: Annotated[int, typer.Option()] = 12,
    bfloat16: Annotated[bool, typer.Option("--bfloat16")] = False,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="Torch device; cuda is shared out under torchrun.")] = "cpu",
):
    """Train the network of Laanait 2019 by its recipe into OUT (.safetensors); resumes; runs under torchrun."""
    from unitcell.networks.paper_training import PaperRecipe, train_paper_network

    recipe = PaperRecipe(filters, hidden, images=images, epochs=epochs, bfloat16=bfloat16, seed=seed)
    history = train_paper_network(out, surrogate or default_artefact("03_gp_surrogate", "surrogate.nc"), recipe, device)
    if history:
        last = history[-1]
        errors = ", ".join(f"{name} {last[f'rms_{name}_deg']:.2f}°" for name in ("alpha", "beta", "gamma"))
        typer.echo(f"{last['windows']} images; rms errors with signs {errors}; of v {last['folded_v_deg']:.2f}°")
