"""Check every digest of a run directory, for `python -m benchmark.verify`; nothing is changed."""

import filecmp
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.planning.plan import plan
from benchmark.store.folder import RunFolder, load_json
from benchmark.store.gather import TABLES, gather, stored
from benchmark.store.schema.rows import SampleRow
from benchmark.store.videos import DamagedVideo, read_stored
from flexiact.media.seals import check_tensors
from flexiact.terminal.cli import one_line


@dataclass(frozen=True)
class Checked:
    """The result of one file.

    Attributes:
        kind: Folder of the file, or "tables", "run.json" or "card.json".
        fault: One line saying what is wrong; empty if the file is sound.
    """

    kind: str
    path: Path
    fault: str = ""


def audit(folder: RunFolder) -> Iterator[Checked]:
    """Check the seals of JSON and tensors, and the frames of all videos that have a record."""
    yield _checked("run.json", folder.path / "run.json", _check_json)
    for path in folder.path.glob("card.json"):
        yield _checked("card.json", path, _check_json)
    for kind in ("records", "scores"):
        for path in folder.files(kind, ".json"):
            yield _checked(kind, path, _check_json)
    for kind in ("fits", "features"):
        for path in folder.files(kind, ".safetensors"):
            yield _checked(kind, path, lambda path: check_tensors(path.read_bytes()))
    for path in folder.files("records", ".json"):
        yield from _video(folder, path.stem)


def audit_tables(folder: RunFolder, run: dict[str, Any]) -> Iterator[Checked]:
    """Compare the tables with what the records say; meant for a run at which nobody works."""
    with tempfile.TemporaryDirectory() as place:
        fresh = [Path(place, name) for name in TABLES]
        gather(run, plan(run), partial(stored, folder, run), *fresh)
        for name, path in zip(TABLES, fresh, strict=True):
            kept = folder.path / name
            same = kept.is_file() and _same(kept, path)
            yield Checked("tables", kept, "" if same else "is not what the records say; a run gathers it again")


def _same(kept: Path, fresh: Path) -> bool:
    """Compare two tables by their rows; words in which columns are described may be of other versions."""
    if filecmp.cmp(kept, fresh, shallow=False):
        return True
    try:
        return bool(pq.read_table(kept).equals(pq.read_table(fresh)))
    except (OSError, pa.ArrowException):
        return False


def _video(folder: RunFolder, key: str) -> Iterator[Checked]:
    """The video of a record; nothing where the record is damaged or has none."""
    try:
        row = SampleRow(**(folder.read_json("records", key) or {}))
    except (TypeError, ValueError):
        return
    path = folder.file("videos", f"{key}.mkv")
    if row.status != "ok":
        return
    if row.video != folder.relative(path):
        yield Checked("records", folder.file("records", f"{key}.json"), "names a video that is not its own")
        return
    try:
        read_stored(path, row)
        yield Checked("videos", path)
    except DamagedVideo as error:
        yield Checked("videos", path, str(error).removeprefix(f"{path}: ").removeprefix(f"{row.video}: "))


def _checked(kind: str, path: Path, check: Callable[[Path], object]) -> Checked:
    try:
        check(path)
    except (OSError, ValueError) as error:
        return Checked(kind, path, one_line(error))
    return Checked(kind, path)


def _check_json(path: Path) -> None:
    if not isinstance(load_json(path), dict):
        raise ValueError("it is no object")
