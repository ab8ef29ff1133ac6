"""Tilt patterns from tables whose patterns are known: folded, noisy, biased, and changing at interfaces."""

import numpy as np
import pandas as pd
import pytest
from unitcell.crystals.octahedra import lattice_block, tilt_signs
from unitcell.crystals.tilt_coordinates import (
    canonical,
    doubled,
    halved,
    length_of_doubled,
    to_projection,
    to_pseudocubic,
)
from unitcell.errors import InputError
from unitcell.tilts.pattern_evidence import CLASSES, class_prior, magnitude_priors
from unitcell.tilts.pattern_verdict import alternatives, median_interval, regions, save_regions, verdict
from unitcell.tilts.patterns import column_patterns, folded_truth, reduced_pattern

SIGMA = {"v": 0.6, "p": 1.2, "q": 1.2, "alternation": 1.2}  # degrees, of one column
PATTERNS = (
    "000", "00-", "00+", "-00", "-0-", "-0+", "0-+", "--0", "---", "--+", "+00", "+0-", "++-", "+++", "-+-", "+--",
    "-++", "+-+", "+-0",
)  # fmt: skip
SHAPE, WIDTH = (8, 24), 8  # of the field, and of a region, in columns


def drawn(generator, least=3.0, most=12.0):
    """α, β, γ and signs: tilts at rest or of at least 3°, those about a and b equal or 3° apart."""
    signs = str(generator.choice(PATTERNS))
    while True:
        tilts = generator.uniform(least, most, 3) * generator.choice((-1, 1), 3)
        if generator.random() < 0.5:
            tilts[1] = tilts[0] * generator.choice((-1, 1))
        apart = abs(abs(tilts[0]) - abs(tilts[1]))
        if apart == 0 or apart > 3:
            return np.where([sign == "0" for sign in signs], 0, tilts), signs


def table(truth, generator, bias, places=None):
    """What a network would make of `folded_truth`: heavy-tailed noise and one bias of each output per place.

    Outputs are v, the doubled coordinates of (u, γ) and the alternation. The bias, of `bias` times the noise, goes
    with the tilt: neighbouring columns show the same crystal the other way.
    """
    places = np.zeros(len(truth), int) if places is None else places
    checker = 1 - 2 * ((truth.row + truth.col) % 2)
    way = {"v": checker, "p": 1, "q": np.where(truth.u_deg < 0, -1, 1), "alternation": 1}
    outputs = {"v": truth.v_deg, "alternation": truth.alternation_deg}
    outputs |= dict(zip("pq", doubled(truth.u_deg, truth.gamma_deg), strict=True))
    for name, sigma in SIGMA.items():
        noise = sigma * generator.standard_t(4, len(truth)) / np.sqrt(2)
        outputs[name] = outputs[name] + noise + way[name] * (sigma * bias * generator.normal(size=99))[places]
    seen = {"v": outputs["v"], "alternation": np.abs(outputs["alternation"])}
    seen["u"], seen["gamma"] = halved(outputs["p"], outputs["q"])
    seen["alpha"], seen["beta"], _ = to_pseudocubic(seen["v"], seen["u"], seen["gamma"])
    found = truth[["row", "col"]].assign(x_px=truth.col * 14.0, y_px=truth.row * 20.0)
    size, spread = np.hypot(outputs["p"], outputs["q"]), np.hypot(1, bias) * SIGMA["p"]
    of_length = (length_of_doubled(size + spread) - length_of_doubled(np.maximum(size - spread, 0))) / 2
    sigma = {"u": of_length, "gamma": of_length} | {n: SIGMA[n] * np.hypot(1, bias) for n in ("v", "alternation")}
    for name, value in seen.items():
        reach = 1.645 * sigma.get(name, 1.0)
        low = np.maximum(value - reach, 0) if name in ("gamma", "alternation") else value - reach
        found = found.assign(**{f"{name}_deg": value, f"{name}_deg_lo": low, f"{name}_deg_hi": value + reach})
    return found


def twins(generator, bias):
    """A field of three regions: its table, the reduced pattern of each column, its distance to an interface [columns].

    `bias` as in `table`, drawn anew in each region, for it depends on the structure.
    """
    row, col = (part.ravel() for part in np.indices(SHAPE))
    place = col // WIDTH
    tilts, signs = zip(*(drawn(generator) for _ in range(SHAPE[1] // WIDTH)), strict=True)
    truth = folded_truth(np.array(tilts)[place], np.array(signs)[place], row, col)
    names = np.array([reduced_pattern(*t, s) for t, s in zip(tilts, signs, strict=True)])[place]
    edges = np.arange(WIDTH, SHAPE[1], WIDTH)
    distance = np.min([np.where(col >= edge, col - edge + 1, edge - col) for edge in edges], axis=0)
    return table(truth, generator, bias, place), names, distance


def classified(bias, fields, seed):
    """Every column of some fields: whether its pattern is right, its probability, its distance to an interface."""
    generator, rows = np.random.default_rng(seed), []
    for _ in range(fields):
        tilts, names, distance = twins(generator, bias)
        found = column_patterns(tilts)
        right = found.pattern == names
        rows.append(pd.DataFrame({"right": right, "probability": found.pattern_probability, "distance": distance}))
    return pd.concat(rows)


@pytest.fixture(scope="module")
def ordinary():
    return classified(bias=0.5, fields=30, seed=1)


def uniform(tilts, signs, shape=(8, 10), bias=0.3, seed=0):
    row, col = (part.ravel() for part in np.indices(shape))
    return table(folded_truth(tilts, signs, row, col), np.random.default_rng(seed), bias)


@pytest.mark.parametrize("signs", ["---", "--+", "-0+", "00-", "+-+", "++-"])
def test_folded_truth_is_that_of_the_octahedra(signs):
    tilts = np.array([7.0, 3.0, -5.0])
    octahedra = lattice_block(4, 3, 4)
    turned = tilt_signs(signs, octahedra) * tilts
    row, col = octahedra[:, 2], octahedra[:, :2].sum(1)
    mean = pd.DataFrame(turned).groupby([row, col]).mean().to_numpy()  # along the beam: what alternates is gone
    v, u, gamma = to_projection(*mean.T)
    places = pd.DataFrame({"row": row, "col": col}).drop_duplicates().sort_values(["row", "col"])
    truth = folded_truth(tilts, signs, places.row, places.col)
    np.testing.assert_allclose(truth.v_deg, v, atol=1e-12)
    np.testing.assert_allclose(truth[["u_deg", "gamma_deg"]], np.transpose(canonical(u, gamma)), atol=1e-12)
    alternating = np.linalg.norm([t for t, sign in zip(tilts, signs[:2], strict=False) if sign == "+"])
    np.testing.assert_allclose(truth.alternation_deg, alternating)


@pytest.mark.parametrize(
    ("tilts", "signs", "expected"),
    [
        ((8, 8, 5), "--+", "a-a-c+"),
        ((8, -8, 5), "--+", "a-a-c±"),
        ((8, -4, 5), "--+", "a-b-c+"),
        ((0, 6, -5), "0--", "a-b0c-"),
        ((6, 5, 5), "+--", "a-b+c-"),
        ((6, 6, 0.2), "++-", "a+b?c0"),
        ((0, 6, 5), "0+-", "a+b?c±"),
        ((0, 0, 5), "00-", "a0a0c±"),
        ((0.3, 0, 0), "---", "a0a0c0"),
    ],
)
def test_reduced_pattern(tilts, signs, expected):
    assert reduced_pattern(*tilts, signs) == expected


@pytest.mark.parametrize(
    ("tilts", "signs"),
    [
        ((8, 8, 7), "--+"), ((8, 8, 7), "---"), ((8, -8, 7), "--+"), ((9, 4, 7), "---"), ((8, 0, 6), "--+"),
        ((0, 0, 6), "00-"), ((0, 0, 0), "000"), ((7, 7, 0), "--0"), ((8, 7, 6), "-+-"), ((8, 7, 6), "+--"),
        ((8, 7, 6), "++-"), ((8, 7, 0), "++0"),
    ],
)  # fmt: skip
def test_uniform_crystals(tilts, signs):
    found = column_patterns(uniform(tilts, signs))
    assert (found.pattern == reduced_pattern(*tilts, signs)).mean() > 0.98
    assert found.pattern_probability.median() > 0.9
    assert found.region.max() == 0  # one region, whatever is undecided


def test_twins_are_right_away_from_interfaces_and_beside_them(ordinary):
    far, near = ordinary[ordinary.distance > 2], ordinary[ordinary.distance <= 2]
    assert far.right.mean() >= 0.95
    assert near.right.mean() >= 0.85


def test_what_two_regions_blend_into_is_no_region():
    row, col = (part.ravel() for part in np.indices((10, 18)))
    left = np.array([8.0, 8.0, 6.0])
    right = np.array([8.0, -8.0, 6.0])
    share = np.clip((col - 7) / 3, 0, 1)[:, None]  # two columns, 8 and 9, see both sides
    truth = folded_truth(left + share * (right - left), "--+", row, col)
    found = column_patterns(table(truth, np.random.default_rng(4), bias=0.3))
    expected = np.where(col < 9, "a-a-c+", "a-a-c±")
    blended = (col == 8) | (col == 9)
    assert (found.pattern == expected)[blended].mean() >= 0.85
    assert (found.pattern == expected)[~blended].mean() >= 0.95
    assert set(found.region) <= {-1, 0, 1}


def test_probability_is_how_often_a_pattern_is_right(ordinary):
    assert abs(ordinary.right.mean() - ordinary.probability.mean()) < 0.03
    doubtful = ordinary[ordinary.probability < 0.9]
    sure = ordinary[ordinary.probability > 0.95]
    assert sure.right.mean() > 0.98
    assert doubtful.right.mean() < 0.9
    assert sure.size > 3 * doubtful.size


def test_a_smaller_tilt_gives_a_smaller_probability():
    strong, weak = (column_patterns(uniform((t, t, t), "--+")).pattern_probability.median() for t in (8.0, 2.0))
    assert strong > weak + 0.1


def test_alternation_along_both_axes():
    minus, plus = (column_patterns(uniform((8, 4, 7), signs)) for signs in ("---", "--+"))
    for found in (minus, plus):
        assert found[["alternation_x", "alternation_y"]].min().min() > 0.99
        assert found.u_alternation_x.max() < 0.05
    assert minus.u_alternation_y.max() < 0.05
    assert plus.u_alternation_y.min() > 0.95
    nothing = column_patterns(uniform((0, 0, 0), "000"))
    assert nothing[["alternation_x", "alternation_y"]].median().between(0.4, 0.6).all()


def test_v_that_does_not_alternate_is_no_tilt_pattern():
    tilts = uniform((0, 0, 0), "000")
    for end in ("", "_lo", "_hi"):
        tilts[f"v_deg{end}"] += 5.0  # as a misread crystal tilt would do
    assert column_patterns(tilts).alternation_x.max() < 0.01


def test_order_and_index_of_rows_do_not_matter_and_unread_columns_are_marked():
    tilts = uniform((8, 8, 7), "--+")
    lost = np.array([0, 33, 34])
    tilts.loc[lost, [name for name in tilts if "_deg" in name]] = np.nan
    whole = column_patterns(tilts)
    shuffled = tilts.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(column_patterns(shuffled).loc[tilts.index], whole)
    assert (whole.pattern[lost] == "?").all()
    assert (whole.region[lost] == -1).all()
    assert whole.pattern_probability[lost].isna().all()
    assert (whole.drop(lost).pattern == "a-a-c+").all()
    assert (column_patterns(tilts.drop(lost)).pattern == whole.drop(lost).pattern).all()  # absent or unread: the same


def test_the_mirror_and_a_shift_by_one_column_change_nothing():
    row, col = (part.ravel() for part in np.indices((6, 8)))
    for signs, tilts in (("--+", (8, 4, 6)), ("-0-", (7, 0, 5))):
        mirrored = -np.array(tilts)[[1, 0, 2]], signs[1] + signs[0] + signs[2]
        one, other = (folded_truth(*each, row, col) for each in ((tilts, signs), mirrored))
        pd.testing.assert_frame_equal(one, other)
        assert reduced_pattern(*tilts, signs) == reduced_pattern(*mirrored[0], mirrored[1])
    tilts = uniform((8, 4, 6), "--+")
    moved = column_patterns(tilts.assign(col=tilts.col + 1, row=tilts.row - 3))
    pd.testing.assert_frame_equal(moved, column_patterns(tilts))


@pytest.fixture(scope="module")
def two_regions():
    row, col = (part.ravel() for part in np.indices((10, 16)))
    right = col >= 8
    truth = folded_truth(
        np.where(right[:, None], (8.0, 8.0, 6.0), (9.0, 0.0, 9.0)), np.where(right, "--+", "-0-"), row, col
    )
    tilts = table(truth, np.random.default_rng(3), bias=0.3)
    return tilts, column_patterns(tilts)


def test_regions_hold_the_truth(two_regions, tmp_path):
    tilts, patterns = two_regions
    found = regions(tilts, patterns)
    assert sorted(found.pattern) == ["a-a-c+", "a-b0c-"]
    for row in found.itertuples():
        pnma = row.pattern == "a-a-c+"
        expected = {"alpha": 8.0, "beta": 8.0, "gamma": 6.0} if pnma else {"alpha": 9.0, "beta": 0.0, "gamma": 9.0}
        expected |= {"u": 8 * 2**0.5} if pnma else {"v": 9 / 2**0.5, "u": 9 / 2**0.5}
        for name, value in expected.items():
            assert getattr(row, f"{name}_deg_lo") <= value <= getattr(row, f"{name}_deg_hi")
            assert getattr(row, f"{name}_deg") == pytest.approx(value, abs=1.2)
        assert row.glazer == ("a-a-c+" if pnma else "a-b0a-")  # |γ| may equal |α|: the intervals allow it
        assert (row.col_min >= 7) == pnma
        assert row.cells == pytest.approx(80, abs=8)
        assert row.probability > 0.8
    save_regions(found, tmp_path / "regions.csv")
    assert list(pd.read_csv(tmp_path / "regions.csv").pattern) == list(found.pattern)


def test_the_verdict_says_what_cannot_be_decided(two_regions):
    words = verdict(*two_regions)
    assert words.startswith("2 regions of one tilt pattern")
    assert "mirror normal to the beam" in words
    assert "a0b-c- look alike" in words
    open_phase = uniform((8, -8, 6), "--+")
    assert "c may be '-' or '+' (a-a-c-, a-a-c+ look alike)" in verdict(open_phase, column_patterns(open_phase))
    beam = uniform((8, 7, 6), "-+-")
    assert "'+' about a cannot be told from '+' about b" in verdict(beam, column_patterns(beam))


def test_nothing_stands_out_of_few_columns():
    tilts = uniform((8, 8, 6), "---", shape=(1, 3))
    patterns = column_patterns(tilts)
    assert (patterns.region == -1).all()
    assert regions(tilts, patterns).empty
    assert verdict(tilts, patterns) == "No tilt pattern stands out from the 3 B columns that were read."


def test_alternatives_show_alike():
    assert alternatives("a-a-c±") == ("a-a-c-", "a-a-c+")
    assert alternatives("a-b+c-") == ("a-b+c-", "a+b-c-")
    assert alternatives("a-b0c+") == ("a-b0c+", "a0b-c+")
    assert set(alternatives("a+b?c0")) == {"a+b0c0", "a0b+c0", "a+b+c0", "a+a+c0"}
    for pattern in ("a-b+c-", "a+b?c±", "a-b0c+"):
        assert {reduced_pattern(8, 8 if name[2] == "a" else 5, 6, name[1::2]) for name in alternatives(pattern)} == {
            pattern
        }


def test_an_interval_of_a_median_keeps_what_columns_have_in_common():
    size, sigma = np.random.default_rng(0).normal(8, 1, 4000), np.full(4000, 2.0)
    low, middle, high = median_interval(size, sigma, common=0.25)
    assert middle == pytest.approx(8, abs=0.1)
    assert high - low == pytest.approx(2 * 1.645, rel=0.01)
    assert median_interval(size, sigma, common=0.0)[2] - middle == pytest.approx(1.645 * 1.2533 / 4000**0.5, rel=0.1)


def test_priors_are_probabilities():
    in_plane, alternating, gammas = magnitude_priors()
    np.testing.assert_allclose(in_plane.sum((1, 2)), 1, atol=1e-9)
    np.testing.assert_allclose(alternating.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(gammas.sum(0), 1, atol=1e-9)
    assert class_prior().sum() == pytest.approx(1)
    assert len(class_prior()) == len(CLASSES) == 18


def test_refused_tables():
    tilts = uniform((8, 8, 6), "---", shape=(3, 3))
    with pytest.raises(InputError, match=r"lacks the column\(s\) alternation_deg_hi"):
        column_patterns(tilts.drop(columns="alternation_deg_hi"))
    with pytest.raises(InputError, match=r"\(0, 0\) stands twice"):
        column_patterns(pd.concat([tilts, tilts.head(1)]))
    with pytest.raises(InputError, match="no B column with tilts"):
        column_patterns(tilts.assign(v_deg=np.nan))
    with pytest.raises(InputError, match=r"common = 1\.5"):
        column_patterns(tilts, common=1.5)
    with pytest.raises(InputError, match="9 patterns do not belong to 4 tilts"):
        regions(tilts.head(4), column_patterns(tilts))
