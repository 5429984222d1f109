"""All commands under one name: `flexiact-suite COMMAND ...` is `python -m MODULE ...`."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from benchmark.planning.selection import unknown

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("benchmark.run", "run methods on a suite, measure and report"),
    "score": ("benchmark.score", "score videos that were made elsewhere"),
    "merge": ("benchmark.merge", "join runs of one suite into one"),
    "exchange": ("benchmark.exchange", "scores from and for other tools; a run's card"),
    "compare": ("benchmark.compare", "what differs between two runs of one suite"),
    "status": ("benchmark.status", "how far a run is, and what it costs"),
    "verify": ("benchmark.verify", "check all digests of a run; run a sample again"),
    "cost": ("benchmark.cost", "what a comparison costs on a large model, computed"),
    "report": ("reports.build", "make the report of a run"),
    "prefer": ("benchmark.prefer", "blind pairs for people, and what their votes say"),
    "power": ("reports.power", "how many references a difference needs"),
    "replication": ("reports.replication", "which claims hold again on other references"),
    "difficulty": ("reports.difficulty", "curves over the suites of difficulty"),
    "transfer": ("flexiact", "one target image and one reference video to one video"),
    "tune": ("benchmark.tune", "tune methods on the development suite"),
    "guiding": ("benchmark.guiding", "what the signals of guided methods know"),
    "ablate": ("benchmark.ablate", "run an ablation: one method with other settings"),
    "publish": ("benchmark.publish", "list published results that are stale; make them"),
    "study": ("benchmark.study", "what metrics notice; where videos attend to the action"),
    "speed": ("benchmark.speed", "speed beside rivals"),
    "curate": ("benchmark.curate", "write the suites of puppet cases"),
    "memory": ("flexiact.memory", "which graphics cards a large model fits"),
    "checkpoints": ("flexiact.checkpoints", "the authors' files to ours and back"),
    "train-refadapter": ("flexiact.train_refadapter", "train RefAdapter on your own videos"),
    "train-puppets": ("flexiact.puppets.train", "train what the puppet world ships"),
    "leakage": ("flexiact.puppets.leakage", "how far training stays from what is tested"),
}
"""The words after `python -m` for every command, and one line for people."""


def main_of(module: str) -> Callable[[Sequence[str]], int]:
    """Return the function that `python -m MODULE` calls with its arguments."""
    spec = find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    return import_module(f"{module}.__main__" if is_package else module).main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, with the other arguments; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print("usage: flexiact-suite COMMAND [OPTION ...]    (COMMAND --help shows its options)\n")
        for name, (_, summary) in COMMANDS.items():
            print(f"  {name:17}{summary}")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"error: {unknown(words[0], list(COMMANDS), 'command')}", file=sys.stderr)
        return 2
    return main_of(COMMANDS[words[0]][0])(words[1:])


if __name__ == "__main__":
    sys.exit(main())
