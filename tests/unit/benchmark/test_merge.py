"""Runs of one suite become one: the parts equal the whole, and what contradicts itself is refused and named."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmark.merge import main
from benchmark.planning.selection import UsageError
from benchmark.store.card import parts_of, read_card, write_card
from benchmark.store.folder import RunFolder
from benchmark.submissions.submission import Submission
from benchmark.suites.file_cases import file_of
from flexiact.media.video import write_lossless
from flexiact.task import Video
from reports.run_folder import load_run
from tests.support.backbones import random_frames
from tests.support.harness import CASES, METRICS, quick_flexiact, session, tree, watch_rows
from tests.support.tiny_methods import new_backbone

MEASURED = ["fit_s", "transfer_s", "peak_memory_gib", "video_bytes"]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a merge; other tests look at reports."""
    monkeypatch.setattr("reports.build.build", lambda run, out: load_run(run) and out / "leaderboard.html")


def submission(folder: Path, *numbers: int, seed: int = 0) -> Submission:
    """Noise for some of the cases; files that are there are kept, since every write gives other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for case_id in (CASES[number].case_id for number in numbers):
        path = folder / f"{case_id}.mkv"
        if not path.exists():
            write_lossless(path, Video(random_frames(seed), 8.0))
        files[case_id, 0] = file_of(folder, path.name)
    return Submission("mine", files, "submitted", "not stated")


def tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(out / "samples.parquet").drop(columns=MEASURED), pd.read_parquet(out / "scores.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one case each, and one run of both."""
    folder = tmp_path_factory.mktemp("merge")
    backbone = new_backbone(folder)
    with pytest.MonkeyPatch.context() as patch:
        quick_flexiact(patch)
        for number, methods in enumerate((("i2v",), ("flexiact", "i2v"))):
            mine = (submission(folder / "videos", number),)
            request = {"methods": methods, "cases": CASES[number : number + 1], "submissions": mine}
            session(folder / f"part{number}", backbone, **request)
        both = (submission(folder / "videos", 0, 1),)
        session(folder / "whole", backbone, methods=("flexiact", "i2v"), submissions=both)
    return folder


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the two runs of one case."""
    return shutil.copytree(made / "part0", tmp_path / "part0"), shutil.copytree(made / "part1", tmp_path / "part1")


def test_the_parts_equal_the_whole_which_has_nothing_left_to_do(
    made: Path, parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "out", made / "whole"
    assert main([*map(str, parts), "--out", str(out)]) == 0
    assert f"report: {out / 'report' / 'leaderboard.html'}" in capsys.readouterr().out
    for one, other in zip(tables(out), tables(whole), strict=True):
        sides = [t[(t["method"] != "flexiact") | (t["case_id"] != CASES[0].case_id)] for t in (one, other)]
        pd.testing.assert_frame_equal(*(side.reset_index(drop=True) for side in sides))
    assert set(tables(out)[0].query("method == 'flexiact'")["status"]) == {"ok", "missing"}
    quick_flexiact(monkeypatch)
    backbone, before = new_backbone(tmp_path), tree(out)
    both = (submission(made / "videos", 0, 1),)
    again = session(out, backbone, methods=("i2v",), submissions=both)
    assert (again.made, again.scored) == (0, 0) and tree(out) == before
    assert session(out, backbone, methods=("flexiact",)).made == 1


def test_what_is_damaged_in_a_part_is_counted_and_left_out(parts, tmp_path: Path, capsys) -> None:
    (one, other), out = parts, tmp_path / "out"
    video, record = sorted(one.glob("videos/*/*.mkv"))[0], sorted(one.glob("records/*/*.json"))[-1]
    video.write_bytes(video.read_bytes()[:-1])
    record.write_bytes(record.read_bytes()[:-9])
    assert video.stem != record.stem
    assert main([str(one), str(other), "--out", str(out)]) == 0
    assert capsys.readouterr().err.startswith(f"note: {one} has 2 damaged records or videos, which are left out; ")
    missing = tables(out)[0].query("status == 'missing'")["key"]
    assert {video.stem, record.stem} <= set(missing)


def test_a_merge_holds_few_rows_at_a_time(made: Path, parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = watch_rows(monkeypatch)
    assert main([*map(str, (*parts, made / "whole")), "--out", str(tmp_path / "out")]) == 0
    assert len(rows) > 100


def test_sessions_are_those_of_all_runs_each_once(parts, tmp_path: Path) -> None:
    folder = RunFolder(parts[1])
    folder.write_run((folder.read_run() or {}) | {"command": "second", "provenance": {"threads": 2}})
    main([*map(str, parts), "--out", str(tmp_path / "out")])
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["provenance"] == {"test": True}
    assert run["later_sessions"] == [{"command": "second", "provenance": {"threads": 2}}]


def test_the_card_has_a_part_for_each_run_however_often_they_are_merged(made: Path, parts, tmp_path: Path) -> None:
    write_card(RunFolder(parts[0]), "a group", "a lab")
    out, again = tmp_path / "out", tmp_path / "again"
    main([*map(str, parts), "--out", str(out)])
    main([str(out), str(made / "whole"), "--out", str(again)])
    card = read_card(RunFolder(again))
    assert card and [part.sampled_by for part in card.parts] == ["a group", "not stated", "not stated"]
    assert [part.scored_by for part in card.parts] == ["a lab", "not stated", "not stated"]
    assert [part.methods["i2v"].videos for part in card.parts] == [1, 1, 2]
    assert card.parts[1].methods["flexiact"].fits == 1 and "flexiact" not in card.parts[0].methods
    assert len(load_run(again).card) == 3
    with pytest.raises(UsageError, match="merged of 3 runs"):
        write_card(RunFolder(again), "somebody", None)


def test_a_fit_that_methods_share_costs_once(tmp_path: Path, backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_flexiact(monkeypatch)
    asked = {"cases": CASES[:1], "metrics": METRICS[:1]}
    session(tmp_path / "run", backbone, methods=("flexiact", "base-embedding", "i2v"), **asked)
    (part,) = parts_of(RunFolder(tmp_path / "run"))
    fits = load_run(tmp_path / "run").samples.dropna(subset=["fit_key"]).groupby("fit_key")["fit_s"].max()
    assert len(fits) == sum(cost.fits for cost in part.methods.values()) == 2
    assert [part.methods[name].fits for name in ("flexiact", "base-embedding", "i2v")] == [1, 0, 1]
    assert sum(cost.fit_s for cost in part.methods.values()) == pytest.approx(fits.sum())


def changed(content: dict, keys: tuple[str, ...], value: object) -> dict:
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("schema_version",), 99, "schema version 99"),
        (("suite",), "large", r"part1: suite is 'large', in \S+part0 it is 'small'; they cannot be merged"),
        (("suite_digest",), "0" * 64, "part1: suite_digest is '0000"),
        (("backbone", "revision"), "b", r"part1: backbone revision is 'b', in \S+part0 it is 'seed-0'"),
        (("truth", "truth_version"), 99, "truth truth_version is 99"),
        (("metrics", METRICS[0], "version"), 99, f"metric {METRICS[0]} version is 99"),
        (("metrics", METRICS[0], "backend"), "x", f"metric {METRICS[0]} backend is 'x'"),
        (("methods", "i2v", "version"), 99, "method i2v version is 99"),
        (("methods", "i2v", "transfer_config", "guidance_scale"), 9, "method i2v transfer_config guidance_scale is 9"),
    ],
)
def test_runs_that_do_not_compare_are_refused_in_one_line(
    parts, keys, value, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(parts[1])
    folder.write_run(changed(folder.read_run() or {}, keys, value))
    assert main([*map(str, parts), "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown) and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def record_of(run: Path, method: str) -> str:
    samples = pd.read_parquet(run / "samples.parquet")
    return str(samples[samples["method"] == method]["key"].iloc[0])


@pytest.mark.parametrize(
    ("table", "keys", "value", "message"),
    [
        (
            "scores",
            ("metrics", "dynamic_degree", "value"),
            7.5,
            r"i2v on \S+-1 at seed 0: dynamic_degree is \S+ in \S+part0, 7.5 in \S+twin",
        ),
        ("records", ("video_digest",), "0" * 64, r"i2v on \S+-1 at seed 0: \S+part0 and \S+twin have other videos"),
        ("records", ("status",), "failed", "have ok and failed"),
    ],
)
def test_cells_that_contradict_each_other_are_named_unless_the_first_counts(
    made: Path, table: str, keys, value, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, out = made / "part0", tmp_path / "out"
    twin = Path(shutil.copytree(first, tmp_path / "twin"))
    folder, key = RunFolder(twin), record_of(twin, "i2v")
    folder.write_json(table, key, changed(folder.read_json(table, key) or {}, keys, value))
    assert main([str(first), str(twin), "--out", str(out)]) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown) and shown.count("\n") == 1
    assert not out.exists()
    assert main([str(first), str(twin), "--out", str(out), "--first"]) == 0
    for one, other in zip(tables(out), tables(first), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_two_submissions_of_one_name_are_a_contradiction(
    tmp_path: Path, backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate("ab"):
        mine = submission(tmp_path / f"videos-{name}", 0, seed=seed)
        session(tmp_path / name, backbone, methods=(), cases=CASES[:1], submissions=(mine,))
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 2
    assert f"mine on {CASES[0].case_id}/0: " in capsys.readouterr().err


def test_metrics_add_up_on_equal_videos(tmp_path: Path, backbone) -> None:
    out = tmp_path / "out"
    for number, metrics in enumerate((METRICS[:2], METRICS[1:])):
        session(tmp_path / f"part{number}", backbone, methods=("i2v",), cases=CASES[:1], metrics=metrics)
    assert main([str(tmp_path / "part0"), str(tmp_path / "part1"), "--out", str(out)]) == 0
    session(tmp_path / "whole", backbone, methods=("i2v",), cases=CASES[:1])
    for one, other in zip(tables(out), tables(tmp_path / "whole"), strict=True):
        keys = [name for name in ("method", "metric") if name in one]
        pd.testing.assert_frame_equal(*(t.sort_values(keys, ignore_index=True) for t in (one, other)))


def test_an_older_score_of_one_run_does_not_hide_that_of_another(made: Path, tmp_path: Path) -> None:
    first, out = made / "part0", tmp_path / "out"
    twin = Path(shutil.copytree(first, tmp_path / "twin"))
    folder, key = RunFolder(twin), record_of(twin, "i2v")
    stored = folder.read_json("scores", key) or {}
    folder.write_json("scores", key, changed(stored, ("metrics", "dynamic_degree", "version"), 0))
    assert main([str(twin), str(first), "--out", str(out)]) == 0
    one, other = tables(out)[1], tables(first)[1]
    pd.testing.assert_frame_equal(*(t.sort_values(["key", "metric"], ignore_index=True) for t in (one, other)))


def test_a_preview_that_is_missing_is_made_anew(parts, tmp_path: Path) -> None:
    shutil.rmtree(parts[0] / "previews")
    assert main([*map(str, parts), "--out", str(tmp_path / "out")]) == 0
    videos, previews = ({path.stem for path in (tmp_path / "out" / n).glob("*/*")} for n in ("videos", "previews"))
    assert videos == previews and record_of(parts[0], "i2v") in previews


def test_a_merge_that_was_stopped_at_its_card_can_be_started_again(
    parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    words = [*map(str, parts), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.store.card.store_card", stopped)
        assert main(words) == 130
    assert main(words) == 0
    card = read_card(RunFolder(tmp_path / "out"))
    assert card and len(card.parts) == 2


def test_runs_from_before_fit_seeds_are_merged(parts, tmp_path: Path) -> None:
    for part in parts:
        run = RunFolder(part).described()
        run.pop("fit_seeds")
        RunFolder(part).write_run(run)
    assert main([*map(str, parts), "--out", str(tmp_path / "out")]) == 0


def test_a_run_json_that_breaks_the_contract_is_one_line(parts, tmp_path: Path, capsys) -> None:
    run = RunFolder(parts[1]).described()
    run.pop("seeds")
    RunFolder(parts[1]).write_run(run)
    assert main([*map(str, parts), "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert "part1/run.json: seeds: Field required" in shown and shown.count("\n") == 1


def test_places_that_are_no_runs_are_refused(parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for runs, out, message in (
        (("part0",), "out", "expected two or more"),
        (("part0", "part0"), "out", "expected two or more different"),
        (("part0", "b"), "out", "b: has no run.json"),
        (("part0", "part1"), "part0", "part0: holds a run already"),
    ):
        assert main([*(str(tmp_path / run) for run in runs), "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
