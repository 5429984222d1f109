"""The run directory. Every file appears whole or not at all, so a run may be killed anywhere and started again.

`benchmark.store.schema` describes the files and their contents; docs/run-directory.md is generated from it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.selection import UsageError
from flexiact.media.files import WriteError, replacing

SCHEMA_VERSION = 3
"""Version of everything that `benchmark.store.schema` describes."""

_FOLDERS = ("records", "videos", "previews", "fits", "features", "scores", "inputs")
_LOCK = ".lock"


class StoreError(OSError):
    """The run directory cannot be written to; the message is one line."""


class RunFolder:
    """Paths, atomic writes and reads of one run directory. Creating an instance touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
        if self.path.exists() and self.read_run() is None:
            foreign = sorted(p.name for p in self.path.iterdir() if p.name not in _FOLDERS and p.name[0] != ".")
            if foreign:
                raise UsageError(f"{self.path}: holds '{foreign[0]}' but no run.json; choose another --out")

    def read_run(self) -> dict[str, Any] | None:
        """Read run.json; None if there is none yet.

        Raises:
            UsageError: If run.json is damaged or has another schema version.
        """
        path = self.path / "run.json"
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read ({error})") from error
        version = run.get("schema_version") if isinstance(run, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path}: schema version {version!r}, this code writes {SCHEMA_VERSION}; choose another --out"
            )
        return run

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Check and make the folder, lock it, and remove what a killed run left half-written.

        Raises:
            UsageError: If another run is at work here, if the folder cannot be made, or if `check` refuses it.
        """
        self.check()
        try:
            for name in _FOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
            lock = open(self.path / _LOCK, "w")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written ({error.strerror})") from error
        with lock:  # the kernel releases it however the process ends
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self.path}: another run is at work here") from None
            for partial in self.path.glob("**/.*.partial"):
                partial.unlink(missing_ok=True)
            yield

    def file(self, folder: str, name: str) -> Path:
        """Path of a file in one of the folders above."""
        return self.path / folder / name

    def relative(self, path: Path) -> str:
        """Path relative to the run directory, as tables store it."""
        return path.relative_to(self.path).as_posix()

    def read_json(self, folder: str, key: str) -> dict[str, Any] | None:
        """Read a stored object; None if it is missing or damaged (then it is made again)."""
        try:
            value = json.loads(self.file(folder, f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write_json(self, folder: str, key: str, value: Mapping[str, Any]) -> None:
        """Store an object.

        Raises:
            StoreError: If the object cannot be written.
        """
        self.write_bytes(self.file(folder, f"{key}.json"), _json_bytes(value))

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Store run.json, unless the file already says the same."""
        self.write_bytes(self.path / "run.json", _json_bytes(run))

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
    def replacing(self, path: Path) -> Iterator[Path]:
        """Give a temporary path to write to; move it to `path` if all went well, and remove it otherwise.

        Raises:
            StoreError: If the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                yield partial
        except WriteError as error:
            raise StoreError(str(error)) from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from error


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
