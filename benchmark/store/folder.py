"""The run directory. Every file appears whole or not at all, so a run may be killed anywhere and started again.

`benchmark.store.schema` describes the files and their contents; docs/run-directory.md is generated from it.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmark.planning.job_shards import Shard
from benchmark.planning.selection import UsageError
from benchmark.store.lock import locked
from benchmark.store.log import LOG, append_event
from flexiact.media.files import WriteError, replacing
from flexiact.media.seals import sealed_json, unsealed_json
from flexiact.terminal.notes import note

SCHEMA_VERSION = 4
"""Version of everything that `benchmark.store.schema` describes."""

_FOLDERS = ("records", "videos", "previews", "fits", "features", "scores", "inputs")
_COPY = ".run.json.copy"
# Of a run or a merge that ended before run.json was there.
_OWN = (*_FOLDERS, LOG, "card.json", "samples.parquet", "scores.parquet")


class StoreError(OSError):
    """The run directory cannot be written to; the message is one line. Whatever writes there raises it."""


@contextmanager
def resumable_errors() -> Iterator[None]:
    """Add to a StoreError what to do about it."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{error}; once that is mended, the same command goes on from here") from error


class RunFolder:
    """Paths, atomic writes and reads of one run directory. Creating an instance touches nothing on disk.

    Args:
        path: Path to the run directory.
        mends: True to log and remove damaged files, so that they are made again; False only to read.
    """

    def __init__(self, path: Path, mends: bool = False) -> None:
        self.path = path
        self._mends = mends

    def check(self) -> None:
        """Check, before anything expensive, that a run can be stored here.

        Raises:
            UsageError: If the place cannot be written, or holds other files or a run of another schema version.
        """
        parent = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not parent.is_dir():
            raise UsageError(f"{parent}: is a file, not a folder for a run")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UsageError(f"{self.path}: cannot be written ({parent} is read-only)")
        if self.path.exists() and RunFolder(self.path).read_run() is None:  # which mends nothing
            foreign = sorted(p.name for p in self.path.iterdir() if p.name not in _OWN and p.name[0] != ".")
            if foreign:
                raise UsageError(f"{self.path}: holds '{foreign[0]}' but no run.json; choose another --out")

    def read_run(self) -> dict[str, Any] | None:
        """Read run.json; None if there is none yet.

        Raises:
            UsageError: If run.json is damaged or has another schema version.
        """
        path = self.path / "run.json"
        try:
            run = load_json(path)
        except (OSError, ValueError) as error:
            try:
                run = load_json(self.path / _COPY)
            except (OSError, ValueError):
                if isinstance(error, FileNotFoundError):
                    return None
                raise UsageError(f"{path}: cannot be read ({error})") from error
            if not isinstance(error, FileNotFoundError):
                self.damaged(path)
        version = run.get("schema_version") if isinstance(run, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path}: schema version {version!r}, this code writes {SCHEMA_VERSION}; choose another --out"
            )
        return run

    def described(self) -> dict[str, Any]:
        """Read run.json of a run that is there.

        Raises:
            UsageError: As for `read_run`, if there is no run, or if run.json breaks the contract.
        """
        from benchmark.store.schema.run_json import check_description

        run = self.read_run()
        if run is None:
            raise UsageError(f"{self.path}: has no run.json, so it is no run directory")
        try:
            check_description(run)
        except ValueError as error:
            raise UsageError(f"{self.path / 'run.json'}: {error}") from error
        return run

    @contextmanager
    def opened(self, shard: Shard | None = None) -> Iterator[None]:
        """Check and make the folder, lock it, and remove what a killed run left half-written.

        Args:
            shard: Part of the run that is done here; what other shards are writing is left alone.

        Raises:
            UsageError: If another run is at work here, if the folder cannot be made, or if `check` refuses it.
        """
        self.check()
        with ExitStack() as lock:
            try:
                for name in _FOLDERS:
                    (self.path / name).mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(self.path, shard))
            except OSError as error:
                raise UsageError(f"{self.path}: cannot be written ({error.strerror})") from error
            for partial in () if shard else self.path.glob("**/.*.partial"):
                partial.unlink(missing_ok=True)
            yield

    def file(self, folder: str, name: str) -> Path:
        """Path of a file in one of the folders above, or beside run.json if `folder` is empty.

        Its name begins with a key, whose first two digits name a subfolder: no folder holds a million files.
        """
        return self.path / folder / name[:2] / name if folder else self.path / name

    def files(self, folder: str, suffix: str) -> Iterator[Path]:
        """Paths of all files of a kind, sorted."""
        for part in sorted((self.path / folder).glob("[!.]*")):
            yield from sorted(part.glob(f"[!.]*{suffix}"))

    def room_for(self, path: Path) -> Path:
        """Make the folder of a file that is about to be written; return the file's path."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path

    def borrow(self, folder: str, names: Iterable[str], others: Sequence["RunFolder"]) -> None:
        """Copy files that are missing here from the first of some runs that has them, and log how many.

        The names must say all that the contents depend on. Whoever reads a copy finds out if it is damaged.
        """
        taken = Counter[Path]()
        for name in names:
            here = self.file(folder, name)
            for other in others if not here.is_file() else ():
                try:
                    content = other.file(folder, name).read_bytes()
                except OSError:  # it is made here instead
                    continue
                self.write_bytes(here, content)
                taken[other.path] += 1
                break
        for path, number in taken.items():
            self.log("borrows", f"{folder} of {path}: {number}")

    def relative(self, path: Path) -> str:
        """Path relative to the run directory, as tables store it."""
        return path.relative_to(self.path).as_posix()

    def read_json(self, folder: str, key: str) -> dict[str, Any] | None:
        """Read a stored object; None if it is missing or damaged (then it is made again).

        Raises:
            StoreError: If the file is there but cannot be read, which may pass: it is not taken for damage.
        """
        path = self.file(folder, f"{key}.json")
        try:
            value = load_json(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
        except ValueError:
            value = None
        if not isinstance(value, dict):
            self.damaged(path)
            return None
        return value

    def write_json(self, folder: str, key: str, value: Mapping[str, Any]) -> None:
        """Store an object."""
        self.write_bytes(self.file(folder, f"{key}.json"), _json_bytes(value))

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Store run.json and its hidden copy, unless they already say the same.

        The copy takes its place when it is damaged. No other file says which cells the run has.
        """
        for name in ("run.json", _COPY):
            self.write_bytes(self.path / name, _json_bytes(run))

    def damaged(self, path: Path) -> None:
        """Note, log and remove a file whose content is not what was written; do nothing if this folder is only read."""
        if self._mends:
            name = self.relative(path)
            note(name, "is damaged; it is made again")
            self.log("damaged", f"{name}: is made again")
            path.unlink(missing_ok=True)

    def log(self, event: str, text: str) -> None:
        """Append a line to the log."""
        try:
            append_event(self.path / LOG, event, text)
        except OSError as error:
            raise StoreError(f"{self.path / LOG}: cannot be written ({error.strerror or error})") from error

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Store a file, unless it already has this content.

        Raises:
            StoreError: If the file cannot be written; nothing is left behind then.
        """
        try:
            if path.is_file() and path.read_bytes() == content:
                return
        except OSError:
            pass
        with self.replacing(path) as partial:
            partial.write_bytes(content)

    @contextmanager
    def replacing(self, path: Path, keeps_equal: bool = False) -> Iterator[Path]:
        """Give a path to write to, as `flexiact.media.files.replacing` does."""
        self.room_for(path)
        try:
            with replacing(path, keeps_equal) as partial:
                yield partial
        except WriteError as error:
            cause = error.__cause__
            if isinstance(cause, StoreError):  # of another file, which this one is gathered from
                raise cause from cause.__cause__
            raise StoreError(str(error)) from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(sealed_json(value), indent=1, allow_nan=False) + "\n").encode()


def load_json(path: Path) -> Any:
    """Content of a JSON file without its seal.

    Raises:
        OSError: If it cannot be read (ValueError: if it is no JSON, or was changed since it was sealed).
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return unsealed_json(value) if isinstance(value, dict) else value
