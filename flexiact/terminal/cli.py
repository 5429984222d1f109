"""Parts that commands share: the parser, the report of errors, and the options about the device."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from flexiact.terminal.notes import each_once

QUANTISE = ("8bit", "4bit")
DTYPES = ("float32", "bfloat16", "float16")
BACKBONE_HELP = "puppets, cogvideox-5b-i2v, cogvideox-1.5-5b-i2v@COMMIT, or a folder in diffusers' layout"


_LONGEST = 2000  # letters of an error, which may quote a file

Work = Callable[[argparse.Namespace], int | None]
"""The work of a command with its parsed options; it returns an exit code, or None for 0."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line; only --help prints the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message and code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help shows the options)\n")


def command(
    parser: Callable[[], argparse.ArgumentParser], work: Work, interrupted: str = "stopped"
) -> Callable[..., int]:
    """The `main` of a command: `run` as a function of the arguments alone, which default to those of the process."""

    def main(arguments: Sequence[str] | None = None) -> int:
        return run(parser(), work, arguments, interrupted)

    return main


def run(
    parser: argparse.ArgumentParser, work: Work, arguments: Sequence[str] | None, interrupted: str = "stopped"
) -> int:
    """Parse the arguments and do the work; return its exit code, 2 after an error, or 130 after Ctrl-C.

    Args:
        parser: Parser of the command.
        work: Function of the parsed options and `command`, the whole command line. Its ValueErrors and OSErrors become
            one line on standard error.
        arguments: Command-line arguments; None: those of the process.
        interrupted: Line to print on standard error after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    whole = f"{parser.prog} {shlex.join(words)}".strip()
    options = parser.parse_args(words, argparse.Namespace(command=whole))
    try:
        with each_once():
            return work(options) or 0
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130


def add_device_options(p: argparse.ArgumentParser) -> None:
    """Add --device, and an option for each field of `flexiact.backbone.loading.Savings`."""
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (%(default)s)")
    p.add_argument("--offload", action="store_true", help="networks take turns on the GPU (python -m flexiact.memory)")
    p.add_argument("--quantise", choices=QUANTISE, help="the transformer's weights; other numbers; needs bitsandbytes")
    p.add_argument(
        "--dtype", choices=DTYPES, help="of the networks; other numbers (float32; 5B models on a GPU: bfloat16)"
    )


def shortened(text: str, most: int) -> str:
    """A text on one line of at most so many letters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def one_line(error: BaseException) -> str:
    """The message of an error on one line, or its class if the message is empty; what is far too long is cut."""
    return shortened(str(error), _LONGEST) or type(error).__name__
