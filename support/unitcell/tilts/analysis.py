"""One ABF image read whole: lattice, tilts column by column, patterns, and what to be warned of."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from unitcell.micrographs.images import StemImage
from unitcell.registration.lattice import Lattice, register
from unitcell.tilts.dense import dense_map
from unitcell.tilts.inference import disagreements, infer_tilts, summarise, tilt_maps
from unitcell.tilts.pattern_verdict import regions, verdict
from unitcell.tilts.patterns import column_patterns

ALIEN = 0.95  # ood above which a window is unlike those trained on
GAMMA_ALONE = "a0a0c±"  # a pattern that nothing but γ speaks for
ALIEN_SHARE = 0.25  # of the columns, above which the whole image is
SCALE_OFF = 0.03  # of the lattice found against the one expected
MISALIGNED_A = 0.1  # B columns off the centre between A columns
LOCATED = 0.95  # share of the B columns, below which it is worth a word


@dataclass(frozen=True)
class Analysis:
    """What `analyse` made of one image.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    lattice : unitcell.registration.lattice.Lattice
    tilts : pandas.DataFrame
        One row per B column: see `unitcell.tilts.inference.infer_tilts`, with the columns of
        `unitcell.tilts.patterns.column_patterns` beside them.
    regions : pandas.DataFrame
        One row per region of equal pattern, see `unitcell.tilts.pattern_verdict.regions`.
    verdict : str
        The patterns in a short paragraph.
    summary : pandas.DataFrame
        Of each tilt over the image, see `unitcell.tilts.inference.summarise`.
    maps : xarray.Dataset
        The table as maps over row and col.
    warnings : list of str
        Reasons not to trust it, a sentence each.
    """

    image: StemImage
    lattice: Lattice
    tilts: pd.DataFrame
    regions: pd.DataFrame
    verdict: str
    summary: pd.DataFrame
    maps: xr.Dataset
    warnings: list


def analyse(image, network, lattice_A=None, seed=0, *, lattice=None, known=None, progress=False):
    """Tilts and tilt patterns of an ABF image.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    network : unitcell.networks.tilt_network.TiltEnsemble
    lattice_A : float, optional
        Expected pseudo-cubic lattice parameter [Å]; by default that of the network's crystal.
    seed : int
    lattice : unitcell.registration.lattice.Lattice, optional
        Of this image, if it has been registered.
    known : unitcell.known_crystals.columns.KnownCrystals, optional
        See `unitcell.tilts.inference.infer_tilts`.
    progress : bool
        Show how far the windows are read.

    Returns
    -------
    Analysis

    Raises
    ------
    InputError
        As `unitcell.tilts.inference.infer_tilts`.
    """
    said = disagreements(image, network.card)
    expected_A = network.card["lattice_A"] if lattice_A is None else lattice_A
    lattice = lattice or register(image, expected_A)
    tilts = infer_tilts(image, network, lattice=lattice, seed=seed, known=known, progress=progress)
    patterns = column_patterns(tilts)
    found = regions(tilts, patterns)
    words = verdict(tilts, patterns, found)
    tilts = tilts.join(patterns)
    warnings = [*said, *_of_the_image(image), *_of_the_lattice(image, lattice, expected_A), *_of_the_windows(tilts)]
    warnings += [*_of_the_patterns(tilts), *_of_the_fits(tilts)]
    return Analysis(image, lattice, tilts, found, words, summarise(tilts), tilt_maps(tilts, image), warnings)


def same_microscope(dense_card, card):
    """Whether the dense map's network was trained for the microscope of the tilt network."""
    return all(dense_card[name] == card[name] for name in ("energy_eV", "semiangle_mrad", "inner_mrad", "outer_mrad"))


def all_maps(analysis, dense_network=None, step=2, progress=False):
    """Tilts column by column and the dense map of one image: what `tilt_maps.nc` holds.

    Parameters
    ----------
    analysis : Analysis
    dense_network : unitcell.networks.paper_network.PaperNetwork, optional
        See `unitcell.tilts.dense.load_dense_network`; without one the dense map is left out.
    step : int
        Pixels of the frame between values of the dense map.
    progress : bool

    Returns
    -------
    xarray.Dataset
        `analysis.maps` over row and col, and v_abs, u_abs, gamma_abs [degree] over along_001 and along_110 [Å] with
        dense_x_px, dense_y_px.
    """
    if dense_network is None:
        return analysis.maps
    options = {"lattice": analysis.lattice, "step": step, "progress": progress}
    dense = dense_map(analysis.image, dense_network, analysis.lattice.a_A, **options)
    dense = dense.rename(x_px="dense_x_px", y_px="dense_y_px")
    return analysis.maps.merge(dense, combine_attrs="no_conflicts")


def _of_the_image(image):
    """What the reader of the file knows."""
    if image.simulated:
        yield f"This image is simulated ({image.name})."
    if image.inverted:
        yield f"The contrast of {image.name} was inverted on request: the network has only seen bright-field images."


def _of_the_lattice(image, lattice, expected_A):
    """What the registration knows."""
    ratio = lattice.a_A / expected_A
    if abs(ratio - 1) > SCALE_OFF:
        yield (
            f"By its pixel size the lattice of {image.name} measures {lattice.a_A:.3f} Å, {ratio:.3f} times the "
            f"expected {expected_A:g} Å: check pixel_size_A, or give the lattice parameter of your crystal."
        )
    located = lattice.b_columns.found.mean()
    if located < LOCATED:
        yield f"Only {located:.0%} of the B columns could be located; the others are where the lattice puts them."
    off_A = np.hypot(*lattice.shift_A)
    if off_A > MISALIGNED_A:
        yield (
            f"B columns lie {off_A:.2f} Å off the centre between A columns: the crystal is polar or not on its zone "
            "axis, and tilts, γ above all, may be biased by more than their intervals."
        )


def _of_the_windows(tilts):
    """What the network knows."""
    alien = (tilts.ood.dropna() > ALIEN).mean()
    if alien > ALIEN_SHARE:
        yield (
            f"{alien:.0%} of the windows are unlike the images that the network was trained on (ood above {ALIEN:g}): "
            "do not trust their tilts; train for your microscope with 'unitcell train --microscope'."
        )


def _of_the_fits(tilts):
    """What fits of known crystals do not tell."""
    if "crystal" not in tilts:
        return
    read = tilts.dropna(subset="v_deg")
    left = (read.crystal == "").mean()
    if left:
        yield f"None of the crystals given explains {left:.0%} of the columns: their tilts are the network's."
    if read.crystal[read.crystal != ""].nunique() > 1:
        yield (
            "Several crystals were fitted: a window that spans two is no window of one. Rows between two are read as "
            "layers where nothing else explains them; others near interfaces may be wrong by more than their intervals."
        )


def _of_the_patterns(tilts):
    """What intervals say of patterns."""
    alone = tilts[tilts.pattern == GAMMA_ALONE]
    hold_zero = (alone.gamma_deg_lo <= 0).mean()
    if len(alone) and hold_zero > 0.5:
        yield (
            f"In {len(alone)} columns nothing but γ speaks against an untilted crystal, and {hold_zero:.0%} of its "
            "intervals there hold zero: the network reads some 2 to 5° of γ in crystals without it."
        )
