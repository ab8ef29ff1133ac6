"""Schematic drawings of crystals."""

import numpy as np

from unitcell.figures import OKABE_ITO


def draw_projection(axes, crystal, title=""):
    """Draw the projected atoms of one cell (x to the right, y down, as in the images).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    crystal : ase.Atoms
        From `unitcell.crystals.tilted_perovskite`: A cation first, then B, then oxygen.
    """
    order = list(dict.fromkeys(crystal.get_chemical_symbols()))
    width, height = crystal.cell.lengths()[:2]
    for symbol, size, colour in zip(order, (150, 80, 30), (OKABE_ITO[2], OKABE_ITO[0], OKABE_ITO[5]), strict=True):
        x, y = crystal.positions[crystal.symbols == symbol, :2].T
        copies = [(x + i * width, y + j * height) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        x, y = np.concatenate(copies, axis=1)
        seen = (x > -0.3) & (x < width + 0.3) & (y > -0.3) & (y < height + 0.3)
        axes.scatter(x[seen], y[seen], s=size, color=colour, alpha=0.7, lw=0, label=symbol)
    axes.set(aspect="equal", xlim=(-0.5, width + 0.5), ylim=(height + 0.5, -0.5), xlabel="x [Å]", title=title)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("y [Å]")
