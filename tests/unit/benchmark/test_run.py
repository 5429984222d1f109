"""Sessions on the tiny backbone, and the command's answers to wrong arguments."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import benchmark.run as command
from benchmark.bounds.bounds import BOUNDS
from benchmark.console.run_progress import Progress
from benchmark.planning.methods import METHODS, MethodEntry
from benchmark.planning.selection import UsageError
from benchmark.planning.variants import build_methods
from benchmark.stages.describe import merged
from benchmark.store.folder import RunFolder
from benchmark.suites.case import CaseError
from flexiact.backbone.specs import BACKBONES, BackboneSpec
from flexiact.task import Video
from reports.run_folder import load_run
from tests.support.backbones import save_tiny_folder, tiny_backbone
from tests.support.harness import (
    CASES,
    METRICS,
    quick_flexiact,
    session,
    small_case,
    small_perception,
    tree,
    watch_rows,
)
from tests.support.harness import METHODS as SOME_METHODS
from tests.support.quick_help import ROOT, help_of


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, backbone):
    quick_flexiact(monkeypatch)
    return backbone


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables, without what a clock or the memory of the process decides."""
    samples = pd.read_parquet(out / "samples.parquet").drop(columns=["fit_s", "transfer_s", "peak_memory_gib"])
    return samples, pd.read_parquet(out / "scores.parquet")


def assert_same_tables(first: Path, second: Path) -> None:
    for one, other in zip(tables(first), tables(second), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_a_session_ends_with_all_rows_and_reads_as_the_reports_want(tiny, out: Path) -> None:
    outcome = session(out, tiny)
    samples, scores = tables(out)
    rows = (len(SOME_METHODS) + len(BOUNDS)) * len(CASES)
    assert (outcome.made, outcome.scored, outcome.failed) == (rows, rows, ())
    assert len(samples) == rows and len(scores) == rows * len(METRICS)
    assert set(samples["status"]) == {"ok"}
    assert set(scores["status"]) <= {"ok", "skipped"}
    assert samples["video"].map(lambda path: (out / path).is_file()).all()
    fits = samples[samples["method"].isin(["flexiact", "base-embedding"])]["fit_key"]
    assert fits.nunique() == 1  # two variants, two targets, one reference
    run = load_run(out)
    assert run.methods == list(SOME_METHODS) and run.bounds == list(BOUNDS)
    assert run.headline == "motion_agreement"
    assert run.notes == ()
    info = json.loads((out / "run.json").read_text())
    assert info["backbone"]["num_inference_steps"] == tiny.num_inference_steps
    assert info["cases"][CASES[0].case_id]["reference_rig"] == "biped"
    assert info["methods"]["flexiact"]["fit_config"]["fit_steps"] == 2


def test_a_second_session_touches_no_file(tiny, out: Path) -> None:
    session(out, tiny)
    before = tree(out)
    outcome = session(out, tiny)
    assert (outcome.made, outcome.scored) == (0, 0)
    assert tree(out) == before


def test_a_session_holds_few_rows_at_a_time(tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session(out, tiny)
    before, rows, files, kept = tables(out), watch_rows(monkeypatch), [], RunFolder.read_json

    def watched(folder: RunFolder, kind: str, key: str) -> dict | None:
        files.append((kind, key))
        return kept(folder, kind, key)

    monkeypatch.setattr(RunFolder, "read_json", watched)
    session(out, tiny)
    assert len(rows) == len(before[0]) > 20
    assert sorted(files) == sorted((kind, key) for kind in ("records", "scores") for key in before[0]["key"])
    assert pq.ParquetFile(out / "scores.parquet").num_row_groups == math.ceil(len(before[0]) / 3)
    for one, other in zip(before, tables(out), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_two_sessions_are_equal(tiny, out: Path) -> None:
    for name in ("one", "two"):
        session(out / name, tiny)
    assert_same_tables(out / "one", out / "two")


def test_shards_equal_the_whole(tiny, out: Path) -> None:
    session(out / "whole", tiny, seeds=(0, 1))
    shards = out / "shards"
    session(shards, tiny, cases=CASES[1:], methods=("i2v",), seeds=(1,))
    session(shards, tiny, cases=CASES[:1], metrics=METRICS[:2])
    session(shards, tiny, methods=("flexiact",), seeds=(1, 0), metrics=METRICS[2:])
    session(shards, tiny, seeds=(0, 1))
    assert_same_tables(out / "whole", shards)


def test_a_new_metric_makes_no_video_again(tiny, out: Path) -> None:
    session(out, tiny, metrics=METRICS[:2])
    before = {name: file for name, file in tree(out).items() if name.startswith(("videos", "fits", "records"))}
    outcome = session(out, tiny)
    assert outcome.made == 0 and outcome.scored > 0
    assert {name: file for name, file in tree(out).items() if name in before} == before
    assert set(tables(out)[1]["metric"]) == set(METRICS)


def test_fits_of_another_run_are_copied_if_they_depend_on_the_same(tiny, out: Path, monkeypatch) -> None:
    first, second = out / "first", out / "second"
    session(first, tiny, methods=("flexiact",), cases=CASES[:1])
    (fit,) = first.glob("fits/*/*")
    monkeypatch.setattr("flexiact.method.FlexiAct.fit", None)  # nobody may fit again
    outcome = session(second, tiny, methods=("flexiact",), cases=CASES[1:], fits_from=(RunFolder(first),))
    assert outcome.failed == () and (second / fit.relative_to(first)).read_bytes() == fit.read_bytes()
    assert f"fits of {first}: 1" in (second / "log.txt").read_text()
    other = session(out / "other", tiny, methods=("flexiact",), seeds=(1,), fits_from=(RunFolder(first),))
    assert len(other.failed) == len(CASES) and not list((out / "other").glob("fits/*/*.safetensors"))
    fit.unlink()
    fit.mkdir()  # cannot be read
    assert session(out / "third", tiny, methods=("flexiact",), fits_from=(RunFolder(first),)).failed


def test_a_giver_of_fits_is_a_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    (out / "run.json").write_text('{"schema_version": 1}')
    for place in (out, out / "none"):
        assert command.main(["--suite", "puppets-smoke", "--out", str(out / "new"), "--fits-from", str(place)]) == 2
        assert capsys.readouterr().err == f"error: fits-from: {place} holds no run that this code can read\n"


class Broken:
    """Fails on one of the two targets."""

    method_id = "Broken"
    version = 1
    uses_reference = False

    def __init__(self, backbone, luck: list[bool]) -> None:
        self.backbone, self.luck = backbone, luck

    def fit_config(self) -> dict:
        return {"broken": True}

    def transfer_config(self) -> dict:
        return {}

    def fit(self, reference, caption, *, seed):
        return {}

    def transfer(self, action, request):
        if request.prompt.endswith("2") and not self.luck[0]:
            raise ValueError("target: too hard")
        return Video(request.target[None].repeat(self.backbone.num_frames, axis=0), self.backbone.fps)


def test_a_failure_is_kept_until_it_is_asked_for_again(tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    luck = [False]
    monkeypatch.setitem(METHODS, "broken", MethodEntry(lambda backbone: Broken(backbone, luck), "fails"))
    names = ("i2v", "broken")
    failed = session(out, tiny, methods=names).failed
    assert [(row.method, row.case_id, row.error) for row in failed] == [
        ("broken", CASES[1].case_id, "ValueError: target: too hard")
    ]
    samples, scores = tables(out)
    mine = (scores["method"] == "broken") & (scores["case_id"] == CASES[1].case_id)
    assert set(scores[mine]["status"]) == {"failed"} and scores[mine]["value"].isna().all()
    assert len(samples) == (2 + len(BOUNDS)) * 2
    luck[0] = True
    again = session(out, tiny, methods=names)
    assert again.made == 0 and len(again.failed) == 1
    third = session(out, tiny, methods=names, retry_failed=True)
    assert (third.made, third.failed) == (1, ())
    assert set(tables(out)[0]["status"]) == {"ok"}


def test_a_changed_method_is_made_again_and_its_old_rows_go(tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session(out, tiny, methods=("i2v", "base-embedding"))
    from baselines.i2v import ImageToVideo

    monkeypatch.setattr(ImageToVideo, "version", 2)
    assert session(out, tiny, methods=("i2v",)).made == len(CASES)
    samples, _ = tables(out)
    assert set(samples[samples["method"] == "i2v"]["method_version"]) == {2}
    assert len(samples) == (2 + len(BOUNDS)) * len(CASES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "other"}, "holds suite 'small', not 'other'"),
        ({"suite_version": 2, "suite_digest": "0" * 64}, "holds version None of the suite, this is version 2"),
        ({"backbone": "steps"}, "made with backbone num_inference_steps 4, this is 5"),
        ({"backbone": "weights"}, "made with backbone revision 'seed-0', this is 'seed-1'"),
        ({"cases": (replace(CASES[0], prompt="another"),)}, "its prompt is not what the run directory has"),
    ],
)
def test_a_directory_of_another_configuration_is_refused_untouched(
    tiny, out: Path, changes: dict, message: str
) -> None:
    session(out, tiny, methods=("i2v",))
    before = tree(out)
    other = {"steps": replace(tiny, num_inference_steps=5), "weights": replace(tiny, revision="seed-1")}
    used = other.get(changes.pop("backbone", ""), tiny)
    with pytest.raises(UsageError, match=message):
        session(out, used, methods=("i2v",), **changes)
    assert tree(out) == before


def test_a_changed_case_is_refused_before_anything_is_written(tiny, out: Path) -> None:
    moved = replace(CASES[0], action="turn")
    with pytest.raises(CaseError, match="digests.reference"):
        session(out, tiny, cases=(moved,))
    assert not out.exists()


def test_a_method_that_cannot_be_built_is_named_with_those_that_can() -> None:
    with pytest.raises(UsageError, match="method flexiact cannot run.*no RefAdapter.*others can: --methods i2v"):
        build_methods(("flexiact", "i2v"), tiny_backbone())


def test_merging_keeps_the_order_of_the_tables(tiny, out: Path) -> None:
    session(out, tiny, methods=("i2v",), cases=CASES[1:], seeds=(1,))
    stored = json.loads((out / "run.json").read_text())
    session(out, tiny, methods=("flexiact",), cases=CASES[:1])
    both = json.loads((out / "run.json").read_text())
    assert list(both["methods"]) == ["flexiact", "i2v", *BOUNDS]
    assert list(both["cases"]) == sorted(case.case_id for case in CASES)
    assert both["seeds"] == [0, 1]
    assert merged(stored, stored) == stored


def test_fits_have_seeds_of_their_own_if_they_are_asked_for(tiny, out: Path) -> None:
    small = {"methods": ("flexiact",), "cases": CASES[:1], "metrics": METRICS[:1]}
    session(out, tiny, seeds=(0, 1), fit_seeds=[0, 1], **small)
    rows = load_run(out).samples.query("method == 'flexiact'")
    assert sorted(zip(rows["seed"], rows["fit_seed"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rows["video_digest"].nunique() == 4 and rows["fit_key"].nunique() == len(list(out.glob("fits/*"))) == 2
    with pytest.raises(UsageError, match="was made with --fit-seeds, this is without; choose another --out"):
        session(out, tiny, seeds=(0, 1), **small)
    assert session(out, tiny, seeds=(1,), fit_seeds=[2], **small).made == 1
    assert json.loads((out / "run.json").read_text())["fit_seeds"] == [0, 1, 2]
    plain = out.parent / "plain"
    session(plain, tiny, seeds=(0, 1), **small)
    same = load_run(plain).samples.query("method == 'flexiact'")
    assert set(same["key"]) <= set(rows["key"]) and (same["seed"] == same["fit_seed"]).all()


def test_only_sessions_that_add_something_are_remembered(tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.stages.session import RunRequest, run_session

    request = RunRequest("small", CASES, ("i2v",), (0,), METRICS, out, command="first")
    run_session(request, tiny, small_perception(), {"threads": 1})
    run_session(replace(request, command="idle"), tiny, small_perception(), {"threads": 2})
    run_session(replace(request, command="more", seeds=(0, 1)), tiny, small_perception(), {"threads": 2})
    info = json.loads((out / "run.json").read_text())
    assert (info["command"], info["provenance"]) == ("first", {"threads": 1})
    assert info["later_sessions"] == [{"command": "more", "provenance": {"threads": 2}}]
    run_session(replace(request, command="most", seeds=(0, 1, 2)), tiny, small_perception(), {"threads": 1})
    info = json.loads((out / "run.json").read_text())
    assert [session["command"] for session in info["later_sessions"]] == ["more", "most"]


# ------------------------------------------------------------------------------------------------------ command line


@pytest.fixture
def quiet_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets them for the process; tests share one."""
    monkeypatch.setattr(command, "set_threads", lambda threads: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "flexact"], "unknown method 'flexact' (did you mean 'flexiact'?); choose from flexiact, "),
        (["--suite", "pupets"], "unknown suite 'pupets' (did you mean 'puppets'?); choose from puppets"),
        (["--cases", "nobody*"], "unknown case of suite puppets 'nobody*'"),
        (["--metrics", "motion_agrement"], "unknown metric 'motion_agrement' (did you mean 'motion_agreement'?)"),
        (["--seeds", "x"], "seeds: expected numbers"),
        (["--seeds", "3-1"], "seeds: expected an ascending range"),
        (["--seeds", "-1"], "seeds"),
        (["--steps", "0"], "steps: expected a number above 0, got 0"),
        (["--threads", "-2"], "threads: expected a number above 0"),
        (["--shard", "3/2"], "shard: expected I/N with I from 1 to N"),
        (["--workers", "0"], "workers: expected auto or a number above 0, got '0'"),
        (["--workers", "all"], "workers: expected auto or a number above 0, got 'all'"),
        (["--workers", "2", "--threads", "2"], "argument --threads: not allowed with argument --workers"),
        (["--backbone", "pupets"], "backbone: unknown name 'pupets', did you mean 'puppets'?"),
        (["--device", "gpu"], "device"),
    ],
)
def test_a_wrong_argument_is_answered_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, quiet_threads: None
) -> None:
    out = tmp_path / "run"
    try:
        code = command.main([*arguments, "--out", str(out)])
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr().err
    assert code == 2
    assert message in shown
    assert shown.count("\n") == 1 and "Traceback" not in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["flexiact", "i2v"], "give --refadapter DIR, or leave it out: --methods i2v"),
        (["pose_guided"], "method pose_guided needs weights that the backbone does not come with: give --control DIR"),
    ],
)
def test_methods_whose_weights_nobody_named_are_refused_before_any_is_read(
    methods: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, quiet_threads: None
) -> None:
    arguments = ["--backbone", "cogvideox-5b-i2v", "--device", "cpu", "--methods", *methods]
    assert command.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_another_schema_is_answered_before_networks_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    code = "import sys, benchmark.run as r; c = r.main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(c)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--out", tmp_path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "schema version 99" in done.stderr
    assert done.stdout == "False\n"


def test_help_is_quick_and_names_everything() -> None:
    shown, imported = help_of("benchmark.run")
    assert not imported & {"torch", "numpy", "diffusers", "transformers", "pandas", "cv2"}
    for name in (*METHODS, "puppets-smoke", "--retry-failed"):
        assert name in shown


@pytest.mark.parametrize("weight", ["vae.decoder.conv_in.conv.weight", "transformer.proj_out.weight"])
def test_weights_that_are_not_finite_are_refused(
    weight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, quiet_threads: None
) -> None:
    folder, broken = tmp_path / "weights", tiny_backbone()
    part, _, parameter = weight.partition(".")
    getattr(broken, part).get_parameter(parameter).data.flatten()[-1] = float("nan")
    save_tiny_folder(folder, broken)
    monkeypatch.setitem(BACKBONES, "puppets", BackboneSpec(folder))
    capsys.readouterr()
    arguments = ["--suite", "puppets-smoke", "--device", "cpu", "--methods", "i2v", "--workers", "1"]
    code = command.main([*arguments, "--out", str(tmp_path / "run")])
    shown = capsys.readouterr().err
    assert code == 2
    assert re.fullmatch(rf"error: {re.escape(weight)}: .*not finite.*\n", shown)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("texts", "seeds"), [(["0"], (0,)), (["0", "2", "1"], (0, 1, 2)), (["0,5"], (0, 5)), (["1-3", "2"], (1, 2, 3))]
)
def test_seeds(texts: list[str], seeds: tuple[int, ...]) -> None:
    assert command.parse_seeds(texts) == seeds


def test_threads_are_those_given_or_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    before = torch.get_num_threads(), cv2.getNumThreads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    try:
        command.set_threads(None)
        assert torch.get_num_threads() == 1
        command.set_threads(2)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "2")
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_time_left_is_estimated_kind_by_kind() -> None:
    progress = Progress({"fit": 2, "method": 3})
    assert progress.seconds_left() == (0.0, False)
    progress.done("fit", 60.0)
    assert progress.time_left().startswith("more than ")
    progress.done("method", 2.0)
    assert progress.seconds_left() == (64.0, True)
    assert progress.time_left() == "about 1 min 04 s left"
    shared = Progress({"fit": 2}, workers=2)
    shared.done("fit", 60.0)
    assert shared.seconds_left() == (30.0, True)


def test_all_work_is_announced_by_what_it_costs_and_counted_once(tiny, out: Path, monkeypatch) -> None:
    begun: list[tuple[Progress, dict[str, int]]] = []

    def watched(work: dict[str, int], workers: int) -> Progress:
        begun.append((Progress(work, workers=workers), dict(work)))
        return begun[0][0]

    monkeypatch.setattr("benchmark.stages.session.Progress", watched)
    session(out, tiny)
    ((progress, work),) = begun
    assert work["fit flexiact"] == 1 and "fit base-embedding" not in work  # which shares it
    assert work["method base-embedding"] == len(CASES) and work["bound still"] == len(CASES)
    assert progress.seconds_left() == (0.0, True) and not any(progress._left.values())


def test_small_cases_differ_as_the_tests_expect() -> None:
    assert CASES[0].digests["reference"] == CASES[1].digests["reference"]
    assert small_case("turn").digests["reference"] != CASES[0].digests["reference"]
