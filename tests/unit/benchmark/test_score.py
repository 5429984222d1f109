"""Features once per video, one stored entry per metric, and three states that never mix."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.planning.plan import Cell
from benchmark.stages.execute import Executor, format_of
from benchmark.stages.scoring import Scorer, backend_of, evaluated
from benchmark.store.folder import RunFolder
from benchmark.store.gather import score_rows
from benchmark.store.schema.rows import SampleRow
from benchmark.store.videos import DamagedVideo
from benchmark.suites.case import Stages
from flexiact.task import Video
from metrics import METRICS, Features, Metric
from metrics.perception import Perception
from tests.support.harness import CASES, small_perception

CELL = Cell("key1", None, "oracle", "bound", CASES[0].case_id, 0, 0)
NAMES = ("motion_agreement", "motion_fidelity", "ssim_to_truth", "text_similarity", "lpips_to_truth")


@dataclass(frozen=True, eq=False)
class Counting(Perception):
    """Perception that counts what it is asked."""

    seen: list[str] = field(default_factory=list)

    def describe(self, video: Video):
        self.seen.append(f"{len(video.frames)} frames")
        return super().describe(video)


def counting() -> Counting:
    parts = small_perception()
    return Counting(image_encoder=parts.image_encoder, tracker=parts.tracker, pose=parts.pose)


@pytest.fixture
def folder(tmp_path: Path):
    opened = RunFolder(tmp_path / "run")
    with opened.opened():
        yield opened


@pytest.fixture
def row(folder: RunFolder, backbone) -> SampleRow:
    return Executor(folder, backbone, {}, {case.case_id: case for case in CASES}).execute(CELL)


def scorer(folder: RunFolder, backbone, perception=None, metrics=None) -> Scorer:
    stages = Stages({case.case_id: case for case in CASES}, format_of(backbone))
    return Scorer(folder, stages, perception or counting(), metrics or {name: METRICS[name] for name in NAMES})


def stored(folder: RunFolder, key: str = "key1") -> dict:
    return folder.read_json("scores", key)["metrics"]


def test_every_metric_gets_an_entry_with_its_version_and_backend(folder: RunFolder, row, backbone) -> None:
    judge = scorer(folder, backbone)
    assert judge.missing(row) == list(NAMES)
    judge.score(CELL, row)
    assert judge.missing(row) == []
    entries = stored(folder)
    assert list(entries) == list(NAMES)
    assert entries["motion_agreement"]["backend"] == "darkest pixels"
    assert entries["ssim_to_truth"] == {
        "version": METRICS["ssim_to_truth"].version,
        "backend": "decoded frames",
        "status": "ok",
        "value": pytest.approx(1),
        "error": None,
    }


def test_what_nothing_can_measure_is_skipped_without_a_value(folder: RunFolder, row, backbone) -> None:
    scorer(folder, backbone).score(CELL, row)
    entry = stored(folder)["lpips_to_truth"]
    assert (entry["status"], entry["value"], entry["backend"]) == ("skipped", None, "none")
    assert "perceptual_distance" in entry["error"]


def test_the_released_text_similarity_reads_the_first_77_characters(folder: RunFolder, row, backbone) -> None:
    case, names = CASES[0], ("text_similarity", "text_similarity_upstream")

    def scores(prompt: str) -> list[float]:
        stages = Stages({case.case_id: replace(case, prompt=prompt)}, format_of(backbone))
        Scorer(folder, stages, counting(), {name: METRICS[name] for name in names}).score(CELL, row)
        entries = stored(folder)
        folder.file("scores", f"{CELL.key}.json").unlink()
        return [entries[name]["value"] for name in names]

    begun = scores("a" * 77)
    longer = scores("a" * 77 + "bbb")
    assert begun[0] == begun[1] == longer[1] != longer[0]


def test_the_same_frames_are_seen_once_ever(folder: RunFolder, row, backbone) -> None:
    perception = counting()
    judge = scorer(folder, backbone, perception)
    judge.score(CELL, row)
    assert sorted(perception.seen) == ["1 frames", "9 frames", "9 frames"]  # target, video, reference
    again = Cell("key2", None, "twin", "bound", CASES[0].case_id, 0, 0)
    judge.score(again, replace(row, key="key2"))
    assert len(perception.seen) == 3
    later = counting()
    scorer(folder, backbone, later).score(replace(again, key="key3"), replace(row, key="key3"))
    assert later.seen == []
    assert stored(folder, "key2") == stored(folder, "key3") == stored(folder)


def test_a_new_metric_or_version_is_computed_alone(folder: RunFolder, row, backbone) -> None:
    scorer(folder, backbone).score(CELL, row)
    before = stored(folder)
    newer = replace(METRICS["motion_fidelity"], version=99, formula=lambda features: 0.25)
    judge = scorer(folder, backbone, metrics={"motion_fidelity": newer, "dynamic_degree": METRICS["dynamic_degree"]})
    assert judge.missing(row) == ["motion_fidelity", "dynamic_degree"]
    judge.score(CELL, row)
    after = stored(folder)
    assert after["motion_fidelity"]["value"] == 0.25 and after["motion_fidelity"]["version"] == 99
    assert {name: after[name] for name in before if name != "motion_fidelity"} == {
        name: before[name] for name in before if name != "motion_fidelity"
    }


def test_another_judge_measures_again(folder: RunFolder, row, backbone) -> None:
    scorer(folder, backbone).score(CELL, row)
    other = small_perception(pose=replace(small_perception().pose, name="other"))
    assert scorer(folder, backbone, other).missing(row) == ["motion_agreement"]


def test_another_video_under_the_same_key_is_measured_again(folder: RunFolder, row, backbone) -> None:
    judge = scorer(folder, backbone)
    judge.score(CELL, row)
    assert judge.missing(replace(row, video_digest="0" * 64)) == list(NAMES)


def test_features_of_another_version_measure_everything_again(folder: RunFolder, row, backbone, monkeypatch) -> None:
    scorer(folder, backbone).score(CELL, row)
    metrics = folder.read_json("scores", CELL.key)["metrics"]
    assert [score.metric for score in score_rows(folder, metrics, row)] == list(NAMES)
    assert score_rows(folder, metrics, replace(row, video_digest="0" * 64)) == []
    monkeypatch.setattr("benchmark.stages.scoring.FEATURES_VERSION", 2)
    monkeypatch.setattr("benchmark.store.gather.FEATURES_VERSION", 2)
    assert scorer(folder, backbone).missing(row) == list(NAMES)
    assert score_rows(folder, metrics, row) == []  # no table shows what was measured otherwise


def test_a_metric_that_failed_is_computed_again_when_that_is_asked(folder: RunFolder, row, backbone) -> None:
    def broken(features: Features) -> float:
        raise RuntimeError("out of memory")

    whole = {name: METRICS[name] for name in ("dynamic_degree", "motion_fidelity")}
    faulty = whole | {"dynamic_degree": replace(METRICS["dynamic_degree"], formula=broken)}
    scorer(folder, backbone, metrics=faulty).score(CELL, row)
    stages = Stages({case.case_id: case for case in CASES}, format_of(backbone))
    assert Scorer(folder, stages, counting(), whole).missing(row) == []
    again = Scorer(folder, stages, counting(), whole, retry_failed=True)
    assert again.missing(row) == ["dynamic_degree"]
    again.score(CELL, row)
    assert stored(folder)["dynamic_degree"]["status"] == "ok" and again.missing(row) == []


def test_a_failed_video_has_failed_metrics_and_no_values(folder: RunFolder, row, backbone) -> None:
    failed = replace(row, status="failed", error="RuntimeError: no luck", video=None, video_digest=None)
    judge = scorer(folder, backbone)
    judge.score(CELL, failed)
    assert {(e["status"], e["value"], e["error"]) for e in stored(folder).values()} == {
        ("failed", None, "RuntimeError: no luck")
    }
    assert judge.missing(failed) == []


def test_a_skipped_video_has_skipped_metrics(folder: RunFolder, row, backbone) -> None:
    skipped = replace(row, status="skipped", error="not here", video=None, video_digest=None)
    scorer(folder, backbone).score(CELL, skipped)
    assert {e["status"] for e in stored(folder).values()} == {"skipped"}


@pytest.mark.parametrize("size", [None, 200])
def test_a_damaged_video_is_not_scored(folder: RunFolder, row, backbone, size: int | None) -> None:
    path = folder.path / row.video
    path.write_bytes(path.read_bytes()[:size])
    other = row if size else replace(row, video_digest="0" * 64)
    with pytest.raises(DamagedVideo, match="key1.mkv: "):
        scorer(folder, backbone).score(CELL, other)
    assert folder.read_json("scores", "key1") is None


def metric(formula) -> Metric:
    return replace(METRICS["dynamic_degree"], needs=(), formula=formula, undefined="when it is Sunday")


def raising(features: Features) -> float:
    raise ZeroDivisionError("division\nby zero")


@pytest.mark.parametrize(
    ("formula", "entry"),
    [
        (lambda f: 0.0, {"status": "ok", "value": 0.0, "error": None}),
        (lambda f: None, {"status": "skipped", "value": None, "error": "when it is Sunday"}),
        (raising, {"status": "failed", "value": None, "error": "ZeroDivisionError: division by zero"}),
    ],
)
def test_a_value_a_skip_and_a_failure_are_three_things(formula, entry: dict) -> None:
    assert evaluated(metric(formula), Features()) == entry


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float64("nan")])
def test_what_is_not_finite_is_a_failure(value: float) -> None:
    entry = evaluated(metric(lambda f: value), Features())
    assert (entry["status"], entry["value"]) == ("failed", None)


def test_a_reason_with_a_path_is_not_a_backend() -> None:
    backends = small_perception(absent={"perceptual": "/home/me/file is not there"}).backends
    assert backend_of(METRICS["lpips_to_truth"], backends) == "none"


def test_scores_do_not_depend_on_what_was_scored_before(folder: RunFolder, row, backbone) -> None:
    executor = Executor(folder, backbone, {}, {case.case_id: case for case in CASES})
    cells = [Cell(f"k{i}", None, "oracle", "bound", case.case_id, 0, 0) for i, case in enumerate(CASES)]
    rows = [executor.execute(cell) for cell in cells]
    for order in ((0, 1), (1, 0)):
        judge = scorer(folder, backbone, metrics={"motion_fidelity": METRICS["motion_fidelity"]})
        for i in order:
            named = Cell(f"{order}{i}", None, "oracle", "bound", cells[i].case_id, 0, 0)
            judge.score(named, replace(rows[i], key=named.key))
    for i in (0, 1):
        assert stored(folder, f"(0, 1){i}") == stored(folder, f"(1, 0){i}")
    assert asdict(rows[0])["video_digest"] != asdict(rows[1])["video_digest"]
