"""List which published results are stale, and make those anew: `python -m benchmark.publish [NAME ...] [--make]`.

A result is stale when something that it was made from has changed: its commands, a suite, weights, the plan of an
ablation, the settings or version of a method or bound, the version of a metric, of features or corruptions, the
renderer. Each result keeps this in `made.json`, with the time of all commands in its directory, those that failed or
were stopped included, and the peak memory of one of their processes. The replication's suite has to be drawn after
everything that claims are about (`benchmark.curate.replication`).

What has been made so far lies in DIR/NAME-DIGEST, where the digest is that of all these inputs: the same command goes
on there, and nothing of other inputs gets in. If what changed is only the version of a metric, the old directory may be
renamed to the name that is printed; then its videos are only measured again.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.planning.selection import select
from benchmark.publish.inputs import MADE, inputs_of, obstacles_to, stale
from benchmark.publish.products import CLAIMED, PRODUCTS, PUBLISHED, Product, commands_of
from flexiact.terminal.cli import OneLineParser, command

SPENT = "spent.txt"
"""File of a result's directory: seconds and peak memory (KiB) of every command that ran there, one a line."""
NAME_WIDTH = max(map(len, PRODUCTS)) + 2
_BETWEEN = """
import resource, signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
begun = time.monotonic()
code = subprocess.call([sys.executable, *sys.argv[2:]])
with open(sys.argv[1], "a") as file:
    print(f"{time.monotonic() - begun:.1f}", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(code)
"""


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.publish", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("names", nargs="*", default=["all"], metavar="NAME", help=f"results: {', '.join(PRODUCTS)} (all)")
    p.add_argument("--make", action="store_true", help="make what is missing or stale, one after the other")
    p.add_argument(
        "--runs", type=Path, default=Path("runs/publish"), metavar="DIR", help="run directories (%(default)s)"
    )
    p.add_argument("--out", type=Path, default=PUBLISHED, metavar="DIR", help="published results")
    return p


def _publish(options: argparse.Namespace) -> int:
    for name in select(options.names, list(PRODUCTS), "result"):
        inputs = inputs_of(PRODUCTS[name])
        obstacles = obstacles_to(PRODUCTS[name])
        reasons = obstacles + stale(options.out / name, inputs, commands_of(PRODUCTS[name]))
        print(f"{name:{NAME_WIDTH}}{'; '.join(reasons) or 'up to date'}", flush=True)
        if options.make and obstacles:
            raise ValueError(f"{name}: {obstacles[0]}")
        if options.make and reasons:
            make(PRODUCTS[name], options.out / name, options.runs, inputs)
    return 0


def place_of(name: str, runs: Path, inputs: dict[str, str], commands: list[str]) -> Path:
    """Folder in which a result is made: its name and 12 hex digits, the digest of its inputs and commands."""
    from flexiact.media.digests import json_digest

    return runs / f"{name}-{json_digest({'inputs': inputs, 'commands': commands})[:12]}"


def make(product: Product, folder: Path, runs: Path, inputs: dict[str, str]) -> None:
    """Run the commands of a result, then store what it was made from.

    Raises:
        ValueError: If a command fails; its own message stands above.
    """
    place = place_of(folder.name, runs, inputs, commands_of(product))
    print(f"made in {place}", flush=True)
    place.mkdir(parents=True, exist_ok=True)
    for step in product.steps:
        folders = {"runs": _near(place), "out": _near(folder), "claims": _near(CLAIMED)}
        words = ["-m", *(word.format(**folders) for word in step.split())]
        print(command := f"python {shlex.join(words)}", flush=True)
        if code := _ran(words, place / SPENT):
            raise ValueError(f"{command}: ended with {code}; the same command goes on when that is mended")
    folder.mkdir(parents=True, exist_ok=True)
    seconds, kib = zip(*(map(float, line.split()) for line in (place / SPENT).read_text().splitlines()), strict=True)
    made: dict[str, Any] = {
        "commands": commands_of(product),
        "minutes": round(sum(seconds) / 60, 1),
        "peak_memory_gib_of_a_process": round(max(kib) / 2**20, 2),
        "inputs": inputs,
    }
    (folder / MADE).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def _near(path: Path) -> Path:
    """The path from the working directory if it lies below, since results tell the command that made them."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _ran(words: Sequence[str], spent: Path) -> int:
    """Run Python with these words; return the exit code, and add a line to `SPENT`.

    A small process stands between, because Linux counts to a process the memory of the one that starts it.
    """
    process = subprocess.Popen([sys.executable, "-S", "-c", _BETWEEN, spent, *words])
    try:
        return process.wait()
    except KeyboardInterrupt:  # which the command has heard, too: it ends after what is in work
        process.wait()
        raise


main = command(parser, _publish)

if __name__ == "__main__":
    sys.exit(main())
