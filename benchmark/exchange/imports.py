"""Put answers of other tools into a run, as metrics of their own beside those of the suite."""

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import PurePosixPath
from typing import Any

from benchmark.planning.plan import plan
from benchmark.planning.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_rows, stored_scores, write_scores, write_tables
from benchmark.store.lock import describing
from benchmark.store.schema.rows import SampleRow
from benchmark.store.schema.run_json import check_description
from benchmark.study.judge_answers import Answer, Scale, scales_of
from benchmark.suites.case import refuse

Scored = tuple[str | None, Mapping[str, Any]]
"""Digest of a video as it was measured, and its scores by name of the metric."""


def import_answers(folder: RunFolder, answers: Sequence[Answer], replace: bool) -> dict[str, int]:
    """Store values of videos of a run and gather the tables anew. Nothing is stored unless all answers can be.

    With `replace` an evaluator may take the place of another one under the same name of a metric.

    Returns:
        Number of videos with a value by name of the metric.

    Raises:
        UsageError: If there is no run, or two evaluators would share the name of a metric.
        CaseError: If an answer names no video of the run, or a video has two values; the message names up to ten.
    """
    scales = scales_of(answers)
    rows = sample_rows(folder, plan(folder.described()))
    scores = {
        key: (measured, {name: _score(value, scales[name]) for name, value in found.items()})
        for key, (measured, found) in _by_key(answers, rows).items()
    }
    return store_scores(folder, {name: scale.entry(name) for name, scale in scales.items()}, scores, replace)


def store_scores(
    folder: RunFolder, entries: Mapping[str, Any], scores: Mapping[str, Scored], replace: bool
) -> dict[str, int]:
    """Store metrics that another tool measured: their entries in run.json by name, and scores by key of the video.

    `replace` and what is returned are those of `import_answers`.

    Raises:
        UsageError: If two evaluators would share the name of a metric, or a video was made again since it was measured;
            nothing is stored then.
    """
    with folder.opened():
        run = folder.described()
        _check_evaluators(run["metrics"], entries, replace)
        cells = plan(run)
        asked = (cell for cell in cells if cell.key in scores)
        now = {row.key: row.video_digest for row in sample_rows(folder, asked)}
        for key, (measured, _) in scores.items():
            if key not in now or now[key] != measured:
                raise UsageError(f"{key}: this video was made again meanwhile; nothing is stored, measure it anew")
        outdated = {name for name, entry in entries.items() if run["metrics"].get(name, entry) != entry}
        for row in sample_rows(folder, cells):
            _store(folder, row, scores[row.key][1] if row.key in scores else {}, outdated)
        with describing(folder.path):
            run = {**run, "metrics": {**run["metrics"], **entries}}
            check_description(run)
            folder.write_run(run)
        write_tables(folder, run, cells)
    valued = [name for _, found in scores.values() for name, score in found.items() if score["value"] is not None]
    return {name: valued.count(name) for name in entries}


def _check_evaluators(metrics: Mapping[str, Any], entries: Mapping[str, Any], replace: bool) -> None:
    for name, entry in entries.items():
        if name in metrics and metrics[name] != entry and not replace:
            raise UsageError(
                f"{name}: the run has it from {metrics[name]['backend']}, this is from {entry['backend']}; values of "
                "two evaluators or scales do not mix: --replace drops the former ones"
            )


def _by_key(answers: Iterable[Answer], rows: Iterable[SampleRow]) -> dict[str, tuple[str | None, dict[str, float]]]:
    """Digest of each video that has answers, and its values by metric."""
    made, sources = dict[str, str | None](), dict[str, list[str]]()
    for row in rows:
        if row.status == "ok":
            made[row.key] = row.video_digest
            if row.source:
                sources.setdefault(row.source, []).append(row.key)
    found: dict[str, dict[str, float]] = {}
    problems = []
    for answer in answers:
        keys = _named(answer.video, made.keys(), sources)
        if len(keys) != 1:
            said = "are the videos of several rows" if keys else "is no video of this run"
            problems.append(f"{answer.where}: {answer.video} {said}")
        elif found.setdefault(keys[0], {}).setdefault(answer.metric, answer.value) != answer.value:
            problems.append(f"{answer.where}: {answer.video} has another value of {answer.metric} above")
    refuse("answers", problems)
    return {key: (made[key], values) for key, values in found.items()}


def _named(video: str, made: Set[str], sources: Mapping[str, list[str]]) -> list[str]:
    """Keys of the rows that a path can mean: KEY with any suffix, or the end of a path is that of a submitted file."""
    path = PurePosixPath(video.replace("\\", "/"))
    if path.stem in made:
        return [path.stem]
    ends = ["/".join(path.parts[place:]) for place in range(len(path.parts))]
    return next((sources[end] for end in ends if end in sources), [])


def _score(value: float, scale: Scale) -> dict[str, Any]:
    return {"version": 1, "backend": scale.evaluator, "status": "ok", "value": value, "error": None}


def _store(folder: RunFolder, row: SampleRow, entries: Mapping[str, Any], outdated: Set[str]) -> None:
    """Add scores to those of the video as it is now, without those of outdated metrics."""
    before = stored_scores(folder, row)
    metrics = {**{name: score for name, score in before.items() if name not in outdated}, **entries}
    if metrics != before:
        write_scores(folder, row, metrics)
