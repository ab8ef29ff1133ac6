"""Dark-field images of the unit cells in Kalinin et al. (2020): frozen-phonon multislice, and the columns in them.

`python -m unitcell.twins.haadf` makes the committed `reference/haadf_cells.nc`, the mean image of one unit cell of each
phase at a series of thicknesses (200 kV, 30 mrad, collected from 65 to 150 mrad). A dark-field image is nearly
incoherent, so it is a sum over columns,

    I(r) = b + Σ_j h_j [(1 − f) g(|r − r_j| / σ_j) + f g(|r − r_j| / τ_j)],   g(u) = exp(−u²/2),                  (1)

a narrow peak, broad tails and what scatters everywhere; `column_profiles` fits that, and `twins.haadf_twins` puts
the columns where a specimen has them.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr
from ase import Atoms
from scipy.optimize import least_squares, nnls

from unitcell.artefacts import load_dataset, written
from unitcell.campaign import run_structures
from unitcell.crystals.structures import (
    SR3FE2O7_A,
    SR3FE2O7_C,
    SR3FE2O7_SITES,
    random_vacancies,
    rock_salt,
    ruddlesden_popper,
)
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.project import project_root
from unitcell.scattering import Microscope, multislice_images, scan_positions

MICROSCOPE = Microscope(energy_eV=200e3, semiangle_mrad=30.0, inner_mrad=65.0, outer_mrad=150.0)
THICKNESSES_A = (40.0, 80.0, 120.0, 160.0, 200.0, 240.0, 280.0, 320.0)
SAMPLING_A = 0.055  # keeps 150 mrad
SOURCE_A = 0.35  # standard deviation of the effective source: 0.82 Å wide at half height
LSMO_A, LA_SHARE, NIO_A = 3.876, 0.7, 4.177
FITTED = ("height", "sigma_A", "tail_sigma_A", "tail", "background", "residual")
STEP = 1e-5  # of the packed intensities, which then reach up to 0.65
WIDTHS_A = ((0.12, 0.55), (0.4, 0.9))  # least and most of a peak's and of the tails' width, without the source
FOLDER = Path(__file__).parents[1] / "reference"


@dataclass(frozen=True)
class Phase:
    """One phase as its projection along [100] shows it.

    Parameters
    ----------
    cell_A : (float, float)
        Edges of its projected cell along x and y [Å].
    species : tuple of str
        Of each column; "O" for pure oxygen, too faint to be counted as a column.
    sites : tuple of (float, float)
        Fractional places of the columns.
    shape : (int, int)
        Rows and columns of its image, not wider apart than the Nyquist distance of 0.209 Å.
    repeats : (int, int)
        Cells of the simulated block along x and y.
    scanned : (int, int)
        Over how many of them, along x and y, the image is averaged.
    shifts : tuple of (int, int)
        Centring: shifts (rows, columns) [px] that leave the projection as it is.
    square : bool
        Whether x and y may be exchanged.
    """

    cell_A: tuple
    species: tuple
    sites: tuple
    shape: tuple
    repeats: tuple
    scanned: tuple
    shifts: tuple
    square: bool


# The columns of one double layer of Sr3Fe2O7, from its middle, in a and c: Sr (middle, upper, lower), Fe (upper, lower)
# and pure oxygen (middle, apical, and beside the iron). The other half of the cell is centring.
_OUTER, _FE, _BESIDE, _APEX = (SR3FE2O7_SITES[n][1][2] for n in (1, 2, 3, 4))
_LAYER = (
    (0.5, 0.0), (0.5, _OUTER - 0.5), (0.5, 0.5 - _OUTER), (0.0, -_FE), (0.0, _FE),
    (0.0, 0.0), (0.0, -_APEX), (0.0, _APEX), (0.5, -_BESIDE), (0.5, _BESIDE),
)  # fmt: skip
LAYER_KIND = (0, 1, 1, 2, 2, 3, 4, 4, 5, 5)  # which of them are alike
PHASES = {
    "lsmo": Phase(
        (LSMO_A, LSMO_A), ("A", "B", "O", "O"), ((0, 0), (0.5, 0.5), (0.5, 0), (0, 0.5)), (20, 20), (3, 3), (3, 3),
        ((0, 0),), True,
    ),
    "nio": Phase(
        (NIO_A, NIO_A), ("NiO",) * 4, ((0, 0), (0.5, 0.5), (0.5, 0), (0, 0.5)), (24, 24), (3, 3), (1, 1),
        ((0, 0), (12, 12), (0, 12), (12, 0)), True,
    ),
    "sr3fe2o7": Phase(
        (SR3FE2O7_A, SR3FE2O7_C), (*("Sr", "Sr", "Sr", "Fe", "Fe"), *("O",) * 5) * 2,
        tuple(((x + s) % 1, (y + s) % 1) for s in (0, 0.5) for x, y in _LAYER), (104, 20), (2, 1), (1, 1),
        ((0, 0), (52, 10)), False,
    ),
}  # fmt: skip


def block(name, thickness_A, seed, repeats=None):
    """A block of one phase, as thick as asked or a little thicker, its mixed sites filled at random.

    Parameters
    ----------
    name : str
        "lsmo", "nio" or "sr3fe2o7".
    thickness_A : float
    seed : int or sequence of int
    repeats : (int, int), optional
        Cells along x and y; those of `PHASES` by default.

    Returns
    -------
    ase.Atoms
        Periodic across the beam only, its atomic planes in the middles of slices.
    """
    phase, rng = phase_named(name), np.random.default_rng(seed)
    if name == "lsmo":
        sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
        cell = Atoms("LaMnO3", scaled_positions=sites, cell=[LSMO_A] * 3)
    else:
        cell = rock_salt("100", lattice_A=NIO_A) if name == "nio" else ruddlesden_popper("100")
    depth = cell.cell.lengths()[2]
    full = cell * (*(repeats or phase.repeats), max(1, int(np.ceil(thickness_A / depth - 1e-9))))
    if name == "lsmo":
        strontium = np.flatnonzero(full.symbols == "La")
        full.symbols[strontium[rng.random(len(strontium)) >= LA_SHARE]] = "Sr"
    if name == "sr3fe2o7":
        full = random_vacancies(full, rng.integers(2**31))
    full.positions[:, 2] = (full.positions[:, 2] + depth / 4) % full.cell.lengths()[2]
    full.pbc = (True, True, False)
    return full


def phase_named(name):
    """One of `PHASES`, or InputError."""
    if name not in PHASES:
        raise InputError(f"There is no phase '{name}': give one of {', '.join(PHASES)}.")
    return PHASES[name]


def cell_image(name, configuration, seed=0):
    """Images of one frozen configuration, averaged over cells and symmetry: ndarray (thicknesses, rows, columns)."""
    phase = PHASES[name]
    crystal = block(name, THICKNESSES_A[-1], (seed, list(PHASES).index(name), configuration))
    rows, columns = phase.shape
    many_x, many_y = phase.scanned
    region = (0, 0), (many_x * phase.cell_A[0], many_y * phase.cell_A[1])
    positions = scan_positions(crystal, (many_y * rows, many_x * columns), region)
    found = multislice_images(
        crystal, MICROSCOPE, THICKNESSES_A, positions, sampling_A=SAMPLING_A, slice_A=crystal_slice(name),
        configurations=[configuration], seed=seed,
    )  # fmt: skip
    cells = found.mean[0].reshape(len(THICKNESSES_A), many_y, rows, many_x, columns).mean(axis=(1, 3))
    return symmetrised(cells, phase)


def crystal_slice(name):
    """Thickness of a slice [Å]: one atomic plane."""
    return (NIO_A if name == "nio" else LSMO_A if name == "lsmo" else SR3FE2O7_A) / 2 + 1e-6


def symmetrised(cells, phase):
    """Mean of cell images (…, rows, columns) over the operations of the projection, which keep the origin's pixel."""
    mean = np.mean([np.roll(cells, shift, axis=(-2, -1)) for shift in phase.shifts], axis=0)
    for axis in (-2, -1):
        mean = (mean + np.roll(np.flip(mean, axis), 1, axis)) / 2
    return (mean + mean.swapaxes(-2, -1)) / 2 if phase.square else mean


def cell_dataset(samples):
    """Mean, standard error and fit of each phase as one Dataset; samples: dict of phase to (C, T, rows, columns)."""
    data = xr.Dataset(attrs=MICROSCOPE.as_attributes() | {"simulated": 1, "la_share": LA_SHARE})
    data["thickness"] = ("thickness", list(THICKNESSES_A), {"units": "angstrom"})
    for name, images in samples.items():
        axes, images = ("thickness", f"y_{name}", f"x_{name}"), np.asarray(images, float)  # noqa: PLW2901
        error = (
            images.std(axis=0, ddof=1) / np.sqrt(len(images)) if len(images) > 1 else np.full(images[0].shape, np.nan)
        )
        data[name] = (axes, images.mean(axis=0), {"units": "1", "long_name": "fraction of the incident electrons"})
        data[f"{name}_standard_error"] = (axes, error, {"units": "1"})
        data.attrs[f"{name}_configurations"] = len(images)
        found = fitted(images.mean(axis=0), name)
        for key, values in vars(found).items():
            if key not in ("thickness_A", "species"):
                sides = ("thickness", f"kind_{name}")[: values.ndim]
                data[f"{name}_{key}"] = (sides, values, {"units": "angstrom" if key.endswith("_A") else "1"})
    return data


@lru_cache(maxsize=1)
def unit_cells():
    """The committed unit-cell images, without the source's size."""
    return load_dataset(fetch("haadf_cells"), tuple(PHASES))


@dataclass(frozen=True)
class Profiles:
    """Equation (1) of one phase at every thickness.

    Parameters
    ----------
    thickness_A : ndarray, shape (T,)
    species : tuple of str, length n
        The distinct kinds of columns; those of one kind are alike.
    height, sigma_A, tail_sigma_A, tail : ndarray, shape (T, n)
        h [fraction of the beam], σ and τ [Å], and f.
    background : ndarray, shape (T,)
        b [fraction of the beam].
    residual : ndarray, shape (T,)
        Rms of what the fit leaves, over the rms contrast of the image.
    """

    thickness_A: np.ndarray
    species: tuple
    height: np.ndarray
    sigma_A: np.ndarray
    tail_sigma_A: np.ndarray
    tail: np.ndarray
    background: np.ndarray
    residual: np.ndarray

    def at(self, thickness_A):
        """(height, sigma_A, tail_sigma_A, tail) each (n, *shape) and background (*shape), interpolated in thickness."""
        wanted = np.asarray(thickness_A, float)
        low, high = self.thickness_A[[0, -1]]
        if wanted.min() < low or wanted.max() > high:
            raise InputError(f"A thickness of {wanted.min():g} to {wanted.max():g} Å: give {low:g} to {high:g} Å.")
        columns = [
            np.stack([np.interp(wanted, self.thickness_A, one) for one in values.T])
            for values in (self.height, self.sigma_A, self.tail_sigma_A, self.tail)
        ]
        return (*columns, np.interp(wanted, self.thickness_A, self.background))


@lru_cache(maxsize=16)
def column_profiles(name, source_A=SOURCE_A):
    """Equation (1) of a phase under a Gaussian source of that standard deviation [Å].

    The fit was made with `SOURCE_A`: another source widens every Gaussian and keeps what is under it.
    """
    phase, data = phase_named(name), unit_cells()
    height, sigma, tau, tail, background, residual = (data[f"{name}_{key}"].values for key in FITTED)
    wider = source_A**2 - SOURCE_A**2
    if not (np.isfinite(source_A) and (sigma**2 + wider).min() > 0.25**2):
        raise InputError(f"source_A = {source_A} Å cannot be: give 0.2 Å or more.")
    narrow, broad = height * (1 - tail) * sigma**2 / (sigma**2 + wider), height * tail * tau**2 / (tau**2 + wider)
    total = narrow + broad
    share = broad / np.where(total > 0, total, 1.0)
    sigma, tau = np.sqrt(sigma**2 + wider), np.sqrt(tau**2 + wider)
    return Profiles(np.array(THICKNESSES_A), _names(phase), total, sigma, tau, share, background, residual)


def fitted(images, name):
    """Fit equation (1) to the images (T, rows, columns) of a phase, blurred by a source of `SOURCE_A`: `Profiles`."""
    phase = phase_named(name)
    images = blurred(images, phase.cell_A, SOURCE_A)
    found = [_fit_columns(image, phase, _kinds(phase)) for image in images]
    return Profiles(np.array(THICKNESSES_A), _names(phase), *(np.array(part) for part in zip(*found, strict=True)))


def _names(phase):
    """Species of each kind of column."""
    return tuple(phase.species[columns[0]] for columns in _kinds(phase))


def blurred(images, cell_A, source_A):
    """Periodic images (…, rows, columns) of a cell (x, y) [Å], blurred by the source."""
    qy, qx = (np.fft.fftfreq(n, length / n) for n, length in zip(images.shape[-2:], cell_A[::-1], strict=True))
    damping = np.exp(-2 * (np.pi * source_A) ** 2 * np.add.outer(qy**2, qx**2))
    return np.fft.ifft2(np.fft.fft2(images) * damping).real


def _kinds(phase):
    """Which columns are alike by symmetry: lists of their indices."""
    alike = LAYER_KIND * 2 if phase is PHASES["sr3fe2o7"] else phase.species
    return [[n for n, kind in enumerate(alike) if kind == one] for one in dict.fromkeys(alike)]


def _distances2(phase):
    """Squared distance [Å²] of every pixel to every column and its nearest copies: (columns, copies, rows, columns)."""
    y, x = (np.arange(n) * length / n for n, length in zip(phase.shape, phase.cell_A[::-1], strict=True))
    copies = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    at = (np.array(phase.sites)[:, None] + copies) * phase.cell_A
    return (y[:, None] - at[..., 1, None, None]) ** 2 + (x - at[..., 0, None, None]) ** 2


def _fit_columns(image, phase, kinds):
    """Heights, widths, tails (one per kind), background and relative residual of one image.

    Only the widths are searched: heights and background enter linearly and are not negative. Broad tails on a dense
    lattice look like a background, so all kinds share one width of the tail.
    """
    square, scale, count = _distances2(phase), np.ptp(image), len(kinds)

    def solved(widths):
        shapes = [
            np.exp(-square[columns] / (2 * width**2)).sum(axis=(0, 1)).ravel()
            for spread in (widths[:count], np.full(count, widths[-1]))
            for columns, width in zip(kinds, spread, strict=True)
        ]
        basis = np.stack([*shapes, np.ones(image.size)], axis=1)
        amounts = nnls(basis, image.ravel() / scale)[0]
        return amounts, basis @ amounts - image.ravel() / scale

    least, most = (np.r_[np.full(count, np.hypot(SOURCE_A, s)), np.hypot(SOURCE_A, t)] for s, t in WIDTHS_A)
    start = least + 0.3 * (most - least)
    best = least_squares(lambda w: solved(w)[1], start, bounds=(least, most), ftol=1e-5, xtol=1e-4, max_nfev=25)
    amounts, left = solved(best.x)
    narrow, broad, background = amounts[:count], amounts[count:-1], amounts[-1]
    height = narrow + broad
    tail = broad / np.where(height > 0, height, 1.0)
    missed = np.sqrt((left**2).mean()) / (image / scale).std()
    return height * scale, best.x[:count], np.full(count, best.x[-1]), tail, background * scale, missed


def save_cells(data, path):
    """Write the Dataset, its images in 16 bits and its fits as they are."""
    images = [name for name in data.data_vars if data[name].ndim == 3]
    whole = {name: {"zlib": True} for name in data.data_vars if name not in images}
    packed = {"dtype": "uint16", "scale_factor": STEP, "_FillValue": 65535, "zlib": True, "complevel": 9}
    with written(path) as temporary:
        data.to_netcdf(temporary, engine="h5netcdf", encoding=whole | dict.fromkeys(images, packed))


def main():
    """`python -m unitcell.twins.haadf`."""
    parser = argparse.ArgumentParser(
        description="Dark-field images of unit cells by frozen-phonon multislice (resumes)."
    )
    parser.add_argument("--configurations", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(FOLDER / "haadf_cells.nc"))
    given = parser.parse_args()
    tasks = [(name, n, given.seed) for n in range(given.configurations) for name in PHASES]
    images = run_structures(cell_image, tasks, folder=project_root() / "build" / "haadf")
    samples = {name: [image for task, image in zip(tasks, images, strict=True) if task[0] == name] for name in PHASES}
    save_cells(cell_dataset(samples), given.out)


if __name__ == "__main__":
    main()
