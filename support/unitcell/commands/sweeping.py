"""`unitcell sweep`: chapters 06 to 08 over systems, windows, representations, seeds and numbers of classes."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from unitcell.artefacts import written
from unitcell.book.workflow import JOBS_AT_A_TIME, load_profile
from unitcell.commands.book import ProfileName, alone, run_graph
from unitcell.environments.sweep import SEEDS, SUB_IMAGES, chosen_settings, sweep_folder
from unitcell.project import project_root


def add_to(app):
    """Add the command of this module to a typer application."""
    app.command()(sweep)


def sweep(
    settings: Annotated[list[str] | None, typer.Argument(help="For instance lsmo_nio-36-raw [all].")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=len(SEEDS), help="Of the paper's settings.")] = len(SEEDS),
    most: Annotated[int, typer.Option(min=100, help="Sub-images of a setting.")] = SUB_IMAGES,
    jobs: Annotated[int, typer.Option(min=1, help="Chapters at a time.")] = JOBS_AT_A_TIME,
    profile: ProfileName = "book",
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="A copy of what is gathered.")] = None,
):
    """Rerun chapters 06 to 08 over many settings, those that changed, and gather what is finished into one file."""
    from unitcell.environments.sweep_results import gather

    chosen, out = chosen_settings(settings or ()), out and out.resolve()
    os.chdir(project_root())
    folder = sweep_folder(load_profile(profile))
    config = {"settings": ":".join(setting.name for setting in chosen), "seeds": seeds, "most": most}
    with alone(folder):
        status = run_graph(profile, config=config, snakefile="sweep.smk", jobs=jobs)
        gathered = gather(load_profile(profile), folder / "two_crystals.nc")
    if out:
        with written(out) as temporary:
            shutil.copyfile(gathered, temporary)
    if status:
        typer.echo("unitcell: the sweep stopped at the error above; what had finished is kept and gathered.", err=True)
        sys.exit(status)
    typer.echo(out or gathered.resolve())
