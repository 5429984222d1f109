"""The locks of a run directory: one run at a time, or several shards of one run. Each names its holder.

The kernel holds the lock (`flock`), so it ends with its process. The holder's name stands in the file, for people, and
because some network file systems keep `flock` within one machine.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from benchmark.planning.job_shards import Shard
from benchmark.planning.selection import UsageError
from flexiact.terminal.notes import note

_WHOLE, _SHARDS, _DESCRIPTION = ".lock", ".shard-*", ".run.json.lock"


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        since: Time (UTC) at which it took the lock.
        started: Start of the process in ticks since the machine's start; tells it from a later one of the same id.
    """

    pid: int
    host: str
    since: str
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def lives(self) -> bool:
        """True if the process still runs, or ran on another machine, where nobody here can know."""
        return self.host != socket.gethostname() or (self.started != "" and _started(self.pid) == self.started)


def holders(folder: Path) -> dict[str, Holder]:
    """Holders that stand in the lock files of a run directory, by file name; dead ones included."""
    found = {path.name: _read(path) for path in [folder / _WHOLE, *sorted(folder.glob(_SHARDS))]}
    return {name: holder for name, holder in found.items() if holder}


@contextmanager
def locked(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Hold a run directory, alone or for a shard beside others.

    Raises:
        UsageError: If another process is at work on the same; the message names it.
        OSError: If a lock file cannot be written or locked.
    """
    with ExitStack() as stack:
        _take(stack, folder, folder / _WHOLE, fcntl.LOCK_SH if shard else fcntl.LOCK_EX)
        mine = folder / _WHOLE
        if shard:
            mine = folder / f".shard-{shard.index}-of-{shard.count}"
            _take(stack, folder, mine, fcntl.LOCK_EX)
        for path in [folder / _WHOLE, mine] if shard else [folder / _WHOLE, *folder.glob(_SHARDS)]:
            _take_over(path)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        mine.write_text(json.dumps(asdict(Holder(os.getpid(), socket.gethostname(), now, _started(os.getpid())))))
        try:
            yield
        finally:
            mine.write_text("")


@contextmanager
def describing(folder: Path) -> Iterator[None]:
    """Wait until no other shard reads, merges and writes run.json, and keep others waiting."""
    with open(folder / _DESCRIPTION, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _take(stack: ExitStack, folder: Path, path: Path, kind: int) -> None:
    file: TextIO = stack.enter_context(open(path, "a"))  # the kernel releases it however the process ends
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:  # any other error means that the file system has no locks
        at_work = [str(holder) for holder in holders(folder).values() if holder.lives]
        who = f": {at_work[0]}" if at_work else ""
        raise UsageError(f"{folder}: another run is at work here{who}") from None


def _take_over(path: Path) -> None:
    """Clear a lock whose holder died; refuse one whose holder may live where `flock` does not reach."""
    holder = _read(path)
    if holder is None:
        return
    if holder.lives:
        raise UsageError(f"{path.parent}: another run is at work here: {holder}; if it has ended, remove {path}")
    note(path, f"was left by {holder}, which has ended; it is taken over")
    path.write_text("")


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # empty when free; a half-written name is nobody's
        return None


def _started(pid: int) -> str:
    """Start of a process in ticks since the machine's start; empty if there is no such process."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, IndexError):
        return ""
