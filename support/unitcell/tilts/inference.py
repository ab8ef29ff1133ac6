"""From an ABF image to tilts column by column: register, cut windows, average those alike, ask the network."""

import numpy as np
import pandas as pd
from scipy import ndimage, stats
from tqdm.auto import tqdm

from unitcell.crystals import tilted_perovskite
from unitcell.crystals.tilt_coordinates import doubled
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.networks.tilt_network import doubled_sigma
from unitcell.registration.lattice import iter_windows, register
from unitcell.scattering import Microscope, thermal_images
from unitcell.tilts.window_averaging import WindowStore

TILTS = ("v", "u", "gamma", "alpha", "beta", "alternation")
ANSWERS = (*(f"{t}_{end}" for t in TILTS for end in ("deg", "deg_lo", "deg_hi")), "ood")
OWN = ("v", "u", "gamma")  # tabulated as a column's own window alone has them, too
COLUMNS = ("row", "col", "x_px", "y_px", *ANSWERS, "windows_averaged", *(f"{t}_own_deg" for t in OWN))
FEWEST_AVERAGED = 1.5  # windows, of which the noise of one is told from that of their average
MOST_NOISE = 0.9  # of the variance: an average is never surer than by this
ALIKE = {
    "energy_eV": 0.02,
    "semiangle_mrad": 0.1,
    "inner_mrad": 0.15,
    "outer_mrad": 0.15,
}  # relative differences that do not matter
CELL_SAMPLES = (40, 28)  # rows along [001], columns along [110], of a simulated cell: the pitch of a window
MEANING = {
    "v": "tilt about the beam [1-10]",
    "u": "tilt about [110]",
    "gamma": "tilt about [001]",
    "alpha": "tilt about a",
    "beta": "tilt about b",
    "alternation": "size of tilts about a and b that alternate along the beam",
}
PATTERN_MEANING = {
    "pattern": "tilt pattern in Glazer notation",
    "pattern_probability": "probability of the pattern",
    "region": "connected cells of one pattern, the largest 0; -1 for none",
    "alternation_x": "probability that v alternates along [110]",
    "alternation_y": "probability that v alternates along [001]",
    "u_alternation_x": "probability that the sign of u alternates along [110]",
    "u_alternation_y": "probability that the sign of u alternates along [001]",
}


def infer_tilts(image, network, lattice_A=None, seed=0, *, lattice=None, averaged=True, known=None, progress=False):
    """Octahedral tilts at every B column of an ABF image.

    Each window is averaged with those around it that show the same (`tilts.window_averaging`). Averaging takes noise
    away, but not what a network gets wrong alike in all of them, so intervals of averages are those of single windows
    without the noise: its share is measured in the image, by how far single windows are read from their averages.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    network : unitcell.networks.tilt_network.TiltEnsemble
        Or anything with its `predict` and `card`.
    lattice_A : float, optional
        Expected pseudo-cubic lattice parameter [Å]; by default that of the network's crystal.
    seed : int
        Passed to the network.
    lattice : unitcell.registration.lattice.Lattice, optional
        Registered in this image before; by default it is registered here.
    averaged : bool
        Whether to average windows; False reads each alone, as networks without `familiarity` do.
    known : unitcell.known_crystals.columns.KnownCrystals, optional
        Crystals of which the specimen is known to be made: their images are fitted from where the network puts tilts,
        and `crystal` says whose fit a column has ('' where none explains it and the network's answer stays), with
        `crystal_share`, how much of it a row has that was read as a layer, and `layer_signs`, of the tilts in it.
    progress : bool
        Show how many windows are read.

    Returns
    -------
    pandas.DataFrame
        One row per B column: row, col, x_px, y_px [px], then for v, u, gamma, alpha, beta and alternation `_deg` and
        the ends `_deg_lo`, `_deg_hi` of a 90 % interval [°] on the canonical branch (gamma ≥ 0; the mirror is as
        likely), `ood`; `windows_averaged`, how many; and v, u and gamma of the column's own window as `_own_deg`.
        Columns whose window (4 × 2 cells) reaches outside the image keep their row, with NaN for all that is read.

    Raises
    ------
    InputError
        Another microscope's image (see `disagreements`), no lattice (see `registration.lattice.register`), or not one
        whole window in the image.
    """
    disagreements(image, network.card)
    lattice = lattice or register(image, network.card["lattice_A"] if lattice_A is None else lattice_A)
    table = lattice.b_columns[["row", "col", "x_px", "y_px"]].copy()
    components = (getattr(network, "familiarity", None) or {}).get("components") if averaged else None
    store = None if components is None else WindowStore(components)
    if known and not store:
        raise InputError(
            "Known crystals are fitted to averaged windows, which this network cannot make: leave them out."
        )
    with tqdm(total=len(table) * (2 if store else 1), desc="windows", disable=not progress) as bar:
        read = []
        for windows in iter_windows(image, lattice):
            read.append(_answers(network, windows, seed))
            if store:
                store.add(windows)
            bar.update(len(windows))
        table[list(ANSWERS)] = np.concatenate(read)
        table["windows_averaged"] = np.where(table.v_deg.notna(), 1.0, np.nan)
        table[[f"{name}_own_deg" for name in OWN]] = table[[f"{name}_deg" for name in OWN]]
        if store and table.v_deg.notna().any():
            averages = _read_averages(table, network, store, seed, bar, keep=known is not None)
            if known:
                known.refine(table, *averages, progress=progress)
    if table.v_deg.isna().all():
        raise InputError(
            f"{image.name} has no B column with its 4 × 2 cells of surroundings inside the image: "
            "give a larger field of view."
        )
    return table


def _answers(network, windows, seed):
    """What a network says of windows: ndarray (n, len(ANSWERS)), NaN for those that are not whole."""
    found = np.full((len(windows), len(ANSWERS)), np.nan)
    whole = np.isfinite(windows).all((1, 2))
    if whole.any():
        predicted = network.predict(windows[whole], seed=seed)
        found[whole] = np.column_stack([np.asarray(predicted[name], float) for name in ANSWERS])
    return found


def _read_averages(table, network, store, seed, bar, keep=False):
    """Put what the network says of averaged windows into the table, in place; ood stays that of single windows.

    Returns the averages and the variance of their noise per pixel, if they are to be kept.
    """
    answers, numbers, averages = [], [], []
    for windows, number in store.averages(table.row, table.col):
        answers.append(_answers(network, windows, seed))
        numbers.append(number)
        averages += [windows.astype(np.float32)] if keep else []
        bar.update(len(windows))
    centres = pd.DataFrame(np.concatenate(answers), table.index, ANSWERS)
    table["windows_averaged"] = np.concatenate(numbers)
    half = {name: table[f"{name}_deg_hi"] - table[f"{name}_deg"] for name in TILTS}
    table[[f"{name}_deg" for name in TILTS]] = centres[[f"{name}_deg" for name in TILTS]]
    kept = _kept_variance(table, half)
    for name in TILTS:
        least = 0.0 if name in ("gamma", "alternation") else -np.inf  # as in `TiltEnsemble.predict`
        reach = half[name] * np.sqrt(kept[name])
        table[f"{name}_deg_lo"] = (table[f"{name}_deg"] - reach).clip(lower=least)
        table[f"{name}_deg_hi"] = table[f"{name}_deg"] + reach
    noise = np.concatenate(store.noise) / table.windows_averaged.to_numpy()
    return (np.concatenate(averages), noise) if keep else None


def _kept_variance(table, half):
    """Share of the variance of single windows that averages keep, by coordinate: 1 − r (1 − 1/n).

    r, the share of noise, is the median squared distance of single windows from their averages over what the stated
    variance would make it, of v, and of (u, γ) in doubled coordinates. Half widths `half` are those of single windows.
    """
    n, to_sigma = table.windows_averaged, 1 / stats.norm.ppf(0.95)
    of_v = _noise_share((table.v_own_deg - table.v_deg) ** 2, half["v"] * to_sigma, n, 1)
    one, mean = (doubled(table[f"u_{end}"], table[f"gamma_{end}"]) for end in ("own_deg", "deg"))
    apart = sum((a - b) ** 2 for a, b in zip(one, mean, strict=True))
    sigma = doubled_sigma(np.hypot(*one), half["u"] * to_sigma)
    of_pair = _noise_share(apart, sigma, n, 2)
    v, pair = (1 - share * (1 - 1 / n) for share in (of_v, of_pair))
    both = (v * half["v"] ** 2 + pair * half["u"] ** 2) / (half["v"] ** 2 + half["u"] ** 2)
    return {"v": v, "u": pair, "gamma": pair, "alpha": both, "beta": both, "alternation": 1.0}


def _noise_share(squares, sigma, number, dimensions):
    """Share of noise in the variance sigma²; 0 where nothing was averaged."""
    many = (number > FEWEST_AVERAGED).to_numpy()
    if not many.any():
        return 0.0
    ratio = np.median((squares / sigma**2 / (1 - 1 / number))[many])
    return float(np.clip(ratio / stats.chi2.median(dimensions), 0, MOST_NOISE))


def disagreements(image, card):
    """What an image file says of its microscope that is not what a network was trained for.

    Parameters
    ----------
    image : unitcell.micrographs.images.StemImage
    card : dict
        Of the network: energy_eV, semiangle_mrad, inner_mrad and outer_mrad.

    Returns
    -------
    list of str
        A sentence for each value that is off but may serve.

    Raises
    ------
    InputError
        Another electron energy: the images differ too much.
    """
    said = {"energy_eV": (f"{image.name} was recorded at", 1e-3, "kV"), "semiangle_mrad": ("Its probe has", 1, "mrad")}
    said |= {"inner_mrad": ("Its detector begins at", 1, "mrad"), "outer_mrad": ("Its detector ends at", 1, "mrad")}
    warnings = []
    for key, (what, factor, unit) in said.items():
        found, known = image.recorded.get(key), card.get(key)
        if not found or not known or abs(found - known) <= ALIKE[key] * known:
            continue
        sentence = f"{what} {found * factor:g} {unit}, the network was trained for {known * factor:g} {unit}"
        if key == "energy_eV":
            raise InputError(f"{sentence}: train one for it with 'unitcell train --microscope my.yml'.")
        warnings.append(f"{sentence}: its intervals may be too narrow.")
    return warnings


def tilt_maps(tilts, image):
    """The table of `infer_tilts` as maps over row (along [001]) and col (along [110]): xarray.Dataset.

    Variables v, u, gamma, alpha, beta, alternation [degree] with `_lo` and `_hi`, ood, windows_averaged, v_own, u_own,
    gamma_own [degree], and x_px, y_px of the B columns; and what `tilts.patterns.column_patterns` adds, where the
    table has it ('' or NaN where there is no column).
    """
    maps = tilts.set_index(["row", "col"]).to_xarray()
    if "pattern" in maps:
        maps["pattern"] = maps.pattern.fillna("").astype(str)
    if "crystal" in maps:
        for name in ("crystal", "layer_signs"):
            maps[name] = maps[name].fillna("").astype(str)
        maps["layer_signs"].attrs = {
            "units": "1",
            "long_name": "signs of tilts about a, b, c in a row read as a layer",
        }
        maps["crystal"].attrs = {"units": "1", "long_name": "known crystal whose image was fitted; '' for none"}
        maps["crystal_share"].attrs = {"units": "1", "long_name": "its share of a row that was read as a layer; else 1"}
    for name, meaning in PATTERN_MEANING.items():
        if name in maps:
            maps[name].attrs = {"units": "1", "long_name": meaning}
    maps = maps.rename({f"{name}_deg{end}": f"{name}{end}" for name in TILTS for end in ("", "_lo", "_hi")})
    for name in TILTS:
        maps[name].attrs = {"units": "degree", "long_name": MEANING[name]}
        for end, words in (("lo", "lower"), ("hi", "upper")):
            what = f"{words} end of the 90 % interval of {name}"
            maps[f"{name}_{end}"].attrs = {"units": "degree", "long_name": what}
    maps = maps.rename({f"{name}_own_deg": f"{name}_own" for name in OWN})
    for name in OWN:
        maps[f"{name}_own"].attrs = {"units": "degree", "long_name": f"{MEANING[name]}, by the column's window alone"}
    maps["windows_averaged"].attrs = {"units": "1", "long_name": "windows averaged before reading, their own included"}
    maps["ood"].attrs = {"units": "1", "long_name": "how unlike the training images the window is"}
    for axis in "xy":
        maps[f"{axis}_px"].attrs = {"units": "pixel", "long_name": f"{axis} of the B column in the image"}
    maps["row"].attrs = {"units": "1", "long_name": "index along [001]"}
    maps["col"].attrs = {"units": "1", "long_name": "index along [110]"}
    return maps.assign_attrs(
        image=image.name,
        pixel_size_A=image.pixel_size_A,
        simulated=int(image.simulated),
        branch="canonical: gamma >= 0; the mirror (v, -u, -gamma) is equally likely",
    )


def summarise(tilts):
    """Median, scatter and interval statistics of each tilt over the columns with a whole window.

    Returns
    -------
    pandas.DataFrame
        Indexed by tilt: `median_deg`, `mad_deg` (median absolute deviation), `half_width_deg` (median half width of
        the 90 % intervals), `contains_zero` (fraction of intervals).
    """
    read = tilts.dropna(subset="v_deg")
    rows = {}
    for name in TILTS:
        value, low, high = (read[f"{name}_{end}"] for end in ("deg", "deg_lo", "deg_hi"))
        rows[name] = {
            "median_deg": value.median(),
            "mad_deg": (value - value.median()).abs().median(),
            "half_width_deg": ((high - low) / 2).median(),
            "contains_zero": ((low <= 0) & (high >= 0)).mean(),
        }
    return pd.DataFrame(rows).T


def untilted_cell(card, thickness_A=200.0, source_A=0.35):
    """Thermal ABF image of the untilted crystal by the network's microscope, over √2·a × 2a: ndarray (40, 28).

    Parameters
    ----------
    card : dict
        Of the network: microscope, a_site, b_site and lattice_A.
    thickness_A : float
        Thickness [Å].
    source_A : float
        Standard deviation of the effective source [Å].
    """
    microscope = Microscope(*(card[key] for key in ("energy_eV", "semiangle_mrad", "inner_mrad", "outer_mrad")))
    crystal = tilted_perovskite(0, 0, 0, a_site=card["a_site"], b_site=card["b_site"], lattice_A=card["lattice_A"])
    cell = thermal_images(crystal, microscope, [thickness_A], CELL_SAMPLES)[0].cpu().numpy()
    return ndimage.gaussian_filter(cell, source_A / _pitch_A(card), mode="wrap")


def untilted_window(card, thickness_A=200.0, source_A=0.35):
    """`untilted_cell` as a window (40, 56) with the B column at (20, 28), like those of `extract_windows`."""
    return np.roll(np.tile(untilted_cell(card, thickness_A, source_A), (1, 2)), CELL_SAMPLES[0] // 2, axis=0)


def simulated_control(card, *, field_A=36.0, pixel_size_A=0.0933, thickness_A=200.0, dose=1e5, source_A=0.35, seed=0):
    """A noisy image of an untilted crystal: stands in for the real control where that cannot be had.

    Parameters
    ----------
    card, thickness_A, source_A
        See `untilted_cell`.
    field_A : float
        Edge of the square field [Å].
    dose : float
        Electrons per Å².

    Returns
    -------
    StemImage, `simulated`, with [110] along the image's y as in the real control.
    """
    cell, pitch = untilted_cell(card, thickness_A, source_A), _pitch_A(card)
    side = np.arange(round(field_A / pixel_size_A)) * pixel_size_A
    along_x, along_y = np.meshgrid(side, side, indexing="ij")  # [110] runs down the rows of the image
    ideal = ndimage.map_coordinates(cell, [-along_y / pitch[0], along_x / pitch[1]], order=3, mode="grid-wrap")
    counts = np.random.default_rng(seed).poisson(np.clip(ideal, 0, None) * dose * pixel_size_A**2)
    return StemImage(counts.astype(np.float32), pixel_size_A, "simulated untilted crystal", simulated=True)


def _pitch_A(card):
    """Pitch of `untilted_cell` along its rows' and columns' directions, [001] and [110] [Å]."""
    return np.array([2.0, np.sqrt(2.0)]) * card["lattice_A"] / CELL_SAMPLES
