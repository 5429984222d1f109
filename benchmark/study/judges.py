"""Calibrate a judge: corrupted videos under names that say nothing, and the table of what it answered."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from benchmark.planning.selection import UsageError
from benchmark.study.corrupted import GRADES, TRUE_ANSWER, videos
from benchmark.study.corruptions import CORRUPTIONS, FOR_JUDGES, VERSION, WRONG_PROMPT
from benchmark.study.judge_answers import Answer
from benchmark.suites.case import Format
from benchmark.suites.puppets import PuppetCase, PuppetSuite
from flexiact.media.files import TEXT_LIMIT_MIB, limited_bytes, make_folder
from flexiact.media.image import write_png
from flexiact.media.video import write_lossless
from flexiact.puppets.world.clip import FPS, NUM_FRAMES, SIZE
from flexiact.terminal.cli import one_line
from flexiact.terminal.progress import counted
from reports.wording import count

NAMES = (*CORRUPTIONS, *FOR_JUDGES)
TABLE, MADE = "videos.csv", "study.json"
"""Files beside the videos: what belongs together, and what they were made from."""


def _numbered(suite: PuppetSuite) -> Iterator[tuple[str, PuppetCase, str, float]]:
    """Name, case, corruption and grade of every video, in the order in which they are made."""
    number = 0
    for case in suite.first_cases().values():
        for name, grade in [(TRUE_ANSWER, 0.0), *((name, grade) for name in NAMES for grade in GRADES)]:
            yield f"{number:05d}", case, name, grade
            number += 1


def export(suite: PuppetSuite, folder: Path, seed: int) -> Path:
    """Write all videos, references and targets, a table of what belongs together, and what they were made from.

    The table does not hold the answers.

    Returns:
        Path to the table, with columns video, reference, target and prompt.

    Raises:
        ValueError: If a file cannot be written, or the suite has no second prompt.
    """
    cases, prompts = suite.first_cases(), dict.fromkeys(case.prompt for case in suite.chosen(suite.case_ids))
    if len(prompts) < 2:
        raise UsageError(f"suite: {suite.name} has one prompt, so that {WRONG_PROMPT} cannot be made; choose another")
    make_folder("judge", folder)
    (folder / MADE).unlink(missing_ok=True)  # until all videos are those of this call
    for number, case in enumerate(cases.values()):
        shown = case.show(Format(NUM_FRAMES, SIZE, SIZE, FPS))
        write_lossless(folder / f"reference-{number:03d}.mkv", shown.reference)
        write_png(folder / f"target-{number:03d}.png", shown.target)
    places, named, rows = list(cases), list(_numbered(suite)), []
    for (name, case, corruption, _), (*_, video) in zip(
        counted(named, len(named), "judge"), videos(cases, NAMES, seed), strict=True
    ):
        write_lossless(folder / f"{name}.mkv", video)
        place = places.index(case.case_id)
        prompt = case.prompt
        if corruption == WRONG_PROMPT:
            prompt = next(other for other in prompts if other != case.prompt)
        rows.append([f"{name}.mkv", f"reference-{place:03d}.mkv", f"target-{place:03d}.png", prompt])
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["video", "reference", "target", "prompt"], *rows])
    (folder / MADE).write_text(json.dumps(_made_from(suite, seed), indent=1) + "\n", encoding="utf-8")
    return folder / TABLE


def exported_seed(suite: PuppetSuite, folder: Path) -> int:
    """Seed with which the videos in a folder of `export` were made.

    Raises:
        UsageError: If the folder does not say it, or its videos are of another suite or other corruptions.
    """
    path = folder / MADE
    try:
        made = dict(json.loads(limited_bytes(path, TEXT_LIMIT_MIB)))
        expected = _made_from(suite, int(made["seed"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"judge: {path} does not say what the videos were made from ({one_line(error)})") from error
    for name, value in expected.items():
        if made.get(name) != value:
            raise UsageError(f"judge: {folder} holds videos of {name} {made.get(name)}, not {value}; write them anew")
    return int(expected["seed"])


def _made_from(suite: PuppetSuite, seed: int) -> dict[str, Any]:
    """Facts that decide the content and the numbers of the videos."""
    facts = {"suite": suite.name, "suite_digest": suite.digest, "corruptions_version": VERSION, "corruptions": NAMES}
    return dict(json.loads(json.dumps({**facts, "grades": GRADES, "seed": seed})))


def answered(suite: PuppetSuite, answers: Sequence[Answer]) -> pd.DataFrame:
    """Values of a judge's metrics, in the columns of `benchmark.study.corrupted.measured`.

    Raises:
        UsageError: If an answer is of no video of the study, or a metric lacks a video or has one twice.
    """
    known = {name: (case, corruption, grade) for name, case, corruption, grade in _numbered(suite)}
    rows: dict[tuple[str, str], tuple[object, ...]] = {}
    for answer in answers:
        name = PurePosixPath(answer.video.replace("\\", "/")).stem
        if name not in known:
            raise UsageError(f"{answer.where}: {answer.video} is no video of this study of suite {suite.name}")
        if (answer.metric, name) in rows:
            raise UsageError(f"{answer.where}: {answer.video} has a value of {answer.metric} already")
        case, corruption, grade = known[name]
        rows[answer.metric, name] = (case.case_id, case.reference_id, corruption, grade, answer.metric, answer.value)
    metrics = dict.fromkeys(metric for metric, _ in rows)
    for metric in metrics:
        _check_all(metric, (name for name in known if (metric, name) not in rows))
    columns = ["case_id", "reference_id", "corruption", "grade", "metric", "value"]
    return pd.DataFrame([rows[metric, name] for metric in metrics for name in known], columns=columns)


def _check_all(metric: str, absent: Iterable[str]) -> None:
    names = list(absent)
    if names:
        said = count(len(names), "video of the study has", "videos of the study have")
        raise UsageError(f"{metric}: {said} no answer, the first is {names[0]}.mkv")
