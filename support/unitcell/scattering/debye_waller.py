"""Thermal vibrations of single elements: Debye–Waller factors B = 8π²⟨u²⟩ and rms displacements."""

import math

from unitcell.errors import InputError

# B [Å²] at room temperature. Sr, Ti, O: SrTiO3 at 300 K (Peng, Dudarev, Whelan, High-Energy Electron Diffraction and
# Microscopy, 2004). Metals: their elemental crystals at 293 K (Sears, Shelley, Acta Cryst. A47, 441, 1991), close to
# those of B cations in perovskites (Fe in Sr3Fe2O7: 0.35, Kalinin et al. 2020, Table S1).
B_300K_A2 = {
    "Sr": 0.6214, "Ti": 0.4398, "O": 0.7323,
    "Al": 0.81, "V": 0.58, "Cr": 0.263, "Fe": 0.34, "Ni": 0.34, "Cu": 0.56, "Ge": 0.61, "Nb": 0.45, "Mo": 0.22,
    "Pd": 0.45, "Ag": 0.73, "Ta": 0.32, "W": 0.161, "Pt": 0.37, "Au": 0.62,
}  # fmt: skip
# Any other element: the value of an rms displacement of 0.08 Å, about the mean of the table. Better: give your own.
B_OTHER_A2 = 8 * math.pi**2 * 0.08**2


def b_factors(symbols, given=None):
    """Debye–Waller factors of some elements.

    Parameters
    ----------
    symbols : iterable of str
    given : mapping of str to float, optional
        B [Å²] that replaces the table's, for another temperature or a refined crystal.

    Returns
    -------
    dict of str to float [Å²].

    Raises
    ------
    InputError
        A factor that is negative or not finite.
    """
    factors = {symbol: float((given or {}).get(symbol, B_300K_A2.get(symbol, B_OTHER_A2))) for symbol in set(symbols)}
    for symbol, value in factors.items():
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"A Debye–Waller factor of {value} Å² for {symbol} cannot be: give 0 or more.")
    return factors


def rms_displacements(symbols, given=None):
    """Rms displacement along one axis, √(B/8π²), of some elements: dict of str to float [Å]."""
    return {symbol: math.sqrt(b / (8 * math.pi**2)) for symbol, b in b_factors(symbols, given).items()}
