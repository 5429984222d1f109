"""Time and memory of large runs: plan a million videos, report a million scores: `python -m benchmark.speed.scale`.

Each part runs in a process of its own, whose time is the processor's and whose memory is its largest resident set. The
run is made up: its names and sizes are those of a real one, its scores are drawn from a seed.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from flexiact.cli import OneLineParser, run
from flexiact.media.digests import json_digest

METHODS, TARGETS, SEEDS = 24, 10, 3
_GIB = 2**20  # of the KiB that the system counts in


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.speed.scale", description=__doc__)
    p.add_argument("--videos", type=int, default=1_080_000, metavar="N", help="planned videos (%(default)s)")
    p.add_argument("--scores", type=int, default=1_000_000, metavar="N", help="reported scores (%(default)s)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run(parser(), _measure, arguments)


def _measure(options: argparse.Namespace) -> None:
    parts: dict[str, tuple[Callable[[int], int], int]] = {
        "videos planned": (planned, options.videos),
        "scores read and reported": (reported, options.scores),
    }
    for what, (part, amount) in parts.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            done, seconds, gib = process.submit(_timed, part, amount).result()
        print(f"{done:>9,} {what}: {seconds:.1f} s, {gib:.2f} GiB")


def _timed(part: Callable[[int], int], amount: int) -> tuple[int, float, float]:
    start = time.process_time()
    done = part(amount)
    return done, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _GIB


def description(references: int, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """The run.json of a made-up run of `METHODS` methods, `TARGETS` targets a reference and `SEEDS` seeds."""
    from benchmark.store.folder import SCHEMA_VERSION
    from flexiact.method import PRESETS

    config = PRESETS["puppets"]
    method = {"kind": "method", "version": 1, "summary": "made up", "extra_supervision": "", "adapter_mib": 0.5}
    settings = {"fit_config": vars(config.fit), "transfer_config": {"guidance_scale": 3.0, "steps": 25}}
    backbone = {"name": "puppets", "revision": "0" * 64, "num_parameters": 3_000_000, "num_frames": 9, "height": 64}
    backbone |= {"width": 64, "fps": 8.0, "max_text_tokens": 40, "dtype": "float32"}
    terciles = dict.fromkeys(("layout", "viewpoint", "skeleton", "pose"), "near")
    cases = {
        f"reference-{r:05d}-{t}": {
            "digests": {"reference": json_digest(r), "target": json_digest([r, t])},
            "caption": f"subject {r} hops",
            "prompt": f"subject {t}",
            "reference_id": f"reference-{r:05d}",
            "target_id": f"target-{t}",
            "terciles": terciles,
        }
        for r in range(references)
        for t in range(TARGETS)
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": "made-up",
        "seeds": list(range(SEEDS)),
        "backbone": backbone | {"num_inference_steps": 25, "guidance_scale": 1.0},
        "methods": {f"method-{i:02d}": method | settings | {"method_id": f"M{i}"} for i in range(METHODS)},
        "metrics": {name: _metric(name, headline=name == metrics[0]) for name in metrics},
        "cases": cases,
    }


def _metric(name: str, headline: bool) -> dict[str, Any]:
    from metrics import METRICS

    fields = ("version", "unit", "higher_is_better", "bounds", "needs", "summary")
    described = {field: getattr(METRICS[name], field) for field in fields}
    return described | {"headline": headline, "backend": "made up"}


def planned(videos: int) -> int:
    """Plan at most so many videos; return their number."""
    from benchmark.plan import plan

    return len(plan(description(videos // (METHODS * TARGETS * SEEDS))))


def reported(scores: int) -> int:
    """Write tables of about so many scores, read and report them; return their number."""
    import json

    import numpy as np
    import pandas as pd

    from benchmark.plan import plan
    from metrics import METRICS
    from reports.build import build

    about = description(max(6, round(scores / (METHODS * TARGETS * SEEDS * len(METRICS)))), list(METRICS))
    cells = pd.DataFrame(
        [(c.key, c.fit_key, c.method, c.case_id, c.seed) for c in plan(about)],
        columns=["key", "fit_key", "method", "case_id", "seed"],
    )
    made = {"method_version": 1, "status": "ok", "error": None, "video": None, "origin": "made", "fit_s": 1.0}
    samples = cells.assign(**made, transfer_s=1.0, peak_memory_gib=1.0, action_mib=0.1)
    table = cells.drop(columns="fit_key").merge(
        pd.DataFrame({"metric": list(METRICS), "metric_version": [metric.version for metric in METRICS.values()]}),
        how="cross",
    )
    values = np.random.default_rng(0).random(len(table))
    table = table.assign(status="ok", value=values, backend="made up", error=None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "run.json").write_text(json.dumps(about))
        samples.to_parquet(folder / "samples.parquet")
        table.to_parquet(folder / "scores.parquet")
        build(folder, folder / "report")
    return len(table)


if __name__ == "__main__":
    sys.exit(main())
