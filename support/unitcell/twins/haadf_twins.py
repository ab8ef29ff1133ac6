"""Twins of the images in Kalinin et al. (2020): LSMO with NiO inclusions, and a wedge of Sr3Fe2O7, every column known.

Simulated. Each column has the height and shape that frozen-phonon multislice gives it (`twins.haadf`, equation 1);
`open_twin` puts the columns where the specimen has them and records the image line by line: source, drift, jitter of
the scan lines, fly-back, electrons. The truth is given where the distorted image shows it.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from unitcell.micrographs.image_formation import Recording, record_image
from unitcell.twins.haadf import SOURCE_A
from unitcell.twins.specimens import SPECIMENS, specimen

REACH = 3.3  # of the tails' standard deviation: beyond, less than 0.5 % of the tail is left
COLUMNS_AT_ONCE = 2000
UNITS = {
    "x_px": "px",
    "y_px": "px",
    "angle_rad": "rad",
    "thickness_A": "angstrom",
    "interface_A": "angstrom",
    "bound_A": "angstrom",
}


def open_twin(
    name, *, dose=1e5, shape=(1264, 1264), pixel_size_A=0.2, thickness_A=None, rotation_deg=0.0, source_A=SOURCE_A,
    drift_A=(1.5, -1.0), jitter_A=0.03, flyback_A=0.6, flyback_px=25.0, disorder_A=0.02, seed=0,
):  # fmt: skip
    """Record one twin.

    Parameters
    ----------
    name : str
        "lsmo_nio", LSMO (a = 3.876 Å) with inclusions of NiO (4.177 Å), both along [100]; or "sr3fe2o7" along [100],
        its layers level, growing thicker from left to right.
    dose : float or None
        Electrons per Å²; None for the expected counts at 1e5 e/Å², without noise.
    shape : (int, int)
        Rows and columns of the image.
    pixel_size_A : float
    thickness_A : (float, float), optional
        At the left and right edge of the field [Å], 40 to 320; (200, 200) for lsmo_nio, (100, 280) for sr3fe2o7.
    rotation_deg : float
        Of the specimen in the image, counter-clockwise as seen [degrees].
    source_A : float
        Standard deviation of the effective source [Å].
    drift_A, jitter_A, flyback_A, flyback_px
        See `unitcell.micrographs.image_formation.Recording`.
    disorder_A : float
        Rms static displacement of a column along one axis [Å].
    seed : int
        Of the specimen, the jitter and the electrons.

    Returns
    -------
    xarray.Dataset
        `image` (y, x), counted electrons, and for every column (dimension `column`) in the image

        * `x_px`, `y_px`: where the distorted image shows it (x right, y down, the first pixel's centre is 0);
        * `height` [counts], `sigma_A`, `tail_sigma_A`, `tail`: its peak, equation (1) of `unitcell.twins.haadf`;
        * `bound_A`: Cramér–Rao bound of its position along one axis, see `position_bounds`;
        * `species`: "A", "B", "NiO", "Sr" or "Fe"; `phase`: "LSMO", "NiO" or "Sr3Fe2O7";
        * `environment`: for lsmo_nio 0 = A, 1 = B, 2 = NiO; for sr3fe2o7 0 = Sr in the middle of a double layer,
          1 and 2 = Sr at its upper and lower edge (one motif, half a turn apart), 3 and 4 = Fe of its upper and lower
          plane (again half a turn apart);
        * `side`: for sr3fe2o7 0, 1 or −1 for the middle, upper and lower part of a layer, Fe included; 0 elsewhere;
        * `angle_rad`: orientation of its surroundings, counter-clockwise as seen: of [100] for the columns of LSMO
          and NiO, of [001] for the middle Sr, towards the middle of the layer for the others;
        * `symmetry`: a turn by 2π/symmetry leaves the surroundings as they are, so the angle is known modulo that;
        * `thickness_A`; `interface_A`: distance to the nearest border between phases (NaN where there is none).

        Attributes: `pixel_size_A`, `simulated` (1), `dose`, and the other settings.

    Raises
    ------
    InputError
        No such twin, or settings that cannot be.
    """
    field_A = shape[0] * pixel_size_A, shape[1] * pixel_size_A
    sample = specimen(name, field_A, thickness_A, disorder_A, seed)
    turn = np.radians(rotation_deg)
    rotation = ((np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn)))  # y points down
    recording = Recording(
        pixel_size_A=pixel_size_A, centre_A=(0.0, 0.0), affine=rotation, drift_A=drift_A, jitter_A=jitter_A,
        flyback_A=flyback_A, flyback_px=flyback_px, dose_e_per_A2=dose,
    )  # fmt: skip
    scan = scanned(recording, shape, seed)
    seen = scan.pixels_of(sample.position_A)
    clean = sample.background(scan.positions_A, source_A) + rendered(sample, seen, scan, source_A)
    electrons = (1e5 if dose is None else dose) * pixel_size_A**2 * clean
    counted = electrons if dose is None else np.random.default_rng([seed, 1]).poisson(electrons)
    settings = {
        "twin": name, "pixel_size_A": pixel_size_A, "simulated": 1, "dose": np.nan if dose is None else float(dose),
        "rotation_deg": rotation_deg, "source_A": source_A, "drift_A": list(drift_A), "jitter_A": jitter_A,
        "flyback_A": flyback_A, "flyback_px": flyback_px, "disorder_A": disorder_A, "seed": seed,
        "environments": ", ".join(SPECIMENS[name].environments),
    }  # fmt: skip
    shapes = dict(zip(("height", "sigma_A", "tail_sigma_A", "tail"), sample.shapes(source_A), strict=True))
    shapes["height"] = shapes["height"] * (1e5 if dose is None else dose) * pixel_size_A**2
    lines, information = line_information(sample, seen, scan, electrons, 1e5 if dose is None else dose, source_A)
    shapes["bound_A"] = position_bounds(information)
    seen = seen + scan.moved(lines, information[..., :2])
    return _dataset(sample, seen, shapes, counted, turn, settings)


@dataclass(frozen=True)
class Scan:
    """Where the beam stood when each pixel was read.

    Parameters
    ----------
    smooth : unitcell.micrographs.image_formation.Recorded
        Of an image without line jitter.
    positions_A : ndarray, shape (rows, columns, 2)
        Point of the specimen (x, y) [Å] in each pixel, jitter included.
    jitter_px : ndarray, shape (rows, 2)
        By how much each line moves what it shows, along x and y [px].
    """

    smooth: object
    positions_A: np.ndarray
    jitter_px: np.ndarray

    def pixels_of(self, points_A):
        """Where the image would show columns at `points_A` (n, 2) without jitter: ndarray (n, 2) of x, y [px]."""
        return self.smooth.pixels_of(points_A).double().numpy()

    def moved(self, lines, information):
        """By how much jitter moves columns that lie on `lines` (n, k), along x and y: ndarray (n, 2) [px].

        To first order the best fit finds the mean of the lines' own shifts, each weighted with the `information`
        (n, k, 2) on x and on y that it holds: the Fisher information, (∂λ/∂x)²/λ summed over its pixels.
        """
        shift = self.jitter_px[np.clip(lines, 0, len(self.jitter_px) - 1)]  # (n, k, 2)
        return (shift * information).sum(1) / np.maximum(information.sum(1), 1e-30)


def scanned(recording, shape, seed):
    """The `Scan` of one recording."""
    still = {key: value for key, value in vars(recording).items() if key != "dose_e_per_A2"}
    empty = np.zeros((1, 1))
    jittered = record_image(empty, (1.0, 1.0), Recording(**still), shape, seed)
    smooth = record_image(empty, (1.0, 1.0), Recording(**still | {"jitter_A": 0.0}), shape, seed)
    moved_A = (smooth.positions - jittered.positions)[:, 0].double().numpy()
    jitter_px = moved_A @ np.array(recording.affine).T / recording.pixel_size_A
    return Scan(smooth, jittered.positions.numpy(), jitter_px)


def rendered(sample, seen_px, scan, source_A):
    """Sum over the columns of a specimen: ndarray (rows, columns), fraction of the beam."""
    rows, columns = scan.positions_A.shape[:2]
    # where the beam stands is the sum of what depends on the line and of what depends on the place along it
    by_row, by_column = scan.positions_A[:, 0], scan.positions_A[0] - scan.positions_A[0, 0]
    height, sigma, tau, tail = (v.astype(np.float32)[:, None, None] for v in sample.shapes(source_A))
    image = np.zeros(rows * columns)
    for width, amount in ((sigma, height * (1 - tail)), (tau, height * tail)):
        reach = int(np.ceil(REACH * width.max() / scan.smooth.recording.pixel_size_A)) + 2
        step = np.arange(-reach, reach + 1)
        for start in range(0, len(seen_px), COLUMNS_AT_ONCE):
            part = slice(start, start + COLUMNS_AT_ONCE)
            x, y = (np.round(seen_px[part, k]).astype(np.int32)[:, None] + step for k in (0, 1))
            inside = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None, :]
            x, y = x.clip(0, columns - 1), y.clip(0, rows - 1)
            line = by_row[y] - sample.position_A[part, None].astype(np.float32)
            square = sum((line[:, :, None, axis] + by_column[x][:, None, :, axis]) ** 2 for axis in (0, 1))
            peak = amount[part] * np.exp(square / (-2 * width[part] ** 2)) * inside
            pixel = y[:, :, None] * columns + x[:, None, :]
            image += np.bincount(pixel.ravel(), peak.ravel(), image.size)
    return image.reshape(rows, columns)


def line_information(sample, seen_px, scan, electrons, dose, source_A):
    """Fisher information of the place of each column in each line of the image.

    λ are the expected counts of a pixel, λ_n the share of column n in them, of known height and shape. The information
    on its place r_n is Σ ∇λ_n ∇λ_nᵀ / λ over the pixels (den Dekker et al., Ultramicroscopy 104, 83, 2005).

    Returns
    -------
    lines : ndarray of int, shape (n, k)
    information : ndarray, shape (n, k, 3)
        Its xx, yy and xy [1/Å²].
    """
    pixel_A = scan.smooth.recording.pixel_size_A
    height, sigma, tau, tail = (v[:, None, None] for v in sample.shapes(source_A))
    by_row, by_column = scan.positions_A[:, 0], scan.positions_A[0] - scan.positions_A[0, 0]
    rows, columns = electrons.shape
    step = np.arange(-(reach := int(np.ceil(4 * sigma.max() / pixel_A)) + 1), reach + 1)
    x, lines = (np.round(seen_px[:, k]).astype(int)[:, None] + step for k in (0, 1))
    inside = ((lines >= 0) & (lines < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None, :]
    x, y = x.clip(0, columns - 1), lines.clip(0, rows - 1)
    line = by_row[y] - sample.position_A[:, None]
    u, v = (line[:, :, None, axis] + by_column[x][:, None, :, axis] for axis in (0, 1))
    square = u**2 + v**2
    slope = (1 - tail) / sigma**2 * np.exp(-square / (2 * sigma**2)) + tail / tau**2 * np.exp(-square / (2 * tau**2))
    slope *= dose * pixel_A**2 * height  # of the counts, over the distance
    weight = inside * slope**2 / np.maximum(electrons[y[:, :, None], x[:, None, :]], 1e-12)
    return lines, np.stack([(weight * product).sum(2) for product in (u * u, v * v, u * v)], -1)


def position_bounds(information):
    """Cramér–Rao bound of the position of each column along one axis [Å]: ndarray (n,), the rms of x and y.

    No unbiased estimate varies by less than the inverse of the `information` (n, lines, 3) of `line_information`.
    Neighbours and background count in it as noise; that their places are not known either raises the bound
    (`unitcell.atoms.atom_scores`).
    """
    xx, yy, xy = information.sum(1).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((xx + yy) / (xx * yy - xy**2) / 2)


def _dataset(sample, seen_px, shapes, counted, turn, settings):
    """The image and the columns in it."""
    last = np.array(counted.shape[::-1]) - 0.5
    kept = (sample.listed & ((seen_px > -0.5) & (seen_px < last)).all(axis=1)).nonzero()[0]
    truth = {"x_px": seen_px[kept, 0], "y_px": seen_px[kept, 1]}
    truth |= {key: values[kept] for key, values in shapes.items()}
    truth |= {key: values[kept] for key, values in sample.truth.items()}
    period = 2 * np.pi / truth["symmetry"]
    truth["angle_rad"] = np.mod(truth["angle_rad"] + turn + period / 2, period) - period / 2
    data = xr.Dataset(attrs=settings)
    data["image"] = (("y", "x"), counted.astype(np.float32), {"units": "electrons", "long_name": "simulated image"})
    for key, values in truth.items():
        kept = values.astype(object) if values.dtype.kind == "U" else values
        data[key] = ("column", kept, {"units": UNITS.get(key, "1")})
    return data
