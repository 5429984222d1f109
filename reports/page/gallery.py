"""The gallery's content: each case with its words, its filters and its cells."""

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from reports.page.frames import FrameSheet
from reports.page.lead import TRUTHS
from reports.results import Results
from reports.videos import first_seed, inside
from reports.wording import count, label, number

INPUT_WORDS = {"reference": "the action", "target": "the subject"}


def cases(
    results: Results, sheets: Mapping[str, FrameSheet], base: str | None, only: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The cases that have frames, with all names or only some.

    `base` is the path from the page to the run directory, to link videos; None: nothing is linked.
    """
    scores, samples = _headline_scores(results), first_seed(results.run)
    truth = next((name for name in TRUTHS if name in results.bound_order), None)
    others = [name for name in results.order + results.bound_order if name != truth]
    names = list(only) or ["reference", "target", *([truth] if truth else []), *others]
    made = []
    for case_id, sheet in sheets.items():
        case, cells = results.run.info["cases"][case_id], []
        for name in names:
            sample = samples.get((name, case_id))
            score = scores.get((name, case_id))
            cells.append(_cell(results, name, sheet, sample, score) | {"truth": name == truth})
            cells[-1]["link"] = _link(results, base, case_id, name, sample)
        made.append({"case_id": case_id, "words": _words(results, case), "sheet": sheet, "cells": cells})
    return made


def _cell(
    results: Results, name: str, sheet: FrameSheet, sample: dict[str, Any] | None, score: float | None
) -> dict[str, Any]:
    """A cell: where its frames are and what is said of them, or the reason why there are none."""
    kind = results.run.info["methods"][name]["kind"] if name in results.run.info["methods"] else "input"
    text = INPUT_WORDS.get(name) or (number(score) if score is not None else f"no {label(results.run.headline)}")
    if name not in sheet.places:
        text = sheet.reasons[name]
        if sample is not None and sample["status"] != "ok":
            text = f"{sample['status']}: {' '.join(str(sample['error'] or '').split()) or 'no reason stored'}"
    return {"name": name, "kind": kind, "text": text, "place": sheet.places.get(name)}


def _link(results: Results, base: str | None, case_id: str, name: str, sample: dict[str, Any] | None) -> str:
    """Path from the page to what a cell shows, at full size; empty if there is none."""
    files = {"reference": f"inputs/{case_id}/reference.mp4", "target": f"inputs/{case_id}/target.png"}
    relative = files.get(name) or (_preview(str(sample["video"])) if sample is not None else "")
    if base is None or inside(results.run, relative) is None:
        return ""
    return quote(f"{base}/{relative}".replace(os.sep, "/"))


def _preview(video: str) -> str:
    """Path in the run directory of the copy of a video that browsers play."""
    return f"previews/{video.removeprefix('videos/').removesuffix('.mkv')}.mp4"


def marks(results: Results) -> dict[str, dict[str, str]]:
    """Attributes by which filters know a case's elements, by case."""
    run = results.run
    broken = set(run.samples.loc[run.samples["status"].isin(("failed", "skipped")), "case_id"])
    return {
        case_id: {"data-case": case_id, "data-action": str(case.get("action") or "")}
        | {f"data-{axis}": str(case["terciles"].get(axis) or "") for axis in run.axes}
        | {"data-failed": "yes" if case_id in broken else ""}
        for case_id, case in run.info["cases"].items()
    }


def filters(results: Results) -> list[tuple[str, list[str]]]:
    """Name and values of each filter of cases that tells any two of them apart."""
    found = marks(results).values()
    values = {
        name: list(dict.fromkeys(mark[f"data-{name}"] for mark in found)) for name in ("action", *results.run.axes)
    }
    order = {"near": 0, "middle": 1, "far": 2}
    return [
        (name, sorted(filter(None, said), key=lambda value: (order.get(value, 9), value)))
        for name, said in values.items()
        if len(said) > 1
    ]


def _words(results: Results, case: Mapping[str, Any]) -> list[tuple[str, str]]:
    axes = ", ".join(f"{axis} {_axis(case, axis)}" for axis in results.run.axes if axis in case["terciles"])
    words = [("action", case.get("action", "")), ("prompt", case.get("prompt", "")), ("apart in", axes)]
    return [(name, str(value)) for name, value in words if value]


def _axis(case: Mapping[str, Any], axis: str) -> str:
    value = case.get("axes", {}).get(axis)
    if not isinstance(value, int | float):
        return str(case["terciles"][axis])
    amount = f"{value:.0f}°" if axis == "viewpoint" else f"{value:.2f}"
    return f"{case['terciles'][axis]} ({amount})"


def _headline_scores(results: Results) -> dict[tuple[str, str], float]:
    run, rows = results.run, results.rows
    mine = run.at_first_seeds(rows[rows["metric"] == run.headline]).dropna(subset=["value"])
    return {(row["method"], row["case_id"]): float(row["value"]) for row in mine.to_dict("records")}


def note(results: Results, shown: int) -> str:
    """Sentences on the selection of cases, so that nobody suspects that the best were chosen."""
    run, total = results.run, len(results.run.info["cases"])
    seeds = f"seed {run.seeds[0]}" + "".join(f" and fit seed {seed}" for seed in run.fit_seeds[:1])
    which = f"{shown} of {count(total, 'case')}, evenly spaced in the list whatever their scores"
    said = f"{'Every case' if shown >= total else which}, at {seeds}."
    return f"{said} The number below a video is its own {label(run.headline)}."
