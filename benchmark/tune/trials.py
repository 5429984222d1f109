"""Tune methods on a development suite: `python -m benchmark.tune`. Each gets equally many trials, or all it can have.

A method's space is a handful of values per setting; a fixed seed draws its trials at random. A trial makes one video of
every reference of the suite. It is one line of the log and is kept whatever its result; a second start resumes, and
several processes may write to one log. The winner has the best mean of the suites' headline;
among equals it has the least appearance error. A person enters it by hand in the method's settings. Next to the log
stands a summary (.md): the winners, and the strength of FlexiAct's embedding at the thresholds of its schedule.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.planning.keys import key
from benchmark.planning.selection import select
from benchmark.suites.puppets import HEADLINE, load_suite
from benchmark.tune.spaces import SPACES
from benchmark.workers.load import load, load_judges, set_threads
from flexiact.media.digests import canonical_json
from flexiact.terminal.cli import OneLineParser, command, one_line

if TYPE_CHECKING:
    from benchmark.suites.case import Case, Stages
    from benchmark.suites.puppets import PuppetCase
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import Action, ActionTransfer
    from metrics.perception import Perception

TRIALS = 12
SUITE = "puppets-dev"
METRICS = (HEADLINE, "true_appearance_error")
TIE = 0.005
"""Margin of the headline: trials this near the best count as equal, and the least appearance error decides."""

COLUMNS = ("method", "trial", "settings", *METRICS, "suite", "backbone_revision", "key")


def measure(
    stages: "Stages", perception: "Perception", method: "ActionTransfer", fits: "dict[str, Action]"
) -> dict[str, float]:
    """Mean of `METRICS` over the cases, seed 0.

    `fits` holds actions by all that `fit` reads; it is filled here: trials that differ only at transfer share them.
    """
    from flexiact.task import Request, Video
    from metrics import METRICS as TABLE
    from metrics.features import Features

    rows = []
    for case_id, case in stages.cases.items():
        staged = stages[case_id]
        learned = [method.method_id, method.version, method.fit_config(), case.caption]
        name = canonical_json([*learned, case.digests["reference"]])
        if name not in fits:
            fits[name] = method.fit(staged.reference, case.caption, seed=0)
        video = method.transfer(fits[name], Request(staged.target.copy(), case.prompt, 0))
        target = perception.describe(Video(staged.target[None], staged.reference.fps))
        made = perception.describe(video)
        features = Features(generated=made, target=target, truth=staged.truth, candidates=staged.candidates)
        rows.append([TABLE[name].compute(features) for name in METRICS])
    # The mean covers all cases or is missing: settings that fail on hard cases must not win on the rest.
    columns = dict(zip(METRICS, zip(*rows, strict=True), strict=True))
    return {name: sum(column) / len(column) for name, column in columns.items() if None not in column}


def trials(names: Sequence[str], seed: int, count: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Method, number and settings of every requested trial; trials that share a fit are neighbours."""
    for name in names:
        numbered = list(enumerate(SPACES[name].trials(seed, count)))
        numbered.sort(key=lambda trial: trial[1].get("learning_rate", 0))
        for number, settings in numbered:
            yield name, number, settings


def tune(backbone: "Backbone", planned: Sequence[tuple[str, int, dict[str, Any]]], log: Path) -> None:
    """Run the planned trials that the log (CSV) does not hold yet, and append each to it."""
    from tqdm import tqdm

    from benchmark.stages.execute import format_of
    from benchmark.suites.case import Stages

    suite = load_suite(SUITE)
    stages = Stages(one_a_reference(suite.chosen(suite.case_ids)), format_of(backbone))
    perception = load_judges(None, backbone.device)
    done = {row["key"] for row in _read(log)} if log.exists() else set()
    log.parent.mkdir(parents=True, exist_ok=True)
    fits: dict[str, Action] = {}
    for name, number, settings in tqdm(planned, desc="trials"):
        method = SPACES[name].build(backbone, settings)
        mark = trial_key(method, backbone, stages.cases.values())
        if mark in done:
            continue
        try:
            found = measure(stages, perception, method, fits)
        except ValueError as error:  # a diverging method is a result, too
            print(f"trial {number} of {name} failed: {one_line(error)}", file=sys.stderr)
            found = {}
        fresh = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(COLUMNS)
            scores = [f"{found[m]:.4f}" if m in found else "" for m in METRICS]
            text = json.dumps(settings, sort_keys=True)
            writer.writerow([name, number, text, *scores, SUITE, backbone.revision, mark])


def one_a_reference(cases: "Iterable[PuppetCase]") -> "dict[str, PuppetCase]":
    """One case of every reference by its id: the first target of one reference, the last of the next, in turn."""
    of: dict[str, list[PuppetCase]] = {}
    for case in cases:
        of.setdefault(case.reference_id, []).append(case)
    chosen = [found[-(number % 2)] for number, found in enumerate(of.values())]
    return {case.case_id: case for case in chosen}


def trial_key(method: "ActionTransfer", backbone: "Backbone", cases: "Iterable[Case]") -> str:
    """Key of everything that a trial's videos depend on: adapters, presets and cases included."""
    return key(
        "trial",
        {
            "method_id": method.method_id,
            "version": method.version,
            "fit_config": method.fit_config(),
            "transfer_config": method.transfer_config(),
            "backbone": backbone.revision,
            "num_inference_steps": backbone.num_inference_steps,
            "cases": {case.case_id: [case.caption, case.prompt, dict(case.digests)] for case in cases},
        },
    )


def _read(log: Path) -> list[dict[str, str]]:
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


def winners(log: Path, revision: str) -> dict[str, dict[str, str]]:
    """Best row of every method in a log (see `TIE`), among those measured on one revision of the backbone.

    Each row has an additional `trials`, the method's number of trials.
    """
    rows = [r for r in _read(log) if r["backbone_revision"] == revision and all(r[name] for name in METRICS)]
    had = Counter(row["method"] for row in rows)
    rows = [row | {"trials": str(had[row["method"]])} for row in rows]
    rows.sort(key=lambda row: float(row[HEADLINE]), reverse=True)
    groups = {name: [row for row in rows if row["method"] == name] for name in dict.fromkeys(r["method"] for r in rows)}
    return {name: _best(group) for name, group in groups.items()}


def _best(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """Winner among the rows of one method, which are sorted by agreement, highest first."""
    equal = [row for row in rows if float(row[HEADLINE]) >= float(rows[0][HEADLINE]) - TIE]
    return min(equal, key=lambda row: float(row["true_appearance_error"]))


def summary(backbone: "Backbone", log: Path) -> str:
    """Winners, and signal-to-noise ratio, bias and attention share at the thresholds of FlexiAct's winning schedule."""
    from flexiact.embedding import FrequencySchedule, schedule_report
    from flexiact.method import preset
    from reports.tables.formats import markdown_rows

    best = winners(log, backbone.revision)
    columns = ("method", "trials", "best settings", "centred motion agreement", "true appearance error")
    rows = []
    for name, row in best.items():
        values = ", ".join(f"{k} {v}" for k, v in json.loads(row["settings"]).items())
        rows.append((name, row["trials"], values, row[HEADLINE], row["true_appearance_error"]))
    parts = [f"# Tuning on {SUITE}", f"Every trial is in [{log.name}]({log.name}).", markdown_rows(columns, rows)]
    if "flexiact" in best:
        settings = json.loads(best["flexiact"]["settings"])
        low, high = settings["thresholds"]
        tokens = preset(backbone).fit.embedding_tokens
        points = schedule_report(backbone, FrequencySchedule(settings["alpha"], low, high), tokens)
        formats = {"timestep": ".0f", "signal_to_noise": ".3g", "bias": ".2f", "attention_share": ".3f"}
        cells = [[format(point[field], form) for field, form in formats.items()] for point in points]
        parts.append("FlexiAct's winning schedule; the share of attention is that of equal logits.")
        parts.append(markdown_rows(("timestep", "signal-to-noise ratio", "bias", "attention share"), cells))
    return "\n\n".join(parts) + "\n"


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.tune", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--methods", nargs="+", default=["all"], metavar="NAME", help=f"{', '.join(SPACES)}, or all")
    p.add_argument("--seed", type=int, default=0, help="of the draw of the trials (%(default)s)")
    p.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="of every space (%(default)s)")
    p.add_argument("--log", type=Path, default=Path("reports/published/tuning/world-3.csv"), help="%(default)s")
    p.add_argument("--device", default="auto", metavar="NAME")
    p.add_argument("--threads", type=int, metavar="N")
    return p


def _tune(args: argparse.Namespace) -> None:
    names = select(args.methods, list(SPACES), "method")
    set_threads(args.threads)
    backbone = load("puppets", args.device, None, load_suite(SUITE).num_inference_steps)
    tune(backbone, list(trials(names, args.seed, args.trials)), args.log)
    args.log.with_suffix(".md").write_text(summary(backbone, args.log))


main = command(parser, _tune)
