"""Make the README's results from published ones: a table from leaderboard.csv, and what claims.csv allows to say.

The table has a row for every method as published and for the bounds that give the scale. Variants, whose names extend
another entry's with `-` or `+`, are only in the whole leaderboard: choosing the best variant of each method afterwards
would favour the methods with many variants.
"""

from pathlib import Path
from textwrap import TextWrapper

import pandas as pd

from reports.analysis.claims import EQUAL, NO_DIFFERENCE, is_claim, told
from reports.analysis.outcomes import AGAIN, OPEN, share_held, side_by_side
from reports.run_folder import STATUSES
from reports.tables.cells import Number
from reports.tables.formats import CLAIMS, cell_text
from reports.wording import arrow, count, is_variant, label, number, seconds

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
BOUNDS = ("oracle-codec", "in-words", "still")
_WIDTH = 120
RETRIEVAL, APPEARANCE = "action_retrieval", "true_appearance_error"


def results_table(leaderboard: Path) -> str:
    """The table of a published leaderboard.csv in Markdown, best first by its headline metric, below a line on it.

    Raises:
        ValueError: If the file has no row of a metric that the table shows.
    """
    published = pd.read_csv(leaderboard)
    headline = next(iter(published.loc[published["headline"], "metric"]), "the headline")
    leading, retrieval, appearance = (_of_metric(published, metric) for metric in (headline, RETRIEVAL, APPEARANCE))
    shown = [name for name in leading.index if _is_shown(name, leading)]
    better = bool(leading["higher_is_better"].iloc[0])
    leading = leading.loc[shown].sort_values("mean", ascending=not better, kind="stable")
    first = leading[leading["kind"] == "method"].iloc[0]
    seeds = int(first[[*STATUSES]].sum()) // first["cases"]
    lines = [
        f"Suite `{first['suite']}`, backbone `{first['backbone']}`: {first['cases']} cases of {first['references']} "
        f"references, {count(seeds, 'seed')}; 95 % intervals over references. *Bounds*.",
        "",
        f"| | {label(headline)} {arrow(better)} | right action ↑ | {label(APPEARANCE)} ↓ | one fit | one transfer |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in leading.iterrows():
        title = f"*{name}*" if row["kind"] == "bound" else f"`{name}`"
        agreement = cell_text(Number(row["mean"], row["low"], row["high"]))
        right, error = (number(rows["mean"][name]) for rows in (retrieval, appearance))
        cells = (title, agreement, right, error, seconds(row["fit_s"]), seconds(row["transfer_s"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def claims_list(claims: Path, again: Path, linked: str) -> str:
    """List in Markdown of what the tested pairs show, and of what holds again.

    Args:
        claims: Path to claims.csv of the run with claims.
        again: Path to that of the replication; nothing is said of it if there is none.
        linked: Address of the replication's page.

    Raises:
        ValueError: If the replication lacks a pair.
    """
    tested = pd.read_csv(claims)
    pairs = [tuple(pair) for pair in tested[["name", "minus", "verdict"]].itertuples(index=False)]
    quoted = [(f"`{first}`", f"`{second}`", verdict) for first, second, verdict in pairs]
    equal = [pair for pair in quoted if pair[2].startswith(EQUAL)]
    shown = [pair for pair in quoted if pair not in equal]
    within, _, which = "; ".join(told(equal)).partition(" are ")
    found = {
        f"**Shown** in the first column, corrected for {count(len(tested), 'test')}": "; ".join(told(shown)),
        f"**Equal**{within.removeprefix(EQUAL)}": which,
        "**Open**, with what four of five such runs find": ", ".join(
            f"{first} − {second} {number(seen)}"
            for (first, second, verdict), seen in zip(quoted, tested["detectable"], strict=True)
            if verdict == NO_DIFFERENCE
        ),
    }
    for first, second, verdict in quoted:
        if not is_claim(verdict) and verdict != NO_DIFFERENCE:
            found[f"{first} and {second}"] = verdict
    if again.is_file():
        found["**Tested again**"] = _held(tested, pd.read_csv(again), linked)
    points = (f"{title}: {text or 'nothing'}." for title, text in found.items())
    wrapped = TextWrapper(_WIDTH, "- ", "  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(wrapped.fill, points))


def _held(tested: pd.DataFrame, again: pd.DataFrame, linked: str) -> str:
    """Share of the claims that hold again, and the pairs that came out otherwise.

    Raises:
        ValueError: If the replication lacks a pair.
    """
    pair = ["name", "minus"]
    tested, again = tested.set_index(pair), again.set_index(pair)
    if not tested.index.isin(again.index).all():
        raise ValueError("replication: it lacks pairs of the first run")
    outcomes = side_by_side(tested, again)["outcome"]
    others: dict[str, list[str]] = {}
    for (first, second), found in outcomes[~outcomes.isin([AGAIN, OPEN])].items():
        others.setdefault(found, []).append(f"`{first}` − `{second}`")
    held, claimed = share_held(outcomes)
    said = [f"{held} of {claimed} claims [hold]({linked}) on other references and targets"]
    return "; ".join(said + [f"{found}: {', '.join(pairs)}" for found, pairs in others.items()])


def results(first: Path, again: Path) -> str:
    """Table and list for the README, of the folders of the published run with claims and of its replication.

    Raises:
        ValueError: As for `results_table`.
    """
    linked = f"reports/{again.parent.name}/{again.name}/replication.md"
    return f"{results_table(first / 'leaderboard.csv')}\n\n{claims_list(first / CLAIMS, again / CLAIMS, linked)}"


def with_results(text: str, table: str) -> str:
    """A text with the content between its two markers replaced.

    Raises:
        ValueError: If the text does not have each marker once, in this order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} and after it one {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _of_metric(published: pd.DataFrame, metric: str) -> pd.DataFrame:
    rows = published[published["metric"] == metric].set_index("name")
    if rows.empty:
        raise ValueError(f"leaderboard: no row of {metric}")
    return rows


def _is_shown(name: str, rows: pd.DataFrame) -> bool:
    if rows["kind"][name] == "bound":
        return name in BOUNDS
    return not is_variant(name, rows.index)
