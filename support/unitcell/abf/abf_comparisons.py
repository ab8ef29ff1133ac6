"""Chapter 02's comparisons: settings against finer ones, images against abTEM's, elastic against frozen phonons."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from unitcell.abf.simulation import CELL_SHAPE
from unitcell.crystals import beam_periods, tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import Microscope, annular_images, frozen_phonon_images, thermal_images
from unitcell.scattering.beams import fibonacci_points
from unitcell.scattering.bloch import EXCITATION_PER_A
from unitcell.scattering.convergence import CHECK_SHAPE, relative_rms

GRIDS = ((2, 1), (2, 2), (3, 2), (4, 3), (5, 4))
DENSE = (8, 6)
STEADY = 0.1  # of the mean: a column that swings by less has lost its channelling oscillation
WINDOW_A = 100.0


def differences(image, reference):
    """Rms difference and difference of the means [% of the reference's mean]."""
    image, reference = np.asarray(image), np.asarray(reference)
    scale = 100 / reference.mean()
    return scale * np.sqrt(np.mean((image - reference) ** 2)), scale * (image.mean() - reference.mean())


def sampling_errors(crystal, microscope, thickness_A, cutoffs_mrad, settings):
    """What each truncation of the Bloch waves leaves at one thickness.

    Parameters
    ----------
    crystal : ase.Atoms
    microscope : unitcell.scattering.Microscope
    thickness_A : float
    cutoffs_mrad : sequence of float
        The last one, with upper zones, is the reference of the others.
    settings : dict
        Keywords of `annular_images` whose error is asked for, without upper zones.

    Returns
    -------
    dict
        cutoffs_mrad; 'cut-off': label → rms [%] of each; grids; 'k-points': rms [%] of each against 8 × 6;
        'settings': rms [%] of the settings, cut-off and k-points together.
    """

    def image(thermal=True, **given):
        finest = {"cutoff_mrad": cutoffs_mrad[-1], "excitation_per_A": EXCITATION_PER_A, "k_points": (2, 1)}
        return annular_images(crystal, microscope, [thickness_A], CHECK_SHAPE, thermal=thermal, **finest | given)

    by_cutoff, own = {}, {"cutoff_mrad": settings["cutoff_mrad"], "excitation_per_A": 0.0}
    for thermal in (False, True):
        best = image(thermal)
        for zones in (0.0, EXCITATION_PER_A):
            steps = cutoffs_mrad[:-1] if zones else cutoffs_mrad
            tried = [image(thermal, cutoff_mrad=c, excitation_per_A=zones) for c in steps]
            label = f"{'300 K' if thermal else 'static'}, {'with' if zones else 'without'} upper zones"
            by_cutoff[label] = [100 * relative_rms(one, best) for one in tried]
    dense = image(**own, k_points=DENSE)
    by_grid = [100 * relative_rms(image(**own, k_points=k), dense) for k in GRIDS]
    beams = 100 * relative_rms(image(**own), best)
    points = 100 * relative_rms(image(**own, k_points=settings["k_points"]), dense)
    found = {"cutoffs_mrad": cutoffs_mrad, "cut-off": by_cutoff, "grids": GRIDS, "k-points": by_grid}
    return found | {"settings": float(np.hypot(beams, points))}


def static_table(images, peers, depths_A):
    """Rms and mean difference of static images from abTEM's, as a DataFrame.

    Parameters
    ----------
    images : dict of str to ndarray, shape (T, rows, columns)
    peers : sequence of ndarray (rows, columns)
    depths_A : sequence of float, shape (T,)
    """
    return pd.DataFrame(
        [
            {"upper zones": name, "thickness [Å]": depth, "rms [%]": rms, "mean [%]": mean}
            for name, own in images.items()
            for depth, (rms, mean) in zip(depths_A, map(differences, own, peers), strict=True)
        ]
    )


@dataclass(frozen=True)
class Pair:
    """Frozen-phonon images of one structure by two codes: arrays are (thickness, rows, columns).

    `noise` combines the standard errors of both.
    """

    name: str
    depth_A: np.ndarray
    pixel_A: float
    peer: np.ndarray
    image: np.ndarray
    noise: np.ndarray

    def rows(self):
        """One line for each thickness: rms, noise, what of the rms exceeds the noise, mean [% of the mean]."""
        lines = []
        for depth, own, peer, noise in zip(self.depth_A, self.image, self.peer, self.noise, strict=True):
            rms, mean = differences(own, peer)
            spread = 100 * np.sqrt(np.mean(noise**2)) / peer.mean()
            beyond = np.sqrt(max(rms**2 - spread**2, 0.0))
            line = {"rms [%]": rms, "noise [%]": spread, "beyond noise [%]": beyond, "mean [%]": mean}
            lines.append({"structure": self.name, "thickness [Å]": depth} | line)
        return lines


def repeat_truth(member, configurations, vibrations):
    """Our own frozen-phonon images of one of abTEM's structures.

    Parameters
    ----------
    member : xarray.Dataset
        One structure of the manifest's `phonon_truth`.
    configurations : int
        Random crystals, a multiple of 8 k-points: two or more at each, whose spread is the noise.
    vibrations : unitcell.scattering.Vibrations

    Returns
    -------
    Pair
    """
    if configurations < 16:
        raise InputError(f"{configurations} configurations leave no spread at each of 8 k-points: give 16 or more.")
    crystal, microscope, shape = _of_truth(member)
    depth_A, k_points = member["depth"].values, fibonacci_points(8)
    images = frozen_phonon_images(crystal, microscope, depth_A, shape, configurations, vibrations, k_points=k_points)
    images = images[..., : CELL_SHAPE[1]]
    at_k = images.unflatten(0, (-1, len(k_points)))  # configurations take turns at the k-points
    error = (at_k.var(dim=0).mean(dim=0) / configurations).sqrt().numpy()
    noise = np.hypot(error, member["standard_error"].values)
    return _pair(member, images.mean(dim=0).numpy(), noise)


def unsampled_truth(member):
    """The same structure without random crystals: "elastic" and "thermal" images as `Pair`s in a dictionary."""
    crystal, microscope, shape = _of_truth(member)
    options = {"k_points": fibonacci_points(8), "excitation_per_A": 0.0, "cutoff_mrad": 50.0}
    given = crystal, microscope, member["depth"].values, shape
    images = {"elastic": annular_images(*given, **options), "thermal": thermal_images(*given, **options)}
    noise = member["standard_error"].values
    return {name: _pair(member, image[..., : CELL_SHAPE[1]].numpy(), noise) for name, image in images.items()}


def _of_truth(member):
    """Crystal, microscope and image shape of a structure of `phonon_truth`, which holds the cell's first √2·a."""
    named = {name: member[name].item() for name in ("alpha", "beta", "gamma", "signs", "a_site", "b_site")}
    lengths = tuple(member[f"a_{axis}"].item() for axis in "xyz")
    shift = (member["antipolar"].item(), member["alternating"].item())
    crystal = tilted_perovskite(**named, lattice_A=lengths, a_shift=shift)
    shape = (CELL_SHAPE[0], CELL_SHAPE[1] * beam_periods(named["signs"]))
    return crystal, Microscope.from_attributes(member.attrs), shape


def _pair(member, images, noise):
    """Images of a structure of `phonon_truth` beside abTEM's."""
    a_site, b_site, signs = (member[name].item() for name in ("a_site", "b_site", "signs"))
    name = f"{a_site}{b_site}O₃ ({signs.replace('-', '−')})"
    pixel_A = np.sqrt(2) * member["a_x"].item() / CELL_SHAPE[1]
    return Pair(name, member["depth"].values, pixel_A, member["abf"].values, images, noise)


def departures(images):
    """Rms difference of every further set of images from the first [%]: list of ndarray (T,)."""
    first, *others = (np.asarray(one) for one in images)
    return [np.array([differences(a, b)[0] for a, b in zip(one, first, strict=True)]) for one in others]


def member_at(library, alpha, beta, gamma):
    """The member of a library with the tilts nearest to these [degrees]."""
    apart = [
        np.abs(library[name].values - t)
        for name, t in zip(("alpha", "beta", "gamma"), (alpha, beta, gamma), strict=True)
    ]
    return library.isel(tilt=int(np.sum(apart, axis=0).argmin()))


def member_again(library, alpha, beta, gamma):
    """Largest difference of a member of an elastic library from its own simulation."""
    member, settings = member_at(library, alpha, beta, gamma), library.attrs
    named = {name: settings[name] for name in ("signs", "a_site", "b_site", "lattice_A")}
    tilts = [float(member[name]) for name in ("alpha", "beta", "gamma")]
    crystal, depths_A = tilted_perovskite(*tilts, **named), library.thickness.values.tolist()
    sampling = {"cutoff_mrad": settings["cutoff_mrad"], "excitation_per_A": 0.0, "k_points": settings["k_points"]}
    images = annular_images(crystal, Microscope.from_attributes(settings), depths_A, CELL_SHAPE, **sampling)
    return float(np.abs(member.abf.values - images.numpy()).max())


def depth_statistics(elastic, phonons):
    """How far elastic images can be trusted, by thickness.

    Parameters
    ----------
    elastic, phonons : xarray.Dataset
        Libraries of the same structures; that of phonons with `abf_error`.

    Returns
    -------
    xarray.Dataset
        `excess` of the elastic mean, `departure` of its pattern (image over mean) and the `noise` of the other's [%];
        `tilt_signal`, the rms elastic change of the pattern between γ = 0 and 5° [%], over all pairs of structures;
        `kept`, the part of it that frozen phonons show, along the elastic change; `column`, the untilted A column
        over the mean; `steady` [Å], the thickness from which on it swings by less than 0.1 in 100 Å.
    """
    pixels, depth = ("y", "x"), elastic.thickness
    pattern = {"elastic": elastic.abf / elastic.abf.mean(pixels), "phonons": phonons.abf / phonons.abf.mean(pixels)}
    gamma = elastic.gamma.values
    change = {name: one.values[gamma == 5] - one.values[gamma == 0] for name, one in pattern.items()}
    overlap, size = (np.mean(change["elastic"] * change[name], axis=(0, 2, 3)) for name in ("phonons", "elastic"))
    column = [member_at(one.to_dataset(name="abf"), 0, 0, 0).abf[:, CELL_SHAPE[0] // 4, 0] for one in pattern.values()]
    spread = {
        "departure": pattern["elastic"] - pattern["phonons"],
        "noise": phonons.abf_error / phonons.abf.mean(pixels),
    }
    excess = elastic.abf.mean(("tilt", *pixels)) / phonons.abf.mean(("tilt", *pixels)) - 1
    return xr.Dataset(
        {name: ("thickness", 100 * np.sqrt((one**2).mean(("tilt", *pixels)).values)) for name, one in spread.items()}
        | {
            "excess": ("thickness", 100 * excess.values),
            "tilt_signal": ("thickness", 100 * np.sqrt(size)), "kept": ("thickness", overlap / size),
            "column": (("library", "thickness"), np.array(column)),
            "steady": ("library", [_steady(depth.values, one.values) for one in column]),
        },
        coords={"thickness": depth.values, "library": list(pattern)},
    )  # fmt: skip


def _steady(depth_A, column):
    """Thickness from which on a column swings by less than `STEADY` within `WINDOW_A`; NaN where it never does."""
    swings = [
        np.ptp(column[(depth_A >= t) & (depth_A <= t + WINDOW_A)]) for t in depth_A if t + WINDOW_A <= depth_A[-1]
    ]
    restless = np.flatnonzero(np.array(swings) >= STEADY)
    index = restless[-1] + 1 if len(restless) else 0
    return float(depth_A[index]) if index < len(swings) else float("nan")
