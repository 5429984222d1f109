"""Work for worker processes that shows what became of it; as a command, two of them and long work.

python -m tests.support.shared_work FOLDER waits|slow
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmark.planning.plan import Cell
from benchmark.stages.bench import Unit
from benchmark.store.folder import StoreError
from benchmark.workers.local import share_out
from benchmark.workers.stopping import Asked, until_asked


@dataclass
class Heard:
    """Keeps what it is told."""

    begun: list[str]
    finished: list[tuple[str, float]]

    def starts(self, what: str) -> None:
        self.begun.append(what)

    def done(self, kind: str, seconds: float) -> None:
        self.finished.append((kind, seconds))


@dataclass(frozen=True)
class Diary:
    """Stands where a bench would: does what a unit is called, and writes down who did it, where and in what order."""

    folder: Path
    device: str

    def work(self, unit: Unit, listener: Heard, asked: Asked = lambda: 0) -> None:
        if asked():
            return
        listener.starts(unit[0].method)
        number = len(list(self.folder.iterdir()))
        entry = f"{number} {os.getpid()} {self.device} {torch.get_num_threads()}"
        (self.folder / unit[0].key).write_text(entry)
        match unit[0].method:
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            case "dies once" if not (self.folder / f".{unit[0].key}").exists():
                (self.folder / f".{unit[0].key}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case "cannot write":
                raise StoreError("disk: full")
            case "waits":
                time.sleep(600)
            case "slow":
                time.sleep(0.3)
        listener.done("work", 1.5)


def opened(folder: Path) -> partial:
    """For `share_out`."""
    return partial(Diary, folder)


def never_opened(device: str) -> Diary:
    """For `share_out_on`: loads for ever."""
    time.sleep(600)
    raise AssertionError("nobody ended this worker")


def unit(method: str, name: str, size: int = 1) -> Unit:
    return tuple(Cell(f"{name}{i or ''}", name, method, "method", "case", 0, 0) for i in range(size))


def main() -> int:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    units = [unit(kind, f"u{i}") for i in range(2 if kind == "waits" else 200)]
    heard = Heard([], [])
    try:
        with until_asked() as asked:
            share_out(units, ("cpu", "cpu"), opened(folder), heard, asked)
    except KeyboardInterrupt:
        return 130
    print(len(heard.begun), len(heard.finished))
    return 128 + asked() if asked() else 0


if __name__ == "__main__":
    sys.exit(main())
