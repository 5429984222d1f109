"""Gather the rows of a run into samples.parquet and scores.parquet."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.planning.plan import Cell
from benchmark.store.folder import RunFolder
from benchmark.store.schema.rows import FEATURES_VERSION, SampleRow, ScoreRow, StoredScore, columns_of
from benchmark.store.videos import DamagedVideo, read_stored

TABLES = ("samples.parquet", "scores.parquet")
Stored = tuple[SampleRow, dict[str, dict[str, Any]]]
"""What is stored of a cell: its row, whose status is "missing" if it is to be made, and its scores by metric."""

_ARROW = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64()}
_CELLS_AT_ONCE = 1_000  # what is in memory: some 20 MiB with the scores of all metrics


def write_tables(
    folder: RunFolder, run: Mapping[str, Any], cells: Iterable[Cell], look: Callable[[Cell], Stored] | None = None
) -> None:
    """Write both tables; a table that would not change is left alone.

    Args:
        folder: Run directory to read records and scores from and to write tables to.
        run: Content of run.json. Rows are in the order of its methods, then by case, seed and fit seed.
        cells: Cells of the whole run; one without a record is `missing` in the table.
        look: Function that reads what is stored of a cell; None: `stored`.
    """
    samples, scores = (folder.path / name for name in TABLES)
    look = look or partial(stored, folder, run)
    with folder.replacing(samples, keeps_equal=True) as one, folder.replacing(scores, keeps_equal=True) as other:
        gather(run, cells, look, one, other)
        for path in (samples, scores):
            if path.is_file() and not _sound_table(path):
                folder.damaged(path)


def gather(
    run: Mapping[str, Any], cells: Iterable[Cell], look: Callable[[Cell], Stored], samples: Path, scores: Path
) -> None:
    """Write both tables to these paths; other arguments as for `write_tables`. Only a part of the rows is in memory."""
    order = {method: i for i, method in enumerate(run["methods"])}
    in_order = iter(sorted(cells, key=lambda cell: (order[cell.method], cell.case_id, cell.seed, cell.fit_seed)))
    with _table(SampleRow, samples) as write_samples, _table(ScoreRow, scores) as write_scores:
        while part := list(islice(in_order, _CELLS_AT_ONCE)):
            rows, values = list[SampleRow](), list[ScoreRow]()
            for cell in part:
                row, found = look(cell)
                rows.append(row)
                values += _score_rows(row, _current(run["metrics"], found))
            write_samples(rows)
            write_scores(values)


@contextmanager
def _table(kind: type, path: Path) -> Iterator[Callable[[Iterable[SampleRow | ScoreRow]], None]]:
    """Function that adds rows to a table, as a row group of their own."""
    schema = pa.schema([_field(name, column) for name, column in columns_of(kind).items()])
    with path.open("wb") as file, pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema))


def _sound_table(path: Path) -> bool:
    """Return True if a table can be read and its checksums hold."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as table:
            for _ in table.iter_batches():
                pass
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


def stored(folder: RunFolder, run: Mapping[str, Any], cell: Cell, sound: bool = False) -> Stored:
    """Read what is stored of a cell; if `sound`, a video that was changed counts as missing (see `sound_row`)."""
    row = (sound_row if sound else sample_row)(folder, cell)
    if row is None:
        backbone = run["backbone"]
        row = missing_row(cell, run["methods"][cell.method]["version"], backbone["name"], backbone["revision"])
    return row, stored_scores(folder, row)


def sample_rows(folder: RunFolder, cells: Iterable[Cell]) -> Iterator[SampleRow]:
    """Read the rows of all cells that were already made, one after the other."""
    return (row for cell in cells if (row := sample_row(folder, cell)))


def sample_row(folder: RunFolder, cell: Cell) -> SampleRow | None:
    """Stored row of a cell; None if the cell was not made yet or its video is gone."""
    record = folder.read_json("records", cell.key)
    if record is None:
        return None
    # Bounds do not depend on the seed: the row belongs to the cell that asks for it.
    # Keys are the plan's: a record from elsewhere could name a file outside of the directory.
    try:
        row = SampleRow(**(record | _said_by(cell)))
    except ValueError:  # the row does not match the present schema
        return None
    return None if row.status == "ok" and not _has_video(folder, cell, row) else row


def _has_video(folder: RunFolder, cell: Cell, row: SampleRow) -> bool:
    """Return True if the video of a row is there and has its size."""
    path = folder.file("videos", f"{cell.key}.mkv")
    if row.video != folder.relative(path) or not path.is_file():
        return False
    if row.video_bytes not in (None, path.stat().st_size):  # rows of older runs do not know the size
        folder.damaged(path)
        return False
    return True


def sound_row(folder: RunFolder, cell: Cell) -> SampleRow | None:
    """Stored row of a cell, as `sample_row`; None also if its video was changed since the row was written.

    Only a video that is newer than its row is read, because reading all videos at every start would take hours on a
    large run. A change that leaves the time alone is found when the video is read to be measured, and by
    `python -m benchmark.verify`.
    """
    row = sample_row(folder, cell)
    return row if row and (row.status != "ok" or _unchanged(folder, row)) else None


def _unchanged(folder: RunFolder, row: SampleRow) -> bool:
    assert row.video is not None
    path, record = folder.path / row.video, folder.file("records", f"{row.key}.json")
    written = path.stat().st_mtime_ns
    if written <= record.stat().st_mtime_ns:
        return True
    try:
        read_stored(path, row)
    except DamagedVideo:
        folder.damaged(path)
        return False
    # A folder copied without its times is read once, not at every start; nor is one from before a clock was set back.
    os.utime(record, ns=(written, written))
    return True


def missing_row(cell: Cell, version: int, backbone: str, revision: str) -> SampleRow:
    """Row of a cell that was not made yet, so that readers of tables need not plan cells."""
    return SampleRow(
        **_said_by(cell),
        method_version=version,
        backbone=backbone,
        backbone_revision=revision,
        status="missing",
        origin="submitted" if cell.kind == "submission" else "made",
    )


def _said_by(cell: Cell) -> dict[str, Any]:
    """Columns of a row that are a cell's."""
    return {name: getattr(cell, name) for name in ("key", "fit_key", "method", "case_id", "seed", "fit_seed")}


def score_rows(folder: RunFolder, metrics: Mapping[str, Any], row: SampleRow) -> list[ScoreRow]:
    """Stored scores of a video as it is now, for the metrics and versions that run.json names."""
    return _score_rows(row, current_scores(folder, metrics, row))


def current_scores(folder: RunFolder, metrics: Mapping[str, Any], row: SampleRow) -> dict[str, dict[str, Any]]:
    """Stored scores of a video as it is now, by metric, in the versions and by the judges that run.json names."""
    return _current(metrics, stored_scores(folder, row))


def _current(metrics: Mapping[str, Any], scores: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    said = {name: (metric["version"], metric["backend"]) for name, metric in metrics.items() if name in scores}
    return {name: scores[name] for name in said if (scores[name]["version"], scores[name]["backend"]) == said[name]}


def _score_rows(row: SampleRow, scores: Mapping[str, dict[str, Any]]) -> list[ScoreRow]:
    return [
        ScoreRow(
            key=row.key,
            method=row.method,
            case_id=row.case_id,
            seed=row.seed,
            metric=name,
            metric_version=found["version"],
            status=found["status"],
            value=found["value"],
            backend=found["backend"],
            error=found["error"],
        )
        for name, found in scores.items()
    ]


def stored_scores(folder: RunFolder, row: SampleRow) -> dict[str, dict[str, Any]]:
    """Scores of a video as it is now, by metric; {} if there are none, or their file is not of the contract's form."""
    content = folder.read_json("scores", row.key) or {}
    if (content.get("video_digest"), content.get("features_version")) != (row.video_digest, FEATURES_VERSION):
        return {}
    metrics = content.get("metrics")
    if isinstance(metrics, dict) and all(map(_is_score, metrics.values())):
        return metrics
    folder.damaged(folder.file("scores", f"{row.key}.json"))
    return {}


def write_scores(folder: RunFolder, row: SampleRow, metrics: Mapping[str, Any]) -> None:
    """Store the scores of a video as it is now, by metric."""
    content = {"video_digest": row.video_digest, "features_version": FEATURES_VERSION, "metrics": dict(metrics)}
    folder.write_json("scores", row.key, content)


def _is_score(entry: Any) -> bool:
    """True for an entry as `StoredScore` describes it; without its model, since a run may have a million."""
    if not isinstance(entry, dict) or entry.keys() != StoredScore.model_fields.keys():
        return False
    value = entry["value"]
    number = type(value) in (int, float) and abs(value) <= sys.float_info.max
    return (
        (number if entry["status"] == "ok" else value is None and entry["status"] in ("failed", "skipped"))
        and type(entry["version"]) is int
        and isinstance(entry["backend"], str)
        and isinstance(entry["error"], str | None)
    )


def _field(name: str, column: Mapping[str, Any]) -> pa.Field:
    json_type = column.get("type") or column["anyOf"][0]["type"]  # the second type is null
    said = {word: column[word] for word in ("description", "unit") if word in column}
    return pa.field(name, _ARROW[json_type], metadata=said)
