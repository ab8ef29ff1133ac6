"""Which of the committed tilt networks reads an image: the one trained for the microscope that took it.

Of what is known of the microscope, from the file or from whoever gives it, the electron energy must agree (unknown, it
is taken for that of the book's network); among the networks of that energy the one with the nearest apertures is taken,
by Σ |ln(known / trained for)| over those known. Where none is known it is the first, and the reason says so.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitcell.artefacts import load_weights
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.networks.model_card import microscope_words
from unitcell.networks.tilt_network import ARCHITECTURE
from unitcell.tilts.inference import ALIKE

COMMITTED = ("tilt_network", "tilt_network_20mrad", "tilt_network_300kv")  # the book's first
APERTURES = ("semiangle_mrad", "inner_mrad", "outer_mrad")
WORDS = {
    "energy_eV": "{:g} kV", "semiangle_mrad": "a probe of {:g} mrad",
    "inner_mrad": "a detector from {:g} mrad", "outer_mrad": "a detector to {:g} mrad",
}  # fmt: skip


@dataclass(frozen=True)
class NetworkChoice:
    """A committed network and why it was taken.

    Parameters
    ----------
    path : Path
    card : dict
    reason : str
        One sentence.
    agrees : bool
        Whether its card agrees with all that is known; True where nothing is.
    """

    path: Path
    card: dict
    reason: str
    agrees: bool


def choose_network(known, names=COMMITTED):
    """The committed network for a microscope.

    Parameters
    ----------
    known : dict of str to float
        Of energy_eV [eV], semiangle_mrad, inner_mrad and outer_mrad what is known, such as `StemImage.recorded`.
    names : sequence of str
        Entries of data_manifest.yml, the first of equals is taken.

    Returns
    -------
    NetworkChoice

    Raises
    ------
    InputError
        No network for that electron energy, or a value that is no positive number.
    """
    known = {key: float(known[key]) for key in WORDS if known.get(key) is not None}
    wrong = {key: value for key, value in known.items() if not (np.isfinite(value) and value > 0)}
    if wrong:
        raise InputError(f"A microscope with {_words(wrong)} cannot be: give positive numbers.")
    paths = {name: fetch(name) for name in names}
    cards = {name: load_weights(path, ARCHITECTURE)[1] for name, path in paths.items()}
    energy = {"energy_eV": cards[names[0]]["energy_eV"]} | known
    fit = [name for name in names if _alike(energy, cards[name], ("energy_eV",))]
    if not fit:
        energies = sorted({card["energy_eV"] for card in cards.values()})
        raise InputError(
            f"The image was recorded at {known['energy_eV'] * 1e-3:g} kV, and the networks here were trained for "
            f"{' and '.join(f'{energy / 1e3:g}' for energy in energies)} kV: train one for it with "
            "'unitcell train --microscope my.yml'."
        )
    best = min(fit, key=lambda name: _distance(known, cards[name]))
    agrees = _alike(known, cards[best], WORDS)
    return NetworkChoice(paths[best], cards[best], _reason(known, cards[best], agrees), agrees)


def _alike(known, card, keys):
    """Whether what is known of `keys` is what a network was trained for."""
    return all(abs(known[key] - card[key]) <= ALIKE[key] * card[key] for key in keys if key in known)


def _distance(known, card):
    return sum(abs(np.log(known[key] / card[key])) for key in APERTURES if key in known)


def _reason(known, card, agrees):
    """Why a network was taken, in a sentence."""
    network = f"The network is that for {microscope_words(card)}"
    if not set(known) & set(APERTURES):
        return (
            f"{network}, the first here{' for that voltage' if known else ''}, for nobody says which apertures took "
            "the image: if it was another probe, give its semi-angle, for tilts about [001] above all depend on it."
        )
    assumed = "" if "energy_eV" in known else f" (the voltage is not: {card['energy_eV'] / 1e3:g} kV is assumed)"
    if agrees:
        return f"{network}, whose card agrees with what is known of the image: {_words(known)}{assumed}."
    return (
        f"{network}, the nearest here, but its card does not agree with what is known of the image, "
        f"{_words(known)}{assumed}: train one for it with 'unitcell train --microscope my.yml'."
    )


def _words(known):
    """What is known, such as '200 kV, a probe of 20 mrad'."""
    return ", ".join(WORDS[key].format(value * (1e-3 if key == "energy_eV" else 1)) for key, value in known.items())
