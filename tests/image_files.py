"""Small image files of every format that is read, written from their specifications."""

import json
import struct

import h5py
import numpy as np
import zarr
from rsciio import emd, hspy, tiff

PIXEL_A = 0.125
SHAPE = (40, 48)  # rows, columns
KINDS = ("tif", "mrc", "hspy", "hdf5", "zspy", "emd", "velox.emd", "dm3", "dm4", "ser")
AXIS = {"offset": 0.0, "navigate": False, "_type": "UniformDataAxis"}


def axes_of(pixels, scale, units, scale_y=None):
    """As rosettasciio describes them: navigation along frames, then y and x."""
    steps = zip("yx", pixels.shape[-2:], (scale_y or scale, scale), strict=True)
    frames = [{"name": "frame", "size": len(pixels), "scale": 1.0, "units": "", **AXIS, "navigate": True}]
    images = [{"name": name, "size": size, "scale": step, "units": units, **AXIS} for name, size, step in steps]
    return frames * (pixels.ndim - 2) + images


def signal(pixels, scale=PIXEL_A / 10, units="nm", scale_y=None):
    """What rosettasciio's writers take."""
    metadata = {"General": {"title": ""}, "Signal": {"signal_type": ""}, "_HyperSpy": {}}
    empty = ("original_metadata", "learning_results", "tmp_parameters", "models")
    package = {"package": "hyperspy", "package_version": "2.0"}
    more = {name: {} for name in empty} | {"attributes": {"_lazy": False}, "package_info": package}
    return {"data": pixels, "axes": axes_of(pixels, scale, units, scale_y), "metadata": metadata, **more, **package}


def write_mrc(path, pixels, pixel_A=PIXEL_A):
    """An MRC2014 file by its specification: 1024 bytes of header, lengths in ångström, then float32 sections."""
    sections, rows, columns = (1, *pixels.shape)[-3:]
    header = bytearray(1024)
    struct.pack_into("<10i", header, 0, columns, rows, sections, 2, 0, 0, 0, columns, rows, sections)
    struct.pack_into("<6f", header, 40, columns * pixel_A, rows * pixel_A, sections * pixel_A, 90, 90, 90)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:216] = b"MAP \x44\x44\x00\x00"
    path.write_bytes(bytes(header) + pixels.astype("<f4").tobytes())


def write_ser(path, pixels):
    """A TIA series: header, one dimension, elements bottom row first with a tag each, then both tables of offsets."""
    frames = pixels.reshape(-1, *pixels.shape[-2:]).astype("<f4")
    count, rows, columns = frames.shape
    calibration = struct.pack("<2di", 0, PIXEL_A * 1e-10, 0)
    size = 50 + frames[0].nbytes
    head = struct.pack("<3H4I", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, count, count)
    dimension = struct.pack("<I2di2I", count, 0, 1, 0, 6, 0).replace(
        struct.pack("<2I", 6, 0), b"\6\0\0\0Number\0\0\0\0"
    )
    start = len(head) + 8 + len(dimension)
    head += struct.pack("<2I", start + count * (size + 8), 1) + dimension
    element = 2 * calibration + struct.pack("<H2I", 7, columns, rows)
    body = b"".join(element + frame[::-1].tobytes() + struct.pack("<2HI", 0x4152, 0, 0) for frame in frames)
    at = start + (size + 8) * np.arange(count)
    path.write_bytes(head + body + np.concatenate([at, at + size]).astype("<u4").tobytes())


def write_dm(path, pixels, version):
    """A Digital Micrograph file: nested tags, big-endian lengths, little-endian values."""

    def word(number):
        return struct.pack(">i" if version == 3 else ">q", number)

    def tag(kind, name, body):
        length = struct.pack(">q", len(body)) if version == 4 else b""
        return bytes([kind]) + struct.pack(">H", len(name)) + name.encode() + length + body

    def group(name, *tags):
        return tag(20, name, b"\1\0" + word(len(tags)) + b"".join(tags))

    def data(name, info, content):
        return tag(21, name, b"%%%%" + word(len(info)) + b"".join(map(word, info)) + content)

    def calibration(name, scale, unit):
        text = data("Units", [20, 4, len(unit)], unit.encode("utf-16-le"))
        values = [data(key, [6], struct.pack("<f", v)) for key, v in (("Origin", 0), ("Scale", scale))]
        return group(name, *values, text)

    sizes = pixels.shape[::-1]
    units = [(PIXEL_A / 10, "nm")] * 2 + [(1.0, "s")] * (pixels.ndim - 2)
    image = group(
        "ImageData",
        group(
            "Calibrations",
            calibration("Brightness", 1.0, ""),
            group("Dimension", *(calibration("", *u) for u in units)),
        ),
        data("Data", [20, 6, pixels.size], pixels.astype("<f4").tobytes()),
        data("DataType", [3], struct.pack("<i", 2)),
        group("Dimensions", *(data("", [3], struct.pack("<i", n)) for n in sizes)),
    )
    name = data("Name", [20, 4, 3], "ABF".encode("utf-16-le"))
    root = b"\1\0" + word(1) + group("ImageList", group("", image, group("ImageTags"), name))
    path.write_bytes(struct.pack(">i", version) + word(len(root)) + struct.pack(">i", 1) + root + bytes(8))


def write_velox(path, images):
    """A Velox file: for every detector an array (y, x, frame) and its metadata as JSON in bytes."""
    with h5py.File(path, "w") as file:
        file["Version"] = np.array([json.dumps({"format": "Velox", "version": "1.3"}).encode()])
        for number, (title, pixels) in enumerate(images.items()):
            group = file.create_group(f"Data/Image/{number:032x}")
            frames = pixels.reshape(-1, *pixels.shape[-2:])
            group.create_dataset("Data", data=np.moveaxis(frames, 0, -1), chunks=(*frames.shape[1:], 1))
            size = {"width": PIXEL_A * 1e-10, "height": PIXEL_A * 1e-10}
            result = {"DetectorIndex": 0, "PixelSize": size, "PixelUnitX": "m", "PixelUnitY": "m"}
            told = {"BinaryResult": result, "Detectors": {"Detector-0": {"DetectorName": title}}}
            told |= {"Scan": {"FrameTime": 1.0}, "Optics": {"AccelerationVoltage": "300000"}}
            told |= {"Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1e9"}}, "CustomProperties": {}}
            text = np.frombuffer(json.dumps(told).encode(), np.uint8)
            group["Metadata"] = np.repeat(text[:, None], len(frames), axis=1)


def write_zspy(path, pixels, store=None):
    """A zspy folder (or zip, through its store) as HyperSpy lays it out."""
    root = zarr.open_group(store or str(path), mode="w", zarr_format=2)
    root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.3"})
    group = root.require_group("Experiments/ABF")
    group.attrs.update({"package": "hyperspy", "package_version": "2.0"})
    group.create_array("data", data=pixels)
    for number, axis in enumerate(axes_of(pixels, PIXEL_A / 10, "nm")):
        group.require_group(f"axis-{number}").attrs.update(axis)
    for name in ("metadata", "original_metadata"):
        group.require_group(name)


def write(path, pixels):
    kind = "velox.emd" if path.name.endswith(".velox.emd") else path.suffix[1:].lower()
    writers = {"mrc": write_mrc, "ser": write_ser, "zspy": write_zspy, "npy": np.save}
    if kind in writers:
        writers[kind](path, pixels)
    elif kind == "velox.emd":
        write_velox(path, {"ABF": pixels})
    elif kind in ("dm3", "dm4"):
        write_dm(path, pixels, int(kind[-1]))
    else:
        {"tif": tiff, "hspy": hspy, "hdf5": hspy, "emd": emd}[kind].file_writer(str(path), signal(pixels))
