"""From an image to the table of tilts, with a network whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_abf import A_A, synthetic_abf
from unitcell.artefacts import load_dataset, load_table, save_dataset, save_table
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.registration.lattice import extract_windows, register
from unitcell.tilts.inference import (
    COLUMNS,
    TILTS,
    disagreements,
    infer_tilts,
    simulated_control,
    summarise,
    tilt_maps,
    untilted_window,
)

CARD = {
    "lattice_A": A_A, "energy_eV": 200e3, "semiangle_mrad": 30.0, "inner_mrad": 15.0, "outer_mrad": 30.0,
    "a_site": "Sr", "b_site": "Ti",
}  # fmt: skip


class MeanReader:
    """A stand-in network: v is the mean of the window, so that every row can be traced to its window."""

    card = CARD

    def predict(self, windows, seed=0):
        assert windows.shape[1:] == (40, 56)
        assert np.isfinite(windows).all()
        centre = windows.mean((1, 2))
        answer = {f"{tilt}_deg": centre for tilt in TILTS}
        answer |= {f"{tilt}_deg_lo": centre - 1 for tilt in TILTS} | {f"{tilt}_deg_hi": centre + 2 for tilt in TILTS}
        return answer | {"ood": np.full(len(windows), 0.25)}


@pytest.fixture(scope="module")
def image():
    return synthetic_abf(rotation_deg=17, noise=0.1)[0]


@pytest.fixture(scope="module")
def tilts(image):
    return infer_tilts(image, MeanReader())


def test_table_has_the_contract_columns_and_a_row_per_b_column(image, tilts):
    assert tuple(tilts.columns) == COLUMNS
    assert len(COLUMNS) == 27
    lattice = register(image, A_A)
    assert len(tilts) == len(lattice.b_columns)
    means = extract_windows(image, lattice).mean((1, 2))
    np.testing.assert_allclose(tilts.v_deg, means, rtol=1e-6)  # NaN in the same rows, the same window in each
    assert 0 < tilts.v_deg.isna().sum() < len(tilts)
    assert tilts.ood.notna().equals(tilts.v_deg.notna())


def test_maps_hold_the_table(image, tilts, tmp_path):
    save_table(tilts, tmp_path / "tilts.csv", decimals=9)
    save_dataset(tilt_maps(tilts, image), tmp_path / "tilt_maps.nc")
    table = load_table(tmp_path / "tilts.csv", COLUMNS).dropna()
    maps = load_dataset(tmp_path / "tilt_maps.nc", TILTS)
    assert maps.attrs["pixel_size_A"] == image.pixel_size_A
    for row in table.itertuples():
        cell = maps.sel(row=row.row, col=row.col)
        assert float(cell.gamma) == pytest.approx(row.gamma_deg, rel=1e-6)
        assert float(cell.x_px) == pytest.approx(row.x_px, rel=1e-6)
    assert all(maps[name].attrs["units"] == "degree" for name in TILTS)


def test_summary_counts_intervals(tilts):
    table = tilts.dropna().head(4).copy()
    table["v_deg_lo"], table["v_deg_hi"] = [-1.0, 0.5, -3.0, -1.0], [1.0, 1.0, -1.0, 0.0]
    table["v_deg"] = [0.0, 0.75, -2.0, -0.5]
    v = summarise(table).loc["v"]
    assert v.contains_zero == 0.5
    assert v.median_deg == -0.25
    assert v.half_width_deg == pytest.approx(0.75)


def test_image_without_a_whole_window_is_refused():
    small, _ = synthetic_abf(shape=(118, 84), noise=0.1)
    with pytest.raises(InputError, match="larger field"):
        infer_tilts(small, MeanReader())


def test_simulated_control_registers_and_shows_the_untilted_window():
    control = simulated_control(CARD, field_A=24.0)
    assert control.simulated
    lattice = register(control, A_A)
    assert lattice.rotation_deg == pytest.approx(90, abs=0.3)
    assert lattice.a_A == pytest.approx(A_A, rel=0.003)
    windows = extract_windows(control, lattice)
    mean = windows[np.isfinite(windows).all((1, 2))].mean(0)
    assert np.corrcoef(mean.ravel(), untilted_window(CARD).ravel())[0, 1] > 0.99


def test_gain_and_offset_do_not_move_the_columns(image, tilts):
    other = StemImage(7 * image.intensity - 3000, image.pixel_size_A, "gain")
    moved = infer_tilts(other, MeanReader())
    np.testing.assert_allclose(moved[["x_px", "y_px"]], tilts[["x_px", "y_px"]], atol=0.02)


def test_an_image_of_another_microscope_is_refused_or_warned_about(image):
    other = replace(image, recorded={"energy_eV": 300e3, "semiangle_mrad": 30.0})
    with pytest.raises(InputError, match="was recorded at 300 kV, the network was trained for 200 kV") as refused:
        infer_tilts(other, MeanReader())
    assert "\n" not in str(refused.value)
    wide = replace(image, recorded={"energy_eV": 200e3, "semiangle_mrad": 21.0})
    assert disagreements(wide, CARD) == [
        "Its probe has 21 mrad, the network was trained for 30 mrad: its intervals may be too narrow."
    ]
    assert disagreements(replace(image, recorded={"energy_eV": 200e3, "semiangle_mrad": 30.5}), CARD) == []
    assert disagreements(image, CARD) == []
