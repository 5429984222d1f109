"""Render the page: one static HTML file that works from disk, with plots, tables, gallery, failures and provenance."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from reports import boards, tables
from reports.contact_sheet import chosen_cases, first_seed, inside
from reports.formats import cell_text, halves
from reports.results import Results, cautions, checks
from reports.wording import (
    NOTHING,
    backbone_size,
    count,
    label,
    made_elsewhere,
    measured,
    number,
    scope,
    subject,
    suite_name,
    title,
)

GALLERY_CASES = 60
"""Largest number of cases in the gallery: a browser plays some hundreds of small videos at once, not thousands."""

OPEN_CASES = 3
"""Number of cases that are unfolded when the page opens."""


def render(results: Results, page_folder: Path, figures: Mapping[str, str], sheet_cases: int, videos: bool) -> str:
    """The page as HTML.

    Args:
        results: Results of a run.
        page_folder: Path to the page's folder; links to the run directory are relative to it.
        figures: Alternative text of each plot in `figures/` by name.
        sheet_cases: Number of cases in `contact_sheet.png` next to the page; 0 if there is no sheet.
        videos: True to link the run's videos; otherwise the page works without the run directory.
    """
    run, counts = results.run, results.counts
    return _template().render(
        title=title(run),
        subject=subject(run),
        made_elsewhere=made_elsewhere(run),
        size=backbone_size(run.info["backbone"]),
        suite=suite_name(run),
        backbone=run.info["backbone"],
        scope=scope(run),
        measured=measured(run, int(counts["planned"].sum()), int(counts["ok"].sum())),
        headline=label(run.headline),
        headline_summary=run.info["metrics"][run.headline]["summary"],
        checks=checks(results),
        cautions=cautions(results),
        entries=[(name, run.info["methods"][name]) for name in results.order + results.bound_order],
        boards=[boards.methods_table(results), boards.bounds_table(results), *boards.metric_tables(results)],
        claims=tables.claims_table(results.claims, run) if results.claims else None,
        belief=tables.belief_table(results),
        terciles=tables.tercile_tables(results),
        costs=tables.cost_table(results),
        metrics=tables.metrics_table(results),
        faults=tables.faults_table(results),
        published=tables.published_table(),
        figures=figures,
        sheet_note=_which_cases(results, sheet_cases) if sheet_cases else "",
        gallery=gallery(results, page_folder) if videos else [],
        gallery_note=_gallery_note(results) if videos else "",
        open_cases=OPEN_CASES,
        provenance=flattened(provenance(run.info)),
    )


def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"halves": halves, "text": cell_text}
    return environment.get_template("leaderboard.html")


def gallery(results: Results, page_folder: Path) -> list[dict[str, Any]]:
    """The gallery's content for each case: words, axes and media with captions."""
    run = results.run
    samples, scores = first_seed(run), _headline_scores(results)
    base = os.path.relpath(run.folder.resolve(), page_folder.resolve())
    shown = []
    for case_id in chosen_cases(run, GALLERY_CASES):
        case = run.info["cases"][case_id]
        media = [
            _medium(results, base, f"inputs/{case_id}/reference.mp4", "reference", "the action to transfer"),
            _medium(results, base, f"inputs/{case_id}/target.png", "target", "the subject to animate"),
        ]
        groups = [media, []]
        for group, names in zip(groups, (results.order, results.bound_order), strict=True):
            for name in names:
                group.append(_made(results, base, samples.get((name, case_id)), name, scores.get((name, case_id))))
        axes = [f"{axis} {_axis(case, axis)}" for axis in run.axes if axis in case["terciles"]]
        words = [("action", case.get("action", "")), ("prompt", case.get("prompt", "")), ("apart in", ", ".join(axes))]
        shown.append({"case_id": case_id, "words": [pair for pair in words if pair[1]], "groups": groups})
    return shown


def _axis(case: Mapping[str, Any], axis: str) -> str:
    value = case.get("axes", {}).get(axis)
    if not isinstance(value, int | float):
        return str(case["terciles"][axis])
    amount = f"{value:.0f}°" if axis == "viewpoint" else f"{value:.2f}"
    return f"{case['terciles'][axis]} ({amount})"


def _made(results: Results, base: str, sample: dict[str, Any] | None, name: str, score: float | None) -> dict[str, str]:
    """A method's or bound's cell: its preview, or the reason why there is none."""
    said = number(score) if score is not None else f"no {label(results.run.headline)}"
    if sample is None:
        return {"name": name, "kind": "gap", "text": "not run", "source": ""}
    if sample["status"] != "ok":
        error = " ".join(str(sample["error"] or "").split())
        return {"name": name, "kind": "gap", "text": f"{sample['status']}: {error or 'no reason stored'}", "source": ""}
    return _medium(results, base, f"previews/{sample['key']}.mp4", name, said)


def _medium(results: Results, base: str, relative: str, name: str, text: str) -> dict[str, str]:
    if inside(results.run, relative) is None:
        return {"name": name, "kind": "gap", "text": "file is missing", "source": ""}
    kind = "image" if relative.endswith(".png") else "video"
    return {"name": name, "kind": kind, "text": text, "source": quote(f"{base}/{relative}".replace(os.sep, "/"))}


def _headline_scores(results: Results) -> dict[tuple[str, str], float]:
    run, rows = results.run, results.rows
    mine = rows[(rows["metric"] == run.headline) & (rows["seed"] == run.seeds[0]) & rows["value"].notna()]
    return {(row["method"], row["case_id"]): float(row["value"]) for row in mine.to_dict("records")}


def _which_cases(results: Results, shown: int) -> str:
    """A sentence on the selection of cases, so that nobody suspects that the best were chosen."""
    total, seed = len(results.run.info["cases"]), results.run.seeds[0]
    if shown >= total:
        return f"Every case, at seed {seed}."
    return f"{shown} of {count(total, 'case')}, evenly spaced in the list whatever their scores, at seed {seed}."


def _gallery_note(results: Results) -> str:
    shown = _which_cases(results, GALLERY_CASES)
    return f"{shown} The number under a video is its own {label(results.run.headline)}."


def provenance(info: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance in run.json; cases, methods and metrics have their own tables."""
    names = [name for name in info if name not in ("cases", "methods", "metrics", "provenance")]
    configurations = {
        name: {
            kind: entry[kind]
            for kind in ("version", "fit_config", "transfer_config")
            if entry.get(kind) not in (None, {})
        }
        for name, entry in info["methods"].items()
        if entry["kind"] == "method"
    }
    return {name: info[name] for name in names} | dict(info.get("provenance") or {}) | {"methods": configurations}


def flattened(value: object, path: str = "") -> list[tuple[str, str]]:
    """Nested mappings as dotted names and texts."""
    if isinstance(value, Mapping) and value:
        return [
            row for name, inner in value.items() for row in flattened(inner, f"{path}.{name}" if path else str(name))
        ]
    if isinstance(value, list | tuple | np.ndarray):
        return [(path, ", ".join(map(str, value)) or NOTHING)]
    return [(path, NOTHING if value is None or value == {} else str(value))]
