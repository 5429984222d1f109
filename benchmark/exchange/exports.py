"""Write the scores of a run in VBench's layout: one file a method (see `benchmark.study.judge_answers`)."""

import json
from collections.abc import Iterable, Sequence
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
    cells = plan(run)
    names = dict(zip(run["methods"], unique_names(run["methods"]), strict=True))
    paths, told = [], 0
    make_folder("out", out)
    for method, name in names.items():
        rows = sample_rows(folder, (cell for cell in cells if cell.method == method))
        scored = ((row, score_rows(folder, run["metrics"], row)) for row in rows)
        mine = [(row, valued) for row, scores in scored if (valued := [s for s in scores if s.value is not None])]
        if mine:
            told += len(mine)
            paths.append(out / f"{name}_eval_results.json")
            with replacing(paths[-1]) as partial:
                partial.write_text(json.dumps(_results(mine), indent=1) + "\n", encoding="utf-8")
    if not paths:
        raise UsageError(f"{folder.path}: no video has a value yet; finish the run first")
    return paths, len(cells) - told


def _results(rows: Iterable[tuple[SampleRow, Sequence[ScoreRow]]]) -> dict[str, list[Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row, scores in sorted(rows, key=lambda found: (found[0].case_id, found[0].seed, found[0].fit_seed or 0)):
        for score in scores:
            about = {"case_id": row.case_id, "seed": row.seed, "fit_seed": row.fit_seed, "evaluator": score.backend}
            result = {"video_path": row.video, "video_results": score.value, **about}
            found.setdefault(_dimension(score.metric), []).append(result)
    return {name: [sum(r["video_results"] for r in results) / len(results), results] for name, results in found.items()}


def _dimension(metric: str) -> str:
    """Name of a metric in the file: VBench's dimensions have their own names, so no other metric may have them."""
    return metric.removeprefix(VBENCH) if metric.startswith(VBENCH) else OWN + metric
