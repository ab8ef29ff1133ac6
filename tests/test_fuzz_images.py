"""Odd and broken files of every format: one sentence that names the file, or exactly the image that was written."""

import os
import pickle
import struct
import tracemalloc
import warnings
import zlib

import h5py
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from image_files import KINDS, SHAPE, signal, write, write_ser, write_zspy
from PIL import Image
from rsciio import hspy
from synthetic_abf import A_A, synthetic_abf
from unitcell.errors import InputError
from unitcell.micrographs.images import read_image
from unitcell.registration.lattice import register

EVERY = (*KINDS, "npy", "png")
CUTS = (0.0, 1e-3, 0.03, 0.1, 0.3, 0.6, 0.9, 0.999)  # of a file's length that remains
FLIPS = 12  # broken headers of each format
TWINS = ({"dm3", "dm4"}, {"hspy", "hdf5"}, {"emd", "velox.emd"})  # read by the same reader


@pytest.fixture
def pixels():
    """Whole numbers that every format can hold."""
    return np.random.default_rng(0).integers(60, 140, SHAPE).astype(np.float32)


@pytest.fixture(autouse=True)
def _silent(capfd):
    """No reader may write a traceback, or anything else, to the screen."""
    yield
    assert capfd.readouterr().err == ""


def written(path, pixels):
    if path.suffix == ".png":
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    else:
        write(path, pixels)
    return path


def parts(path):
    """The files of an image: one, or those of a zspy folder."""
    return [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file())


def verdict(path, pixel_size_A=0.1, frame=None):
    """The image read, or None where it was refused in one sentence that names the file."""
    image = refusal = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing but the InputError may be said
        try:
            image = read_image(path, pixel_size_A, frame)
        except InputError as error:
            refusal = str(error)
    if image is None:
        assert "\n" not in refusal
        assert str(path) in refusal
        return None
    assert image.intensity.dtype == np.float32
    assert image.intensity.ndim == 2
    assert np.isfinite(image.intensity).all()
    return image


def refused_or_equal(path, pixels, **more):
    """Never a silent wrong answer; returns whether the file was refused."""
    image = verdict(path, **more)
    if image is not None:
        np.testing.assert_array_equal(image.intensity, pixels)
    return image is None


def test_there_are_enough_files():
    assert len(EVERY) * (len(CUTS) + FLIPS) >= 200


@pytest.mark.parametrize("kind", EVERY)
def test_truncated_files(tmp_path, pixels, kind):
    refused = 0
    for cut in CUTS:
        path = written(tmp_path / f"{cut} cut.{kind}", pixels)
        part = max(parts(path), key=lambda part: part.stat().st_size)
        content = part.read_bytes()
        part.write_bytes(content[: int(cut * len(content))])
        refused += refused_or_equal(path, pixels)
    assert refused >= len(CUTS) - 1  # a file may end in bytes that mean nothing


@pytest.mark.parametrize("kind", EVERY)
def test_flipped_headers(tmp_path, pixels, kind):
    """A broken byte may hit the pixels, whose values then cannot be known, but not their number."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    path = written(tmp_path / f"flipped.{kind}", pixels)
    for _ in range(FLIPS):
        part = parts(path)[rng.integers(len(parts(path)))]
        content = part.read_bytes()
        broken = bytearray(content)
        broken[rng.integers(min(len(broken), 600))] ^= 1 << rng.integers(8)
        part.write_bytes(broken)
        image = verdict(path)
        assert image is None or image.intensity.shape == SHAPE
        part.write_bytes(content)
    assert not refused_or_equal(path, pixels)


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind != "png"])
def test_truncated_stacks(tmp_path, pixels, kind):
    """None of three frames may be dropped, so that the last is the last."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()) + 1)
    stack = np.stack([pixels, pixels[::-1], pixels[:, ::-1]])
    path = written(tmp_path / f"stack.{kind}", stack)
    for _ in range(4):
        part = parts(path)[rng.integers(len(parts(path)))]
        content = part.read_bytes()
        part.write_bytes(content[: rng.integers(len(content))])
        refused_or_equal(path, stack[2], frame=2)
        part.write_bytes(content)
    assert not refused_or_equal(path, stack[2], frame=-1)


@pytest.mark.parametrize("kind", EVERY)
def test_wrong_suffixes(tmp_path, pixels, kind):
    source = written(tmp_path / f"right.{kind}", pixels)
    for other in EVERY:
        if other == kind or "zspy" in (kind, other) or {kind, other} in TWINS:
            continue
        path = tmp_path / f"wrong.{other}"
        path.write_bytes(source.read_bytes())
        assert verdict(path) is None, other


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\xff" * 4096, b"words\n" * 800, pickle.dumps({"data": 1})])
@pytest.mark.parametrize("kind", EVERY)
def test_files_that_hold_something_else(tmp_path, kind, content):
    path = tmp_path / f"other.{kind}"
    path.write_bytes(content)
    assert verdict(path) is None


ODD = {
    "NaN": lambda p: np.where(p > 100, np.nan, p),
    "infinite": lambda p: np.where(p > 100, np.inf, p),
    "beyond float32": lambda p: p.astype(float) * 1e40,
    "constant": np.ones_like,
    "RGB": lambda p: np.stack([p, p, p], -1),
    "RGBA": lambda p: np.stack([p] * 4, -1),
    "0-D": lambda p: p.mean(),
    "1-D": lambda p: p[0],
    "5-D": lambda p: np.ones((2, 3, 2, 1, 1)) * p[None, None, None],
    "empty": lambda p: p[:0],
    "one row": lambda p: p[:1],
    "complex": lambda p: p + 1j,
    "bool": lambda p: p > 100,
    "text": lambda p: p.astype("S8"),
    "durations": lambda p: p.astype("m8[s]"),
    "fields": lambda p: p.astype([("R", "u1"), ("G", "u1"), ("B", "u1")]),
}


@pytest.mark.parametrize("odd", ODD)
def test_arrays_that_are_no_image(tmp_path, pixels, odd):
    array = ODD[odd](pixels)
    np.save(tmp_path / "odd.npy", array)
    assert verdict(tmp_path / "odd.npy") is None
    if odd not in ("0-D", "durations", "empty"):  # which HDF5 or its writer does not know
        told = signal(pixels) | {"data": array}
        told["axes"] = [told["axes"][-1] | {"size": size} for size in array.shape]
        hspy.file_writer(str(tmp_path / "odd.hspy"), told)
        assert verdict(tmp_path / "odd.hspy") is None


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<u4", "<f2", ">f8", "<i8"])
def test_every_real_type_comes_back(tmp_path, pixels, dtype, order):
    np.save(tmp_path / "image.npy", np.asarray(pixels, dtype, order=order))
    assert not refused_or_equal(tmp_path / "image.npy", pixels)


def huge_npy(path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (400000, 900000), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())


def huge_mrc(path):
    path.write_bytes(struct.pack("<4I", 400000, 900000, 1, 2) + bytes(1008))


def huge_tif(path):
    tifffile.imwrite(
        path, shape=(60000, 60000), dtype=np.uint8, compression="zlib", rowsperstrip=60000, data=iter([b"x"])
    )


def huge_hspy(path):
    hspy.file_writer(str(path), signal(np.ones(SHAPE)))
    with h5py.File(path, "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        group.create_dataset("data", (400000, 900000), "f4", chunks=(1000, 1000))


def huge_zspy(path):
    write_zspy(path, np.ones(SHAPE, np.float32))
    zarr.open_group(str(path))["Experiments/ABF"].create_array("more", shape=(400000, 900000), dtype="f4", chunks=SHAPE)


def huge_ser(path):
    write_ser(path, np.ones(SHAPE, np.float32))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2I", content, content.index(struct.pack("<2I", SHAPE[1], SHAPE[0])), 400000, 900000)
    path.write_bytes(content)


def huge_dm(path):
    write(path, np.ones(SHAPE, np.float32))
    sizes = {"dm3": ">i", "dm4": ">q"}[path.suffix[1:]]
    here, there = (struct.pack(sizes, n) for n in (SHAPE[0] * SHAPE[1], 2**31 - 9))
    path.write_bytes(path.read_bytes().replace(here, there))


def huge_png(path):
    header = b"IHDR" + struct.pack(">2I5B", 400000, 900000, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc)


HUGE = {"npy": huge_npy, "mrc": huge_mrc, "tif": huge_tif, "hspy": huge_hspy, "zspy": huge_zspy, "ser": huge_ser}
HUGE |= {"dm3": huge_dm, "dm4": huge_dm, "png": huge_png}


@pytest.mark.parametrize("kind", HUGE)
def test_huge_declared_shapes_cost_no_memory(tmp_path, kind):
    path = tmp_path / f"huge.{kind}"
    HUGE[kind](path)
    verdict(path)  # imports
    tracemalloc.start()
    assert verdict(path) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e7


class Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_run(tmp_path, pixels):
    trap = Trap(tmp_path / "sprung")
    np.save(tmp_path / "objects.npy", np.array([[trap] * 20] * 20), allow_pickle=True)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(trap))
    for place in ("Experiments/ABF", "Experiments/ABF/metadata"):
        path = tmp_path / f"{place.replace('/', ' ')}.zspy"
        write_zspy(path, pixels)
        group = zarr.open_group(str(path), mode="a", zarr_format=2)[place]
        group.create_array("_list_x", shape=(1,), dtype="u1", filters=[numcodecs.Pickle()], compressors=None)
        (path / place / "_list_x" / "0").write_bytes(pickle.dumps(trap))
    for path in tmp_path.iterdir():
        assert verdict(path) is None
        assert not trap.path.exists()


def test_a_block_that_was_never_written_is_missed(tmp_path, pixels):
    """Both HDF5 and zarr would give zeros for it, and for a block cut off by its last bytes zarr gives noise."""
    written(tmp_path / "image.zspy", pixels)
    block = tmp_path / "image.zspy/Experiments/ABF/data/0.0"
    content = block.read_bytes()
    for lost in range(1, 40):
        block.write_bytes(content[:-lost])
        assert verdict(tmp_path / "image.zspy") is None, lost
    block.unlink()
    assert verdict(tmp_path / "image.zspy") is None
    written(tmp_path / "image.hspy", pixels)
    with h5py.File(tmp_path / "image.hspy", "a") as file:
        group = next(iter(file["Experiments"].values()))
        del group["data"]
        group.create_dataset("data", SHAPE, "f4", chunks=(20, 24))[:20] = pixels[:20]
    assert verdict(tmp_path / "image.hspy") is None


@pytest.mark.parametrize(
    "name", ["Å ångström µ.mrc", "two words.TIF", "日本.npy", "a.b.c.hspy", "per%cent {x}.npy", "#.ser"]
)
def test_any_name_will_do(tmp_path, pixels, name):
    plain = written(tmp_path / f"plain.{name.rpartition('.')[2].lower()}", pixels)
    path = plain.rename(tmp_path / name)
    assert not refused_or_equal(path, pixels)
    path.write_bytes(b"?")
    assert verdict(path) is None


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "empty.zspy").mkdir()
    (tmp_path / "dangling.npy").symlink_to(tmp_path / "nowhere.npy")
    (tmp_path / "loop.npy").symlink_to(tmp_path / "loop.npy")
    os.mkfifo(tmp_path / "pipe.mrc")
    names = ["folder.tif", "empty.zspy", "dangling.npy", "loop.npy", "pipe.mrc", "no suffix", "x" * 300 + ".npy", ""]
    for path in (*(tmp_path / name for name in names), None, 7, ""):
        assert verdict(path) is None or path == ""
    with pytest.raises(InputError, match=r"No image at .*two lines\.npy"):
        read_image(tmp_path / "two\nlines.npy")


@pytest.mark.parametrize(
    ("units", "scale", "scale_y"),
    [
        *((units, 0.1, None) for units in ("1/nm", "1 / nm", "nm^-1", "mrad", "", "px", "s", "cm")),
        *(("nm", scale, None) for scale in (0.0, float("nan"), float("inf"), 12.5)),
        ("nm", 0.0125, 0.02),
    ],
)
def test_units_and_steps_that_give_no_pixel_size(tmp_path, pixels, units, scale, scale_y):
    hspy.file_writer(str(tmp_path / "image.hspy"), signal(pixels, scale, units, scale_y))
    assert verdict(tmp_path / "image.hspy", None) is None


@pytest.mark.parametrize("size", ["0.1", [0.1], 0, -1, float("inf"), 1e9, True, {}])
def test_pixel_sizes_that_are_none(tmp_path, pixels, size):
    np.save(tmp_path / "image.npy", pixels)
    assert verdict(tmp_path / "image.npy", size) is None


@pytest.mark.parametrize("kind", ["npy", "tif", "mrc", "hspy"])
def test_inverted_contrast_is_refused_and_turned_on_request(tmp_path, kind):
    image, _ = synthetic_abf(noise=0.1)
    path = written(tmp_path / f"adf.{kind}", -image.intensity)
    with pytest.raises(InputError, match=rf"adf\.{kind} shows bright columns on a dark ground, like an ADF image"):
        register(read_image(path, image.pixel_size_A), A_A)
    with pytest.warns(UserWarning, match="inverted on request"):
        turned = read_image(path, image.pixel_size_A, invert=True)
    assert register(turned, A_A).a_A == pytest.approx(A_A, rel=2e-3)
    scale = 1.2 * image.pixel_size_A
    with pytest.raises(InputError, match=r"the lattice of adf\.\w+ measures 1\.20 times the expected"):
        register(read_image(written(path, image.intensity), scale), A_A)
