"""Measure every metric on corrupted true answers."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch

from benchmark.stages.scoring import Scorer, evaluated
from benchmark.store.folder import RunFolder
from benchmark.study.corruptions import CORRUPTIONS, Spoiled, spoiled_video
from benchmark.suites.case import Format, Stages
from benchmark.suites.puppets import PuppetCase, PuppetSuite
from benchmark.workers.load import load_judges
from flexiact.puppets.world.clip import FPS, NUM_FRAMES, SIZE
from flexiact.task import Video
from flexiact.terminal.progress import counted
from metrics import METRICS

GRADES = (0.25, 0.5, 0.75, 1.0)
"""Strengths of every corruption beside 0, the true answer."""

TRUE_ANSWER = "none"
"""Name in the column `corruption` of the rows of grade 0."""


def measured(suite: PuppetSuite, folder: Path, seed: int = 0) -> pd.DataFrame:
    """Values of all metrics on the true answer of each reference's first case and on its corruptions.

    The folder keeps features of videos: a second call reads them there.

    Returns:
        Columns case_id, reference_id, corruption, grade, metric, value; nan where a metric is undefined.

    Raises:
        CaseError: If a case is invalid.
        ValueError: If the judges cannot be loaded, or a metric fails; the message names metric and case.
    """
    cases = suite.first_cases()
    stages = Stages(cases, Format(NUM_FRAMES, SIZE, SIZE, FPS))
    scorer = Scorer(RunFolder(folder), stages, load_judges(None, torch.device("cpu")), METRICS)
    rows = []
    total = len(cases) * (1 + len(CORRUPTIONS) * len(GRADES))
    for case, name, grade, video in counted(videos(cases, tuple(CORRUPTIONS), seed), total, "study"):
        features = scorer.features(case.case_id, video)
        for metric in METRICS.values():
            found = evaluated(metric, features)
            if found["status"] == "failed":
                raise ValueError(f"{metric.name}: failed on {name} {grade:g} of {case.case_id}: {found['error']}")
            rows.append((case.case_id, case.reference_id, name, grade, metric.name, found["value"]))
    columns = ["case_id", "reference_id", "corruption", "grade", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).astype({"value": float})


def videos(
    cases: Mapping[str, PuppetCase], names: Iterable[str], seed: int
) -> Iterator[tuple[PuppetCase, str, float, Video]]:
    """Case, corruption, grade and video: of each case the true answer, then all grades of all corruptions."""
    for number, case in enumerate(cases.values()):
        staged = case.show(Format(NUM_FRAMES, SIZE, SIZE, FPS))
        yield case, TRUE_ANSWER, 0.0, staged.answer
        for name in names:
            for grade in GRADES:
                generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**64)
                yield case, name, grade, spoiled_video(name, Spoiled(case, staged), grade, generator)
