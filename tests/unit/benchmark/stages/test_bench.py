"""A unit whose worker was lost: what is stored is kept, and only what the worker was at counts against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.planning.plan import Cell
from benchmark.planning.variants import build_methods
from benchmark.stages.bench import Bench
from benchmark.stages.execute import Executor
from benchmark.stages.scoring import Scorer
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_row
from flexiact.backbone.backbone import Backbone
from metrics import METRICS
from tests.support.harness import CASES, small_perception

ONE, TWO = (Cell(f"key{i}", "fit", "i2v", "method", case.case_id, 0, 0) for i, case in enumerate(CASES))
UNIT = (ONE, TWO)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "run")
    with folder.opened():
        yield folder


def bench(folder: RunFolder, backbone: Backbone, retry_failed: bool = False) -> Bench:
    cases = {case.case_id: case for case in CASES}
    executor = Executor(folder, backbone, build_methods(["i2v"], backbone), cases)
    metrics = {"dynamic_degree": METRICS["dynamic_degree"]}
    return Bench(executor, Scorer(folder, executor.stages, small_perception(), metrics, retry_failed), folder)


def test_the_cells_that_a_lost_worker_was_at(folder: RunFolder, backbone: Backbone) -> None:
    here = bench(folder, backbone)
    assert here.left(UNIT) == (UNIT, UNIT)  # their fit is not stored
    here.executor.execute(ONE)
    assert here.left(UNIT) == ((TWO,), (TWO,))
    here.executor.execute(TWO)
    assert here.left(UNIT) == ((), UNIT)  # it measured


@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_failure_counts_as_made_unless_failures_are_tried_again(
    folder: RunFolder, backbone: Backbone, retry_failed: bool
) -> None:
    here = bench(folder, backbone, retry_failed)
    here.executor.fail(ONE, "of an earlier run, perhaps")
    unmade, _ = here.left(UNIT)
    assert unmade == (UNIT if retry_failed else (TWO,))


def test_what_is_given_up_fails_in_both_tables(folder: RunFolder, backbone: Backbone) -> None:
    here = bench(folder, backbone)
    made = here.executor.execute(ONE)
    here.give_up((ONE,), "lost")  # its video was stored in the meantime
    here.give_up((TWO,), "lost")
    one, two = sample_row(folder, ONE), sample_row(folder, TWO)
    assert one == made and two is not None and two.error == "lost"
    assert folder.read_json("scores", ONE.key) is None
    scores = folder.read_json("scores", TWO.key)
    assert scores and scores["metrics"]["dynamic_degree"]["error"] == "lost"
