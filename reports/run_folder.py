"""Read a run directory: run.json, samples.parquet and scores.parquet, checked before anything is counted."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flexiact.terminal.cli import one_line


class RunError(ValueError):
    """A run directory that cannot be reported; the message is one line and names file and field."""


SCHEMA_VERSION = 4
"""The layout of run directories that these reports understand."""

AXES = ("layout", "viewpoint", "skeleton", "pose")
TERCILES = ("near", "middle", "far")
KINDS = ("method", "submission", "bound")
STATUSES = ("ok", "failed", "skipped", "missing")

SAMPLE_COLUMNS = (
    "key fit_key method method_version case_id seed status error video fit_s transfer_s peak_memory_gib action_mib"
).split()
SUBMITTED_COLUMNS = ["resize_rule", "changed"]
"""Columns that runs with submitted videos have in addition."""
SCORE_COLUMNS = "key method case_id seed metric metric_version status value backend".split()

_RUN_FIELDS = ("suite", "seeds", "backbone", "methods", "metrics", "cases")
_BACKBONE_FIELDS = ("name", "num_parameters", "num_frames", "height", "width", "fps")
_METHOD_FIELDS = ("kind", "version", "summary", "extra_supervision")
_METRIC_FIELDS = ("version", "unit", "higher_is_better", "bounds", "headline", "summary", "backend")
_CARD_FIELDS = ("sampled_by", "scored_by", "methods", "evaluators")
_COST_FIELDS = ("videos", "absent", "fits", "fit_s", "transfer_s", "submitted")
_CASE_FIELDS = ("reference_id", "target_id", "terciles")


@dataclass(frozen=True, eq=False)
class StoredRun:
    """One run as stored.

    Attributes:
        samples: One row per planned video, made or missing, SAMPLE_COLUMNS and fit_seed at least.
        scores: One row per video and metric, SCORE_COLUMNS at least.
        notes: Sentences on rows that were left out while reading, for the reader of the report.
        card: Parts of card.json, which says who made and measured the videos; () without one.
    """

    folder: Path
    info: dict[str, Any]
    samples: pd.DataFrame
    scores: pd.DataFrame
    notes: tuple[str, ...]
    card: tuple[dict[str, Any], ...] = ()

    @property
    def methods(self) -> list[str]:
        """Names of the methods that compete, submitted ones included, in run.json's order."""
        return [name for name, entry in self.info["methods"].items() if entry["kind"] != "bound"]

    @property
    def submissions(self) -> list[str]:
        """Names of the methods whose videos were made elsewhere, in run.json's order."""
        return [name for name, entry in self.info["methods"].items() if entry["kind"] == "submission"]

    @property
    def bounds(self) -> list[str]:
        """Names of the floors and ceilings, in run.json's order."""
        return [name for name, entry in self.info["methods"].items() if entry["kind"] == "bound"]

    @property
    def headline(self) -> str:
        """Name of the metric that sorts the leaderboard: the flagged one, otherwise the first of the run."""
        metrics = self.info["metrics"]
        return next((name for name, entry in metrics.items() if entry["headline"]), next(iter(metrics)))

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, headline first, then in run.json's order."""
        return [self.headline, *(name for name in self.info["metrics"] if name != self.headline)]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names in `AXES` for which some case states its distance; all of `AXES` if no case states any."""
        said = {axis for case in self.info["cases"].values() for axis in case["terciles"]}
        return tuple(axis for axis in AXES if axis in said or not said)

    @property
    def truth_known(self) -> bool:
        """True if the right answers of the cases are known: they are for puppets, but not for real material."""
        return bool((self.info.get("truth") or {}).get("known", True))

    @property
    def seeds(self) -> list[int]:
        """The seeds of transfers."""
        return [int(seed) for seed in self.info["seeds"]]

    @property
    def fit_seeds(self) -> list[int]:
        """The seeds of fits, each with every seed of `seeds`; [] where a fit took the seed of its transfer."""
        return [int(seed) for seed in self.info.get("fit_seeds") or ()]

    def at_first_seeds(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of each method at the first seed, and at the first seed of the fit if there are several."""
        first = rows[rows["seed"] == self.seeds[0]]
        return first[first["fit_seed"] == first.groupby("method")["fit_seed"].transform("min")]


def load_run(folder: Path) -> StoredRun:
    """Read and check a run directory.

    Raises:
        RunError: If a file is missing or unreadable, of another schema version, or contradicts itself.
    """
    info = load_info(folder / "run.json")
    submitted = any(entry["kind"] == "submission" for entry in info["methods"].values())
    samples = _load_table(folder / "samples.parquet", SAMPLE_COLUMNS + SUBMITTED_COLUMNS * submitted)
    if "fit_seed" not in samples:  # of older runs, whose fits took the seed of their video
        samples["fit_seed"] = samples["seed"]
    scores = _load_table(folder / "scores.parquet", SCORE_COLUMNS)
    notes: list[str] = []
    samples = _described(samples, info, ("method", "case_id"), "videos", notes)
    # A video of another version counts as not made.
    samples["status"] = samples["status"].where(_current(samples, info["methods"], "method", notes), "missing")
    scores = _described(scores, info, ("method", "case_id", "metric"), "scores", notes)
    scores = scores[_current(scores, info["metrics"], "metric", notes)].reset_index(drop=True)
    _check_unique(samples, ("method", "case_id", "seed", "fit_seed"), "samples.parquet")
    _check_unique(scores, ("method", "case_id", "metric", "key"), "scores.parquet")
    if not any(entry["headline"] for entry in info["metrics"].values()):
        notes.append("The headline metric was not measured in this run; the first metric stands in its place.")
    return StoredRun(folder, info, samples, scores, tuple(notes), _load_card(folder / "card.json"))


def _load_card(path: Path) -> tuple[dict[str, Any], ...]:
    if not path.is_file():
        return ()
    try:
        parts = list(json.loads(path.read_text(encoding="utf-8"))["parts"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunError(f"{path}: not readable as a card ({one_line(error)})") from error
    for number, part in enumerate(parts, start=1):
        where = f"{path}: part {number}"
        check_fields(part, _CARD_FIELDS, where)
        check_fields(part["methods"], (), f"{where}: methods")
        for name, cost in part["methods"].items():
            check_fields(cost, _COST_FIELDS, f"{where}: methods: {name}")
    return tuple(parts)


def load_info(path: Path) -> dict[str, Any]:
    """Read and check run.json.

    Raises:
        RunError: If it is missing or unreadable, of another schema version, or contradicts itself.
    """
    if not path.parent.is_dir():
        raise RunError(f"{path.parent}: no such run directory")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: missing, so this is no run directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not readable as JSON ({one_line(error)})") from error
    if not isinstance(info, dict):
        raise RunError(f"{path}: expected an object, got {type(info).__name__}")
    version = info.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path}: schema_version {version!r}, but these reports read {SCHEMA_VERSION}: "
            "report the run with the code that made it, or run again"
        )
    _check_info(info, path)
    return info


def _check_info(info: dict[str, Any], path: Path) -> None:
    check_fields(info, _RUN_FIELDS, str(path))
    check_fields(info["backbone"], _BACKBONE_FIELDS, f"{path}: backbone")
    for table, fields in (("methods", _METHOD_FIELDS), ("metrics", _METRIC_FIELDS), ("cases", _CASE_FIELDS)):
        if not isinstance(info[table], dict) or not info[table]:
            raise RunError(f"{path}: {table}: expected at least one entry")
        for name, entry in info[table].items():
            check_fields(entry, fields, f"{path}: {table}.{name}")
    for name, entry in info["methods"].items():
        if entry["kind"] not in KINDS:
            raise RunError(f"{path}: methods.{name}.kind: expected {', '.join(KINDS)}, got {entry['kind']!r}")
    seeds = info["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) for seed in seeds):
        raise RunError(f"{path}: seeds: expected a list of integers, got {seeds!r}")


def check_fields(entry: object, fields: Iterable[str], where: str) -> None:
    """Refuse an entry that is not an object with all of the fields.

    Raises:
        RunError: If the entry is no object or lacks a field; the message names `where` and the field.
    """
    if not isinstance(entry, dict):
        raise RunError(f"{where}: expected an object, got {type(entry).__name__}")
    for field in fields:
        if field not in entry:
            raise RunError(f"{where}.{field}: missing")


def _load_table(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise RunError(f"{path}: missing; run the benchmark to its end first")
    try:
        table = pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        raise RunError(f"{path}: not readable as Parquet ({one_line(error)})") from error
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise RunError(f"{path}: column {absent[0]} is missing")
    strange = sorted(set(table["status"]) - set(STATUSES))
    if strange:
        raise RunError(f"{path}: status {strange[0]!r} is none of {', '.join(STATUSES)}")
    return table.reset_index(drop=True)


def _described(
    table: pd.DataFrame, info: dict[str, Any], columns: tuple[str, ...], what: str, notes: list[str]
) -> pd.DataFrame:
    """Keep the rows whose names run.json describes, because a number that nobody can explain is not shown."""
    for column in columns:
        known = table[column].isin(list(info[column.removesuffix("_id") + "s"]))
        if not known.all():
            names = ", ".join(sorted(table.loc[~known, column].astype(str).unique())[:5])
            notes.append(f"{int((~known).sum())} stored {what} were left out: run.json describes no {column} {names}.")
            table = table[known]
    return table.reset_index(drop=True)


def _current(table: pd.DataFrame, entries: dict[str, Any], column: str, notes: list[str]) -> pd.Series:
    """True for rows made by the version that run.json states: other versions mean other numbers."""
    stated = table[column].map({name: entry["version"] for name, entry in entries.items()})
    current = table[f"{column}_version"] == stated
    if not current.all():
        names = ", ".join(sorted(table.loc[~current, column].unique()))
        notes.append(f"{int((~current).sum())} rows of another {column} version were left out ({names}).")
    return current


def _check_unique(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    repeated = table[table.duplicated(list(columns))]
    if len(repeated):
        first = ", ".join(f"{column} {repeated.iloc[0][column]}" for column in columns)
        raise RunError(f"{name}: more than one row for {first}")


def score_backends(run: StoredRun) -> dict[str, list[str]]:
    """Backends of each metric as named in the score rows; numbers of different backends are not comparable."""
    rows = run.scores.dropna(subset=["backend"])
    found = rows.groupby("metric")["backend"].unique()
    stated = {name: str(entry["backend"]) for name, entry in run.info["metrics"].items()}
    return {name: sorted(map(str, found.get(name, [stated[name]]))) for name in run.metrics}
