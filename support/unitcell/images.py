"""Reading one STEM image, whatever wrote it, and refusing what cannot be one."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from unitcell.errors import InputError

# Length units as microscopes write them, in ångström.
UNIT_A = {"å": 1.0, "a": 1.0, "angstrom": 1.0, "ångström": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4, "m": 1e10}
UNIT_A |= {"\N{MICRO SIGN}m": 1e4, "\N{GREEK SMALL LETTER MU}m": 1e4}
# The rosettasciio module that reads each suffix; several claim mrc and hdf5.
READERS = {"dm3": "digitalmicrograph", "dm4": "digitalmicrograph", "emd": "emd", "hspy": "hspy", "hdf5": "hspy"}
READERS |= {"tif": "tiff", "tiff": "tiff", "mrc": "mrc", "ser": "tia", "png": "image"}
SQUARE = 0.02  # how far the two edges of a pixel may differ
MINIMUM_PX = 16


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
        What the file says of the microscope, among energy_eV and semiangle_mrad.
    """

    intensity: np.ndarray
    pixel_size_A: float
    name: str
    simulated: bool = False
    recorded: dict = field(default_factory=dict)

    @property
    def field_A(self):
        """Field of view (vertical, horizontal) [Å]."""
        return tuple(n * self.pixel_size_A for n in self.intensity.shape)

    def normalised(self):
        """Intensity with its 0.5 and 99.5 percentiles at 0 and 1, clipped to [-0.5, 1.5]."""
        low, high = np.percentile(self.intensity, (0.5, 99.5))
        return np.clip((self.intensity - low) / (high - low), -0.5, 1.5)


def read_image(path, pixel_size_A=None):
    """Read one image: dm3, dm4, emd, hspy/hdf5, tif, mrc, ser (rosettasciio), png or npy.

    Parameters
    ----------
    path : str or Path
    pixel_size_A : float, optional
        Pixel size [Å]; overrides the one in the file.

    Raises
    ------
    InputError
        Missing or unreadable file, several images, RGB, NaN, constant, too small, or no pixel size.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No image at {path}: check the path, or give the full one.")
    data, found_A, recorded = _load(path)
    intensity = checked_intensity(data, path)
    size_A = pixel_size_A if pixel_size_A is not None else found_A
    if size_A is None:
        raise InputError(f"{path} does not state its pixel size: give it as pixel_size_A, in ångström per pixel.")
    if not (np.isfinite(size_A) and 0.005 <= size_A <= 1.0):
        raise InputError(
            f"A pixel size of {size_A:g} Å for {path} cannot resolve or hold atoms: give pixel_size_A between "
            "0.005 and 1, in ångström per pixel (a tenth of a nanometre)."
        )
    return StemImage(intensity, float(size_A), path.name, recorded=recorded)


def checked_intensity(data, name):
    """Return `data` as a float32 image, or raise InputError saying why it cannot be one."""
    data = np.squeeze(np.asarray(data))
    if data.dtype.names or (data.ndim == 3 and data.shape[-1] in (3, 4)):
        raise InputError(f"{name} is a colour (RGB) picture: export the grey-scale detector image instead.")
    if data.ndim != 2:
        raise InputError(f"{name} holds an array of shape {data.shape}: give one two-dimensional image.")
    if not np.issubdtype(data.dtype, np.number) or np.iscomplexobj(data):
        raise InputError(f"{name} holds values of type {data.dtype}: give a real-valued image.")
    data = data.astype(np.float32)
    if min(data.shape) < MINIMUM_PX:
        raise InputError(f"{name} is {data.shape[1]} × {data.shape[0]} pixels: it must show at least 3 × 3 unit cells.")
    bad = np.count_nonzero(~np.isfinite(data))
    if bad:
        raise InputError(f"{name} has {bad} pixels that are not finite (NaN): mask or interpolate them first.")
    if np.ptp(data) == 0:
        raise InputError(f"{name} is constant ({data.flat[0]:g} everywhere): give an image with contrast.")
    return data


def _load(path):
    """Array, pixel size [Å] or None, and what is recorded of the microscope, by the file's suffix."""
    suffix = path.suffix.lower().lstrip(".")
    try:
        if suffix == "npy":
            return np.load(path, allow_pickle=False), None, {}
        signals = _reader(suffix, path)(str(path))  # the mrc reader takes no Path
    except InputError:
        raise
    except Exception as error:  # every reader fails in its own way; the reader of this message needs one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} could not be read as a {suffix} file ({reason}): export it again.") from error
    images = [signal for signal in signals if np.squeeze(signal["data"]).ndim >= 2]
    if len(images) != 1:
        raise InputError(f"{path} holds {len(images)} images: export the one to analyse to a file of its own.")
    size_A = None if suffix == "png" else _pixel_size_A(images[0]["axes"], path)
    return images[0]["data"], size_A, _recorded(images[0].get("metadata", {}))


def _recorded(metadata):
    """Energy [eV] and convergence semi-angle [mrad] of the probe, where rosettasciio found them."""
    instrument = metadata.get("Acquisition_instrument", {})
    found = instrument.get("TEM", {}) | instrument.get("STEM", {})
    said = {"energy_eV": (found.get("beam_energy"), 1e3), "semiangle_mrad": (found.get("convergence_angle"), 1.0)}
    return {
        key: float(value) * factor
        for key, (value, factor) in said.items()
        if isinstance(value, int | float | np.number) and np.isfinite(value) and value > 0
    }


def _reader(suffix, path):
    """The rosettasciio reader for a suffix."""
    if suffix not in READERS:
        raise InputError(f"{path} is of a type that is not read here: use npy, {', '.join(READERS)}.")
    return import_module(f"rsciio.{READERS[suffix]}").file_reader


def _pixel_size_A(axes, path):
    """Pixel size [Å] from the last two axes, or None where the file states no length unit."""
    edges = [_edge_A(axis) for axis in axes[-2:]]
    if None in edges:
        return None
    if abs(edges[0] - edges[1]) > SQUARE * max(edges):
        raise InputError(f"{path} has pixels of {edges[1]:g} × {edges[0]:g} Å: resample it to square ones.")
    return edges[1]


def _edge_A(axis):
    """Step of one axis [Å], or None where its unit is not a length."""
    unit = str(axis.get("units") or "").strip().lower()
    return abs(float(axis["scale"])) * UNIT_A[unit] if unit in UNIT_A else None
