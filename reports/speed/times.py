"""Make the page of `benchmark.speed`: read its stored JSON, and write tables (`.md`) and a plot (`.png`) next to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexiact.terminal.cli import one_line
from reports.run_folder import check_fields
from reports.speed.plot import write_plot
from reports.tables.cells import Cell, Number, Table
from reports.tables.formats import markdown_table
from reports.wording import NOTHING, count, duration, gib, label, seconds

SCHEMA_VERSION = 1
"""Version of the JSON's layout."""

_FIELDS = ("device", "model", "environment", "run", "comparisons")
_ENVIRONMENT_FIELDS = ("threads", "clock", "python", "packages")
_COMPARISON_FIELDS = ("command", "code", "title", "setting", "rivals", "variants", "left_out")
_VARIANT_FIELDS = ("seconds", "ratios", "peak_gib", "figures", "rounds_s")
_SPREAD_FIELDS = ("median", "low", "high")


def load_speed(path: Path) -> dict[str, Any]:
    """Read and check the stored JSON of `benchmark.speed`.

    Raises:
        ValueError: If it is not readable, has another schema version, or lacks a field; the message names the field.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: not readable as JSON ({one_line(error)})") from error
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path.name}: schema_version {version!r}, this code reads {SCHEMA_VERSION}")
    check_fields(stored, _FIELDS, path.name)
    check_fields(stored["environment"], _ENVIRONMENT_FIELDS, f"{path.name}: environment")
    for name, comparison in stored["comparisons"].items():
        check_fields(comparison, _COMPARISON_FIELDS, f"{path.name}: {name}")
        for way, variant in comparison["variants"].items():
            check_fields(variant, _VARIANT_FIELDS, f"{path.name}: {name}: {way}")
            for spread in (variant["seconds"], *variant["ratios"].values()):
                check_fields(spread, _SPREAD_FIELDS, f"{path.name}: {name}: {way}")
    return dict(stored)


def write_page(path: Path) -> str:
    """Write the tables and the plot of a stored JSON next to it; return the tables in Markdown.

    Raises:
        ValueError: If the JSON cannot be read.
        OSError: If the page cannot be written.
    """
    stored = load_speed(path)
    picture = path.with_suffix(".png")
    drawn = write_plot(stored, picture)
    runs = [found for file in sorted(path.parent.glob("*.json")) if (found := load_speed(file)["run"])]
    text = markdown(stored, runs, picture.name if drawn else None)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def markdown(stored: Mapping[str, Any], runs: list[dict[str, Any]], picture: str | None) -> str:
    """All tables of one device, with a table of whole runs on every device."""
    origin = stored["environment"]
    threads = count(origin["threads"], "thread")
    versions = ", ".join(f"{name} {origin['packages'][name]}" for name in ("torch", "diffusers", "peft"))
    parts = [
        f"# Speed on {stored['device']}: {stored['model']}",
        f"{threads}, {origin['clock']}, {versions}, Python {origin['python']}. Ways to do the same run in turn in one "
        "process, warmed up; a ratio is the median of those inside the rounds, in brackets their quartiles; below 1 is "
        "faster. Memory is a GPU's: what was allocated at most beyond weights and inputs.",
    ]
    parts += [f"![The ratios of the tables below, on a log axis]({picture})"] if picture else []
    parts += [markdown_table(comparison_table(item)) for item in stored["comparisons"].values()]
    parts += [markdown_table(runs_table(runs))] if runs else []
    commands = dict.fromkeys(item["command"] for item in stored["comparisons"].values())
    return "\n\n".join([*parts, *(f"    {command}" for command in commands)]) + "\n"


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """A table with a row per variant and a column per rival."""
    variants, rivals = comparison["variants"], comparison["rivals"]
    figures = list(dict.fromkeys(name for variant in variants.values() for name in variant["figures"]))
    memory = any(variant["peak_gib"] is not None for variant in variants.values())
    rows = []
    for name, variant in variants.items():
        ratios = [_ratio(variant["ratios"].get(rival)) for rival in rivals]
        peak = [_gib(variant["peak_gib"])] if memory else []
        extra = [_figure(figure, variant["figures"].get(figure)) for figure in figures]
        rows.append((name, Number(variant["seconds"]["median"], write=duration), *ratios, *peak, *extra))
    columns = ("", "median", *(f"× {rival}" for rival in rivals), *(["memory"] if memory else []))
    labels = (label(name.removesuffix("_s")) for name in figures)
    rounds = max((len(variant["rounds_s"]) for variant in variants.values()), default=0)
    note = f"{comparison['setting']}. {count(rounds, 'round')}."
    note += "".join(f" Left out: {name} ({reason})." for name, reason in comparison["left_out"].items())
    return Table(comparison["title"], (*columns, *labels), tuple(rows), note)


def runs_table(runs: list[dict[str, Any]]) -> Table:
    """A table of finished runs, one row each."""
    rows = tuple(
        (
            f"{run['device']}, {count(run['threads'], 'thread')}",
            f"{run['suite']} on {run['backbone']}",
            f"{run['videos']} by {count(run['methods'], 'method')}",
            f"{seconds(run['fit_s'])} in {count(run['fits'], 'fit')}",
            Number(run["transfer_s"], write=seconds),
            Number(run["videos_per_s"]),
        )
        for run in runs
    )
    columns = ("device", "suite", "videos", "fits", "transfers", "videos per second")
    return Table("Whole runs", columns, rows, "Fits and transfers; making inputs and measuring left out.")


def _ratio(spread: Mapping[str, float] | None) -> Cell:
    return Number(spread["median"], spread["low"], spread["high"], "{:.2f}".format) if spread else NOTHING


def _gib(value: float | None) -> Cell:
    return NOTHING if value is None else Number(value, write=gib)


def _figure(name: str, value: float | None) -> Cell:
    if value is None:
        return NOTHING
    return Number(value, write=duration) if name.endswith("_s") else Number(value)
