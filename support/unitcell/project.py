"""Where the project's own files are, from whatever directory a chapter is run."""

from pathlib import Path

from unitcell.errors import InputError


def project_root():
    """The folder that holds `data_manifest.yml`: above this package, else above the working directory."""
    for start in (Path(__file__).resolve(), Path.cwd() / "x"):
        for folder in start.parents:
            if (folder / "data_manifest.yml").is_file():
                return folder
    raise InputError(
        "data_manifest.yml was not found above the package or the working directory: "
        "clone the project and install it with 'make book' or 'pip install -e .'."
    )


def default_artefact(chapter, name):
    """Where the book profile leaves an artefact: `build/book/<chapter>/<name>` in the project."""
    return project_root() / "build" / "book" / chapter / name
