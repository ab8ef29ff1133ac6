"""From a microscope to its calibrated tilt network: simulate specimens, train on them, calibrate and test on others.

Everything is kept in one folder as it is finished, simulated structures and trained members, so that a stopped run goes
on where it was. Nothing that is trained on is tested on: training, calibration and test have their own structures.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import yaml

from unitcell.artefacts import existing, load_dataset, load_weights, save_weights, sha256
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.networks.tilt_network import ARCHITECTURE, TiltEnsemble, TiltNetwork, load_network
from unitcell.networks.tilt_training import (
    calibrate,
    familiarise,
    score,
    train_member,
    unseen_windows,
    widen,
    widening,
)
from unitcell.networks.training_library import Specimens, registered, simulate_cells
from unitcell.networks.training_windows import Conditions, draw_windows
from unitcell.scattering import Microscope

# Cells are simulated with their tilts and aberrations: no stand-ins for those. Windows are registered before they are
# read: of scale, shear, rotation and offset some is left, but less than images have.
CONDITIONS = Conditions(
    source_A=(0.0, 0.5), tail=0.0, mistilt_shift_A=0.0, magnification=0.02, shear=0.015, rotation_deg=1.0,
    offset_A=0.06,
)  # fmt: skip
# What differs from `Recipe` when it starts from the committed ensemble.
FINE_TUNED = {"structures": 1000, "windows": 1_000_000, "learning_rate": 1e-3, "fine_tune": True}
OF_SPECIMENS = ("materials", "specimens")  # keys of a microscope's file that are not the microscope's
DECISIVE = ("energy_eV", "semiangle_mrad", "inner_mrad", "outer_mrad")  # of a microscope
SHOWN = 8  # times that a training window is counted, at another dose each time
PHONON_REPEATS = 4  # windows of each frozen-phonon image
ORDINARY = 4000  # windows that teach what is familiar
UNTILTED_STRANGERS = 0.35  # probability that a tilt of a stranger is zero: crystals are seldom tilted about every axis


@dataclass(frozen=True)
class Recipe:
    """How much is simulated and how the networks are trained.

    Parameters
    ----------
    structures : int
        Simulated for training; a tenth as many each for calibration and for the test.
    strangers : float
        Share of them by which the number of structures is raised by strangers, see `Specimens`.
    members, windows, batch : int
        Networks, windows each of them is trained on, windows of one step.
    learning_rate : float
        Peak of the one-cycle schedule.
    bfloat16 : bool
        Multiply in bfloat16, faster on processors that have it.
    fine_tune : bool
        Start from the committed ensemble, of another microscope: fewer structures and windows do.
    seed : int
    """

    structures: int = 8000
    strangers: float = 0.5
    members: int = 4
    windows: int = 8_000_000
    batch: int = 512
    learning_rate: float = 2e-3
    bfloat16: bool = False
    fine_tune: bool = False
    seed: int = 0

    def as_dict(self):
        """As JSON types."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def load_microscope_file(path):
    """Read a YAML file of a microscope and, optionally, of the materials it looks at.

    Keys are those of `Microscope` (energy_eV, semiangle_mrad, inner_mrad, outer_mrad, …) and `materials`, a list of
    [A, B, pseudo-cubic lattice parameter in Å], the most important one first, and `specimens`, a mapping of other
    ranges of `Specimens` (thickness_A, defocus_A, …).

    Returns
    -------
    Microscope, Specimens

    Raises
    ------
    InputError
        No such file, no mapping of known keys, or impossible values.
    """
    path = existing(path, "give the YAML file of your microscope")
    try:
        given = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable YAML ({str(error).splitlines()[0]}).") from error
    known = [field.name for field in fields(Microscope)]
    if not isinstance(given, dict) or not set(given) <= {*known, *OF_SPECIMENS}:
        wrong = ", ".join(map(str, set(given) - {*known, *OF_SPECIMENS})) if isinstance(given, dict) else "no mapping"
        raise InputError(f"{path} holds {wrong}: give keys among {', '.join([*known[:5], *OF_SPECIMENS])}.")
    materials, ranges = (given.pop(key, None) for key in OF_SPECIMENS)
    try:
        microscope = Microscope(**{key: float(value) for key, value in given.items()})
        chosen = {} if materials is None else {"materials": _materials(materials)}
        specimens = Specimens(**chosen | _ranges(ranges or {}))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} holds a value that is no number, no range, or no [A, B, lattice parameter]: {error}."
        ) from error
    return microscope, specimens


def train_for(microscope, specimens=None, recipe=None, *, folder, scheduler=None, progress=True):
    """The calibrated ensemble of a microscope.

    Parameters
    ----------
    microscope : unitcell.scattering.Microscope
    specimens : unitcell.networks.training_library.Specimens, optional
    recipe : Recipe, optional
    folder : path
        Keeps finished structures and members.
    scheduler : str, optional
        Address of a Dask scheduler that shares out the simulations.
    progress : bool

    Returns
    -------
    unitcell.networks.tilt_network.TiltEnsemble
        Its card has microscope, specimens, conditions, recipe, and the errors on the test structures.
    """
    specimens, recipe, folder = specimens or Specimens(), recipe or Recipe(), Path(folder)
    options = {"folder": folder / "cells", "scheduler": scheduler, "progress": progress}
    few = max(16, recipe.structures // 10)
    cells = training_cells(recipe.structures, microscope, specimens, recipe, recipe.seed, **options)
    members = [trained_member(cells, recipe, index, folder, progress) for index in range(recipe.members)]
    card = cells.settings | {"conditions": CONDITIONS.as_dict(), "recipe": recipe.as_dict()}
    card["cells_sha256"] = hashlib.sha256(cells.images.numpy().tobytes()).hexdigest()
    if recipe.fine_tune:
        card["started_from_sha256"] = sha256(fetch("tilt_network"))
    ensemble = TiltEnsemble(members, card)
    generator = torch.Generator().manual_seed(recipe.seed + 10_000)
    familiarise(ensemble, draw_windows(cells, min(recipe.windows, ORDINARY), CONDITIONS, generator)[0])
    for purpose, seed in (("calibration", recipe.seed + 1), ("test", recipe.seed + 2)):
        other = training_cells(few, microscope, specimens, recipe, seed, **options)
        windows, projection, _ = draw_windows(other, 12 * few, CONDITIONS, generator)
        if purpose == "calibration":
            calibrate(ensemble, windows, projection.numpy())
            ensemble.card["widening"] = phonon_widening(ensemble, microscope, generator)
            widen(ensemble, ensemble.card["widening"])
        else:
            ensemble.card["test"] = score(ensemble, windows, projection.numpy())
    return ensemble


def phonon_widening(ensemble, microscope, generator):
    """By how much frozen phonons widen the intervals, see `unitcell.networks.tilt_training.widening`.

    Measured on the committed frozen phonons of SrTiO3 if they are of this microscope; for another, what the committed
    network needed.
    """
    phonons = load_dataset(fetch("abf_library_phonons"), ("abf",))
    mine = microscope.as_attributes()
    if not all(np.isclose(phonons.attrs[key], mine[key]) for key in DECISIVE):
        return load_network().card["widening"]
    cells = torch.tensor(phonons.abf.values, dtype=torch.float32)
    phonons.abf.values[:] = registered(cells.flatten(0, 1)).unflatten(0, cells.shape[:2]).numpy()
    windows, projection = unseen_windows(phonons, CONDITIONS, generator, repeats=PHONON_REPEATS)
    return widening(ensemble, windows.float(), projection)


def training_cells(count, microscope, specimens, recipe, seed, **options):
    """`count` structures of `specimens`, and of strangers as many as the recipe says: SimulatedCells."""
    cells = simulate_cells(count, microscope, specimens, seed=seed, **options)
    others = round(recipe.strangers * count)
    if others == 0:
        return cells
    strange = replace(specimens, strange=1.0, untilted=UNTILTED_STRANGERS)
    return cells + simulate_cells(others, microscope, strange, seed=seed, **options)


def trained_member(cells, recipe, index, folder, progress=True):
    """One network of the ensemble: read from the folder where it is finished there, else trained and kept."""
    path = Path(folder) / f"member_{index}.safetensors"
    wanted = {"recipe": replace(recipe, members=1).as_dict(), "settings": cells.settings}
    network = TiltNetwork()
    if path.is_file():
        state, card = load_weights(path, ARCHITECTURE)
        if {key: card.get(key) for key in wanted} == wanted:
            network.load_state_dict(state)
            return network
    how = {"windows": recipe.windows, "batch": recipe.batch, "learning_rate": recipe.learning_rate}
    how |= {"shown": SHOWN, "bfloat16": recipe.bfloat16, "seed": recipe.seed + index, "progress": progress}
    if recipe.fine_tune:
        known = load_network().members
        how["network"] = known[index % len(known)].train()
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".checkpoint")
    network, history = train_member(cells, CONDITIONS, checkpoint=half, **how)
    save_weights(network.state_dict(), path, f"{ARCHITECTURE}-member", wanted | {"history": history})
    half.unlink(missing_ok=True)
    return network


def _ranges(given):
    """Ranges of a YAML file, each of the kind that `Specimens` has: a number, or the two ends of a range."""
    known = {field.name: field.default for field in fields(Specimens) if field.name != "materials"}
    if not isinstance(given, dict) or not set(given) <= set(known):
        raise ValueError(f"specimens may hold {', '.join(known)}")
    found = {}
    for name, value in given.items():
        ends = [float(end) for end in (value if isinstance(value, list) else [value])]
        if len(ends) != np.size(known[name]) or min(ends) < 0 or ends != sorted(ends):
            raise ValueError(f"{name} is {value}")
        found[name] = tuple(ends) if len(ends) == 2 else type(known[name])(ends[0])
    return found


def _materials(given):
    """Materials of a YAML file as tuples."""
    materials = tuple((str(a_site), str(b_site), float(lattice_A)) for a_site, b_site, lattice_A in given)
    if not materials:
        raise ValueError("the list of materials is empty")
    return materials
