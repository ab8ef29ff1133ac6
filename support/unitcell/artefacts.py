"""Files that chapters hand to each other: written whole or not at all, never pickled."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import xarray as xr
from safetensors import SafetensorError, safe_open

from unitcell.errors import InputError


def sha256(path):
    """SHA-256 of a file as a hexadecimal string."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def written(path):
    """Yield a temporary path beside `path`; rename it to `path` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def existing(path, remedy):
    """Return `path` as a Path, or raise InputError naming it and the remedy."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file at {path}: {remedy}.")
    return path


def save_table(frame, path, decimals=6):
    """Write a pandas DataFrame as CSV."""
    with written(path) as temporary:
        frame.to_csv(temporary, index=False, float_format=f"%.{decimals}g")


def load_table(path, columns=()):
    """Read a CSV table and require `columns`."""
    path = existing(path, "run the chapter that writes it, or give the path of another table")
    try:
        frame = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable CSV table ({error}).") from error
    missing = [name for name in columns if name not in frame]
    if missing:
        raise InputError(f"{path} lacks the column(s) {', '.join(missing)}: it has {', '.join(frame)}.")
    return frame


def save_dataset(dataset, path, step=None):
    """Write an xarray Dataset as netCDF, compressed.

    Parameters
    ----------
    dataset : xarray.Dataset
    path : path
    step : float, optional
        Round every array to multiples of it and pack them into 16 bits (values from 0 to 65534 steps, or NaN).
    """
    packed = {"dtype": "uint16", "scale_factor": step, "_FillValue": 65535} if step else {}
    encoding = {name: {"zlib": True, "complevel": 4} | packed for name in dataset.data_vars if dataset[name].ndim > 0}
    with written(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def load_dataset(path, variables=()):
    """Read a netCDF file into memory as an xarray Dataset and require `variables`."""
    path = existing(path, "run the chapter that writes it, or give the path of another netCDF file")
    try:
        dataset = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable netCDF file ({error}).") from error
    missing = [name for name in variables if name not in dataset]
    if missing:
        raise InputError(f"{path} lacks the variable(s) {', '.join(missing)}: it has {', '.join(dataset)}.")
    return dataset


def plain_attributes(dataset):
    """A Dataset's attributes as JSON types: netCDF gives back NumPy numbers and arrays."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in dataset.attrs.items()}


def save_json(content, path):
    """Write a dictionary as JSON."""
    with written(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def save_weights(tensors, path, architecture, card):
    """Write network weights as safetensors.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        A state dict.
    architecture : str
        Name and sizes of the network; `load_weights` refuses any other.
    card : dict
        Everything needed to use the weights (JSON types): normalisation, calibration, recipe.
    """
    from safetensors.torch import save_file  # brings torch, which takes seconds: only for those who write weights

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"architecture": architecture, "card": json.dumps(card, sort_keys=True)}
    with written(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors leaves its files readable by their owner only


def load_weights(path, architecture):
    """Read safetensors weights written by `save_weights`.

    Parameters
    ----------
    architecture : str
        What the weights must be: the full name, or its leading word(s) before the sizes.

    Returns
    -------
    tensors : dict of str to torch.Tensor
    card : dict, with `architecture` added.

    Raises
    ------
    InputError
        No such file, not safetensors, or weights of another architecture.
    """
    path = existing(path, "train a network (chapter 04) or give the path of another .safetensors file")
    try:
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            found = metadata.get("architecture", "unknown")
            if not found.startswith(architecture):
                raise InputError(
                    f"{path} holds weights of architecture '{found}', but '{architecture}' is needed: "
                    "give weights that this chapter's network wrote."
                )
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}).") from error
    return tensors, json.loads(metadata["card"]) | {"architecture": found}
