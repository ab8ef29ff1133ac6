"""What a crystal is made of, as its owner knows it: elements on the A and B sites, and a lattice parameter."""

import re
from dataclasses import dataclass, field

from ase.data import atomic_numbers

from unitcell.errors import InputError

ELEMENT = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")
EXAMPLE = "such as Sr,Ti,3.905 or La0.3Sr0.7,Al0.65Ta0.35,3.868"
SHARE_OFF = 0.02  # by which shares of a site may miss one


@dataclass(frozen=True)
class Material:
    """A perovskite AB O3 with sites that elements share at random.

    Parameters
    ----------
    a_site, b_site : dict of str to float
        Shares of elements, which add up to one.
    lattice_A : float
        Pseudo-cubic lattice parameter [Å].
    """

    a_site: dict = field(hash=False)
    b_site: dict = field(hash=False)
    lattice_A: float

    @property
    def stand_ins(self):
        """The elements of largest share on A and on B, as which sites are written: (str, str)."""
        return tuple(max(site, key=site.get) for site in (self.a_site, self.b_site))

    @property
    def shares(self):
        """Shares of the elements on the sites written as each stand-in: dict, for `scattering.annular_images`."""
        return {name: site for name, site in zip(self.stand_ins, (self.a_site, self.b_site), strict=True)}

    @property
    def elements(self):
        """All elements, oxygen too: tuple of str."""
        return (*self.a_site, *self.b_site, "O")

    def __str__(self):
        a_site, b_site = ("".join(f"{name}{_shown(share)}" for name, share in site.items())
                          for site in (self.a_site, self.b_site))  # fmt: skip
        return f"{a_site}{b_site}O3"


def parse_material(text):
    """Read 'Sr,Ti,3.905' or 'La0.3Sr0.7,Al0.65Ta0.35,3.868': Material.

    Raises
    ------
    InputError
        Anything else: unknown elements, shares that do not add up to one, a lattice parameter outside 3–6 Å.
    """
    parts = [part.strip() for part in str(text).split(",")]
    try:
        a_site, b_site, lattice_A = _site(parts[0]), _site(parts[1]), float(parts[2])
        known = len(parts) == 3 and a_site and b_site and 3 <= lattice_A <= 6 and not set(a_site) & set(b_site)
    except (ValueError, IndexError):
        known = False
    if not known:
        raise InputError(f"'{text}' is no crystal: give A site, B site and lattice parameter [Å], {EXAMPLE}.")
    return Material(a_site, b_site, lattice_A)


def _site(text):
    """Shares of the elements of one site; empty if it cannot be read."""
    found = ELEMENT.findall(text)
    if "".join(name + number for name, number in found) != text:
        return {}
    shares = {name: float(number or 1) for name, number in found}
    sound = all(name in atomic_numbers and share > 0 for name, share in shares.items()) and len(shares) == len(found)
    return shares if sound and abs(sum(shares.values()) - 1) < SHARE_OFF else {}


def _shown(share):
    return "" if share == 1 else f"{share:g}"
