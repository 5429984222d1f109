"""Outcomes of claims that are tested again on other references (docs/statistics.md, Replication)."""

import pandas as pd

from reports.analysis.claims import EQUAL, NO_DIFFERENCE, is_claim

AGAIN, CONTRADICTED, CHANGED = "holds again", "contradicted", "another claim"
TOWARDS, NOT_SHOWN, NOT_TESTED = "same sign, not shown", "not shown", "not tested"
NEW, OPEN = "new", "open in both"


def outcome(row: "pd.Series") -> str:
    """Outcome of a pair, from its `verdict` and `mean` in the first run and `verdict_again` and `mean_again`."""
    before, after = row["verdict"], row["verdict_again"]
    if not is_claim(before):
        return NEW if is_claim(after) else OPEN
    if is_claim(after):
        equalities = before.startswith(EQUAL) + after.startswith(EQUAL)
        return AGAIN if after == before else CHANGED if equalities else CONTRADICTED
    if after != NO_DIFFERENCE:
        return NOT_TESTED
    return TOWARDS if not before.startswith(EQUAL) and row["mean"] * row["mean_again"] > 0 else NOT_SHOWN


def side_by_side(first: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """Claims of two runs, each indexed by pair: columns of the second one end with `_again`, the last is `outcome`."""
    both = first.join(again.add_suffix("_again"))
    return both.assign(outcome=[outcome(row) for _, row in both.iterrows()])


def share_held(outcomes: pd.Series) -> tuple[int, int]:
    """Number of claims that hold again, and that of the claims of the first run."""
    return int((outcomes == AGAIN).sum()), int((~outcomes.isin([NEW, OPEN])).sum())
