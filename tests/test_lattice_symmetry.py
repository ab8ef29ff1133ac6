"""Doubled lattices: simulated ones with every error of a scan, and the two real ones."""

import arviz as az
import numpy as np
import pytest
from unitcell.data import DataUnavailable, fetch
from unitcell.errors import InputError
from unitcell.symmetry.chain_posterior import LaplaceUniform, moment_posterior
from unitcell.symmetry.column_grid import ColumnGrid, ordered_columns, simulated_grid
from unitcell.symmetry.lattice_model import kinds, row_moments, rows_posterior
from unitcell.symmetry.lattice_planning import noise_trial
from unitcell.symmetry.lattice_symmetry import (
    alternations,
    field_of_view,
    lattice_prior,
    scatter,
    verdicts,
    window_agreement,
    window_moments,
)
from unitcell.symmetry.real_lattices import open_control, open_specimen

ROPE = [-0.1, 0.1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def real():
    try:
        fetch("dyscandate_df"), fetch("sto_110_adf"), fetch("sto_110_abf")
    except DataUnavailable as error:
        pytest.skip(str(error))
    return {name: lattice.grid for name, lattice in (open_specimen()[1] | open_control()).items()}


def warped(grid):
    """The lattice as a drifting, bent, sheared scan shows it."""
    x, y = np.moveaxis(grid.places, -1, 0)
    places = np.stack([1.03 * x + 0.05 * y + 0.0004 * x * y, 0.98 * y - 0.03 * x + 0.0005 * x**2], -1)
    return ColumnGrid(places, grid.unit)


def test_columns_are_put_in_order_whatever_their_order(rng):
    grid = warped(simulated_grid((7, 9), shift=(0.05, 0), rng=rng))
    points = rng.permutation(grid.places.reshape(-1, 2))
    again = ordered_columns(points, grid.unit)
    np.testing.assert_array_equal(again.places, grid.places)


def test_a_missing_column_and_a_lone_one_are_seen(rng):
    grid = simulated_grid((7, 9), rng=rng)
    points = np.delete(grid.places.reshape(-1, 2), 30, axis=0)
    points = np.vstack([points, [9.0, 3.0]])  # one column of a line that the image's edge cuts
    again = ordered_columns(points)
    assert again.places.shape == (7, 9, 2)
    assert again.count == 62
    assert np.isnan(again.places[3, 3]).all()


@pytest.mark.parametrize(("direction", "shift"), [("along x", (0.05, 0)), ("along y", (0, 0.05))])
def test_alternation_is_four_times_the_shift_without_drift_and_shear(direction, shift, rng):
    grid = warped(simulated_grid((20, 20), shift=shift, position_sd=0.0, rng=rng))
    values = alternations(grid, direction, "along")
    assert np.abs(values) == pytest.approx(0.2, abs=0.012)
    assert len(np.unique(np.sign(values))) == 1
    other = "along y" if direction == "along x" else "along x"
    assert np.abs(alternations(grid, other, "along")).max() < 0.012
    assert np.abs(alternations(grid, "checkerboard", "along")).max() < 0.012


def test_checkerboard_is_not_taken_for_a_doubling_along_x(rng):
    grid = simulated_grid((12, 12), position_sd=0.01, rng=rng)
    row, column = np.mgrid[:12, :12]
    places = grid.places + 0.05 * np.where((row + column) % 2, -1, 1)[..., None] * [0, 1]
    answer = verdicts(field_of_view(ColumnGrid(places), ROPE)).set_index("direction")
    assert answer.verdict.to_dict() == {"along x": "simple", "along y": "simple", "checkerboard": "doubled"}
    assert answer.loc["checkerboard", "component"] == "across"


def test_analysis_of_variance_finds_what_is_shared(rng):
    found = np.zeros(3)
    for _ in range(200):
        values = 0.3 * rng.normal(size=(12, 1)) + 0.2 * rng.normal(size=(1, 9)) + 0.5 * rng.normal(size=(12, 9))
        part = scatter(values)
        found += np.array([part.line, part.place, part.own]) / 200
    assert found == pytest.approx([0.09, 0.04, 0.25], rel=0.15)


def test_effective_number_is_the_variance_of_the_mean(rng):
    part = scatter(rng.normal(size=(6, 8)) + 2 * rng.normal(size=(1, 8)))
    found = np.ones((6, 8), bool)
    found[2, 3] = False
    means = [
        (part.line**0.5 * rng.normal(size=(6, 1)) + part.place**0.5 * rng.normal(size=(1, 8))
         + part.own**0.5 * rng.normal(size=(6, 8)))[found].mean() for _ in range(4000)
    ]  # fmt: skip
    assert np.var(means) == pytest.approx(part.of_mean(found), rel=0.1)
    total = part.line + part.place + part.own
    assert part.effective(found) == pytest.approx(total / part.of_mean(found))
    assert part.effective(found) < 12


def test_row_jitter_is_counted_once_a_row():
    """Of square lattices with strong row jitter, the interval of the alternation along y covers zero honestly."""
    honest, naive = [], []
    for seed in range(150):
        grid = simulated_grid((18, 15), position_sd=0.02, row_jitter=0.03, rng=np.random.default_rng(seed))
        values = alternations(grid, "along y", "along")
        counted = np.atleast_2d(window_moments(grid, "along y", "along", scatter(values))).T
        shared = moment_posterior(*counted, lattice_prior())
        alone = moment_posterior([values.size], [values.mean()], [values.size * values.var()], lattice_prior())
        for belief, covered in ((shared, honest), (alone, naive)):
            low, high = belief.hdi(0.94)
            covered.append(low[0] < 0 < high[0])
    assert np.mean(honest) > 0.87  # six row triplets: their own variance is known to a third
    assert np.mean(naive) < 0.5


def test_doubled_and_simple_lattices_are_told_apart(rng):
    doubled = simulated_grid((16, 16), shift=(0.05, 0), position_sd=0.02, row_jitter=0.01, rng=rng)
    answer = verdicts(field_of_view(doubled, ROPE, name="a")).set_index("direction")
    assert answer.loc["along x", "verdict"] == "doubled"
    assert answer.loc["along x", "p_doubled"] > 0.99
    assert answer.loc["along x", "component"] == "along"
    assert abs(answer.loc["along x", "mean"]) == pytest.approx(0.2, abs=0.02)
    assert answer.loc["along y", "verdict"] == answer.loc["checkerboard", "verdict"] == "simple"
    assert 16 <= answer.loc["along x", "columns"] < 150


def test_swapping_rows_and_columns_swaps_the_answers(rng):
    grid = simulated_grid((14, 17), shift=(0.04, 0), position_sd=0.02, row_jitter=0.01, rng=rng)
    plain, turned = (verdicts(field_of_view(g, ROPE)).set_index("direction") for g in (grid, grid.swapped()))
    for direction, other in (("along x", "along y"), ("along y", "along x"), ("checkerboard", "checkerboard")):
        assert turned.loc[other, "verdict"] == plain.loc[direction, "verdict"]
        if direction != "checkerboard":  # whose triplets then lie along the other axis
            assert turned.loc[other, "p_doubled"] == pytest.approx(plain.loc[direction, "p_doubled"], abs=1e-9)
            assert abs(turned.loc[other, "mean"]) == pytest.approx(abs(plain.loc[direction, "mean"]), abs=1e-9)


def test_real_perovskite_is_doubled_along_x_and_srtio3_is_not(real):
    name = "perovskite, A"
    answer = verdicts(field_of_view(real[name], ROPE, name=name)).set_index("direction")
    assert answer.verdict.to_dict() == {"along x": "doubled", "along y": "simple", "checkerboard": "simple"}
    assert answer.loc["along x", "p_doubled"] >= 0.99
    assert answer.loc["along x", "component"] == "across"  # the zigzag is transverse
    assert abs(answer.loc["along x", "mean"]) == pytest.approx(0.281, abs=0.02)
    assert answer.loc["along x", "columns"] <= 64
    assert answer.loc["along y", "n_eff"] < 20  # of 120 triplets: rows share their jitter
    for control in (key for key in real if key.startswith("SrTiO3")):
        answer = verdicts(field_of_view(real[control], ROPE, name=control))
        assert (answer.verdict == "simple").all()
        assert answer.p_doubled.max() <= 0.01
        assert answer["columns"].max() <= 49


def test_without_the_real_images_simulated_ones_say_so(monkeypatch):
    def unavailable(*_):
        raise DataUnavailable("no network")

    monkeypatch.setattr("unitcell.symmetry.real_lattices.open_image", unavailable)
    monkeypatch.setattr("unitcell.twins.darkfield.fetch", unavailable)
    path, specimen = open_specimen()
    assert path is None
    for lattices, verdict in ((specimen, "doubled"), (open_control(), "simple")):
        name, lattice = next(iter(lattices.items()))
        assert lattice.image.simulated
        answer = verdicts(field_of_view(lattice.grid, ROPE, name=name)).set_index("direction")
        assert answer.loc["along x", "verdict"] == verdict


def test_planner_predicts_real_lattices_with_ten_picometres_of_noise(real, rng):
    for name in ("perovskite, A", "SrTiO3 ADF, Sr"):
        for rope in (ROPE, [-0.03, 0.03]):
            calm, noisy = (
                noise_trial(real[name], "along x", "across", rope, added, experiments=80, rng=rng)
                for added in (0.0, 0.1)
            )
            assert noisy.scatter == pytest.approx(noisy.expected_scatter, rel=0.05)
            for trial in (calm, noisy):
                assert trial.observations == pytest.approx(trial.planned, rel=0.2)
            assert noisy.observations > calm.observations
    assert noisy.observations > 4 * calm.observations  # SrTiO3, the narrow ROPE


def test_lattices_of_every_kind_are_named(rng):
    made = {
        "square": {}, "rectangular": {"spacing": (1.1, 0.9)}, "doubled along x": {"shift": (0.05, 0.0)},
        "doubled along both": {"shift": (0.05, 0.06)},
    }  # fmt: skip
    for kind, how in made.items():
        grid = simulated_grid((18, 12), row_jitter=0.01, rng=rng, **how)
        shares = kinds(rows_posterior(grid), ROPE)
        assert shares[kind] > 0.9, kind
        assert shares.sum() == pytest.approx(1)
        table = field_of_view(grid, ROPE)
        for name in ("along x, along", "along y, across"):  # agrees with the effective number of data
            direction, component = name.split(", ")
            row = table[(table.direction == direction) & (table.component == component)].iloc[-1]
            mean, sd = rows_posterior(grid).moments(name)
            assert mean == pytest.approx(row["mean"], abs=2 * row.sd)
            assert sd == pytest.approx(row.sd, rel=0.6)


def rows_model(rows):
    """One contrast in PyMC, with a value θ for every row, as the exact posterior's independent check."""
    import pymc as pm

    m = rows.m.to_numpy(float)
    with pm.Model() as model:
        mu = pm.Laplace("mu", mu=0, b=0.2)
        tau = pm.HalfNormal("tau", sigma=0.1)
        sigma = pm.Uniform("sigma", lower=0, upper=1)
        offset = pm.Normal("offset", shape=len(m))
        pm.Normal("row_mean", mu=mu + tau * offset, sigma=sigma / np.sqrt(m), observed=rows["mean"].to_numpy())
        pm.Gamma("row_squares", alpha=(m - 1) / 2, beta=0.5 / sigma**2, observed=rows.squares.to_numpy())
    return model


def test_rows_posterior_agrees_with_nuts(rng):
    import nutpie
    import pytensor

    grid = simulated_grid((18, 12), position_sd=0.03, row_jitter=0.02, rng=rng)
    rows = row_moments(grid)
    with pytensor.config.change_flags(cxx=""):
        compiled = nutpie.compile_pymc_model(rows_model(rows[rows.contrast == "along y, along"]))
    draws = nutpie.sample(compiled, draws=2000, tune=1000, chains=2, target_accept=0.95, seed=1, progress_bar=False)
    mu = draws.posterior["mu"]
    mean, sd = rows_posterior(grid).moments("along y, along")
    error = float(az.mcse(mu)["mu"])
    assert float(mu.mean()) == pytest.approx(mean, abs=4 * error + 1e-4)
    assert float(mu.std()) == pytest.approx(sd, rel=0.06)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda grid: ordered_columns(grid.places[:2, :3].reshape(-1, 2)), "at least nine columns"),
        (lambda grid: ordered_columns(np.full((20, 2), np.nan)), "none of them NaN"),
        (lambda grid: field_of_view(grid, [0.1, -0.1]), "rope is"),
        (lambda grid: noise_trial(grid, "along x", "along", [1, 0], 0.1, rng=None), "rope is"),
        (lambda grid: row_moments(ColumnGrid(grid.places[:5])), "needs six of four"),
    ],
)
def test_bad_lattices_are_refused(call, words, rng):
    with pytest.raises(InputError, match=words) as caught:
        call(simulated_grid((8, 8), rng=rng))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_prior_of_a_lattice_is_the_known_one():
    assert lattice_prior() == LaplaceUniform(0.0, 0.2, 1.0)


def test_window_shares_are_shares(rng):
    table = field_of_view(simulated_grid((9, 9), rng=rng), ROPE)
    agreed = window_agreement(table[table.direction == "along x"])
    assert agreed[["doubled", "simple"]].sum(axis=1).max() <= 1
    assert agreed["columns"].tolist() == [size**2 for size in agreed.index]
