"""The reports of a run that was worked out by hand (see tests/golden/report/README.md)."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from reports.analysis.belief import belief
from reports.results import checks, measure
from reports.run_folder import load_run
from reports.tables import boards, formats, sections

GOLDEN = Path(__file__).parents[2] / "golden" / "report"


def hand_written_run(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(GOLDEN / "run.json", folder / "run.json")
    samples = pd.read_csv(GOLDEN / "samples.csv").assign(video=None)
    samples.to_parquet(folder / "samples.parquet")
    pd.read_csv(GOLDEN / "scores.csv").to_parquet(folder / "scores.parquet")
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return measure(load_run(hand_written_run(tmp_path_factory.mktemp("run"))), against="first")


@pytest.mark.golden
def test_csv_is_as_worked_out_by_hand(results):
    assert formats.csv(results).splitlines() == (GOLDEN / "leaderboard.csv").read_text().splitlines()


@pytest.mark.golden
def test_markdown_tables_are_as_worked_out_by_hand(results):
    made = [
        boards.methods_table(results),
        boards.bounds_table(results),
        *boards.metric_tables(results),
        *sections.tercile_tables(results),
        sections.cost_table(results),
        sections.faults_table(results),
    ]
    without_notes = [sections.Table(table.title, table.columns, table.rows) for table in made]
    text = "\n\n".join(formats.markdown_table(table) for table in without_notes) + "\n"
    assert text == (GOLDEN / "leaderboard_tables.md").read_text()


def test_checks_count_methods_on_the_right_side(results):
    still, wrong, copied, codec = checks(results)
    assert "lies below 2 of 2 methods, for 0 with" in still  # two references give intervals of 12.7 standard errors
    assert "not part of this run" in wrong and "not part of this run" in copied
    assert "lies above 2 of 2 methods, for 1 with" in codec


def test_belief_as_by_hand(results):
    (row,) = belief(results.run, results.rows).to_dict("records")
    assert row["metric"] == "temporal_consistency"
    assert row["videos"] == 11
    assert (row["truth_preferred"], row["duels"]) == (0.0, 3)  # a still image is smoother than the truth
    # Inside `first`: motion ranks 2 3 1 4.5 4.5, smoothness 5 4 3 1.5 1.5: rho = -6.5/9.5.
    # Inside `second`: motion ranks 2 5 1 3 5 5 (0.3 three times), smoothness 6 3 4.5 4.5 1.5 1.5.
    first = -6.5 / 9.5
    second = pd.Series([2, 5, 1, 3, 5, 5.0]).corr(pd.Series([6, 3, 4.5, 4.5, 1.5, 1.5]))
    assert row["within_method"] == pytest.approx((first + second) / 2)
    assert pd.isna(row["over_methods"])  # two means have no rank correlation


def test_title_names_backbone_and_size_and_claims_nothing_larger(results):
    for text in (formats.markdown(results, {}), formats.latex(results)):
        assert "tiny" in text
        assert "1.5 M parameters" in text
        assert "say nothing about larger backbones" in text
        assert re.search(r"9 frames of 48 (×|\$\\times\$) 32 pixels", text)


def test_every_form_lists_what_a_method_was_given_and_what_it_costs(results):
    words = ("extra supervision", "fit", "transfer", "peak memory", "adapter trained beforehand")
    for text, mark in ((formats.latex(results), "&"), (formats.markdown(results, {}), "|")):
        heads = {part.strip(" \\") for line in text.splitlines() if "name" in line for part in line.split(mark)}
        assert heads.issuperset(words)
    columns = formats.csv(results).splitlines()[0].split(",")
    assert {"extra_supervision", "fit_s", "transfer_s", "peak_memory_gib", "action_mib", "adapter_mib"} < set(columns)


def test_tables_are_narrow_enough_to_read(results):
    many = {f"m{place:02d}": dict(results.run.info["metrics"]["motion_lag"]) for place in range(20)}
    info = results.run.info | {"metrics": results.run.info["metrics"] | many}
    made = boards.metric_tables(measure(dataclasses.replace(results.run, info=info)))
    assert [len(table.columns) for table in made] == [8, 8, 8, 2]
    assert [column for table in made[:3] for column in table.columns[1:]][1:] == [f"{name} ↓" for name in many]
    assert len(boards.methods_table(results).columns) <= boards.MOST_COLUMNS


def test_latex_escapes_and_balances(results):
    text = formats.latex(results)
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count("{") == text.count("}")
    assert text.isascii()
    for part in text.split(r"\begin{tabular}")[1:]:
        rows = [line for line in part.split(r"\end{tabular}")[0].splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 3 and {row.count(" & ") for row in rows} == {part.index("}") - 2}  # a letter a column
    assert r"95\%" in text


def test_methods_not_in_the_run_are_refused_with_the_list(results):
    with pytest.raises(ValueError, match="'third' is not in this run; it has second, first, still, oracle-codec"):
        measure(results.run, against="third")


def test_published_numbers_stay_out_of_the_tables(results):
    for text in (formats.markdown(results, {}), formats.csv(results), formats.latex(results)):
        assert "MD-I2V" not in text
        assert ".4103" not in text


def test_rows_of_a_run_without_headline_metric_are_sorted_by_the_first(results, tmp_path):
    folder = hand_written_run(tmp_path)
    info = json.loads((folder / "run.json").read_text())
    info["metrics"]["motion_agreement"]["headline"] = False
    (folder / "run.json").write_text(json.dumps(info))
    run = load_run(folder)
    assert run.headline == "motion_lag"
    assert measure(run).order == ("first", "second")  # a lag of 1.333 is better than one of 2
    assert "headline metric was not measured" in run.notes[-1]
