"""What chapter 02 draws and compares: octahedra, the explorer's sprite, and elastic images against frozen phonons."""

import base64
import io

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from unitcell.abf.abf_comparisons import departures, depth_statistics, differences, member_again, member_at
from unitcell.abf.simulation import simulate_stack, tilt_grid
from unitcell.book.drawing import octahedra_block
from unitcell.book.explorer import explorer_html, sprite_sheet
from unitcell.crystals import tilted_perovskite
from unitcell.errors import InputError
from unitcell.scattering import Microscope


@pytest.fixture(scope="module")
def stack():
    return simulate_stack(tilt_grid(10.0), [20.0, 60.0, 200.0], Microscope(), k_points=(2, 1), progress=False)


def test_octahedra_share_corners():
    for tilts in ((0, 0, 0), (8, -3, 5)):
        centres, vertices = octahedra_block(tilted_perovskite(*tilts))
        assert vertices.shape == (8, 6, 3)
        assert np.linalg.norm(vertices - centres[:, None], axis=2) == pytest.approx(0.5, abs=0.02)
        apart = np.linalg.norm(vertices.reshape(-1, 1, 3) - vertices.reshape(1, -1, 3), axis=2)
        assert (apart < 1e-6).sum() == 48 + 2 * 12  # each of the 12 inner corners belongs to two octahedra


def test_sprite_holds_each_distinct_image_once(stack):
    keys, sprite, limits = sprite_sheet(stack)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite))))
    assert len(keys) == 8
    assert sheet.shape == (3 * 40, 8 * 28)
    shown = sheet[40:80, keys["1,1,0"] * 28 :][:, :28] / 255 * np.ptp(limits[1]) + limits[1, 0]
    assert shown == pytest.approx(member_at(stack, 10, 0, 0).abf.values[1], abs=float(np.ptp(limits[1])) / 500)


def test_explorer_is_whole_and_starts_where_told(stack):
    page = explorer_html(stack, "a <caption>", 'an "alt"', {"beta": -10, "thickness": 210})
    assert "@" not in page
    assert "a &lt;caption&gt;" in page
    assert 'aria-label="an &quot;alt&quot;"' in page
    assert 'name="beta" min="-10.0" max="10.0" step="10.0" value="-10.0"' in page
    assert 'name="thickness" min="0" max="2" step="1" value="2"' in page


def test_explorer_wants_a_grid(stack):
    with pytest.raises(InputError, match="more than one γ"):
        explorer_html(stack.isel(tilt=[0]), "", "")
    with pytest.raises(InputError, match="full grid"):
        explorer_html(xr.concat([stack, stack], dim="tilt"), "", "")


def test_a_member_equals_its_simulation(stack):
    assert member_again(stack, 10, -10, 10) < 1e-6
    stack.abf[5, 1, 2, 3] += 0.01
    assert member_again(stack, *(float(stack[n][5]) for n in ("alpha", "beta", "gamma"))) == pytest.approx(
        0.01, rel=1e-3
    )
    stack.abf[5, 1, 2, 3] -= 0.01


def test_differences_are_per_cent_of_the_mean():
    image = np.array([[1.0, 3.0]])
    assert differences(image + np.array([[0.2, -0.2]]), image) == pytest.approx((10.0, 0.0))
    assert differences(1.1 * image, image)[1] == pytest.approx(10.0)
    assert departures([[image], [image], [1.1 * image]])[0] == pytest.approx([0.0])


def test_depth_statistics_find_what_was_put_in(stack):
    fine = stack.assign_coords(gamma=("tilt", stack.gamma.values / 2))
    mean = fine.abf.mean(("y", "x"))
    weaker = 0.9 * (mean + 0.8 * (fine.abf - mean))
    phonons = weaker.to_dataset(name="abf").assign(abf_error=0.02 * mean + 0 * fine.abf)
    found = depth_statistics(fine, phonons)
    assert found.excess.values == pytest.approx(100 / 0.9 - 100, rel=1e-4)
    assert found.kept.values == pytest.approx(0.8, rel=1e-4)
    assert found.noise.values == pytest.approx(2 / 0.9, rel=1e-2)
    assert found.tilt_signal.values.min() > 0.1
    assert (depth_statistics(fine, fine.assign(abf_error=0 * fine.abf)).departure == 0).all()
