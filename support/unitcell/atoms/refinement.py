"""Places of columns as well as electrons allow: fits in windows, then of all at once where that explains the image.

Two fits that fail in different ways. A window (`unitcell.atoms.window_fits`) asks nothing of what lies outside it, and
is drawn by it. The fit of everything (`unitcell.atoms.joint_fit`) is nearly as good as the best where an image is what
it takes it for, a sum of round peaks; where columns are streaked, skewed or lie on uneven ground it is not, and then
it may be wrong in a way that looks like physics. Its result is therefore taken only where it leaves nothing but noise.
"""

import numpy as np

from unitcell.atoms.joint_fit import JointFit
from unitcell.atoms.window_fits import STRAY, fit_windows

FEWEST = 12  # columns that a shared shape can be learnt from
EXPLAINED = 3.0  # the most that a fit of all may leave, in what noise leaves through the width of a column


def refine_columns(intensity, x, y, *, together=None, progress=False):
    """Positions of columns by weighted least squares.

    Parameters
    ----------
    intensity : ndarray, shape (rows, columns)
    x, y : ndarray, shape (n,)
        First guesses, good to about a third of the distance between columns [px]. Columns that the edge cuts help their
        neighbours.
    together : bool, optional
        Whether all columns are fitted at once; by default where that explains the image.
    progress : bool

    Returns
    -------
    x, y, height, sigma : ndarray, shape (n,)
        Positions [px], peak heights [intensity], standard deviations [px]; the first guess and NaN where the fit runs
        away.
    """
    alone = np.column_stack(fit_windows(intensity, x, y))
    found = np.isfinite(alone[:, 2])
    if together is False or found.sum() < FEWEST:
        return tuple(alone.T)
    shapes = np.where(found[:, None], alone[:, 2:], np.median(alone[found, 2:], axis=0))
    fit = JointFit(intensity, alone[:, :2], *shapes.T)
    fit.run(progress=progress)
    if not (together or fit.unexplained() <= EXPLAINED):
        return tuple(alone.T)
    near = found & (np.hypot(*(fit.places - np.column_stack([x, y])).T) < STRAY * fit.unit)
    return tuple(np.where(near[:, None], fit.columns, alone).T)
