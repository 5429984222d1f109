"""Gather the rows of a run into samples.parquet and scores.parquet."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.plan import Cell, plan
from benchmark.store.folder import RunFolder
from benchmark.store.rows import SampleRow, ScoreRow

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def write_tables(folder: RunFolder, run: Mapping[str, Any]) -> None:
    """Write both tables from what is stored; a table that would not change is left alone.

    Raises:
        StoreError: when they cannot be written.
    """
    cells = sorted_cells(run)
    samples = [sample_row(folder, cell) or _missing(run, cell) for cell in cells]
    scores = [row for cell in cells for row in score_rows(folder, run, cell)]
    for name, kind, rows in (("samples", SampleRow, samples), ("scores", ScoreRow, scores)):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema(kind)), buffer)
        folder.write_bytes(folder.path / f"{name}.parquet", buffer.getvalue())


def sorted_cells(run: Mapping[str, Any]) -> list[Cell]:
    """The run's cells in the order of the tables: methods as run.json lists them, then cases, then seeds."""
    order = {method: i for i, method in enumerate(run["methods"])}
    return sorted(plan(run), key=lambda cell: (order[cell.method], cell.case_id, cell.seed))


def sample_row(folder: RunFolder, cell: Cell) -> SampleRow | None:
    """The stored row of a cell, None when it was not made yet (or its video is gone)."""
    record = folder.read_json("records", cell.key)
    names = [field.name for field in fields(SampleRow)]
    if record is None or any(name not in record for name in names):
        return None
    if record["status"] == "ok" and not (folder.path / record["video"]).is_file():
        return None
    # Bounds do not depend on the seed: the row belongs to the cell that asks for it.
    cell_says = {"method": cell.method, "case_id": cell.case_id, "seed": cell.seed}
    return SampleRow(**({name: record[name] for name in names} | cell_says))


def _missing(run: Mapping[str, Any], cell: Cell) -> SampleRow:
    """The row of a cell that was not made yet: readers need not know how cells are planned."""
    return SampleRow(
        key=cell.key,
        fit_key=cell.fit_key,
        method=cell.method,
        method_version=run["methods"][cell.method]["version"],
        backbone=run["backbone"]["name"],
        backbone_revision=run["backbone"]["revision"],
        case_id=cell.case_id,
        seed=cell.seed,
        status="missing",
    )


def score_rows(folder: RunFolder, run: Mapping[str, Any], cell: Cell) -> list[ScoreRow]:
    """The stored scores of a cell, of the metrics and versions that the run names."""
    stored = (folder.read_json("scores", cell.key) or {}).get("metrics", {})
    rows = []
    for name, metric in run["metrics"].items():
        found = stored.get(name)
        if found and found["version"] == metric["version"] and found["backend"] == metric["backend"]:
            rows.append(
                ScoreRow(
                    key=cell.key,
                    method=cell.method,
                    case_id=cell.case_id,
                    seed=cell.seed,
                    metric=name,
                    metric_version=found["version"],
                    status=found["status"],
                    value=found["value"],
                    backend=found["backend"],
                    error=found["error"],
                )
            )
    return rows


def _schema(kind: type) -> pa.Schema:
    return pa.schema([pa.field(name, _arrow_type(hint)) for name, hint in get_type_hints(kind).items()])


def _arrow_type(hint: Any) -> pa.DataType:
    kinds: Iterable[Any] = [part for part in get_args(hint) or (hint,) if part is not NoneType]
    first = next(iter(kinds))
    return _ARROW[type(first) if isinstance(first, str) else first]
