"""The joint fit of columns against numerical slopes, bounds, faint neighbours, skewed columns and centres of mass."""

from dataclasses import replace

import numpy as np
import pytest
from unitcell.atoms import atom_scores, finding
from unitcell.atoms.joint_fit import JointFit, holes, solved
from unitcell.atoms.peaks import OWN, Peaks, Tiling, noise_weight, rendered
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


def slope_of(peaks, name, column):
    """Derivative of equation (1) by one parameter of one column, or by κ, from differences."""
    size, more = 1e-4, 1e-4 * (1 if name == "wider" else np.arange(len(peaks)) == column)
    up, down = (replace(peaks, **{name: getattr(peaks, name) + sign * more}) for sign in (1, -1))
    return (directly(up) - directly(down)) / (2 * size)


def test_tiles_add_up_to_the_sum_of_peaks(peaks):
    np.testing.assert_allclose(rendered(peaks, SHAPE), directly(peaks), atol=6e-3)


def test_normal_equations_hold_the_slopes(peaks):
    rng = np.random.default_rng(1)
    left, weight = rng.normal(size=SHAPE).astype(np.float32), rng.uniform(0.5, 1, SHAPE).astype(np.float32)
    found = Tiling(peaks, SHAPE).normal_equations(peaks, left, weight)
    near = int(np.argsort(np.hypot(peaks.x - peaks.x[4], peaks.y - peaks.y[4]))[1])
    slopes = np.array([slope_of(peaks, name, column) for column in (4, near) for name in OWN])
    shared = np.array([slope_of(peaks, "wider", None), np.ones(SHAPE)])
    at = np.r_[20:25, 5 * near : 5 * near + 5]
    scale = np.sqrt((weight * slopes**2).sum((1, 2)))
    expected = np.einsum("iyx,jyx,yx->ij", slopes, slopes, weight)
    np.testing.assert_allclose(
        found.own.toarray()[np.ix_(at, at)] / np.outer(scale, scale), expected / np.outer(scale, scale), atol=4e-3
    )
    border = np.einsum("iyx,jyx,yx->ij", slopes, shared, weight) / scale[:, None]
    np.testing.assert_allclose(found.border[at] / scale[:, None], border, rtol=0.02, atol=0.3)
    np.testing.assert_allclose(found.own_pull[at] / scale, (slopes * weight * left).sum((1, 2)) / scale, atol=0.05)
    assert found.corner[1, 1] == pytest.approx(weight.sum(), rel=1e-5)
    assert found.shared_pull[1] == pytest.approx((weight * left).sum(), abs=0.05)


def test_a_step_solves_the_whole_system(peaks):
    """Conjugate gradients and the Schur complement against one dense solution."""
    rng = np.random.default_rng(2)
    left, weight = rng.normal(size=SHAPE).astype(np.float32), np.ones(SHAPE, np.float32)
    equations, n = Tiling(peaks, SHAPE).normal_equations(peaks, left, weight), len(peaks)
    stiff, pull = rng.uniform(1, 30, 5 * n), rng.normal(size=5 * n)
    own, shared = solved(equations, stiff, pull, np.ones(3, bool))
    together = np.zeros((5 * n, 1))
    together[3::5] = 1
    jacobian = np.block([[np.eye(5 * n), together, np.zeros((5 * n, 2))], [np.zeros((2, 5 * n + 1)), np.eye(2)]])
    full = np.block([[equations.own.toarray(), equations.border], [equations.border.T, equations.corner]])
    full = jacobian.T @ full @ jacobian + np.diag(np.r_[stiff, np.zeros(3)])
    asked = jacobian.T @ np.r_[equations.own_pull, equations.shared_pull] + np.r_[pull, np.zeros(3)]
    expected = np.linalg.solve(full, asked)
    np.testing.assert_allclose(own.ravel(), expected[:-3], atol=2e-3 * np.abs(expected[:-3]).max())
    np.testing.assert_allclose(shared, expected[-3:], rtol=5e-3, atol=1e-4)


def test_noise_is_told_from_what_a_model_misses():
    rng = np.random.default_rng(3)
    level = np.broadcast_to(np.linspace(20, 400, 300), (200, 300))
    counted = rng.poisson(level).astype(float)
    missed = 15 * np.sin(np.arange(300) / 20)  # smooth: no noise
    weight = noise_weight(counted - level + missed, level, np.array([50.0, 200.0, 380.0]))
    np.testing.assert_allclose(1 / weight, [50, 200, 380], rtol=0.12)


def test_holes_are_the_middles_of_squares():
    v, u = np.mgrid[0:6, 0:7] * 10.0
    turned = np.column_stack([u.ravel(), v.ravel()]) @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    middle = np.column_stack([u[:-1, :-1].ravel(), v[:-1, :-1].ravel()]) + 5
    found = holes(turned) @ np.array([[0.8, -0.6], [0.6, 0.8]])
    order = np.lexsort(np.round(found).T)
    np.testing.assert_allclose(found[order], middle[np.lexsort(middle.T)], atol=1e-6)
    assert holes(np.column_stack([np.arange(5.0), np.arange(5.0)])).shape == (0, 2)


def test_lonely_peaks_are_found_as_well_as_electrons_allow():
    """For a Gaussian of N counts without background the Fisher information is N / σ²."""
    rng, sigma, total = np.random.default_rng(2), 2.0, 4000.0
    row, column = np.mgrid[1:13, 1:13] * 24.0
    places = np.stack([column, row], -1).reshape(-1, 2) + rng.uniform(-2, 2, (144, 2))
    one = np.ones(144)
    truth = Peaks(*places.T, one * total / (2 * np.pi * sigma**2), sigma * one, 0 * one)
    counted = rng.poisson(rendered(truth, (312, 312)) + 0.01)
    x, y, *_ = refine_columns(counted, *(places + rng.normal(0, 0.4, places.shape)).T)
    error = np.sqrt(np.mean((np.column_stack([x, y]) - places) ** 2))
    assert error == pytest.approx(sigma / np.sqrt(total), rel=0.25)


def test_a_faint_neighbour_on_one_side_draws_nothing():
    """Columns on a square lattice, with faint ones in the holes of its right half only."""
    v, u = np.mgrid[1:11, 1:11] * 14.0
    places = np.column_stack([u.ravel(), v.ravel()])
    v, u = np.mgrid[1:10, 5:10] * 14.0 + 7
    faint = np.column_stack([u.ravel(), v.ravel()])
    one, few = np.ones(len(places)), np.ones(len(faint))
    truth = Peaks(*places.T, 400 * one, 2.8 * one, 0.3 * one).joined(Peaks(*faint.T, 60 * few, 3.2 * few, 0.3 * few))
    image = np.random.default_rng(4).poisson(rendered(truth, (154, 154)) + 10.0)
    error = {}
    for together in (False, True):
        x = refine_columns(image, *(places + 0.5).T, together=together)[0]
        beside = np.abs(places[:, 0] - 70) < 1  # the columns at the left of the faint ones
        error[together] = np.mean(x[beside] - places[beside, 0])
    assert abs(error[True]) < 0.25 * abs(error[False])


def test_streaked_columns_are_left_to_their_windows():
    """Skewed peaks are no sums of round ones: the joint fit sees it, and its places are not taken."""
    v, u = np.mgrid[1:8, 1:8] * 34.0
    places = np.column_stack([u.ravel(), v.ravel()])
    one, aside = np.ones(len(places)), np.array([7, 0])
    image = rendered(Peaks(*places.T, 300 * one, 5 * one, 0.2 * one), (272, 272))
    image = image + rendered(Peaks(*(places + aside).T, 150 * one, 3 * one, 0 * one), (272, 272))
    image = np.random.default_rng(5).poisson(image + 5.0).astype(np.float32)
    fit = JointFit(image, places, 300 * one, 5 * one)
    fit.run()
    assert fit.unexplained() > 3
    found, alone = (refine_columns(image, *(places + 0.5).T, together=together) for together in (None, False))
    np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize(("dose", "gain"), [(1e3, 1.0), (1e5, 0.6)])
def test_the_fit_is_near_the_bound_at_interfaces_too(dose, gain):
    twin = open_twin("lsmo_nio", shape=(300, 300), seed=1, dose=dose)
    expected = open_twin("lsmo_nio", shape=(300, 300), seed=1, dose=None).image.values * dose / 1e5
    image, predictor = atom_scores.twin_image(twin), load_segmenter()
    tables = [
        atom_scores.scores(finding.find_atoms(image, predictor, refine=refine)[0], twin, expected)
        for refine in (False, True)
    ]
    assert tables[1].loc["all", "ratio"] < 1.55
    assert tables[1].loc["all", "rms_A"] < gain * tables[0].loc["all", "rms_A"]
