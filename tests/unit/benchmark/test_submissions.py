"""Submitted videos: how they are found, how they are brought to the format, and what a run of them says."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.selection import UsageError
from benchmark.submissions.found import Cases, by_name, by_table, submissions_of
from benchmark.submissions.submission import NOT_SUBMITTED, RESIZE_RULE, Submission, take
from benchmark.suites.case import CaseError, Format
from benchmark.suites.file_cases import file_of
from flexiact.media.files import MediaError
from flexiact.media.image import fit_image, write_png
from flexiact.media.video import read_video, write_lossless, write_preview
from flexiact.task import Video
from reports.build import build
from tests.support.backbones import random_frames
from tests.support.harness import CASES, METRICS, session, tree

FORM = Format(num_frames=9, height=16, width=24, fps=8.0)
IDS = ("lean", "lean-2", "turn")
KNOWN = Cases(IDS, IDS)


def write_pictures(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        write_png(folder / f"{number:03}.png", frame)


def write_lossless_mp4(path: Path, video: Video) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(video.fps), options={"qp": "0"})
        stream.height, stream.width = video.frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in video.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


# --------------------------------------------------------------------------------------------------------------- found


def test_names_mean_cases_and_seeds(tmp_path: Path) -> None:
    for name in (
        "lean.mp4",
        "lean-seed1.mkv",
        "lean-2-seed12.mp4",
        "README.md",
        "._lean.mp4",
        "sheet.png",
        "lean.npz",
        "lean.wav",
    ):
        (tmp_path / name).touch()
    (tmp_path / "turn").mkdir()
    assert by_name(tmp_path, KNOWN) == {
        ("lean", 0): "lean.mp4",
        ("lean", 1): "lean-seed1.mkv",
        ("lean-2", 12): "lean-2-seed12.mp4",
        ("turn", 0): "turn",
    }
    assert list(by_name(tmp_path, Cases(("turn",), IDS))) == [("turn", 0)]


@pytest.mark.parametrize("stem", ["cafe\u0301-to-cat", "caf\u00e9-to-cat-seed1"])
def test_a_name_may_have_its_accents_as_macs_store_them(tmp_path: Path, stem: str) -> None:
    (tmp_path / f"{stem}.mp4").touch()
    ((case_id, _), name) = next(iter(by_name(tmp_path, Cases(["caf\u00e9-to-cat"], ["caf\u00e9-to-cat"])).items()))
    assert (case_id, name) == ("caf\u00e9-to-cat", f"{stem}.mp4")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("lean.mp4", "leen.mp4"), "'leen.mp4' names no case of the suite"),
        (("lean.mp4", "lean-seed.mp4"), "'lean-seed.mp4' names no case"),
        (("lean.mp4", "lean.mkv"), "'lean.mkv' and 'lean.mp4' are both lean at seed 0"),
        (("lean.mp4", "lean-seed0.mp4"), "'lean-seed0.mp4' and 'lean.mp4' are both lean at seed 0"),
    ],
)
def test_a_name_that_means_nothing_or_something_twice_is_refused(names, message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CaseError, match=message):
        by_name(tmp_path, KNOWN)


def test_a_table_names_any_files(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (folder / "a").mkdir(parents=True)
    for name in ("a/1.mp4", "a/2.mp4", "3.mp4"):
        (folder / name).touch()
    table = tmp_path / "manifest.csv"
    table.write_text("Method,case,seed,video,cost\nours,lean,0,a\\1.mp4,3\nours,turn,1,3.mp4,\ntheirs,lean,,a/2.mp4,\n")
    found = by_table(table, folder, KNOWN)
    assert found == {
        "ours": {("lean", 0): "a/1.mp4", ("turn", 1): "3.mp4"},
        "theirs": {("lean", 0): "a/2.mp4"},
    }
    ours, theirs = submissions_of(found, folder, KNOWN, (), "", "")
    assert [cell for cell, file in ours.videos.items() if file] == [("lean", 0), ("turn", 1)]
    assert list(theirs.videos) == [(case, seed) for case in IDS for seed in (0, 1)]
    assert theirs.supervision == "not stated"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,case\nnone.mp4,lean\n", "line 2: there is no 'none.mp4'"),
        ("video,case\n../out.mp4,lean\n", "line 2: there is no '../out.mp4'"),
        ("video,case\n{}/../out.mp4,lean\n", "line 2: there is no '.*/out.mp4'"),
        ("video,case,seed\nin.mp4,lean,1.000\n", "line 2: seed: expected a whole number from 0, got '1.000'"),
        ("video,case\nin.mp4,leen\n", r"line 2: unknown case 'leen' \(did you mean 'lean'"),
        ("video,case,seed\nin.mp4,lean,-1\n", "line 2: seed: expected a whole number from 0, got '-1'"),
        ("video,case\nin.mp4,lean\nin.mp4,lean\n", "are both lean at seed 0"),
        ("video,case,method\nin.mp4,lean,mine\nin.mp4,turn,\n", "line 3: the method is empty; name it"),
        ("file,case\nin.mp4,lean\n", "expected the heading video,case"),
    ],
)
def test_a_table_that_is_wrong_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").touch()
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "in.mp4").touch()
    table = tmp_path / "manifest.csv"
    table.write_text(text.format(folder))
    with pytest.raises(CaseError, match=message):
        by_table(table, folder, KNOWN)


def test_a_table_may_be_written_by_a_program(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").touch()
    table = tmp_path / "manifest.csv"
    table.write_text(f"video,case,seed,method\n{tmp_path}/in.mp4,lean,1.0,nan\nIN.mp4,turn,nan,\n")
    found = by_table(table, tmp_path, KNOWN)  # no path of this machine, which would be published
    assert found == {"": {("lean", 1): "in.mp4", ("turn", 0): "in.mp4"}}


@pytest.mark.parametrize("name", ["flexiact", "still", "a b", "x[y=1]", "<b>", ""])
def test_a_name_is_a_word_of_its_own(name: str, tmp_path: Path) -> None:
    (tmp_path / "lean.mp4").touch()
    with pytest.raises(UsageError, match="name: "):
        submissions_of({name: {("lean", 0): "lean.mp4"}}, tmp_path, KNOWN, (), "", "")


def test_a_submission_without_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no video of a case and seed that are scored"):
        submissions_of({"mine": {("lean", 1): "lean.mp4"}}, tmp_path, KNOWN, (0,), "", "")


# --------------------------------------------------------------------------------------------------------------- taken


def test_a_video_of_the_format_is_taken_as_it_is(tmp_path: Path) -> None:
    frames = random_frames(1)
    write_pictures(tmp_path / "a", frames)
    write_lossless(tmp_path / "a.mkv", Video(frames, 8.0))
    for name, fps in (("a", None), ("a.mkv", 8.0)):
        taken = take(file_of(tmp_path, name), FORM)
        np.testing.assert_array_equal(taken.video.frames, frames)
        assert taken.video.fps == 8
        assert taken.row == {
            "source": name,
            "source_frames": 9,
            "source_fps": fps,
            "source_height": 16,
            "source_width": 24,
            "changed": None,
        }


def test_another_size_length_and_rate_is_changed_and_said(tmp_path: Path) -> None:
    frames = random_frames(1, 17, 40, 48)
    write_lossless(tmp_path / "a.mkv", Video(frames, 24.0))
    taken = take(file_of(tmp_path, "a.mkv"), FORM)
    expected = [fit_image(frame, 16, 24) for frame in frames[::2]]
    np.testing.assert_array_equal(taken.video.frames, expected)
    assert taken.video.fps == 8
    assert taken.row["changed"] == (
        "is resized from 48 x 40 to 24 x 16 and cut to its middle (20% of it is lost); "
        "has 17 frames, brought to 9 at equal times"
    )
    assert (taken.row["source_frames"], taken.row["source_fps"]) == (17, 24)
    assert (taken.row["source_height"], taken.row["source_width"]) == (40, 48)


def test_too_few_frames_are_repeated_and_another_rate_is_said(tmp_path: Path) -> None:
    frames = random_frames(1)
    write_lossless(tmp_path / "short.mkv", Video(frames[:5], 8.0))
    short = take(file_of(tmp_path, "short.mkv"), FORM)
    np.testing.assert_array_equal(short.video.frames, frames[[0, 0, 1, 2, 2, 2, 3, 4, 4]])
    write_lossless(tmp_path / "fast.mkv", Video(frames, 24.0))
    fast = take(file_of(tmp_path, "fast.mkv"), FORM)
    np.testing.assert_array_equal(fast.video.frames, frames)
    assert fast.row["changed"] == "has 24 frames/s, read as 8"


def test_what_cannot_be_read_is_named_as_the_submission_names_it(tmp_path: Path) -> None:
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    mine = Submission("mine", {("lean", 0): file_of(tmp_path, "torn.mp4"), ("turn", 0): None}, "", "")
    with pytest.raises(MediaError, match=r"^torn\.mp4: no video"):
        mine.taken(("lean", 0), FORM)
    with pytest.raises(MediaError, match=NOT_SUBMITTED):
        mine.taken(("turn", 0), FORM)


# ----------------------------------------------------------------------------------------------------------------- run


def submitted(folder: Path, name: str = "mine", seeds: tuple[int, ...] = ()) -> tuple[Submission, ...]:
    ids = tuple(case.case_id for case in CASES)
    cases = Cases(ids, ids)
    return submissions_of({name: by_name(folder, cases)}, folder, cases, seeds, "", "")


def tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(out / "samples.parquet"), pd.read_parquet(out / "scores.parquet")


def test_exported_videos_get_the_numbers_of_the_run_that_made_them(tmp_path: Path, backbone) -> None:
    out, export = tmp_path / "run", tmp_path / "videos"
    session(out, backbone, methods=("i2v",))
    samples, scores = tables(out)
    export.mkdir()
    first, second = (samples[samples["method"] == "i2v"].set_index("case_id").loc[case.case_id] for case in CASES)
    write_pictures(export / CASES[0].case_id, read_video(out / first["video"]).frames)
    write_lossless_mp4(export / f"{CASES[1].case_id}.mp4", read_video(out / second["video"]))

    apart = tmp_path / "apart"
    outcome = session(apart, backbone, methods=(), submissions=submitted(export))
    assert outcome.failed == ()
    rows, found = tables(apart)
    assert set(rows["method"]) == {"mine", *BOUNDS}
    mine = rows[rows["method"] == "mine"]
    assert set(mine["video_digest"]) == {first["video_digest"], second["video_digest"]}
    assert set(mine["origin"]) == {"submitted"} and set(mine["resize_rule"]) == {RESIZE_RULE}
    assert mine["changed"].isna().all() and mine["transfer_s"].isna().all()
    assert set(rows[rows["method"] != "mine"]["origin"]) == {"made"}
    columns = ["case_id", "seed", "metric", "metric_version", "status", "value", "backend"]
    same = [table.loc[table["method"] == name, columns] for table, name in ((scores, "i2v"), (found, "mine"))]
    assert len(same[0]) == len(CASES) * len(METRICS) and same[0]["value"].notna().any()
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in same))

    session(out, backbone, methods=(), submissions=submitted(export))
    both = json.loads((out / "run.json").read_text())
    assert list(both["methods"]) == ["i2v", "mine", *BOUNDS]
    assert len(tables(out)[0]) == len(samples) + len(CASES)


def test_missing_and_damaged_videos_are_failed_rows_until_they_are_there(tmp_path: Path, backbone) -> None:
    out, folder = tmp_path / "run", tmp_path / "videos"
    folder.mkdir()
    (folder / f"{CASES[1].case_id}.mp4").write_bytes(b"no video")
    outcome = session(out, backbone, methods=(), submissions=submitted(folder, seeds=(0, 1)), seeds=(0, 1))
    assert len(outcome.failed) == 4
    samples, scores = tables(out)
    mine = samples[samples["method"] == "mine"]
    assert set(mine["status"]) == {"failed"} and set(mine["origin"]) == {"submitted"}
    assert mine["error"].str.contains(NOT_SUBMITTED).sum() == 3
    assert set(scores[scores["method"] == "mine"]["status"]) == {"failed"}
    assert str(folder) not in "".join(mine["error"])
    write_preview(folder / f"{CASES[0].case_id}.mp4", Video(random_frames(1), 8.0), scale=2)
    again = session(out, backbone, methods=(), submissions=submitted(folder, seeds=(0, 1)), seeds=(0, 1))
    assert again.made == 1 and len(again.failed) == 3
    before = tree(out)
    session(out, backbone, methods=(), submissions=submitted(folder, seeds=(0, 1)), seeds=(0, 1))
    assert tree(out) == before


def test_part_of_the_cases_keeps_the_videos_of_the_others(tmp_path: Path, backbone) -> None:
    out, folder = tmp_path / "run", tmp_path / "videos"
    folder.mkdir()
    for case in CASES:
        write_lossless(folder / f"{case.case_id}.mkv", Video(random_frames(1), 8.0))
    session(out, backbone, methods=(), submissions=submitted(folder))
    ids = tuple(case.case_id for case in CASES)
    part = Cases(ids[:1], ids)
    only = submissions_of({"mine": by_name(folder, part)}, folder, part, (), "", "")
    assert session(out, backbone, methods=(), cases=CASES[:1], submissions=only).made == 0
    assert set(tables(out)[0]["status"]) == {"ok"}


@pytest.mark.slow
def test_the_report_says_nothing_false_of_submitted_videos(tmp_path: Path, backbone) -> None:
    out, folder = tmp_path / "run", tmp_path / "videos"
    folder.mkdir()
    write_lossless(folder / f"{CASES[0].case_id}.mkv", Video(random_frames(1, 17), 8.0))
    session(out, backbone, methods=(), submissions=submitted(folder))
    page = build(out)
    text, html = page.with_suffix(".md").read_text(), page.read_text()
    assert "# Submitted videos as 9 frames of 24 × 16 pixels at 8 fps" in text
    assert "The 1 video of mine was made elsewhere" in text and "1 of them had another size" in text
    assert "MediaError: no video was submitted" in text
    for false in ("on one machine", "All numbers are of the backbone", "Action transfer on"):
        assert false not in text and false not in html, false
    board = pd.read_csv(page.with_suffix(".csv"))
    mine = board[board["name"] == "mine"]
    assert set(mine["kind"]) == {"submission"} and set(mine["failed"]) == {1}
    assert mine["transfer_s"].isna().all()

    session(out, backbone, methods=("i2v",))
    both = build(out).with_suffix(".md").read_text()
    assert "All numbers but those of submitted videos are of the backbone tiny" in both
    assert "Submitted videos were made elsewhere: their costs were not measured." in both
    costs = both.split("## Costs")[1].split("## ")[0]
    assert "| i2v |" in costs and "| mine |" not in costs
