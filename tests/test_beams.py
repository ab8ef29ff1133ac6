"""Which beams and k-points a simulation takes, how it chooses them, and what it refuses."""

import numpy as np
import pytest
import torch
from ase import Atoms
from unitcell.crystals import tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import (
    Microscope,
    annular_images,
    brillouin_zone,
    choose_sampling,
    fibonacci_points,
    supercell_points,
)

MICROSCOPE = Microscope()


@pytest.fixture(scope="module")
def tilted():
    return tilted_perovskite(6, 2, 4)


def images(crystal, thicknesses, microscope=MICROSCOPE, **options):
    return annular_images(
        crystal, microscope, thicknesses, (10, 7), **({"cutoff_mrad": 40, "k_points": (1, 1)} | options)
    )


def rms(image, truth):
    return float((image - truth).square().mean().sqrt() / truth.mean())


def test_k_points_of_a_supercell_equal_the_supercell(tilted):
    options = {"cutoff_mrad": 40, "dtype": torch.float64}
    whole = annular_images(tilted * (2, 1, 1), MICROSCOPE, [60.0], (10, 14), k_points=(1, 1), **options)
    cell = images(tilted, [60.0], k_points=supercell_points((2, 1)), **options)
    assert whole[..., :7].numpy() == pytest.approx(cell.numpy(), abs=1e-9)
    assert whole[..., 7:].numpy() == pytest.approx(cell.numpy(), abs=1e-9)


def test_every_k_point_counts_once():
    lengths = (5.5, 7.8)
    pair, alone = [[0.1, 0.2], [-0.1, -0.2]], [[0.1, 0.2], [-0.3, 0.1]]
    for k_points in ((3, 2), (1, 1), (4, 3), supercell_points((4, 2)), fibonacci_points(8), pair, alone):
        total = sum(weight for _, weight in brillouin_zone(k_points, lengths, inversion=True))
        assert total == len(brillouin_zone(k_points, lengths))
    assert [w for _, w in brillouin_zone(pair, lengths, inversion=True)] == [2]
    assert [w for _, w in brillouin_zone(alone, lengths, inversion=True)] == [1, 1]
    assert len(brillouin_zone(supercell_points((4, 2)), lengths, inversion=True)) == 6


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13, 21])
def test_fibonacci_points_are_even(count):
    # A lattice of n points integrates every wave exp(2πi m·k) shorter than about √n to zero.
    points = fibonacci_points(count)
    assert np.abs(points).max() <= 0.5
    waves = [m for m in np.ndindex(9, 9) if 0 < np.hypot(*(np.array(m) - 4)) < 0.8 * np.sqrt(count)]
    sums = [np.exp(2j * np.pi * points @ (np.array(m) - 4)).mean() for m in waves]
    assert np.abs(sums).max(initial=0) < 1e-12


def test_chosen_sampling_keeps_its_tolerance():
    odd = Atoms("SrO2", [[0.4, 0.7, 1.0], [2.6, 1.9, 1.0], [1.1, 3.2, 1.0]], cell=[4.6, 4.4, 2.0], pbc=True)
    chosen = choose_sampling(odd, MICROSCOPE, [20.0, 60.0], tolerance=0.03)
    ours = images(odd, [20.0, 60.0], **chosen.keywords())
    finer = images(odd, [20.0, 60.0], cutoff_mrad=80, excitation_per_A=0.025, k_points=(6, 6))
    assert chosen.error < 0.03
    assert max(rms(a, b) for a, b in zip(ours, finer, strict=True)) < 0.03
    assert rms(images(odd, [60.0], cutoff_mrad=40), finer[1:]) > 0.03


def crowded(crystal):
    crystal = crystal.copy()
    crystal.positions[1] = crystal.positions[0] + 0.1
    return crystal


def lost(crystal):
    crystal = crystal.copy()
    crystal.positions[2, 1] = np.nan
    return crystal


def skewed(crystal):
    crystal = crystal.copy()
    crystal.set_cell([[5.5, 0, 0], [1.0, 7.8, 0], [0, 0, 5.5]])
    return crystal


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda c: images(crowded(c), [5.0]), r"closer than 0\.5 Å: remove"),
        (lambda c: images(lost(c), [5.0]), r"Atom 2 .* no finite position: remove"),
        (lambda c: images(skewed(c), [5.0]), "not orthogonal"),
        (lambda c: images(skewed(c), [5.0], positions=torch.tensor(c.positions)), "not orthogonal"),
        (lambda c: images(c, [5.0], positions=torch.tensor(lost(c).positions)), "no finite position"),
        (lambda c: images(c, [5.0], positions=torch.zeros(3, 3)), r"shape \(3, 3\) do not fit 20 atoms: give"),
        (lambda c: images([c, c * (1, 1, 2)], [5.0]), "same cell and elements: run them one by one"),
        (lambda c: images(c, [-5.0]), r"-5\.0.* none negative"),
        (lambda c: images(c, [np.nan]), "nan.* cannot be"),
        (lambda c: images(c, []), "one or more"),
        (lambda c: images(c, [5.0], cutoff_mrad=20), "leaves out beams at 30 mrad: raise cutoff_mrad"),
        (lambda c: images(c, [5.0], Microscope(outer_mrad=50)), "leaves out beams at 50 mrad"),
        (lambda c: images(c, [5.0], Microscope(beam_tilt_x_mrad=15)), "leaves out beams at 45 mrad"),
        (lambda c: images(c, [5.0], Microscope(crystal_tilt_x_mrad=25)), "leaves out beams at 50 mrad"),
        (lambda c: images(c, [5.0], detectors_mrad=[(20.0, 10.0)]), "collects nothing"),
        (lambda c: images(c, [5.0], Microscope(semiangle_mrad=10)), r"5\.52 Å along x, 2\.2 beams .* raise k_points"),
        (lambda c: images(c, [5.0], Microscope(semiangle_mrad=10), k_points=np.zeros((2, 2))), "repeat the cell"),
        (lambda c: images(c, [5.0], debye_waller_A2={"O": -1.0}), "Debye–Waller factor of -1.0 Å² for O"),
        (lambda c: fibonacci_points(4), "4 is not a number of lattice k-points: give one of"),
        (lambda c: choose_sampling(c, MICROSCOPE, [5.0], tolerance=0), "tolerance = 0 cannot be met"),
        (lambda c: choose_sampling(c, Microscope(outer_mrad=200), [5.0]), "No cutoff_mrad"),
        (lambda c: Microscope(inner_mrad=30, outer_mrad=15), "collects nothing"),
        (lambda c: Microscope(energy_eV=200), "energy_eV"),
        (lambda c: Microscope(defocus_A=np.nan), "defocus_A"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(tilted, call, names):
    with pytest.raises(InputError, match=names) as refused:
        call(tilted)
    assert "\n" not in str(refused.value)


def test_absorption_refuses_gradients(tilted):
    with pytest.raises(InputError, match="set absorption=0"):
        images(tilted, [5.0], absorption=True, positions=torch.tensor(tilted.positions, requires_grad=True))
