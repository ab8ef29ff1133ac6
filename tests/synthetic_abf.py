"""Images of dark Gaussian columns on the projected [110] perovskite lattice, with every position known."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from unitcell.micrographs.images import StemImage

A_A = 3.905
# Darkness and width [Å] of the columns of one cell, and their places along [110] and [001].
COLUMNS = {"A": (1.0, 0.55, 0.0, 0.5), "B": (0.7, 0.5, 0.0, 0.0), "O": (0.4, 0.45, 0.5, 0.0)}
BRIGHT, CONTRAST = 0.75, 0.36  # fraction of the beam collected in the hole, and how much less of it on an A column
CUT = 5.0  # standard deviations at which a column's Gaussian ends


@dataclass(frozen=True)
class Interface:
    """Another perovskite beyond a plane of columns, coherent with the first.

    Parameters
    ----------
    columns : dict
        Its columns, like `COLUMNS`; only their darkness is used.
    along : str
        Normal of the plane: "001" (a change from row to row) or "110" (from column to column).
    at : float
        Cells from the middle of the field to the plane.
    width : float
        Cells over which one passes into the other; 0 is a step.
    strain : float
        Its repeat along the normal, relative to the first's, less one.
    period : float, optional
        Cells of one superlattice period (half of it each); by default one plane.
    shifts : dict
        Displacements of its columns, as `shifts` of `synthetic_abf`.
    """

    columns: dict = field(default_factory=lambda: COLUMNS)
    along: str = "001"
    at: float = 0.0
    width: float = 0.0
    strain: float = 0.0
    period: float | None = None
    shifts: dict = field(default_factory=dict)

    @property
    def axis(self):
        """Index of the normal among the lattice coordinates ([110], [001])."""
        return {"110": 0, "001": 1}[self.along]

    def share(self, n):
        """How much of the other perovskite there is at lattice coordinates n (..., 2), 0 to 1."""
        depth = n[..., self.axis] - self.at
        if self.period:
            depth = self.period / (2 * np.pi) * np.sin(2 * np.pi * depth / self.period)
        return 0.5 + 0.5 * np.tanh(depth / max(self.width, 1e-3))

    def displaced(self, n):
        """Lattice coordinates n (..., 2) with the strain added up from the middle of the field."""
        reach = np.abs(n[..., self.axis]).max() + 2
        fine = np.linspace(-reach, reach, int(40 * reach))
        grown = np.cumsum(self.share(np.stack([fine, fine], -1))) * self.strain * (fine[1] - fine[0])
        n = n.astype(float)
        n[..., self.axis] += np.interp(n[..., self.axis], fine, grown - np.interp(0, fine, grown))
        return n


def synthetic_columns(
    shape=(330, 350), pixel_A=0.1, rotation_deg=0.0, *, shear=0.0, drift_A=0.0, columns=COLUMNS, missing=0.0,
    centre=None, seed=0, lattice_A=A_A, interface=None, shifts=None, periods=1.0,
):  # fmt: skip
    """Every column of an image: DataFrame with site, x_A, y_A, depth, width_A and present. See `synthetic_abf`."""
    rng = np.random.default_rng(seed)
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # rows: [110], [001] in (x, y)
    turn = turn @ np.array([[1.0, 0.0], [shear, 1.0]])
    extent = np.array(shape[::-1]) * pixel_A
    centre = extent / 2 if centre is None else np.asarray(centre)
    reach = int(1.1 * np.hypot(*extent) / lattice_A / np.sqrt(0.5)) // 2 + 3
    grid = np.stack(np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach)), -1).reshape(-1, 2)
    tables = []
    for site, (depth, width, along_x, along_y) in columns.items():
        n = grid + np.array([along_x, along_y])
        share = interface.share(n) if interface else np.zeros(len(n))
        r = interface.displaced(n) if interface else n
        r = r * (lattice_A / np.sqrt(2), lattice_A) + lattice_A * _shift(site, grid, shifts or {}, 1.0)
        r = r + lattice_A * _shift(site, grid, interface.shifts if interface else {}, share)
        r = r @ turn + centre
        r = r + drift_A * np.sin(2 * np.pi * periods * r[:, ::-1] / extent[::-1])
        seen = ((r > -2) & (r < extent + 2)).all(1)
        other = interface.columns[site][0] if interface else depth
        table = {"site": site, "x_A": r[:, 0], "y_A": r[:, 1], "depth": depth + share * (other - depth)}
        table = pd.DataFrame(table | {"width_A": width})[seen]
        tables.append(table.assign(present=rng.random(len(table)) >= (missing if site == "B" else 0)))
    return pd.concat(tables, ignore_index=True)


def synthetic_abf(
    shape=(330, 350), pixel_A=0.1, rotation_deg=0.0, *, noise=0.0, dose=None, jitter_A=0.0, seed=0, all_columns=False,
    **geometry,
):  # fmt: skip
    """A StemImage and the true (x, y) [px] of its B columns, shape (n, 2), missing ones included.

    Parameters
    ----------
    shape, pixel_A, rotation_deg
        Of the image: pixels, their edge [Å], [110] from image right towards image down [°].
    noise : float
        Standard deviation of Gaussian noise, in units of the A column's depth.
    dose : float, optional
        Electrons per Å²: the image is then counts, with Poisson noise.
    jitter_A : float
        Standard deviation of what each scan line is displaced along x by [Å] ("flag" noise).
    seed : int
    all_columns : bool
        Return the table of `synthetic_columns` in place of the B columns' positions.
    **geometry
        shear : mixes y into x; drift_A : amplitude of a smooth displacement [Å] of `periods` waves over the field;
        columns : as `COLUMNS`; missing : fraction of B columns left out; centre : of the lattice [Å];
        lattice_A : its parameter [Å]; interface : an `Interface`; shifts : per site (dx, dy, (p, q)), a displacement
        in lattice parameters along [110] and [001] with the sign (-1)^(p·col + q·row).
    """
    table = synthetic_columns(shape, pixel_A, rotation_deg, seed=seed, **geometry)
    rng = np.random.default_rng([seed, 1])
    image = 1 - _darkness(table[table.present], shape, pixel_A, rng.normal(0, jitter_A, shape[0]))
    image += rng.normal(0, noise, shape) if noise else 0
    image = 1000 * image + 2000
    if dose:
        beam = BRIGHT * (1 - CONTRAST * (3000 - image) / 1000)
        image = rng.poisson(np.clip(beam, 0, None) * dose * pixel_A**2)
    image = StemImage(image.astype(np.float32), pixel_A, "synthetic", True)
    if all_columns:
        return image, table
    places, edge = table.loc[table.site == "B", ["x_A", "y_A"]].to_numpy() / pixel_A, 0.5 / pixel_A
    return image, places[((places > edge) & (places < np.array(shape[::-1]) - 1 - edge)).all(1)]


def _shift(site, grid, shifts, share):
    """Displacements (n, 2) of one site's columns in lattice parameters."""
    dx, dy, wave = shifts.get(site, (0.0, 0.0, (0, 0)))
    return (share * (-1.0) ** (grid @ np.array(wave)))[:, None] * np.array([dx, dy])


def _darkness(table, shape, pixel_A, jitter_A):
    """Sum of the columns' Gaussians on an image of `shape`, each drawn on its own patch."""
    dark = np.zeros(shape)
    y, x = (np.arange(n) * pixel_A for n in shape)
    for at_x, at_y, depth, width in table[["x_A", "y_A", "depth", "width_A"]].to_numpy():
        rows = slice(max(int((at_y - CUT * width) / pixel_A), 0), max(int((at_y + CUT * width) / pixel_A) + 2, 0))
        cols = slice(max(int((at_x - CUT * width) / pixel_A), 0), max(int((at_x + CUT * width) / pixel_A) + 2, 0))
        across = x[None, cols] - at_x - jitter_A[rows, None] if jitter_A.any() else x[None, cols] - at_x
        dark[rows, cols] += (depth * np.exp(-((y[rows] - at_y) ** 2) / (2 * width**2)))[:, None] * np.exp(
            -(across**2) / (2 * width**2)
        )
    return dark
