"""Several frames of one field: choosing one, or averaging all after rigid registration."""

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.signal.windows import tukey
from tqdm.auto import tqdm

from unitcell.errors import InputError

PROGRESS_FROM = 20  # frames
STEPS_PER_PX = 50  # to which a peak of the correlation is refined
LEAST_FIELD = 0.25  # of a frame's edge that all frames must share
MINIMUM_PX = 16  # of either edge of an image
ALIKE = 0.8  # height of a repeat's correlation peak, of the highest beside the centre


def image_series(signals):
    """The images and stacks of images among what a reader found, with rows and columns last.

    Parameters
    ----------
    signals : list of dict
        As rosettasciio gives them: data, axes and, where known, metadata.

    Returns
    -------
    list of dict
        The same with `data` of shape (rows, columns) or (frames, rows, columns), its `axes` and a `title`. Spectra,
        colours, complex and small arrays are left out; images that are alike in size, scale and title are one stack.
    """
    series = [image for image in map(_upright, signals) if _is_series(image)]
    alike = {(image["data"].shape, image["title"], *map(_scale, image["axes"])) for image in series}
    if len(series) > 1 and len(alike) == 1 and series[0]["data"].ndim == 2:
        return [series[0] | {"data": np.stack([image["data"] for image in series])}]
    return series


def _scale(axis):
    return str(axis.get("scale")), str(axis.get("units"))


def _is_series(image):
    """Whether an array is a real-valued image or a stack of them, and no spectrum image."""
    data, axes = image["data"], image["axes"]
    energies = any(str(axis.get("units")).lower() in ("ev", "kev") for axis in axes)
    one_dimensional = [axis.get("navigate") for axis in axes].count(False) == 1
    return (
        data.ndim in (2, 3) and data.dtype.kind in "iuf" and min(data.shape[-2:]) >= MINIMUM_PX
        and not energies and not one_dimensional
    )  # fmt: skip


def _upright(signal):
    """A signal without axes of length one, with rows and columns last, and its title."""
    data = np.asarray(signal["data"])
    axes = signal["axes"] if len(signal["axes"]) == data.ndim else [{}] * data.ndim
    axes = [axis for axis, size in zip(axes, data.shape, strict=True) if size > 1]
    data = np.squeeze(data)
    names = [str(axis.get("name")).lower() for axis in axes]
    for rows, columns in (("y", "x"), ("height", "width")):
        if names.count(rows) == names.count(columns) == 1:  # EMD files may hold x before y, or frames last
            order = [n for n, name in enumerate(names) if name not in (rows, columns)]
            order += [names.index(rows), names.index(columns)]
            data, axes = data.transpose(order), [axes[n] for n in order]
            break
    title = signal.get("metadata", {}).get("General", {}).get("title", "")
    return signal | {"data": data, "axes": axes, "title": " ".join(str(title).split())}


def chosen_frame(stacks, titles, frame, name):
    """The one image that `frame` asks for, among all that a file holds.

    Parameters
    ----------
    stacks : list of ndarray, shape (rows, columns) or (frames, rows, columns)
        One for every image or series in the file.
    titles : list of str
        What the file calls each of them.
    frame : int, "mean", (int, int) or (int, "mean"), optional
        0-based, negative from the end; where there are several images, which one, then which of its frames.
    name : str
        File, for messages.

    Returns
    -------
    index : int
        Which of the stacks.
    intensity : ndarray, shape (rows, columns)

    Raises
    ------
    InputError
        `frame` is needed and missing, or asks for what is not there.
    """
    pair = isinstance(frame, tuple | list) and len(frame) == 2
    if len(stacks) == 1:
        return 0, _from_stack(stacks[0], frame[1] if pair and frame[0] == 0 else frame, name)
    listed = ", ".join(f"{n}: {_described(*entry)}" for n, entry in enumerate(zip(titles, stacks, strict=True)))
    which, rest = frame if pair else (frame, None)
    if not _is_index(which) or not -len(stacks) <= which < len(stacks):
        asked = "choose one by its number, like" if frame is None else f"frame={frame!r} is none of them: give, say,"
        example = "frame=0" if stacks[0].ndim == 2 else 'frame=(0, "mean") or frame=(0, 0)'
        raise InputError(f"{name} holds {len(stacks)} images ({listed}): {asked} {example}.")
    which %= len(stacks)
    return which, _from_stack(stacks[which], rest, name, f"image {which} of ", f"{which}, ")


def _described(title, stack):
    """A stack in a list of them: title, frames, size."""
    frames = f"{len(stack)} frames of " if stack.ndim == 3 else ""
    return f"'{title}' ({frames}{stack.shape[-1]} × {stack.shape[-2]})"


def _is_index(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _from_stack(stack, frame, name, part="", before=""):
    """One frame of a stack, or the mean of all."""
    frames = stack[None] if stack.ndim == 2 else stack
    if frame is None and len(frames) == 1:
        return frames[0]
    if _is_index(frame) and -len(frames) <= frame < len(frames):
        return frames[frame]
    if isinstance(frame, str) and frame == "mean":
        try:
            return mean_frame(frames)[0]
        except InputError as error:
            raise InputError(f"The frames of {name} cannot be averaged: {error}") from error
    one, mean = (f"frame=({before}{value})" if before else f"frame={value}" for value in ("0", '"mean"'))
    asked = "" if frame is None else f", and frame={frame!r} is none of them"
    raise InputError(
        f"{part}{name} holds {len(frames)} frame{'s' * (len(frames) > 1)}{asked}: give {one} (up to {len(frames) - 1}) "
        f"for one of them, or {mean} for their average after rigid registration."
    )


def mean_frame(frames, max_step_px=None):
    """Average of frames that differ by a rigid drift.

    Frame i shows frame 0 displaced by d_i. A lattice looks alike at every repeat, so a global search for the best
    overlap may be wrong by whole repeats: each frame is compared with the running mean of those before it, and only
    the correlation's local maxima within `max_step_px` of the previous frame's drift are considered. In a second
    round each frame is compared with the mean of all others. Both rounds work on the field that the two share,
    cut out by whole pixels, so nothing wraps around.

    Parameters
    ----------
    frames : array_like, shape (n, rows, columns)
    max_step_px : float, optional
        Largest drift from one frame to the next [px]; None: half the shortest lattice repeat seen in the frames,
        or an eighth of the field where there is none.

    Returns
    -------
    image : ndarray of float32, shape (rows', columns')
        Mean over the field common to all frames (cubic splines), in the coordinates of frame 0.
    drift : pandas.DataFrame
        frame, x_px, y_px: displacement of the content against frame 0, x right and y down [px].

    Raises
    ------
    InputError
        Frames that are not finite or constant, or that share too small a field.
    """
    frames = np.asarray(frames)
    _require_frames(frames)
    repeat = _shortest_repeat(frames)
    step = max_step_px or (repeat / 2 if repeat else min(frames.shape[1:]) / 8)
    smooth = (repeat or 16.0) / 16  # Gaussian that keeps the columns and drops the noise between them
    drift = np.zeros((len(frames), 2))
    total, weight = frames[0].astype(float), np.ones(frames.shape[1:])
    for i in _progress(range(1, len(frames)), len(frames), "Registering"):
        drift[i] = _located(total / weight, frames[i], drift[i - 1], step, smooth)
        _add(total, weight, frames[i], drift[i])
    drift = _refined(frames, drift, total, weight, step / 2, smooth)
    table = pd.DataFrame({"frame": np.arange(len(frames)), "x_px": drift[:, 1], "y_px": drift[:, 0]})
    return _average(frames, drift), table


def _refined(frames, drift, total, weight, reach, smooth):
    """Drift (y, x) of every frame against the mean of the others, with frame 0 at rest."""
    better, level = drift.copy(), frames.mean(dtype=float)
    for i in _progress(range(len(frames)), len(frames), "Refining"):
        own, ones = np.zeros_like(total), np.zeros_like(weight)
        _add(own, ones, frames[i], drift[i])
        others = weight - ones  # zero where only this frame reaches
        reference = np.divide(total - own, others, out=np.full_like(total, level), where=others > 0.5)
        better[i] = _located(reference, frames[i], drift[i], reach, smooth)
    return better - better[0]


def _located(reference, frame, start, reach, smooth):
    """Drift (y, x) of `frame` against `reference` [px], searched within `reach` of `start`."""
    whole = np.round(start).astype(int)
    ours, theirs = zip(*(_overlap(d, n) for d, n in zip(whole, frame.shape, strict=True)), strict=True)
    return whole + _peak(_cross_spectrum(reference[ours], frame[theirs], smooth), start - whole, reach)


def _overlap(shift, size):
    """Slices of the reference and of a frame displaced by `shift` whole pixels, along one axis, that coincide."""
    _require_common(abs(shift), size)
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size - max(0, -shift))


def _require_common(lost, size):
    """Refuse drifts that leave too little of a frame's edge."""
    if size - lost < LEAST_FIELD * size:
        raise InputError(
            f"the drift takes {lost} of {size} px, so too little is common to all frames: average fewer of them, "
            "or give a single one."
        )


def _cross_spectrum(reference, frame, smooth):
    """Fourier transform of the cross-correlation of two equal fields, edges tapered and low-passed."""
    window = np.outer(*(tukey(n + 2, 0.3)[1:-1] for n in frame.shape))
    fields = [window * (field - np.mean(field, dtype=float)) for field in (reference, frame)]
    spectrum = np.fft.fft2(fields[1]) * np.conj(np.fft.fft2(fields[0]))
    low = [np.exp(-2 * (np.pi * smooth * np.fft.fftfreq(n)) ** 2) for n in frame.shape]
    return spectrum * low[0][:, None] * low[1]


def _peak(spectrum, start, reach):
    """Highest local maximum (y, x) of a correlation within `reach` of `start` [px].

    skimage's phase_cross_correlation takes the highest anywhere, which in a lattice may be a repeat away; at the rim of
    the search the flank of the next repeat's peak may be higher still, hence local maxima.
    """
    steps = np.arange(-np.ceil(reach) - 1, np.ceil(reach) + 2)
    values = _correlation(spectrum, start[0] + steps, start[1] + steps)
    top = values == ndimage.maximum_filter(values, 3, mode="constant", cval=np.inf)
    top &= np.hypot(steps[:, None], steps) <= reach + 0.5
    if not top.any():
        return np.asarray(start, float)
    best = np.unravel_index(np.where(top, values, -np.inf).argmax(), values.shape)
    centre = start + steps[list(best)]
    for pitch in (0.1, 1 / STEPS_PER_PX):
        fine = pitch * np.arange(-10, 11)
        values = _correlation(spectrum, centre[0] + fine, centre[1] + fine)
        centre = centre + fine[list(np.unravel_index(values.argmax(), values.shape))]
    return centre


def _correlation(spectrum, y, x):
    """Correlation at the shifts y × x [px] by matrix Fourier transform (Guizar-Sicairos et al. 2008, eq. 4)."""
    rows, columns = (
        np.exp(2j * np.pi * np.outer(shift, np.fft.fftfreq(n))) for shift, n in zip((y, x), spectrum.shape, strict=True)
    )
    return (rows @ spectrum @ columns.T).real


def _add(total, weight, frame, drift):
    """Add a frame, moved back by its drift, to the running sum and to the number of frames at each pixel."""
    total += ndimage.shift(frame.astype(float), -drift, order=1, mode="constant", cval=0.0)
    weight += ndimage.shift(np.ones(frame.shape), -drift, order=1, mode="constant", cval=0.0)


def _average(frames, drift):
    """Mean of the frames over their common field."""
    low = np.ceil(np.maximum(0, -drift.min(0))).astype(int)
    high = np.floor(np.array(frames.shape[1:]) - np.maximum(0, drift.max(0))).astype(int)
    for lost, size in zip(low + frames.shape[1:] - high, frames.shape[1:], strict=True):
        _require_common(lost, size)
    common = tuple(slice(*ends) for ends in zip(low, high, strict=True))
    total = np.zeros(high - low)
    for frame, moved in zip(_progress(frames, len(frames), "Averaging"), drift, strict=True):
        total += ndimage.shift(frame.astype(float), -moved, order=3, mode="nearest")[common]
    return (total / len(frames)).astype(np.float32)


def _shortest_repeat(frames):
    """Shortest translation [px] at which the frames resemble themselves, or None: from their mean autocorrelation."""
    few = frames[:: 1 + len(frames) // 16]  # frames share no noise, but a few show the lattice well enough
    spectrum = np.mean([_cross_spectrum(frame, frame, 1.0) for frame in few], axis=0)
    correlation = np.fft.fftshift(np.fft.ifft2(spectrum).real)
    correlation[:] = ndimage.gaussian_filter(correlation, 1.0)
    y, x = (np.arange(n) - n // 2 for n in correlation.shape)
    distance = np.hypot(y[:, None], x)
    peaks = correlation == ndimage.maximum_filter(correlation, 5)
    peaks &= (distance > 3) & (distance < min(correlation.shape) / 4)
    peaks &= correlation > 0.1 * correlation.max()
    if not peaks.any():
        return None
    return float(distance[peaks & (correlation >= ALIKE * correlation[peaks].max())].min())


def _require_frames(frames):
    """Refuse what cannot be registered."""
    for number, frame in enumerate(frames):
        if not np.isfinite(frame).all():
            raise InputError(f"frame {number} has pixels that are not finite (NaN): give a single frame.")
        if np.ptp(frame) == 0:
            raise InputError(f"frame {number} is constant, as after a stopped acquisition: give a single frame.")


def _progress(items, count, label):
    """`items`, with a progress bar when there are many frames."""
    return tqdm(items, desc=label, unit="frame", disable=count <= PROGRESS_FROM)
