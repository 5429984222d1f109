"""Reading run directories: what is wrong is named in one line."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from reports.analysis import statistics as aggregate
from reports.build import main
from reports.results import cautions, measure
from reports.run_folder import SCHEMA_VERSION, RunError, load_run
from reports.tables import sections

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", references=2, targets=4, seeds=(3, 4), videos=False)


def rewrite(path, change):
    if path.suffix == ".json":
        info = json.loads(path.read_text())
        change(info)
        path.write_text(json.dumps(info))
    else:
        change(pd.read_parquet(path)).to_parquet(path)


def drop(*path):
    def change(info):
        for name in path[:-1]:
            info = info[name]
        del info[path[-1]]

    return change


def test_tables_have_the_axes_that_the_cases_name(run):
    assert load_run(run).axes == ("layout", "viewpoint", "skeleton")
    case_id = next(iter(json.loads((run / "run.json").read_text())["cases"]))
    rewrite(run / "run.json", lambda i: i["cases"][case_id]["terciles"].update(pose="far"))
    posed = load_run(run)
    assert posed.axes == ("layout", "viewpoint", "skeleton", "pose")
    assert sections.tercile_tables(measure(posed))[-1].title.endswith("apart in pose")
    rewrite(run / "run.json", lambda i: [case.update(terciles={}) for case in i["cases"].values()])
    assert load_run(run).axes == posed.axes


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "run.json",
            lambda i: i.update(schema_version=SCHEMA_VERSION + 1),
            f"schema_version {SCHEMA_VERSION + 1}, but these reports read {SCHEMA_VERSION}",
        ),
        ("run.json", drop("schema_version"), "schema_version None"),
        ("run.json", drop("backbone", "num_parameters"), "backbone.num_parameters: missing"),
        ("run.json", drop("methods", "i2v", "kind"), r"methods\.i2v\.kind: missing"),
        (
            "run.json",
            lambda i: i["methods"]["i2v"].update(kind="toy"),
            "kind: expected method, submission, bound, got 'toy'",
        ),
        ("run.json", lambda i: i.update(cases={}), "cases: expected at least one entry"),
        ("run.json", lambda i: i.update(seeds="0"), "seeds: expected a list of integers"),
        ("samples.parquet", lambda t: t.drop(columns="fit_s"), "column fit_s is missing"),
        ("scores.parquet", lambda t: t.assign(status="good"), "status 'good' is none of ok, failed, skipped"),
        ("samples.parquet", lambda t: pd.concat([t, t[:1]]), "more than one row for method flexiact"),
        ("scores.parquet", lambda t: pd.concat([t, t[:1]]), "more than one row for method flexiact"),
    ],
)
def test_a_faulty_run_is_refused_with_the_reason(run, file, change, message):
    rewrite(run / file, change)
    with pytest.raises(RunError, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["run.json", "samples.parquet", "scores.parquet"])
def test_a_missing_or_damaged_file_is_named(run, file):
    (run / file).write_bytes(b"{ no")
    with pytest.raises(RunError, match=file):
        load_run(run)
    (run / file).unlink()
    with pytest.raises(RunError, match=f"{file}: missing"):
        load_run(run)


def test_command_line_answers_faults_with_one_line_and_2(run, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    rewrite(run / "run.json", lambda info: info.update(schema_version=99))
    assert main([str(run)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert not (run / "report").exists()


def test_rows_that_run_json_does_not_describe_are_left_out_and_said_so(run):
    rewrite(run / "run.json", drop("methods", "i2v"))
    rewrite(run / "run.json", drop("metrics", "pck"))
    loaded = load_run(run)
    assert "i2v" not in set(loaded.samples["method"])
    assert "pck" not in set(loaded.scores["metric"])
    assert any("run.json describes no method i2v" in note for note in loaded.notes)
    assert any("run.json describes no metric pck" in note for note in loaded.notes)


def test_rows_of_another_version_are_left_out_and_said_so(run):
    rewrite(run / "run.json", lambda info: info["metrics"]["pck"].update(version=2))
    rewrite(run / "run.json", lambda info: info["methods"]["i2v"].update(version=7))
    results = measure(load_run(run))
    pck = results.summary[results.summary["metric"] == "pck"]
    assert not pck["ok"].any()
    assert results.counts.loc["i2v", "missing"] == 16
    assert sum("of another" in note for note in cautions(results)) == 2


def test_ok_without_a_finite_number_counts_as_failed(run):
    def spoil(scores):
        mine = (scores["method"] == "flexiact") & (scores["metric"] == "pck")
        scores.loc[mine, "value"] = [float("nan"), float("inf"), *scores.loc[mine, "value"][2:]]
        return scores

    rewrite(run / "scores.parquet", spoil)
    rows = aggregate.tidy(load_run(run))
    mine = rows[(rows["method"] == "flexiact") & (rows["metric"] == "pck")]
    assert (mine["status"] == "failed").sum() == 2
    assert mine["value"].notna().sum() == 14


def test_a_failed_video_fails_all_its_metrics_and_an_unmade_one_is_missing(run):
    rows = aggregate.tidy(load_run(run))
    hexapods = rows[(rows["method"] == "flexiact-no-schedule") & (rows["status"] == "failed")]
    metrics = len(load_run(run).metrics)
    # The script fails seed 1 only, which this run does not have; its last base-embedding video was never made.
    assert hexapods.empty
    assert (rows["status"] == "missing").sum() == metrics
    skipped = rows[(rows["method"] == "copy-reference") & (rows["status"] == "skipped")]
    assert len(skipped) == 2 * metrics


def test_mixed_backends_are_called_so(run):
    rewrite(
        run / "scores.parquet",
        lambda scores: scores.assign(backend=scores["backend"].where(scores["method"] != "i2v", "another")),
    )
    table = sections.metrics_table(measure(load_run(run)))
    assert all("mixed: not comparable" in row[4] for row in table.rows)


def test_few_seeds_and_references_are_said(run):
    said = " ".join(cautions(measure(load_run(run))))
    assert "There are 2 reference videos. Nothing is claimed with fewer than 6." in said
    assert "With 2 seeds no method is said to beat another" in said


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ((1.0, 1.05), None),
        ((3.2, 1.0), "of 2 they play 1 reference faster, 3.2 times as fast as filmed at the most. The"),
        ((2.0, 5.0), "of 2 they play 2 references faster, 5 times as fast"),
        ((2.0, 0.5), "1 reference faster, 2 times as fast as filmed at the most and 1 reference slower, 0.5 times"),
    ],
)
def test_references_that_are_played_faster_or_slower_are_said(run, durations, expected):
    def lengths(info):
        names = sorted({case["reference_id"] for case in info["cases"].values()})
        for case in info["cases"].values():
            case["files"] = {"reference": {"duration_s": durations[names.index(case["reference_id"])]}}

    assert "Clips are" not in " ".join(cautions(measure(load_run(run))))
    rewrite(run / "run.json", lengths)  # clips are of 9 frames at 8 a second
    said = " ".join(cautions(measure(load_run(run))))
    assert expected in said if expected else "Clips are" not in said


def test_sessions_that_differ_are_said_and_those_that_do_not_are_not(run):
    def later(change):
        def add(info):
            info["later_sessions"] = [{"command": "more", "provenance": info["provenance"] | change}]

        return add

    rewrite(run / "run.json", later({}))
    assert "other session" not in " ".join(cautions(measure(load_run(run))))
    rewrite(run / "run.json", later({"threads": 64}))
    assert "1 other session that differed" in " ".join(cautions(measure(load_run(run))))


def test_a_metric_that_no_video_has_is_one_line(run):
    def spoil(scores):
        mine = scores["metric"] == "pck"
        return scores.assign(
            status=scores["status"].mask(mine, "skipped"), value=scores["value"].mask(mine), error="no network"
        )

    rewrite(run / "scores.parquet", spoil)
    rows = sections.faults_table(measure(load_run(run))).rows
    assert [(row[0], row[2]) for row in rows if row[1].lower() == "pck"] == [("all", "skipped")]


def test_metrics_that_do_not_say_what_they_need_are_pointed_out(run):
    assert "may be listed as truth-free" not in " ".join(cautions(measure(load_run(run))))
    rewrite(run / "run.json", drop("metrics", "pck", "needs"))
    results = measure(load_run(run))
    assert "may be listed as truth-free" in " ".join(cautions(results))
    assert "pck" in set(results.belief["metric"])


def test_one_reference_gives_no_intervals_and_says_so(tmp_path):
    results = measure(load_run(make_run(tmp_path, references=1, targets=2, seeds=(0,), videos=False)))
    assert "There is 1 reference video. Nothing is claimed" in " ".join(cautions(results))
    assert results.summary["low"].isna().all()


def test_the_harness_writes_the_schema_that_is_read_here():
    store = pytest.importorskip("benchmark.store.folder")
    assert store.SCHEMA_VERSION == SCHEMA_VERSION
