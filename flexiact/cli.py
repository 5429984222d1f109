"""What commands share: errors told in one line, and the options about the device."""

import argparse
from typing import NoReturn

QUANTISE = ("8bit", "4bit")
BACKBONE_HELP = "puppets, cogvideox-5b-i2v, cogvideox-1.5-5b-i2v@COMMIT, or a folder in diffusers' layout"


class OneLineParser(argparse.ArgumentParser):
    """Leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        """End with the message and exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help shows the options)\n")


def add_device_options(p: argparse.ArgumentParser) -> None:
    """Add --device, --offload and --quantise; the last two make `flexiact.backbone.loading.Savings`."""
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (%(default)s)")
    p.add_argument("--offload", action="store_true", help="networks take turns on the GPU (python -m flexiact.memory)")
    p.add_argument("--quantise", choices=QUANTISE, help="the transformer's weights; other numbers; needs bitsandbytes")


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
