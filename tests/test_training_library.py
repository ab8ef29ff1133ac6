"""Training cells against the simulations that they stand for."""

import numpy as np
import pytest
import torch
from unitcell.abf.simulation import CELL_SHAPE
from unitcell.crystals import tilted_perovskite
from unitcell.crystals.tilt_coordinates import to_pseudocubic
from unitcell.errors import InputError
from unitcell.networks.training_library import (
    STEP,
    Specimens,
    registered,
    seen_tilts,
    simulate_cells,
    specimen_images,
    turned,
)
from unitcell.scattering import Microscope, annular_images, thermal_images
from unitcell.scattering.thermal import RETURNED

PERFECT = Microscope()


def image(projection, signs="---", scope=PERFECT, depth=100.0):
    crystal = tilted_perovskite(*to_pseudocubic(*projection), signs)
    options = {"cutoff_mrad": 50.0, "k_points": (2, 1), "excitation_per_A": 0.0}
    return annular_images(crystal, scope, [depth], CELL_SHAPE, **options)


@pytest.mark.parametrize("signs", ["---", "--+"])
@pytest.mark.parametrize("flips", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_turned_cells_are_other_crystals(signs, flips):
    state = torch.tensor([[4.0, -3.0, 7.0]])
    cells, projection = turned(image(state[0].tolist(), signs), state, torch.tensor([flips]).bool())
    assert projection[0].abs().tolist() == state[0].abs().tolist()
    truth = image(projection[0].tolist(), signs)
    assert cells.numpy() == pytest.approx(truth.numpy(), abs=2e-3)
    assert (image(state[0].tolist(), signs) - truth).abs().max() > 0.02


def test_registration_undoes_shifts():
    cell = image((3.0, 2.0, 5.0))
    qy, qx = torch.fft.fftfreq(CELL_SHAPE[0])[:, None], torch.fft.fftfreq(CELL_SHAPE[1])
    moved = torch.fft.ifft2(torch.fft.fft2(cell) * torch.exp(-2j * np.pi * (1.7 * qy - 2.3 * qx))).real
    assert registered(moved).numpy() == pytest.approx(cell.numpy(), abs=1e-3)
    assert registered(cell).numpy() == pytest.approx(cell.numpy(), abs=2e-3)


def test_specimens_keep_their_ranges_and_seeds():
    drawn = Specimens().draw(300, 5)
    tilts = np.array([specimen["tilts"] for specimen in drawn])
    tilt = np.array([[s["microscope"][f"crystal_tilt_{axis}_mrad"] for axis in "xy"] for s in drawn])
    assert np.abs(tilts).max() <= 12.5
    assert np.mean(tilts == 0) == pytest.approx(0.2, abs=0.05)
    assert np.mean(np.abs(tilts[:, 0]) == np.abs(tilts[:, 1])) == pytest.approx(0.3 * 0.64 + 0.04, abs=0.08)
    assert np.mean(["+" in s["signs"][:2] for s in drawn]) == pytest.approx(0.25, abs=0.08)
    assert np.hypot(*tilt.T).max() <= 5
    assert np.hypot(*tilt.T).mean() == pytest.approx(2.5, abs=0.2)  # even sizes
    assert np.mean([s["material"][0] == "Sr" and s["material"][1] == "Ti" for s in drawn]) == pytest.approx(
        0.4, abs=0.1
    )
    depths = np.array([specimen["depths"] for specimen in drawn])
    assert (depths.min(), depths.max()) == (pytest.approx(20, abs=1), pytest.approx(420, abs=1))
    again = Specimens().draw(300, 5)
    assert all(
        (a["tilts"] == b["tilts"]).all() and a["microscope"] == b["microscope"]
        for a, b in zip(drawn, again, strict=True)
    )


def test_cells_are_the_specimens_images(tmp_path):
    specimens = Specimens(depths=2)
    cells = simulate_cells(3, PERFECT, specimens, seed=1, chunk=2, folder=tmp_path, progress=False)
    assert cells.images.shape == (4, 2, *CELL_SHAPE)
    assert len(cells) == 8
    drawn = specimens.draw(2, 1_000_001)[0]
    truth = specimen_images(drawn, PERFECT.as_attributes())
    stored = cells.images[2].to(torch.int32).bitwise_and(0xFFFF) * STEP
    assert stored.numpy() == pytest.approx(truth, abs=STEP)
    assert cells.projection[2].tolist() == pytest.approx(seen_tilts(drawn["tilts"], drawn["signs"]), rel=1e-6)
    shown, projection, depth = cells.sample(6, torch.Generator().manual_seed(0))
    assert shown.shape == (6, *CELL_SHAPE)
    assert 0 < float(shown.min()) < float(shown.max()) < 1
    assert torch.isin(depth, cells.depths).all()
    assert torch.isin(projection[:, 0].abs(), cells.projection[:, 0].abs()).all()
    assert len(list(tmp_path.glob("*.nc"))) == 2


def test_no_structures_are_refused():
    with pytest.raises(InputError, match="0 training structures cannot be"):
        simulate_cells(0, PERFECT)


def test_tilts_that_alternate_along_the_beam_are_seen_as_their_mean():
    assert seen_tilts((6.0, 4.0, 3.0), "---") == pytest.approx([2 / np.sqrt(2), 10 / np.sqrt(2), 3, 0])
    assert seen_tilts((6.0, 4.0, 3.0), "-++") == pytest.approx([6 / np.sqrt(2), 6 / np.sqrt(2), 3, 4])
    assert seen_tilts((6.0, 4.0, 3.0), "++-") == pytest.approx([0, 0, 3, np.hypot(6, 4)])


def plain_images(signs, tilts, k_shift=(0.0, 0.0)):
    """Training images of SrTiO3 at 150 Å by a perfect microscope."""
    crystal = {"material": ("Sr", "Ti", 3.905), "signs": signs, "tilts": np.array(tilts), "a_shift": (0.0, 0.0)}
    perfect = {"microscope": {}, "k_shift": k_shift, "depths": [150.0], "strain": np.zeros(3), "returned": RETURNED}
    return specimen_images(Specimens().draw(1, 0)[0] | crystal | perfect, PERFECT.as_attributes())


def test_strangers_differ_in_what_is_no_tilt():
    usual, strange = (Specimens(strange=share).draw(200, seed=4) for share in (0.0, 1.0))
    assert {one["apertures"] for one in usual} == {(1.0, 1.0, 1.0)}
    for name in ("signs", "k_shift"):
        assert all(np.array_equal(one[name], other[name]) for one, other in zip(usual, strange, strict=True))
    assert len({one["material"][:2] for one in strange}) > 60
    lattice_A = np.array([one["material"][2] for one in strange])
    assert (lattice_A.min(), lattice_A.max()) == pytest.approx((3.75, 4.05), abs=0.02)
    apertures = np.array([one["apertures"] for one in strange])
    assert np.abs(apertures - 1).max() == pytest.approx(0.08, abs=0.005)
    vibration = np.log([one["vibration"] for one in strange])
    assert np.abs(vibration).max() == pytest.approx(np.log(1.5), abs=0.02)
    half = [one["vibration"] != 1 for one in Specimens(strange=0.5).draw(400, seed=4)]
    assert np.mean(half) == pytest.approx(0.5, abs=0.08)


def test_apertures_and_vibrations_reach_the_image():
    one = Specimens().draw(1, 0)[0] | {"microscope": {}, "depths": [150.0]}
    stated, wider, hotter = (
        specimen_images(one | change, PERFECT.as_attributes())[0]
        for change in ({}, {"apertures": (1.0, 1.0, 1.1)}, {"vibration": 1.5})
    )
    assert wider.mean() > stated.mean() + 0.02  # a larger detector collects more
    assert hotter.std() < stated.std()  # softer columns


def test_an_alternating_specimen_looks_the_same_on_both_sides_of_its_mirror():
    # β alternates: neighbours in depth have +β and −β, so its sign cannot matter.
    one, other = (plain_images("-+-", (5.0, beta, 2.0)) for beta in (6.0, -6.0))
    without = plain_images("-+-", (5.0, 0.0, 2.0))
    assert np.abs(one - other).max() < 0.02
    assert np.abs(one - without).max() > 0.03


def test_registration_leaves_a_cell_whose_b_column_is_lighter_than_its_oxygens():
    y, x = torch.meshgrid(torch.arange(40.0) - 20, torch.arange(28.0) - 14, indexing="ij")

    def spots(dx, dark):
        return dark * torch.exp(-(((x + dx) % 14 - 7) ** 2 + (y % 20 - 10) ** 2) / 8)

    light = (1 - spots(7, 0.02) - spots(3, 0.5))[None]
    assert registered(light).numpy() == pytest.approx(light.numpy(), abs=1e-3)


def test_few_k_points_at_random_err_little_and_not_alike():
    tilts = (6.7, -8.4, -1.7)
    options = {"cutoff_mrad": 50, "k_points": (5, 4), "excitation_per_A": 0}
    fine = registered(thermal_images(tilted_perovskite(*tilts), PERFECT, [150.0], CELL_SHAPE, **options)).numpy()[0]
    shifts = np.random.default_rng(0).random((8, 2))
    wrong = [plain_images("---", tilts, shift)[0] - fine for shift in shifts]
    each = np.sqrt(np.mean(np.square(wrong), axis=(1, 2))) / fine.std()
    assert each.max() < 0.08
    assert np.sqrt(np.mean(np.mean(wrong, axis=0) ** 2)) / fine.std() < 0.6 * each.mean()
