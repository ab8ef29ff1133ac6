"""Semantic segmentation of atom columns with AtomAI's U-Net (Kalinin 2020, section 3).

Run as `python -m unitcell.atoms.segmenter` to train the committed weights on simulated images alone.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from unitcell.artefacts import load_weights, save_weights
from unitcell.data import fetch
from unitcell.peers import import_atomai
from unitcell.twins.darkfield import scaled, training_example

# The network sees every image at this pixel size [Å]; it was trained for columns 6.5 to 26 such pixels apart.
WORKING_PIXEL_A = 0.2
ARCHITECTURE = "atomai-unet filters=8"
FILTERS = 8
POOLING = 8  # the U-Net halves the image three times


def build_segmenter():
    """An untrained AtomAI Segmentor: one class, column against background."""
    return import_atomai().models.Segmentor("Unet", nb_classes=1, nb_filters=FILTERS)


def train_segmenter(examples=4000, steps=2400, batch=16, seed=0):
    """Train on simulated dark-field images of random crystals.

    Parameters
    ----------
    examples : int
        Simulated images of 96 × 96 px; a tenth as many more are kept for testing.
    steps : int
        Mini-batches of `batch` images.

    Returns
    -------
    model : atomai Segmentor
    losses : dict
        Cross-entropy per step: `train_loss`, `test_loss`.
    """
    rng = np.random.default_rng(seed)
    images, masks = (
        np.stack(part)[:, None]
        for part in zip(*(training_example(rng) for _ in range(examples * 11 // 10)), strict=True)
    )
    model = build_segmenter()
    rates = [2e-3] * (steps // 2) + [1e-3] * (steps // 4) + [2e-4] * (steps // 4)
    with tempfile.TemporaryDirectory() as folder:  # AtomAI writes its own files, beside ours: not wanted
        model.fit(
            images[:examples], masks[:examples], images[examples:], masks[examples:], loss="ce", training_cycles=steps,
            batch_size=batch, lr_scheduler=rates, print_loss=100, plot_training_history=False,
            filename=str(Path(folder) / "segmenter"), seed=seed,
        )  # fmt: skip
    return model, model.loss_acc


def load_segmenter(path=None):
    """AtomAI's SegPredictor around its U-Net, with weights from `path` (None: the committed ones)."""
    atomai = import_atomai()
    tensors, _ = load_weights(path or fetch("atom_segmenter"), ARCHITECTURE)
    net, _ = atomai.nets.init_fcnn_model("Unet", 1, nb_filters=FILTERS)
    net.load_state_dict(tensors)
    return atomai.predictors.SegPredictor(net, nb_classes=1, downsampling=POOLING, verbose=False)


def segment(image, predictor, working_pixel_A=WORKING_PIXEL_A):
    """Probability that each pixel belongs to a column.

    Parameters
    ----------
    image : StemImage
    predictor : atomai SegPredictor
        From `load_segmenter`.

    Returns
    -------
    probability : ndarray of float32
        At the working pixel size.
    zoom : tuple of float
        Working pixels per image pixel along (y, x): a working coordinate w is the image
        coordinate (w + 0.5) / zoom - 0.5.
    """
    factor = image.pixel_size_A / working_pixel_A
    smooth = ndimage.gaussian_filter(image.intensity, max(0.0, 0.4 * (1 / factor - 1)))  # against aliasing
    small = ndimage.zoom(smooth, factor, order=1, mode="reflect", grid_mode=True)
    zoom = tuple(s / n for s, n in zip(small.shape, image.intensity.shape, strict=True))
    padding = [(POOLING, POOLING + -n % POOLING) for n in small.shape]
    framed = np.pad(scaled(small), padding, mode="reflect")
    framed = predictor.run(framed, compute_coords=False, num_batches=1)[0, :, :, 0]
    inside = framed[POOLING : POOLING + small.shape[0], POOLING : POOLING + small.shape[1]]
    return np.ascontiguousarray(inside), zoom


def main():
    """Train the committed weights: `python -m unitcell.atoms.segmenter`."""
    parser = argparse.ArgumentParser(description="Train the atom segmenter on simulated images.")
    parser.add_argument("--out", default=str(Path(__file__).parents[1] / "weights" / "atom_segmenter.safetensors"))
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    model, losses = train_segmenter(given.examples, given.steps, seed=given.seed)
    card = {
        "training": "simulated images of random crystals (unitcell.twins.darkfield.training_example); no real image",
        "command": f"python -m unitcell.atoms.segmenter --examples {given.examples} --steps {given.steps}",
        "seed": given.seed,
        "working_pixel_A": WORKING_PIXEL_A,
        "input": "scaled to [0, 1] between the 0.2 and 99.8 percentiles",
        "test_cross_entropy": round(float(np.mean(losses["test_loss"][-50:])), 4),
        "peer": "AtomAI 0.8.1 Segmentor, Unet, 8 filters",
    }
    save_weights(model.net.state_dict(), given.out, ARCHITECTURE, card)


if __name__ == "__main__":
    main()
