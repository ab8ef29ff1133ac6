"""Reading an image: every format gives back pixels and pixel size; what cannot be used is refused in one sentence."""

import struct

import numpy as np
import pytest
from PIL import Image
from rsciio import emd, hspy, tiff
from unitcell.errors import InputError
from unitcell.images import read_image

PIXEL_A = 0.125
SHAPE = (40, 48)  # rows, columns


@pytest.fixture
def pixels():
    return np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)


def signal(pixels, scale=PIXEL_A / 10, units="nm", scale_y=None):
    """What rosettasciio's writers take."""
    steps = zip("yx", pixels.shape, (scale_y or scale, scale), strict=True)
    common = {"offset": 0.0, "units": units, "navigate": False, "_type": "UniformDataAxis"}
    axes = [{"name": name, "size": size, "scale": step} | common for name, size, step in steps]
    metadata = {"General": {"title": ""}, "Signal": {"signal_type": ""}, "_HyperSpy": {}}
    empty = ("original_metadata", "learning_results", "tmp_parameters", "models")
    package = {"package": "hyperspy", "package_version": "2.0"}
    more = {name: {} for name in empty} | {"attributes": {"_lazy": False}, "package_info": package}
    return {"data": pixels, "axes": axes, "metadata": metadata, **more, **package}


def write_mrc(path, pixels, pixel_A):
    """An MRC2014 file by its specification: 1024 bytes of header, lengths in ångström, then float32 rows."""
    rows, columns = pixels.shape
    header = bytearray(1024)
    struct.pack_into("<10i", header, 0, columns, rows, 1, 2, 0, 0, 0, columns, rows, 1)
    struct.pack_into("<6f", header, 40, columns * pixel_A, rows * pixel_A, pixel_A, 90, 90, 90)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:216] = b"MAP \x44\x44\x00\x00"
    path.write_bytes(bytes(header) + pixels.tobytes())


def write(path, pixels):
    kind = path.suffix[1:]
    if kind == "mrc":
        write_mrc(path, pixels, PIXEL_A)
    else:
        writer = {"tif": tiff, "hspy": hspy, "hdf5": hspy, "emd": emd}[kind]
        writer.file_writer(str(path), signal(pixels))


@pytest.mark.parametrize("kind", ["tif", "mrc", "hspy", "hdf5", "emd"])
def test_pixels_and_pixel_size_come_back(tmp_path, pixels, kind):
    path = tmp_path / f"image.{kind}"
    write(path, pixels)
    image = read_image(path)
    assert image.pixel_size_A == pytest.approx(PIXEL_A, rel=1e-5)
    np.testing.assert_allclose(image.intensity, pixels, rtol=1e-6)
    assert image.field_A == pytest.approx((40 * PIXEL_A, 48 * PIXEL_A))


@pytest.mark.parametrize(
    ("units", "scale"),
    [
        ("nm", 0.0125),
        ("Å", 0.125),
        ("pm", 12.5),
        ("µm", 1.25e-5),
        ("\N{GREEK SMALL LETTER MU}m", 1.25e-5),
        ("m", 1.25e-11),
    ],
)
def test_units_of_the_file_become_angstrom(tmp_path, pixels, units, scale):
    hspy.file_writer(str(tmp_path / "image.hspy"), signal(pixels, scale, units))
    assert read_image(tmp_path / "image.hspy").pixel_size_A == pytest.approx(PIXEL_A)


@pytest.mark.parametrize("kind", ["npy", "png"])
def test_formats_without_a_pixel_size_need_one(tmp_path, pixels, kind):
    path = tmp_path / f"image.{kind}"
    if kind == "npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    with pytest.raises(InputError, match=f"{path} does not state its pixel size: give it as pixel_size_A"):
        read_image(path)
    image = read_image(path, 0.1)
    assert image.pixel_size_A == 0.1
    np.testing.assert_array_equal(image.intensity, pixels if kind == "npy" else pixels.astype(np.uint8))


def test_given_pixel_size_overrides_the_file(tmp_path, pixels):
    write(tmp_path / "image.tif", pixels)
    assert read_image(tmp_path / "image.tif", 0.2).pixel_size_A == 0.2


def test_a_reciprocal_unit_is_no_pixel_size(tmp_path, pixels):
    hspy.file_writer(str(tmp_path / "pattern.hspy"), signal(pixels, 0.1, "1/nm"))
    with pytest.raises(InputError, match="does not state its pixel size"):
        read_image(tmp_path / "pattern.hspy")


def test_pixels_that_are_not_square_are_refused(tmp_path, pixels):
    hspy.file_writer(str(tmp_path / "image.hspy"), signal(pixels, 0.0125, "nm", scale_y=0.025))
    with pytest.raises(InputError, match=r"has pixels of 0\.125 × 0\.25 Å: resample"):
        read_image(tmp_path / "image.hspy")


def constant(pixels):
    return np.ones_like(pixels)


def with_nan(pixels):
    pixels[3, 4] = np.nan
    return pixels


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (constant, r"is constant \(1 everywhere\): give an image with contrast"),
        (with_nan, r"has 1 pixels that are not finite \(NaN\): mask or interpolate"),
        (lambda p: p[:9, :9], "is 9 × 9 pixels: it must show at least 3 × 3 unit cells"),
        (lambda p: np.stack([p] * 3, axis=-1), r"is a colour \(RGB\) picture: export the grey-scale"),
        (lambda p: np.stack([p] * 5), r"holds an array of shape \(5, 40, 48\): give one two-dimensional image"),
        (lambda p: p + 1j, "holds values of type complex64: give a real-valued image"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, pixels, change, words):
    np.save(tmp_path / "image.npy", change(pixels))
    with pytest.raises(InputError, match=words) as caught:
        read_image(tmp_path / "image.npy", 0.1)
    assert str(caught.value).startswith(str(tmp_path / "image.npy"))
    assert "\n" not in str(caught.value)


def test_rgb_png_is_refused(tmp_path, pixels):
    grey = pixels.astype(np.uint8)
    Image.fromarray(np.stack([grey, grey, 255 - grey], axis=-1)).save(tmp_path / "image.png")
    with pytest.raises(InputError, match=r"image\.png is a colour \(RGB\) picture"):
        read_image(tmp_path / "image.png", 0.1)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"No image at {tmp_path / 'none.tif'}: check the path"):
        read_image(tmp_path / "none.tif")


@pytest.mark.parametrize("kind", ["tif", "mrc", "hspy", "hdf5", "emd", "dm3", "dm4", "ser", "npy", "png"])
def test_truncated_file_is_refused(tmp_path, pixels, kind):
    path = tmp_path / f"image.{kind}"
    if kind in ("dm3", "dm4", "ser"):
        path.write_bytes(b"not one of these")
    elif kind in ("npy", "png"):
        np.save(path, pixels) if kind == "npy" else Image.fromarray(pixels.astype(np.uint8)).save(path)
    else:
        write(path, pixels)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=f"{path} could not be read as a {kind} file") as caught:
        read_image(path, 0.1)
    assert "\n" not in str(caught.value)


def test_unknown_type_is_named(tmp_path):
    (tmp_path / "image.doc").write_text("words")
    with pytest.raises(InputError, match=r"image\.doc is of a type that is not read here: use npy, dm3, dm4, emd"):
        read_image(tmp_path / "image.doc")


@pytest.mark.parametrize("size", [0.0, -0.1, 10.0, float("nan")])
def test_impossible_pixel_size_is_refused(tmp_path, pixels, size):
    np.save(tmp_path / "image.npy", pixels)
    with pytest.raises(InputError, match="cannot resolve or hold atoms: give pixel_size_A between"):
        read_image(tmp_path / "image.npy", size)


def test_what_the_file_says_of_the_microscope_is_kept(tmp_path, pixels):
    told = signal(pixels)
    told["metadata"]["Acquisition_instrument"] = {"TEM": {"beam_energy": 300.0, "convergence_angle": 21.4}}
    hspy.file_writer(str(tmp_path / "image.hspy"), told)
    assert read_image(tmp_path / "image.hspy").recorded == {"energy_eV": 3e5, "semiangle_mrad": 21.4}
    write(tmp_path / "plain.hspy", pixels)
    assert read_image(tmp_path / "plain.hspy").recorded == {}
