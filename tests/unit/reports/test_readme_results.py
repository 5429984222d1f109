"""The README's results are the published ones, row by row."""

from pathlib import Path

import pandas as pd
import pytest

from reports.build import PUBLISHED, REPLICATED, main
from reports.readme import BEGIN, BOUNDS, END, claims_list, results, results_table, with_results
from reports.wording import interval, number, seconds

ROOT = Path(__file__).parents[3]


def test_the_readme_holds_the_published_results() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme == with_results(readme, results(PUBLISHED, REPLICATED))


def test_rows_are_the_methods_as_published_and_the_bounds_that_give_the_scale() -> None:
    rows = pd.read_csv(PUBLISHED / "leaderboard.csv").query("headline").set_index("name")
    table = [line.strip("| ").split(" | ") for line in results_table(PUBLISHED / "leaderboard.csv").splitlines()[4:]]
    shown = {cells[0].strip("*`"): cells[1:] for cells in table}
    assert set(BOUNDS) <= set(shown)
    assert {"flexiact", "base-embedding", "i2v"} <= set(shown)
    assert not {name for name in shown if "+" in name or name.startswith("flexiact-")}
    assert [rows["mean"][name] for name in shown] == sorted((rows["mean"][name] for name in shown), reverse=True)
    for name, (agreement, _, _, fit, transfer) in shown.items():
        row = rows.loc[name]
        assert agreement == f"{number(row['mean'])} {interval(row['low'], row['high'])}"
        assert (fit, transfer) == (seconds(row["fit_s"]), seconds(row["transfer_s"]))


def test_the_table_is_of_the_headline_on_which_claims_rest(tmp_path: Path) -> None:
    published = pd.read_csv(PUBLISHED / "leaderboard.csv")
    other = published.assign(headline=published["metric"] == "pck")
    other.to_csv(tmp_path / "leaderboard.csv", index=False)
    lines = results_table(tmp_path / "leaderboard.csv").splitlines()
    assert lines[2].startswith("| | pck ↑ | right action ↑ | true appearance error ↓ |")
    best = other.query("headline and name in ['flexiact', 'oracle-codec']").set_index("name")["mean"]
    assert lines[4].startswith(f"| *oracle-codec* | {number(best['oracle-codec'])} ")
    published.assign(headline=False).to_csv(tmp_path / "leaderboard.csv", index=False)
    with pytest.raises(ValueError, match="no row of the headline"):
        results_table(tmp_path / "leaderboard.csv")


def test_the_command_writes_between_the_markers_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--readme", str(readme)]) == 0
    before, _, rest = readme.read_text().partition(f"{BEGIN}\n")
    table, _, after = rest.partition(f"\n{END}")
    assert (before, after) == ("before\n", "\nafter\n")
    assert table == results(PUBLISHED, REPLICATED)
    readme.write_text("no markers")
    assert main(["--readme", str(readme)]) == 2
    assert BEGIN in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], *(["--readme", "R", option, "x"] for option in ("--out", "--publish", "--against"))]
)
def test_without_a_run_only_the_readme_is_written(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "error: RUN is missing: only --readme alone needs none\n"


@pytest.mark.parametrize(("column", "metric"), [(2, "action_retrieval"), (3, "true_appearance_error")])
def test_numbers_of_other_metrics_are_the_published_ones(column: int, metric: str) -> None:
    rows = pd.read_csv(PUBLISHED / "leaderboard.csv").query("metric == @metric").set_index("name")
    for line in results_table(PUBLISHED / "leaderboard.csv").splitlines()[4:]:
        cells = line.strip("| ").split(" | ")
        assert cells[column] == number(rows["mean"][cells[0].strip("*`")])


def test_the_list_tells_each_pair_and_what_holds_again(tmp_path: Path) -> None:
    pairs = [
        ("a", "z", 0.3, 0.1, "beats"),
        ("b", "z", 0.2, 0.1, "beats"),
        ("a", "y", -0.2, 0.1, "is beaten by"),
        ("a", "b", 0.0, 0.1, "equal within 0.05"),
        ("c", "z", 0.1, 0.12, "no difference shown"),
        ("d", "z", 0.1, 0.12, "not claimed: 1 seed"),
    ]
    first = pd.DataFrame(pairs, columns=["name", "minus", "mean", "detectable", "verdict"])
    first.to_csv(tmp_path / "first.csv")
    told = claims_list(tmp_path / "first.csv", tmp_path / "none.csv", "page.md").splitlines()
    assert told == [
        "- **Shown** in the first column, corrected for 6 tests: `a` and `b` beat `z`; `y` beats `a`.",
        "- **Equal** within 0.05: `a` and `b`.",
        "- **Open**, with what four of five such runs find: `c` − `z` 0.120.",
        "- `d` and `z`: not claimed: 1 seed.",
    ]
    verdicts = ["beats", "no difference shown", "beats", "equal within 0.05", "beats", "not claimed: 1 seed"]
    first.assign(verdict=verdicts).to_csv(tmp_path / "again.csv")
    *same, last = claims_list(tmp_path / "first.csv", tmp_path / "again.csv", "page.md").split("\n- ")
    assert "\n- ".join(same).splitlines() == told
    assert " ".join(last.split()) == (
        "**Tested again**: 2 of 4 claims [hold](page.md) on other references and targets; "
        "same sign, not shown: `b` − `z`; contradicted: `a` − `y`; new: `c` − `z`."
    )
    first[:-1].to_csv(tmp_path / "again.csv")
    with pytest.raises(ValueError, match="lacks pairs"):
        claims_list(tmp_path / "first.csv", tmp_path / "again.csv", "page.md")
