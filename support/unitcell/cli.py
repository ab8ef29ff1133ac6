"""The `unitcell` command: read an image, rerun a chapter, build the book, train for a microscope."""

import sys

import typer

from unitcell.commands import book, microscope_image, sweeping, training
from unitcell.errors import InputError


def application():
    """The command with all that it can do: typer.Typer."""
    app = typer.Typer(
        help="Unit Cell by Unit Cell: tilts from your own image, chapters rerun on it, or the whole book.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help and errors, the same on every terminal and in every log
    )
    for module in (microscope_image, book, sweeping, training):
        module.add_to(app)
    return app


def main():
    """Entry point: an InputError is one sentence and exit status 2, never a traceback."""
    try:
        application()(book.paired(sys.argv[1:]), prog_name="unitcell")
    except InputError as error:
        typer.echo(f"unitcell: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        place = f" at {error.filename}" if error.filename else ""
        typer.echo(
            f"unitcell: The system refused{place} ({error.strerror}): give another place, or make room.", err=True
        )
        sys.exit(2)
