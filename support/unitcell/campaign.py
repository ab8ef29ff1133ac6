"""Many independent simulations: here or on a Dask cluster, with progress, resuming from what is finished."""

import hashlib
import json
from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from unitcell.artefacts import load_dataset, save_dataset
from unitcell.errors import InputError

CONNECT_S = 10  # how long a scheduler may take to answer


def run_structures(function, tasks, scheduler=None, folder=None, progress=True):
    """Results of `function(*task)` for every task, in order.

    Parameters
    ----------
    function : callable
        Returns one ndarray; importable by the workers of a cluster.
    tasks : list of tuple
        Plain numbers, strings, lists and dictionaries: they name the file of a finished task.
    scheduler : str, optional
        Address of a Dask scheduler, for instance tcp://10.0.0.1:8786; None computes here, one after the other.
    folder : path, optional
        Where every finished task is kept as netCDF under the digest of its settings.
    progress : bool

    Returns
    -------
    list of ndarray

    Raises
    ------
    InputError
        No scheduler answers at that address.
    """
    files = [Path(folder) / f"{_digest(function, task)}.nc" if folder else None for task in tasks]
    results = {i: load_dataset(file)["result"].values for i, file in enumerate(files) if file and file.is_file()}
    missing = [i for i in range(len(tasks)) if i not in results]
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    computed = _computed(function, tasks, missing, scheduler)
    for index, result in tqdm(
        computed, total=len(tasks), initial=len(results), desc="structures", disable=not progress
    ):
        results[index] = result
        if files[index]:
            axes = [f"axis_{n}" for n in range(result.ndim)]
            save_dataset(xr.Dataset({"result": (axes, result, {"units": "1"})}), files[index])
    return [results[index] for index in range(len(tasks))]


def _computed(function, tasks, missing, scheduler):
    """Pairs of index and result, as they are finished."""
    if scheduler is None:
        for index in missing:
            yield index, function(*tasks[index])
        return
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at '{scheduler}' ({error}): start one with 'dask scheduler'."
        ) from error
    with client:
        futures = {client.submit(function, *tasks[index], pure=False): index for index in missing}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _digest(function, task):
    """Name of a task's file: what it computes and with which settings."""
    written = json.dumps([function.__module__, function.__name__, *task], sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()[:24]
