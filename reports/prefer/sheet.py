"""Write the sheet: one HTML file with all its frames, without a network, and without a method's name."""

import io
from base64 import b64encode
from pathlib import Path

import numpy as np
from PIL import Image

from reports.page import document
from reports.page.frames import FrameSheet, Gallery, composed
from reports.prefer.pairs import Trial, sheet_digest
from reports.run_folder import RunError, StoredRun
from reports.videos import first_seed, pictures, reduced

HERE = Path(__file__).parent
QUESTIONS = {
    "motion": "Which does the action of the reference better?",
    "appearance": "Which looks more like the subject of the target?",
}
"""Questions that are asked of each pair, by the name that votes carry."""

CHOICES = ("left", "same", "right")
WORDS = {"reference": "the action", "target": "the subject", "left": "", "right": ""}


def render_sheet(run: StoredRun, trials: tuple[Trial, ...]) -> str:
    """The sheet as HTML.

    Raises:
        RunError: If a video of a trial cannot be read.
    """
    frames = [_frames(run, trial) for trial in trials]
    style, script = _text("style.css", document.HERE) + _text("sheet.css"), _text("gallery.js", document.HERE)
    script += _text("votes.js")
    backbone, moments = run.info["backbone"], max(sheet.moments for sheet in frames)
    shown = [
        {"case_id": f"pair {number}", "sheet": sheet, "cells": [_cell(sheet, name) for name in WORDS]}
        for number, sheet in enumerate(frames, start=1)
    ]
    return (
        document.environment(HERE, document.HERE)
        .get_template("sheet.html")
        .render(
            policy=document.policy(style, script, images="data:"),
            style=style,
            script=script,
            digest=sheet_digest(run, trials),
            moments=moments,
            moments_per_s=backbone["fps"] * moments / backbone["num_frames"],
            questions=QUESTIONS,
            choices=CHOICES,
            trials=shown,
        )
    )


def _cell(sheet: FrameSheet, name: str) -> dict[str, object]:
    """A cell as `reports/page/parts.html` reads it."""
    shown = {"name": name, "text": WORDS[name], "place": sheet.places[name]}
    return shown | {"kind": "input", "truth": False, "link": ""}


def _text(name: str, folder: Path = HERE) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _frames(run: StoredRun, trial: Trial) -> FrameSheet:
    """Reference, target and both videos in one embedded picture."""
    settings, samples = Gallery(), first_seed(run)
    places = np.linspace(0, 1, min(settings.moments, int(run.info["backbone"]["num_frames"])))
    named = {"reference": "reference", "target": "target", "left": trial.left, "right": trial.right}
    made = {}
    for name, stored in named.items():
        found = pictures(run, samples, trial.case_id, stored, places)
        if isinstance(found, str):
            raise RunError(f"{run.folder}: case {trial.case_id}: {stored}: {found}")
        made[name] = reduced(found, settings.height_px)
    picture, _ = composed(made, {}, "")
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=settings.quality, method=4)
    return composed(made, {}, f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}")[1]
