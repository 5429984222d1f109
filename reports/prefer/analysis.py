"""Read votes: how often each method is preferred, and which metrics agree with people."""

import io
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from flexiact.media.files import TEXT_LIMIT_MIB, limited_bytes
from reports.analysis.inference import student_interval
from reports.prefer.pairs import TRUTH, Trial, sheet_digest
from reports.prefer.sheet import CHOICES, QUESTIONS
from reports.results import Results
from reports.run_folder import RunError
from reports.tables.cells import Cell, Number, Table
from reports.wording import count, heading, percent

COLUMNS = ("sheet", "rater", "trial", "question", "choice")
CATCHES_NEEDED = 0.75
"""Smallest share of truth-against-wrong-action trials that a rater has to get right in motion; ties count half."""

_SHARE = {"left": 1.0, "same": 0.5, "right": 0.0}


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes that count.

    Attributes:
        rows: Columns of COLUMNS, case_id, reference_id, left, right, is_catch and share (1 left, .5 same, 0 right).
        notes: Sentences on votes that were left out.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...]


def read_votes(files: Iterable[Path], results: Results, trials: tuple[Trial, ...]) -> Votes:
    """Read and check files of votes.

    A file is a rater: raters who fail the catch trials are left out, with a note; another one names raters who have no
    vote on them.

    Raises:
        RunError: If a file is no table of votes, is of another sheet, or a vote names no trial, question or choice; if
            no vote on two methods is left.
        OSError: If a file cannot be read.
    """
    digest, cases = sheet_digest(results.run, trials), results.run.info["cases"]
    parts: list[pd.DataFrame] = []
    notes = []
    for file in files:
        rows = _checked(file, digest, len(trials))
        shown = [trials[int(number) - 1] for number in rows["trial"]]
        for name in ("case_id", "left", "right", "is_catch"):
            rows[name] = [getattr(trial, name) for trial in shown]
        rows["reference_id"] = [str(cases[trial.case_id]["reference_id"]) for trial in shown]
        rows["share"] = rows["choice"].map(_SHARE).astype(float)
        caught = rows[rows["is_catch"].astype(bool) & (rows["question"] == "motion")]
        right = float(_share_of(caught, TRUTH).mean()) if len(caught) else float("nan")
        if not len(caught):
            notes.append(f"{file.name} has no vote on a trial with a known answer: perhaps its rater did not look.")
        if right < CATCHES_NEEDED:
            notes.append(f"{file.name} was left out: right in {percent(right)} of the trials with a known answer.")
        else:
            parts.append(rows.assign(rater=f"{len(parts)}-" + rows["rater"].astype(str)))
    if all(rows["is_catch"].all() for rows in parts):
        raise RunError("votes: none are left" + (f": {' '.join(notes)}" if notes else ""))
    return Votes(pd.concat(parts, ignore_index=True), tuple(notes))


def _checked(file: Path, digest: str, trials: int) -> pd.DataFrame:
    try:
        content = io.BytesIO(limited_bytes(file, TEXT_LIMIT_MIB))
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the heading would lose their end
            rows = pd.read_csv(content, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise RunError(f"{file}: no table of votes ({' '.join(str(error).split())})") from error
    absent = [name for name in COLUMNS if name not in rows]
    if absent:
        raise RunError(f"{file}: column {absent[0]} is missing; give the file that the sheet saved")
    if set(rows["sheet"]) - {digest}:
        raise RunError(f"{file}: votes of another sheet; give the run, --methods, --pairs and --seed of that one")
    numbers = [str(number + 1) for number in range(trials)]
    for name, values in (("trial", numbers), ("question", list(QUESTIONS)), ("choice", list(CHOICES))):
        wrong = rows.index[~rows[name].isin(values)]
        if len(wrong):
            raise RunError(f"{file}: line {wrong[0] + 2}: {name}: {rows.loc[wrong[0], name]!r} is not on the sheet")
    if rows.duplicated(["trial", "question"]).any():
        raise RunError(f"{file}: more than one vote on a question; a file holds one person's votes")
    return rows


def _share_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """The share that one side's name won of each row."""
    return rows["share"].where(rows["left"] == name, 1 - rows["share"])


def preference_table(votes: Votes, results: Results) -> Table:
    """The share of comparisons that each method won, beside its headline."""
    rows = votes.rows[~votes.rows["is_catch"].astype(bool)]
    summary = results.summary[results.summary["metric"] == results.run.headline].set_index("method")
    made: list[tuple[float, tuple[Cell, ...]]] = []
    for name in results.order:
        mine = rows[(rows["left"] == name) | (rows["right"] == name)]
        if len(mine):
            won = mine.assign(won=_share_of(mine, name))
            rates = [_mean(won[won["question"] == question], "won") for question in QUESTIONS]
            cell = summary.loc[name]
            row: tuple[Cell, ...] = (name, *rates, len(mine), Number(cell["mean"], cell["low"], cell["high"]))
            made.append((-np.nan_to_num(rates[0].value), row))
    made.sort(key=lambda item: item[0])
    questions = [f"preferred in {question}" for question in QUESTIONS]
    raters, met = rows["rater"].nunique(), _met(rows, [row[0] for _, row in made])
    note = (
        f"Votes of {count(raters, 'rater')}. Preferred: share of its comparisons with other methods that a method won, "
        "no difference as half; means over references, after averaging those of a reference, with Student's 95% "
        f"intervals. Votes on each two methods: {min(met)} to {max(met)}. " + " ".join(votes.notes)
    )
    columns = ("name", *questions, "votes", heading(results.run, results.run.headline))
    return Table("What people prefer", columns, tuple(row for _, row in made), note.strip())


def _met(rows: pd.DataFrame, names: list[Cell]) -> list[int]:
    """Number of votes on each two of the names, of which two or more are in the rows."""
    pairs = Counter(frozenset(pair) for pair in zip(rows["left"], rows["right"], strict=True))
    return [pairs[frozenset(pair)] for pair in combinations(names, 2)]


def agreement_table(votes: Votes, results: Results) -> Table:
    """For each metric, how often it prefers the video that people prefer."""
    metrics = results.run.info["metrics"]
    # At the first seeds, which the sheet shows.
    values = results.run.at_first_seeds(results.rows).set_index(["metric", "method", "case_id"])["value"]
    trial = ["trial", "question", "case_id", "reference_id", "left", "right"]
    pairs = votes.rows.groupby(trial, as_index=False)["share"].mean()
    pairs = pairs[pairs["share"] != 0.5]
    made: list[tuple[Cell, ...]] = []
    for metric in results.run.metrics:
        better = metrics[metric]["higher_is_better"]
        if better is None:
            continue
        sides = (
            values.reindex(pd.MultiIndex.from_arrays([[metric] * len(pairs), pairs[side], pairs["case_id"]])).to_numpy()
            for side in ("left", "right")
        )
        gap = np.subtract(*sides) * (1 if better else -1)
        agreed = (1 + np.sign(gap) * np.sign(pairs["share"] - 0.5)) / 2
        judged = pairs.assign(agreed=agreed).dropna(subset=["agreed"])
        rates = [_mean(judged[judged["question"] == question], "agreed") for question in QUESTIONS]
        made.append((heading(results.run, metric), *rates, len(judged)))
    note = (
        "Share of the pairs in which a metric gives the better value to the video that more people prefer; pairs on "
        "which people are even are left out, equal values count half, and .5 is a coin. Means over references, with "
        "Student's 95% intervals. The trials of truth against wrong action are included."
    )
    columns = ("metric", *(f"agrees in {question}" for question in QUESTIONS), "pairs")
    return Table("Which metrics agree with people", columns, tuple(made), note)


def _mean(rows: pd.DataFrame, column: str) -> Number:
    """Mean over references with its interval, cut to 0..1, which shares cannot leave."""
    means = rows.groupby("reference_id")[column].mean().to_numpy(float)
    if not len(means):
        return Number(float("nan"))
    low, high = student_interval(means)
    return Number(float(means.mean()), float(np.maximum(low, 0)), float(np.minimum(high, 1)))
