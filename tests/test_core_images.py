"""Reading an image: every format gives back pixels and pixel size; what cannot be used is refused in one sentence."""

import re

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from image_files import KINDS, PIXEL_A, SHAPE, signal, write, write_velox, write_zspy
from PIL import Image
from rsciio import hspy
from unitcell.errors import InputError
from unitcell.micrographs.images import read_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
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
        (lambda p: np.stack([np.stack([p] * 5)] * 2), r"holds an array of shape \(2, 5, 40, 48\): give one two-dim"),
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


@pytest.fixture
def stack():
    return np.random.default_rng(1).normal(100, 10, (3, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("kind", ["npy", *KINDS])
def test_a_stack_is_offered_by_index_or_averaged(tmp_path, stack, kind):
    path = tmp_path / f"stack.{kind}"
    write(path, stack)
    with pytest.raises(InputError, match=r'holds 3 frames: give frame=0 \(up to 2\) for one of them, or frame="mean"'):
        read_image(path, PIXEL_A)
    for frame in (0, 2, -2):
        image = read_image(path, PIXEL_A if kind == "npy" else None, frame)
        np.testing.assert_array_equal(image.intensity, stack[frame])
        assert image.pixel_size_A == pytest.approx(PIXEL_A, rel=1e-5)
    for wrong in (3, -4, 1.0, True, "average", (1, 1)):
        with pytest.raises(InputError, match=rf"holds 3 frames, and frame={re.escape(repr(wrong))} is none of them"):
            read_image(path, PIXEL_A, wrong)


def test_a_file_of_several_detectors_lists_them(tmp_path, pixels, stack):
    path = tmp_path / "both.emd"
    write_velox(path, {"HAADF": pixels, "ABF": pixels[::-1]})
    with pytest.raises(InputError, match=r"2 images \(0: 'HAADF' \(48 × 40\), 1: 'ABF' .*\): choose .* frame=0"):
        read_image(path)
    image = read_image(path, frame=1)
    np.testing.assert_array_equal(image.intensity, pixels[::-1])
    assert image.recorded == {"energy_eV": 3e5}
    with pytest.raises(InputError, match=r"frame='mean' is none of them"):
        read_image(path, frame="mean")
    write_velox(path, {"HAADF": stack, "ABF": stack[:, ::-1]})
    with pytest.raises(InputError, match=r"'ABF' \(3 frames of 48 × 40\)\): choose .* frame=\(0, \"mean\"\)"):
        read_image(path)
    with pytest.raises(InputError, match=r"image 1 of .* holds 3 frames: give frame=\(1, 0\)"):
        read_image(path, frame=1)
    np.testing.assert_array_equal(read_image(path, frame=(1, 2)).intensity, stack[2, ::-1])


def test_images_that_are_alike_are_one_stack(tmp_path, stack):
    write_velox(tmp_path / "series.emd", {"ABF": stack[0]})
    with h5py.File(tmp_path / "series.emd", "a") as file:
        file.copy(f"Data/Image/{0:032x}", file["Data/Image"], f"{1:032x}")
        file[f"Data/Image/{1:032x}/Data"][..., 0] = stack[1]
    with pytest.raises(InputError, match="holds 2 frames: give frame=0"):
        read_image(tmp_path / "series.emd")
    np.testing.assert_array_equal(read_image(tmp_path / "series.emd", frame=1).intensity, stack[1])


def test_inversion_is_recorded_and_warned_of(tmp_path, pixels):
    np.save(tmp_path / "adf.npy", pixels)
    assert not read_image(tmp_path / "adf.npy", 0.1).inverted
    with pytest.warns(UserWarning, match=r"contrast of .*adf\.npy was inverted on request"):
        image = read_image(tmp_path / "adf.npy", 0.1, invert=True)
    assert image.inverted
    np.testing.assert_allclose(image.intensity, pixels.max() + pixels.min() - pixels, rtol=1e-6)


@pytest.mark.parametrize(("unit", "step"), [("nm", 0.0125), ("\\u00B5m", 1.25e-5), ("angstrom", 0.125), ("pm", 12.5)])
def test_imagej_units(tmp_path, stack, unit, step):
    path = tmp_path / "imagej.tif"
    tifffile.imwrite(path, stack, imagej=True, resolution=(1 / step, 1 / step), metadata={"unit": unit, "axes": "ZYX"})
    assert read_image(path, frame=0).pixel_size_A == pytest.approx(PIXEL_A, rel=1e-4)


def test_fei_tags(tmp_path, pixels):
    told = f"[Scan]\r\nPixelWidth={PIXEL_A}e-10\r\nPixelHeight={PIXEL_A}e-10\r\n[Beam]\r\nHV=300000\r\n"
    tifffile.imwrite(tmp_path / "fei.tif", pixels, metadata=None, extratags=[(34682, "s", 0, told, True)])
    image = read_image(tmp_path / "fei.tif")
    assert image.pixel_size_A == pytest.approx(PIXEL_A)
    assert image.recorded == {"energy_eV": 3e5}


def test_zipped_zspy(tmp_path, pixels):
    store = zarr.storage.ZipStore(tmp_path / "image.zspy", mode="w")
    write_zspy(None, pixels, store)
    store.close()
    np.testing.assert_array_equal(read_image(tmp_path / "image.zspy").intensity, pixels)


def test_rows_and_columns_go_by_their_names(tmp_path, pixels):
    """Other writers of EMD files put y first, which rosettasciio gives back as (x, y): a mirrored image."""
    with h5py.File(tmp_path / "image.emd", "w") as file:
        file.attrs.update({"version_major": 0, "version_minor": 2})
        group = file.create_group("data/ABF")
        group.attrs["emd_group_type"] = 1
        group["data"] = pixels
        for number, (name, size) in enumerate(zip("yx", SHAPE, strict=True), 1):
            group[f"dim{number}"] = PIXEL_A / 10 * np.arange(size)
            group[f"dim{number}"].attrs.update({"name": name, "units": "[n_m]"})
    image = read_image(tmp_path / "image.emd")
    np.testing.assert_array_equal(image.intensity, pixels)
    assert image.pixel_size_A == pytest.approx(PIXEL_A)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_with_equal_channels_is_grey(tmp_path, pixels, channels):
    """Green and blue alike are not enough, which is all that rosettasciio compares."""
    grey = pixels.astype(np.uint8)
    levels = [grey] * (channels - 1) + [np.full_like(grey, 255) if channels != 3 else grey]
    Image.fromarray(np.stack(levels, -1)).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png", 0.1).intensity, grey)
    if channels > 2:
        levels[0] = 255 - grey
        Image.fromarray(np.stack(levels, -1)).save(tmp_path / "image.png")
        with pytest.raises(InputError, match="colour"):
            read_image(tmp_path / "image.png", 0.1)
