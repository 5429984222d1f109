"""What `status` and `verify` say of a run, and that they change nothing in it."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmark import status, verify
from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.job_shards import Shard
from benchmark.planning.plan import plan
from benchmark.planning.variants import build_methods
from benchmark.stages.execute import Executor
from benchmark.store import gather
from benchmark.store.card import write_card
from benchmark.store.folder import RunFolder
from benchmark.store.lock import locked
from flexiact.task import Video
from tests.support.harness import CASES, session, tree, watch_rows

ASKED = {"cases": CASES[:1], "methods": ("base-embedding", "i2v")}


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    session(out, tiny, **ASKED)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def of_method(out: Path, method: str, folder: str) -> Path:
    cells = plan(RunFolder(out).described())
    return next((out / folder).glob(f"*/{next(cell.key for cell in cells if cell.method == method)}.*"))


def test_the_status_of_a_finished_run(out: Path, capsys) -> None:
    before = tree(out)
    assert status.main([str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    count = len(plan(RunFolder(out).described()))
    assert shown[1] == f"{count} videos: {count} done, 0 failed, 0 left"
    assert "nothing is left" in shown and "nobody is at work here" in shown
    assert shown[-1].startswith("last: 20") and shown[-1].endswith("ends      all done")
    assert tree(out) == before


def test_what_another_tool_did_not_measure_is_not_left_to_the_run(out: Path) -> None:
    folder = RunFolder(out)
    run = folder.described()
    judged = {**next(iter(run["metrics"].values())), "backend": "a judge 1", "headline": False}
    folder.write_run(run | {"metrics": {**run["metrics"], "judge": judged}})
    assert "nothing is left" in status.status_page(out)


def test_the_status_of_a_run_at_work(out: Path, capsys) -> None:
    of_method(out, "base-embedding", "records").unlink()
    of_method(out, "i2v", "scores").unlink()
    with locked(out, Shard(2, 3)), locked(out, Shard(1, 3)):
        shown = status.status_page(out)
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert lines["base-embedding"][1:5] == ["0", "0", "1", "1"]
    assert lines["i2v"][1:5] == ["1", "0", "0", "1"]
    assert shown.count("at work: process ") == 2 and "shard 2/3" in shown
    assert "for 2 process(es)" in shown and "time left: more than" in shown  # no fit of base-embedding was measured


def test_the_cost_of_a_shared_fit_counts_once_and_time_left_is_that_of_the_missing_pieces(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(out)
    info = folder.described()
    cells = plan(info)
    rows = {row.key: row for row in gather.sample_rows(folder, cells)}
    (made,) = (cell for cell in cells if cell.method == "base-embedding")
    rows[made.key] = replace(rows[made.key], fit_s=100.0, transfer_s=3.0)
    rows["twin"] = replace(rows[made.key], key="twin", method="twin")
    more = [*cells, replace(made, key="twin", method="twin")]
    more += [replace(made, key=f"new{i}", fit_key=f"fit{i}", seed=i) for i in (1, 2)]
    info["methods"] = {"base-embedding": info["methods"]["base-embedding"], "twin": info["methods"]["base-embedding"]}
    monkeypatch.setattr(gather, "sample_row", lambda folder, cell: rows.get(cell.key))
    first, twin = status.states(folder, info, more)
    assert (first.fit_s, first.transfer_s, first.left, first.left_s) == (100.0, 3.0, 2, 206.0)
    assert (twin.fit_s, twin.transfer_s, twin.left_s) == (0.0, 3.0, 0.0)


def test_a_sound_run_is_said_to_be(out: Path, capsys) -> None:
    before = tree(out)
    assert verify.main([str(out)]) == 0
    shown = capsys.readouterr().out
    count = len(plan(RunFolder(out).described()))
    assert f"checked: 1 run.json, {count} records, {count} scores, 2 fits, " in shown
    assert f", {count} videos, 2 tables\n" in shown and shown.endswith("damaged files: 0\n")
    assert tree(out) == before


@pytest.mark.parametrize(
    "pattern", ["videos/*/*", "records/*/*", "scores/*/*", "fits/*/*", "features/*/*", "*.parquet", "run.json"]
)
def test_one_bit_anywhere_is_found(out: Path, pattern: str, capsys, tiny) -> None:
    path = sorted(out.glob(pattern))[0]
    content = bytearray(path.read_bytes())
    among_values = path.suffix == ".parquet"  # the words that describe its columns are not compared
    content[content.index(b"base-embedding") if among_values else len(content) * 3 // 4] ^= 2
    path.write_bytes(content)
    assert verify.main([str(out)]) == 1
    shown = capsys.readouterr().out
    assert f"damaged: {path.relative_to(out)}: " in shown and "this makes them again: " in shown
    assert path.read_bytes() == content
    if path.name != "run.json":
        verify.main([str(out), "--remove"])
        assert not path.exists()
        session(out, tiny, **ASKED)
        if pattern not in ("fits/*/*", "features/*/*"):  # which are made when something needs them
            assert path.exists()
        assert verify.main([str(out)]) == 0


def test_what_makes_damaged_files_again_are_the_commands_of_all_sessions(out: Path, capsys) -> None:
    folder = RunFolder(out)
    sessions = [{"command": name, "provenance": {}} for name in ("first", "second", "first")]
    folder.write_run(folder.described() | sessions[0] | {"later_sessions": sessions[1:]})
    of_method(out, "i2v", "videos").write_bytes(b"x")
    assert verify.main([str(out)]) == 1
    assert capsys.readouterr().out.endswith("this makes them again: first; second\n")


def test_a_table_that_describes_its_columns_in_other_words_is_sound(out: Path, capsys) -> None:
    path = out / "samples.parquet"
    table = pq.read_table(path)
    words = table.schema.with_metadata({**(table.schema.metadata or {}), b"words": b"of another version"})
    pq.write_table(table.replace_schema_metadata(words.metadata), path)
    assert verify.main([str(out)]) == 0
    pq.write_table(table.slice(1), path)
    assert verify.main([str(out)]) == 1
    assert "samples.parquet: is not what the records say" in capsys.readouterr().out


def test_cells_that_are_run_again_are_equal_or_so_far_off(out: Path, tiny, tmp_path: Path, capsys) -> None:
    folder, scratch = RunFolder(out), RunFolder(tmp_path / "scratch")
    cells = plan(folder.described())
    methods, cases = build_methods(ASKED["methods"], tiny), {case.case_id: case for case in ASKED["cases"]}
    pairs = [*zip(cells, gather.sample_rows(folder, cells), strict=True)]
    with scratch.opened():
        executor = Executor(scratch, tiny, methods, cases)
        assert all(item.most == 0 for item in verify.compare(folder, executor, scratch, pairs))
        other = Executor(scratch, tiny, build_methods(["i2v"], replace(tiny, num_inference_steps=3)), cases)
        (item,) = verify.compare(folder, other, scratch, [pair for pair in pairs if pair[0].method == "i2v"])
    assert item.most and 0 < item.share <= 1
    assert capsys.readouterr().out.endswith("run again: 1, equal bit by bit: 0\n")


def test_a_run_with_nothing_to_run_again_is_not_called_checked(out: Path, capsys) -> None:
    for path in [*out.glob("records/*/*"), *out.glob("videos/*/*")]:
        path.unlink()
    folder = RunFolder(out)
    gather.write_tables(folder, info := folder.described(), plan(info))
    assert verify.main([str(out), "--cells", "2"]) == 2
    said, error = capsys.readouterr()
    assert said.endswith("damaged files: 0\n") and "cells: the run has no video that could be made again" in error


def test_status_verify_and_card_hold_few_rows_at_a_time(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, folder = watch_rows(monkeypatch), RunFolder(out)
    cells = plan(folder.described())
    gather.write_tables(folder, folder.described(), cells)
    for work in (status.main, verify.main, lambda _: write_card(folder, "a group", None)):
        rows.clear()
        work([str(out)])
        assert len(rows) == len(cells) > 7


def test_a_difference_is_that_of_the_pixels() -> None:
    frames = np.zeros((2, 4, 5, 3), np.uint8)
    other = frames.copy()
    other[1, 2, 3] = [255, 0, 2]
    found = verify.difference(Video(frames, 8.0), Video(other, 8.0))
    assert (found.most, found.mean, found.share) == (255, 257 / 120, 2 / 120)
    assert verify.difference(Video(frames, 8.0), Video(frames[:1], 8.0)).most is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"licence": "other"}, ""),
        ({"prompt": "a cat"}, "prompt 'a blue dog on the grass 1', here it is 'a cat'"),
        ({"caption": "a cat"}, "caption 'a red bird', here it is 'a cat'"),
        ({"wrong_action": "bow"}, "wrong_action 'hail', here it is 'bow'"),
        (None, "caption 'a red bird', here it is None"),
    ],
)
def test_cases_that_are_not_those_of_the_run_are_refused(change: dict | None, said: str) -> None:
    case = CASES[0]
    stored = {case.case_id: case.describe()}
    here = {} if change is None else {case.case_id: replace(case, **change)}
    if not said:
        return verify._same_cases(stored, here, {case.case_id})
    with pytest.raises(ValueError, match=f"^case {case.case_id}: the run was made with {said}$"):
        verify._same_cases(stored, here, {case.case_id})


def test_a_sample_is_run_again_unless_the_code_has_changed(out: Path, tiny, monkeypatch, capsys) -> None:
    monkeypatch.setattr(verify, "_options", lambda command: SimpleNamespace(suite="small", threads=1, device="cpu"))
    monkeypatch.setattr(verify, "open_suite", lambda args: SimpleNamespace(chosen=lambda ids: ASKED["cases"]))
    monkeypatch.setattr(verify, "networks_of", lambda *_: SimpleNamespace(load=lambda device: (tiny, None)))
    monkeypatch.setattr(verify, "set_threads", lambda threads: None)  # of the process, which tests share
    assert verify.main([str(out), "--cells", "2"]) == 0
    assert capsys.readouterr().out.endswith("run again: 2, equal bit by bit: 2\n")
    monkeypatch.setitem(BOUNDS, "oracle", replace(BOUNDS["oracle"], version=99))
    assert verify.main([str(out), "--cells", "99"]) == 2
    assert "bound oracle: the run was made with version 1, here it is 99\n" in capsys.readouterr().err


def test_a_run_of_another_command_cannot_be_run_again() -> None:
    with pytest.raises(ValueError, match="cells: only runs of benchmark.run and benchmark.ablate"):
        verify._options("python -m os")
