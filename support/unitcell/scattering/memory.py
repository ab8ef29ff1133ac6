"""How many waves fit into memory at once, decided before anything is computed."""

from dataclasses import dataclass

import psutil
import torch

from unitcell.errors import InputError

USABLE_SHARE = 0.8
CACHE_BYTES = 2**21  # half of it are the waves, which then stay in a second-level cache
GIGABYTE = 1e9


@dataclass(frozen=True)
class Budget:
    """Bytes that a multislice run needs.

    Parameters
    ----------
    per_wave : int
        For each wave in flight.
    fixed : int
        For one configuration whatever the batch: transmission functions, propagators, scattering matrix.
    results : int
        For the images of all configurations.
    """

    per_wave: int
    fixed: int
    results: int

    def needed(self, waves, configurations=1):
        """Bytes for so many waves of so many configurations at once."""
        return self.results + configurations * (self.fixed + waves * self.per_wave)


@dataclass(frozen=True)
class Batches:
    """Waves in a batch, batches side by side, and configurations at once."""

    waves: int
    workers: int
    configurations: int


def free_bytes(device):
    """Memory that is free on the device [bytes]."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    return psutil.virtual_memory().available


def usable_bytes(device, limit_GB):
    """Memory that may be used [bytes]: the given limit, or four fifths of what is free."""
    return limit_GB * GIGABYTE if limit_GB is not None else USABLE_SHARE * free_bytes(device)


def plan_batches(budget, waves, configurations, device, usable):
    """Choose batches that fit.

    On a CPU a batch fills one core's cache and every thread of PyTorch works on a batch of its own; on a
    GPU one batch takes what memory allows, of several configurations where one has too few waves.

    Parameters
    ----------
    budget : Budget
    waves, configurations : int
        How many there are to compute.
    device : torch device
    usable : float
        Bytes that may be used.

    Returns
    -------
    Batches

    Raises
    ------
    InputError
        Not even one wave fits.
    """
    if budget.needed(1) > usable:
        raise InputError(
            f"Multislice needs {budget.needed(1) / GIGABYTE:.3g} GB for a single wave and {usable / GIGABYTE:.3g} GB "
            "may be used: give a coarser sampling_A, a smaller cell, fewer thicknesses or positions, or a larger "
            "memory_limit_GB."
        )
    fitting = int((usable - budget.needed(0)) // budget.per_wave)
    if torch.device(device).type == "cpu":
        workers = max(1, min(torch.get_num_threads(), waves, fitting))
        most = min(max(1, CACHE_BYTES // budget.per_wave), fitting // workers)
        turns = -(-waves // (most * workers))  # so that the workers finish together
        return Batches(-(-waves // (turns * workers)), workers, 1)
    together = int((usable - budget.results) // (budget.fixed + waves * budget.per_wave))
    return Batches(min(waves, fitting), 1, max(1, min(configurations, together)))
