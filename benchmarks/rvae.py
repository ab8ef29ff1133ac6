"""The rVAE against AtomAI's, side by side in one process: time to the same held-out bound, and time an epoch.

Sub-images of 36 × 36 pixels of two known environments at any rotation (`darkfield.rotated_twin`). AtomAI trains its
own model its own way (Adam at 1e-4, batches of 32; `--peer-rate` gives it another rate). Ours trains with the same loss
(σ = 1, the same priors) until its held-out bound is AtomAI's; both bounds are computed alike, from all pixels of images
that neither has seen, with the same noise. Evaluation is not timed. Prints a table, and one JSON line last:

* `speedup`: AtomAI's time over ours to AtomAI's own last held-out bound
* `speedup_epoch`: the same for one epoch over the same images
* `speedup_cpu`, `speedup_epoch_cpu`: the same in processor seconds, which other work on the machine disturbs less
* `atomai_s`, `ours_s`, `atomai_epoch_s`, `ours_epoch_s`, `*_cpu_s`, `atomai_elbo`, `ours_elbo` [nats per image]
* `epoch_peak_MB`: largest resident memory while `--images` sub-images of bytes on the disk go through one epoch
* `pyroved_epoch_s`: on a GPU only, one epoch of pyroVED's
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from surrogate import PeakMemory
from unitcell.environments.autoencoder import ElboTraining, checked_patches, train
from unitcell.environments.rvae import RotationalVAE
from unitcell.peers import import_atomai
from unitcell.twins.darkfield import rotated_twin

SIDE, TRAINED, HELD_OUT = 36, 1000, 200
ATOMAI_EPOCHS = 15
PRIORS = {"rotation_prior": 0.1, "translation_prior": 0.1}


def main():
    """Compare, then measure the memory of a large stack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=ATOMAI_EPOCHS)
    parser.add_argument("--peer-rate", type=float, default=1e-4, help="AtomAI's learning rate; 1e-4 is its own")
    parser.add_argument("--images", type=int, default=0, help="also one epoch over so many sub-images on the disk")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    patches, _, _ = rotated_twin(TRAINED + HELD_OUT, SIDE, 0.3125 * 24 / SIDE, seed=1)
    images = checked_patches(patches)
    found = against_atomai(images[:TRAINED], images[TRAINED:], given.epochs, given.peer_rate, given.device)
    if given.device != "cpu":
        found["pyroved_epoch_s"] = pyroved_epoch(images[:TRAINED], given.device)
    if given.images:
        found["epoch_peak_MB"] = large_stack(patches, given.images, given.device)
    print(json.dumps({key: float(f"{value:.4g}") for key, value in found.items()}))


def against_atomai(seen, unseen, epochs, rate, device):
    """Both to AtomAI's bound."""
    peer = import_atomai().models.rVAE((SIDE, SIDE), latent_dim=2, seed=0)
    started, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:  # it writes its model there after every epoch
        settings = {"training_cycles": epochs, "batch_size": 32, "filename": f"{folder}/model"} | PRIORS
        peer.fit(seen.numpy(), optimizer=lambda weights: torch.optim.Adam(weights, lr=rate), **settings)
    atomai_s, atomai_cpu = time.perf_counter() - started, time.process_time() - spent
    target = held_out(lambda noise: peer_bound(peer, unseen, noise))
    torch.manual_seed(0)
    model = RotationalVAE(SIDE, noise_sd=1.0, **PRIORS).to(device)
    training = ElboTraining(
        model, seen, None, epochs=epochs, batch=50, learning_rate=3e-3, pixels=192, seed=0, dtype=torch.bfloat16
    )
    reached, rows, ours_cpu = -np.inf, [], 0.0
    while reached < target and training.step < training.steps:
        spent = time.process_time()
        training.advance()
        ours_cpu += time.process_time() - spent
        if training.step % 10 == 0:
            reached = held_out(lambda noise: -sum(own_bound(model, unseen.to(device), noise.to(device))))
            rows.append((training.seconds, reached))
    print(f"held-out bound, AtomAI {target:.2f} after {epochs} epochs; ours by second:")
    print("  ".join(f"{seconds:.1f} s {bound:.2f}" for seconds, bound in rows))
    ours_epoch = training.seconds / training.step * training.steps_an_epoch
    if reached < target:
        raise SystemExit(f"Ours reached only {reached:.2f} in {training.steps} steps, AtomAI {target:.2f}.")
    return {
        "speedup_cpu": atomai_cpu / ours_cpu, "atomai_cpu_s": atomai_cpu, "ours_cpu_s": ours_cpu,
        "speedup_epoch_cpu": atomai_cpu / epochs / (ours_cpu / training.step * training.steps_an_epoch),
        "speedup": atomai_s / training.seconds, "speedup_epoch": atomai_s / epochs / ours_epoch,
        "atomai_s": atomai_s, "ours_s": training.seconds, "atomai_epoch_s": atomai_s / epochs,
        "ours_epoch_s": ours_epoch, "atomai_elbo": target, "ours_elbo": reached,
    }  # fmt: skip


@torch.no_grad()
def held_out(bound):
    """A bound over a few draws of the noise."""
    generator = torch.Generator().manual_seed(1)
    return float(np.mean([float(bound(torch.randn(HELD_OUT, 5, generator=generator))) for _ in range(2)]))


def own_bound(model, images, noise):
    """Our terms of the bound, without those that only teach."""
    model.eval()
    terms = model.terms(images, None, noise)
    return [value for name, value in terms.items() if name == "reconstruction" or name.startswith("kl")]


def peer_bound(peer, images, noise):
    """AtomAI's own bound, with our noise."""
    peer.reparameterize = lambda mean, sd: mean + sd * noise.to(mean.device)
    peer.encoder_net.eval()
    peer.decoder_net.eval()
    return peer.forward_compute_elbo(images.to(peer.device), mode="eval")


def pyroved_epoch(images, device):
    """Seconds of the second epoch of pyroVED's rVAE."""
    import pyroved as pv

    model = pv.models.iVAE((SIDE, SIDE), latent_dim=2, invariances=["r", "t"], device=device)
    loader = pv.utils.init_dataloader(images, batch_size=100)
    trainer = pv.trainers.SVItrainer(model)
    trainer.step(loader)
    started = time.perf_counter()
    trainer.step(loader)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def large_stack(patches, count, device):
    """Peak memory [MB] of one epoch over `count` sub-images of bytes that lie on the disk."""
    grey = np.round(255 * patches).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patches.u8"
        with open(path, "wb") as stream:
            for _ in range(-(-count // len(grey))):
                stream.write(grey.tobytes())
        stack = np.memmap(path, np.uint8, "r")[: count * SIDE * SIDE].reshape(count, SIDE, SIDE)
        with PeakMemory() as peak:
            model = RotationalVAE(SIDE)
            train(model, checked_patches(stack), epochs=1, batch=100, pixels=192, dtype=torch.bfloat16, device=device)
            model.posterior(checked_patches(stack))
    return peak.megabytes


if __name__ == "__main__":
    main()
