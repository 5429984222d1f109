"""Runs the small suite on Ray clusters whose workers, machines or memory come to harm.

    python -m tests.support.harm.harmed_run run OUT ADAPTER CLAIM [ADDRESS]

runs it on two workers, of a cluster of its own or of the one at ADDRESS. The first worker that is about to put a fit in
place writes the file CLAIM and waits for its end.

    unshare --user --map-root-user --mount python -m tests.support.harm.harmed_run memory OUT ADAPTER

runs it on one worker with limited memory, which one video exceeds. The limit is that of a control group which only this
process and its children see; a thread here writes down what they take.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import ray

from benchmark.planning.methods import METHODS
from benchmark.stages.session import Workers
from benchmark.workers.pool import Cluster
from flexiact.backbone.backbone import Backbone
from flexiact.method import PRESETS
from flexiact.task import Action, ActionTransfer, Request, Video
from metrics.perception import Perception
from tests.support.backbones import tiny_backbone
from tests.support.harm.killed_run import loading
from tests.support.harness import QUICK, session, small_case

THREE_CASES = tuple(small_case(number=number) for number in (1, 2, 3))
TOO_MUCH = THREE_CASES[1].prompt
"""Prompt of the video that takes too much memory."""
LIMIT_BYTES, _MOST_BYTES, _STEP_BYTES = 2 * 2**30, 4 * 2**30, 2**25


def holding(adapter: Path, folder: str, claim: Path) -> partial:
    """What `loading` gives, but the first worker that is about to put a file into a folder of the run never does.

    It writes its node and process into the file `claim`.
    """
    return partial(_load_and_hold, adapter, folder, claim)


def _load_and_hold(adapter: Path, folder: str, claim: Path, device: str) -> tuple[Backbone, Perception]:
    rename = os.replace

    def hold(source, target, *rest, **options):
        if Path(target).parent.parent.name == folder and not claim.exists():
            mine = claim.with_name(f"{claim.name}-{os.getpid()}")
            mine.write_text(f"{ray.get_runtime_context().get_node_id()} {os.getpid()}")
            with suppress(FileExistsError):
                os.link(mine, claim)
                time.sleep(600)
        rename(source, target, *rest, **options)

    os.replace = hold
    return loading(adapter)(device)


def _load_hungry(adapter: Path, device: str) -> tuple[Backbone, Perception]:
    entry = METHODS["i2v"]
    METHODS["i2v"] = replace(entry, build=lambda backbone: _hungry(entry.build(backbone)))
    return loading(adapter)(device)


def _hungry(method: ActionTransfer) -> ActionTransfer:
    transfer, held = method.transfer, []

    def eat_first(action: Action, request: Request) -> Video:
        while request.prompt == TOO_MUCH and len(held) * _STEP_BYTES < _MOST_BYTES:
            held.append(b"x" * _STEP_BYTES)
            time.sleep(0.05)
        return transfer(action, request)

    method.transfer = eat_first
    return method


def _limit_memory() -> None:
    group = Path("/sys/fs/cgroup")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", group], check=True)
    (group / "memory.max").write_text(str(LIMIT_BYTES))
    (group / "memory.stat").write_text("inactive_file 0\nactive_file 0\n")
    (group / "memory.current").write_text("0")
    threading.Thread(target=_keep_account, args=(group / "memory.current",), daemon=True).start()


def _keep_account(file: Path) -> None:
    """Write down every tenth of a second what workers take."""
    new, here = file.with_suffix(".new"), psutil.Process()
    while True:
        taken = 0
        for process in here.children(recursive=True):
            with suppress(psutil.Error):
                taken += process.memory_info().rss if process.name().startswith("ray::_Worker") else 0
        new.write_text(str(taken))
        new.rename(file)
        time.sleep(0.1)


def main() -> None:
    what, out, adapter, *rest = sys.argv[1:]
    PRESETS["tiny"] = QUICK
    if what == "memory":
        _limit_memory()
        load, cluster = partial(_load_hungry, Path(adapter)), Cluster(None, 1)
    else:
        claim, *address = rest
        load, cluster = holding(Path(adapter), "fits", Path(claim)), Cluster(address[0] if address else None, 2)
    workers = Workers(("cpu",), load, cluster)
    outcome = session(Path(out), tiny_backbone(refadapter=Path(adapter)), workers=workers, cases=THREE_CASES)
    print(f"{outcome.made} made, {outcome.scored} scored, {len(outcome.failed)} failed")


if __name__ == "__main__":
    from tests.support.harm.harmed_run import main as main_of_module

    main_of_module()  # Ray would send functions of `__main__` with copies of the tables that they change
