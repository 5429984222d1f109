"""Runs the small suite on a disk of its own that is full, or that cannot be written, and prints what is said.

    unshare --user --map-root-user --mount python -m tests.support.harm.faulty_disk FOLDER full|read-only

The disk is a tmpfs over FOLDER/disk, which only this process sees and which ends with it. On a full one the suite is
run on growing disks, then with room, and compared with a run that always had room.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch

from benchmark.console.run_progress import Progress
from benchmark.status import status_page
from flexiact.backbone.backbone import Backbone
from flexiact.method import PRESETS
from flexiact.terminal.cli import OneLineParser, run
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harness import QUICK, assert_same_runs, session, tree

SHARES = (0.05, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
"""Sizes of the disk, as shares of what a whole run takes there."""


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def said(work: Callable[[], object]) -> str:
    """Exit code and messages of work that is done as a command does its own; notes are left out."""
    with redirect_stderr(StringIO()) as errors:
        code = run(OneLineParser(), lambda options: work() and None, [])
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith("note: ")]
    return " | ".join([str(code), *lines])


def size_kib(folder: Path) -> int:
    return int(subprocess.run(["du", "-sk", folder], check=True, capture_output=True, text=True).stdout.split()[0])


def full(folder: Path, backbone: Backbone) -> None:
    disk, whole = folder / "disk", folder / "whole"
    mount("-t", "tmpfs", "tmpfs", disk)
    session(disk / "run", backbone)
    needed = size_kib(disk)
    session(whole, backbone)
    subprocess.run(["umount", disk], check=True)
    mount("-t", "tmpfs", "-o", f"size={int(SHARES[0] * needed)}k", "tmpfs", disk)
    for share in SHARES:
        mount("-o", f"remount,size={int(share * needed)}k", disk)
        kept = set(disk.glob("run/records/*/*.json"))
        print(said(lambda: session(disk / "run", backbone)))
        assert kept <= set(disk.glob("run/records/*/*.json")), "a finished video was lost"
        assert not list(disk.rglob("*.partial"))
    mount("-o", f"remount,size={2 * needed}k", disk)
    print(said(lambda: session(disk / "run", backbone)))
    assert_same_runs(disk / "run", whole)
    print("equal to a run that had room")


def read_only(folder: Path, backbone: Backbone) -> None:
    disk = folder / "disk"
    mount("-t", "tmpfs", "tmpfs", disk)
    done, heard = Progress.done, 0
    records = disk / "run" / "records"

    def then_protected(self: Progress, kind: str, seconds: float) -> None:
        nonlocal heard
        done(self, kind, seconds)
        heard += 1
        if heard == 3:  # a disk with errors becomes read-only in the middle of a run
            mount("--bind", records, records)
            mount("-o", "remount,ro,bind", records)

    Progress.done = then_protected  # type: ignore[method-assign]
    print(said(lambda: session(disk / "run", backbone)))
    Progress.done = done  # type: ignore[method-assign]
    subprocess.run(["umount", records], check=True)
    print(said(lambda: session(disk / "run", backbone)))
    mount("-o", "remount,ro", disk)
    before = tree(disk)
    print(said(lambda: session(disk / "run", backbone)))
    print(said(lambda: session(disk / "other", backbone)))
    print(status_page(disk / "run").splitlines()[1])
    assert tree(disk) == before


def main() -> None:
    torch.set_num_threads(1)
    PRESETS["tiny"] = QUICK
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    (folder / "disk").mkdir(parents=True)
    backbone = tiny_backbone(refadapter=save_tiny_refadapter(folder / "refadapter", tiny_backbone()))
    {"full": full, "read-only": read_only}[kind](folder, backbone)


if __name__ == "__main__":
    main()
