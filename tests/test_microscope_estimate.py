"""The apertures that an image of a known crystal looks like."""

import numpy as np
import pytest
import torch
from unitcell.errors import InputError
from unitcell.networks.microscope_estimate import (
    SEARCHED,
    _Comparison,
    estimate_microscope,
    known_crystal,
    refined,
    save_microscope,
)
from unitcell.networks.your_microscope import load_microscope_file
from unitcell.scattering import Microscope

CRYSTAL = ("Sr", "Ti", 3.905)
TRUE = {
    "semiangle_mrad": 22.0, "inner_mrad": 11.0, "outer_mrad": 23.0, "defocus_A": -10.0, "coma_x_A": 60.0,
    "crystal_tilt_y_mrad": 2.0, "thickness_A": 200.0, "log_source_A": -1.3, "log_ellipticity": 0.2, "source_rad": 0.5,
}  # fmt: skip


def point(values):
    return np.array([values.get(name, 0.0) for name in SEARCHED])


@pytest.fixture(scope="module")
def window():
    torch.set_num_threads(1)
    return _Comparison(np.eye(40, 56), CRYSTAL, 2e5).window(point(TRUE)).numpy()


@pytest.fixture(scope="module")
def end(window):
    begin = TRUE | {"semiangle_mrad": 20.0, "inner_mrad": 10.0, "outer_mrad": 20.0, "thickness_A": 230.0}
    begin |= {"defocus_A": 0.0, "coma_x_A": 0.0, "crystal_tilt_y_mrad": 0.0}
    return refined(_Comparison(window, CRYSTAL, 2e5), begin, steps=8)


def test_the_true_microscope_explains_all_and_the_books_does_not(window):
    comparison = _Comparison(window, CRYSTAL, 2e5)
    assert comparison.estimate(point(TRUE)).residual < 1e-9
    books = TRUE | {"semiangle_mrad": 30.0, "inner_mrad": 15.0, "outer_mrad": 30.0}
    assert comparison.estimate(point(books)).residual > 0.02


def test_the_search_finds_it_from_nearby(end):
    assert end.residual < 1e-3
    assert end.values["semiangle_mrad"] == pytest.approx(22, abs=1)  # a plainer lens is preferred: 21.3
    assert end.values["inner_mrad"] == pytest.approx(11, abs=1)
    assert end.values["thickness_A"] == pytest.approx(200, abs=15)
    assert end.values["defocus_A"] == pytest.approx(-10, abs=10)  # a plainer lens again: no coma, defocus −1 Å


def test_its_file_serves_unitcell_train(end, tmp_path):
    path = save_microscope(end, CRYSTAL, 3e5, tmp_path / "mine.yml")
    scope, specimens = load_microscope_file(path)
    assert scope == Microscope(3e5, *(round(end.values[name], 1) for name in list(SEARCHED)[:3]))
    assert specimens.materials == (CRYSTAL,)
    assert specimens.thickness_A[1] >= 1.5 * end.values["thickness_A"] - 5


@pytest.mark.parametrize("text", ["", "Sr", "Sr,Ti", "Sr,Ti,x", "Sr,Qq,3.9", "Sr,Ti,39"])
def test_other_crystals_are_refused(text):
    with pytest.raises(InputError, match="is no crystal: give A cation"):
        known_crystal(text)


@pytest.mark.parametrize("window", [np.zeros((40, 40)), np.full((40, 56), np.nan)])
def test_other_windows_are_refused(window):
    with pytest.raises(InputError, match="give a finite one"):
        estimate_microscope(window)
