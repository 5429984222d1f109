"""From what a run describes to the cells it consists of, and each cell's keys. Pure: no file, no network, no clock.

A *fit key* holds what `fit` reads and a *sample key* what the video depends on. Variants of a method that differ only
at transfer therefore share fits, and a cell whose inputs changed has another key, so that old results are never taken
for its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.keys import key

BACKBONE_FIT_FIELDS = ("revision", "num_frames", "height", "width", "fps", "max_text_tokens", "dtype")
"""Of run.json's backbone entry: what a fit depends on."""

BACKBONE_SAMPLE_FIELDS = ("num_inference_steps", "guidance_scale")
"""What a transfer depends on besides."""


@dataclass(frozen=True)
class Cell:
    """One video to be made.

    Attributes:
        key: names the video.
        fit_key: names the fit it needs; None for bounds, which fit nothing.
        method: name of the method or bound.
        kind: "method" or "bound".
        case_id: Id of the case.
        seed: Seed of the fit and of the transfer.
    """

    key: str
    fit_key: str | None
    method: str
    kind: str
    case_id: str
    seed: int


def plan(run: Mapping[str, Any]) -> list[Cell]:
    """All cells of a run, those that share a fit next to each other.

    Args:
        run: run.json's fields `backbone`, `methods`, `cases`, `seeds`.

    Returns:
        Methods x cases x seeds, and bounds x cases at the first seed, at all seeds where the bound is sampled.

    Raises:
        ValueError: If two methods would make the same videos under two names.
    """
    cells = []
    for method, entry in run["methods"].items():
        for seed in run["seeds"] if _sampled(entry) else run["seeds"][:1]:
            for case_id, case in run["cases"].items():
                cells.append(_cell(run["backbone"], method, entry, case_id, case, seed))
    owners: dict[str, Cell] = {}
    for cell in cells:
        other = owners.setdefault(cell.key, cell)
        if other is not cell:
            raise ValueError(f"{_name(other)} and {_name(cell)} are the same video under two names")
    return _grouped(cells)


def asked_of(cells: Iterable[Cell], run: Mapping[str, Any]) -> list[Cell]:
    """Those of the cells that a run describes, which may be a part of the run that they are of.

    A bound that is one video for all seeds is there whichever seed it stands under.
    """
    methods, seeds = run["methods"], set(run["seeds"])
    return [
        cell
        for cell in cells
        if cell.method in methods
        and cell.case_id in run["cases"]
        and (cell.seed in seeds or not _sampled(methods[cell.method]))
    ]


def _sampled(entry: Mapping[str, Any]) -> bool:
    """Whether every seed gives another video."""
    return bool(entry["kind"] == "method" or entry["sampled"])


def _name(cell: Cell) -> str:
    return f"{cell.method} on {cell.case_id}"


def _cell(
    backbone: Mapping[str, Any], method: str, entry: Mapping[str, Any], case_id: str, case: Mapping[str, Any], seed: int
) -> Cell:
    if entry["kind"] == "bound":
        return Cell(_bound_key(backbone, method, entry, case, seed), None, method, "bound", case_id, seed)
    fit_key = key(
        "fit",
        {
            "method_id": entry["method_id"],
            "version": entry["version"],
            "config": entry["fit_config"],
            "backbone": {field: backbone[field] for field in BACKBONE_FIT_FIELDS},
            "reference": case["digests"]["reference"],
            "caption": case["caption"],
            "seed": seed,
        },
    )
    sample_key = key(
        "sample",
        {
            "fit": fit_key,
            "config": entry["transfer_config"],
            "backbone": {field: backbone[field] for field in BACKBONE_SAMPLE_FIELDS},
            "target": case["digests"]["target"],
            "prompt": case["prompt"],
            "seed": seed,
        },
    )
    return Cell(sample_key, fit_key, method, "method", case_id, seed)


def _bound_key(
    backbone: Mapping[str, Any], name: str, entry: Mapping[str, Any], case: Mapping[str, Any], seed: int
) -> str:
    depends = {
        "bound": name,
        "version": entry["version"],
        "config": entry["transfer_config"],
        "backbone": {field: backbone[field] for field in (*BACKBONE_FIT_FIELDS, *BACKBONE_SAMPLE_FIELDS)},
        "digests": case["digests"],
        "wrong_action": case.get("wrong_action"),  # cases of files have none
    }
    return key("bound", depends | ({"seed": seed} if entry["sampled"] else {}))


def _grouped(cells: list[Cell]) -> list[Cell]:
    """Cells in the order of first appearance, those of one fit pulled together; bounds first."""
    groups: dict[tuple[bool, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.kind == "method", cell.fit_key or cell.method), []).append(cell)
    return [cell for is_method in (False, True) for group in groups if group[0] is is_method for cell in groups[group]]
