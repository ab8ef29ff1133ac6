"""Frozen phonons in the beam basis against the static crystal, kinematic scattering and their own statistics."""

import numpy as np
import pytest
import torch
from ase import Atoms
from unitcell.crystals import tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import Microscope, Vibrations, annular_images, frozen_phonon_images
from unitcell.scattering.phonons import PeriodOperators, slices_of
from unitcell.scattering.potential import Atomic, scattering_factor

MICROSCOPE = Microscope()
STILL = dict.fromkeys(("Sr", "Ti", "O"), 0.0)
ONE_K = np.zeros((1, 2))
ROUNDING = 5e-6  # of single precision, whichever processor rounds


@pytest.fixture(scope="module")
def tilted():
    return tilted_perovskite(6, 2, 4)


@pytest.fixture(scope="module")
def odd():
    """A small cell without any symmetry and without upper zones near the cut-off."""
    return Atoms("SrO2", [[0.4, 0.7, 1.0], [2.6, 1.9, 1.0], [1.1, 3.2, 1.0]], cell=[4.6, 4.4, 2.0], pbc=True)


def images(crystal, thicknesses, configurations=1, microscope=MICROSCOPE, k_points=ONE_K, **options):
    vibrations = options.pop("vibrations", None) or Vibrations(
        **{key: options.pop(key) for key in ("library", "seed", "slice_A", "debye_waller_A2") if key in options}
    )
    options = {"cutoff_mrad": 40, "k_points": k_points} | options
    shape = options.pop("shape", (10, 7))
    return frozen_phonon_images(crystal, microscope, thicknesses, shape, configurations, vibrations, **options)


def rms(image, truth):
    return float((image - truth).square().mean().sqrt() / truth.mean())


@pytest.mark.parametrize(
    ("scope", "tolerance"),
    [(MICROSCOPE, 0.008), (Microscope(crystal_tilt_x_mrad=6, crystal_tilt_y_mrad=-3, defocus_A=40), 0.02)],
)
def test_without_vibrations_it_is_the_static_crystal(odd, scope, tolerance):
    still = {"debye_waller_A2": STILL, "library": 1, "slice_A": 1.0}
    ours = images(odd, [20.0, 100.0], microscope=scope, cutoff_mrad=80, **still)[0]
    static = {"cutoff_mrad": 80, "excitation_per_A": 0, "k_points": ONE_K, "thermal": False}
    truth = annular_images(odd, scope, [20.0, 100.0], (10, 7), **static)
    assert rms(ours[0], truth[0]) < 0.75 * tolerance
    assert rms(ours[1], truth[1]) < tolerance


def test_without_vibrations_no_electron_is_lost(tilted):
    still = {"debye_waller_A2": STILL, "library": 1, "dtype": torch.float64}
    everything = images(tilted, [0.0, 55.0, 220.0], detectors_mrad=[(0.0, 40.0)], **still)
    assert everything.numpy() == pytest.approx(np.ones(everything.shape), abs=1e-9)


def test_vibrations_scatter_electrons_beyond_the_cutoff(tilted):
    everything = images(tilted, [0.0, 55.0, 220.0], 2, detectors_mrad=[(0.0, 60.0)], cutoff_mrad=60).mean(dim=(0, 3, 4))
    kept = everything[0].numpy()
    assert kept[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(kept) < -0.005).all()
    assert kept[-1] > 0.85


def test_vacuum_is_the_share_of_the_disc(tilted):
    vacuum = images(tilted, [0.0])
    assert vacuum.numpy() == pytest.approx(
        annular_images(tilted, MICROSCOPE, [0.0], (10, 7), cutoff_mrad=40, k_points=ONE_K).numpy()[None], abs=ROUNDING
    )


def test_diffuse_scattering_of_a_thin_crystal_is_kinematic():
    # Equal atoms half a cell apart extinguish the beams of odd h, until they move: |V_h|² = 2 v² (1 − exp(−B q²/2)).
    atoms = Atoms("H2", [[0.0, 0.0, 0.5], [2.2, 0.0, 0.5]], cell=[4.4, 4.3, 1.0], pbc=True)
    b_A2, generator = 1.0, np.random.default_rng(0)
    vibrations = Vibrations(library=200, debye_waller_A2={"H": b_A2})
    atomic = Atomic.of(atoms, False, None, None, "cpu")
    periods = PeriodOperators(atomic, MICROSCOPE, np.zeros(2), 60.0, vibrations, generator, torch.float64)
    straight = int(np.flatnonzero((periods.beams == 0).all(axis=1))[0])
    extinct = periods.beams[:, 0] % 2 == 1
    q2 = ((periods.beams[extinct] / [4.4, 4.3]) ** 2).sum(axis=1)
    factor = MICROSCOPE.interaction * scattering_factor("H", q2, 0.0) / (4.4 * 4.3)
    truth = (2 * factor**2 * (1 - np.exp(-b_A2 * q2 / 2))).sum()
    power = np.array([(w[:, straight].abs() ** 2).numpy()[extinct].sum() for w in periods.operators])
    pairs = power.reshape(-1, 2).mean(axis=1)  # opposite displacements are no independent samples
    error = pairs.std(ddof=1) / np.sqrt(len(pairs))
    assert error < 0.15 * truth
    assert power.mean() == pytest.approx(truth, abs=3 * error)


def test_a_seed_repeats_and_another_does_not(tilted):
    first, again, other = (images(tilted, [60.0], 2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert rms(other.mean(dim=0), first.mean(dim=0)) > 1e-3


def test_more_configurations_and_deeper_images_change_nothing_before_them(tilted):
    more, few = images(tilted, [60.0, 120.0], 4), images(tilted, [60.0], 2)
    assert more[:2, :1].numpy() == pytest.approx(few.numpy(), abs=ROUNDING)


def test_standard_errors_tell_how_far_seeds_differ(tilted):
    # Every repeat of k = 0 gets its own library, so that configurations are independent.
    repeats = {"k_points": np.zeros((4, 2)), "library": 2}
    runs = torch.stack([images(tilted, [60.0], 4, seed=seed, **repeats) for seed in range(16)])
    quoted = (runs.var(dim=1) / runs.shape[1]).mean().sqrt()
    observed = runs.mean(dim=1).std(dim=0).square().mean().sqrt()
    assert float(observed / quoted) == pytest.approx(1, abs=0.2)


def test_thicknesses_between_exit_planes_are_interpolated(tilted):
    slice_A = tilted.cell[2, 2] / 4
    below, between, above = images(tilted, [8 * slice_A, 8.25 * slice_A, 9 * slice_A], slice_A=slice_A)[0]
    assert between.numpy() == pytest.approx((0.75 * below + 0.25 * above).numpy(), abs=ROUNDING)
    assert rms(above, below) > 1e-3


def test_several_thicknesses_and_detectors_equal_single_runs(tilted):
    rings = [(0.0, 15.0), (15.0, 30.0)]
    together = images(tilted, [30.0, 90.0], 2, detectors_mrad=rings)
    for number, (inner, outer) in enumerate(rings):
        alone = images(tilted, [90.0], 2, Microscope(inner_mrad=inner, outer_mrad=outer))
        assert together[:, number, 1].numpy() == pytest.approx(alone[:, 0].numpy(), abs=ROUNDING)


def test_configurations_are_shared_out_evenly_over_k(tilted):
    pair = np.array([[0.0, 0.0], [0.25, 0.25]])
    still = {"debye_waller_A2": STILL, "library": 1}
    both = images(tilted, [60.0], 4, k_points=pair, **still)
    alone = [images(tilted, [60.0], 1, k_points=k[None], **still)[0] for k in pair]
    for configuration in range(4):
        share = both[configuration].numpy()
        assert share == pytest.approx(alone[configuration % 2].numpy(), abs=ROUNDING)
    assert rms(alone[0], alone[1]) > 1e-3


def test_single_precision_is_enough(tilted):
    single, double = (images(tilted, [220.0], 2, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert rms(single.double(), double) < 1e-4


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.69, 1.2])
def test_no_atomic_plane_is_split(shift):
    planes = np.array([0, 0.25, 0.5, 0.75]) * 5.5 + shift
    z = np.concatenate([planes, planes + 0.05, planes - 0.05]) % 5.5
    slices, count = slices_of(z, 5.5, 1.5)
    assert count == 4
    slices = slices.reshape(3, 4)
    assert (slices == slices[0]).all()
    assert sorted(slices[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda c: images(c, [5.0], 3, k_points=np.zeros((2, 2))), "3 configurations do not divide over 2 k-points"),
        (lambda c: images(c, [5.0], 0), "0 configurations do not divide"),
        (lambda c: images(c, [-5.0]), r"-5\.0.* none negative"),
        (lambda c: images(c, [5.0], cutoff_mrad=20), "leaves out beams at 30 mrad: raise cutoff_mrad"),
        (lambda c: images(c, [5.0], debye_waller_A2={"O": -1.0}), "Debye–Waller factor of -1.0 Å² for O"),
        (lambda c: images(c * (1, 1, 1), [5.0], 1, Microscope(semiangle_mrad=10)), "beams on a radius"),
        (lambda c: Vibrations(library=0), "A library of 0 periods"),
        (lambda c: Vibrations(slice_A=-1.0), "slices of -1 Å"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(tilted, call, names):
    with pytest.raises(InputError, match=names) as refused:
        call(tilted)
    assert "\n" not in str(refused.value)
