"""The README's results are the published ones, row by row."""

import re
from pathlib import Path

import pandas as pd

from reports.wording import number, seconds, with_interval

ROOT = Path(__file__).parents[3]
COLUMNS = ("motion_agreement", "true_appearance_error")


def test_the_table_of_results_is_the_published_leaderboard() -> None:
    published = pd.read_csv(ROOT / "reports" / "puppets" / "leaderboard.csv")
    agreement, appearance = (published[published["metric"] == name].set_index("name") for name in COLUMNS)
    expected = [
        (
            f"*{name}*" if row["kind"] == "bound" else name,
            with_interval(row["mean"], row["low"], row["high"]),
            number(appearance["mean"][name]),
            seconds(row["fit_s"]),
            seconds(row["transfer_s"]),
        )
        for name, row in agreement.sort_values("mean", ascending=False, kind="stable").iterrows()
    ]
    table = (ROOT / "README.md").read_text().split("| motion agreement ↑ |")[1].split("\n\n")[0]
    rows = [tuple(re.split(r"\s*\|\s*", line.strip("| "))) for line in table.splitlines()[2:]]
    assert rows == expected
