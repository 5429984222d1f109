"""Run one session from description to tables. Backbone, perception and workers are arguments."""

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmark.console.run_progress import Progress
from benchmark.planning.job_shards import Shard
from benchmark.planning.keys import method_key
from benchmark.planning.methods import METHODS, TRUE_KEYPOINTS
from benchmark.planning.plan import Cell, asked_of, plan
from benchmark.planning.variants import build_methods, entry_of
from benchmark.stages.bench import Bench, Work, units
from benchmark.stages.describe import describe_metric, describe_run, merged, with_history, with_submissions
from benchmark.stages.execute import Executor, format_of
from benchmark.stages.scoring import Scorer
from benchmark.store.folder import RunFolder, StoreError, resumable_errors
from benchmark.store.gather import current_scores, sample_row, write_tables
from benchmark.store.lock import describing
from benchmark.store.schema.rows import SampleRow
from benchmark.submissions.submission import Submission
from benchmark.suites.case import Case
from benchmark.suites.puppets import HEADLINE
from benchmark.workers.cluster import share_out_on
from benchmark.workers.local import share_out
from benchmark.workers.pool import Cluster
from benchmark.workers.stopping import until_asked
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import note_long_text
from flexiact.task import ActionTransfer
from flexiact.terminal.notes import collected, tell
from metrics import METRICS
from metrics.perception import Perception


@dataclass(frozen=True)
class RunRequest:
    """Request of a session.

    Attributes:
        methods: Names of methods or variants. Bounds are always made; those that need the truth, only where it is
            known.
        seeds: Seeds of transfers.
        metrics: Names in `METRICS`.
        retry_failed: True to make failed videos again and to compute failed metrics again.
        command: Command that started the session, for run.json.
        shard: Part of the cells to make and measure; None: all. Only a session without shards writes the tables.
        submissions: Methods whose videos were made elsewhere.
        fit_seeds: Seeds of fits, each with every seed; None: a fit takes the seed of its transfer.
        fits_from: Runs whose fits are copied where the same key is needed here.
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
    shard: Shard | None = None
    submissions: tuple[Submission, ...] = ()
    fit_seeds: list[int] | None = None
    fits_from: tuple[RunFolder, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Result of a session.

    Attributes:
        made: Number of videos that this session made or failed to make.
        scored: Number of videos that this session scored.
        failed: Rows of all requested videos that failed, now or earlier.
        stopped: Number of the signal that ended the session early; 0 if none did.
        unmeasured: Number of videos that this session was to score and did not: given up, or left by a stop.
    """

    made: int
    scored: int
    failed: tuple[SampleRow, ...]
    stopped: int = 0
    unmeasured: int = 0


Load = Callable[[str], tuple[Backbone, Perception]]
"""Function that loads the networks of a session onto a device."""


@dataclass(frozen=True)
class Workers:
    """The processes that make and measure videos.

    Attributes:
        devices: Device of each local worker.
        load: Picklable function by which each worker loads the session's networks.
        cluster: Ray cluster that takes the place of local workers; None: there is none.
    """

    devices: tuple[str, ...]
    load: Load
    cluster: Cluster | None = None

    @property
    def number(self) -> int:
        """Number of worker processes, if there is work for so many."""
        return self.cluster.workers if self.cluster else len(self.devices)


def distinct(methods: Mapping[str, ActionTransfer]) -> dict[str, ActionTransfer]:
    """Methods without the variants that have all settings of an earlier method; a note names them."""
    first: dict[str, str] = {}
    kept = {}
    for name, method in methods.items():
        same = first.setdefault(method_key(method), name)
        if same == name or name in METHODS:
            kept[name] = method
        else:
            tell([(name, f"has the settings of {same}, whose videos stand for it")])
    return kept


def _tell_losses(cases: Sequence[Case], backbone: Backbone, texts: bool) -> None:
    """Report, here and not in every worker, the parts of pictures and of `texts` that the backbone will not see."""
    tell(one for case in cases for one in case.losses(format_of(backbone)))
    for text in dict.fromkeys(text for case in cases if texts for text in (case.caption, case.prompt)):
        note_long_text(backbone, text)


@resumable_errors()
def run_session(
    request: RunRequest,
    backbone: Backbone,
    perception: Perception,
    provenance: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
) -> Outcome:
    """Make and measure all missing videos, in workers or else in this process, and write the tables.

    Raises:
        UsageError: If the run directory holds a run that does not match; nothing is written then.
        CaseError: If the material of a case differs from what its file says.
        StoreError: If the run directory cannot be written.
        WorkerError: If a worker was killed.
    """
    for case in request.cases:
        case.check()
    _tell_losses(request.cases, backbone, texts=bool(request.methods))
    methods = distinct(build_methods(request.methods, backbone))
    metrics = {name: describe_metric(name, perception.backends, request.headline) for name in request.metrics}
    suite = {"suite": request.suite, "suite_version": request.suite_version, "suite_digest": request.suite_digest}
    fresh = describe_run(suite, request.cases, request.seeds, backbone, methods, metrics)
    fresh = with_submissions(fresh | {"fit_seeds": request.fit_seeds}, request.submissions)
    folder = RunFolder(request.out, mends=True)
    with folder.opened(request.shard):
        with collected() as damage:
            cells = plan(merged(folder.read_run(), fresh))
            asked = _shared(request, asked_of(cells, fresh), fresh)
            bench = _equipped(request, backbone, perception, methods)
            written = partial(_written, folder, fresh, request.command, provenance or {})
            # Tables are written after an interrupt, too, so that none keeps invalid rows. A shard's cells are not all.
            work = bench.todo(written(new=False), asked, None if request.shard else cells)
            needed = dict.fromkeys(cell.fit_key for cell in work.unmade if cell.fit_key)
            folder.borrow("fits", [f"{fit_key}.safetensors" for fit_key in needed], request.fits_from)
            run = written(new=bool(work.cells))
        tell(damage)
        for case_id in dict.fromkeys(cell.case_id for cell in asked):
            bench.executor.write_inputs(case_id)
        if not work.cells:
            return Outcome(0, 0, tuple(work.failed))
        stopped = _do(request, bench, work, workers)
        if not request.shard:
            write_tables(folder, run, cells)
    all_measured = not stopped and not (workers and workers.cluster)  # which may leave some out
    return _outcome(bench, asked, work, metrics, stopped, all_measured)


def _outcome(
    bench: Bench, asked: Iterable[Cell], work: Work, metrics: Mapping[str, Any], stopped: int, all_measured: bool
) -> Outcome:
    """Outcome of a session with these metrics, from the stored results.

    Raises:
        StoreError: If a result is missing though nothing ended the work early.
    """
    made, scored, unmeasured, failed = 0, 0, 0, []
    unmade, worked = {cell.key for cell in work.unmade}, {cell.key for cell in work.cells}
    for cell in asked:
        row = sample_row(bench.folder, cell)
        if row is None and not stopped:
            place = bench.folder.path
            raise StoreError(f"{place}: results of workers are missing here; do all machines share this folder?")
        if row is not None:
            made += cell.key in unmade
            known = all_measured or cell.key not in worked
            measured = known or metrics.keys() <= current_scores(bench.folder, metrics, row).keys()
            scored += cell.key in worked and measured
            unmeasured += not measured
            failed += [row] if row.status == "failed" else []
    return Outcome(made, scored, tuple(failed), stopped, unmeasured)


def _shared(request: RunRequest, asked: list[Cell], fresh: Mapping[str, Any]) -> list[Cell]:
    """Cells of the request's shard. Which these are depends on the request alone, not on what the directory holds."""
    if request.shard is None:
        return asked
    shares = units(plan(fresh), {case.case_id: case.reference_id for case in request.cases})
    mine = {cell.key for unit in request.shard.part(shares) for cell in unit}
    return [cell for cell in asked if cell.key in mine]


def _do(request: RunRequest, bench: Bench, work: Work, workers: Workers | None) -> int:
    """Make and measure cells, in this process or in workers; all results are files.

    Returns:
        The number of the signal that ended the work early; 0 if none did.
    """
    shares = units(work.cells, {case.case_id: case.reference_id for case in request.cases})
    amount = _amount(work.unmade, len(work.cells), bench.executor)
    count = min(workers.number, len(shares)) if workers else 1
    stages = Counter[str]()
    for kind, number in amount.items():
        stages[kind.split()[0]] += number
    todo = ", ".join(f"{number} {stage}" for stage, number in sorted(stages.items()))
    bench.folder.log("begins", f"{todo}; processes: {count}; {request.command}")
    with until_asked() as asked, Progress(amount, workers=count) as progress:
        if workers and workers.cluster:
            opened = partial(_bench, request, workers.load)
            share_out_on(workers.cluster, shares, opened, progress, bench, asked)
        elif workers:
            share_out(shares, workers.devices, partial(_bench, request, workers.load), progress, asked)
        else:
            for unit in shares:
                bench.work(unit, progress, asked)
        stopped = asked()
    bench.folder.log("ends", f"stopped by {signal.Signals(stopped).name}" if stopped else "all done")
    return stopped


def _bench(request: RunRequest, load: Load, device: str) -> Bench:
    """Everything that a worker needs, loaded onto its device."""
    backbone, perception = load(device)
    return _equipped(request, backbone, perception, build_methods(request.methods, backbone))


def _equipped(
    request: RunRequest, backbone: Backbone, perception: Perception, methods: Mapping[str, ActionTransfer]
) -> Bench:
    folder = RunFolder(request.out, mends=True)
    told = [name for name in methods if TRUE_KEYPOINTS in entry_of(name).needs]
    cases = {case.case_id: case for case in request.cases}
    submissions = {submission.name: submission for submission in request.submissions}
    executor = Executor(folder, backbone, methods, cases, told, submissions)
    metrics = {name: METRICS[name] for name in request.metrics}
    scorer = Scorer(folder, executor.stages, perception, metrics, request.retry_failed)
    return Bench(executor, scorer, folder)


def _amount(unmade: list[Cell], scores: int, executor: Executor) -> Counter[str]:
    """Pieces of work by their stage and entry, whose pieces take about as long as one another."""
    fits = {cell.fit_key: cell for cell in reversed(unmade) if executor.needs_fit(cell)}  # the first one fits for all
    work = Counter(f"{cell.kind} {cell.method}" for cell in unmade)
    work.update(f"fit {cell.method}" for cell in fits.values())
    work["score"] = scores
    return work


def _written(
    folder: RunFolder, fresh: Mapping[str, Any], command: str, provenance: Mapping[str, Any], new: bool
) -> dict[str, Any]:
    """Merge the session's description into run.json; return the whole. Shards that do so at once take turns."""
    with describing(folder.path):
        stored = folder.read_run()
        run = with_history(stored, merged(stored, fresh), command, provenance, new)
        folder.write_run(run)
    return run
