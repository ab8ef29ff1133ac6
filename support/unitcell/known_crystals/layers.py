"""Windows of a film whose rows differ: every row of octahedra has tilts, a pattern and a composition of its own.

Where one crystal grows on another, no window shows either of them: below its middle lie octahedra of one, above those
of the other, and corners that both share. Four rows are simulated at a time, the window's own, its neighbours and the
next, which makes the stack periodic and is seen by no window. Lens and thickness are what the fits of both crystals
have on average; what belongs to a crystal goes over from one to the other with the composition,

    x(row) = (1 − s) x_first + s x_second,   s the share of the second crystal.                              (1)
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from unitcell.abf.simulation import CELL_SHAPE
from unitcell.crystals import Layer, beam_periods, layered_perovskite
from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.known_crystals.sought import NAMES, a_displacements, k_points, lengths_A, through, windows_of
from unitcell.networks.training_windows import refine
from unitcell.scattering import thermal_images
from unitcell.scattering.debye_waller import b_factors

OF_A_CRYSTAL = (
    "returned", "log_vibration", "a_shift", "strain_xx", "strain_yy", "crystal_tilt_x_mrad", "crystal_tilt_y_mrad",
)  # fmt: skip
AROUND = (0, 1, 2, -1)  # rows of the stack for a window: its own, the one above, the next, the one below
# Sites of each row are written as elements that no crystal here has; what they are made of is told by their shares.
OTHER_WAY = (
    np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    np.diag([1.0, 1.0, -1.0]),
)  # v, u, γ when α, β or γ is turned the other way
A_SITES, B_SITES = ("Ac", "Th", "Pa", "U"), ("Np", "Pu", "Am", "Cm")


@dataclass(frozen=True)
class Row:
    """One row of octahedra.

    Parameters
    ----------
    tilts : tuple of three floats
        v, u, γ that its layer asks of octahedra [degrees], of the one at an even place where signs alternate.
    signs : str
        Its tilt pattern.
    share : float
        Of the second crystal's elements.
    """

    tilts: tuple
    signs: str
    share: float

    def layer(self, a_site, b_site, lattice_A, a_shift=(0.0, 0.0), *, odd=False):
        """As `unitcell.crystals.layered_perovskite` has it; with odd, of a stack that begins in an odd row."""
        alpha, beta, gamma = to_pseudocubic(*self.asked(self.tilts, odd))
        return Layer(float(alpha), float(beta), float(gamma), self.signs, a_site, b_site, lattice_A, a_shift)

    def asked(self, shown, at):
        """(v, u, γ) [degrees] that a row somewhere is asked for if its windows show some, or the other way round.

        Windows of odd rows are those one column further, where '+' about c is the other way round.
        """
        v, u, gamma = shown
        return v, u, -gamma if at % 2 and self.signs[2] == "+" else gamma


@dataclass(frozen=True)
class Stack:
    """Two crystals that were fitted, between which rows lie.

    Parameters
    ----------
    first, second : unitcell.known_crystals.specimen_fit.SpecimenFit
    microscope : unitcell.scattering.Microscope
        Energy and apertures.
    """

    first: object
    second: object
    microscope: object

    def values(self, share):
        """Lens, thickness and what else belongs to a row, by equation (1): dict."""
        shares = np.array([share if name in OF_A_CRYSTAL else 0.5 for name in NAMES])
        point = (1 - shares) * self.first.point + shares * self.second.point
        return dict(zip(NAMES, map(float, point), strict=True))

    def image(self, rows, odd, effort):
        """Image of four rows, see `AROUND`.

        Parameters
        ----------
        rows : sequence of four Row
        odd : bool
            Whether the first is an odd row of the image.
        effort : (int, float)
            See `unitcell.known_crystals.sought`.

        Returns
        -------
        StackImage
        """
        heights = [float(self._lengths_A(row.share)[1]) for row in rows]
        layers = [
            row.layer(*sites, height, self._a_shift(row), odd=odd)
            for row, height, *sites in zip(rows, heights, A_SITES, B_SITES, strict=True)
        ]
        middle = (rows[0].share + rows[1].share) / 2
        values, lengths = self.values(middle), self._lengths_A(middle)
        crystal = layered_perovskite(layers, "y", tuple(lengths.tolist()), periodic=True)
        centres = np.concatenate([[0], np.cumsum((heights + np.roll(heights, -1)) / 2)])
        shape = 2 * CELL_SHAPE[0], max(beam_periods(row.signs) for row in rows) * CELL_SHAPE[1]
        y = np.arange(shape[0]) * crystal.cell[1, 1] / shape[0]
        returned = np.interp(y, centres, [self.values(row.share)["returned"] for row in (*rows, rows[0])])
        count, cutoff = effort
        image = thermal_images(
            crystal, through(values, self.microscope), [values["thickness_A"]], shape, excitation_per_A=0.0,
            returned=torch.as_tensor(returned, dtype=torch.float32)[:, None], k_points=k_points(count),
            cutoff_mrad=max(cutoff, 1.2 * self.microscope.outer_mrad), shares=self._shares(rows),
            debye_waller_A2=self._vibrations(middle),
        )  # fmt: skip
        source = torch.tensor([[values[f"source_{each}_A2"] for each in ("xx", "xy", "yy")]])
        extent = float(crystal.cell[1, 1]), float(2**0.5 * lengths[0])
        fine = refine(image[..., : CELL_SHAPE[1]].float(), source, extent)
        pitches = tuple((float(lengths[0]), height) for height in heights[:2])
        return StackImage(fine, extent, float(centres[1]), pitches)

    def _a_shift(self, row):
        tilts = to_pseudocubic(*row.tilts)
        return a_displacements(tilts, row.signs, self.values(row.share)["a_shift"])

    def _lengths_A(self, share):
        """Pseudo-cubic lattice parameters along x, y, z [Å]."""
        first, second = (lengths_A(fit.values, fit.material) for fit in (self.first, self.second))
        return (1 - share) * first + share * second

    def _shares(self, rows):
        """What the sites of each row are made of, by what they are written as."""
        found, materials = {}, (self.first.material, self.second.material)
        for row, a_site, b_site in zip(rows, A_SITES, B_SITES, strict=True):
            for label, sites in ((a_site, [m.a_site for m in materials]), (b_site, [m.b_site for m in materials])):
                found[label] = {
                    name: (1 - row.share) * sites[0].get(name, 0) + row.share * sites[1].get(name, 0)
                    for name in {**sites[0], **sites[1]}
                }
        return found

    def _vibrations(self, share):
        """Debye–Waller factors of the elements [Å²]; those of both crystals' vibrate by the share."""
        shares = {name: share for name in self.first.material.elements}
        for name in self.second.material.elements:
            shares[name] = share if name in shares else 1.0
        shares |= {name: 0.0 for name in set(self.first.material.elements) - set(self.second.material.elements)}
        factors = b_factors(shares)
        return {name: b * np.exp(self.values(shares[name])["log_vibration"]) for name, b in factors.items()}


@dataclass(frozen=True)
class StackImage:
    """Image of a stack, in which the windows of its first two rows lie as they should.

    Parameters
    ----------
    fine : tensor (1, rows, columns)
    extent_A : (float, float)
        Its height and width [Å].
    next_A : float
        How far above the first row the second lies [Å].
    pitches_A : two pairs of float
        Lattice parameters along x and y of both rows [Å].
    """

    fine: torch.Tensor
    extent_A: tuple
    next_A: float
    pitches_A: tuple

    def windows(self, which, distortions):
        """Standardised windows, flat, of the first (0) or second row (1): ndarray (n, pixels).

        Parameters
        ----------
        which : int
        distortions : ndarray (n, 6)
            Offset (x, y) [Å] and stretch (xx, xy, yx, yy).
        """
        given = torch.as_tensor(distortions, dtype=torch.float32)
        offset, stretch = given[:, :2], given[:, 2:].reshape(-1, 2, 2)
        if which:  # around the next column along [110], as windows of all rows are
            offset = offset + torch.tensor([self.extent_A[1] / 2, self.next_A])
        fine = self.fine.expand(len(given), -1, -1)
        return windows_of(fine, self.extent_A, self.pitches_A[which], offset, stretch)


def moved(row, step):
    """A row whose v, u, γ and share change by a step (4,)."""
    tilts = tuple(float(tilt + by) for tilt, by in zip(row.tilts, step[:3], strict=True))
    return replace(row, tilts=tilts, share=float(np.clip(row.share + step[3], 0, 1)))


def mirrored(row):
    """The row whose image is the same: (v, −u, −γ), the pseudo-cubic axes a and b exchanged."""
    v, u, gamma = row.tilts
    return replace(row, tilts=(v, -u, -gamma), signs=row.signs[1] + row.signs[0] + row.signs[2])


def other_ways(signs, others):
    """Matrices of (v, u, γ) that turn tilts about the axes whose signs differ the other way: list of ndarray (3, 3).

    Where patterns differ, which way a tilt of one goes says nothing of the other's. α → −α is (v, u) → (−u, −v),
    β → −β is (v, u) → (u, v).
    """
    found = [np.eye(3)]
    for sign, other, turned in zip(signs, others, OTHER_WAY, strict=True):
        found += [turned @ form for form in found] if sign != other else []
    return found
