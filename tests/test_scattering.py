"""The scattering matrix against analytic limits, abTEM and the crystal's own symmetry."""

import numpy as np
import pytest
import torch
from ase import Atoms
from unitcell.crosscheck import abtem_image
from unitcell.crystals import tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import Microscope, annular_images, brillouin_zone, projected_potential
from unitcell.simulation import CELL_SHAPE, simulate_stack, tilt_grid

MICROSCOPE = Microscope()


@pytest.fixture(scope="module")
def tilted():
    return tilted_perovskite(6, 2, 4)


def images(crystal, thicknesses, **options):
    return annular_images(
        crystal, MICROSCOPE, thicknesses, (20, 14), **({"cutoff_mrad": 60, "k_points": (2, 1)} | options)
    )


def test_vacuum_shows_the_share_of_the_disc(tilted):
    vacuum = annular_images(
        Atoms(cell=tilted.cell, pbc=True), MICROSCOPE, [50.0], (4, 4), cutoff_mrad=31, k_points=(8, 6)
    )
    assert vacuum.numpy() == pytest.approx(0.75, abs=0.005)


def test_a_detector_of_every_angle_counts_every_electron(tilted):
    everything = Microscope(inner_mrad=0, outer_mrad=60)
    whole = annular_images(tilted, everything, [20.0, 420.0], (8, 6), cutoff_mrad=60, k_points=(1, 1))
    assert whole.numpy() == pytest.approx(1.0, abs=1e-10)


def test_zero_thickness_is_vacuum(tilted):
    image = images(tilted, [0.0])
    assert np.ptp(image.numpy()) < 1e-10


def test_weak_phase_limit(tilted):
    # To second order in σVt the bright-field-plus-annular sum is conserved, and the change is quadratic in t.
    thin = images(tilted, [0.0, 0.01, 0.02])
    change = (thin[1:] - thin[0]).abs().amax(dim=(1, 2))
    assert float(change[1] / change[0]) == pytest.approx(4.0, rel=0.05)


def test_equals_abtem_multislice_of_a_thin_crystal(tilted):
    ours = annular_images(
        tilted, MICROSCOPE, [4 * tilted.cell[2, 2]], (6, 4), cutoff_mrad=104, k_points=(1, 1), thermal=False
    )
    peer = abtem_image(tilted, MICROSCOPE, 4, (6, 4))
    assert np.sqrt(np.mean((ours[0].numpy() - peer) ** 2)) / peer.mean() < 0.01


def test_mirror_leaves_the_image_and_one_flipped_sign_does_not(tilted):
    image = images(tilted, [110.0])
    assert (images(tilted_perovskite(-2, -6, -4), [110.0]) - image).abs().max() < 1e-9
    assert (images(tilted_perovskite(6, 2, -4), [110.0]) - image).abs().max() > 1e-2


def test_complex_and_real_potentials_agree(tilted):
    # Moving the origin off the inversion centre makes the potential complex and must only move the image.
    moved = tilted.copy()
    moved.positions += [tilted.cell[0, 0] / 14, 0, 0]
    assert projected_potential(moved, MICROSCOPE, 60).is_complex()
    assert not projected_potential(tilted, MICROSCOPE, 60).is_complex()
    assert (torch.roll(images(tilted, [80.0]), 1, 2) - images(moved, [80.0])).abs().max() < 1e-9


def test_single_precision_is_enough(tilted):
    difference = images(tilted, [420.0]) - images(tilted, [420.0], dtype=torch.float32)
    assert difference.abs().max() < 1e-3


def test_brillouin_zone_counts_every_point_once():
    assert sum(weight for _, weight in brillouin_zone((3, 2), (5.5, 7.8), inversion=True)) == 6


def test_library_equals_direct_simulation_for_every_sign():
    tilts = np.array(
        [[6.0, 2.0, 4.0], [-6, -2, 4], [2, 6, 4], [6, 2, -4], [-2, -6, 4], [-6, 2, 1], [0, 0, -5], [3, -3, 0]]
    )
    options = {"cutoff_mrad": 40, "k_points": (2, 1)}
    stack = simulate_stack(tilts, [60.0], MICROSCOPE, progress=False, **options)
    for tilt, image in zip(tilts, stack["abf"].values[:, 0], strict=True):
        direct = annular_images(tilted_perovskite(*tilt), MICROSCOPE, [60.0], CELL_SHAPE, **options)[0].numpy()
        assert image == pytest.approx(direct, abs=1e-6)


def test_tilt_grid_is_the_papers():
    grid = tilt_grid(5.0)
    assert len(grid) == 125
    assert np.unique(grid).tolist() == [-10, -5, 0, 5, 10]


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda c: images(c, [-5.0]), "negative"),
        (lambda c: images(c, [50.0], cutoff_mrad=20), "cut-off"),
        (lambda c: Microscope(inner_mrad=30, outer_mrad=15), "collects nothing"),
        (lambda c: Microscope(energy_eV=200), "energy_eV"),
        (lambda c: tilt_grid(3.0), "tilt_step_deg"),
        (lambda c: simulate_stack([[0, 0, 0]], [10.0], MICROSCOPE, signs="+--"), "along the beam"),
    ],
)
def test_impossible_settings_are_refused(tilted, call, names):
    with pytest.raises(InputError, match=names):
        call(tilted)
