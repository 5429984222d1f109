"""Write the scores of a run in VBench's layout: one file a method (see `benchmark.study.judge_answers`)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.planning.plan import plan
from benchmark.planning.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_rows, score_rows
from benchmark.store.schema.rows import SampleRow, ScoreRow
from benchmark.study.judge_answers import OWN, VBENCH
from benchmark.suites.file_cases import unique_names
from flexiact.media.files import make_folder, replacing


def export_results(folder: RunFolder, out: Path) -> tuple[list[Path], int]:
    """Write `NAME_eval_results.json` for each method and bound that has a value.

    The mean is the plain one over videos, as VBench's readers expect, not the suite's over references. A video without
    a value stands in no list, because the layout has no place for it.

    Returns:
        Paths to the files, and the number of planned videos that are in none of them.

    Raises:
        UsageError: If there is no run, or no video has a value.
        ValueError: If the files cannot be written.
    """
    run = folder.described()
    rows = sample_rows(folder, cells := plan(run))
    scores = {key: score_rows(folder, run["metrics"], row) for key, row in rows.items()}
    names = dict(zip(run["methods"], unique_names(run["methods"]), strict=True))
    paths, told = [], 0
    make_folder("out", out)
    for method, name in names.items():
        mine = [row for row in rows.values() if row.method == method and _valued(scores[row.key])]
        if mine:
            told += len(mine)
            paths.append(out / f"{name}_eval_results.json")
            with replacing(paths[-1]) as partial:
                partial.write_text(json.dumps(_results(mine, scores), indent=1) + "\n", encoding="utf-8")
    if not paths:
        raise UsageError(f"{folder.path}: no video has a value yet; finish the run first")
    return paths, len(cells) - told


def _valued(scores: Sequence[ScoreRow]) -> list[ScoreRow]:
    return [score for score in scores if score.value is not None]


def _results(rows: Sequence[SampleRow], scores: Mapping[str, Sequence[ScoreRow]]) -> dict[str, list[Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row.case_id, row.seed, row.fit_seed or 0)):
        for score in _valued(scores[row.key]):
            about = {"case_id": row.case_id, "seed": row.seed, "fit_seed": row.fit_seed, "evaluator": score.backend}
            result = {"video_path": row.video, "video_results": score.value, **about}
            found.setdefault(_dimension(score.metric), []).append(result)
    return {name: [sum(r["video_results"] for r in results) / len(results), results] for name, results in found.items()}


def _dimension(metric: str) -> str:
    """Name of a metric in the file: VBench's dimensions have their own names, so no other metric may have them."""
    return metric.removeprefix(VBENCH) if metric.startswith(VBENCH) else OWN + metric
