"""Time and memory of large runs: plan a million videos, report a million scores: `python -m benchmark.speed.scale`.

Each part runs in a process of its own, whose time is the processor's and whose memory is its largest resident set. The
run is made up: its names and sizes are those of a real one, its scores are drawn from a seed, and one in a hundred of
them failed. It has no videos.
"""

import argparse
import json
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

TARGETS, SEEDS = 10, 3
FAILED = 0.01
"""Share of the scores that failed."""
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
    with tempfile.TemporaryDirectory() as place:
        _alone("videos planned", planned, options.videos)
        _alone("scores made up", made_up, options.scores, Path(place))
        _alone("scores read and reported", reported, Path(place))


def _alone(what: str, part: Callable[..., int], *arguments: object) -> None:
    """Run a part in a process of its own and print what it took."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        done, seconds, gib = process.submit(_timed, part, *arguments).result()
    print(f"{done:>9,} {what}: {seconds:.1f} s, {gib:.2f} GiB", flush=True)


def _timed(part: Callable[..., int], *arguments: object) -> tuple[int, float, float]:
    start = time.process_time()
    done = part(*arguments)
    return done, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _GIB


def planned(videos: int) -> int:
    """Plan about so many videos; return their number."""
    from benchmark.plan import plan

    one = len(plan(description(1)))
    return len(plan(description(max(1, round(videos / one)))))


def made_up(scores: int, folder: Path) -> int:
    """Write run.json and tables of about so many scores to a folder; return their number."""
    import numpy as np
    import pandas as pd

    from benchmark.plan import plan
    from metrics import METRICS

    one = len(plan(description(1))) * len(METRICS)
    about = description(max(1, round(scores / one)))
    cells = pd.DataFrame(
        [(c.key, c.fit_key, c.method, c.case_id, c.seed) for c in plan(about)],
        columns=["key", "fit_key", "method", "case_id", "seed"],
    )
    made = {"method_version": 1, "status": "ok", "error": None, "video": None, "origin": "made", "fit_s": 1.0}
    samples = cells.assign(**made, transfer_s=1.0, peak_memory_gib=1.0, action_mib=0.1)
    samples["method_version"] = samples["method"].map({name: e["version"] for name, e in about["methods"].items()})
    table = cells.drop(columns="fit_key").merge(
        pd.DataFrame({"metric": list(METRICS), "metric_version": [metric.version for metric in METRICS.values()]}),
        how="cross",
    )
    values, chance = np.random.default_rng(0).random((2, len(table)))
    table = table.assign(status="ok", value=values, backend="made up", error=None)
    table.loc[chance < FAILED, ["status", "value", "error"]] = ["failed", float("nan"), "made up"]
    (folder / "run.json").write_text(json.dumps(about))
    samples.to_parquet(folder / "samples.parquet")
    table.to_parquet(folder / "scores.parquet")
    return len(table)


def reported(folder: Path) -> int:
    """Read and report the tables of a folder; return the number of scores."""
    import pyarrow.parquet as pq

    from reports.build import build

    build(folder, folder / "report")
    return int(pq.read_metadata(folder / "scores.parquet").num_rows)


def description(references: int) -> dict[str, Any]:
    """A made-up run.json of all methods, bounds and metrics, `TARGETS` targets a reference, `SEEDS` seeds."""
    from benchmark.describe import describe_bounds, describe_metric
    from benchmark.methods import METHODS
    from benchmark.store.folder import SCHEMA_VERSION
    from benchmark.suites.puppets import HEADLINE
    from flexiact.method import PRESETS
    from metrics import METRICS

    backends = dict.fromkeys((str(metric.backend) for metric in METRICS.values()), "made up")
    config = vars(PRESETS["puppets"].fit)
    method = {"kind": "method", "version": 1, "summary": "made up", "extra_supervision": "", "adapter_mib": 0.5}
    method |= {"transfer_config": {"guidance_scale": 3.0, "steps": 25}}
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
        "methods": {name: method | {"method_id": name, "fit_config": config} for name in METHODS}
        | describe_bounds(truth_known=True),
        "metrics": {name: describe_metric(name, backends, HEADLINE) for name in METRICS},
        "cases": cases,
    }


if __name__ == "__main__":
    sys.exit(main())
