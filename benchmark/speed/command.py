"""Measure costs, each timed together with its rival in one process: `python -m benchmark.speed`.

The command writes `<device>.json`, and tables (`.md`) and a plot (`.png`) made from it. A ratio is the median of the
ratios inside the rounds; its interval is their quartiles. Run again for other comparisons (`--only`), it adds them to
the file if environment and model are the same, and starts a new file otherwise. Each comparison names its code.
"""

import argparse
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.planning.selection import UsageError, select
from benchmark.workers.load import load, set_threads
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from benchmark.speed.comparison import Comparison
    from flexiact.backbone.backbone import Backbone

COMPARISONS = ("attention", "step", "transfer", "fit", "price")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.speed", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (%(default)s)")
    p.add_argument(
        "--out", type=Path, default=Path("reports/published/speed"), metavar="DIR", help="where to write (%(default)s)"
    )
    p.add_argument("--repeats", type=int, metavar="N", help="rounds of each comparison (what fits into 20 s, 3 to 50)")
    p.add_argument("--only", nargs="+", default=["all"], metavar="NAME", help=f"{', '.join(COMPARISONS)}, or all")
    p.add_argument("--run", type=Path, metavar="RUN", help="a finished run, whose videos per second are noted as well")
    return p


def whole_run(folder: Path) -> dict[str, Any]:
    """Videos per second of a finished run: all fits and transfers of its methods, without measuring.

    Raises:
        ValueError: If the run cannot be read, names no device, or has no video of a method.
    """
    from reports.run_folder import load_run

    run = load_run(folder)
    origin = run.info.get("provenance", {})
    if "device" not in origin or "threads" not in origin:
        raise ValueError(f"{folder}: run.json does not say which device it was made on")
    videos = run.samples[(run.samples["status"] == "ok") & run.samples["method"].isin(run.methods)]
    if videos.empty:
        raise ValueError(f"{folder}: holds no video of a method")
    fits = videos.drop_duplicates("fit_key")
    fit_s, transfer_s = float(fits["fit_s"].sum()), float(videos["transfer_s"].sum())
    return {
        "device": origin["device"],
        "threads": origin["threads"],
        "suite": run.info["suite"],
        "backbone": run.info["backbone"]["name"],
        "methods": int(videos["method"].nunique()),
        "videos": len(videos),
        "fits": len(fits),
        "fit_s": fit_s,
        "transfer_s": transfer_s,
        "videos_per_s": len(videos) / (fit_s + transfer_s),
    }


def slug(name: str) -> str:
    """Turn a device's name into a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def command_of(args: argparse.Namespace) -> str:
    """Rebuild the command line; absolute paths and paths with `..` are shortened to their last part."""
    words = ["python", "-m", "benchmark.speed", "--device", args.device, "--out", _short(args.out)]
    words += ["--repeats", str(args.repeats)] if args.repeats else []
    words += ["--only", *args.only]
    return shlex.join(words + (["--run", _short(args.run)] if args.run else []))


def _short(folder: Path) -> str:
    return folder.name if folder.is_absolute() or ".." in folder.parts else folder.as_posix()


def _run(args: argparse.Namespace) -> str:
    """Measure, write the files, and return the table."""
    names = select(args.only, COMPARISONS, "comparison")
    if args.repeats is not None and args.repeats < 1:
        raise UsageError(f"repeats: expected a number above 0, got {args.repeats}")
    whole = whole_run(args.run) if args.run else None
    set_threads(None)

    from benchmark.speed.comparison import clock_name, measure
    from benchmark.store.provenance import device_name, provenance
    from flexiact import PUPPET_WEIGHTS
    from reports.speed.times import SCHEMA_VERSION, write_page

    puppets = load("puppets", args.device, None, None)
    device = puppets.device
    weights = [PUPPET_WEIGHTS / name for name in ("backbone", "refadapter", "pose", "clip")]
    environment = provenance(device, weights) | {"clock": clock_name(device)}
    code = environment.pop("code")  # stored per comparison, since they may be measured at different times
    with tempfile.TemporaryDirectory() as folder:
        model, about = _model(puppets, Path(folder))
        result: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "device": device_name(device),
            "model": about,
            "environment": environment,
            "run": whole,
            "comparisons": {},
        }
        path = args.out / f"{slug(result['device'])}.json"
        result = _with_earlier(result, path)
        for name in names:
            print(f"measuring: {name}", file=sys.stderr)
            found = measure(_comparison(name, puppets, model), device, args.repeats)
            result["comparisons"][name] = {"command": command_of(args), "code": code, **found}
            write_json(result, path)  # after each comparison, so that a later failure loses none
    return write_page(path)


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Store a result, with comparisons in the order of `COMPARISONS`.

    Raises:
        ValueError: If a number is not finite.
        OSError: If the file cannot be written.
    """
    ordered = {name: result["comparisons"][name] for name in COMPARISONS if name in result["comparisons"]}
    text = json.dumps({**result, "comparisons": ordered}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    # A list's numbers share one line, since there are many rounds.
    text = re.sub(r"\[\s+([-\d.e,\s+]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _with_earlier(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """Add the comparisons that an earlier call stored for the same environment and model."""
    from reports.speed.times import load_speed

    if not path.exists():
        return result
    try:
        earlier = load_speed(path)
    except ValueError:  # another version or a damaged file: replaced as a whole
        return result
    if any(earlier[name] != result[name] for name in ("device", "model", "environment")):
        return result
    return {**result, "run": result["run"] or earlier["run"], "comparisons": dict(earlier["comparisons"])}


def _model(puppets: "Backbone", folder: Path) -> tuple["Backbone", str]:
    """Model to measure on, and its name in the first line of every output."""
    import torch

    from benchmark.speed.models import TEXT_ENCODER_GIB, five_b, gpu_memory_gib, large_gpu, random_backbone
    from reports.wording import backbone_size

    def described(backbone: "Backbone") -> str:
        fields = ("name", "num_parameters", "num_frames", "height", "width", "fps")
        return backbone_size({name: getattr(backbone, name) for name in fields})

    if not large_gpu(puppets.device):
        return puppets, f"the puppets backbone ({described(puppets)}), not the 5B model"
    whole = gpu_memory_gib(puppets.device) >= TEXT_ENCODER_GIB
    architecture = five_b() if whole else five_b(text_encoder_layers=1)
    model = random_backbone(architecture, puppets.tokenizer, puppets.device, torch.bfloat16, folder)
    words = "T5-XXL" if whole else "one layer of T5-XXL (the others have no room and are left out)"
    about = f"CogVideoX-5B-I2V's architecture with random weights ({described(model)}), {words} as text encoder"
    return model, f"{about}; prices on the puppets backbone"


def _comparison(name: str, puppets: "Backbone", model: "Backbone") -> "Comparison":
    """Build a comparison; only this one takes memory."""
    from functools import partial

    from benchmark.speed.attention import CPU_SHAPE, GPU_SHAPE, attention
    from benchmark.speed.price import price_on_suite
    from benchmark.speed.whole import fit, step, transfer

    shape = GPU_SHAPE if model.device.type == "cuda" else CPU_SHAPE
    return {
        "attention": partial(attention, shape, model.device),
        "step": partial(step, model),
        "transfer": partial(transfer, model),
        "fit": partial(fit, model),
        "price": partial(price_on_suite, puppets),
    }[name]()


main = command(parser, lambda options: print(_run(options)))
