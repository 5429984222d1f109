"""Runs on material whose right answer nobody knows: what is skipped, what is said, and how the command answers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmark.run as command
from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.methods import METHODS, TRUE_KEYPOINTS, MethodEntry
from benchmark.planning.selection import UsageError
from benchmark.suites.case import CaseError
from benchmark.suites.file_cases import NO_TRUTH, FileSuite
from benchmark.suites.folder import folder_suite
from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.specs import BACKBONES, BackboneSpec
from flexiact.task import Video
from reports.build import build
from reports.run_folder import AXES
from tests.support.backbones import save_tiny_folder, tiny_backbone
from tests.support.harness import session, small_perception, tree
from tests.support.real_material import official, plain, write_image

JUDGED = ("motion_agreement", "ssim_to_truth", "motion_fidelity", "text_similarity", "dynamic_degree")


class Told:
    """Wants the true keypoints of what it sees."""

    method_id = "Told"
    version = 1
    uses_reference = True

    def __init__(self, backbone) -> None:
        self.backbone = backbone

    def fit_config(self) -> dict:
        return {}

    def transfer_config(self) -> dict:
        return {}

    def tell_keypoints(self, frames: np.ndarray, keypoints: np.ndarray) -> None:
        raise AssertionError("nobody can know them here")

    def fit(self, reference: Video, caption: str, *, seed: int) -> dict:
        raise AssertionError("a method that cannot be told is not run")

    transfer = fit


Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, backbone, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs two cases of files on the tiny backbone."""
    monkeypatch.setitem(METHODS, "told", MethodEntry(Told, "is told keypoints", needs=(TRUE_KEYPOINTS,)))
    plain(tmp_path / "data")

    def start(**changes) -> Path:
        suite: FileSuite = folder_suite(str(tmp_path / "data"))
        request = {"suite": suite.name, "headline": suite.headline, "cases": suite.cases, "metrics": JUDGED}
        request = request | {"methods": ("i2v", "told")} | changes
        outcome = session(tmp_path / "run", backbone, small_perception(pose=None), **request)
        assert outcome.failed == ()
        return tmp_path / "run"

    return start


def test_what_needs_the_truth_is_skipped_with_a_reason(run: Run) -> None:
    out = run()
    samples, scores = (pd.read_parquet(out / f"{name}.parquet") for name in ("samples", "scores"))
    assert set(samples["method"]) == {"i2v", "told", "still", "copy-reference"}
    assert {name for name, bound in BOUNDS.items() if not bound.needs_truth} == {"still", "copy-reference"}
    told = samples["method"] == "told"
    assert set(samples[told]["status"]) == {"skipped"} and set(samples[told]["error"]) == {NO_TRUTH}
    assert set(samples[~told]["status"]) == {"ok"}
    made = scores[scores["method"] != "told"].set_index("metric")
    for name in ("motion_agreement", "ssim_to_truth"):
        assert set(made.loc[name, "status"]) == {"skipped"} and made.loc[name, "value"].isna().all()
        assert made.loc[name, "error"].str.startswith(NO_TRUTH).all()
    assert made.loc["motion_agreement", "error"].str.contains("pose judge knows puppets alone").all()
    assert set(made.loc[["motion_fidelity", "text_similarity"], "status"]) == {"ok"}
    fidelity = made.loc["motion_fidelity"].groupby("method")["value"].mean()
    assert fidelity["copy-reference"] == pytest.approx(1) and fidelity["still"] == 0


def test_the_description_says_what_is_not_known(run: Run) -> None:
    info = json.loads((run() / "run.json").read_text())
    assert info["truth"] == {"known": False}
    assert [name for name, entry in info["metrics"].items() if entry["headline"]] == ["motion_fidelity"]
    case = info["cases"]["cat"]
    assert (case["axes"], case["terciles"]) == ({}, {})
    assert case["files"]["target"]["name"] == "images/cat.png"
    assert len(case["files"]["reference"]["sha256"]) == 64


def test_a_second_session_touches_no_file(run: Run) -> None:
    out = run()
    before = tree(out)
    assert tree(run()) == before


def test_a_changed_file_is_another_case(run: Run, tmp_path: Path, backbone) -> None:
    run(methods=("i2v",))
    stale = folder_suite(str(tmp_path / "data")).cases
    write_image(tmp_path / "data/images/cat.png", 99)
    with pytest.raises(CaseError, match="images/cat.png: has changed since the suite was read"):
        session(tmp_path / "run", backbone, small_perception(pose=None), cases=stale, methods=("i2v",))
    with pytest.raises(UsageError, match="case cat: its files is not what the run directory has"):
        run(methods=("i2v",))


@pytest.mark.slow
def test_the_report_says_what_is_not_known_and_shows_no_zero_for_it(run: Run) -> None:
    page = build(run())
    text = page.with_suffix(".md").read_text()
    assert text.count("Cases near / middle / far: not known.") == len(AXES)
    assert "Nobody knows the right answers of this material." in text
    assert "Nothing to compare: motion fidelity reads no right answer either." in text
    assert "other footage" in text and "real footage" not in text
    assert not (page.parent / "figures" / "belief.svg").exists()
    board = pd.read_csv(page.with_suffix(".csv"))
    agreement = board[board["metric"] == "motion_agreement"]
    assert agreement["mean"].isna().all() and (agreement["ok"] == 0).all()
    assert set(agreement[agreement["name"] != "told"]["skipped"]) == {2}
    assert board[board["headline"]]["metric"].unique().tolist() == ["motion_fidelity"]


# ------------------------------------------------------------------------------------------------------ command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "flexact:x"], "unknown kind of suite 'flexact' (did you mean 'flexiact'?)"),
        (["--suite", "folder:"], "suite: expected a folder after the colon, as in folder:FOLDER"),
        (
            ["--suite", "folder:x"],
            "real material needs --backbone NAME (the built-in model knows puppets alone) and --i",
        ),
        (["--suite", "flexiact:x", "--backbone", "b"], "flexiact: real material needs --image-encoder ViT-B-32"),
        (["--suite", "folder:nowhere", "--backbone", "b", "--image-encoder", "e"], "there is no folder nowhere"),
        (["--suite", "flexiact:nowhere", "--backbone", "b", "--image-encoder", "e"], "nowhere holds no captions"),
        (["--suite", "davis:nowhere", "--backbone", "b", "--image-encoder", "e"], "nowhere holds no JPEGImages"),
    ],
)
def test_a_wrong_suite_is_answered_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_runs_the_authors_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(command, "set_threads", lambda threads: None)  # of the process, which tests share
    monkeypatch.setitem(BACKBONES, "tiny", BackboneSpec(save_tiny_folder(tmp_path / "weights", tiny_backbone())))
    official(tmp_path / "data")
    arguments = [
        "--suite",
        f"flexiact:{tmp_path / 'data'}",
        "--backbone",
        "tiny",
        "--device",
        "cpu",
        "--methods",
        "i2v",
        "--workers",
        "1",  # others would not know the entry made here
    ]
    arguments += ["--image-encoder", str(PUPPET_WEIGHTS / "clip"), "--cases", "human-*", "--out", str(tmp_path / "run")]
    assert command.main(arguments) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "suite flexiact: 6 videos made, 6 measured" in shown
    scores = pd.read_parquet(tmp_path / "run" / "scores.parquet")
    assert set(scores["status"]) == {"ok", "skipped"}
    assert set(scores[scores["metric"] == "text_similarity"]["status"]) == {"ok"}
    assert scores[scores["metric"] == "pck"]["error"].str.startswith(NO_TRUTH).all()
    assert (tmp_path / "run" / "report" / "leaderboard.html").stat().st_size > 0
