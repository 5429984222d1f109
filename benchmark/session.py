"""One run from description to tables, with everything that computes given from outside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.bench import Bench, units
from benchmark.console.progress import Progress
from benchmark.describe import describe_metric, describe_run, merged
from benchmark.execute import Executor, format_of
from benchmark.methods import METHODS, TRUE_KEYPOINTS
from benchmark.plan import Cell, asked_of, plan
from benchmark.scoring import Perceiver, Scorer
from benchmark.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_rows, write_tables
from benchmark.store.schema import SampleRow
from benchmark.suites.case import Case
from benchmark.suites.puppets import HEADLINE
from benchmark.workers import share_out
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import note_long_text
from flexiact.notes import tell
from flexiact.task import ActionTransfer
from metrics import METRICS


@dataclass(frozen=True)
class RunRequest:
    """What is asked of a session.

    Attributes:
        suite: name.
        cases: Cases of the suite.
        methods: names in `METHODS`; bounds are always made, those that need the truth only where it is known.
        seeds: Seeds of fits and transfers.
        metrics: names in `METRICS`.
        out: the run directory.
        headline: the metric that tables are sorted by.
        suite_version: Version of the suite; None for a folder of material.
        suite_digest: likewise.
        retry_failed: make failed videos again, and compute failed metrics again.
        command: Command that started the session, for run.json.
    """

    suite: str
    cases: tuple[Case, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    out: Path
    headline: str = HEADLINE
    suite_version: int | None = None
    suite_digest: str | None = None
    retry_failed: bool = False
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a session did.

    Attributes:
        made: videos made or failed in this session.
        scored: videos scored in this session.
        failed: rows of everything asked for that failed, now or earlier.
    """

    made: int
    scored: int
    failed: tuple[SampleRow, ...]


Load = Callable[[str], tuple[Backbone, Perceiver]]
"""Loads what a session computes with onto a device."""


@dataclass(frozen=True)
class Workers:
    """The processes that make and measure videos.

    Attributes:
        devices: Device of each worker.
        load: Picklable function by which each worker loads the session's networks.
    """

    devices: tuple[str, ...]
    load: Load


def build_methods(names: Iterable[str], backbone: Backbone) -> dict[str, ActionTransfer]:
    """Build methods for a backbone.

    Raises:
        UsageError: If one cannot be built on it; the message says which can.
    """
    built: dict[str, ActionTransfer] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            built[name] = METHODS[name].build(backbone)
        except ValueError as error:
            refused[name] = str(error)
    for name, reason in refused.items():
        others = f"; others can: --methods {','.join(built)}" if built else ""
        raise UsageError(f"method {name} cannot run on backbone {backbone.name}: {reason}{others}")
    return built


def _tell_losses(cases: Sequence[Case], backbone: Backbone) -> None:
    """Say, here and not in every worker, what of pictures and texts the backbone does not get to see."""
    tell(one for case in cases for one in case.losses(format_of(backbone)))
    for text in dict.fromkeys(text for case in cases for text in (case.caption, case.prompt)):
        note_long_text(backbone, text)


def run_session(
    request: RunRequest,
    backbone: Backbone,
    perception: Perceiver,
    provenance: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
) -> Outcome:
    """Make and measure what is missing, and write the tables.

    Args:
        request: Request of the user.
        backbone: Backbone that the methods are built on.
        perception: Networks that measure.
        provenance: Provenance for run.json.
        workers: the processes that work; None: this one does.

    Raises:
        UsageError: If the run directory holds something that this does not go with; nothing is written then.
        CaseError: If a case is not what its file says.
        StoreError: If the run directory cannot be written.
        WorkerError: If a worker was killed.
    """
    for case in request.cases:
        case.check()
    _tell_losses(request.cases, backbone)
    methods = build_methods(request.methods, backbone)
    metrics = {name: describe_metric(name, perception.backends, request.headline) for name in request.metrics}
    suite = {"suite": request.suite, "suite_version": request.suite_version, "suite_digest": request.suite_digest}
    fresh = describe_run(suite, request.cases, request.seeds, backbone, methods, metrics)
    folder = RunFolder(request.out)
    with folder.opened():
        stored = folder.read_run()
        described = merged(stored, fresh)
        cells = plan(described)
        asked, rows = asked_of(cells, fresh), sample_rows(folder, cells)
        bench = _equipped(request, backbone, perception, methods)
        made = rows if not request.retry_failed else {k: row for k, row in rows.items() if row.status != "failed"}
        work = [cell for cell in asked if cell.key not in made or bench.scorer.missing(cell, made[cell.key])]
        run = _with_history(stored, described, request.command, provenance or {}, new=bool(work))
        folder.write_run(run)
        write_tables(folder, run, cells, rows)  # of a session that is interrupted too: no row of what no longer is
        for case in request.cases:
            bench.executor.write_inputs(case.case_id)
        _do(request, bench, work, made, workers)
        if work:
            rows = sample_rows(folder, cells)
            write_tables(folder, run, cells, rows)
    failed = [rows[cell.key] for cell in asked if cell.key in rows and rows[cell.key].status == "failed"]
    return Outcome(sum(cell.key not in made for cell in work), len(work), tuple(failed))


def _do(
    request: RunRequest, bench: Bench, work: Sequence[Cell], made: Mapping[str, SampleRow], workers: Workers | None
) -> None:
    """Make and measure cells, here or in other processes; all results are files."""
    shares = units(work, made, {case.case_id: case.reference_id for case in request.cases})
    amount = _amount([cell for cell in work if cell.key not in made], len(work), bench.executor)
    with Progress(amount, workers=len(workers.devices) if workers else 1) as progress:
        if workers:
            share_out(shares, workers.devices, partial(_bench, request, workers.load), progress)
        else:
            for unit in shares:
                bench.work(unit, progress)


def _bench(request: RunRequest, load: Load, device: str) -> Bench:
    """Everything that a worker needs, on its device."""
    backbone, perception = load(device)
    return _equipped(request, backbone, perception, build_methods(request.methods, backbone))


def _equipped(
    request: RunRequest, backbone: Backbone, perception: Perceiver, methods: Mapping[str, ActionTransfer]
) -> Bench:
    folder = RunFolder(request.out)
    told = [name for name in methods if TRUE_KEYPOINTS in METHODS[name].needs]
    executor = Executor(folder, backbone, methods, {case.case_id: case for case in request.cases}, told)
    metrics = {name: METRICS[name] for name in request.metrics}
    return Bench(executor, Scorer(folder, executor.stages, perception, metrics, request.retry_failed))


def _amount(unmade: list[Cell], scores: int, executor: Executor) -> dict[str, int]:
    fits = {cell.fit_key for cell in unmade if executor.needs_fit(cell)}
    kinds = [cell.kind for cell in unmade]
    work = {"bound": kinds.count("bound"), "fit": len(fits), "method": kinds.count("method"), "score": scores}
    return {kind: count for kind, count in work.items() if count}


def _with_history(
    stored: Mapping[str, Any] | None, run: dict[str, Any], command: str, provenance: Mapping[str, Any], new: bool
) -> dict[str, Any]:
    """The description with command and provenance of the first session, and those of later ones if either differs.

    A session that adds nothing (`new` is False) leaves no trace.
    """
    session = {"command": command, "provenance": dict(provenance)}
    if stored is None:
        return run | session | {"later_sessions": []}
    first = {name: stored[name] for name in ("command", "provenance")}
    later = list(stored["later_sessions"])
    if new and session not in [first, *later]:
        later.append(session)
    return run | first | {"later_sessions": later}
