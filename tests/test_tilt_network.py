"""Windows, network, intervals: invariances, statistics and refusals."""

import numpy as np
import pytest
import torch
from unitcell.abf.simulation import simulate_stack, unseen_structures
from unitcell.artefacts import save_weights
from unitcell.crystals.tilt_coordinates import doubled, halved, softened
from unitcell.errors import InputError
from unitcell.networks.tilt_network import TiltEnsemble, TiltNetwork, errors, estimates, load_network, supposed
from unitcell.networks.tilt_training import (
    beta_nll,
    calibrate,
    judged,
    member_training,
    score,
    targets,
    taught,
    train_ensemble,
    train_member,
    unseen_windows,
    widen,
    widening,
)
from unitcell.networks.training_loop import Training
from unitcell.networks.training_windows import (
    WINDOW_SHAPE,
    Conditions,
    WindowPool,
    cell_extent_A,
    draw_windows,
    record,
    refine,
    sample_periodic,
)
from unitcell.scattering import Microscope
from unitcell.surrogates.surrogate import Surrogate

STILL = {
    "ellipticity": 1.0, "tail": 0.0, "mistilt_shift_A": 0.0, "magnification": 0.0, "shear": 0.0,
    "rotation_deg": 0.0, "offset_A": 0.0, "jitter_A": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def process():
    axis = np.array([-8.0, 0.0, 8.0])
    tilts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    stack = simulate_stack(tilts, [80.0, 120.0, 160.0], Microscope(), cutoff_mrad=45, k_points=(2, 1), progress=False)
    return Surrogate.fit(stack, restarts=2)


def test_fourier_refinement_is_exact_for_band_limited_images():
    y, x = np.meshgrid(np.arange(40) / 40, np.arange(28) / 28, indexing="ij")
    fy, fx = np.meshgrid(np.arange(80) / 80, np.arange(56) / 56, indexing="ij")

    def wave(x, y):
        return np.cos(2 * np.pi * (3 * x - 5 * y) + 0.3) + 0.5 * np.sin(2 * np.pi * 7 * y)

    fine = refine(torch.tensor(wave(x, y))[None], torch.zeros(1, 3, dtype=torch.float64), cell_extent_A(3.905))
    assert fine[0].numpy() == pytest.approx(wave(fx, fy), abs=1e-10)


def test_periodic_sampling_wraps():
    image = torch.arange(12.0).reshape(1, 3, 4)
    positions = torch.tensor([[[[0.0, 0.0], [4.0, 3.0], [-1.0, 0.0], [0.5, 0.0]]]])
    assert sample_periodic(image, positions, (3.0, 4.0))[0, 0].tolist() == pytest.approx([0, 0, 3, 0.5], abs=1e-5)


def test_a_still_noiseless_window_is_the_image_around_the_b_column(process):
    cell = process.images(torch.zeros(1, 3), torch.tensor([120.0]))
    still = Conditions(dose=(1e12, 1e12), source_A=(0.0, 0.0), **STILL)
    window = record(cell, 3.905, still, torch.Generator().manual_seed(0))[0]
    ideal = torch.roll(cell[0].repeat(1, 2), (WINDOW_SHAPE[0] // 2, WINDOW_SHAPE[1] // 2), (0, 1))
    ideal = (ideal - ideal.mean()) / ideal.std()
    assert torch.corrcoef(torch.stack([window.flatten(), ideal.flatten()]))[0, 1] > 0.9999


def test_noise_has_the_variance_of_counting(process):
    cells = process.images(torch.zeros(200, 3), torch.full((200,), 120.0))
    conditions = Conditions(dose=(1e4, 1e4), source_A=(0.2, 0.2), **STILL)
    low = record(cells, 3.905, conditions, torch.Generator().manual_seed(1))
    blurred = refine(cells[:1], torch.tensor([[0.04, 0.0, 0.04]]), cell_extent_A(3.905))
    area = (3.905 / 20) * (3.905 / np.sqrt(2) / 14)
    expected = float(cells[0].mean() / (1e4 * area) / blurred.var())
    measured = float((low / low.std(dim=(1, 2), keepdim=True)).var(dim=0).mean())
    assert measured == pytest.approx(expected / (1 + expected), rel=0.1)


def test_targets_do_not_know_the_branch():
    projection = torch.tensor([[1.0, 3.0, -4.0], [1.0, -3.0, 4.0]])
    assert torch.allclose(*targets(projection))


def test_estimates_invert_the_targets():
    v, u, gamma = 2.0, -3.0, 5.0
    centre, spread = estimates(np.array([[v, *doubled(u, gamma), softened(6.0)]]), np.array([[0.04, 0.01, 0.01, 0.01]]))
    assert [centre[n][0] for n in ("v", "u", "gamma")] == pytest.approx([v, u, gamma])
    assert centre["alpha"][0] == pytest.approx((u + v) / np.sqrt(2))
    assert centre["alternation"][0] == pytest.approx(6.0)
    assert spread["v"][0] == pytest.approx(0.2)
    assert 0 < spread["gamma"][0] < 0.5


def test_errors_are_taken_on_the_nearer_branch():
    centre, _ = estimates(np.array([[0.0, *doubled(3.0, 0.2), 0.0]]), np.full((1, 4), 0.01))
    assert abs(errors(centre, np.array([[0.0, -3.0, 0.1]]))["u"][0]) < 0.1


def test_training_learns_v_and_calibration_covers(process):
    # A few hundred steps learn the plainest tilt; the intervals must cover whatever was learnt.
    conditions = Conditions(tilt_deg=8.0, dose=(1e5, 1e5))
    ensemble, history = train_ensemble(process, conditions, members=1, windows=4800, learning_rate=3e-3, progress=False)
    generator = torch.Generator().manual_seed(5)
    first, second = (unseen_structures(process.settings, process.thicknesses, 12, 8.0, seed) for seed in (1, 2))
    calibrate(ensemble, *unseen_windows(first, conditions, generator, repeats=8))
    windows, truth = unseen_windows(second, conditions, generator, repeats=8)
    result = score(ensemble, windows, truth)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert result["rms_v_deg"] < 0.5 * truth[:, 0].std()
    assert 0.75 < result["coverage_v"] <= 1.0


def test_intervals_are_as_wide_as_each_kind_of_window_needs():
    # A stated σ that is three times too small for sure windows and right for unsure ones.
    generator = np.random.default_rng(0)

    class Stated(TiltEnsemble):
        def raw(self, windows):
            sigma = windows[:, 0, 0].double()
            true_sigma = torch.where(sigma < 0.5, 3 * sigma, sigma)
            mean = torch.tensor([[0.0, 60.0, 0.0, 0.0]]) + torch.zeros(len(windows), 4)
            mean[:, 0] = true_sigma * torch.from_numpy(generator.normal(size=len(windows)))
            return None, mean, sigma[:, None].square().expand(-1, 4)

    ensemble = Stated([], {})
    windows = torch.from_numpy(np.exp(generator.uniform(-2, 0.7, 8000)))[:, None, None]
    truth = np.tile([0.0, 0.0, halved(60.0, 0.0)[1], 0.0], (len(windows), 1))
    factors = calibrate(ensemble, windows, truth)["v"]["factor"]
    assert len(factors) == 8
    assert factors[0] == pytest.approx(3 * 1.645, rel=0.1)
    overall = TiltEnsemble([], {}).calibration["v"]["factor"][0]
    assert min(factors) == factors[-1] > overall  # never less than what covers all windows together
    sure, unsure = windows[:, 0, 0] < 0.3, windows[:, 0, 0] > 0.9
    assert score(ensemble, windows[sure], truth[sure])["coverage_v"] == pytest.approx(0.9, abs=0.03)
    assert score(ensemble, windows[unsure], truth[unsure])["coverage_v"] > 0.93


def test_noise_and_another_crystal_are_unfamiliar(process):
    ensemble, _ = train_ensemble(process, Conditions(), members=1, windows=1280, progress=False)
    generator = torch.Generator().manual_seed(3)
    usual = ensemble.predict(draw_windows(process, 300, Conditions(), generator)[0].numpy())["ood"]
    noise = ensemble.predict(torch.randn(50, *WINDOW_SHAPE, generator=generator).numpy())["ood"]
    y, x = np.meshgrid(np.arange(40), np.arange(56), indexing="ij")
    stripes = ensemble.predict(np.cos(2 * np.pi * (x / 9 + y / 11))[None])["ood"]
    assert np.median(usual) == pytest.approx(0.5, abs=0.1)
    assert np.median(noise) > 0.99
    assert stripes[0] > 0.99


def test_one_seed_is_one_run(process):
    options = {"members": 1, "windows": 256, "progress": False}
    one, other = (train_ensemble(process, Conditions(), **options)[0] for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(one.members[0].parameters(), other.members[0].parameters(), strict=True)
    )


def test_committed_network_reads_v_of_clean_windows():
    ensemble = load_network()
    settings = {k: ensemble.card[k] for k in ("energy_eV", "semiangle_mrad", "inner_mrad", "outer_mrad", "defocus_A")}
    tilts = np.array([[6.0, 2.0, 4.0], [-3.0, 5.0, 2.0], [0.0, 0.0, 0.0]])
    stack = simulate_stack(tilts, [200.0], Microscope(**settings), progress=False)
    quiet = Conditions(dose=(1e6, 1e6), source_A=(0.3, 0.3), **STILL)
    windows, truth = unseen_windows(stack, quiet, torch.Generator().manual_seed(0))
    table = ensemble.predict(windows.numpy())
    assert table["v_deg"] == pytest.approx(truth[:, 0], abs=1.0)
    assert (table["gamma_deg"] >= 0).all()
    assert all((table[f"{n}_deg_lo"] <= table[f"{n}_deg"]).all() for n in ("v", "u", "gamma", "alpha", "beta"))


def test_gain_and_offset_do_not_matter():
    ensemble = TiltEnsemble([TiltNetwork()], {})
    windows = np.random.default_rng(0).normal(size=(3, *WINDOW_SHAPE)).astype(np.float32)
    one, other = ensemble.predict(windows), ensemble.predict(200 * windows + 1000)
    assert one["v_deg"] == pytest.approx(other["v_deg"], abs=1e-3)


def test_weights_go_there_and_back(tmp_path):
    ensemble = TiltEnsemble(
        [TiltNetwork(), TiltNetwork()], {"lattice_A": 3.9}, {"v": {"spread_deg": [1.0, 9.0], "factor": [2.0, 1.5]}}
    )
    ensemble.save(tmp_path / "n.safetensors")
    again = load_network(tmp_path / "n.safetensors")
    windows = np.random.default_rng(0).normal(size=(2, *WINDOW_SHAPE))
    assert again.predict(windows)["v_deg_lo"] == pytest.approx(ensemble.predict(windows)["v_deg_lo"], abs=0.01)
    assert again.card["lattice_A"] == 3.9


def bright_columns():
    y, x = np.meshgrid(np.arange(40), np.arange(56), indexing="ij")
    return np.exp(-((y % 20 - 10) ** 2 + ((x + 7) % 14 - 7) ** 2) / 8)[None]


def test_bad_windows_and_weights_are_refused(tmp_path):
    ensemble = TiltEnsemble([TiltNetwork()], {})
    for windows, names in (
        (np.zeros((2, 30, 30)), "do not fit"),
        (np.zeros((0, *WINDOW_SHAPE)), "no window"),
        (np.full((1, *WINDOW_SHAPE), np.nan), "1 of 1 windows hold NaN"),
        (np.full((2, *WINDOW_SHAPE), np.inf), "2 of 2 windows hold NaN or infinity"),
        (bright_columns(), "A columns stand out bright"),
    ):
        with pytest.raises(InputError, match=names):
            ensemble.predict(windows)
    assert np.isfinite(ensemble.predict(-bright_columns())["v_deg"]).all()
    save_weights({"w": torch.zeros(2)}, tmp_path / "other.safetensors", "rvae-2", {})
    with pytest.raises(InputError, match="rvae-2"):
        load_network(tmp_path / "other.safetensors")


def test_thickness_and_tilts_are_drawn_within_range(process):
    _, projection, thickness = draw_windows(process, 500, Conditions(tilt_deg=5.0), torch.Generator().manual_seed(0))
    assert projection[:, 2].abs().max() <= 5.0
    assert 80 <= thickness.min() <= thickness.max() <= 160


def test_training_begins_bright_and_sharp_and_ends_as_asked():
    asked = Conditions(dose=(1e3, 1e6), source_A=(0.1, 0.6))
    first = asked.eased(0.0)
    assert first.dose == pytest.approx((1e3 * 1000**0.6, 1e6))
    assert first.source_A == pytest.approx((0.1, 0.4))
    middle = asked.eased(0.4)
    assert middle.dose[0] == pytest.approx(1e3 * 1000**0.3)
    assert asked.eased(0.8) == asked.eased(1.0) == asked


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_stopped_training_goes_on_bit_for_bit(process, tmp_path, monkeypatch, bfloat16):
    recipe = {"windows": 16 * 12, "batch": 16, "seed": 3, "bfloat16": bfloat16, "progress": False}
    whole, history = train_member(process, Conditions(), **recipe)
    advance = Training.advance

    def stopped(training):
        if training.step == 8:
            raise KeyboardInterrupt
        advance(training)

    kept = tmp_path / "member.checkpoint"
    monkeypatch.setattr(Training, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_member(process, Conditions(), checkpoint=kept, every=5, **recipe)
    monkeypatch.undo()
    resumed, again = train_member(process, Conditions(), checkpoint=kept, every=5, **recipe)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [entry["loss"] for entry in again] == [entry["loss"] for entry in history]
    same = {"windows": 16 * 12, "batch": 16, "learning_rate": 2e-3, "bfloat16": bfloat16}
    other = member_training(process, Conditions(), seed=4, **same)
    assert not other.restore(kept)
    assert other.step == 0


def test_a_loss_that_is_no_number_stops_with_its_cause(process):
    training = member_training(process, Conditions(), windows=640, batch=16, learning_rate=2e-3, bfloat16=False, seed=0)
    draw = training.draw

    def broken(step, generator):
        windows, wanted = draw(step, generator)
        windows[3] = torch.nan
        return windows, wanted

    training.draw = broken
    with pytest.raises(InputError, match="1 of 16 windows hold NaN"):
        training.advance()
    training.draw = draw
    with torch.no_grad():
        training.network.outputs.fill_(torch.inf)
    with pytest.raises(InputError, match=r"lower learning_rate = 0\.002"):
        training.advance()


def test_an_alternation_that_stands_out_decides_how_u_and_gamma_are_read():
    mean = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]).repeat(2, 1)
    variance = torch.tensor([[0.1, 0.2, 0.3, 1.0, 0.5, 0.6], [0.1, 0.2, 0.3, 9.0, 0.5, 0.6]])  # 4 ± 1 and 4 ± 3
    centre, spread = supposed(mean, variance)
    assert centre.tolist() == [[1, 5, 6, 4], [1, 2, 3, 4]]
    assert spread[:, 1:3].tolist() == [pytest.approx([0.5, 0.6]), pytest.approx([0.2, 0.3])]


def test_u_and_gamma_are_taught_and_judged_on_uniform_patterns_only():
    projection = torch.tensor([[1.0, 2.0, 3.0, 0.0], [1.0, 2.0, 3.0, 5.0]])
    wanted = targets(projection)
    assert taught(wanted).tolist() == [[1, 1, 1, 1, 0, 0], [1, 0, 0, 1, 1, 1]]
    mean, log_variance = torch.zeros(2, 6), torch.zeros(2, 6)
    loss = beta_nll(mean, log_variance, wanted, taught(wanted))
    wanted[1, 1:3] = 100.0
    assert beta_nll(mean, log_variance, wanted, taught(wanted)) == loss
    assert judged("u", projection).tolist() == [True, False]
    assert judged("v", projection).tolist() == [True, True]
    assert judged("gamma", projection[1:]).tolist() == [True]
    assert judged("gamma", projection[:, :3]).tolist() == [True, True]


def test_a_pool_shows_its_windows_again_with_other_counts(process):
    def drawn(pool, step):
        return pool.draw(step, torch.Generator().manual_seed(step))

    pool = WindowPool(process, 16, lambda step: Conditions(), 3, shown=4)
    first, structures = drawn(pool, 5)
    second, others = (torch.cat(part) for part in zip(*(drawn(pool, step) for step in range(6, 20)), strict=True))
    i, j = (structures[:, None] == others[None]).all(-1).nonzero()[0]  # the same window
    assert 0.01 < (first[i] - second[j]).std() < 1.4  # other electrons
    again = WindowPool(process, 16, lambda step: Conditions(), 3, shown=4)
    assert torch.equal(drawn(again, 6)[0], second[:16])  # from its seed alone
    once = WindowPool(process, 16, lambda step: Conditions(), 3)
    seen = torch.cat([drawn(once, step)[1] for step in range(40)])
    assert len(torch.unique(seen, dim=0)) > 0.98 * len(seen)  # but for untilted ones, none twice


def test_intervals_are_widened_where_other_windows_ask_for_it():
    generator = np.random.default_rng(0)

    class Stated(TiltEnsemble):
        """Reads zeros with σ of 0.5° and 3°, by turns."""

        def raw(self, windows):
            sigma = torch.tensor([0.5, 3.0]).repeat(len(windows) // 2)
            return (
                None,
                torch.tensor([[0.0, 60.0, 0.0, 0.0]]).repeat(len(windows), 1),
                sigma[:, None].square().expand(-1, 4),
            )

    def truth(wrong):
        """Projections whose v is off by `wrong` of both kinds."""
        v = generator.normal(size=8000) * np.tile(wrong, 4000)
        return np.column_stack([v, np.zeros(8000), np.full(8000, 60.0), np.zeros(8000)])

    ensemble, windows = Stated([TiltNetwork()], {}), torch.zeros(8000, *WINDOW_SHAPE)
    calibrate(ensemble, windows, truth([0.5, 3.0]))
    assert ensemble.reach("v", np.array([0.5, 3.0])) == pytest.approx(1.645 * np.array([0.5, 3.0]), rel=0.05)
    ratios = widening(ensemble, windows, truth([1.0, 1.5]))  # sure windows are wrong by twice as much
    widen(ensemble, ratios)
    assert ensemble.reach("v", np.array([0.5])) == pytest.approx(1.645 * 1.0, rel=0.06)
    assert ensemble.reach("v", np.array([3.0])) >= 1.6 * 3.0  # none gets narrower
    steady = targets(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))  # a source in which nothing alternates
    assert taught(steady).tolist() == [[1] * 6] * 2
    assert torch.equal(steady[:, 1:3], steady[:, 4:])
