"""Libraries of images: symmetry instead of work, phonons, a Dask cluster, and runs that go on where they stopped."""

import sys

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner
from unitcell import campaign, cli
from unitcell.abf import simulation
from unitcell.abf.simulation import CELL_SHAPE, simulate_stack, tilt_grid
from unitcell.artefacts import load_dataset
from unitcell.campaign import run_structures
from unitcell.commands import training
from unitcell.crystals import tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import Microscope, annular_images

FEW = np.array([[5.0, 5.0, 0.0], [5.0, -5.0, 10.0], [-5.0, 5.0, -10.0]])
QUICK = {"k_points": (2, 1), "cutoff_mrad": 40, "progress": False}


def stack_of(tilts, microscope=None, **options):
    return simulate_stack(np.asarray(tilts, dtype=float), [20.0, 60.0], microscope or Microscope(), **QUICK | options)


def squares(number, settings):
    """A task for `run_structures`."""
    return np.full((2, 2), float(number) ** settings["power"])


def test_grid_of_tilts():
    grid = tilt_grid(5.0)
    assert grid.shape == (125, 3)
    assert len(np.unique(grid, axis=0)) == 125
    assert (grid.min(), grid.max()) == (-10, 10)
    with pytest.raises(InputError, match="tilt_step_deg = 3 does not divide 10°"):
        tilt_grid(3.0)


@pytest.mark.parametrize("scope", [Microscope(), Microscope(defocus_A=60), Microscope(crystal_tilt_x_mrad=4)])
def test_mirrors_stand_for_simulations(scope):
    tilts = tilt_grid(10.0)
    stack = stack_of(tilts, scope)
    crystals = [tilted_perovskite(*tilt) for tilt in tilts]
    options = {"cutoff_mrad": 40, "k_points": (2, 1), "excitation_per_A": 0.0}
    for member in range(0, 27, 2):
        truth = annular_images(crystals[member], scope, [20.0, 60.0], CELL_SHAPE, **options).numpy()
        assert stack.abf.values[member] == pytest.approx(truth, abs=3e-4), tilts[member]


def test_only_distinct_structures_are_computed(monkeypatch):
    seen = []

    def images(projection, *_):
        seen.append(projection)
        return np.zeros((1, 2, *CELL_SHAPE), dtype=np.float32)

    monkeypatch.setattr(simulation, "_structure_images", images)
    assert stack_of(tilt_grid(5.0)).sizes["tilt"] == 125
    assert len(seen) == 27
    seen.clear()
    stack_of(tilt_grid(5.0), Microscope(crystal_tilt_x_mrad=3.0))
    assert len(seen) == 125


def test_phonon_stack_states_its_error_and_settings():
    stack = stack_of(FEW[:1], configurations=2, seed=5, k_points=(1, 1))
    assert stack.abf_error.shape == stack.abf.shape == (1, 2, *CELL_SHAPE)
    assert 0 < float(stack.abf_error.mean()) < 0.05 * float(stack.abf.mean())
    assert (stack.attrs["configurations"], stack.attrs["seed"]) == (2, 5)
    assert Microscope.from_attributes(stack.attrs) == Microscope()


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    real, calls = simulation._structure_images, []

    def counted(*task):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(task)
        return real(*task)

    counted.__module__, counted.__name__ = real.__module__, real.__name__
    monkeypatch.setattr(simulation, "_structure_images", counted)
    tilts = [[0, 0, 0], [0, 0, 5], [0, 0, 10]]
    with pytest.raises(KeyboardInterrupt):
        stack_of(tilts, folder=tmp_path)
    assert len(list(tmp_path.glob("*.nc"))) == 2
    calls.clear()
    resumed = stack_of(tilts, folder=tmp_path)
    assert len(calls) == 1
    monkeypatch.undo()
    assert resumed.equals(stack_of(tilts))
    assert not list(tmp_path.glob("*.tmp*"))


def test_other_settings_are_another_task(tmp_path):
    first = run_structures(squares, [(2, {"power": 2})], folder=tmp_path, progress=False)
    other = run_structures(squares, [(2, {"power": 3})], folder=tmp_path, progress=False)
    assert (first[0][0, 0], other[0][0, 0]) == (4, 8)


def test_a_cluster_gives_what_one_process_gives(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        shared = stack_of(FEW, scheduler=cluster.scheduler_address, folder=tmp_path)
    alone = stack_of(FEW)
    assert shared.abf.values == pytest.approx(alone.abf.values, abs=5e-6)
    assert len(list(tmp_path.glob("*.nc"))) == 2  # the last two tilts are one structure


def test_no_scheduler_is_said(monkeypatch):
    monkeypatch.setattr(campaign, "CONNECT_S", 1)
    with pytest.raises(InputError, match=r"No Dask scheduler answers at 'tcp://127\.0\.0\.1:9' .*dask scheduler"):
        run_structures(squares, [(1, {"power": 1})], "tcp://127.0.0.1:9", progress=False)


def test_patterns_that_alternate_along_the_beam_are_refused():
    with pytest.raises(InputError, match="alternates along the beam"):
        stack_of(FEW, signs="+--")


def test_command_line_writes_a_packed_library(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "project_root", lambda: tmp_path)
    monkeypatch.setattr(simulation, "simulate_stack", lambda tilts, depths, *_, **__: stack_of(tilts[:2]))
    done = CliRunner().invoke(cli.application(), ["simulate", str(tmp_path / "stack.nc"), "--step", "10"])
    assert done.exit_code == 0, done.output
    kept, exact = load_dataset(tmp_path / "stack.nc"), stack_of(tilt_grid(10.0)[:2])
    assert kept.abf.values == pytest.approx(exact.abf.values, abs=training.LIBRARY_STEP)
    with xr.open_dataset(tmp_path / "stack.nc", mask_and_scale=False) as packed:
        assert packed.abf.dtype == np.uint16


def test_command_line_refuses_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unitcell", "simulate", str(tmp_path / "stack.nc"), "--step", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "does not divide 10°" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
