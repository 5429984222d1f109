"""Time and memory of large runs: plan a million videos, report a million scores: `python -m benchmark.speed.scale`.

Each part runs in a process of its own, whose time is the processor's and whose memory is its largest resident set. The
runs are made up: names and sizes are those of a real one, and scores are drawn from a seed. The reported run has no
videos, and one in a hundred of its scores failed. The run that goes on has videos of one small frame, all made and
measured: its session looks at each of them and gathers the tables. `status` and `verify` go over the same run.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexiact.media.digests import json_digest
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from benchmark.planning.plan import Cell
    from benchmark.stages.session import RunRequest
    from benchmark.store.folder import RunFolder
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import Video
    from metrics.perception import Perception

TARGETS, SEEDS = 10, 3
FAILED = 0.01
"""Share of the scores that failed."""
_GIB = 2**20  # of the KiB that the system counts in


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.speed.scale", description=__doc__)
    p.add_argument("--videos", type=int, default=1_080_000, metavar="N", help="planned videos (%(default)s)")
    p.add_argument("--scores", type=int, default=1_000_000, metavar="N", help="reported scores (%(default)s)")
    p.add_argument("--kept", type=int, default=10_000, metavar="N", help="videos of the run that goes on (%(default)s)")
    return p


def _measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        _alone("videos planned", planned, options.videos)
        _alone("scores made up", made_up, options.scores, Path(place, "reported"))
        _alone("scores read and reported", reported, Path(place, "reported"))
        _alone("videos made up", kept, options.kept, Path(place, "kept"))
        _alone("videos of a run that goes on", gone_on, Path(place, "kept"))
        _alone("videos of its status", gone_over, "benchmark.status", Path(place, "kept"))
        _alone("videos verified", gone_over, "benchmark.verify", Path(place, "kept"))


def _alone(what: str, part: Callable[..., int], *arguments: object) -> None:
    """Run a part in a process of its own and print what it took."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        done, seconds, gib = process.submit(_timed, part, *arguments).result()
    print(f"{done:>9,} {what}: {seconds:.1f} s, {gib:.2f} GiB", flush=True)


def _timed(part: Callable[..., int], *arguments: object) -> tuple[int, float, float]:
    done = part(*arguments)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return done, sum(one.ru_utime + one.ru_stime for one in used), max(one.ru_maxrss for one in used) / _GIB


def planned(videos: int) -> int:
    """Plan about so many videos; return their number."""
    from benchmark.planning.plan import plan

    one = len(plan(description(1)))
    return len(plan(description(max(1, round(videos / one)))))


def made_up(scores: int, folder: Path) -> int:
    """Write run.json and tables of about so many scores to a folder; return their number."""
    import numpy as np
    import pandas as pd

    from benchmark.planning.plan import plan
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
    folder.mkdir()
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


def kept(videos: int, place: Path) -> int:
    """Write a run of about so many videos, all made and measured, to a folder; return their number."""
    import numpy as np

    from benchmark.planning.plan import plan
    from benchmark.stages.describe import describe_metric, describe_run
    from benchmark.store.folder import RunFolder
    from flexiact.task import Video

    request, backbone, perception = _asked(place)
    metrics = {name: describe_metric(name, perception.backends, request.headline) for name in request.metrics}
    suite = {"suite": request.suite, "suite_version": request.suite_version, "suite_digest": request.suite_digest}
    run = describe_run(suite, request.cases, request.seeds, backbone, {}, metrics)
    run["methods"] = dict(list(description(1)["methods"].items())[:1]) | run["methods"]
    one, two = (len(plan(run | {"seeds": seeds})) for seeds in ([0], [0, 1]))
    run["seeds"] = list(range(max(1, videos // (two - one))))
    folder, cells, random = RunFolder(place), plan(run), np.random.default_rng(0)
    folder.write_run(run | {"command": "made up", "provenance": {}, "later_sessions": []})
    for cell in cells:
        frame = random.integers(0, 256, (1, 16, 16, 3), np.uint8)
        _keep(folder, run, cell, Video(frame, 8.0), random.random(len(metrics)).tolist())
    return len(cells)


def _keep(folder: "RunFolder", run: Mapping[str, Any], cell: "Cell", video: "Video", values: Sequence[float]) -> None:
    """Write a video, its record and its scores."""
    from benchmark.store.gather import missing_row, write_scores
    from flexiact.media.video import frames_digest, write_lossless

    path, digest = folder.file("videos", f"{cell.key}.mkv"), frames_digest(video)
    write_lossless(folder.room_for(path), video)
    made: dict[str, Any] = {"video": folder.relative(path), "video_digest": digest, "video_bytes": path.stat().st_size}
    row = replace(missing_row(cell, 1, "none", "none"), status="ok", transfer_s=1.0, **made)
    entry = {"status": "ok", "error": None}
    metrics = {
        name: {"version": metric["version"], "backend": metric["backend"], "value": value} | entry
        for (name, metric), value in zip(run["metrics"].items(), values, strict=True)
    }
    folder.write_json("records", cell.key, asdict(row))
    write_scores(folder, row, metrics)


def gone_on(place: Path) -> int:
    """Start a session on a run that is all made and measured; return the number of its videos."""
    import pyarrow.parquet as pq

    from benchmark.stages.session import run_session

    outcome = run_session(*_asked(place))
    assert (outcome.made, outcome.scored) == (0, 0), "something of the made-up run was missing"
    return int(pq.read_metadata(place / "samples.parquet").num_rows)


def gone_over(command: str, place: Path) -> int:
    """Let a command go over a sound run; return the number of its videos."""
    done = subprocess.run([sys.executable, "-m", command, place], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(1 for _ in place.glob("records/*/*.json"))


def _asked(place: Path) -> "tuple[RunRequest, Backbone, Perception]":
    """A request of the bounds of one case, without networks."""
    import torch

    from benchmark.stages.session import RunRequest
    from benchmark.suites.puppets import load_suite
    from benchmark.workers.no_model import without_model
    from metrics import METRICS
    from metrics.perception import Perception

    suite = load_suite("puppets-smoke")
    cases, origin = suite.chosen(suite.case_ids[:1]), (suite.version, suite.digest)
    request = RunRequest(suite.name, cases, (), (0,), tuple(METRICS), place, suite.headline, *origin)
    return request, without_model((9, 64, 64, 8.0), torch.device("cpu")), Perception()


def description(references: int) -> dict[str, Any]:
    """A made-up run.json of all methods, bounds and metrics, `TARGETS` targets a reference, `SEEDS` seeds."""
    from benchmark.planning.methods import METHODS
    from benchmark.stages.describe import describe_bounds, describe_metric
    from benchmark.store.folder import SCHEMA_VERSION
    from benchmark.suites.puppets import HEADLINE
    from flexiact.method import PRESETS
    from metrics import METRICS

    backends = dict.fromkeys((str(metric.backend) for metric in METRICS.values()), "made up")
    config = vars(PRESETS["puppets"].fit)
    method = {"kind": "method", "version": 1, "summary": "made up", "extra_supervision": "", "adapter_mib": 0.5}
    method |= {"uses_reference": True, "transfer_config": {"guidance_scale": 3.0, "steps": 25}}
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


main = command(parser, _measure)

if __name__ == "__main__":
    sys.exit(main())
