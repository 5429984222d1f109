"""Render the page, and give its script and style a Content-Security-Policy by which nothing else can run.

Whatever a run stores, names and prompts included, is text: the template engine escapes it, the script never reads it as
HTML, and the policy refuses any script, style or connection that this module did not write.
"""

import hashlib
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.page import gallery, lead
from reports.page.frames import FrameSheet
from reports.page.provenance import flattened, provenance
from reports.results import Results, cautions, checks
from reports.tables import boards, sections
from reports.tables.cells import Cell, Interval, Number, Share, shortened
from reports.tables.formats import CASES, FAULTS, cell_text, halves
from reports.wording import backbone_size, label, made_elsewhere, measured, scope, subject, suite_name, title

HERE = Path(__file__).parent
OPEN_CASES = 1
"""Number of cases that are unfolded when the page opens."""


@dataclass(frozen=True)
class Beside:
    """Files that lie beside the page.

    Attributes:
        folder: Path to the page's folder.
        figures: Alternative text of each plot in `figures/` by name.
        frames: Frames of each shown case.
        sheet_cases: Number of cases in `contact_sheet.png`; 0 if there is no sheet.
        linked: True to link the run's videos; otherwise the page works without the run directory.
    """

    folder: Path
    figures: Mapping[str, str]
    frames: Mapping[str, FrameSheet]
    sheet_cases: int
    linked: bool


def render(results: Results, beside: Beside) -> str:
    """The page as HTML."""
    run, counts = results.run, results.counts
    style, *scripts = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "tables.js", "gallery.js"))
    script = "\n".join(scripts)
    template = environment(HERE).get_template("page.html")
    return template.render(
        policy=policy(style, script),
        style=style,
        script=script,
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
        axes=run.axes,
        checks=checks(results),
        cautions=cautions(results),
        entries=[(name, run.info["methods"][name]) for name in results.order + results.bound_order],
        published=sections.published_table(),
        provenance=flattened(provenance(run.info)),
        **_first_screen(results, beside),
        **_tables(results),
        **_gallery(results, beside),
    )


def _first_screen(results: Results, beside: Beside) -> dict[str, object]:
    found = lead.strip(results, beside.frames)
    shown = None
    if found:
        case, names = found
        shown = gallery.cases(results, {case: beside.frames[case]}, _base(results, beside), names)[0]
    return {"answers": lead.answers(results), "methods": boards.methods_table(results), "strip": shown}


def _tables(results: Results) -> dict[str, object]:
    return {
        "bounds": boards.bounds_table(results),
        "metric_boards": boards.metric_tables(results),
        "case_board": shortened(boards.cases_table(results), CASES),
        "claims": sections.claims_table(results.claims, results.run) if results.claims else None,
        "belief": sections.belief_table(results),
        "terciles": sections.tercile_tables(results),
        "costs": sections.cost_table(results),
        "metrics": sections.metrics_table(results),
        "faults": shortened(sections.faults_table(results), FAULTS),
        "card": sections.card_table(results.run),
    }


def _gallery(results: Results, beside: Beside) -> dict[str, object]:
    moments = max((sheet.moments for sheet in beside.frames.values()), default=1)
    backbone = results.run.info["backbone"]
    return {
        "figures": beside.figures,
        "sheet_cases": beside.sheet_cases,
        "gallery": gallery.cases(results, beside.frames, _base(results, beside)),
        "gallery_note": gallery.note(results, len(beside.frames)),
        "filters": gallery.filters(results),
        "marks": gallery.marks(results),
        "bound_names": results.bound_order,
        "open_cases": OPEN_CASES,
        "moments": moments,
        "moments_per_s": backbone["fps"] * moments / backbone["num_frames"],
    }


def _base(results: Results, beside: Beside) -> str | None:
    """Path from the page to the run directory; None without links."""
    return os.path.relpath(results.run.folder.resolve(), beside.folder.resolve()) if beside.linked else None


def policy(style: str, script: str, images: str = "'self' file:") -> str:
    """A Content-Security-Policy that allows one style, one script, and pictures from `images`."""
    style_hash, script_hash = (
        f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (style, script)
    )
    # A page opened from disk has no origin, so that 'self' alone would allow it nothing.
    return (
        f"default-src 'none'; script-src {script_hash}; style-src {style_hash}; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )


def environment(*folders: Path) -> Environment:
    """The template engine of pages, which escapes whatever it is given."""
    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"halves": halves, "text": cell_text, "order": order}
    return made


def order(cell: Cell) -> str:
    """The number by which a cell is sorted; empty if it is text or has no number."""
    match cell:
        case Number() | Share():
            value = cell.value
        case Interval():
            value = cell.low
        case tuple():
            value = sum(part.value for part in cell)
        case int():
            value = cell
        case _:
            return ""
    return "" if value != value else repr(float(value))
