"""The claims of Kalinin et al. 2020 about their two crystals, as numbers measured on one setting of the sweep."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from sklearn.metrics import roc_auc_score

from unitcell.environments.known import UNKNOWN
from unitcell.environments.rvae import circular, circular_sd

LATENTS = ("angle_rad", "dx", "dy", "z1", "z2")
LEAST_SHARE = 0.01  # of a latent's variance: less is not told from none


def mean_angle(angle_rad):
    """Circular mean [rad]."""
    return float(np.angle(np.exp(1j * np.asarray(angle_rad)).mean()))


def checkerboard(data):
    """How far apart the angles of A and B are in LSMO, and how wide those of A, B and NiO: dict [degrees]."""
    angle, environment = data.angle_rad.values, data.true_environment.values
    of = [angle[environment == n] for n in range(3)]
    apart = abs(circular(mean_angle(of[0]) - mean_angle(of[1])))
    widths = dict(zip(("A_deg", "B_deg", "NiO_deg"), (np.degrees(circular_sd(part)) for part in of), strict=True))
    return {"apart_deg": float(np.degrees(apart))} | widths


def inside_nio(data):
    """Circular standard deviation of the angle [degrees] at the NiO whose window holds nothing else.

    0 where they are all the same: what the arithmetic leaves of that is below a thousandth of a degree.
    """
    reach_A = data.attrs["window_px"] * data.attrs["image_pixel_size_A"] / np.sqrt(2)
    inside = (data.true_environment.values == 2) & (data.true_interface_A.values > reach_A)
    spread_deg = np.degrees(circular_sd(data.angle_rad.values[inside]))
    return 0.0 if spread_deg < 1e-3 else spread_deg


def apart_in_widths(data):
    """Between the mean angles of A and B, in the larger of their circular standard deviations."""
    board = checkerboard(data)
    return board["apart_deg"] / max(board["A_deg"], board["B_deg"])


def separation(data, name, group, rest=None):
    """How well a latent alone tells a group of environments from the rest: area under the curve, 0.5 to 1."""
    environment = data.true_environment.values
    some = environment != UNKNOWN if rest is None else np.isin(environment, [*group, *rest])
    area = roc_auc_score(np.isin(environment[some], group), data[name].values[some])
    return float(max(area, 1 - area))


def best_separation(data, group, rest=None):
    """The same by whichever of the two content latents tells them better."""
    return max(separation(data, name, group, rest) for name in ("z1", "z2"))


def angle_peaks(data, least=0.1, smooth_deg=6.0):
    """Peaks of the circular histogram of the angle: ndarray [degrees], the highest first.

    Parameters
    ----------
    least : float
        Of the highest peak's height; lower ones are not counted.
    """
    count = np.histogram(np.degrees(data.angle_rad.values), 180, (-180, 180))[0].astype(float)
    smooth = gaussian_filter1d(count, smooth_deg / 2, mode="wrap")
    found, _ = find_peaks(np.concatenate([smooth] * 3), height=least * smooth.max(), prominence=least * smooth.max())
    found = found[(found >= 180) & (found < 360)] - 180
    return -179.0 + 2 * found[np.argsort(-smooth[found])]


def edges_apart_deg(data):
    """Between the mean angles of the upper and the lower edge Sr of Sr3Fe2O7 [degrees]."""
    angle, environment = data.angle_rad.values, data.true_environment.values
    upper, lower = (mean_angle(angle[environment == n]) for n in (1, 2))
    return float(abs(np.degrees(circular(upper - lower))))


def share_between(data, name):
    """Share of a latent's variance that lies between the environments (η²)."""
    left, known = residuals(data, name)
    return float(1 - left.var() / data[name].values[known].var())


def nearness_to_boundary(data, components):
    """Median distance of a class to the border between phases over that of all atoms: of the class nearest to it.

    NaN where no mixture of this many components was run.
    """
    label, away = data["class"].sel(components=components).values, data.true_interface_A.values
    found = [np.nanmedian(away[label == k]) for k in range(1, components + 1) if (label == k).any()]
    return float(min(found, default=np.nan) / np.nanmedian(away))


def mirror_pair(data, components):
    """Of the mean images of three classes: likeness of two after half a turn, and of the third to itself: correlations.

    The two are those that are most alike after half a turn in comparison with before it. NaN where none was run.
    """
    if f"mean{components}" not in data:
        return np.nan, np.nan
    images = data[f"mean{components}"].values
    side = images.shape[1]
    disc = np.hypot(*(np.mgrid[:side, :side] - (side - 1) / 2)) < side / 2
    turned = np.corrcoef(images[:, disc], images[:, ::-1, ::-1][:, disc])[: len(images), len(images) :]
    gain = np.triu(turned - np.corrcoef(images[:, disc]), 1)
    one, other = np.unravel_index(gain.argmax(), gain.shape)
    left = [n for n in range(len(images)) if n not in (one, other)]
    return float(turned[one, other]), float(max(turned[n, n] for n in left))


def gathered_in_one(data):
    """Share of the scan lines in the latent that has most of it, over the next: see `line_shares`."""
    ranked = sorted(line_shares(data).values(), reverse=True)
    return max(ranked[0], 0.0) / max(ranked[1], LEAST_SHARE)


def in_the_offsets(data):
    """Share of the scan lines in the offset that has most of it, over that in the angle or content that has most."""
    shares = line_shares(data)
    others = max(value for name, value in shares.items() if name not in ("dx", "dy"))
    return max(shares["dx"], shares["dy"], 0.0) / max(others, LEAST_SHARE)


def residuals(data, name):
    """A latent minus the mean of its environment, on the atoms that have one; the angle as a circular difference."""
    environment, value = data.true_environment.values, data[name].values.astype(float)
    known = environment != UNKNOWN
    out = np.full(len(value), np.nan)
    for n in np.unique(environment[known]):
        of = environment == n
        out[of] = circular(value[of] - mean_angle(value[of])) if name == "angle_rad" else value[of] - value[of].mean()
    return out[known], known


def thickness_share(data):
    """Share of the thickness's variance that a straight function of z1 and z2 gives, within each environment (R²)."""
    parts = [residuals(data, name)[0] for name in ("z1", "z2")]
    known = residuals(data, "z1")[1]
    thickness = data.true_thickness_A.values[known].astype(float)
    environment = data.true_environment.values[known]
    for n in np.unique(environment):
        thickness[environment == n] -= thickness[environment == n].mean()
    design = np.column_stack(parts)
    fitted = design @ np.linalg.lstsq(design, thickness, rcond=None)[0]
    return float(1 - ((thickness - fitted) ** 2).sum() / (thickness**2).sum())


def line_shares(data, lines_px=2.0):
    """Share of each latent's variance, within environments, that is common to a scan line: dict.

    Unbiased (ε²), so that it is 0 on average where lines mean nothing.

    Parameters
    ----------
    lines_px : float
        Lines taken together [px].
    """
    shares = {}
    for name in LATENTS:
        value, known = residuals(data, name)
        _, line = np.unique(np.round(data.y_px.values[known] / lines_px), return_inverse=True)
        count = np.bincount(line)
        within = ((value - (np.bincount(line, value) / count)[line]) ** 2).sum() / max(len(value) - len(count), 1)
        shares[name] = float(1 - within / value.var(ddof=1))
    return shares
