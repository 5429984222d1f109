"""Machines that are removed, memory that is exceeded, and a killed command: a run on Ray ends as a local one does."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pandas as pd
import psutil
import pytest
import torch

from benchmark.stages.session import Workers
from benchmark.workers.pool import Cluster
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harness import MEASURED, QUICK, assert_same_runs, session
from tests.support.quick_help import ROOT

pytest.importorskip("ray", reason="the extra `ray` is not installed")
from ray.cluster_utils import Cluster as Machines

from flexiact.method import PRESETS
from tests.support.harm.harmed_run import THREE_CASES, holding

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("CLUSTER_HARM" not in os.environ, reason="minutes on quiet cores: CLUSTER_HARM=1 runs them"),
]
ALONE = ("unshare", "--user", "--map-root-user", "--mount")
WITHIN_S = 1000
"""More than any step takes on busy cores."""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_refadapter(tmp_path_factory.mktemp("adapter") / "refadapter", tiny_backbone())


@pytest.fixture(scope="module")
def local(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three cases in one process with one thread, as each worker has."""
    out, before = tmp_path_factory.mktemp("local") / "run", torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", QUICK)
        session(out, tiny_backbone(refadapter=adapter), cases=THREE_CASES)
    torch.set_num_threads(before)
    return out


def machine(machines: Machines, cpus: int):
    return machines.add_node(num_cpus=cpus, object_store_memory=80 * 2**20, include_dashboard=False)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """A cluster of node processes, whose head does no work."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    machines = Machines(shutdown_at_exit=False)  # its hooks would be for the main thread alone
    machine(machines, cpus=0)
    yield machines
    machines.shutdown()


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def ended(pid: int) -> bool:
    """Whether a process does no more, even if nobody has collected its exit status."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def assert_nothing_made_twice(run: Path) -> None:
    made = re.findall(r"  made +(.+), seed", (run / "log.txt").read_text())
    assert made and len(made) == len(set(made))


@pytest.mark.parametrize(("held", "new_machine"), [("fits", False), ("videos", True)])
def test_what_a_removed_machine_held_is_done_on_another_one(
    held: str,
    new_machine: bool,
    adapter: Path,
    local: Path,
    machines: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one of the cluster, or one that joins it when none is left."""
    monkeypatch.setitem(PRESETS, "tiny", QUICK)
    nodes = [machine(machines, cpus=1) for _ in range(1 if new_machine else 2)]
    claim = tmp_path / "claim"

    def remove_holder() -> None:
        wait_for(claim.exists)
        node, process = claim.read_text().split()
        machines.remove_node(next(one for one in nodes if one.node_id == node), allow_graceful=False)
        wait_for(lambda: ended(int(process)))
        if new_machine:
            machine(machines, cpus=1)

    remover = Thread(target=remove_holder)
    remover.start()
    workers = Workers(("cpu",), holding(adapter, held, claim), Cluster(machines.address, len(nodes)))
    outcome = session(tmp_path / "run", tiny_backbone(refadapter=adapter), workers=workers, cases=THREE_CASES)
    remover.join()
    assert outcome.failed == () and outcome.made == outcome.scored
    assert_same_runs(local, tmp_path / "run")
    assert_nothing_made_twice(tmp_path / "run")


def inside(folder: Path) -> list[psutil.Process]:
    """Processes that work in a folder: a command that was started there, its workers and its own cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            found += [process] if process.cwd() == str(folder) else []
        except psutil.Error:
            pass
    return found


@pytest.mark.parametrize("own", [True, False], ids=["a cluster of its own", "a cluster that stays"])
def test_a_killed_command_leaves_nobody_at_work_and_goes_on_when_it_is_started_again(
    own: bool, adapter: Path, local: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = []
    if not own:
        machines = request.getfixturevalue("machines")
        machine(machines, cpus=2)
        address = [machines.address]
    out, claim, environment = tmp_path / "run", tmp_path / "claim", os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.harm.harmed_run", "run", out, adapter, claim, *address]
    killed = subprocess.Popen(command, cwd=tmp_path, env=environment)
    wait_for(lambda: claim.exists() and any((out / "records").glob("*/*.json")))
    there = [one for one in inside(tmp_path) if "Agent" not in one.name()]  # Ray's agents stay minutes, without work
    assert any("_Worker" in process.name() for process in there)
    killed.kill()
    killed.wait()
    begun = time.monotonic()
    again = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    _, alive = psutil.wait_procs(there, timeout=60)
    print(f"{len(there)} processes ended within {time.monotonic() - begun:.1f} s")
    said, _ = again.communicate(timeout=WITHIN_S)
    assert not [process.name() for process in alive if not ended(process.pid)]
    assert again.returncode == 0 and said.endswith(" 0 failed\n")
    assert_same_runs(local, out)
    assert_nothing_made_twice(out)


def allowed() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not allowed(), reason="this user may not make a control group of its own (unshare)")
def test_a_video_that_takes_too_much_memory_fails_alone(adapter: Path, local: Path, tmp_path: Path) -> None:
    out, hungry = tmp_path / "run", THREE_CASES[1].case_id
    command = [*ALONE, sys.executable, "-m", "tests.support.harm.harmed_run", "memory", out, adapter]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, expected = (pd.read_parquet(folder / "samples.parquet") for folder in (out, local))
    failed = (rows["method"] == "i2v") & (rows["case_id"] == hungry)
    assert (rows["status"] == "failed").equals(failed)
    (said,) = rows.loc[failed, "error"]
    assert said.startswith("3 workers were lost over it; the last one: ") and "running low on memory" in said
    pd.testing.assert_frame_equal(
        rows[~failed].drop(columns=MEASURED), expected[~failed].drop(columns=MEASURED), check_dtype=False
    )  # a column of whole numbers with a gap holds floats
    assert_nothing_made_twice(out)
