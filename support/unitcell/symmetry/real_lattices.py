"""The lattices that chapter 01 decides about: chapter 06's dark-field perovskite or your own image, and SrTiO3."""

from dataclasses import dataclass

from unitcell.atoms import finding
from unitcell.atoms.segmenter import load_segmenter
from unitcell.data import DataUnavailable, fetch, open_image
from unitcell.micrographs.images import StemImage
from unitcell.registration.lattice import register
from unitcell.symmetry.column_grid import ColumnGrid, ordered_columns, sublattice
from unitcell.twins import darkfield

STO_A = 3.905  # lattice parameter of SrTiO3 [Å]


@dataclass(frozen=True)
class Sublattice:
    """Columns of one sublattice, in order, and the image in which they were found."""

    image: StemImage
    grid: ColumnGrid


def open_specimen(image=None, pixel_size_A=None):
    """The lattice in question, by the network of chapter 06.

    Parameters
    ----------
    image : str or Path, optional
        None: the real dark-field perovskite; where that is unavailable, a simulated one.
    pixel_size_A : float, optional
        Pixel size [Å]; None: from the file.

    Returns
    -------
    path : str or Path or None
        Of the image; None where it is simulated.
    dict of str to Sublattice
        By name: its A columns first (bright), then, of the book's own image, the B columns.
    """
    path, micrograph, _ = darkfield.open_dark_field(image, pixel_size_A)
    name = "perovskite" if image is None else micrograph.name
    return path, _by_network(micrograph, name, "AB" if image is None else "A", "AB")


def open_control():
    """SrTiO3 along [110], which is not doubled: Sr and Ti columns of the ADF image, and of the ABF image taken with it.

    The ADF columns come from the network, the ABF ones from the registration of chapter 05. Where the images are
    unavailable, a simulated lattice without a zigzag takes their place.

    Returns
    -------
    dict of str to Sublattice
    """
    try:
        adf, abf = open_image("sto_110_adf"), open_image("sto_110_abf")
    except DataUnavailable:
        return _by_network(darkfield.doubled_perovskite(shift_A=0.0)[0], "simulated", "A", "A")
    found = _by_network(adf, "SrTiO3 ADF", "AB", ("Sr", "Ti"))
    registered = register(abf, STO_A)
    for site, table in (("Sr", registered.a_columns), ("Ti", registered.b_columns)):
        points = table.loc[table.found, ["x_px", "y_px"]].to_numpy() * abf.pixel_size_A
        found[f"SrTiO3 ABF, {site}"] = Sublattice(abf, ordered_columns(points))
    return found


def _by_network(image, name, species, labels):
    """Sublattices of an image: `species` among bright 'A' and dim 'B', called by `labels`."""
    found, _ = finding.find_atoms(image, load_segmenter(fetch("atom_segmenter")))
    present = [(kind, label) for kind, label in zip(species, labels, strict=False) if (found.species == kind).any()]
    return {
        f"{name}, {label}": Sublattice(image, sublattice(found, kind, image.pixel_size_A)) for kind, label in present
    }
