"""Tables on votes as a whole: strengths that all comparisons imply, and how far raters agree."""

import numpy as np
import pandas as pd

from reports.analysis.claims import MIN_REFERENCES
from reports.analysis.inference import cluster_weights, percentile_interval
from reports.analysis.votes import PRIOR, bradley_terry, krippendorff_alpha
from reports.prefer.analysis import Votes
from reports.prefer.sheet import QUESTIONS
from reports.results import Results
from reports.tables.cells import Cell, Number, Table
from reports.wording import signed

RESAMPLES = 2_000
REFERENCE_SEED, RATER_SEED = 0, 1
"""Seeds of the bootstrap's draws."""


def strength_table(votes: Votes, results: Results) -> Table:
    """Bradley-Terry strengths of the methods: what all comparisons together say, whoever met whom how often."""
    rows = votes.rows[~votes.rows["is_catch"].astype(bool)]
    names = [name for name in results.order if (rows[["left", "right"]] == name).any(axis=None)]
    found = {question: _strengths(rows[rows["question"] == question], names) for question in QUESTIONS}
    order = sorted(range(len(names)), key=lambda place: -np.nan_to_num(found[next(iter(QUESTIONS))][place].value))
    made: list[tuple[Cell, ...]] = [(names[p], *(found[question][p] for question in QUESTIONS)) for p in order]
    raters, references = rows["rater"].nunique(), rows["reference_id"].nunique()
    note = (
        "Strengths after Bradley and Terry, with mean 0: a difference of 1 means that the better one is preferred 2.7 "
        "times as often as the other. No difference counts as half; "
        f"{PRIOR:g} wins are added to each side of every pair, so that who wins all is finite. 95% intervals by a "
        f"bootstrap of {RESAMPLES} resamples with fixed seeds, which draws references"
        + (" and raters" if raters > 1 else "; one rater votes, so nothing is said of others")
        + f". There is none with fewer than {MIN_REFERENCES} references (here {references})."
    )
    return Table("Strengths", ("name", *(f"strength in {name}" for name in QUESTIONS)), tuple(made), note)


def _strengths(rows: pd.DataFrame, names: list[str]) -> list[Number]:
    """Strength of each method with its interval."""
    wins = _wins(rows, names)
    values = bradley_terry(wins.sum(axis=(0, 1)))
    raters, references, *_ = wins.shape
    if references < MIN_REFERENCES:
        return [Number(float(value), write=signed) for value in values]
    by_reference = cluster_weights(references, REFERENCE_SEED, RESAMPLES)
    by_rater = cluster_weights(raters, RATER_SEED, RESAMPLES)
    drawn = bradley_terry(np.einsum("br,bc,rcij->bij", by_rater, by_reference, wins, optimize=True))
    ends = [percentile_interval(column, references) for column in drawn.T]
    return [Number(float(value), *end, signed) for value, end in zip(values, ends, strict=True)]


def _wins(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Number of times that one method was preferred to another, float [raters, references, n, n]."""
    raters, references = (sorted(rows[column].unique()) for column in ("rater", "reference_id"))
    wins = np.zeros((len(raters), len(references), len(names), len(names)))
    for row in rows.itertuples():
        place = raters.index(row.rater), references.index(row.reference_id)
        left, right = names.index(row.left), names.index(row.right)
        wins[(*place, left, right)] += row.share
        wins[(*place, right, left)] += 1 - row.share
    return wins


def rater_table(votes: Votes) -> Table:
    """Krippendorff's alpha for each question: how far people say the same of the same pairs."""
    rows = votes.rows[~votes.rows["is_catch"].astype(bool)]
    made = tuple((question, *_agreement(rows[rows["question"] == question])) for question in QUESTIONS)
    note = (
        "Krippendorff's alpha over the pairs that two or more raters judged, left, same and right being 1, .5 and 0: 1 "
        "is full agreement, 0 what chance gives. Intervals are bootstrapped over references. Where alpha is low, means "
        "over many raters can still tell methods apart, but one person's votes cannot. The trials of truth against "
        "wrong action are left out, since whoever fails them is."
    )
    return Table("How far raters agree", ("question", "alpha", "raters", "pairs judged by two or more"), made, note)


def _agreement(rows: pd.DataFrame) -> tuple[Cell, ...]:
    raters = rows["rater"].nunique()
    seen = rows.pivot(index="trial", columns="rater", values="share")
    both = int((seen.notna().sum(axis=1) >= 2).sum())
    if not both:
        return Number(float("nan")), raters, 0
    of = rows.drop_duplicates("trial").set_index("trial")["reference_id"].loc[seen.index]
    names, cluster = np.unique(of.to_numpy(str), return_inverse=True)
    values = seen.to_numpy(float)
    alpha = float(krippendorff_alpha(values, np.ones((1, len(values))))[0])
    if len(names) < MIN_REFERENCES:
        return Number(alpha, write=signed), raters, both
    drawn = krippendorff_alpha(values, cluster_weights(len(names), REFERENCE_SEED, RESAMPLES)[:, cluster])
    return Number(alpha, *percentile_interval(drawn, len(names)), signed), raters, both
