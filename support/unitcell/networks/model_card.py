"""The card of a network: what it was trained on and how, how well it read specimens it never saw, what it cannot do."""

import numpy as np
import pandas as pd

LIMITS = (
    "reads perovskites along [110] only",
    "(u, γ) up to a common sign",
    "u and γ as if the pattern were uniform along the beam, unless an alternation stands out",
    "amorphous layers and mosaic are not in its training images",
    "ood need not notice a lens or a material that looks ordinary",
)
# Of training images whose specimens say how much of what heat scatters returns to the detector, and of older ones.
RETURNED = "what heat scatters returns to the detector of its training images by one share for all columns and depths"
NOT_RETURNED = "its training images have thermal scattering's loss, not the electrons it brings to other places"


def model_card(ensemble):
    """A network's card as pairs of words.

    Parameters
    ----------
    ensemble : unitcell.networks.tilt_network.TiltEnsemble

    Returns
    -------
    dict of str to str
    """
    card = ensemble.card
    rows = {"microscope": microscope_words(card)} | _training(card)
    parameters = sum(p.numel() for p in ensemble.members[0].parameters())
    rows["networks"] = f"{len(ensemble.members)} of {parameters:,} parameters"
    for name in ("v", "u", "gamma", "alternation"):
        if f"rms_{name}_deg" in card.get("test", {}):
            rms, covered = card["test"][f"rms_{name}_deg"], card["test"][f"coverage_{name}"]
            rows[f"{name}, unseen specimens"] = f"{rms:.2f}° rms, {covered:.3f} of the 90 % intervals hold the truth"
    factors = {"v": "v", "gamma": "u, γ"}
    reaches = {words: ensemble.calibration[key]["factor"] for key, words in factors.items()}
    rows["conformal factors"] = ", ".join(
        f"{words} {one[0]:.2f} where surest to {one[-1]:.2f}" for words, one in reaches.items()
    )
    if "command" in card:
        rows["command"] = card["command"]
    if "cells_sha256" in card:
        rows["training images, SHA-256"] = card["cells_sha256"]
    heat = RETURNED if "returned" in card.get("specimens", {}) else NOT_RETURNED
    return rows | {"limits": "; ".join((*LIMITS, heat))}


def card_table(ensemble):
    """`model_card` as a table for a page."""
    table = pd.DataFrame(model_card(ensemble).items(), columns=["", " "])
    styled = table.style.hide(axis="index").hide(axis="columns").set_properties(**{"text-align": "left"})
    styled = styled.set_properties(subset=[""], **{"white-space": "nowrap", "padding-right": "1em"})
    return styled.set_properties(subset=[" "], **{"overflow-wrap": "anywhere"})  # or a checksum would widen the page


def microscope_words(card):
    """Energy and apertures in words."""
    return (
        f"{card['energy_eV'] / 1e3:g} kV, probe {card['semiangle_mrad']:g} mrad, detector {card['inner_mrad']:g} to "
        f"{card['outer_mrad']:g} mrad"
    )


def _training(card):
    """What it was trained on, in words."""
    rows = {}
    if "specimens" in card:
        seen = card["specimens"]
        rows["materials"] = ", ".join(f"{a}{b}O3 ({lattice:g} Å)" for a, b, lattice in seen["materials"])
        rows["specimens"] = (
            f"tilts ±{seen['tilt_deg']:g}°, crystal tilt ≤ {seen['crystal_tilt_mrad']:g} mrad, "
            f"{seen['thickness_A'][0]:g} to {seen['thickness_A'][1]:g} Å, A shifts ≤ {np.max(seen['a_shift']):g} a, "
            f"{seen['alternating']:.0%} with '+' about a or b"
        )
    if "conditions" in card:
        seen = card["conditions"]
        rows["images"] = (
            f"{seen['dose'][0]:g} to {seen['dose'][1]:g} e/Å², "
            f"source {seen['source_A'][0]:g} to {seen['source_A'][1]:g} Å, "
            f"scale ±{seen['magnification']:.0%}, rotation ±{seen['rotation_deg']:g}°"
        )
    if "structures" in card.get("recipe", {}):
        recipe = card["recipe"]
        start = ", from the committed networks" if recipe.get("fine_tune") else ""
        if "started_from_sha256" in card:
            start += f" whose SHA-256 is {card['started_from_sha256']}"
        rows["recipe"] = (
            f"{recipe['structures']:,} structures, {recipe['windows']:,} windows in batches of {recipe['batch']}, "
            f"learning rate {recipe['learning_rate']:g}, seed {recipe['seed']}{start}"
        )
    return rows
