"""How well tilts and patterns of a twin are read: errors, intervals, patterns near and far from its interfaces."""

import numpy as np
import pandas as pd

from unitcell.crystals.tilt_coordinates import canonical
from unitcell.networks.tilt_network import errors
from unitcell.tilts.analysis import ALIEN, analyse
from unitcell.tilts.patterns import reduced_pattern
from unitcell.twins.abf_twins import open_twin, twin_errors

NAMES = ("v", "u", "gamma")
TWINS = ("cto_lsat", "lsmo_esmo", "diffuse")
# What `open_twin` is asked for, one after the other, on top of what was asked before.
CONDITIONS = {
    "no noise": {"dose": None},
    "no distortion": {"drift_A": (0.0, 0.0), "shear": 0.0, "jitter_A": 0.0, "rotation_deg": 0.0},
    "source 0.15 Å": {"source_A": 0.15},
}
FAR_CELLS = 2.0  # from an interface, beyond which a cell counts as bulk


def read_twin(twin, network, known=None):
    """Analyse a twin and hold every column against its truth.

    Parameters
    ----------
    twin : unitcell.twins.abf_twins.Twin
    network : unitcell.networks.tilt_network.TiltEnsemble
    known : unitcell.known_crystals.columns.KnownCrystals, optional

    Returns
    -------
    analysis : unitcell.tilts.analysis.Analysis
    columns : pandas.DataFrame
        `unitcell.twins.abf_twins.twin_errors`, truth on its canonical branch, with what was read as `v_read`, `u_read`,
        `gamma_read` [degrees], `v_own_error` and so on, the errors of the column's own window alone, and `pattern`,
        `true_pattern`, `pattern_right`, `pattern_probability`.
    """
    analysis = analyse(twin.image, network, known=known)
    columns = twin_errors(analysis.tilts, twin.truth, twin.image.pixel_size_A)
    columns["u_deg"], columns["gamma_deg"] = canonical(columns.u_deg, columns.gamma_deg)
    read = {f"{name}_deg": f"{name}_read" for name in NAMES} | {"row": "row_image", "col": "col_image"}
    own = [f"{name}_own_deg" for name in NAMES]
    kept = analysis.tilts.rename(columns=read)[[*read.values(), *own, "pattern", "pattern_probability"]]
    columns = columns.merge(kept, on=["row_image", "col_image"])
    alone = errors(
        {name: columns.pop(f"{name}_own_deg").to_numpy() for name in NAMES}, columns[[f"{n}_deg" for n in NAMES]]
    )
    columns = columns.assign(**{f"{name}_own_error": alone[name] for name in NAMES})
    tilts = columns[["alpha_deg", "beta_deg", "gamma_deg", "signs"]].itertuples(index=False)
    columns["true_pattern"] = [reduced_pattern(*one) for one in tilts]
    columns["pattern_right"] = columns.pattern == columns.true_pattern
    return analysis, columns


def score(columns):
    """Figures of merit of the columns of one image or several.

    Parameters
    ----------
    columns : pandas.DataFrame
        From `read_twin`.

    Returns
    -------
    pandas.Series
        `columns`; `position_A`, rms distance of columns from where they are; rms errors `v`, `u`, `gamma` [degrees],
        and `v_own`, `u_own`, `gamma_own` of single windows;
        `coverage_v`, `_u`, `_gamma` and `coverage`, their mean, of the 90 % intervals; `pattern_far`, `pattern_near`,
        shares of right patterns farther than `FAR_CELLS` from an interface and nearer; `alien`, share with ood > 0.95.
    """
    far = columns.distance_cells > FAR_CELLS
    found = {"columns": len(columns), "position_A": np.sqrt(np.mean(columns.away_A**2))}
    found |= {name: np.sqrt(np.mean(columns[f"{name}_error"] ** 2)) for name in NAMES}
    found |= {f"{name}_own": np.sqrt(np.mean(columns[f"{name}_own_error"] ** 2)) for name in NAMES}
    found |= {f"coverage_{name}": columns[f"{name}_inside"].mean() for name in NAMES}
    found["coverage"] = np.mean([found[f"coverage_{name}"] for name in NAMES])
    found |= {"pattern_far": columns.pattern_right[far].mean(), "pattern_near": columns.pattern_right[~far].mean()}
    return pd.Series(found | {"alien": (columns.ood > ALIEN).mean()})


def error_sources(network, columns, conditions, **recording):
    """Scores of the upright twins as recording conditions are taken away one after the other.

    Parameters
    ----------
    network : unitcell.networks.tilt_network.TiltEnsemble
    columns : pandas.DataFrame
        From `read_twin`, of the twins as recorded.
    conditions : sequence of str
        Of `CONDITIONS`, each on top of those before it.
    **recording
        Of `unitcell.twins.abf_twins.open_twin`, to begin with.

    Returns
    -------
    pandas.DataFrame
        Indexed by what was taken away last: v, u, gamma, coverage, pattern_far, pattern_near of `score`.
    """
    found = {"as recorded": score(columns)}
    for condition in conditions:
        recording = recording | CONDITIONS[condition]
        found[condition] = score(pd.concat([read_twin(open_twin(name, **recording), network)[1] for name in TWINS]))
    return pd.DataFrame(found).T[[*NAMES, "coverage", "pattern_far", "pattern_near"]]


def row_sizes(truth, names=NAMES):
    """True sizes of the tilts row by row along [001], for `tilts.map_figures.profile_figure`: pandas.DataFrame."""
    sizes = truth[[f"{name}_deg" for name in names]].abs().rename(columns=lambda name: name.removesuffix("_deg"))
    return sizes.groupby(truth.row_image).median()
