"""The joint fit of columns against numerical slopes, the bound of a lonely peak, and centres of mass at low dose."""

from dataclasses import replace

import numpy as np
import pytest
from unitcell.atoms import atom_scores, finding
from unitcell.atoms.peaks import PARAMETERS, Peaks, changed, information, rendered, slopes
from unitcell.atoms.refinement import refine_columns
from unitcell.atoms.segmenter import load_segmenter
from unitcell.twins.haadf_twins import open_twin

SHAPE = (95, 130)


@pytest.fixture(scope="module")
def peaks():
    rng = np.random.default_rng(0)
    place = rng.uniform(5, 120, 30), rng.uniform(5, 90, 30)
    return Peaks(*place, rng.uniform(1, 3, 30), rng.uniform(2, 2.4, 30), rng.uniform(0.1, 0.4, 30))


def directly(peaks):
    """Equation (1), pixel by pixel."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    square = (u - peaks.x[:, None, None]) ** 2 + (v - peaks.y[:, None, None]) ** 2
    height, sigma, tail = (part[:, None, None] for part in (peaks.height, peaks.sigma, peaks.tail))
    narrow, wide = (np.exp(-square / (2 * (k * sigma) ** 2)) for k in (1, peaks.wider))
    return (height * ((1 - tail) * narrow + tail * wide)).sum(0)


def test_tiles_add_up_to_the_sum_of_peaks(peaks):
    np.testing.assert_allclose(rendered(peaks, SHAPE), directly(peaks), atol=4e-3)


def test_slopes_and_changes_are_derivatives(peaks):
    rng = np.random.default_rng(1)
    wanted, weight = rng.normal(size=SHAPE).astype(np.float32), rng.uniform(0.5, 1, SHAPE).astype(np.float32)
    gradient, wider = slopes(peaks, wanted)
    own = information(peaks, weight)
    step = np.zeros((len(peaks), 5))
    for k, name in enumerate(PARAMETERS):
        up, down = (replace(peaks, **{name: getattr(peaks, name) + d * (np.arange(30) == 4)}) for d in (1e-4, -1e-4))
        slope = (directly(up) - directly(down)) / 2e-4
        assert gradient[4, k] == pytest.approx((wanted * slope).sum(), rel=1e-2, abs=0.02)
        assert own[4, k, k] == pytest.approx((weight * slope**2).sum(), rel=1e-2)
        step[4] = np.eye(5)[k]
        np.testing.assert_allclose(changed(peaks, step, 0.0, SHAPE), slope, atol=2e-2)
    slope = (directly(replace(peaks, wider=2.2001)) - directly(replace(peaks, wider=2.1999))) / 2e-4
    assert wider == pytest.approx((wanted * slope).sum(), rel=2e-2, abs=0.2)
    np.testing.assert_allclose(changed(peaks, 0 * step, 1.0, SHAPE), slope, atol=3e-2)


def test_lonely_peaks_are_found_as_well_as_electrons_allow():
    """For a Gaussian of N counts without background the Fisher information is N / σ²."""
    rng, sigma, total = np.random.default_rng(2), 2.0, 4000.0
    row, column = np.mgrid[1:13, 1:13] * 24.0
    places = np.stack([column, row], -1).reshape(-1, 2) + rng.uniform(-2, 2, (144, 2))
    one = np.ones(144)
    truth = Peaks(*places.T, one * total / (2 * np.pi * sigma**2), sigma * one, 0 * one)
    counted = rng.poisson(rendered(truth, (312, 312)) + 0.01)
    x, y, _, found = refine_columns(counted, *(places + rng.normal(0, 0.4, places.shape)).T)
    error = np.sqrt(np.mean((np.column_stack([x, y]) - places) ** 2))
    assert error == pytest.approx(sigma / np.sqrt(total), rel=0.25)
    assert np.median(found) == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("dose", [1e3, 3e3])
def test_the_fit_is_never_worse_than_centres_of_mass(dose):
    twin = open_twin("lsmo_nio", shape=(300, 300), seed=1, dose=dose)
    image, predictor = atom_scores.twin_image(twin), load_segmenter()
    places = np.column_stack([twin.x_px, twin.y_px])
    error = []
    for refine in (False, True):
        found = finding.find_atoms(image, predictor, refine=refine)[0][["x_px", "y_px"]].to_numpy()
        pairs = finding.matched(found, places, 3)
        error.append(np.sqrt(np.mean((found[pairs[:, 0]] - places[pairs[:, 1]]) ** 2)))
    assert error[1] < error[0]
