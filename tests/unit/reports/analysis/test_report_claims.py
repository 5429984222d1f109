"""What is claimed: the rules, each by an example that breaks it."""

import numpy as np
import pandas as pd
import pytest

from benchmark.planning.methods import METHODS
from reports.analysis.claims import claims, family, margin, smallest_p, told
from reports.analysis.inference import equivalence_p, sign_flip_p
from tests.unit.reports.analysis.test_report_aggregate import drawn, frame

PAIR = (("a", "b"),)


def two(references=8, seeds=3, shift=1.0, spread=0.3, kind_b="method"):
    """Rows of a and b, which differ by `shift` and by noise of each reference."""
    generator = np.random.default_rng(0)
    values = drawn(generator, references, 2, seeds)
    noise = {f"r{r}": generator.normal(0, spread) for r in range(references)}
    better = {case: [value + shift + noise[case[0]] for value in made] for case, made in values.items()}
    return better, values


def verdict(better, values, pairs=PAIR, direction: bool | None = True, metric="m") -> str:
    rows = pd.concat([frame(better, "a"), frame(values, "b")]).assign(metric=metric)
    return claims(rows, metric, direction, pairs)[0].verdict


@pytest.mark.parametrize(
    ("references", "seeds", "expected"),
    [(8, 3, "beats"), (6, 3, "beats"), (5, 3, "not claimed: 5 references"), (8, 2, "not claimed: 2 seeds")],
)
def test_claims_need_references_and_seeds(references, seeds, expected):
    assert verdict(*two(references, seeds)) == expected


def test_claims_follow_the_direction_of_the_metric():
    better, values = two()
    assert verdict(better, values, direction=False) == "is beaten by"
    assert verdict(values, better) == "is beaten by"
    assert verdict(better, values, direction=None) == "not claimed: the metric has no better side"
    assert verdict(*two(shift=0.0)) == "no difference shown"


def equality(shift=0.0, spread=0.01, references=12, lacking="", **more) -> str:
    """Verdict on a and b with a margin of .05; one of them may lack the videos of a case."""
    better, values = two(references, shift=shift, spread=spread)
    if lacking:
        {"a": better, "b": values}[lacking]["r3", "c3-0"] = [None, None, None]
    return verdict(better, values, metric="motion_agreement_centred", **more)


def test_equality_is_claimed_within_the_margin_and_never_instead_of_a_difference():
    assert equality() == "equal within 0.05"
    assert equality(shift=0.04, spread=0.001) == "beats"
    assert equality(spread=0.3) == equality(references=11) == "no difference shown"
    assert equality(lacking="a") == equality(lacking="b") == "no difference shown"
    assert verdict(*two(12, shift=0.0, spread=0.01)) == "no difference shown"  # a metric without a margin


def test_equalities_are_corrected_for_all_pairs():
    better, values = two(12, shift=0.0, spread=0.03)
    rows = pd.concat([frame(better, "a"), frame(values, "b")]).assign(metric="motion_agreement_centred")
    (alone,) = claims(rows, "motion_agreement_centred", True, PAIR)
    (among,) = claims(rows, "motion_agreement_centred", True, (*PAIR, ("a", "absent")))
    assert told([alone.words]) == ["equal within 0.05 are a and b"] and alone.is_equal and not alone.better
    expected = equivalence_p(alone.comparison.by_reference, 0.05)
    assert alone.p_equal == pytest.approx(expected) and among.p_equal == pytest.approx(2 * expected)


def test_claims_are_told_together_if_methods_beat_the_same_ones():
    better, values = two()
    rows = pd.concat([frame(better, "a"), frame(values, "b"), frame(better, "c"), frame(values, "d")])
    assert told(c.words for c in claims(rows, "m", True, (("a", "b"), ("b", "c"), ("a", "c")))) == ["a and c beat b"]
    assert told(c.words for c in claims(rows, "m", True, (("a", "b"), ("c", "b"), ("a", "d")))) == [
        "a beats b and d",
        "c beats b",
    ]


def test_a_method_that_fails_where_the_other_does_not_wins_nothing():
    better, values = two()
    better["r3", "c3-0"] = [None, None, None]
    assert verdict(better, values) == "not claimed: a lacks 3 videos that b has"
    values["r3", "c3-0"] = [None, None, None]
    assert verdict(better, values) == "beats"
    values["r4", "c4-1"] = [None, None, None]  # the loser's own failures do not save it
    assert verdict(better, values) == "beats"


def crossed(values, method, fits=3):
    """Rows of `frame`, whose seed s is taken as seed s // fits of the video and seed s % fits of the fit."""
    rows = frame(values, method)
    return rows.assign(seed=rows["seed"] // fits, fit_seed=rows["seed"] % fits)


def test_seeds_of_fits_and_of_videos_are_both_needed_and_paired():
    better, values = two(seeds=9)
    rows = pd.concat([crossed(better, "a"), crossed(values, "b")])
    (claim,) = claims(rows, "m", True, PAIR)
    (plain,) = claims(pd.concat([frame(better, "a"), frame(values, "b")]), "m", True, PAIR)
    assert (claim.verdict, claim.better, claim.comparison.seeds) == ("beats", ("a", "b"), 3)
    assert claim.comparison.by_reference == pytest.approx(plain.comparison.by_reference)
    fewer = pd.concat([crossed(better, "a", fits=1), crossed(values, "b", fits=1)])
    assert claims(fewer, "m", True, PAIR)[0].verdict == "not claimed: 1 seed"  # of fits, though nine of videos
    better["r3", "c3-0"][4] = None
    lacking = pd.concat([crossed(better, "a"), crossed(values, "b")])
    assert claims(lacking, "m", True, PAIR)[0].verdict == "not claimed: a lacks 1 video that b has"


def test_a_side_whose_fits_have_no_seeds_meets_every_fit_of_the_other():
    better, values = two(seeds=9)
    once = {case: made[:3] for case, made in values.items()}
    rows = pd.concat([crossed(better, "a"), frame(once, "b")])
    means = claims(rows, "m", True, PAIR)[0].comparison.by_reference
    expected = [np.mean([np.mean(better[c]) - np.mean(once[c]) for c in better if c[0] == f"r{r}"]) for r in range(8)]
    assert sorted(means) == pytest.approx(sorted(expected))


def test_nothing_is_claimed_of_an_unfinished_run():
    better, values = two()
    rows = pd.concat([frame(better, "a"), frame(values, "b")])
    rows.loc[(rows["case_id"] == "c3-0") & (rows["seed"] == 2), ["status", "value"]] = ["missing", np.nan]
    (claim,) = claims(rows, "m", True, PAIR)
    assert claim.verdict == "not claimed: the run is incomplete" and told([claim.words]) == []


def test_a_family_is_corrected_for_all_its_pairs_even_those_without_videos():
    better, values = two(references=6)
    rows = pd.concat([frame(better, "a"), frame(values, "b")])
    (alone,) = claims(rows, "m", True, PAIR)
    (among,) = claims(rows, "m", True, (*PAIR, ("a", "absent")))
    assert alone.p == pytest.approx(sign_flip_p(alone.comparison.by_reference)) == pytest.approx(2 / 2**6)
    assert among.p == pytest.approx(2 * alone.p)
    assert among.verdict == "no difference shown"  # .0625
    assert alone.detectable == among.detectable > 0


def test_the_family_names_methods_that_exist():
    pairs = family()
    assert {name for pair in pairs for name in pair} <= set(METHODS)
    assert ("flexiact", "i2v") in pairs


def test_ten_references_are_the_fewest_that_can_pass():
    assert smallest_p(9) > 0.05 > smallest_p(10) == pytest.approx(17 * 2 / 1024)


def test_the_margin_is_above_zero(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text("margins = { m = 0.0 }")
    assert margin("other", path) is None and margin("motion_agreement_centred") == 0.05
    with pytest.raises(ValueError, match="margins.m"):
        margin("m", path)


def test_a_pair_may_not_stand_twice(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text('pairs = [["a", "b"], ["b", "a"]]')
    with pytest.raises(ValueError, match="no two of them twice"):
        family(path)
