"""Input data: named in `data_manifest.yml`, verified by SHA-256 before every use."""

import os
from pathlib import Path

import jsonschema
import pooch
import yaml

from unitcell.artefacts import sha256
from unitcell.errors import InputError
from unitcell.micrographs.images import read_image
from unitcell.project import project_root

MIRROR = "UNITCELL_DATA_MIRROR"
_TEXT = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["file", "sha256", "bytes", "licence", "role", "description"],
        "additionalProperties": False,
        "properties": {
            "file": _TEXT,  # name in the mirror and the cache, or path in the repository if committed
            "url": {"type": "string", "pattern": "^https://"},
            "command": _TEXT,  # regenerates a committed artefact
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "bytes": {"type": "integer", "minimum": 1},
            "licence": _TEXT,
            "role": {"enum": ["downloaded", "committed"]},
            "description": _TEXT,
            "pixel_size_A": {"type": "number", "exclusiveMinimum": 0},
        },
    },
}


class DataUnavailable(InputError):
    """A file of the manifest is neither mirrored nor cached, and could not be downloaded."""


def load_manifest(path=None):
    """The manifest as a dictionary of entries, checked against its schema."""
    path = Path(path) if path else project_root() / "data_manifest.yml"
    manifest = yaml.safe_load(path.read_text())
    try:
        jsonschema.validate(manifest, SCHEMA)
    except jsonschema.ValidationError as error:
        where = " → ".join(str(part) for part in error.absolute_path) or "the top level"
        raise InputError(f"{path} breaks its schema at {where}: {error.message}.") from error
    return manifest


def fetch(name):
    """Path of a verified file of the manifest.

    Looks in the repository (committed files), then the folder named by `UNITCELL_DATA_MIRROR`, then
    the cache, then downloads.

    Raises
    ------
    InputError
        Unknown name, or a file whose SHA-256 is not the manifest's.
    DataUnavailable
        No mirror, no cached copy and no network.
    """
    manifest = load_manifest()
    if name not in manifest:
        raise InputError(f"data_manifest.yml has no entry '{name}': it has {', '.join(manifest)}.")
    entry = manifest[name]
    if entry["role"] == "committed":
        return _verified(project_root() / entry["file"], entry, f"restore it with: {entry.get('command')}")
    mirror = os.environ.get(MIRROR)
    if mirror and (Path(mirror) / entry["file"]).is_file():
        return _verified(Path(mirror) / entry["file"], entry, f"correct the copy in the folder that {MIRROR} names")
    return _downloaded(entry)


def is_at_hand(name):
    """Whether a file of the manifest is in the repository, the mirror or the cache (not verified)."""
    entry = load_manifest()[name]
    folders = [project_root()] if entry["role"] == "committed" else [pooch.os_cache("unitcell")]
    if os.environ.get(MIRROR):
        folders.append(Path(os.environ[MIRROR]))
    return any((Path(folder) / entry["file"]).is_file() for folder in folders)


def open_image(name):
    """Fetch an image of the manifest and read it with the pixel size stated there."""
    return read_image(fetch(name), load_manifest()[name].get("pixel_size_A"))


def _verified(path, entry, remedy):
    if not path.is_file():
        raise InputError(f"{path} is missing: {remedy}.")
    found = sha256(path)
    if found != entry["sha256"]:
        raise InputError(
            f"{path} has SHA-256 {found[:12]}…, but data_manifest.yml expects {entry['sha256'][:12]}…: {remedy}."
        )
    return path


def _downloaded(entry):
    """The cached copy, downloaded and verified by pooch where there is none."""
    folder = pooch.os_cache("unitcell")
    try:
        found = pooch.retrieve(entry["url"], f"sha256:{entry['sha256']}", entry["file"], folder, progressbar=True)
    except ValueError as error:
        raise InputError(f"{entry['url']} did not give the file that data_manifest.yml expects: {error}.") from error
    except Exception as error:  # requests, urllib3 and socket each have their own words for 'no network'
        raise DataUnavailable(
            f"{entry['file']} is neither in the folder that {MIRROR} names nor in {folder}, and could not be "
            f"downloaded ({type(error).__name__}): set {MIRROR}, or go online once."
        ) from error
    return Path(found)
