"""Read what another tool says of videos: VBench's result files, or a table (CSV or Parquet).

A table has the columns of `COLUMNS`, a row for each video and metric. VBench's layout is
`{dimension: [total, [{"video_path": ..., "video_results": ...}, ...]]}` (vbench/__init__.py and the modules of the
dimensions, https://github.com/Vchitect/VBench at 45e79ec). Its files do not name who wrote them.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.planning.selection import UsageError
from flexiact.media.csv_files import TableError, by_heading, read_table
from flexiact.media.files import TEXT_LIMIT_MIB, limited_bytes
from flexiact.terminal.cli import one_line
from metrics import METRICS

COLUMNS = ("video", "metric", "value", "evaluator", "better", "low", "high")
"""Columns of a table: `better` is higher, lower or neither; `low` and `high` are the ends of the metric's scale."""

VBENCH = "vbench_"
"""Beginning of the names that VBench's dimensions get, since some of them are called as metrics of this suite are."""

OWN = "flexiact_"
"""Beginning of the names that this suite's metrics get in VBench's layout; no dimension of another tool may have it."""

_BETTER = {"higher": True, "lower": False, "neither": None}
_DESCRIBE_ONLY = ("dynamic_degree",)
_UP_TO_100 = ("imaging_quality",)  # the total is divided by 100, the values of videos are not
_UNREADABLE = (
    OSError, TableError, UnicodeDecodeError, json.JSONDecodeError, RecursionError, pa.ArrowException
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Meaning of a metric of another tool.

    Attributes:
        evaluator: Name and version of the tool; values of two evaluators are not comparable.
        higher_is_better: Better direction; None if the value describes.
        bounds: Smallest and largest possible value.
    """

    evaluator: str
    higher_is_better: bool | None
    bounds: tuple[float, float]

    def entry(self, name: str) -> dict[str, Any]:
        """Entry of the metric in run.json."""
        return {
            "version": 1,
            "unit": "",
            "higher_is_better": self.higher_is_better,
            "bounds": list(self.bounds),
            "needs": ["generated"],
            "summary": f"{name.removeprefix(VBENCH).replace('_', ' ')}, as {self.evaluator} says",
            "headline": False,
            "backend": self.evaluator,
        }


@dataclass(frozen=True)
class Answer:
    """One finite value of one video, named as the tool does; `where`, for messages, is the file and the place in it."""

    where: str
    video: str
    metric: str
    value: float
    scale: Scale


def read_answers(path: Path, evaluator: str | None) -> list[Answer]:
    """Read a file of answers.

    Args:
        path: Path to a file that ends in .json (VBench's), .csv or .parquet.
        evaluator: Name and version of the tool that wrote a JSON file; None for tables, which say it themselves.

    Raises:
        UsageError: If the file cannot be read, has another layout, or `evaluator` is missing or not needed.
    """
    kind = path.suffix.lower()
    if kind not in (".json", ".csv", ".parquet"):
        raise UsageError(f"{path}: expected a file that ends in .json, .csv or .parquet")
    if (kind == ".json") != (evaluator is not None):
        raise UsageError(
            f"{path}: "
            + ("does not say who wrote it: give --evaluator 'vbench VERSION'" if kind == ".json" else
               "says itself who measured, in its column evaluator: leave --evaluator out")
        )  # fmt: skip
    try:
        found = list(_of_vbench(path, evaluator) if evaluator else _of_table(path))
    except _UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from error
    if not found:
        raise UsageError(f"{path}: holds no value of a video")
    return found


def scales_of(answers: Iterable[Answer]) -> dict[str, Scale]:
    """Scale of each metric.

    Raises:
        UsageError: If a metric has two evaluators, directions or scales: its values would not be comparable.
    """
    found: dict[str, Scale] = {}
    for answer in answers:
        before = found.setdefault(answer.metric, answer.scale)
        if before != answer.scale:
            raise UsageError(
                f"{answer.where}: {answer.metric}: is measured by {_words(answer.scale)}, above it is by "
                f"{_words(before)}; their values are not comparable: give the metrics two names"
            )
    return found


def _words(scale: Scale) -> str:
    direction = {True: "higher is better", False: "lower is better", None: "neither is better"}
    return f"{scale.evaluator} ({scale.bounds[0]:g} to {scale.bounds[1]:g}, {direction[scale.higher_is_better]})"


def _of_vbench(path: Path, evaluator: str) -> Iterable[Answer]:
    content = json.loads(limited_bytes(path, TEXT_LIMIT_MIB))
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected an object of dimensions, as in VBench's *_eval_results.json")
    for dimension, found in content.items():
        where = f"{path}: {dimension}"
        if not (isinstance(found, list) and len(found) == 2 and isinstance(found[1], list)):
            raise UsageError(f"{where}: expected [total, [a result for each video, ...]]")
        better = None if dimension in _DESCRIBE_ONLY else True
        scale = Scale(evaluator, better, (0.0, 100.0 if dimension in _UP_TO_100 else 1.0))
        for number, row in enumerate(found[1], start=1):
            if not isinstance(row, dict) or not {"video_path", "video_results"} <= row.keys():
                raise UsageError(f"{where}: result {number} lacks video_path or video_results")
            video, value = str(row["video_path"]), row["video_results"]
            yield _checked(f"{where}: result {number}", video, VBENCH + dimension, value, scale)


def _of_table(path: Path) -> Iterable[Answer]:
    if path.suffix.lower() == ".csv":
        rows = [
            (number, dict(zip(COLUMNS, cells, strict=True)))
            for number, cells in by_heading(path, read_table(path, len(COLUMNS)), COLUMNS)
        ]
    else:
        table = pq.read_table(path, page_checksum_verification=True)
        absent = [name for name in COLUMNS if name not in table.column_names]
        if absent:
            raise UsageError(f"{path}: column {absent[0]} is missing; it needs {', '.join(COLUMNS)}")
        rows = list(enumerate(table.select(list(COLUMNS)).to_pylist(), start=1))
    for number, row in rows:
        where = f"{path}: line {number}"
        if not isinstance(row["better"], str) or row["better"] not in _BETTER:
            raise UsageError(f"{where}: better is {row['better']!r}, not higher, lower or neither")
        if not str(row["evaluator"] or "").strip():
            raise UsageError(f"{where}: evaluator is empty; write the tool's name and version")
        bounds = _number(where, "low", row["low"]), _number(where, "high", row["high"])
        scale = Scale(str(row["evaluator"]), _BETTER[row["better"]], bounds)
        yield _checked(where, str(row["video"]), str(row["metric"]), row["value"], scale)


def _checked(where: str, video: str, metric: str, value: object, scale: Scale) -> Answer:
    if not re.fullmatch("[a-z][a-z0-9_]{0,79}", metric):
        raise UsageError(f"{where}: metric {metric!r}: expected small letters, digits and _")
    if metric in METRICS or metric.startswith(f"{VBENCH}{OWN}"):
        raise UsageError(f"{where}: metric {metric}: is one of this suite's own; choose another name")
    found = _number(where, "value", value)
    low, high = scale.bounds
    if not low <= found <= high:
        raise UsageError(f"{where}: {metric}: {found:g} is outside its scale of {low:g} to {high:g}")
    return Answer(where, video, metric, found, scale)


def _number(where: str, name: str, value: object) -> float:
    """A finite number; true and false, which VBench writes for yes and no, are 1 and 0."""
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{where}: {name} is {value!r}, not a finite number")
    return found
