"""All commands under one name: `flexiact-suite COMMAND ...` is `python -m MODULE ...`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from benchmark.selection import unknown


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: What follows `python -m`.
        module: Module whose `main` takes the arguments.
        summary: One line for people.
    """

    name: str
    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "run": Command("benchmark.run", "benchmark.run", "run methods on a suite, measure and report"),
    "report": Command("reports.build", "reports.build", "make the report of a run"),
    "difficulty": Command("reports.difficulty", "reports.difficulty", "curves over the suites of difficulty"),
    "transfer": Command("flexiact", "flexiact.__main__", "one target image and one reference video to one video"),
    "tune": Command("benchmark.tune", "benchmark.tune.trials", "tune methods on the development suite"),
    "guiding": Command("benchmark.guiding", "benchmark.guiding.signals", "what the signals of guided methods know"),
    "speed": Command("benchmark.speed", "benchmark.speed.command", "speed beside rivals"),
    "curate": Command("benchmark.curate", "benchmark.curate.command", "write the suites of puppet cases"),
    "memory": Command("flexiact.memory", "flexiact.memory.check", "which graphics cards a large model fits"),
    "checkpoints": Command(
        "flexiact.checkpoints", "flexiact.checkpoints.convert", "the authors' files to ours and back"
    ),
    "train-refadapter": Command(
        "flexiact.train_refadapter", "flexiact.train_refadapter.command", "train RefAdapter on your own videos"
    ),
    "train-puppets": Command("flexiact.puppets.train", "flexiact.puppets.train", "train what the puppet world ships"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the arguments to the command that the first of them names; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print("usage: flexiact-suite COMMAND [OPTION ...]    (COMMAND --help shows its options)\n")
        for name, command in COMMANDS.items():
            print(f"  {name:17}{command.summary}")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"error: {unknown(words[0], list(COMMANDS), 'command')}", file=sys.stderr)
        return 2
    code: int = import_module(COMMANDS[words[0]].module).main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
