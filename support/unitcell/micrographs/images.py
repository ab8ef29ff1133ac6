"""Reading one STEM image, whatever wrote it, and refusing what cannot be one."""

import logging
import re
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from unitcell.errors import InputError
from unitcell.micrographs.frames import MINIMUM_PX, chosen_frame, image_series
from unitcell.micrographs.image_headers import CHECKS, on_one_line, read_npy, read_png

# Length units as microscopes write them, in ångström.
UNIT_A = {"å": 1.0, "a": 1.0, "angstrom": 1.0, "ångström": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4, "m": 1e10}
UNIT_A |= {"\N{MICRO SIGN}m": 1e4, "\N{GREEK SMALL LETTER MU}m": 1e4, "micron": 1e4, "microns": 1e4}
UNIT_A |= {"angstroms": 1.0, "nanometer": 10.0, "nanometers": 10.0, "picometer": 0.01, "meters": 1e10}
# The rosettasciio module that reads each suffix; several claim mrc and hdf5.
READERS = {"dm3": "digitalmicrograph", "dm4": "digitalmicrograph", "emd": "emd", "hspy": "hspy", "hdf5": "hspy"}
READERS |= {"zspy": "zspy", "tif": "tiff", "tiff": "tiff", "mrc": "mrc", "ser": "tia", "png": "image"}
SQUARE = 0.02  # how far the two edges of a pixel may differ
BROKEN_TIFF = re.compile(r"page|series|Strip|offset|ByteCounts", re.IGNORECASE)


@dataclass(frozen=True)
class StemImage:
    """A two-dimensional image with its pixel size.

    Parameters
    ----------
    intensity : ndarray of float32, shape (rows, columns)
        As recorded: no scaling, no offset.
    pixel_size_A : float
        Edge of a square pixel [Å].
    name : str
        File name, for titles and messages.
    simulated : bool
        Whether the image was computed; pages must say so.
    recorded : dict
        What the file, or whoever gives it, says of the microscope, among energy_eV, semiangle_mrad, inner_mrad and
        outer_mrad.
    inverted : bool
        Whether dark and bright were exchanged on reading; pages must say so.
    """

    intensity: np.ndarray
    pixel_size_A: float
    name: str
    simulated: bool = False
    recorded: dict = field(default_factory=dict)
    inverted: bool = False

    @property
    def field_A(self):
        """Field of view (vertical, horizontal) [Å]."""
        return tuple(n * self.pixel_size_A for n in self.intensity.shape)

    def normalised(self):
        """Intensity with its 0.5 and 99.5 percentiles at 0 and 1, clipped to [-0.5, 1.5]."""
        low, high = np.percentile(self.intensity, (0.5, 99.5))
        return np.clip((self.intensity - low) / (high - low), -0.5, 1.5)


def read_image(path, pixel_size_A=None, frame=None, invert=False):
    """Read one image: dm3, dm4, emd, hspy/hdf5, zspy, tif, mrc, ser (rosettasciio), png or npy.

    Parameters
    ----------
    path : str or Path
        A file, or the folder that a zspy is.
    pixel_size_A : float, optional
        Pixel size [Å]; overrides the one in the file.
    frame : int, "mean", (int, int) or (int, "mean"), optional
        Which frame of a stack: 0-based, negative from the end, or the average after rigid registration. In a file
        of several images the number of the one to take, and for a stack among them which of its frames.
    invert : bool
        Exchange dark and bright: max + min − intensity.

    Raises
    ------
    InputError
        Missing or unreadable file, a stack without `frame`, RGB, NaN, constant, too small or too large, or no
        pixel size.
    """
    path = _existing(path)
    name = on_one_line(path)
    images = _images(path, name)
    index, data = chosen_frame([image["data"] for image in images], [image["title"] for image in images], frame, name)
    intensity = checked_intensity(data, name)
    found_A = _pixel_size_A(images[index]["axes"], name)
    size_A = _checked_size(pixel_size_A if pixel_size_A is not None else found_A, name)
    if invert:
        intensity = _inverted(intensity, name)
    return StemImage(intensity, size_A, path.name, False, _recorded(images[index]), bool(invert))


def _checked_size(size_A, name):
    """A pixel size that can be one, as a float [Å]."""
    if size_A is None:
        raise InputError(f"{name} does not state its pixel size: give it as pixel_size_A, in ångström per pixel.")
    if not (_is_number(size_A) and 0.005 <= size_A <= 1.0):
        said = format(size_A, "g") if isinstance(size_A, int | float | np.number) else repr(size_A)
        raise InputError(
            f"A pixel size of {said} Å for {name} cannot resolve or hold atoms: give pixel_size_A between "
            "0.005 and 1, in ångström per pixel (a tenth of a nanometre)."
        )
    return float(size_A)


def checked_intensity(data, name):
    """Return `data` as a float32 image, or raise InputError saying why it cannot be one."""
    data = np.squeeze(np.asarray(data))
    if data.dtype.names or (data.ndim == 3 and data.shape[-1] in (3, 4)):
        raise InputError(f"{name} is a colour (RGB) picture: export the grey-scale detector image instead.")
    if data.ndim != 2:
        raise InputError(f"{name} holds an array of shape {data.shape}: give one two-dimensional image.")
    if data.dtype.kind not in "iuf":
        raise InputError(f"{name} holds values of type {data.dtype}: give a real-valued image.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        data = data.astype(np.float32)
    if min(data.shape) < MINIMUM_PX:
        raise InputError(f"{name} is {data.shape[1]} × {data.shape[0]} pixels: it must show at least 3 × 3 unit cells.")
    bad = np.count_nonzero(~np.isfinite(data))
    if bad:
        raise InputError(f"{name} has {bad} pixels that are not finite (NaN): mask or interpolate them first.")
    if np.ptp(data) == 0:
        raise InputError(f"{name} is constant ({data.flat[0]:g} everywhere): give an image with contrast.")
    return data


def _existing(path):
    """The path of a file, or of a folder that ends in zspy."""
    try:
        path = Path(path)
        if path.is_file() or (path.is_dir() and path.suffix.lower() == ".zspy"):
            return path
        what = f"{on_one_line(path)} is a folder" if path.is_dir() else f"No image at {on_one_line(path)}"
    except (OSError, TypeError) as error:  # a name too long, a folder that may not be entered, or no name at all
        raise InputError(f"No image at {on_one_line(path)} ({_reason(error)}): check the path.") from error
    raise InputError(f"{what}: check the path, or give the full one.")


def _inverted(intensity, name):
    """Dark and bright exchanged, with a warning."""
    warnings.warn(
        f"The contrast of {name} was inverted on request: if it is a dark-field image it hardly shows oxygen, so do "
        "not trust tilts read from it.",
        stacklevel=3,
    )
    return intensity.max() + intensity.min() - intensity


def _images(path, name):
    """The images and stacks in a file (`unitcell.micrographs.frames.image_series`), by its suffix."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix != "npy" and suffix not in READERS:
        raise InputError(f"{name} is of a type that is not read here: use npy, {', '.join(READERS)}.")
    try:
        with _quiet() as logged:
            signals = _signals(path, suffix, logged)
            images = image_series(signals)
    except InputError:
        raise
    except Exception as error:  # every reader fails in its own way; the reader of this message needs one
        raise InputError(f"{name} could not be read as a {suffix} file ({_reason(error)}): export it again.") from error
    if images:
        return images
    if signals:
        checked_intensity(max((signal["data"] for signal in signals), key=np.size), name)
    raise InputError(f"{name} holds no image: give a file with one.")


@contextmanager
def _quiet():
    """Keep readers' grumbles off the screen: they end as InputError or leave the pixels alone. Yields logged errors."""
    logged = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: logged.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("rsciio", "tifffile")]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        try:
            yield logged
        finally:
            for logger, handlers, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate


def _reason(error):
    """What an exception says, on one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".: ")[:200] if lines else type(error).__name__


def _signals(path, suffix, logged):
    """What the reader of a suffix finds: dictionaries with data, axes and metadata, as rosettasciio gives them."""
    if suffix == "npy":
        return [{"data": read_npy(path), "axes": []}]
    if suffix == "png":
        return [{"data": read_png(path), "axes": []}]
    kind = READERS[suffix]
    CHECKS[kind](path)
    if kind == "tiff" and (broken := [line for line in logged if BROKEN_TIFF.search(line)]):
        raise ValueError(broken[0])
    if kind == "emd":
        return _emd(path)
    signals = import_module(f"rsciio.{kind}").file_reader(str(path))  # the mrc reader takes no Path
    return [_with_imagej_unit(signal) for signal in signals] if kind == "tiff" else signals


def _emd(path):
    """The signals of an NCEM file; of a Velox one only the images, for its spectra may be a hundred times larger."""
    import h5py
    from rsciio.emd._api import file_reader, is_EMD_Velox
    from rsciio.emd._emd_velox import FeiEMDReader

    if not is_EMD_Velox(str(path)):
        return file_reader(str(path))
    reader = FeiEMDReader(select_type="images", load_SI_image_stack=True)
    # Beside spectra it asks for another library, but only after it has read the images.
    with h5py.File(path, "r") as file, suppress(ModuleNotFoundError):
        reader.read_file(file)
    return reader.dictionaries


def _with_imagej_unit(signal):
    """ImageJ's unit on the image axes: rosettasciio knows its microns only."""
    unit = re.search(r"^unit=(.+)$", str(signal["original_metadata"].get("ImageDescription", "")), re.MULTILINE)
    for axis in signal["axes"][-2:] if unit else ():
        axis["units"] = axis.get("units") or unit[1].strip().replace("\\u00B5", "µ").replace("\\u00C5", "Å")
    return signal


def _recorded(image):
    """Energy [eV] and convergence semi-angle [mrad] of the probe, where rosettasciio found them."""
    found = _mapped(image)
    for mode in ("TEM", "STEM"):
        found |= _entry(image.get("metadata"), f"Acquisition_instrument.{mode}") or {}
    said = {"energy_eV": (found.get("beam_energy"), 1e3), "semiangle_mrad": (found.get("convergence_angle"), 1.0)}
    return {key: float(value) * f for key, (value, f) in said.items() if _is_number(value) and value > 0}


def _mapped(image):
    """The two entries of the maker's metadata that rosettasciio leaves for hyperspy to move, by their last name."""
    found = {}
    for source, (target, convert) in image.get("mapping", {}).items():
        value, name = _entry(image.get("original_metadata"), source), target.rpartition(".")[2]
        if name in ("beam_energy", "convergence_angle") and value is not None:
            with suppress(TypeError, ValueError):  # an empty or odd entry tells nothing
                found[name] = convert(value) if convert else float(value)
    return found


def _entry(tree, path):
    """The entry of nested dictionaries at a dotted path, or None."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _is_number(value):
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def _pixel_size_A(axes, name):
    """Pixel size [Å] from the last two axes, or None where the file states no length unit."""
    edges = [_edge_A(axis) for axis in axes[-2:]]
    if None in edges:
        return None
    if abs(edges[0] - edges[1]) > SQUARE * max(edges):
        raise InputError(f"{name} has pixels of {edges[1]:g} × {edges[0]:g} Å: resample it to square ones.")
    return edges[1]


def _edge_A(axis):
    """Step of one axis [Å], or None where its unit is not a length."""
    unit, scale = str(axis.get("units") or "").strip().lower(), axis.get("scale")
    return abs(float(scale)) * UNIT_A[unit] if unit in UNIT_A and _is_number(scale) and scale != 0 else None
