"""Rows between two crystals: stacks of layers, what is read of them, and which rows are read so."""

import numpy as np
import pandas as pd
import pytest
from unitcell.known_crystals import gaps
from unitcell.known_crystals.columns import Claim
from unitcell.known_crystals.interfaces import QUICK, USUAL_OF_NEXT, Interface, _unlike, between, shown
from unitcell.known_crystals.layers import Row, Stack, mirrored, moved
from unitcell.known_crystals.materials import parse_material
from unitcell.known_crystals.sought import MEAN, NAMES, PLACE, ROUGH, recorded, simulated
from unitcell.known_crystals.specimen_fit import SpecimenFit
from unitcell.scattering import Microscope

STO, LAO = parse_material("Sr,Ti,3.905"), parse_material("La,Al,3.82")
THICKNESS_A = 60.0


def fit_of(material, tilts=(0.0, 0.0, 0.0), signs="---", cost=100.0):
    """A fit of a crystal, without what single windows are read by."""
    x = MEAN.copy()
    x[[0, 1, 2, PLACE["thickness_A"]]] = *tilts, THICKNESS_A
    x[[PLACE["source_xx_A2"], PLACE["source_yy_A2"]]] = 0.05
    return SpecimenFit(dict(zip(NAMES, x, strict=True)), material, signs, cost, np.eye(3), np.zeros(2240), np.zeros(0))


@pytest.mark.parametrize("signs", ["---", "--+", "-+-"])
def test_a_stack_of_equal_rows_is_the_crystal(signs):
    tilts = (-2.0, 9.0, 6.0)
    fit = fit_of(LAO, tilts, signs)
    image = Stack(fit, fit, Microscope()).image([Row(tilts, signs, 0.0)] * 4, False, ROUGH)
    crystal = recorded(simulated(fit.point, (LAO, signs, Microscope()), ROUGH), fit.point, LAO.lattice_A)[0]
    own, above = (image.windows(which, np.zeros((1, 6)))[0] for which in (0, 1))
    assert np.sqrt(np.mean((own - crystal) ** 2)) < 0.04  # beams are averaged over other directions
    # The next row's window shows the same, with γ the other way round where '+' acts about c.
    fit.values["gamma_deg"] *= -1 if signs[2] == "+" else 1
    next_row = recorded(simulated(fit.point, (LAO, signs, Microscope()), ROUGH), fit.point, LAO.lattice_A)[0]
    assert np.sqrt(np.mean((above - next_row) ** 2)) < 0.04


def test_odd_rows_are_asked_for_what_their_windows_show():
    tilts = 1.0, 5.0, 4.0
    for signs, at, wanted in (("---", 1, tilts), ("--+", 2, tilts), ("--+", 3, (1.0, 5.0, -4.0))):
        row = Row(tilts, signs, 0.0)
        assert row.asked(tilts, at) == wanted
        assert row.asked(row.asked(tilts, at), at) == tilts
    fit = fit_of(LAO, (0.0, 7.0, 4.0), "--+")
    assert [gaps._anchor(fit, at, 0.0).tilts for at in (4, 5)] == [(0.0, 7.0, 4.0), (0.0, 7.0, -4.0)]


def test_compositions_go_over_from_one_crystal_to_the_other():
    stack = Stack(fit_of(STO), fit_of(LAO), Microscope())
    windows = [stack.image([Row((0.0, 0.0, 0.0), "---", share)] * 4, False, QUICK) for share in (0.0, 0.5, 1.0)]
    pitches = [image.pitches_A[0][0] for image in windows]
    assert pitches == pytest.approx([3.905, (3.905 + 3.82) / 2, 3.82], abs=1e-3)
    bulk = fit_of(LAO)
    crystal = recorded(simulated(bulk.point, (LAO, "---", Microscope()), ROUGH), bulk.point, LAO.lattice_A)[0]
    away = [np.sqrt(np.mean((image.windows(0, np.zeros((1, 6)))[0] - crystal) ** 2)) for image in windows]
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.04


def test_octahedra_of_equal_rows_are_turned_as_their_layers_ask():
    rows = {at: Row((-1.0, 5.0, 4.0), "---", 0.0) for at in range(2, 8)}
    np.testing.assert_allclose(shown(rows, [3, 4]), [[-1, 5, 4, 0]] * 2, atol=1e-9)
    rows = {at: Row((0.0, 8.0, 4.0), "-+-", 0.0) for at in range(2, 8)}  # α = β = 5.7°, β alternates along the beam
    np.testing.assert_allclose(shown(rows, [3, 4]), [[4, 4, 4, 8 / 2**0.5]] * 2, atol=1e-9)
    twice = mirrored(mirrored(rows[2]))
    assert twice == rows[2]
    mirror = shown({at: mirrored(row) for at, row in rows.items()}, [3])
    np.testing.assert_allclose(mirror, [[4, -4, -4, 8 / 2**0.5]], atol=1e-9)


def test_a_single_turned_row_shows_half_of_what_it_asks_about_the_beam():
    rows = {at: Row((0.0, 0.0, 0.0), "---", 0.0) for at in range(4)}
    rows[1] = Row((0.0, 0.0, 8.0), "---", 0.0)
    assert shown(rows, [1])[0, 2] == pytest.approx(8.0)  # about the normal of the rows, corners are its own
    rows[1] = Row((0.0, 8.0, 0.0), "---", 0.0)
    assert shown(rows, [1])[0, 1] == pytest.approx(6.0)  # one pair of four corners is shared with rows at rest


@pytest.fixture(scope="module")
def interface():
    """Two rows between SrTiO3 and LaAlO3, their true rows, and their noisy windows."""
    stack = Stack(fit_of(STO), fit_of(LAO, (0.0, 7.0, 4.0)), Microscope())
    rest, turned = Row((0.0, 0.0, 0.0), "---", 0.0), Row((0.0, 7.0, 4.0), "---", 1.0)
    true = {0: rest, 1: Row((0.5, 4.0, 2.0), "---", 0.0), 2: Row((-1.0, 6.0, 5.0), "---", 0.75), 3: turned, 4: turned}
    generator, blank = np.random.default_rng(0), Interface(stack, {}, {})
    noise = dict.fromkeys((1, 2), 0.05**2)
    seen = {
        at: each + generator.normal(0, 0.05, each.shape) for at, (each, _) in blank.windows(true, noise, QUICK).items()
    }
    return Interface(stack, seen, noise), true


def test_the_cost_is_least_at_the_truth_and_falls_along_its_slopes(interface):
    problem, true = interface
    curvature, pull = problem.system(true, problem.slopes(true, QUICK), QUICK)
    assert np.linalg.eigvalsh(curvature).min() > 0
    least = problem.cost(true)
    for step in np.diag([1.0, 2.0, 2.0, 0.25, 1.0, 2.0, 2.0, -0.25]):
        away = {at: moved(true[at], by) for at, by in zip((1, 2), step.reshape(2, 4), strict=True)}
        assert problem.cost({**true, **away}) > least
    assert np.abs(np.linalg.solve(curvature, pull)).max() < 0.5


def test_slopes_say_what_a_step_changes_in_each_window():
    stack = Stack(fit_of(STO), fit_of(LAO, (0.0, 7.0, 4.0)), Microscope())
    tilts = [(0.0, 0.0, 0.0), (0.5, 3.0, 2.0), (-1.0, 4.0, 3.0), (0.5, 5.0, 3.0), (1.0, 6.0, 4.0), (0.0, 7.0, 4.0)]
    rows = {at: Row(one, "---", at / 6) for at, one in enumerate([*tilts, tilts[-1]])}
    problem = Interface(stack, {at: np.zeros(2240) for at in range(1, 5)}, {at: 0.01 for at in range(1, 5)})
    here, slopes = problem.windows(rows, problem.seen, QUICK), problem.slopes(rows, QUICK)
    for at, axis in ((1, 2), (3, 1), (4, 3)):
        by = np.zeros(4)
        by[axis] = 0.05 if axis == 3 else 0.35
        there = problem.windows({**rows, at: moved(rows[at], by)}, problem.seen, QUICK)
        for row in problem.seen:
            change, said = there[row][0] - here[row][0], slopes[row][:, 4 * (at - 1) + axis] * by[axis]
            size = max(np.linalg.norm(there[at][0] - here[at][0]), 1e-9)
            assert np.linalg.norm(change - said) < 0.5 * size
            assert (np.abs(said).max() == 0) == (abs(row - at) > 1)


def test_rows_between_two_crystals_are_read(interface):
    problem, true = interface
    anchors = {at: true[at] for at in (0, 3, 4)}
    rows, tilts, covariance = between(problem, anchors, {1: (0.0, 0.3, 3.0), 2: (0.0, 2.0, 7.0)})
    wanted = shown(true, [1, 2])
    np.testing.assert_allclose(tilts[:, 0], wanted[:, 0], atol=0.4)
    np.testing.assert_allclose(tilts[:, 1:3], wanted[:, 1:3], atol=1.2)
    assert [rows[at].share for at in (1, 2)] == pytest.approx([0.0, 0.75], abs=0.12)
    assert (np.sqrt(np.einsum("nii->ni", covariance)) < 2).all()
    assert max(problem.excess(rows, QUICK).values()) < 0.08


def test_rows_that_share_corners_are_seldom_far_apart():
    here = Row((1.0, 6.0, 4.0), "---", 0.0)
    for above, apart in (
        (Row((1.0, 6.0, -4.0), "---", 0.0), [0, 0, -8]),
        (Row((1.0, 6.0, -4.0), "--+", 0.0), [0, 0, 0]),  # γ of either sign: a tilt of another kind
        (Row((6.0, 1.0, 5.0), "-+-", 0.0), [0, 0, 1]),  # β of the other sign: v and u exchanged
        (Row((-6.0, -1.0, 5.0), "+--", 0.0), [0, 0, 1]),  # α of the other sign
        (Row((6.0, 1.0, 5.0), "---", 0.0), [5, -5, 1]),
    ):
        found, of_here, of_above = _unlike(here, above)
        np.testing.assert_allclose(found * USUAL_OF_NEXT, apart, atol=1e-12)
        by = np.array([0.1, -0.2, 0.3])
        for row, slope in ((moved(here, [*by, 0]), of_here), (moved(above, [*by, 0]), of_above)):
            pair = (row, above) if slope is of_here else (here, row)
            np.testing.assert_allclose(_unlike(*pair)[0] - found, slope @ by, atol=1e-9)
        assert np.linalg.norm(_unlike(mirrored(here), mirrored(above))[0]) == pytest.approx(np.linalg.norm(found))


def image_of(owned):
    """Claims and rows of an image with twelve columns, of which a number in each row is explained by some fit."""
    rows = np.repeat(np.arange(len(owned)), 12)
    fits = {name: fit for name, fit in (("a", fit_of(STO)), ("b", fit_of(LAO, (0.0, 7.0, 4.0))))}
    claims = []
    for name, fit in fits.items():
        places = [12 * at + col for at, (of, count) in enumerate(owned) if of == name for col in range(count)]
        claims.append(Claim(fit, np.array(places, int), np.zeros((len(places), 4)), np.ones((len(places), 4))))
    return rows, claims, fits


@pytest.mark.parametrize(
    ("owned", "read"),
    [
        ("aaaa..bbbb", [[3, 4, 5, 6]]),  # the last row of either crystal is read again
        ("aaaabbbb", [[3, 4]]),
        ("aaaa..aaaa", []),
        ("..aaaa.b..", [[5, 6]]),  # what lies beyond an image, or a single row, is not known
        ("aaa" + 9 * "." + "bbb", []),  # too many to be an interface
    ],
)
def test_which_rows_are_read_as_an_interface(owned, read):
    rows, claims, _ = image_of([(name, 12) for name in owned])
    owners = gaps._owners(rows, claims, np.ones(len(rows), bool))
    assert sorted(owners) == [at for at, name in enumerate(owned) if name != "."]
    assert gaps._gaps(owners) == read


def test_a_row_of_which_little_is_explained_has_no_owner():
    rows, claims, fits = image_of([("a", 12), ("a", 9), ("b", 10), ("b", 12)])
    owners = gaps._owners(rows, claims, np.ones(len(rows), bool))
    assert owners == {0: fits["a"], 2: fits["b"], 3: fits["b"]}


def test_uneven_rows_are_no_layers():
    generator = np.random.default_rng(0)
    flat, noise = generator.normal(0, 0.1, (8, 2240)) + generator.normal(0, 1, 2240), np.full(8, 0.01)
    window, variance = gaps._layer(flat, noise, np.ones(8, bool))
    assert (window.mean(), window.std(), variance) == pytest.approx((0, 1, 0.005), abs=1e-9)
    flat[:4] += generator.normal(0, 0.3, 2240)
    assert gaps._layer(flat, noise, np.ones(8, bool)) is None
    assert gaps._layer(flat, noise, np.zeros(8, bool)) is None


def test_what_is_read_of_rows_is_told_with_its_crystal(monkeypatch):
    rows, claims, _ = image_of([("a", 12), ("a", 12), (".", 0), (".", 0), ("b", 12), ("b", 12), ("b", 12)])
    count, generator = len(rows), np.random.default_rng(0)
    flat = np.tile(generator.normal(0, 1, 2240), (count, 1))
    table = pd.DataFrame({"row": rows, "v_deg": 1.0, "u_deg": 2.0, "gamma_deg": 3.0})
    seen = {}

    def told(interface, anchors, read):
        seen.update(anchors=anchors, read=read, composed=interface.composed)
        found = {at: Row((1.0, 2.0, 3.0), "---", 0.3) for at in read}
        count = len(read)
        return {**anchors, **found}, np.tile([1.0, 2.0, 3.0, 0.0], (count, 1)), np.tile(np.eye(3), (count, 1, 1))

    monkeypatch.setattr(gaps, "between", told)
    monkeypatch.setattr(Interface, "excess", lambda self, rows: dict.fromkeys(self.seen, 0.05) | {2: 0.2})
    odd = np.zeros(count, bool)
    found = gaps.read_gaps(table, claims, flat, np.full(count, 0.01), odd, Microscope())
    assert (sorted(seen["anchors"]), seen["composed"]) == ([0, 5, 6], True)
    of_network, of_crystals = {2: (1.0, 2.0, 3.0), 3: (1.0, 2.0, 3.0)}, {1: (0.0, 0.0, 0.0), 4: (0.0, 7.0, 4.0)}
    assert seen["read"] == of_network | of_crystals
    assert [set(rows[one.places]) for one in found] == [{1}, {3}, {4}]  # row 2 misses its window by too much
    assert {one.signs for one in found} == {"---"}
    assert (found[0].material, found[0].share) == (STO, 0.7)
    np.testing.assert_allclose(found[0].spread[:3], np.sqrt(1 + gaps.OFF_DEG**2))
