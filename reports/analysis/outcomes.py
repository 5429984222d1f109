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
