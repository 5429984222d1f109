"""Cases of a table, and their scores without any backbone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmark.score as command
from benchmark.planning.plan import plan
from benchmark.stages.describe import describe_run
from benchmark.suites.case import CaseError, Format
from benchmark.suites.case_table import table_suite
from flexiact import PUPPET_WEIGHTS
from flexiact.media.image import write_png
from tests.support.real_material import moving, write_clip, write_image, write_table

HEADING = ["video", "case", "method", "reference", "target", "prompt"]
ROWS = [
    ["1.mp4", "fox", "ours", "clips/walk.mp4", "fox.png", "a fox walks"],
    ["2.mp4", "fox", "theirs", "clips/walk.mp4", "fox.png", "a fox walks"],
    ["", "owl", "theirs", "clips/walk.mp4", "owl.png", "an owl walks"],
]


def material(folder: Path, rows: list[list[str]] = ROWS, heading: list[str] = HEADING) -> Path:
    write_clip(folder / "clips/walk.mp4", num_frames=12)
    for number, name in enumerate(("fox.png", "owl.png")):
        write_image(folder / name, number)
    write_table(folder / "all.csv", [heading, *rows], separator=";")
    return folder / "all.csv"


def test_rows_of_one_case_are_one_case(tmp_path: Path) -> None:
    suite = table_suite(str(material(tmp_path)))
    assert (suite.name, suite.case_ids) == ("table-all", ("fox", "owl"))
    fox, owl = suite.cases
    assert fox.reference_id == owl.reference_id == "clips-walk"
    assert (fox.prompt, fox.caption, fox.target.name) == ("a fox walks", "", "fox.png")


def test_two_references_have_two_ids(tmp_path: Path) -> None:
    for seed, name in enumerate(("a/b.mp4", "a-b.mp4", "a/b.mkv")):
        write_clip(tmp_path / name, seed=seed)
    files = ["a/b.mp4", "a-b.mp4", "./a-b.mp4", "a/b.mkv", "clips/walk.mp4"]
    rows = [["", str(number), "", file, "fox.png", f"a fox walks {number}"] for number, file in enumerate(files)]
    suite = table_suite(str(material(tmp_path, rows)))
    assert [case.reference_id for case in suite.cases] == ["a-b", "a-b-2", "a-b-2", "a-b-3", "clips-walk"]


def test_several_texts_may_be_asked_of_one_reference_and_target(tmp_path: Path, backbone) -> None:
    rows = [["", name, "", "clips/walk.mp4", "fox.png", f"a fox {name}"] for name in ("walks", "runs", "creeps")]
    (walks,) = table_suite(str(material(tmp_path, rows[:1]))).cases
    suite = table_suite(str(material(tmp_path, rows)))
    assert suite.chosen(["walks"]) == (walks,)  # rows that were added at the end leave its results alone
    assert suite.case_ids == ("creeps", "runs", "walks")
    about = {"suite": suite.name, "suite_version": None, "suite_digest": None}
    for cases in (suite.cases, suite.chosen(["creeps", "runs"])):
        run = describe_run(about, cases, [0], backbone, {}, {})
        keys = {(cell.method, cell.case_id): cell.key for cell in plan(run)}
        assert len(set(keys.values())) == len(keys) == 2 * len(cases)
    alone = table_suite(str(material(tmp_path / "alone", rows[1:2]))).cases
    assert alone[0].digests == walks.digests != suite.chosen(["runs"])[0].digests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"case": ""}, "line 2: the case is empty"),
        ({"case": "a/b"}, "line 2: case: expected letters"),
        ({"reference": "run.mp4"}, "line 2: there is no run.mp4 in the table's folder"),
        ({"target": "../fox.png"}, r"line 2: there is no ../fox.png in the table's folder"),
        ({"case": "f" * 300}, r"suite: case f+…: its name has 300 bytes, 255 at most can name a folder"),
        ({"prompt": "a fox runs"}, "line 3: case fox is another one above"),
    ],
)
def test_a_row_that_is_wrong_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "fox.png").touch()
    first = [change.get(name, cell) for name, cell in zip(HEADING, ROWS[0], strict=True)]
    with pytest.raises(CaseError, match=message):
        table_suite(str(material(tmp_path / "in", [first, *ROWS[1:]])))


def test_the_line_that_is_named_is_that_of_the_file(tmp_path: Path) -> None:
    table = material(tmp_path)
    table.write_text(table.read_text().replace("\n", "\n\n", 1).replace("owl.png", "cat.png"))  # an empty second line
    with pytest.raises(CaseError, match=r"line 5: there is no cat\.png"):
        table_suite(str(table))


def test_a_quotation_mark_that_is_not_closed_swallows_no_case(tmp_path: Path) -> None:
    table = material(tmp_path)
    written = table.read_text()
    table.write_text(written.replace("a fox walks\n", '"a fox walks\n', 1))
    with pytest.raises(CaseError, match="line 2: a quotation mark is not closed"):
        table_suite(str(table))
    table.write_text(written.replace("a fox walks", '"a fox\nwalks"'))
    assert table_suite(str(table)).case_ids == ("fox", "owl")


def test_a_row_may_say_where_the_action_is(tmp_path: Path) -> None:
    rows = [[*row, "2", "11"] for row in ROWS]
    suite = table_suite(str(material(tmp_path, rows, [*HEADING, "start_frame", "end_frame"])))
    assert [case.frames for case in suite.cases] == [(2, 11), (2, 11)]
    whole = table_suite(str(material(tmp_path / "whole"))).cases[0].show(Format(12, 32, 48, 8.0))
    shown = suite.cases[0].show(Format(9, 32, 48, 8.0))
    np.testing.assert_array_equal(shown.reference.frames, whole.reference.frames[2:11])


@pytest.mark.parametrize(
    ("span", "frames"), [(("2.0", "11.0"), (2, 11)), (("2,0", "11,0"), (2, 11)), (("nan", ""), None)]
)
def test_a_program_may_have_written_where_the_action_is(tmp_path: Path, span: tuple[str, str], frames) -> None:
    rows = [[*row, *span] for row in ROWS]
    suite = table_suite(str(material(tmp_path, rows, [*HEADING, "start_frame", "end_frame"])))
    assert suite.cases[0].frames == frames


@pytest.mark.parametrize("span", [("0", "1.000"), ("0", "1,048"), ("2", ""), ("2", "3"), ("x", "9"), ("-1", "9")])
def test_a_part_without_two_frames_is_refused(tmp_path: Path, span: tuple[str, str]) -> None:
    rows = [[*row, *span] for row in ROWS]
    with pytest.raises(CaseError, match="start_frame and end_frame: expected frames of which the second"):
        table_suite(str(material(tmp_path, rows, [*HEADING, "start_frame", "end_frame"])))


def test_a_heading_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="expected the heading case,reference,target,prompt"):
        table_suite(str(material(tmp_path, heading=[*HEADING[:-1], "text"])))


@pytest.mark.parametrize("heading", ["start", "Start Frame", "captions"])
def test_a_column_that_nothing_reads_is_said(tmp_path: Path, heading: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = material(tmp_path, [[*row, "2", "x"] for row in ROWS], [*HEADING, heading, "Caption"])
    assert table_suite(str(table)).cases[0].caption == "x"
    assert capsys.readouterr().err == f"note: {table} has columns that are not read: {heading}\n"


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = material(tmp_path, [[*row, "x", "y"] for row in ROWS], [*HEADING, "caption", "Caption"])
    with pytest.raises(CaseError, match=r"expected the heading .*,caption, got '.*,caption,Caption'"):
        table_suite(str(table))


def test_a_text_that_goes_on_after_its_quotation_mark_is_refused(tmp_path: Path) -> None:
    table = material(tmp_path)
    table.write_text(table.read_text().replace("an owl walks", '"an \\"old\\" owl"'))
    with pytest.raises(CaseError, match="line 4: a space or text follows a closing quotation mark"):
        table_suite(str(table))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_methods", lambda *_: pytest.fail("the arguments were not refused"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "table:all.csv"], "format: real material has none of its own: give --format"),
        (["--format", "9x64x64@8"], "format: is that of the backbone; leave --format out"),
        (["--suite", "table:all.csv", "--backbone", "b", "--format", "9x64x64@8"], "leave --format out"),
        (["--suite", "table:all.csv", "--format", "1x64x64@8"], "expected frames x height x width @ rate"),
        (["--suite", "table:all.csv", "--format", "9x64@8"], "expected frames x height x width @ rate"),
    ],
)
def test_a_wrong_format_is_answered_in_one_line(
    arguments: list[str], message: str, quiet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = command.main(["--videos", "videos", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr().err
    assert code == 2 and message in shown and shown.count("\n") == 1


@pytest.mark.slow
def test_one_table_scores_videos_of_several_methods_without_a_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.run.set_threads", lambda threads: None)  # of the process, which tests share
    table, videos, out = material(tmp_path), tmp_path / "videos", tmp_path / "run"
    write_clip(videos / "1.mp4", num_frames=9, seed=1)
    write_clip(videos / "2.mp4", num_frames=17, seed=2)
    arguments = ["--videos", str(videos), "--manifest", str(table), "--suite", f"table:{table}"]
    arguments += ["--format", "9x32x48@8", "--image-encoder", str(PUPPET_WEIGHTS / "clip")]
    arguments += ["--device", "cpu", "--workers", "1", "--out", str(out)]
    assert command.main(arguments) == 1
    said = capsys.readouterr()
    assert "2 videos failed, the first one ours on owl: MediaError: no video was submitted" in said.err
    assert "not read" not in said.err
    assert "note: theirs (1 of 2 videos) has 17 frames, brought to 9 at equal times" in said.err
    samples = pd.read_parquet(out / "samples.parquet")
    assert set(samples["method"]) == {"ours", "theirs", "still", "copy-reference"}
    scores = pd.read_parquet(out / "scores.parquet").set_index(["method", "case_id", "metric"])
    assert scores.loc[("ours", "fox", "motion_fidelity"), "status"] == "ok"
    backbone = json.loads((out / "run.json").read_text())["backbone"]
    assert (backbone["name"], backbone["num_frames"], backbone["height"], backbone["width"]) == ("none", 9, 32, 48)
    page = (out / "report" / "leaderboard.html").read_text()
    assert "Submitted videos as 9 frames of 48 × 32 pixels at 8 fps" in page
    for false in ("backbone none", "0 parameters", "sampler steps"):
        assert false not in page.split('<section id="provenance">')[0], false
    write_png(videos / "unused.png", moving(1)[0])
    assert command.main(arguments) == 1  # nothing new
    assert "nothing to do in this session" in capsys.readouterr().out
