"""What a file's header promises, checked before its pixels are read: nothing huge, cut off, pickled or coloured."""

import json
import math
import re
import struct
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from unitcell.errors import InputError
from unitcell.micrographs.frames import MINIMUM_PX

LARGEST_BYTES = 2e9  # of pixels that are read at once
ZARR_METADATA = {".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"}
MRC_BYTES = {0: 1, 1: 2, 2: 4, 4: 8, 6: 2, 12: 2}  # of a pixel, by the header's mode
SER_BYTES = {1: 1, 2: 2, 3: 4, 4: 1, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 16}  # by the element's data type


def on_one_line(path):
    """A path as messages name it: on one line."""
    return " ".join(str(path).splitlines())


def _require_bytes(path, declared, held, exact=False):
    """Refuse pixels that the file cannot hold, before memory is asked for them, and more than are read at once."""
    if declared > held or (exact and declared != held):
        raise ValueError(f"its header declares {declared} bytes where it has {held}")
    _require_size(path, declared)


def _require_size(path, declared):
    if declared > LARGEST_BYTES:
        raise InputError(
            f"{on_one_line(path)} declares {declared / 1e9:.3g} GB of pixels, more than the {LARGEST_BYTES / 1e9:g} GB "
            "that are read at once: export the image or the frames to analyse to a file of their own."
        )


def read_npy(path):
    """The array of a npy file; never unpickled."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.memmap):
        raise ValueError("an archive of several arrays")
    _require_bytes(path, array.offset + array.nbytes, path.stat().st_size, exact=True)
    return np.array(array)


def read_png(path):
    """Grey values of a png, also where all channels are equal; rosettasciio's reader compares two of them only."""
    with Image.open(path, formats=["PNG"]) as picture:
        _require_size(path, 4 * math.prod(picture.size) * getattr(picture, "n_frames", 1))
        frames = [np.asarray(f.convert("RGBA") if f.mode == "P" else f) for f in ImageSequence.Iterator(picture)]
    return _grey(frames[0] if len(frames) == 1 else np.stack(frames))


def _grey(pixels):
    """One channel where the colours are equal and nothing is transparent, else as given."""
    if pixels.ndim < 3 or pixels.shape[-1] not in (2, 3, 4):
        return pixels
    colours, alpha = (pixels[..., :-1], pixels[..., -1:]) if pixels.shape[-1] != 3 else (pixels, pixels[..., :0])
    grey = (colours == colours[..., :1]).all() and (alpha == alpha.max(initial=0)).all()
    return colours[..., 0] if grey else np.broadcast_to(colours[..., :1], (*colours.shape[:-1], 3))


def _check_mrc(path):
    """MRC2014: sizes, mode and extended header against the length of the file."""
    with open(path, "rb") as stream:
        header = stream.read(1024)
    columns, rows, sections, mode = struct.unpack_from("<4I", header)
    extended = struct.unpack_from("<I", header, 92)[0]
    declared = 1024 + extended + columns * rows * sections * MRC_BYTES[mode]
    _require_bytes(path, declared, path.stat().st_size, exact=True)


def _check_ser(path):
    """TIA series: every length in the header, and that each element ends where its tag starts."""
    _require_size(path, path.stat().st_size)
    content = path.read_bytes()
    order, series, version, kind, _, total, valid = struct.unpack_from("<3H4I", content)
    word, width = ("Q", 8) if version > 528 else ("I", 4)
    start, dimensions = struct.unpack_from(f"<{word}I", content, 22)
    if (order, series) != (0x4949, 0x0197) or valid > total:
        raise ValueError("not a TIA series")
    position = 26 + width
    for text in range(2 * dimensions):  # description and unit of each dimension
        position += 24 * (text % 2 == 0)
        position += 4 + struct.unpack_from("<I", content, position)[0]
    _require_bytes(path, start + 2 * width * total, len(content))
    if kind != 0x4122:
        raise InputError(f"{on_one_line(path)} holds spectra: give an image.")
    offsets = [struct.unpack_from(f"<{valid}{word}", content, start + n * width * total) for n in range(2)]
    for data, tag in zip(*offsets, strict=True):
        pixel, columns, rows = struct.unpack_from("<H2I", content, data + 40)
        _require_bytes(path, data + 50 + columns * rows * SER_BYTES[pixel], tag, exact=True)


def _check_tiff(path):
    """Colours, and that every strip lies inside the file."""
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        _require_size(path, sum(series.nbytes for series in tiff.series))
        for page in (page for series in tiff.series for page in series.pages if page is not None):
            colour = page.keyframe.photometric
            if colour not in (1, 2):  # RGB is told by its type later
                raise InputError(
                    f"{on_one_line(path)} stores its grey values as {colour.name.lower()}: save it as plain grey scale."
                )
            ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
            _require_bytes(path, max(ends), path.stat().st_size)
            if page.keyframe.compression == 1:
                _require_bytes(path, page.nbytes, sum(page.databytecounts))


def _check_hdf5(path):
    """Declared sizes, and that every block of an image was written: HDF5 gives zeros for those that were not."""
    import h5py

    datasets = []
    with h5py.File(path, "r") as file:
        # What a Velox file holds of spectra is not read here.
        file.visititems(lambda name, item: None if name.startswith("Data/Spectrum") else datasets.append(item))
        datasets = [item for item in datasets if isinstance(item, h5py.Dataset) and item.size]
        _require_size(path, sum(item.nbytes for item in datasets))
        for item in (item for item in datasets if item.ndim > 1 and sorted(item.shape)[-2] >= MINIMUM_PX):
            blocks = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True)) if item.chunks else 1
            written = item.id.get_num_chunks() if item.chunks else item.id.get_storage_size() > 0
            _require_blocks(item.name, written, blocks)


def _require_blocks(name, written, blocks):
    if written < blocks:
        raise ValueError(f"{name} has {int(written)} of {blocks} blocks")


def _check_zarr(path):
    """No pickles, declared sizes, and that every block of the images is there: zarr gives zeros for those missing."""
    import zarr

    for text in _zarr_metadata(path):
        if re.search(r'"(numcodecs\.)?pickle"', json.dumps(json.loads(text))):
            raise InputError(f"{on_one_line(path)} holds pickled Python objects, which are never run: export it again.")
    if path.is_dir():
        _require_whole_blosc(path)
    with closing(zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path)) as store:
        members = [item for _, item in zarr.open_group(store, mode="r").members(max_depth=None)]
        arrays = [item for item in members if isinstance(item, zarr.Array)]
        _require_size(path, sum(array.nbytes for array in arrays))
        for array in (array for array in arrays if array.basename == "data"):
            _require_blocks(array.name, array.nchunks_initialized, array.nchunks)


def _zarr_metadata(path):
    """The JSON documents of a zarr folder or zip."""
    if path.is_dir():
        return [file.read_text() for file in path.rglob("*") if file.name in ZARR_METADATA]
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name).decode() for name in archive.namelist() if Path(name).name in ZARR_METADATA]


def _require_whole_blosc(folder):
    """Refuse blocks of a zarr folder that are cut off: blosc decodes most of them, and makes up what is missing.

    The header of a blosc buffer ends in its length (c-blosc 1, README_CHUNK_FORMAT); a zip has checksums of its own.
    """
    for file in (file for file in folder.rglob("*") if file.name in (".zarray", "zarr.json")):
        told = file.read_text()
        if "shape" not in json.loads(told) or '"blosc"' not in told or "sharding_indexed" in told:
            continue
        for block in (path for path in file.parent.rglob("*") if path.is_file() and path.name not in ZARR_METADATA):
            with open(block, "rb") as stream:
                header = stream.read(16)
            _require_bytes(folder, struct.unpack_from("<I", header, 12)[0], block.stat().st_size)


def _check_dm(path):
    """Digital Micrograph: that the pixels of each image lie inside the file."""
    from rsciio.digitalmicrograph._api import DigitalMicrographReader

    with open(path, "rb") as stream:
        reader = DigitalMicrographReader(stream)
        reader.parse_file()
        for image in reader.get_image_dictionaries():
            data = image["ImageData"]["Data"]
            _require_bytes(path, data["offset"] + data["size_bytes"], path.stat().st_size)


CHECKS = {"digitalmicrograph": _check_dm, "emd": _check_hdf5, "hspy": _check_hdf5, "zspy": _check_zarr}
CHECKS |= {"tiff": _check_tiff, "mrc": _check_mrc, "tia": _check_ser}
