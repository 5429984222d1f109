"""Make the README's table of results from a published leaderboard.csv.

The table has a row for every method as published and for the bounds that give the scale. Variants, whose names extend
another entry's with `-` or `+`, are only in the whole leaderboard: choosing the best variant of each method afterwards
would favour the methods with many variants.
"""

from pathlib import Path

import pandas as pd

from reports.run_folder import STATUSES
from reports.tables.cells import Number
from reports.tables.formats import cell_text
from reports.wording import arrow, count, is_variant, label, number, seconds

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
BOUNDS = ("oracle-codec", "in-words", "still")
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


def with_results(text: str, table: str) -> str:
    """A text with the content between its two markers replaced by the table.

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
