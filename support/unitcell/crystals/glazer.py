"""Glazer's notation for octahedral tilts, in and out.

Three letters give the magnitudes about a, b, c, equal letters equal tilts; the superscripts say whether
successive octahedra along that axis tilt in phase (+), in antiphase (−) or not at all (0).
"""

import re
from dataclasses import dataclass

import numpy as np

from unitcell.crystals.perovskite import tilted_perovskite
from unitcell.errors import InputError

SUPERSCRIPTS = str.maketrans("-+0", "⁻⁺⁰")
PLAIN = str.maketrans("⁻−–⁺⁰", "---+0", " ^_{},")
TOKENS = re.compile(r"([abc])([-+0])" * 3)


@dataclass(frozen=True)
class GlazerTilt:
    """A tilt system about the pseudo-cubic axes a, b, c.

    Attributes
    ----------
    letters : str
        Three of 'a', 'b', 'c': equal letters mean equal magnitudes.
    signs : str
        Three of '-', '+', '0', as `tilted_perovskite` takes them.
    """

    letters: str
    signs: str

    def __str__(self):
        return "".join(letter + sign.translate(SUPERSCRIPTS) for letter, sign in self.pairs)

    @property
    def pairs(self):
        """(letter, sign) about a, b, c."""
        return list(zip(self.letters, self.signs, strict=True))

    @property
    def free_letters(self):
        """Letters whose magnitude is not zero, in order, each once."""
        return "".join(dict.fromkeys(letter for letter, sign in self.pairs if sign != "0"))

    @property
    def kind(self):
        """Which signs share a magnitude: what stays the same when the axes change places."""
        groups = [
            "".join(sorted(sign for other, sign in self.pairs if other == letter)) for letter in self.free_letters
        ]
        return tuple(sorted(groups))


@dataclass(frozen=True)
class GlazerSystem:
    """One of the 23 tilt systems.

    Attributes
    ----------
    number : int
        Glazer's number, 1 to 23.
    tilt : GlazerTilt
        In Glazer's standard orientation.
    space_group : str
        Of a crystal with exactly these tilts and no other distortion.
    distinct : bool
        Whether it is one of the 15 systems that Howard & Stokes (1998) find by group theory.
    """

    number: int
    tilt: GlazerTilt
    space_group: str
    distinct: bool


def parse_glazer(notation):
    """Read a tilt system such as 'a-a-c+', 'a⁻a⁻c⁺' or 'a^0 b^+ c^-'.

    Parameters
    ----------
    notation : str

    Returns
    -------
    GlazerTilt

    Raises
    ------
    InputError
        Not three letters with a sign each, or one letter that both tilts and does not.
    """
    match = TOKENS.fullmatch(str(notation).translate(PLAIN))
    if not match:
        raise InputError(f"'{notation}' is not a Glazer tilt system: give three letters with signs, such as 'a-a-c+'.")
    tilt = GlazerTilt("".join(match.groups()[0::2]), "".join(match.groups()[1::2]))
    for letter, sign in tilt.pairs:
        if sign == "0" and letter in tilt.free_letters:
            raise InputError(f"'{notation}' lets '{letter}' be zero and not zero: give the tilts different letters.")
    return tilt


def glazer_of(alpha, beta, gamma, signs, tolerance_deg=0.1):
    """Write the tilt system of a structure.

    Parameters
    ----------
    alpha, beta, gamma : float
        Tilts about a, b, c [degrees]; only their magnitudes matter.
    signs : str
        Tilt pattern, see `tilt_signs`.
    tolerance_deg : float
        Tilts below it are '0', and two that differ by less share a letter [degrees].

    Returns
    -------
    GlazerTilt
    """
    sizes = np.abs([alpha, beta, gamma])
    signs = "".join("0" if size <= tolerance_deg else sign for size, sign in zip(sizes, signs, strict=True))
    sizes = np.where([sign == "0" for sign in signs], 0.0, sizes)
    letters = ""
    for axis, name in enumerate("abc"):
        twin = next((before for before in range(axis) if _alike(sizes, signs, axis, before, tolerance_deg)), None)
        letters += name if twin is None else letters[twin]
    return GlazerTilt(letters, signs)


def _alike(sizes, signs, one, other, tolerance_deg):
    """Whether two axes share a letter: both at rest, or both tilted equally far."""
    if (signs[one] == "0") != (signs[other] == "0"):
        return False
    return abs(sizes[one] - sizes[other]) <= tolerance_deg


def glazer_system(tilt):
    """Which of the 23 systems a tilt is, whatever the order of its axes.

    Parameters
    ----------
    tilt : GlazerTilt or str

    Returns
    -------
    GlazerSystem
    """
    tilt = tilt if isinstance(tilt, GlazerTilt) else parse_glazer(tilt)
    return next(system for system in GLAZER_SYSTEMS if system.tilt.kind == tilt.kind)


def glazer_perovskite(notation, magnitudes_deg, *, domain=(1, 1, 1), **crystal):
    """A perovskite from its Glazer symbol.

    Parameters
    ----------
    notation : str
        For instance 'a-a-c+'.
    magnitudes_deg : dict of str to float
        One tilt for each letter that is not zero, for instance {"a": 8.5, "c": 9.2} [degrees].
    domain : tuple of three int
        ±1 for each axis: which way octahedron (0, 0, 0) turns. (1, 1, 1) turns a⁻a⁻c⁰ about [110], the
        image's x, and (1, −1, 1) about [1-10], the beam.
    **crystal
        Further arguments of `tilted_perovskite`: species, lattice, A shifts, contraction.

    Returns
    -------
    ase.Atoms

    Raises
    ------
    InputError
        A magnitude is missing, superfluous or negative, or `domain` is not three signs.
    """
    tilt = parse_glazer(notation)
    if set(magnitudes_deg) != set(tilt.free_letters):
        wanted = ", ".join(tilt.free_letters) or "none"
        raise InputError(
            f"magnitudes_deg = {magnitudes_deg} does not fit '{notation}': give one tilt each for {wanted}."
        )
    for letter, size in magnitudes_deg.items():
        if not size >= 0:
            raise InputError(
                f"A magnitude of {size:g}° for '{letter}' is no size: give 0 or more, and turn by `domain`."
            )
    if len(domain) != 3 or not set(domain) <= {1, -1}:
        raise InputError(f"domain = {domain} does not choose a direction about each axis: give three of 1 and -1.")
    tilts = [way * magnitudes_deg.get(letter, 0.0) for way, letter in zip(domain, tilt.letters, strict=True)]
    return tilted_perovskite(*tilts, tilt.signs, **crystal)


# Glazer (1972), Acta Cryst. B 28, 3384, table 1; space groups and the 15 distinct systems after
# Howard & Stokes (1998), Acta Cryst. B 54, 782.
GLAZER_SYSTEMS = tuple(
    GlazerSystem(number, parse_glazer(notation), space_group, distinct)
    for number, notation, space_group, distinct in (
        (1, "a+b+c+", "Immm", True),
        (2, "a+b+b+", "Immm", False),
        (3, "a+a+a+", "Im-3", True),
        (4, "a+b+c-", "Pmmn", False),
        (5, "a+a+c-", "P4_2/nmc", True),
        (6, "a+b+b-", "Pmmn", False),
        (7, "a+a+a-", "P4_2/nmc", False),
        (8, "a+b-c-", "P2_1/m", True),
        (9, "a+a-c-", "P2_1/m", False),
        (10, "a+b-b-", "Pnma", True),
        (11, "a+a-a-", "Pnma", False),
        (12, "a-b-c-", "P-1", True),
        (13, "a-b-b-", "C2/c", True),
        (14, "a-a-a-", "R-3c", True),
        (15, "a0b+c+", "Immm", False),
        (16, "a0b+b+", "I4/mmm", True),
        (17, "a0b+c-", "Cmcm", True),
        (18, "a0b+b-", "Cmcm", False),
        (19, "a0b-c-", "C2/m", True),
        (20, "a0b-b-", "Imma", True),
        (21, "a0a0c+", "P4/mbm", True),
        (22, "a0a0c-", "I4/mcm", True),
        (23, "a0a0a0", "Pm-3m", True),
    )
)
