"""Images of dark Gaussian columns on the projected [110] perovskite lattice, with every position known."""

import numpy as np
from unitcell.images import StemImage

A_A = 3.905
# Darkness and width [Å] of the columns of one cell, and their places along [110] and [001].
COLUMNS = {"A": (1.0, 0.55, 0.0, 0.5), "B": (0.7, 0.5, 0.0, 0.0), "O": (0.4, 0.45, 0.5, 0.0)}


def synthetic_abf(
    shape=(330, 350), pixel_A=0.1, rotation_deg=0.0, *, shear=0.0, drift_A=0.0, noise=0.0, columns=COLUMNS,
    missing=0.0, centre=None, seed=0,
):  # fmt: skip
    """A StemImage and the true (x, y) [px] of its B columns, shape (n, 2).

    `shear` mixes y into x, `drift_A` is the amplitude of a smooth displacement (one period over the field), `noise`
    the standard deviation in units of the A column's depth, `missing` the fraction of B columns left out.
    """
    rng = np.random.default_rng(seed)
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # rows: [110], [001] in (x, y)
    field = np.array(shape[::-1]) * pixel_A
    centre = field / 2 if centre is None else np.asarray(centre)
    reach = int(np.hypot(*field) / A_A / np.sqrt(0.5)) // 2 + 3
    grid = np.stack(np.meshgrid(np.arange(-reach, reach), np.arange(-reach, reach)), -1).reshape(-1, 2)
    image = np.ones(shape)
    y, x = (np.arange(n) * pixel_A for n in shape)
    places = {}
    for site, (depth, width, along_x, along_y) in columns.items():
        r = (grid + np.array([along_x, along_y])) * (A_A / np.sqrt(2), A_A) @ turn
        r = r @ np.array([[1.0, 0.0], [shear, 1.0]]) + centre
        r = r + drift_A * np.sin(2 * np.pi * r[:, ::-1] / field[::-1])
        r = r[((r > -2) & (r < field + 2)).all(1)]
        present = rng.random(len(r)) >= (missing if site == "B" else 0)
        for place in r[present]:
            image -= (
                depth
                * np.exp(-((y - place[1]) ** 2) / (2 * width**2))[:, None]
                * np.exp(-((x - place[0]) ** 2) / (2 * width**2))
            )
        places[site] = r / pixel_A
    image += rng.normal(0, noise, shape) if noise else 0
    edge = 0.5 / pixel_A
    inside = ((places["B"] > edge) & (places["B"] < np.array(shape[::-1]) - 1 - edge)).all(1)
    return StemImage((1000 * image + 2000).astype(np.float32), pixel_A, "synthetic", True), places["B"][inside]
