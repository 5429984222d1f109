"""Runs the small suite in child processes that kill themselves at given writes, then once more to the end.

    python -m tests.support.harm.killed_run OUT WRITE [WRITE ...]

Each WRITE counts files that a child puts in place; it is killed (SIGKILL, as by `kill -9`) after writing the next one
and before moving it there, so that the half-written file stays behind. Prints how each child ended.

    python -m tests.support.harm.killed_run OUT --moments COUNT SEED

runs the suite once beside OUT, in OUT-whole, and then in OUT, in COUNT children that are killed at random moments
within half of the time that the first run took. A run that a child ends becomes OUT-NUMBER. A last child ends the last
run.

`dying` does the same to one of several workers.
"""

import os
import random
import signal
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

import benchmark.store.folder
import flexiact.media.video
from flexiact.backbone.backbone import Backbone
from flexiact.method import PRESETS
from metrics.perception import Perception
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harness import QUICK, session, small_perception


def kill_after(writes: int) -> None:
    """Let the process die in the middle of a write, whichever of the two writers makes it."""
    left = [writes]
    rename = os.replace

    def replace(source, target, *rest, **options):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        rename(source, target, *rest, **options)

    for module in (benchmark.store.folder, flexiact.media.video):
        module.os.replace = replace


@contextmanager
def child():
    """Yields True in a forked child, which never comes back, and False in the parent, which waits for it."""
    pid = os.fork()
    if pid == 0:
        yield True
        os._exit(0)
    yield False
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else f"ended with {os.waitstatus_to_exitcode(status)}", flush=True)


def loading(adapter: Path) -> partial:
    """How a worker process of the small suite loads what it needs; it changes the presets there for good."""
    return partial(_load, adapter)


def dying(adapter: Path, writes: int, claim: Path) -> partial:
    """The same, but the first worker that can make the file `claim` is killed after some writes."""
    return partial(_load_and_die, adapter, writes, claim)


def _load(adapter: Path, device: str) -> tuple[Backbone, Perception]:
    PRESETS["tiny"] = QUICK
    return tiny_backbone(refadapter=adapter), small_perception()


def _load_and_die(adapter: Path, writes: int, claim: Path, device: str) -> tuple[Backbone, Perception]:
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        kill_after(writes)
    return _load(adapter, device)


def kill_at_moments(out: Path, adapter: Path, count: int, seed: int) -> None:
    begun = time.monotonic()
    with child() as inside:
        if inside:
            session(out.with_name(f"{out.name}-whole"), tiny_backbone(refadapter=adapter))
    most_s, moments = (time.monotonic() - begun) / 2, random.Random(seed)
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            session(out, tiny_backbone(refadapter=adapter))
            os._exit(0)
        time.sleep(moments.uniform(0, most_s))
        if os.waitpid(pid, os.WNOHANG)[0]:  # the run is done; the next child begins another
            out.rename(out.with_name(f"{out.name}-{number}"))
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print("killed", flush=True)


def main() -> None:
    torch.set_num_threads(1)  # a fork must not inherit threads
    PRESETS["tiny"] = QUICK
    out = Path(sys.argv[1])
    adapter = save_tiny_refadapter(out.parent / f"{out.name}-refadapter", tiny_backbone())
    writes: list[int] = []
    if sys.argv[2:3] == ["--moments"]:
        kill_at_moments(out, adapter, *map(int, sys.argv[3:]))
    else:
        writes = [int(text) for text in sys.argv[2:]]
    for count in [*writes, None]:
        with child() as inside:
            if inside:
                if count is not None:
                    kill_after(count)
                session(out, tiny_backbone(refadapter=adapter))


if __name__ == "__main__":
    main()
