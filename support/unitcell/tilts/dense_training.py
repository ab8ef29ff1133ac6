"""Training of the dense map's network: sizes of tilts from windows at random offsets, standardised as whole images are.

`python -m unitcell.tilts.dense_training OUT` simulates the cells (or finds them in a folder beside OUT),
trains and tests.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from unitcell.artefacts import save_weights
from unitcell.crystals.tilt_coordinates import softened
from unitcell.networks.training_library import SimulatedCells, simulate_cells
from unitcell.networks.training_loop import Training, train
from unitcell.networks.training_windows import Conditions, draw_windows
from unitcell.scattering import Microscope
from unitcell.tilts.dense import ARCHITECTURE, SCALE_DEG, TILTS, dense_network, sizes

ANYWHERE = Conditions(crop_A=4.0, offset_A=0.0)  # ± half of the longer period, 2a
OFFSETS_TESTED = 8  # windows of each unseen structure and thickness


@dataclass(frozen=True)
class DenseRecipe:
    """What a dense network is trained with.

    Parameters
    ----------
    filters, hidden
        Of `unitcell.tilts.dense.dense_network`.
    structures : int
        Simulated crystals, of which the last `held_out` are only for the test.
    held_out : int
    windows : int
        Drawn as it goes; none is seen twice.
    batch : int
    learning_rate : float
        Peak of a one-cycle schedule for Adam.
    gain, offset : float
        Standard deviations of each window's gain, relative, and offset, in standard deviations of the image: an image
        is not everywhere as bright and as rich in contrast as on its mean.
    bfloat16 : bool
        Multiply in bfloat16.
    seed : int
    """

    filters: int = 16
    hidden: int = 64
    structures: int = 8000
    held_out: int = 320
    windows: int = 400_000
    batch: int = 64
    learning_rate: float = 3e-3
    gain: float = 0.1
    offset: float = 0.1
    bfloat16: bool = True
    seed: int = 0


def dense_training(cells, recipe, conditions=ANYWHERE):
    """The `Training` of a dense network on simulated cells.

    Parameters
    ----------
    cells : unitcell.networks.training_library.SimulatedCells
    recipe : DenseRecipe
    conditions : unitcell.networks.training_windows.Conditions
        Approached from easier ones, see `Conditions.eased`.

    Returns
    -------
    unitcell.networks.training_loop.Training
    """
    torch.manual_seed(recipe.seed)
    network = dense_network(recipe.filters, recipe.hidden).to(cells.device).to(memory_format=torch.channels_last)
    steps = max(recipe.windows // recipe.batch, 2)

    def draw(step, generator):
        eased = conditions.eased(step / steps)
        windows, projection = drawn(cells, recipe.batch, eased, generator, network.shape)
        gain = 1 + recipe.gain * torch.randn((recipe.batch, 1, 1), generator=generator)
        offset = recipe.offset * torch.randn((recipe.batch, 1, 1), generator=generator)
        return gain * windows + offset, targets(projection)

    def loss(answers, wanted, _):
        known = torch.isfinite(wanted)
        return functional.mse_loss(answers.float()[known], wanted[known])

    def one_cycle(optimiser):
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.2)

    what = {"recipe": asdict(recipe), "conditions": conditions.as_dict(), "settings": cells.settings}
    options = {"steps": steps, "learning_rate": recipe.learning_rate, "bfloat16": recipe.bfloat16, "seed": recipe.seed}
    return Training(network, draw, loss, one_cycle, what, **options)


def drawn(cells, count, conditions, generator, shape):
    """Windows (count, *shape) as an image's standardisation leaves them, and (v, u, γ, alternation) (count, 4).

    Windows of `networks.training_windows` hold whole periods, so that their mean and standard deviation are those of
    an image of that crystal. The network's window is the middle of one.
    """
    windows, projection, _ = draw_windows(cells, count, conditions, generator)
    top, left = ((whole - part) // 2 for whole, part in zip(windows.shape[1:], shape, strict=True))
    return windows[:, top : top + shape[0], left : left + shape[1]], projection


def targets(projection):
    """(v, u, γ, alternation) (n, 4) [degrees] → what the network shall say (n, 3); |u| is NaN where tilts alternate.

    In projection, tilts about [110] that alternate along the beam look like ones that do not (see
    `unitcell.networks.tilt_training.taught`).
    """
    wanted = softened(projection[:, :3]) / SCALE_DEG
    wanted[:, 1] = torch.where(projection[:, 3] == 0, wanted[:, 1], torch.nan)
    return wanted


@torch.inference_mode()
def unseen_errors(network, cells, conditions=ANYWHERE, seed=0, count=None):
    """Errors of single windows of structures that the network was not trained on.

    Returns
    -------
    dict of str to float
        `rms_v_abs_deg`, `rms_u_abs_deg`, `rms_gamma_abs_deg`: of |v|, |u|, |γ| [degrees]; |u| where nothing
        alternates along the beam. `spread_…`: standard deviation of the truth, the error of saying its mean.
    """
    generator = torch.Generator().manual_seed(seed)
    windows, projection = drawn(cells, count or OFFSETS_TESTED * len(cells), conditions, generator, network.shape)
    answers = torch.cat([network.eval()(part) for part in windows.split(512)])
    true = projection[:, :3].abs().numpy()
    wrong = sizes(answers.numpy()) - true
    found = {}
    for axis, name in enumerate(TILTS):
        judged = (projection[:, 3] == 0).numpy() if name == "u_abs" else slice(None)
        found[f"rms_{name}_deg"] = float(np.sqrt(np.mean(wrong[judged, axis] ** 2)))
        found[f"spread_{name}_deg"] = float(true[judged, axis].std())
    return found


def split_cells(cells, held_out):
    """SimulatedCells without the last `held_out` structures, and those."""
    parts = (slice(None, -held_out), slice(-held_out, None))
    images = cells.images.numpy().view(np.uint16)
    return [SimulatedCells(images[p], cells.projection[p], cells.depths[p], cells.settings) for p in parts]


def train_dense_network(out, recipe, folder=None, progress=True):
    """Simulate, train, test and write a dense network.

    Parameters
    ----------
    out : path
        Weights, see `unitcell.tilts.dense.load_dense_network`.
    recipe : DenseRecipe
    folder : path, optional
        Of the simulated cells, which are kept and found again there; by default beside `out`.
    progress : bool

    Returns
    -------
    dict
        The network's card.
    """
    out = Path(out)
    folder = Path(folder) if folder else out.with_suffix(".training") / "cells"
    cells = simulate_cells(recipe.structures, Microscope(), seed=recipe.seed, folder=folder, progress=progress)
    taught, held_out = split_cells(cells, recipe.held_out)
    training = dense_training(taught, recipe)
    half = out.with_suffix(".checkpoint")
    network, history = train(training, checkpoint=half, label="dense network", progress=progress)
    network = network.to(memory_format=torch.contiguous_format)
    card = cells.settings | {"conditions": ANYWHERE.as_dict(), "recipe": asdict(recipe), "history": history}
    card |= {"test": unseen_errors(network, held_out, seed=recipe.seed + 1)}
    card |= {"command": _command(out, recipe)}
    save_weights(network.state_dict(), out, ARCHITECTURE, card)
    half.unlink(missing_ok=True)
    return card


def _command(out, recipe):
    """What to type for this network again."""
    given = {name: value for name, value in asdict(recipe).items() if value != asdict(DenseRecipe())[name]}
    return " ".join(["python -m unitcell.tilts.dense_training", out.name, *(f"--{n} {v}" for n, v in given.items())])


def main():
    """`python -m unitcell.tilts.dense_training OUT`."""
    parser = argparse.ArgumentParser(description="Train the network of the dense map (minutes; resumes).")
    parser.add_argument("out")
    parser.add_argument("--cells", help="folder of simulated cells, kept and found again")
    for name in ("structures", "windows", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(DenseRecipe, name))
    given = parser.parse_args()
    recipe = DenseRecipe(structures=given.structures, windows=given.windows, seed=given.seed)
    card = train_dense_network(given.out, recipe, given.cells)
    print(" · ".join(f"{name} {value:.2f}" for name, value in card["test"].items()))


if __name__ == "__main__":
    main()
