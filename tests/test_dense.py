"""The dense map: one pass equal to window by window, the frame, the cell's average, and what the weights read."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from synthetic_abf import A_A, synthetic_abf
from torch import nn
from unitcell.artefacts import load_dataset, save_dataset
from unitcell.crystals.tilt_coordinates import softened, to_projection
from unitcell.data import fetch
from unitcell.errors import InputError
from unitcell.micrographs.images import StemImage
from unitcell.networks.paper_network import PaperNetwork
from unitcell.networks.training_library import SimulatedCells
from unitcell.networks.training_loop import train
from unitcell.networks.training_windows import Conditions
from unitcell.project import project_root
from unitcell.registration.lattice import extract_windows, register
from unitcell.tilts.dense import (
    TILTS,
    WINDOW_SHAPE,
    cell_average,
    dense_map,
    dense_network,
    dense_tilts,
    frame_image,
    load_dense_network,
    sizes,
)
from unitcell.tilts.dense_training import DenseRecipe, dense_training, drawn, split_cells, targets, unseen_errors

WEIGHTS = project_root() / "support/unitcell/weights/dense_network.safetensors"
NETWORKS = {
    "average, without a remainder": lambda: dense_network(8, 16),
    "maximum, with a remainder": lambda: PaperNetwork(4, 8, (41, 56), "max", padding="valid", kernel=3),
    "the paper's kernels": lambda: PaperNetwork(4, 8, (51, 52), outputs=2, padding="valid"),
}


def trained_by_chance(make, seed=0):
    """A network with normalisations that do something."""
    torch.manual_seed(seed)
    network = make()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.bias)
    return network.eval()


@torch.inference_mode()
def window_by_window(network, image):
    """What the network itself says of every window, in double precision."""
    windows = image.double().unfold(0, network.shape[0], 1).unfold(1, network.shape[1], 1)
    network = network.double()
    answers = torch.stack([network(row) for row in windows])
    network.float()
    return answers


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tile", [7, 256])
def test_one_pass_equals_window_by_window(name, tile):
    network = trained_by_chance(NETWORKS[name])
    image = torch.randn(67, 75, dtype=torch.float64)
    reference = window_by_window(network, image)
    assert reference.std() > 0.05
    exact = dense_tilts(image, network, tile=tile, dtype=torch.float64, progress=False)
    assert exact.shape == reference.shape
    assert float((exact - reference).abs().max()) < 1e-8
    single = dense_tilts(image, network, tile=tile, progress=False)
    assert single.dtype == torch.float32
    # Of the softened sizes, in degrees.
    assert 5 * float((single - reference).abs().max()) < 1e-3


def test_windows_with_holes_are_nan_and_others_are_not_touched():
    network = trained_by_chance(NETWORKS["average, without a remainder"])
    image = torch.randn(80, 90)
    whole = dense_tilts(image, network, progress=False)
    image[60, 70] = torch.nan
    holed = dense_tilts(image, network, tile=16, progress=False)
    rows, columns = np.indices(whole.shape[:2])
    here = (rows <= 60) & (rows > 60 - WINDOW_SHAPE[0]) & (columns <= 70) & (columns > 70 - WINDOW_SHAPE[1])
    np.testing.assert_array_equal(torch.isnan(holed).all(-1).numpy(), here)
    np.testing.assert_allclose(holed[~here], whole[~here], atol=1e-5)


def test_padded_networks_and_small_frames_are_refused():
    with pytest.raises(InputError, match="padding 'same'"):
        dense_tilts(torch.zeros(80, 90), PaperNetwork(4, 8, (40, 56)))
    with pytest.raises(InputError, match="38 × 54"):
        dense_tilts(torch.zeros(37, 90), dense_network(4, 8))
    with pytest.raises(InputError, match="at least 49"):
        PaperNetwork(4, 8, (48, 80), padding="valid")


def test_frame_holds_the_windows_of_the_lattice():
    image, _ = synthetic_abf(rotation_deg=17, drift_A=0.1, noise=0.05)
    lattice = register(image, A_A)
    frame = frame_image(image, lattice)
    windows = extract_windows(image, lattice)
    seen, likeness = 0, []
    for window, column in zip(windows, lattice.b_columns.itertuples(), strict=True):
        top = 20 * (column.row - frame.first[1]) - 20
        left = 14 * (column.col - frame.first[0]) - 28
        part = frame.intensity[top : top + 40, left : left + 56]
        if np.isfinite(window).all() and np.isfinite(part).all():
            seen += 1
            likeness.append(np.corrcoef(window.ravel(), part.ravel())[0, 1])
    assert seen > 20
    # A window follows one local affine map, the frame the lattice throughout; a corner's map is the least certain.
    assert np.quantile(likeness, 0.05) > 0.998
    x, y = frame.positions(*np.array([[120.0, 100.0], [100.0, 90.0]]))
    sampled = ndimage.map_coordinates(ndimage.gaussian_filter(image.intensity, 0.5 * np.sqrt(1.95**2 - 1)), [y, x])
    np.testing.assert_allclose(frame.intensity[[120, 100], [100, 90]], sampled, rtol=0.02)


def test_cell_average_is_scipys_where_nothing_is_missing():
    maps = np.random.default_rng(0).normal(size=(70, 90, 2))
    kernel = np.ones((21, 29))
    kernel[[0, -1]] /= 2
    kernel[:, [0, -1]] /= 2
    expected = ndimage.convolve(maps[..., 1], kernel / kernel.sum())
    found = cell_average(maps)
    np.testing.assert_allclose(found[15:-15, 15:-15, 1], expected[15:-15, 15:-15], atol=1e-12)
    np.testing.assert_allclose(found[0, 0, 0], (maps[:11, :15, 0] * kernel[10:, 14:]).sum() / kernel[10:, 14:].sum())


@pytest.mark.parametrize("step", [1, 2, 4])
def test_cell_average_is_blind_to_periods_of_a_cell_and_to_nan(step):
    y, x = np.mgrid[:80:step, :100:step]
    maps = (3 + np.cos(2 * np.pi * y / 20) + np.sin(2 * np.pi * x / 14 + 1))[..., None]
    inner = (slice(20 // step, -20 // step),) * 2
    np.testing.assert_allclose(cell_average(maps, step)[inner], 3, atol=1e-12)
    maps[10, 12] = np.nan
    found = cell_average(np.where(np.isnan(maps), np.nan, 7.0), step)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(maps))
    np.testing.assert_allclose(found[np.isfinite(found)], 7)


def test_a_step_that_does_not_divide_a_cell_is_refused():
    with pytest.raises(InputError, match="step of 3"):
        cell_average(np.zeros((50, 50, 1)), 3)


def test_targets_are_sizes_and_u_is_not_taught_where_tilts_alternate():
    projection = torch.tensor([[3.0, -4.0, 5.0, 0.0], [-3.0, 4.0, -5.0, 2.0]])
    wanted = targets(projection)
    np.testing.assert_allclose(5 * wanted[0], softened(np.array([3.0, 4.0, 5.0])), rtol=1e-6)
    assert torch.isnan(wanted[1]).tolist() == [False, True, False]
    np.testing.assert_allclose(sizes(wanted[0].numpy()), [3, 4, 5], rtol=1e-6)
    assert sizes(np.array([-0.1]))[0] == 0


def library_cells():
    """Simulated cells from the committed phonon library, as the training sees cells."""
    stack = load_dataset(fetch("abf_library_phonons"), ("abf",))
    angles = np.stack(to_projection(stack.alpha, stack.beta, stack.gamma), axis=-1)
    images = np.round(stack.abf.values[:, 5:15] * 65535).astype(np.uint16)
    depths = np.tile(stack.thickness.values[5:15], (len(images), 1))
    projection = np.column_stack([angles, np.zeros(len(angles))])
    return SimulatedCells(images, projection, depths, {"lattice_A": stack.attrs["lattice_A"]})


def test_windows_are_standardised_as_the_image():
    sharp = Conditions(dose=(1e9, 1e9), magnification=0.0, shear=0.0, rotation_deg=0.0, crop_A=4.0, jitter_A=0.0)
    windows, _ = drawn(library_cells(), 400, sharp, torch.Generator().manual_seed(0), WINDOW_SHAPE)
    assert windows.shape == (400, *WINDOW_SHAPE)
    means = windows.mean((1, 2))
    assert float(means.std()) > 0.005  # a window of 38 × 54 is not standardised by itself,
    assert float(means.abs().max()) < 0.15  # but nearly


def test_training_reduces_its_loss_and_errors_are_of_other_structures():
    cells, other = split_cells(library_cells(), 25)
    assert (len(cells), len(other)) == (1000, 250)
    assert not set(map(tuple, cells.projection.tolist())) & set(map(tuple, other.projection.tolist()))
    recipe = DenseRecipe(4, 8, windows=640, batch=16, bfloat16=False)
    network, history = train(dense_training(cells, recipe), progress=False)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    for parameter in network.outputs.parameters():
        nn.init.zeros_(parameter)
    found = unseen_errors(network, other, count=400)  # of one that always says zero
    assert found["rms_gamma_abs_deg"] == pytest.approx(float(other.projection[:, 2].square().mean().sqrt()), rel=0.1)


def crystal_image(alpha, beta, gamma, *, rotation_deg=10.0, pixel_A=0.15, side=400, dose=1e5):
    """A noisy StemImage of SrTiO3 at 200 Å of the phonon library, blurred by 0.3 Å; and its tilts' sizes."""
    stack = load_dataset(fetch("abf_library_phonons"), ("abf",)).sel(thickness=200.0)
    here = (stack.alpha == alpha) & (stack.beta == beta) & (stack.gamma == gamma)
    cell = ndimage.gaussian_filter(stack.abf.values[here.values][0], 0.3 / 0.196, mode="wrap")
    y, x = (np.mgrid[:side, :side] - side / 2) * pixel_A
    angle = np.radians(rotation_deg)
    along_x, along_y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    pitch = 2 * A_A / 40, np.sqrt(2) * A_A / 28
    ideal = ndimage.map_coordinates(cell, [along_y / pitch[0], along_x / pitch[1]], order=3, mode="grid-wrap")
    counts = np.random.default_rng(0).poisson(ideal * dose * pixel_A**2).astype(np.float32)
    return StemImage(counts, pixel_A, "simulated", simulated=True), np.abs(to_projection(alpha, beta, gamma))


@pytest.fixture(scope="module")
def committed():
    return load_dense_network(WEIGHTS)


@pytest.fixture(scope="module")
def read(committed):
    """Maps of some crystals (α, β, γ) with the sizes that are true."""
    found = {}
    for tilts in [(0, 0, 0), (5, -5, 0), (5, 5, 0), (0, 0, 10), (10, 0, 5)]:
        image, true = crystal_image(*tilts)
        maps = dense_map(image, committed[0], A_A, step=4, progress=False)
        found[tilts] = maps, {name: float(maps[name].median()) for name in TILTS}, true
    return found


def test_committed_weights_tell_v_and_which_crystal_tilts_more(read):
    middles = {tilts: middle for tilts, (_, middle, _) in read.items()}
    for tilts, (_, middle, true) in read.items():
        assert middle["v_abs"] == pytest.approx(true[0], abs=1.5), tilts
    # Of |u| and |γ| it knows little more than the order: its card says how little.
    assert middles[5, 5, 0]["u_abs"] > middles[0, 0, 0]["u_abs"] + 2
    assert middles[0, 0, 10]["gamma_abs"] == pytest.approx(10, abs=2.5)
    assert middles[0, 0, 10]["gamma_abs"] > middles[0, 0, 0]["gamma_abs"] + 4


def test_maps_are_kept_with_units_and_places(read, tmp_path):
    maps, _, _ = read[10, 0, 5]
    save_dataset(maps, tmp_path / "tilt_maps.nc")
    again = load_dataset(tmp_path / "tilt_maps.nc", TILTS)
    assert again.v_abs.attrs["units"] == "degree"
    assert again.v_abs.dtype == np.float32
    centre = again.isel(along_001=again.sizes["along_001"] // 2, along_110=again.sizes["along_110"] // 2)
    assert abs(float(centre.x_px) - 199.5) < 6
    assert abs(float(centre.y_px) - 199.5) < 6
    assert np.isnan(again.v_abs.values[0, 0])  # a corner of the frame is outside the rotated image


def test_card_tells_the_recipe_and_the_errors_on_unseen_structures(committed):
    network, card = committed
    assert sum(p.numel() for p in network.parameters()) < 100_000
    assert WEIGHTS.stat().st_size < 4e6
    for name in TILTS:
        share = {"v_abs": 0.45, "u_abs": 0.78, "gamma_abs": 0.85}[name]
        assert card["test"][f"rms_{name}_deg"] < share * card["test"][f"spread_{name}_deg"]
    assert card["command"].startswith("python -m unitcell.tilts.dense_training")
