"""The recipe of Laanait 2019: images of a Gaussian process, a 90/10 split of its grid, Huber loss, halving rates.

The 729 000 images are sampled from the surrogate as they are needed and never stored. `unitcell paper-network` is the
whole recipe on a device; under `torchrun` it is data-parallel.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import distributed
from torch.nn import functional

from unitcell.artefacts import load_dataset, load_weights, save_table, save_weights
from unitcell.crystals.tilt_coordinates import to_projection, to_pseudocubic
from unitcell.networks.paper_network import PAPER_SHAPE, PaperNetwork
from unitcell.networks.tilt_network import errors
from unitcell.networks.training_loop import Training, processes, train
from unitcell.networks.training_windows import Conditions, record
from unitcell.surrogates.surrogate import Surrogate, paper_grid

ARCHITECTURE = "paper-network"
NAMES = ("alpha", "beta", "gamma")
AUGMENTATION = Conditions(
    dose=(1e4, 1e6), source_A=(0.0, 0.0), ellipticity=1.0, tail=0.0, mistilt_shift_A=0.0, magnification=0.05,
    shear=0.03, rotation_deg=2.0, offset_A=0.0, crop_A=1.0, jitter_A=0.0,
)  # fmt: skip
STILL = Conditions(
    dose=(1e12, 1e12), source_A=(0.0, 0.0), ellipticity=1.0, tail=0.0, mistilt_shift_A=0.0, magnification=0.0,
    shear=0.0, rotation_deg=0.0, offset_A=0.0, jitter_A=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class PaperRecipe:
    """What the paper states, and what it leaves open.

    Parameters
    ----------
    filters, hidden, shape, pooling
        Of `PaperNetwork`.
    images : int
        Training images of an epoch, drawn with replacement; the paper's 656 100 are nine tenths of the grid.
    epochs : int
    batch : int
    learning_rate : float
        Halved every `halve_every` epochs, and with it the Huber δ.
    huber_deg : float
        δ of equation (5) at the start [degrees].
    regularisation : float
        ε of equation (4).
    thickness_A : float
        The paper does not say of which of its thicknesses the 729 000 images are.
    validated : int
        Images of the other tenth that are looked at; the paper's: 72 900.
    bfloat16 : bool
    seed : int
    """

    filters: int = 64
    hidden: int = 512
    shape: tuple = PAPER_SHAPE
    pooling: str = "average"
    images: int = 656_100
    epochs: int = 12
    batch: int = 32
    learning_rate: float = 1e-3
    halve_every: int = 2
    huber_deg: float = 25.0
    regularisation: float = 1e-4
    thickness_A: float = 200.0
    validated: int = 72_900
    bfloat16: bool = False
    seed: int = 0


def train_paper_network(out, surrogate, recipe, device="cpu"):
    """Train into a file, with a checkpoint beside it, alone or as one of the processes of `torchrun`.

    Parameters
    ----------
    out : path
        Weights, as `save_paper_network` writes them; a table of metrics goes beside them as CSV.
    surrogate : path
        `surrogate.nc` of chapter 03.
    recipe : PaperRecipe
    device : str
        "cuda" gives each process of `torchrun` its own.

    Returns
    -------
    list of dict, or None in all processes but the first
    """
    together = "WORLD_SIZE" in os.environ
    if together:
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        device = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    process = Surrogate.from_dataset(load_dataset(surrogate, ("scores", "tilts")), device=device)
    training = paper_training(process, recipe)
    half = Path(out).with_suffix(".checkpoint")
    network, history = train(training, checkpoint=half, label="paper's network")
    first = training.rank == 0
    if first:
        save_paper_network(network.cpu(), history, recipe, out)
        save_table(pd.DataFrame(history), Path(out).with_suffix(".csv"))
        half.unlink(missing_ok=True)
    if together:
        distributed.destroy_process_group()
    return history if first else None


def save_paper_network(network, history, recipe, path):
    """Write the network with its recipe and history as safetensors."""
    save_weights(network.state_dict(), path, ARCHITECTURE, {"recipe": asdict(recipe), "history": history})


def load_paper_network(path):
    """What `save_paper_network` wrote: network, history, recipe; InputError for other weights."""
    state, card = load_weights(path, ARCHITECTURE)
    recipe = PaperRecipe(**card["recipe"] | {"shape": tuple(card["recipe"]["shape"])})
    network = PaperNetwork(recipe.filters, recipe.hidden, recipe.shape, recipe.pooling)
    network.load_state_dict(state)
    return network.eval(), card["history"], recipe


def split_grid(seed=0, share=0.9):
    """The (v, u, γ) of the paper's grid, shuffled and split: training (656 100, 3) and validation (72 900, 3)."""
    grid = paper_grid()
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed))
    first = round(share * len(grid))
    return grid[order[:first]], grid[order[first:]]


def paper_training(surrogate, recipe, conditions=AUGMENTATION):
    """The `Training` of the paper's network on images of a surrogate.

    Parameters
    ----------
    surrogate : unitcell.surrogates.surrogate.Surrogate
        On the device to train on.
    recipe : PaperRecipe
    conditions : unitcell.networks.training_windows.Conditions
        Affine distortions, magnification, crops, counts; none of them in the validation.

    Returns
    -------
    unitcell.networks.training_loop.Training
        Its history has `rms_alpha_deg`, … of the signed answers, `folded_…` on the nearer branch, and `correlation`
        of the errors of α and β.
    """
    torch.manual_seed(recipe.seed)
    device = surrogate.device
    network = PaperNetwork(recipe.filters, recipe.hidden, recipe.shape, recipe.pooling).to(device)
    taught, held_out = split_grid(recipe.seed)
    held_out = held_out[: recipe.validated]
    # Every process of `torchrun` draws batches of its own.
    per_epoch = max(min(recipe.images, len(taught)) // (recipe.batch * processes()), 1)

    def draw(step, generator):
        which = torch.randint(len(taught), (recipe.batch,), generator=generator, device=generator.device)
        projection = taught[which.cpu()].to(device)
        return paper_windows(surrogate, projection, recipe, conditions, generator), angles_of(projection)

    def loss(answers, wanted, rate):
        return functional.huber_loss(answers.float(), wanted, delta=recipe.huber_deg * rate)

    def staircase(optimiser):
        return torch.optim.lr_scheduler.StepLR(optimiser, recipe.halve_every * per_epoch, 0.5)

    what = {"recipe": asdict(recipe), "conditions": conditions.as_dict(), "settings": surrogate.settings}
    return Training(
        network, draw, loss, staircase, what, steps=recipe.epochs * per_epoch, learning_rate=recipe.learning_rate,
        regularisation=recipe.regularisation, bfloat16=recipe.bfloat16, seed=recipe.seed,
        validate=lambda found: validate(found, surrogate, held_out, recipe),
    )  # fmt: skip


def paper_windows(surrogate, projection, recipe, conditions=STILL, generator=None):
    """Windows (B, rows, columns) of the surrogate at (v, u, γ) (B, 3); perfect ones by default."""
    generator = generator or torch.Generator(device=surrogate.device).manual_seed(0)
    cells = surrogate.images(projection, torch.full((len(projection),), recipe.thickness_A, device=surrogate.device))
    return record(cells, surrogate.settings["lattice_A"], conditions, generator, recipe.shape)


def angles_of(projection):
    """(v, u, γ) (B, 3) → (α, β, γ) (B, 3) [degrees]."""
    return torch.stack(to_pseudocubic(*projection.unbind(1)), dim=1)


@torch.inference_mode()
def answers(network, surrogate, projection, recipe, batch=256):
    """(α, β, γ) [degrees] that a network gives for perfect windows of the surrogate: ndarray (n, 3)."""
    device = surrogate.device
    parts = [network(paper_windows(surrogate, part.to(device), recipe)) for part in projection.split(batch)]
    return torch.cat(parts).float().cpu().numpy()


def validate(network, surrogate, projection, recipe):
    """Errors on perfect windows, signed and folded, as the history of `paper_training` has them."""
    return split_errors(answers(network, surrogate, projection, recipe), projection)


def split_errors(found, projection):
    """Rms errors [degrees] of signed answers (n, 3), as they stand and on the nearer branch of (v, u, γ) (n, 3)."""
    projection = projection.cpu()
    signed = found - angles_of(projection).numpy()
    v, u, gamma = to_projection(*np.asarray(found, dtype=float).T)
    centre = {"v": v, "u": u, "gamma": gamma, "alpha": found[:, 0], "beta": found[:, 1]}
    folded = errors(centre, projection.numpy())
    result = {f"rms_{name}_deg": _rms(signed[:, axis]) for axis, name in enumerate(NAMES)}
    result |= {f"folded_{name}_deg": _rms(folded[name]) for name in ("v", "u", *NAMES)}
    return result | {"correlation": float(np.corrcoef(signed[:, 0], signed[:, 1])[0, 1])}


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))
