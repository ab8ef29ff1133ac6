"""What the text of Kalinin et al. 2020 says of its two crystals, sentence by sentence, held against the sweep."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from unitcell.environments import conclusions as found

ANY = float("inf")
A, B, NIO = 0, 1, 2  # environments of LSMO with NiO


@dataclass
class Claim:
    """A sentence of the paper and what is measured of it.

    Parameters
    ----------
    words : str
    where : str
        Figure of the paper.
    parts : list of (str, float, float, float)
        What is measured, the value (NaN: this setting was not run), and the range in which the sentence is right.
    """

    words: str
    where: str
    parts: list = field(default_factory=list)

    @property
    def verdict(self):
        """'reproduced' if every part is in its range, 'partly' if some, 'not' if none, 'not run' without a value."""
        right = [low <= value <= high for _, value, low, high in self.parts if np.isfinite(value)]
        if not right:
            return "not run"
        return "reproduced" if all(right) and len(right) == len(self.parts) else "partly" if any(right) else "not"


class Sweep:
    """The settings of a sweep, asked by name: NaN for one that was not run."""

    def __init__(self, settings):
        self.settings = settings

    def of(self, name, measure, *arguments):
        """What `measure` gives of the first seed of a setting."""
        if name not in self.settings:
            return float("nan")
        return float(measure(self.settings[name].isel(seed=0), *arguments))

    def share_of_seeds(self, name, holds):
        """Share of a setting's seeds of which `holds`."""
        if name not in self.settings:
            return float("nan")
        data = self.settings[name]
        return float(np.mean([bool(holds(data.isel(seed=n))) for n in range(data.sizes["seed"])]))


def claims(settings):
    """All claims of the paper's section 3 and supplement on its two crystals.

    Parameters
    ----------
    settings : dict of str to xarray.Dataset
        From `sweep_results.load_groups`.

    Returns
    -------
    list of Claim
    """
    sweep = Sweep(settings)
    return [*_lsmo(sweep), *_lsmo_windows(sweep), *_ferrite(sweep), *_ferrite_windows(sweep), *_scan(sweep)]


def _lsmo(sweep):
    own = "lsmo_nio-36-raw"
    yield Claim("LSMO: the angle is a checkerboard of A and B", "Figs. 4d, S1", [
        ("between A and B, in widths of the wider", sweep.of(own, found.apart_in_widths), 3, ANY),
        ("share of seeds where it is 3 widths and 20°", sweep.share_of_seeds(own, _is_checkerboard), 1, 1),
    ])  # fmt: skip
    inside = found.inside_nio
    yield Claim("NiO: the angle is uniform", "Fig. 4d", [
        ("circular standard deviation inside, a window sees NiO alone (°)", sweep.of(own, inside), 0, 15),
        ("of all NiO (°)", sweep.of(own, lambda data: found.checkerboard(data)["NiO_deg"]), 0, 15),
        ("share of seeds where it is, inside", sweep.share_of_seeds(own, lambda data: inside(data) <= 15), 1, 1),
    ])  # fmt: skip
    yield Claim("LSMO–NiO: one latent separates the phases, the other A from B in LSMO", "Fig. 4g,h", [
        ("phases by one latent (area under the curve)", sweep.of(own, found.best_separation, [NIO]), 0.95, 1),
        ("A from B by one latent", sweep.of(own, found.best_separation, [A], [B]), 0.95, 1),
        ("share of seeds that separate the phases",
         sweep.share_of_seeds(own, lambda data: found.best_separation(data, [NIO]) >= 0.95), 1, 1),
    ])  # fmt: skip
    yield Claim("LSMO–NiO: of four classes one clusters at the boundary of the phases", "Fig. 5d", [
        ("its distance to it over the usual (medians)", sweep.of(own, found.nearness_to_boundary, 4), 0, 0.5),
    ])  # fmt: skip


def _lsmo_windows(sweep):
    raw, cut = "lsmo_nio-{}-raw".format, "lsmo_nio-{}-segmented".format
    width = [sweep.of(raw(w), lambda data: found.checkerboard(data)["A_deg"]) for w in (24, 36)]
    yield Claim("LSMO–NiO, 24 px: peaks of the angle broadened, both latents show the checkerboard", "Fig. S2", [
        ("width of A's peak over that at 36 px", width[0] / width[1], 1, ANY),
        ("A from B by z1", sweep.of(raw(24), found.separation, "z1", [A], [B]), 0.9, 1),
        ("A from B by z2", sweep.of(raw(24), found.separation, "z2", [A], [B]), 0.9, 1),
    ])  # fmt: skip
    yield Claim("LSMO–NiO, segmented, 24 px: a latent separates the phases, featureless in LSMO", "Figs. S3, S4", [
        ("phases by one latent", sweep.of(cut(24), found.best_separation, [NIO]), 0.95, 1),
        ("A from B by one latent", sweep.of(cut(24), found.best_separation, [A], [B]), 0.5, 0.7),
        ("peaks of the angle", sweep.of(cut(24), _peaks), 2, 2),
    ])  # fmt: skip
    yield Claim("LSMO–NiO, segmented, other windows: the angle collapses to one value", "Fig. S5", [
        (f"peaks of the angle at {w} px", sweep.of(cut(w), _peaks), 1, 1) for w in (36, 48)
    ])  # fmt: skip
    yield Claim("LSMO–NiO, segmented, 24 px: a class at the boundary of the phases", "Fig. S6", [
        ("its distance to it over the usual", sweep.of(cut(24), found.nearness_to_boundary, 4), 0, 0.5),
    ])  # fmt: skip


def _ferrite(sweep):
    own = "sr3fe2o7-32-raw"
    yield Claim("Sr₃Fe₂O₇: three peaks of the angle, the outer two π apart", "Figs. 7d, S7", [
        ("peaks", sweep.of(own, _peaks), 3, 3),
        ("share of seeds with three", sweep.share_of_seeds(own, lambda data: _peaks(data) == 3), 0.5, 1),
        ("between the edges of a layer (°)", sweep.of(own, found.edges_apart_deg), 170, 180),
        ("share of seeds with these 170 to 180° apart",
         sweep.share_of_seeds(own, lambda data: found.edges_apart_deg(data) >= 170), 1, 1),
    ])  # fmt: skip
    yield Claim("Sr₃Fe₂O₇: the y offset marks the layers, the x offset does not", "Fig. 7e,f", [
        ("share of its variance between environments, y", sweep.of(own, found.share_between, "dy"), 0.5, 1),
        ("x", sweep.of(own, found.share_between, "dx"), -ANY, 0.2),
    ])  # fmt: skip
    yield Claim("Sr₃Fe₂O₇: the latents grow with the thickness (or fall: the sign of a latent is free)", "Fig. 7g,h", [
        ("share of its variance (R²)", sweep.of(own, found.thickness_share), 0.5, 1),
        ("share of seeds where it is half",
         sweep.share_of_seeds(own, lambda data: found.thickness_share(data) >= 0.5), 1, 1),
    ])  # fmt: skip
    for name, where in ((own, "Fig. 8a–e"), ("sr3fe2o7-32-segmented", "Fig. 8f–j")):
        yield Claim(f"{name}: of three classes two are mirror images, the third is centrosymmetric", where, [
            ("correlation of the two after half a turn", sweep.of(name, lambda d: found.mirror_pair(d, 3)[0]), 0.9, 1),
            ("of the third with itself", sweep.of(name, lambda d: found.mirror_pair(d, 3)[1]), 0.9, 1),
        ])  # fmt: skip


def _ferrite_windows(sweep):
    raw, cut = "sr3fe2o7-{}-raw".format, "sr3fe2o7-{}-segmented".format
    yield Claim("Sr₃Fe₂O₇, 24 px: a single peak of the angle; the latents keep the thickness", "Fig. S8", [
        ("peaks", sweep.of(raw(24), _peaks), 1, 1),
        ("R² of the thickness", sweep.of(raw(24), found.thickness_share), 0.5, 1),
    ])  # fmt: skip
    yield Claim("Sr₃Fe₂O₇, 48 px: the angle collapses to two peaks", "Fig. S8", [
        ("peaks", sweep.of(raw(48), _peaks), 2, 2),
    ])  # fmt: skip
    yield Claim("Sr₃Fe₂O₇, segmented: three peaks of the angle, but no thickness in the latents", "Fig. S9", [
        ("peaks", sweep.of(cut(32), _peaks), 3, 3),
        ("R² of the thickness", sweep.of(cut(32), found.thickness_share), -ANY, 0.2),
    ])  # fmt: skip
    yield Claim("Sr₃Fe₂O₇, segmented: three peaks at 24 px, two at 48", "Fig. S10", [
        ("peaks at 24 px", sweep.of(cut(24), _peaks), 3, 3),
        ("peaks at 48 px", sweep.of(cut(48), _peaks), 2, 2),
    ])  # fmt: skip


def _scan(sweep):
    yield Claim("Scan distortion is gathered in one variable, or one group of them", "section 3", [
        (f"{name}, share of the scan lines: {what}", sweep.of(name, measure), 2, ANY)
        for name in ("lsmo_nio-36-raw", "sr3fe2o7-32-raw")
        for what, measure in (("most over next", found.gathered_in_one), ("offsets over others", found.in_the_offsets))
    ])  # fmt: skip


def _is_checkerboard(data):
    return found.apart_in_widths(data) >= 3 and found.checkerboard(data)["apart_deg"] >= 20


def _peaks(data):
    return len(found.angle_peaks(data))


def verdicts(made):
    """One row for each claim: DataFrame of its words, figure, numbers and verdict."""
    rows = [
        {
            "the paper says": claim.words,
            "where": claim.where,
            "measured": "; ".join(f"{what}: {value:.3g}" for what, value, _, _ in claim.parts),
            "verdict": claim.verdict,
        }
        for claim in made
    ]
    return pd.DataFrame(rows)
