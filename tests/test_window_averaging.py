"""Windows that show the same are averaged, others are not, and noise falls by what the numbers say."""

import numpy as np
import pandas as pd
import pytest
from unitcell.networks.tilt_network import load_network
from unitcell.tilts.inference import _kept_variance, infer_tilts, simulated_control
from unitcell.tilts.window_averaging import REACH_CELLS, WindowStore, alike

ROWS, COLS, K, SHAPE = 12, 24, 8, (10, 14)


@pytest.fixture(scope="module")
def basis():
    return np.linalg.qr(np.random.default_rng(0).normal(size=(np.prod(SHAPE), K)))[0]


def windows_of(basis, label, noise, seed=1):
    """Windows of what a label says, alternating over 2 × 2 columns, with white noise: (n, rows, cols)."""
    generator = np.random.default_rng(seed)
    row, col = (each.ravel() for each in np.indices(label.shape))
    shown = generator.normal(size=(label.max() + 1, 2, 2, K))
    clean = shown[label.ravel(), row % 2, col % 2] @ basis.T
    return row, col, (clean + generator.normal(scale=noise, size=clean.shape)).reshape(-1, *SHAPE)


def weights_of(basis, label, noise):
    row, col, windows = windows_of(basis, label, noise)
    store = WindowStore(basis)
    store.add(windows)
    return row, col, alike(np.concatenate(store.scores), np.concatenate(store.noise), row, col), store


def test_equal_windows_are_averaged_and_their_noise_falls(basis):
    row, col, windows = windows_of(basis, np.zeros((ROWS, COLS), int), 0.2)
    store = WindowStore(basis)
    store.add(windows)
    mean, number = (np.concatenate(part) for part in zip(*store.averages(row, col), strict=True))
    middle = (row > 5) & (row < 7) & (col > 8) & (col < 16)
    within = sum(np.hypot(2 * j, 2 * i / np.sqrt(2)) <= REACH_CELLS for i in range(-4, 5) for j in range(-2, 3))
    assert number[middle].min() > 0.6 * within
    same = middle & (col % 2 == 0)
    scatter, own = (each[same].std(0).mean() for each in (mean, np.concatenate(store.parts).astype(float)))
    assert scatter < 0.5 * own


def test_nothing_is_averaged_across_a_wall_that_can_be_seen(basis):
    label = np.zeros((ROWS, COLS), int)
    label[:, COLS // 2 :] = 1
    row, col, weights, _ = weights_of(basis, label, 0.2)
    i, j = weights.nonzero()
    assert (label[row[i], col[i]] == label[row[j], col[j]]).all()
    assert ((row[i] - row[j]) % 2 == 0).all()
    assert ((col[i] - col[j]) % 2 == 0).all()
    np.testing.assert_allclose(weights.diagonal(), 1)


def test_windows_that_are_not_whole_neither_give_nor_take(basis):
    row, col, windows = windows_of(basis, np.zeros((ROWS, COLS), int), 0.2)
    windows[5] = np.nan
    store = WindowStore(basis)
    store.add(windows[:100])
    store.add(windows[100:])
    mean, number = (np.concatenate(part) for part in zip(*store.averages(row, col, chunk=50), strict=True))
    assert np.isnan(mean[5]).all()
    assert np.isnan(number[5])
    assert np.isfinite(np.delete(mean, 5, 0)).all()
    assert (np.delete(number, 5) >= 1 - 1e-6).all()


def test_a_window_without_neighbours_stays_as_it_is(basis):
    store = WindowStore(basis)
    store.add(windows_of(basis, np.zeros((1, 1), int), 0.1)[2])
    ((mean, number),) = store.averages(np.array([7]), np.array([3]))
    np.testing.assert_allclose(mean, store.parts[0], atol=1e-6)
    assert number == pytest.approx([1])


def test_tilts_of_a_noisy_crystal_scatter_less_within_narrower_intervals():
    network = load_network()
    image = simulated_control(network.card, field_A=36.0, pixel_size_A=0.12, dose=2e4)
    averaged, alone = (infer_tilts(image, network, averaged=each).dropna() for each in (True, False))
    assert averaged.windows_averaged.median() > 3
    assert (alone.windows_averaged == 1).all()
    assert averaged.v_deg.std() < 0.7 * alone.v_deg.std()
    for name in ("v", "u", "gamma"):
        np.testing.assert_allclose(averaged[f"{name}_own_deg"], alone[f"{name}_deg"], atol=1e-6)
        half = averaged[f"{name}_deg_hi"] - averaged[f"{name}_deg"]
        narrower = (half / (alone[f"{name}_deg_hi"] - alone[f"{name}_deg"])) ** 2
        shares = (1 - narrower) / (1 - 1 / averaged.windows_averaged)  # kept: 1 − r (1 − 1/n), r that of the image
        assert np.ptp(shares) < 1e-6
        assert 0.05 < shares.mean() < 0.9
    np.testing.assert_allclose(averaged.ood, alone.ood)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_the_share_of_noise_is_found_from_own_readings_and_averages(share):
    generator, count, n, sigma = np.random.default_rng(2), 4000, 9.0, 1.5
    common = generator.normal(size=count) * sigma * np.sqrt(1 - share)
    of_average = generator.normal(size=count) * sigma * np.sqrt(share / n)
    rest = generator.normal(size=count) * sigma * np.sqrt(share * (1 - 1 / n))  # of its n windows, one is the own
    average, own = common + of_average, common + of_average + rest
    table = pd.DataFrame({"windows_averaged": n, "v_own_deg": 5 + own, "v_deg": 5 + average})
    table = table.assign(u_own_deg=6.0, u_deg=6.0, gamma_own_deg=5.0, gamma_deg=5.0)
    half = {name: pd.Series(1.645 * sigma, table.index) for name in ("v", "u", "gamma")}
    kept = _kept_variance(table, half)
    assert kept["v"].to_numpy() == pytest.approx(1 - share * (1 - 1 / n), abs=0.04)
    assert kept["u"].to_numpy() == pytest.approx(1.0)
    assert np.std(average) == pytest.approx(sigma * np.sqrt(kept["v"][0]), rel=0.1)
    assert kept["alpha"].to_numpy() == pytest.approx((kept["v"] + kept["u"]) / 2)
