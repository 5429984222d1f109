"""Compare two runs of one suite: paired differences of every method and metric, how far they go, and what differs.

A cell is a method, a case, a seed and the seed of the fit. Cells are paired as everywhere: seeds are averaged inside a
case, cases inside a reference, and intervals rest on references.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from flexiact.terminal.cli import shortened
from reports.analysis.statistics import Estimate, estimate, tidy
from reports.run_folder import RunError, StoredRun, score_backends
from reports.wording import count, interval, number, signed

WIDTH = 80
LISTED = 10
"""Largest number of cells and of settings that are printed."""

_CELL = ["method", "case_id", "seed", "fit_seed"]
_SETTINGS = ("backbone", "truth", "methods", "metrics", "cases", "provenance")
_ORDER = ("first", "second")
_NAMED = ("methods", "metrics", "cases")


@dataclass(frozen=True)
class Change:
    """A method's values of a metric in two runs.

    Attributes:
        means: Means over the paired cells, of the first and of the second run.
        difference: Paired difference, second minus first.
        cells: Number of cells that both runs have.
        changed: Number of those that differ in value or status.
    """

    method: str
    metric: str
    means: tuple[float, float]
    difference: Estimate
    cells: int
    changed: int


@dataclass(frozen=True)
class Movement:
    """Distance that a metric moves: absolute differences of the methods and bounds that differ in some cell.

    Attributes:
        of_means: Mean and largest of the differences of their means.
        of_cells: Mean and largest of the differences of their cells.
        farthest: Name of the method or bound whose mean moves farthest.
    """

    metric: str
    of_means: tuple[float, float]
    of_cells: tuple[float, float]
    farthest: str


@dataclass(frozen=True, eq=False)
class TwoRuns:
    """Two runs, compared.

    Attributes:
        settings: Dotted names of the keys of run.json that differ, or that only one run has.
        alone: Sentences on what only one of the runs has, or what cannot be compared.
        changes: Differences in the order of methods and metrics of the first run.
        movements: Movements of the metrics that differ anywhere, in their order.
        cells: Cells that differ: columns method, case_id, seed, fit_seed, what (video or the metric), first, second.
    """

    runs: tuple[StoredRun, StoredRun]
    settings: tuple[str, ...]
    alone: tuple[str, ...]
    changes: tuple[Change, ...]
    movements: tuple[Movement, ...]
    cells: pd.DataFrame


def compared(first: StoredRun, second: StoredRun) -> TwoRuns:
    """Compare two runs.

    Raises:
        RunError: If they are of other suites, or have no cell and metric in common.
    """
    for name in ("suite", "suite_version", "suite_digest"):
        if first.info.get(name) != second.info.get(name):
            raise RunError(
                f"{second.folder}: {name} is {second.info.get(name)}, in {first.folder} it is {first.info.get(name)}: "
                "only runs of one suite are compared"
            )
    metrics, refused = _comparable(first, second)
    sides = [_made(run, metrics) for run in (first, second)]
    pairs = sides[0].merge(sides[1].drop(columns="reference_id"), on=[*_CELL, "metric"], suffixes=("_1", "_2"))
    if pairs.empty:
        raise RunError(f"{second.folder}: has no cell and metric in common with {first.folder}")
    pairs["differs"] = (pairs["status_1"] != pairs["status_2"]) | ~_equal(pairs["value_1"], pairs["value_2"])
    groups = pairs.groupby(["method", "metric"], sort=False)
    changes = [_change(str(method), str(metric), group) for (method, metric), group in groups]
    settings = [name for part in _SETTINGS for name in _differing(first.info.get(part), second.info.get(part), part)]
    alone = tuple([*refused, *_alone(*sides)])
    moved = tuple(_movements(pairs, changes))
    return TwoRuns((first, second), tuple(settings), alone, tuple(changes), moved, _cells(first, second, pairs))


def _comparable(first: StoredRun, second: StoredRun) -> tuple[list[str], list[str]]:
    """Metrics that both runs have in one version and by one judge, and sentences on the others."""
    judges, refused = (score_backends(first), score_backends(second)), []
    shared = [metric for metric in first.metrics if metric in second.metrics]
    alike = []
    for metric in shared:
        versions = [run.info["metrics"][metric]["version"] for run in (first, second)]
        if versions[0] != versions[1]:
            refused.append(f"not compared: {metric}, whose versions are {versions[0]} and {versions[1]}")
        elif judges[0][metric] != judges[1][metric]:
            names = " and ".join(" + ".join(side[metric]) for side in judges)
            refused.append(f"not compared: {metric}, which was measured by {names}")
        else:
            alike.append(metric)
    return alike, refused


def _made(run: StoredRun, metrics: list[str]) -> pd.DataFrame:
    """Scores that a run has, without planned ones that are missing."""
    rows = _at_zero(run, tidy(run))
    rows = rows[rows["metric"].isin(metrics) & (rows["status"] != "missing")]
    return rows[[*_CELL, "metric", "reference_id", "status", "value"]]


def _at_zero(run: StoredRun, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a run; a bound that is one video for all seeds stands under seed 0, whichever it is stored under."""
    unsampled = [name for name in run.bounds if not run.info["methods"][name].get("sampled", True)]
    sampled = ~rows["method"].isin(unsampled)
    return rows.assign(**{name: rows[name].where(sampled, 0) for name in ("seed", "fit_seed")})


def _equal(one: pd.Series, other: pd.Series) -> pd.Series:
    return (one == other) | (one.isna() & other.isna())


def _change(method: str, metric: str, pairs: pd.DataFrame) -> Change:
    both = pairs.dropna(subset=["value_1", "value_2"])
    means = [estimate(both.assign(value=both[side])).mean for side in ("value_1", "value_2")]
    found = estimate(both.assign(value=both["value_2"] - both["value_1"]))
    return Change(method, metric, (means[0], means[1]), found, len(pairs), int(pairs["differs"].sum()))


def _movements(pairs: pd.DataFrame, changes: Sequence[Change]) -> Iterator[Movement]:
    """Movements of the metrics of which both runs have values that differ."""
    apart = (pairs["value_2"] - pairs["value_1"]).abs()
    for metric in dict.fromkeys(change.metric for change in changes):
        mine = [change for change in changes if change.metric == metric and change.changed]
        means = {change.method: abs(change.difference.mean) for change in mine if math.isfinite(change.difference.mean)}
        if means:
            cells = apart[(pairs["metric"] == metric) & pairs["method"].isin(means)]
            farthest = max(means, key=means.__getitem__)
            of_means = (sum(means.values()) / len(means), means[farthest])
            yield Movement(metric, of_means, (float(cells.mean()), float(cells.max())), farthest)


def swapped(found: TwoRuns, metric: str) -> tuple[list[tuple[str, str]], int]:
    """Pairs of methods that change their order by a metric, and the number of all pairs."""
    means = {change.method: change.means for change in found.changes if change.metric == metric}
    pairs = list(combinations([name for name in found.runs[0].methods if name in means], 2))
    gaps = {(one, other): [a - b for a, b in zip(means[one], means[other], strict=True)] for one, other in pairs}
    return [pair for pair, (before, after) in gaps.items() if before * after < 0], len(pairs)


def _alone(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[str]:
    """Sentences on methods, metrics and cells that only one of two runs has."""
    for side, other, which in ((first, second, "first"), (second, first, "second")):
        for column, noun in (("method", "method"), ("metric", "metric")):
            names = [name for name in side[column].unique() if name not in set(other[column])]
            if names:
                yield f"only in the {which}: {count(len(names), noun)}, {', '.join(names)}"
        cells = set(side[_CELL].itertuples(index=False, name=None)) - set(
            other[_CELL].itertuples(index=False, name=None)
        )
        if cells:
            yield f"only in the {which}: {count(len(cells), 'cell')}"


def _differing(one: Any, other: Any, path: str) -> Iterator[str]:
    """Dotted names of what differs in two values of run.json, without what `_alone` says by name."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in {**one, **other}:
            if name in one and name in other:
                yield from _differing(one[name], other[name], f"{path}.{name}")
            elif path not in _NAMED:
                yield f"{path}.{name}"
    elif one != other:
        yield path


def _cells(first: StoredRun, second: StoredRun, pairs: pd.DataFrame) -> pd.DataFrame:
    """Videos and values that differ, as in `TwoRuns.cells`."""
    values = pairs[pairs["differs"]].rename(columns={"metric": "what"})
    values = values.assign(
        first=values["value_1"].astype(object).where(values["value_1"].notna(), values["status_1"]),
        second=values["value_2"].astype(object).where(values["value_2"].notna(), values["status_2"]),
    )
    columns = [*_CELL, "status", "video_digest"]
    samples = [_at_zero(run, run.samples.reindex(columns=columns)) for run in (first, second)]
    videos = samples[0].merge(samples[1], on=_CELL, suffixes=("_1", "_2")).assign(what="video")
    there = (videos["status_1"] != "missing") & (videos["status_2"] != "missing")
    same = (videos["status_1"] == videos["status_2"]) & _equal(videos["video_digest_1"], videos["video_digest_2"])
    videos = videos[there & ~same]
    videos = videos.assign(
        first=videos["video_digest_1"].fillna(videos["status_1"]),
        second=videos["video_digest_2"].fillna(videos["status_2"]),
    )
    found = pd.concat([side[[*_CELL, "what", "first", "second"]].astype(object) for side in (videos, values)])
    return found.sort_values(_CELL, kind="stable", ignore_index=True)


def text(found: TwoRuns, everything: bool = False) -> str:
    """The comparison for a terminal, 80 columns wide; `everything` adds what is equal in every cell."""
    first, second = found.runs
    lines = [f"first:  {first.folder}", f"second: {second.folder}"]
    if found.settings:
        rest = len(found.settings) - LISTED
        more = f" and {rest} more" if rest > 0 else ""
        lines += _wrapped(f"differ in {', '.join(found.settings[:LISTED])}{more}")
    notes = [f"in the {which}: {note}" for which, run in zip(_ORDER, found.runs, strict=True) for note in run.notes]
    lines += [line for sentence in (*notes, *found.alone) for line in _wrapped(sentence)]
    for method in dict.fromkeys(change.method for change in found.changes):
        mine = [change for change in found.changes if change.method == method and (everything or change.changed)]
        if mine:
            lines += ["", method, _row("metric", "first", "second", "diff", "95% interval", "cells")]
            lines += [_change_row(change) for change in mine]
    lines += _moved(found)
    equal = sum(not change.changed for change in found.changes)
    lines += [
        "",
        *_wrapped(f"{equal} of {count(len(found.changes), 'pair')} of method and metric are equal everywhere"),
    ]
    return "\n".join([*lines, *_listed(found.cells)])


def _moved(found: TwoRuns) -> list[str]:
    """Table of how far metrics move, and a sentence on the order of the methods."""
    if not found.movements:
        return []
    lines = ["", "how far metrics move, in absolute differences of means and of cells"]
    lines += [f"{'metric':31} {'means':>7} {'largest':>7} {'cells':>7} {'largest':>7}  farthest mean"]
    for one in found.movements:
        figures = " ".join(f"{value:7.2g}" for value in (*one.of_means, *one.of_cells))
        lines += [f"{one.metric:31} {figures}  {shortened(one.farthest, 15)}"]
    metric = found.runs[0].headline
    pairs, number_of = swapped(found, metric)
    if not number_of:
        return lines
    named = [" and ".join(pair) for pair in pairs[:LISTED]] + ["more"] * (len(pairs) > LISTED)
    told = f"{len(pairs)} of {count(number_of, 'pair')} of methods change their order by {metric}"
    return lines + _wrapped(f"{told}: {', '.join(named)}" if named else told)


def _row(metric: str, *figures: str) -> str:
    one, other, difference, ends, cells = figures
    return f"{metric:31} {one:>6} {other:>6} {difference:>7} {ends:>18} {cells:>7}"


def _change_row(change: Change) -> str:
    found, means = change.difference, map(number, change.means)
    ends = interval(found.low, found.high, signed)
    return _row(change.metric, *means, signed(found.mean), ends, f"{change.changed}/{change.cells}")


def _listed(cells: pd.DataFrame) -> list[str]:
    """Lines on the cells that differ, at most `LISTED` of them."""
    groups = list(cells.groupby(_CELL, sort=False)["what"])
    if not groups:
        return ["no cell differs"]
    lines = [f"{count(len(groups), 'cell differs', 'cells differ')}:"]
    for (method, case_id, seed, fit_seed), what in groups[:LISTED]:
        metrics = [name for name in what if name != "video"]
        said = ["its video"] * ("video" in set(what)) + [count(len(metrics), "metric")] * bool(metrics)
        seeds = f"seed {seed}" + f", fit seed {fit_seed}" * (fit_seed != seed)
        lines += _wrapped(f"{method} on {case_id} at {seeds}: {', '.join(said)}")
    return lines + [f"and {len(groups) - LISTED} more (--csv lists all)"] * (len(groups) > LISTED)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
