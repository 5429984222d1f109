"""A Ray cluster that loses a machine, its memory or the process that plans: the work is done, or given up in words."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmark.cluster import Cluster, share_out_on
from benchmark.session import Workers
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harness import assert_same_runs, quick_flexiact, session
from tests.support.killed_run import loading
from tests.support.quick_help import ROOT
from tests.support.shared_work import Heard, opened, unit

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DRIVER = """
import sys
from pathlib import Path
import torch
from benchmark.cluster import Cluster
from benchmark.session import Workers
from flexiact.method import PRESETS
from tests.support.backbones import tiny_backbone
from tests.support.harness import QUICK, session
from tests.support.killed_run import loading

out, adapter = map(Path, sys.argv[1:])
PRESETS["tiny"] = QUICK
session(out, tiny_backbone(refadapter=adapter), workers=Workers(("cpu",), loading(adapter), Cluster(None, 2)))
"""


@pytest.fixture
def nodes() -> Iterator[tuple[Any, Any]]:
    """Two machines of one core each, and the second of them."""
    from ray.cluster_utils import Cluster as Nodes

    cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster, second
    cluster.shutdown()


@dataclass
class Removing(Heard):
    """Takes a machine away when three units are done."""

    cluster: Any
    second: Any

    def done(self, kind: str, seconds: float) -> None:
        super().done(kind, seconds)
        if len(self.finished) == 3:
            self.cluster.remove_node(self.second, allow_graceful=False)


def test_work_of_a_machine_that_is_lost_goes_to_the_other(nodes, tmp_path: Path) -> None:
    cluster, second = nodes
    heard, given_up = Removing([], [], cluster, second), []
    units = [unit("slow", f"u{number}") for number in range(20)]
    share_out_on(Cluster(cluster.address, 2), units, opened(tmp_path), heard, lambda *said: given_up.append(said))
    assert len(heard.finished) == 20 and given_up == []
    entries = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(entries) == 20 and len({process for _, process, *_ in entries}) >= 2


def test_a_unit_that_eats_all_memory_is_given_up_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(memory.total - memory.available + 2**31) / memory.total:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    given_up = {}
    share_out_on(
        Cluster(None, 1, minutes=3.0),
        [unit("eats", "a")],
        opened(tmp_path),
        Heard([], []),
        lambda unit, reason: given_up.update({unit.cells[0].key: reason}),
    )
    assert list(given_up) == ["a"] and "memory" in given_up["a"] and "\n" not in given_up["a"]


def test_a_run_goes_on_after_the_process_that_plans_was_killed(tmp_path: Path, monkeypatch) -> None:
    adapter = save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())
    records = tmp_path / "run" / "records"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path / "run", adapter], cwd=ROOT, text=True)
    end = time.monotonic() + 900
    while len(list(records.glob("*.json"))) < 3 and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    family = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    made = {path.name: path.read_bytes() for path in records.glob("*.json")}
    assert len(made) >= 3
    assert not psutil.wait_procs(family, timeout=120)[1]  # workers end with the process that plans
    quick_flexiact(monkeypatch)
    before, tiny = torch.get_num_threads(), tiny_backbone(refadapter=adapter)
    torch.set_num_threads(1)
    try:
        session(tmp_path / "whole", tiny)
        session(tmp_path / "run", tiny, workers=Workers(("cpu",), loading(adapter), Cluster(None, 2)))
    finally:
        torch.set_num_threads(before)
    assert made.items() <= {path.name: path.read_bytes() for path in records.glob("*.json")}.items()
    assert_same_runs(tmp_path / "run", tmp_path / "whole")
    assert "processes: 2" in (tmp_path / "run" / "log.txt").read_text()
