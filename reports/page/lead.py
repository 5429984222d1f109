"""The page's first screen in words: who leads, by how much, and whether that is sure."""

import math
from collections import Counter
from collections.abc import Mapping

from reports.analysis.claims import told
from reports.page.frames import FrameSheet
from reports.results import CEILING, Results, headline_mean
from reports.wording import count, interval, label, number, percent, signed

BEST = 3
"""Number of methods that are shown beside reference, target and truth."""

TRUTHS = ("oracle", CEILING)
"""Bounds that show the right answer, the first stored one is shown."""


def answers(results: Results) -> list[tuple[str, str]]:
    """Questions with their answers, one sentence or two each."""
    leader = next((name for name in results.order if math.isfinite(headline_mean(results, name))), None)
    if leader is None:
        return [("Who leads?", f"Nobody: no method has a value of {label(results.run.headline)}.")]
    return [
        ("Who leads?", _who(results, leader)),
        ("By how much?", _how_much(results, leader)),
        ("Is it sure?", _how_sure(results, leader)),
        ("What is claimed?", _claimed(results)),
    ]


def _who(results: Results, leader: str) -> str:
    run = results.run
    row = results.summary[(results.summary["method"] == leader) & (results.summary["metric"] == run.headline)].iloc[0]
    ends = interval(row["low"], row["high"])
    scale = [f"{name} has {number(headline_mean(results, name))}" for name in ("still", CEILING) if name in run.bounds]
    return (
        f"{leader}, with a {label(run.headline)} of {' '.join(filter(None, (number(row['mean']), ends)))}"
        f"{'; ' if scale else ''}{' and '.join(scale)}."
    )


def _how_much(results: Results, leader: str) -> str:
    second = next((name for name in results.order if name != leader), None)
    pair = next((item for item in results.pairs if {item.first, item.second} == {leader, second}), None)
    if second is None or pair is None or not pair.estimate.cases:
        return "There is no other method to compare with."
    sign, found = (1 if pair.first == leader else -1), pair.estimate
    low, high = sorted((sign * found.low, sign * found.high))
    ends = interval(low, high, signed)
    said = f"its difference from {second}, the next, is {signed(sign * found.mean)} {ends}".strip()
    return f"{said[0].upper()}{said[1:]}, over the videos that both have."


def _how_sure(results: Results, leader: str) -> str:
    place = results.ranks.loc[leader]
    if not math.isfinite(place["low"]):
        return "Nobody can say: there are too few references, or videos are missing."
    ranked, last = int(results.ranks["rank"].notna().sum()), int(place["high"])
    said = f"{leader} comes first in {percent(place['first'])} of the resamples of the references"
    if last == 1:
        return f"As far as these references go: {said}, and its rank is 1 in the whole 95% interval."
    return f"No: the 95% interval of its rank goes from {int(place['low'])} to {last} of {ranked}; {said}."


def _claimed(results: Results) -> str:
    """Say in short what the tests of the family find."""
    if not results.claims:
        return "Nothing: the run has no pair of methods that was fixed beforehand."
    settled = sum(item.better is not None or item.is_equal for item in results.claims)
    if settled:
        said = "; ".join(told(item.words for item in results.claims))
        return f"{said}. These are {settled} of {count(len(results.claims), 'pair')} that were fixed beforehand."
    reason, times = Counter(item.verdict.removeprefix("not claimed: ") for item in results.claims).most_common(1)[0]
    pairs = count(len(results.claims), "pair")
    return f"Nothing. Of {pairs} that were fixed beforehand, {times} say: {reason}."


def strip(results: Results, sheets: Mapping[str, FrameSheet]) -> tuple[str, list[str]] | None:
    """The case on the first screen and what is shown of it; None without frames.

    It is the case at which the methods' mean headline is the median, so that it flatters nobody; of two such cases the
    first.
    """
    run, rows = results.run, results.rows
    mine = rows[(rows["metric"] == run.headline) & (rows["kind"] == "method") & rows["case_id"].isin(list(sheets))]
    means = mine.groupby("case_id", sort=False)["value"].mean().dropna().sort_values(kind="stable")
    if means.empty:
        return None
    case = str(means.index[(len(means) - 1) // 2])
    shown = sheets[case].places
    truth = [name for name in TRUTHS if name in shown][:1]
    best = [name for name in results.order if name in shown][:BEST]
    return case, [name for name in ("reference", "target") if name in shown] + truth + best
