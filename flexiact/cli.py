"""What commands share: one parser, one way to tell errors, and the options about the device."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from flexiact.notes import each_once

QUANTISE = ("8bit", "4bit")
BACKBONE_HELP = "puppets, cogvideox-5b-i2v, cogvideox-1.5-5b-i2v@COMMIT, or a folder in diffusers' layout"


Work = Callable[[argparse.Namespace], int | None]
"""What a command does with its options: it returns an exit code, None for 0."""


class OneLineParser(argparse.ArgumentParser):
    """Leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        """End with the message and exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help shows the options)\n")


def run(
    parser: argparse.ArgumentParser, work: Work, arguments: Sequence[str] | None, interrupted: str = "stopped"
) -> int:
    """Parse the arguments and do the work; the body of every command's `main`.

    Args:
        parser: The command's own.
        work: Called with the parsed options. Its ValueErrors and OSErrors are told in one line on standard error.
        arguments: Command-line arguments; None takes those of the process.
        interrupted: The line on standard error after Ctrl-C.

    Returns:
        The exit code: the work's own, 2 after an error, 130 after Ctrl-C.
    """
    options = parser.parse_args(arguments)
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
    """Add --device, --offload and --quantise; the last two make `flexiact.backbone.loading.Savings`."""
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (%(default)s)")
    p.add_argument("--offload", action="store_true", help="networks take turns on the GPU (python -m flexiact.memory)")
    p.add_argument("--quantise", choices=QUANTISE, help="the transformer's weights; other numbers; needs bitsandbytes")


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
