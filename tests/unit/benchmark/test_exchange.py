"""Scores of other tools stand beside a run's own under their names; what a run exports comes back the same."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmark.exchange.__main__ import main
from benchmark.store.card import read_card
from benchmark.store.folder import RunFolder
from benchmark.submissions.submission import Submission
from benchmark.suites.file_cases import file_of
from benchmark.suites.puppets import load_suite
from flexiact.media.image import read_image
from flexiact.media.video import read_video, write_lossless
from flexiact.task import Video
from metrics import METRICS
from metrics.tracking import LucasKanade
from reports.run_folder import load_run
from reports.tables.sections import card_table
from tests.support.backbones import random_frames
from tests.support.harness import CASES, DarkestPixels, PatchEmbedder, session, watch_rows
from tests.support.tiny_methods import new_backbone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two cases with a submission that has a video of the first one alone."""
    folder = tmp_path_factory.mktemp("exchange")
    (folder / "videos" / "a").mkdir(parents=True)
    write_lossless(folder / "videos" / "a" / "mine.mkv", Video(random_frames(0), 8.0))
    files = {(CASES[0].case_id, 0): file_of(folder / "videos", "a/mine.mkv"), (CASES[1].case_id, 0): None}
    mine = (Submission("mine", files, "submitted", "not stated"),)
    session(folder / "run", new_backbone(folder), methods=("i2v",), submissions=mine)
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("reports.build.build", lambda run: load_run(run) and run / "report" / "leaderboard.html")
    return Path(shutil.copytree(made, tmp_path / "run"))


def scores(run: Path) -> pd.DataFrame:
    return pq.read_table(run / "scores.parquet").to_pandas()


def keys(run: Path) -> dict[str, str]:
    """Key of the video of each method on the first case."""
    rows = pq.read_table(run / "samples.parquet").to_pandas()
    return dict(rows[rows["case_id"] == CASES[0].case_id].set_index("method")["key"])


def vbench(folder: Path, content: object, name: str = "vb_eval_results.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def said(paths: list[str], values: list[object]) -> list[object]:
    """A dimension as VBench writes it; its total is not read."""
    return [0.123, [{"video_path": p, "video_results": v} for p, v in zip(paths, values, strict=True)]]


def test_vbench_s_results_become_metrics_of_their_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, before, rows = keys(run), scores(run), watch_rows(monkeypatch)
    paths = [f"/elsewhere/previews/{key['i2v']}.mp4", "D:\\videos\\a\\mine.mkv"]
    content = {"imaging_quality": said(paths, [61.5, 40.0]), "dynamic_degree": said(paths, [True, False])}
    assert main(["import", str(run), str(vbench(tmp_path, content)), "--evaluator", "vbench 0.1.5"]) == 0
    assert len(rows) > 60  # none of which is held for long
    after = scores(run)
    new = after[after["metric"].str.startswith("vbench_")].set_index(["metric", "method"])["value"]
    assert dict(new) == {
        ("vbench_imaging_quality", "i2v"): 61.5,
        ("vbench_imaging_quality", "mine"): 40.0,
        ("vbench_dynamic_degree", "i2v"): 1.0,
        ("vbench_dynamic_degree", "mine"): 0.0,
    }
    own = after[after["metric"].isin(METRICS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, before)
    entry = load_run(run).info["metrics"]["vbench_imaging_quality"]
    assert (entry["backend"], entry["bounds"], entry["higher_is_better"]) == ("vbench 0.1.5", [0.0, 100.0], True)
    assert load_run(run).info["metrics"]["vbench_dynamic_degree"]["higher_is_better"] is None


def test_a_session_of_the_run_keeps_them(run: Path, tmp_path: Path) -> None:
    content = {"imaging_quality": said([keys(run)["still"] + ".mkv"], [50])}
    main(["import", str(run), str(vbench(tmp_path, content)), "--evaluator", "vbench 0.1.5"])
    session(run, new_backbone(tmp_path), methods=("i2v",), seeds=(0, 1))
    assert scores(run).query("metric == 'vbench_imaging_quality'")["value"].tolist() == [50.0]


def test_a_run_from_before_fit_seeds_takes_them_too(run: Path, tmp_path: Path) -> None:
    described = RunFolder(run).described()
    described.pop("fit_seeds")
    RunFolder(run).write_run(described)
    content = {"imaging_quality": said([keys(run)["still"]], [50])}
    assert main(["import", str(run), str(vbench(tmp_path, content)), "--evaluator", "vbench 0.1.5"]) == 0
    assert scores(run).query("metric == 'vbench_imaging_quality'")["value"].tolist() == [50.0]


def test_two_evaluators_do_not_mix(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = keys(run)["i2v"], keys(run)["still"]
    one = vbench(tmp_path, {"imaging_quality": said([first], [50])}, "one.json")
    other = vbench(tmp_path, {"imaging_quality": said([second], [60])}, "other.json")
    assert main(["import", str(run), str(one), "--evaluator", "vbench 0.1.4"]) == 0
    before = scores(run)
    assert main(["import", str(run), str(other), "--evaluator", "vbench 0.1.5"]) == 2
    assert "the run has it from vbench 0.1.4, this is from vbench 0.1.5" in capsys.readouterr().err
    pd.testing.assert_frame_equal(scores(run), before)
    assert main(["import", str(run), str(other), "--evaluator", "vbench 0.1.5", "--replace"]) == 0
    left = scores(run).query("metric == 'vbench_imaging_quality'")
    assert left[["key", "value", "backend"]].values.tolist() == [[second, 60.0, "vbench 0.1.5"]]


def test_another_scale_of_one_evaluator_does_not_mix_either(run: Path, tmp_path: Path) -> None:
    first, second = keys(run)["i2v"], keys(run)["still"]
    for key, high, options, code in ((first, 5, [], 0), (second, 10, [], 2), (second, 10, ["--replace"], 0)):
        path = tmp_path / "judge.csv"
        path.write_text(f"{HEAD}\n{key},judge,3,j 1,higher,0,{high}\n")
        assert main(["import", str(run), str(path), *options]) == code
    left = scores(run).query("metric == 'judge'")
    assert left[["key", "value"]].values.tolist() == [[second, 3.0]]
    assert load_run(run).info["metrics"]["judge"]["bounds"] == [0.0, 10.0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", b"[" * 100_000),
        ("long.csv", b"video,metric,value,evaluator,better,low,high\nv,judge,1,j 1,higher,0," + b"9" * 400),
        ("array.npz", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"),
    ],
)
def test_damaged_answers_are_one_line(run: Path, tmp_path: Path, capsys, name: str, content: bytes) -> None:
    path = tmp_path / "videos" / "ar" / name if name.endswith("npz") else tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    words = ["features", str(run), str(tmp_path)] if name.endswith("npz") else ["import", str(run), str(path)]
    assert main([*words, "--evaluator", "vbench 1"] if name.endswith("json") else words) == 2
    assert capsys.readouterr().err.startswith("error: ")


HEAD = "video,metric,value,evaluator,better,low,high"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_a_judge_names_who_judged(run: Path, tmp_path: Path, kind: str) -> None:
    rows = [
        [keys(run)[name], "judge_action", value, "my-judge 2", "lower", 0, 5]
        for name, value in (("i2v", 4), ("still", 0.5))
    ]
    table, path = pd.DataFrame(rows, columns=HEAD.split(",")), tmp_path / f"answers.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    assert main(["import", str(run), str(path)]) == 0
    found = scores(run).query("metric == 'judge_action'").set_index("method")
    assert dict(found["value"]) == {"i2v": 4.0, "still": 0.5} and set(found["backend"]) == {"my-judge 2"}
    assert load_run(run).info["metrics"]["judge_action"]["higher_is_better"] is False


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("KEY,pck,1,j 1,higher,0,1", "line 2: metric pck: is one of this suite's own"),
        ("KEY,Judge!,1,j 1,higher,0,1", "metric 'Judge!': expected small letters"),
        ("KEY,judge,7,j 1,higher,0,5", "7 is outside its scale of 0 to 5"),
        ("KEY,judge,good,j 1,higher,0,5", "value is 'good', not a finite number"),
        ("KEY,judge,nan,j 1,higher,0,5", "not a finite number"),
        ("KEY,judge,1,j 1,up,0,5", "better is 'up', not higher, lower or neither"),
        ("KEY,judge,1,,higher,0,5", "evaluator is empty"),
        ("videos/other.mp4,judge,1,j 1,higher,0,5", "videos/other.mp4 is no video of this run"),
        ("KEY,judge,1,j 1,higher,0,5\nKEY,judge,2,j 1,higher,0,5", "has another value of judge above"),
        ("KEY,judge,1,j 1,higher,0,5\nSTILL,judge,2,j 2,higher,0,5", "their values are not comparable"),
    ],
)
def test_a_wrong_table_changes_nothing(
    run: Path, tmp_path: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "run.json").read_bytes(), scores(run)
    text = line.replace("KEY", keys(run)["i2v"]).replace("STILL", keys(run)["still"])
    (tmp_path / "answers.csv").write_text(f"{HEAD}\n{text}\n")
    assert main(["import", str(run), str(tmp_path / "answers.csv")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (run / "run.json").read_bytes() == before[0]
    pd.testing.assert_frame_equal(scores(run), before[1])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"imaging_quality": [1, []]}, [], "does not say who wrote it: give --evaluator"),
        ({"imaging_quality": 1}, ["--evaluator", "v 1"], r"expected \[total"),
        ({"imaging_quality": [1, [{"video_path": "a"}]]}, ["--evaluator", "v 1"], "result 1 lacks"),
        ([], ["--evaluator", "v 1"], "expected an object of dimensions"),
        ({}, ["--evaluator", "v 1"], "holds no value"),
    ],
)
def test_a_wrong_result_file_is_one_line(run: Path, tmp_path: Path, content, options, message, capsys) -> None:
    assert main(["import", str(run), str(vbench(tmp_path, content)), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_what_is_exported_has_vbench_s_layout_and_comes_back(run: Path, tmp_path: Path, capsys) -> None:
    content = {"imaging_quality": said([keys(run)["i2v"]], [61.5]), "dynamic_degree": said([keys(run)["i2v"]], [True])}
    main(["import", str(run), str(vbench(tmp_path, content)), "--evaluator", "vbench 0.1.5"])
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "1 planned videos have no value and are in no file" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "i2v_eval_results.json").read_text())
    # VBench's dimension of this name and ours are two things.
    assert found["dynamic_degree"][0] == 1.0 and found["flexiact_dynamic_degree"][0] != 1.0
    mine = scores(run).query("method == 'i2v' and metric == 'pck'")
    total, results = found["flexiact_pck"]
    assert total == pytest.approx(mine["value"].mean()) and len(results) == 2
    assert {result["video_path"] for result in results} == {f"videos/{key[:2]}/{key}.mkv" for key in mine["key"]}
    only = vbench(tmp_path, {name: found[name] for name in content}, "again.json")
    before = scores(run)
    assert main(["import", str(run), str(only), "--evaluator", "vbench 0.1.5"]) == 0
    pd.testing.assert_frame_equal(scores(run), before)


def tracked(frames: np.ndarray) -> dict[str, np.ndarray]:
    tracks, visible = LucasKanade(grid=6).track(frames)
    return {"tracks": tracks, "track_visible": visible}


def embedded(frames: np.ndarray) -> dict[str, np.ndarray]:
    return {"image_embeddings": PatchEmbedder().encode_images(frames)}


def write_features(run: Path, folder: Path, measure, producer: object = "Other Tool 2.0") -> Path:
    """Features of all videos and inputs of a run, as a tool of somebody else might write them."""
    for path in [*run.glob("videos/*/*.mkv"), *run.glob("inputs/*/reference.mkv"), *run.glob("inputs/*/target.png")]:
        frames = read_image(path)[None] if path.suffix == ".png" else read_video(path).frames
        file = (folder / path.relative_to(run)).with_suffix(".npz")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, producer=producer, **measure(frames))
    return folder


@pytest.mark.parametrize(
    ("measure", "names"),
    [(tracked, ("motion_fidelity", "dynamic_degree")), (embedded, ("appearance_leakage_embedded",))],
)
def test_features_of_the_own_backends_give_the_own_scores(run: Path, tmp_path: Path, measure, names) -> None:
    session(run, new_backbone(tmp_path), methods=("i2v",), metrics=names)
    assert main(["features", str(run), str(write_features(run, tmp_path / "found", measure))]) == 0
    found = scores(run).set_index(["metric", "key"])
    for name in names:
        mine, theirs = found.loc[name], found.loc[f"{name}_by_other_tool_2_0"]
        assert set(theirs["backend"]) == {"Other Tool 2.0"}
        both = theirs.index.intersection(mine.index)  # the session did not measure what was submitted
        assert len(both) > 20
        mine, theirs = mine.loc[both], theirs.loc[both]
        assert list(theirs["value"]) == pytest.approx(list(mine["value"]), nan_ok=True)
        assert list(theirs["status"]) == list(mine["status"])


def posed(frames: np.ndarray) -> dict[str, np.ndarray]:
    points, found = DarkestPixels().estimate(frames)
    return {"keypoints": points, "keypoint_scores": found}


def test_keypoints_are_judged_by_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("reports.build.build", lambda run: run)
    suite, names = load_suite("puppets-smoke"), ("pck", "motion_agreement", "true_appearance_error", "layout_leakage")
    facts = {"suite": suite.name, "suite_version": suite.version, "suite_digest": suite.digest}
    run, cases = tmp_path / "run", suite.chosen(suite.case_ids[:1])
    session(run, new_backbone(tmp_path), cases=cases, methods=("i2v",), metrics=names, **facts)
    given = write_features(run, tmp_path / "found", posed)
    assert main(["features", str(run), str(given)]) == 0
    found = scores(run).set_index(["metric", "key"])["value"]
    for name in names:
        assert list(found[f"{name}_by_other_tool_2_0"]) == pytest.approx(list(found[name]), nan_ok=True)
    folder = RunFolder(run)
    with folder.opened():
        folder.write_run(folder.described() | {"suite_digest": "0" * 64})
    assert main(["features", str(run), str(given)]) == 2
    assert "puppets-smoke has other right answers now" in capsys.readouterr().err


def table_of(folder: Path, path: Path) -> Path:
    """The .npz files of a folder as one table."""
    lines = []
    for file in folder.rglob("*.npz"):
        content = dict(np.load(file))
        about = {"video": file.relative_to(folder).with_suffix("").as_posix(), "producer": str(content["producer"])}
        if "tracks" in content:
            for track, frame in zip(*np.nonzero(content["track_visible"]), strict=True):
                x, y = content["tracks"][track, frame]
                lines.append(about | {"frame": frame, "track": 7 * track, "x": x, "y": y, "visible": True})
        elif "masks" in content:
            for frame, mask in enumerate(content["masks"]):
                ends = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=not mask.ravel()[-1]))
                lines.append(about | {"frame": frame, "runs": np.diff(ends, prepend=0)})
        else:
            rows = enumerate(content["image_embeddings"])
            lines += [about | {"frame": frame, "embedding": values} for frame, values in rows]
    pd.DataFrame(lines).sample(frac=1, random_state=0).to_parquet(path)
    return path


def dark(frames: np.ndarray) -> dict[str, np.ndarray]:
    return {"masks": frames.mean(-1) < 128}


@pytest.mark.parametrize("work", ["import", "features"])
def test_what_was_said_of_a_video_that_was_made_again_is_not_stored(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, work: str
) -> None:
    """It is made again after its answers were read, and before the run is locked."""
    key, opened = keys(run)["i2v"], RunFolder.opened

    def late(folder: RunFolder):
        record = folder.read_json("records", key)
        folder.write_json("records", key, record | {"video_digest": "0" * 64})
        return opened(folder)

    given = write_features(run, tmp_path / "found", embedded)
    answers = vbench(tmp_path, {"imaging_quality": said([key], [50])})
    before = scores(run)
    monkeypatch.setattr(RunFolder, "opened", late)
    words = {"import": [str(answers), "--evaluator", "vbench 0.1.5"], "features": [str(given)]}
    assert main([work, str(run), *words[work]]) == 2
    assert f"{key}: this video was made again meanwhile" in capsys.readouterr().err
    pd.testing.assert_frame_equal(scores(run), before)


@pytest.mark.parametrize("measure", [tracked, embedded, dark])
def test_a_table_says_the_same_as_files(run: Path, tmp_path: Path, measure) -> None:
    folder = write_features(run, tmp_path / "found", measure)
    table = table_of(folder, tmp_path / "found.parquet")
    values = []
    for given in (folder, table):
        assert main(["features", str(run), str(given)]) == 0
        rows = scores(run)
        values.append(rows[rows["backend"] == "Other Tool 2.0"].reset_index(drop=True))
    assert len(values[0]) > 20 and values[0]["value"].notna().any()
    pd.testing.assert_frame_equal(*values)


def test_masks_tell_whose_colours_the_subject_has(run: Path, tmp_path: Path) -> None:
    """The whole frame as the subject: a still target keeps every colour, a copy of the reference takes its."""
    masks = write_features(run, tmp_path / "found", lambda frames: {"masks": np.ones(frames.shape[:3], bool)})
    assert main(["features", str(run), str(masks)]) == 0
    found = scores(run).set_index(["metric", "method"])["value"]
    assert list(found["subject_kept_by_other_tool_2_0", "still"]) == [1.0, 1.0]
    leaked = found["subject_leakage_by_other_tool_2_0"]
    assert leaked["still"].max() == 0 and leaked["copy-reference"].min() > 0.5


BROKEN = {
    "no kind": ({}, "those of one kind"),
    "frame": ({"frame": 99}, r"frame 99 is there, the video has \d+"),
    "twice": ({}, "two rows are of one place"),
    "text": ({}, "could not convert"),
    "negative": ({"track": -1}, "track: expected whole numbers from 0"),
    "elsewhere": ({"video": "videos/none"}, "none is of no video of this run"),
    "producer": ({"producer": " "}, "producer: expected one text"),
    "nobody": ({"video": None, "frame": 1}, "video: is empty in 1 rows"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_table_that_does_not_fit_changes_nothing(run: Path, tmp_path: Path, fault: str, capsys) -> None:
    changed, message = BROKEN[fault]
    key = keys(run)["i2v"]
    row = {"video": f"videos/{key[:2]}/{key}", "frame": 0, "producer": "A 1", "track": 0, "x": 1.0, "y": 1.0}
    row["visible"] = True
    first = row | {"video": f"inputs/{CASES[0].case_id}/reference"}
    rows = [first, *[row] * (fault in ("twice", "nobody")), row | changed]
    table = pd.DataFrame(rows).drop(columns=["track", "visible"] if fault == "no kind" else [])
    table = table.assign(x="far") if fault == "text" else table
    table.to_parquet(tmp_path / "f.parquet")
    before = scores(run)
    assert main(["features", str(run), str(tmp_path / "f.parquet")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    pd.testing.assert_frame_equal(scores(run), before)


def place(folder: Path, key: str) -> Path:
    path = folder / "videos" / key[:2] / f"{key}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def saved(**arrays):
    return lambda folder, key: np.savez(place(folder, key), **arrays)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder, key: np.savez(place(folder, "0"), producer="A 1"), "expected either tracks and"),
        (
            lambda folder, key: shutil.copy(place(folder, key), place(folder, "f")),
            "f is of no video of this run",
        ),
        (saved(producer="Other Tool 2.0", **tracked(random_frames(0)[:4])), "expected shape"),
        (saved(producer="A 1", **tracked(random_frames(0))), "is not tracks of"),
        (saved(producer=np.array(["x"], object)), "cannot be read .*allow_pickle"),
        (saved(**tracked(random_frames(0))), "producer: expected"),
        (lambda folder, key: place(folder, key).write_bytes(b"PK"), "cannot be read"),
        (lambda folder, key: shutil.rmtree(folder / "inputs"), r"reference.npz: cannot be read"),
    ],
)
def test_features_that_do_not_fit_change_nothing(run: Path, tmp_path: Path, spoil, message: str, capsys) -> None:
    folder, before = write_features(run, tmp_path / "found", tracked), scores(run)
    spoil(folder, keys(run)["i2v"])
    assert main(["features", str(run), str(folder)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    pd.testing.assert_frame_equal(scores(run), before)


def test_the_card_counts_videos_and_keeps_what_was_stated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run), "--sampled-by", "a group"]) == 0
    assert main(["card", str(run), "--scored-by", "a <b>lab</b>"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    card = read_card(RunFolder(run))
    assert card is not None
    (part,) = card.parts
    assert (part.sampled_by, part.scored_by) == ("a group", "a <b>lab</b>")
    rows = pq.read_table(run / "samples.parquet").to_pandas()
    i2v, mine = part.methods["i2v"], part.methods["mine"]
    assert i2v.transfer_s == pytest.approx(rows.query("method == 'i2v'")["transfer_s"].sum()) and i2v.videos == 2
    assert (mine.videos, mine.absent, mine.submitted, mine.peak_memory_gib) == (1, 1, True, None)
    assert part.evaluators["pck"] == "darkest pixels, version 1"
    table = card_table(load_run(run))
    assert table is not None and table.rows[0][:3] == (1, "a group", "a <b>lab</b>")
