"""Tune methods on a development suite: `python -m benchmark.tune`, the same number of trials for every method.

A method's space is a handful of values a setting; its trials are drawn from it at random with a fixed seed. Every trial
is one line of the log, kept whatever it shows; a second start goes on where the last one stopped. The winner, by mean
motion agreement, is entered by hand where the method keeps its settings. Beside the log stands a summary (.md): the
winners, and how loud FlexiAct's embedding is at the thresholds of its schedule.
"""

import argparse
import csv
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cases import load_case, load_suite
from benchmark.run import load, load_judges, set_threads
from benchmark.selection import UsageError, select

if TYPE_CHECKING:
    from benchmark.execute import Stages
    from flexiact.backbone import Backbone
    from flexiact.task import Action, ActionTransfer
    from metrics.perception import Perception

TRIALS = 8
SUITE = "puppets-dev"
METRICS = ("motion_agreement", "true_appearance_error")
_FIT = {"learning_rate": (3e-3, 1e-2, 3e-2)}
_GUIDANCE = {"guidance_scale": (1.0, 2.0, 3.0, 4.5)}
_SCHEDULE = {"alpha": (0.5, 1.0, 2.0, 3.0), "thresholds": ((700, 800), (500, 800), (800, 950), (300, 600))}


@dataclass(frozen=True)
class Space:
    """What may be tuned of a method: `build` makes it from a backbone and one value for each name in `values`."""

    build: "Callable[[Backbone, Mapping[str, Any]], ActionTransfer]"
    values: Mapping[str, tuple[Any, ...]]

    def trials(self, seed: int) -> list[dict[str, Any]]:
        """Up to `TRIALS` different settings in a random order; fewer only where the space holds fewer."""
        every = [dict(zip(self.values, row, strict=True)) for row in itertools.product(*self.values.values())]
        random.Random(seed).shuffle(every)
        return every[:TRIALS]


def _flexiact(backbone: "Backbone", settings: Mapping[str, Any]) -> "ActionTransfer":
    from flexiact.embedding import FrequencySchedule
    from flexiact.method import FlexiAct, preset

    config = preset(backbone)
    fit = replace(config.fit, learning_rate=settings["learning_rate"])
    schedule = None
    if "alpha" in settings:
        low, high = settings["thresholds"]
        schedule = FrequencySchedule(settings["alpha"], low, high)
    transfer = replace(
        config.transfer,
        schedule=schedule,
        refadapter_weight=settings.get("refadapter_weight"),
        guidance_scale=settings["guidance_scale"],
    )
    return FlexiAct(backbone, replace(config, fit=fit, transfer=transfer))


def _i2v(backbone: "Backbone", settings: Mapping[str, Any]) -> "ActionTransfer":
    from baselines.i2v import ImageToVideo

    return ImageToVideo(backbone, guidance_scale=settings["guidance_scale"])


SPACES: dict[str, Space] = {
    "flexiact": Space(_flexiact, {**_FIT, **_GUIDANCE, **_SCHEDULE, "refadapter_weight": (0.4, 0.7, 1.0)}),
    "base-embedding": Space(_flexiact, {**_FIT, **_GUIDANCE}),
    "i2v": Space(_i2v, {"guidance_scale": (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)}),
}


def measure(
    stages: "Stages", perception: "Perception", method: "ActionTransfer", fits: "dict[str, Action]"
) -> dict[str, float]:
    """Mean of `METRICS` over the cases, seed 0.

    Args:
        stages: the cases, at the format of the method's backbone.
        perception: what measures.
        method: one trial.
        fits: actions by what fit reads and the reference; filled here, so that trials which differ at transfer
            alone share fits.
    """
    from flexiact.task import Request, Video
    from metrics import METRICS as TABLE
    from metrics.features import Features

    rows = []
    for case_id, case in stages.cases.items():
        staged = stages[case_id]
        key = json.dumps([method.fit_config(), dict(case.reference), case.action], sort_keys=True)
        if key not in fits:
            fits[key] = method.fit(staged.reference, case.caption, seed=0)
        video = method.transfer(fits[key], Request(staged.target.copy(), case.prompt, 0))
        target = perception.describe(Video(staged.target[None], staged.reference.fps))
        features = Features(generated=perception.describe(video), target=target, truth=staged.truth)
        rows.append([TABLE[name].compute(features) for name in METRICS])
    columns = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
    return {name: sum(c) / len(c) for name, c in zip(METRICS, columns, strict=True) if c}


def trials(names: Sequence[str], seed: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(method, number, settings) of every trial asked for; those that share a fit are neighbours."""
    for name in names:
        numbered = list(enumerate(SPACES[name].trials(seed)))
        numbered.sort(key=lambda trial: trial[1].get("learning_rate", 0))
        for number, settings in numbered:
            yield name, number, settings


def tune(backbone: "Backbone", names: Sequence[str], seed: int, log: Path) -> None:
    """Run what is missing of the trials and append each to the log (CSV)."""
    from tqdm import tqdm

    from benchmark.execute import Stages, format_of

    suite = load_suite(SUITE)
    stages = Stages({i: load_case(suite, i) for i in suite.case_ids}, format_of(backbone))
    perception = load_judges(None, backbone.device)
    done: set[tuple[str, str, str]] = set()
    if log.exists():
        with log.open(newline="") as file:
            done = {(r["method"], r["settings"], r["backbone_revision"]) for r in csv.DictReader(file)}
    log.parent.mkdir(parents=True, exist_ok=True)
    fits: dict[str, Action] = {}
    for name, number, settings in tqdm(list(trials(names, seed)), desc="trials"):
        text = json.dumps(settings, sort_keys=True)
        if (name, text, backbone.revision) in done:
            continue
        found = measure(stages, perception, SPACES[name].build(backbone, settings), fits)
        fresh = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["method", "trial", "settings", *METRICS, "suite", "backbone_revision"])
            scores = [f"{found[m]:.4f}" if m in found else "" for m in METRICS]
            writer.writerow([name, number, text, *scores, SUITE, backbone.revision])


def winners(log: Path, revision: str) -> dict[str, dict[str, str]]:
    """The best row of every method in a log, among those measured on one revision of the backbone."""
    with log.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["backbone_revision"] == revision and r["motion_agreement"]]
    rows.sort(key=lambda row: float(row["motion_agreement"]), reverse=True)  # stable: of equal ones the first wins
    methods = dict.fromkeys(row["method"] for row in rows)
    return {name: next(row for row in rows if row["method"] == name) for name in methods}


def summary(backbone: "Backbone", log: Path) -> str:
    """Winners, and signal-to-noise ratio, bias and attention share at the thresholds of FlexiAct's winning schedule."""
    from flexiact.embedding import FrequencySchedule, schedule_report
    from flexiact.method import preset

    best = winners(log, backbone.revision)
    lines = [f"# Tuning on {SUITE}", "", f"{TRIALS} trials a method, every one in [{log.name}]({log.name}).", ""]
    lines += ["| method | best settings | motion agreement | true appearance error |", "|---|---|---|---|"]
    for name, row in best.items():
        values = ", ".join(f"{k} {v}" for k, v in json.loads(row["settings"]).items())
        lines.append(f"| {name} | {values} | {row['motion_agreement']} | {row['true_appearance_error']} |")
    if "flexiact" in best:
        settings = json.loads(best["flexiact"]["settings"])
        low, high = settings["thresholds"]
        tokens = preset(backbone).fit.embedding_tokens
        lines += ["", "FlexiAct's winning schedule; the share of attention is that of equal logits.", ""]
        lines += ["| timestep | signal-to-noise ratio | bias | attention share |", "|---|---|---|---|"]
        for point in schedule_report(backbone, FrequencySchedule(settings["alpha"], low, high), tokens):
            cells = (f"{point['timestep']:.0f}", f"{point['signal_to_noise']:.3g}", f"{point['bias']:.2f}")
            lines.append(f"| {' | '.join(cells)} | {point['attention_share']:.3f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    p = argparse.ArgumentParser(prog="python -m benchmark.tune", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--methods", nargs="+", default=["all"], metavar="NAME", help=f"{', '.join(SPACES)}, or all")
    p.add_argument("--seed", type=int, default=0, help="of the draw of the trials (%(default)s)")
    p.add_argument("--log", type=Path, default=Path("reports/tuning/puppets.csv"), help="%(default)s")
    p.add_argument("--device", default="auto", metavar="NAME")
    p.add_argument("--threads", type=int, metavar="N")
    args = p.parse_args(arguments)
    try:
        names = select(args.methods, list(SPACES), "method")
        set_threads(args.threads)
        backbone = load("puppets", args.device, None, load_suite(SUITE).num_inference_steps)
        tune(backbone, names, args.seed, args.log)
        args.log.with_suffix(".md").write_text(summary(backbone, args.log))
    except (UsageError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
