"""What each choice is worth: networks that differ from the compact one in one thing, trained alike, tested alike.

Each is trained on 100 000 windows and read on abTEM's frozen phonons of SrTiO3 (199 Å, 3e4 e/Å²) twice: "sharp", with
noise only, and "distorted", with every distortion that the compact network is trained for. Errors are rms degrees on
the branch nearer to the truth. Ten minutes of two cores; finished rows are kept, so a stopped run goes on. Prints the
table and writes it as CSV, one JSON line last: the compact network's errors.
"""

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from unitcell.abf.simulation import simulate_stack, tilt_grid
from unitcell.artefacts import load_dataset, save_json, save_table
from unitcell.data import fetch
from unitcell.networks.paper_network import PaperNetwork
from unitcell.networks.tilt_network import SCALE_DEG, TiltEnsemble, TiltNetwork, errors, estimates
from unitcell.networks.tilt_training import member_training, targets
from unitcell.networks.training_library import Specimens, simulate_cells
from unitcell.networks.training_loop import train
from unitcell.networks.training_windows import WINDOW_SHAPE
from unitcell.networks.truth_windows import NAMES, SHARP, true_images
from unitcell.networks.your_microscope import CONDITIONS
from unitcell.project import project_root
from unitcell.scattering import Microscope
from unitcell.surrogates.surrogate import Surrogate

BUILD = project_root() / "build" / "ablations"
STRUCTURES = {"specimens": 4000, "perfect": 480}
PERFECT = Specimens(
    materials=(("Sr", "Ti", 3.905),), alternating=0.0, equal=0.0, tilt_deg=11.25, crystal_tilt_mrad=0.0, defocus_A=0.0,
    astigmatism_A=0.0, coma_A=0.0, spherical_A=0.0,
)  # fmt: skip


class WithVariance(nn.Module):
    """Any network with twelve outputs, as `TiltEnsemble` takes it."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, windows):
        """(B, rows, columns) → features, mean (B, 6), log-variance (B, 6)."""
        outputs = self.body(windows)
        mean, log_variance = outputs.chunk(2, dim=1)
        return outputs, mean, log_variance.clamp(-12, 6)


class ConnectedNetwork(nn.Sequential):
    """The compact network with any weights instead of those that see equal views alike, of similar size."""

    def __init__(self, width=384, inner=256, blocks=3, hidden=128):
        super().__init__(
            nn.Flatten(), nn.Linear(math.prod(WINDOW_SHAPE), width), *[_Shortcut(width, inner) for _ in range(blocks)],
            nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 12),
        )  # fmt: skip


class _Shortcut(nn.Module):
    """x + what two layers make of it, the first normalised."""

    def __init__(self, width, inner):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width)
        )

    def forward(self, x):
        return x + self.body(x)


class ResidualNetwork(nn.Module):
    """A ResNet of the compact network's size: five blocks of two convolutions with a shortcut each."""

    def __init__(self, widths=(16, 32, 64, 128, 192), hidden=128):
        super().__init__()
        stages, previous = [], 1
        for number, width in enumerate(widths):
            stages.append(_Block(previous, width, stride=2 if number else 1))
            previous = width
        self.stages = nn.Sequential(*stages)
        shape = [math.ceil(n / 2 ** (len(widths) - 1)) for n in WINDOW_SHAPE]
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(previous * math.prod(shape), hidden), nn.Tanh(), nn.Linear(hidden, 12)
        )

    def forward(self, windows):
        """(B, rows, columns) → (B, 12)."""
        return self.head(self.stages(windows[:, None]))


class _Block(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))), each convolution normalised (He et al. 2016)."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return torch.relu(self.shortcut(x) + self.body(x))


@dataclass(frozen=True)
class Variant:
    """One row of the table: what differs from the compact network."""

    network: str = "compact"
    source: str = "specimens"
    signs: bool = False
    without: tuple = ()


STILL = {
    "Poisson noise": {"dose": (1e9, 1e9)},
    "affine distortions": {"shear": 0.0, "rotation_deg": 0.0},
    "magnification": {"magnification": 0.0},
    "source size": {"source_A": (0.0, 0.0), "ellipticity": 1.0},
    "scan jitter": {"jitter_A": 0.0},
}
VARIANTS = {
    "compact network": Variant(),
    "without equal views (fully connected)": Variant("connected"),
    "paper's network, an eighth of its filters": Variant("paper"),
    "the same with max pooling": Variant("max"),
    "ResNet of similar size": Variant("resnet"),
    "fully connected, regresses signs": Variant("connected", signs=True),
    **{f"without {name}": Variant(without=(name,)) for name in STILL},
    "SrTiO3 without lens errors, simulated": Variant(source="perfect"),
    "SrTiO3 without lens errors, Gaussian process": Variant(source="process"),
}


def build(kind):
    """A network by its kind."""
    networks = {
        "compact": TiltNetwork,
        "connected": lambda: WithVariance(ConnectedNetwork()),
        "paper": lambda: WithVariance(PaperNetwork(8, 128, WINDOW_SHAPE, outputs=12)),
        "max": lambda: WithVariance(PaperNetwork(8, 128, WINDOW_SHAPE, "max", outputs=12)),
        "resnet": lambda: WithVariance(ResidualNetwork()),
    }  # fmt: skip
    return networks[kind]()


def images_of(source):
    """What windows are drawn from: specimens, perfect ones, or the Gaussian process of the book's library."""
    if source == "process":
        return Surrogate.fit(simulate_stack(tilt_grid(5.0), range(20, 421, 20), Microscope(), folder=BUILD / "library"))
    # The specimens are those of `unitcell train build/tilt_network.safetensors`, if that has run.
    folder = BUILD.with_name("tilt_network.training") / "cells"
    specimens = PERFECT if source == "perfect" else Specimens()
    return simulate_cells(STRUCTURES[source], Microscope(), specimens, seed=0, folder=folder, progress=False)


def row(name, windows, seed):
    """Train a variant and read the truth with it: the row as a dictionary."""
    torch.set_num_threads(1)
    variant = VARIANTS[name]
    conditions = replace(CONDITIONS, **{k: v for group in variant.without for k, v in STILL[group].items()})
    torch.manual_seed(seed)
    options = {"windows": windows, "batch": 128, "learning_rate": 2e-3, "bfloat16": True, "seed": seed}
    options |= {"network": build(variant.network), "wanted": signed if variant.signs else targets}
    training = member_training(images_of(variant.source), conditions, **options)
    network, history = train(training, label=name)
    found = {"network": name, "parameters": sum(p.numel() for p in network.parameters())}
    found |= {"windows_per_s": round(history[-1]["windows_per_s"], 1)}
    for test, seen in (("sharp", SHARP), ("distorted", CONDITIONS)):
        found |= {f"{test}_{key}": value for key, value in read(network, variant.signs, seen).items()}
    return found


def signed(projection):
    """v, u, γ and alternation as they are, and u and γ again, in units of the network's outputs."""
    four = nn.functional.pad(projection, (0, 4 - projection.shape[1]))
    return torch.cat([four, four[:, 1:3]], dim=1) / SCALE_DEG


def read(network, signs, conditions):
    """Rms errors of v, u, γ on abTEM's SrTiO3 at 199 Å and 3e4 e/Å²."""
    truth = next(t for t in true_images(load_dataset(fetch("phonon_truth"), ("abf",))) if t.material == "SrTiO3")
    windows, projection = truth.windows(2, 3e4, conditions, torch.Generator().manual_seed(0))
    _, mean, variance = TiltEnsemble([network], {}).raw(windows)
    mean = mean.double().numpy()
    centre = estimates(mean, variance.double().numpy())[0]
    if signs:
        centre |= dict(zip(NAMES, mean.T, strict=False))
    wrong = errors(centre, projection)
    return {name: float(np.sqrt(np.mean(wrong[name] ** 2))) for name in NAMES}


def main():
    """Every row that is not there yet, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=project_root() / "support/unitcell/reference/ablations.csv")
    given = parser.parse_args()
    files = {name: BUILD / f"{given.windows}_{given.seed}_{number}.json" for number, name in enumerate(VARIANTS)}
    BUILD.mkdir(parents=True, exist_ok=True)
    for source in ("specimens", "perfect", "process"):
        images_of(source)
    missing = [name for name, file in files.items() if not file.is_file()]
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        jobs = {name: pool.submit(row, name, given.windows, given.seed) for name in missing}
        for name, job in jobs.items():
            save_json(job.result(), files[name])
    columns = ["network", "parameters", "windows_per_s", *(f"{t}_{n}" for t in ("sharp", "distorted") for n in NAMES)]
    table = pd.DataFrame([json.loads(file.read_text()) for file in files.values()])[columns]
    save_table(table, given.out, decimals=3)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    print(json.dumps(table.iloc[0].drop("network").to_dict()))


if __name__ == "__main__":
    main()
