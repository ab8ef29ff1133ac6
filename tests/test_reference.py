"""The committed simulations: recomputed in samples, and held against another engine."""

import numpy as np
import pytest
from unitcell.abf.simulation import simulate_stack
from unitcell.artefacts import load_dataset
from unitcell.crystals import tilted_perovskite
from unitcell.data import fetch
from unitcell.scattering import Microscope, annular_images, frozen_phonon_images, thermal_images
from unitcell.scattering.beams import fibonacci_points

MEMBER = 33  # any of the 125


def tilts_of(stack, member):
    return np.array([[float(stack[name][member]) for name in ("alpha", "beta", "gamma")]])


def beyond_noise(one, error, other, other_error):
    """Rms difference that the standard errors do not explain, relative to the mean."""
    unexplained = np.mean((one - other) ** 2) - np.mean(error**2 + other_error**2)
    return np.sqrt(max(0.0, unexplained)) / other.mean()


def test_elastic_library_is_what_its_command_makes():
    stack = load_dataset(fetch("abf_library"), ("abf",))
    assert dict(stack.sizes) == {"tilt": 125, "thickness": 21, "y": 40, "x": 28}
    again = simulate_stack(tilts_of(stack, MEMBER), [20.0, 420.0], Microscope(), progress=False)
    assert stack.abf.values[MEMBER, [0, -1]] == pytest.approx(again.abf.values[0], abs=5e-5)


def test_phonon_library_is_what_its_command_makes():
    stack = load_dataset(fetch("abf_library_phonons"), ("abf", "abf_error"))
    assert dict(stack.sizes) == {"tilt": 125, "thickness": 21, "y": 40, "x": 28}
    settings = {"configurations": 15, "progress": False}
    again = simulate_stack(tilts_of(stack, MEMBER), [100.0], Microscope(), **settings)
    kept, made = stack.isel(tilt=MEMBER, thickness=4), again.isel(tilt=0, thickness=0)
    assert float(kept.thickness) == float(made.thickness)
    assert kept.abf.values == pytest.approx(made.abf.values, abs=1e-4)
    assert kept.abf_error.values == pytest.approx(made.abf_error.values, abs=1e-4)
    assert float(stack.abf.mean()) < float(load_dataset(fetch("abf_library")).abf.mean())  # phonons take electrons away


def truth_crystal(truth):
    names = ("alpha", "beta", "gamma", "signs", "a_site", "b_site")
    return tilted_perovskite(
        *(truth[name].item() for name in names), tuple(truth[name].item() for name in ("a_x", "a_y", "a_z")),
        a_shift=(truth["antipolar"].item(), truth["alternating"].item()),
    )  # fmt: skip


@pytest.mark.parametrize("structure", [3, 24])
def test_frozen_phonons_agree_with_another_engine(structure):
    truth = load_dataset(fetch("phonon_truth"), ("abf", "standard_error")).isel(structure=structure, thickness=1)
    crystal = truth_crystal(truth)
    options = {"k_points": fibonacci_points(5), "cutoff_mrad": 60}
    ours = frozen_phonon_images(crystal, Microscope(), [truth.depth.item()], (40, 28), 15, **options)[:, 0].numpy()
    error = ours.std(axis=0, ddof=1) / np.sqrt(len(ours))
    assert beyond_noise(ours.mean(axis=0), error, truth.abf.values, truth.standard_error.values) < 0.015
    assert ours.mean() == pytest.approx(truth.abf.values.mean(), rel=0.01)


@pytest.mark.parametrize("structure", [3, 26, 30])
def test_thermal_images_are_those_of_another_engines_frozen_phonons(structure):
    truth = load_dataset(fetch("phonon_truth"), ("abf", "standard_error")).isel(structure=structure)
    options = {"k_points": fibonacci_points(13), "cutoff_mrad": 50, "excitation_per_A": 0.0}
    crystal, depths = truth_crystal(truth), truth.depth.values.tolist()
    thermal = thermal_images(crystal, Microscope(), depths, (40, 28), **options).numpy()
    elastic = annular_images(crystal, Microscope(), depths, (40, 28), **options).numpy()

    def unlike(images):
        """By depth, rms difference that the standard error does not explain; means apart."""
        wrong = [each - each.mean(axis=(1, 2), keepdims=True) for each in (images, truth.abf.values)]
        noise = np.mean(truth.standard_error.values**2, axis=(1, 2))
        return np.sqrt(np.maximum(np.mean((wrong[0] - wrong[1]) ** 2, axis=(1, 2)) - noise, 0))

    assert unlike(thermal).max() < 0.0045
    assert unlike(thermal).max() < 0.4 * unlike(elastic).max()
    assert thermal.mean(axis=(1, 2)) == pytest.approx(truth.abf.values.mean(axis=(1, 2)), abs=0.006)


def test_truth_covers_what_the_network_must_face():
    truth = load_dataset(fetch("phonon_truth"), ("abf", "standard_error"))
    assert truth.sizes["structure"] == 32
    assert truth.sizes["thickness"] == 3
    titanate = (truth.a_site.values == "Sr") & (truth.b_site.values == "Ti")
    assert titanate.sum() == 24
    assert (truth.antipolar.values[~titanate] > 0).all()
    assert len(set(truth.signs.values)) >= 10
    assert truth.attrs["configurations"] == 26
