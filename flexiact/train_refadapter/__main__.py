"""Train RefAdapter on untrimmed videos.

    accelerate launch -m flexiact.train_refadapter DATA --backbone NAME --out FOLDER

DATA is a folder of video files, each with its caption in a text file of the same name (`jump.mp4`, `jump.txt`), or a
.csv file with the header `path,caption`, whose paths are relative to its folder and stay inside.

Videos and captions are encoded once, by all processes together, into --cache; training reads only this cache.
Checkpoints and the loss curve are kept in --state: after a stop the same command resumes there, and the result is the
same as without a stop. It also resumes with more --steps; any other change that affects the result needs a new --state.

Every process draws --batch-size videos per step, and gradients are averaged over processes. On CPUs accelerate starts
only one process; start more by `ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m flexiact.train_refadapter`.

Exit codes: 0 done; 2 stopped, with the reason in one line on standard error.
"""

import argparse
import sys
from pathlib import Path

from flexiact.terminal.cli import BACKBONE_HELP, OneLineParser, command
from flexiact.train_refadapter.configs import CacheConfig, RefAdapterConfig

TRACKERS = ("tensorboard", "wandb")


def parser() -> argparse.ArgumentParser:
    """The command line; reading it loads no network library."""
    config, cache = RefAdapterConfig(), CacheConfig()
    usage = argparse.RawDescriptionHelpFormatter
    p = OneLineParser(prog="python -m flexiact.train_refadapter", description=__doc__, formatter_class=usage)
    p.add_argument("data", type=Path, metavar="DATA", help="folder of videos, or table path,caption")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the adapter, in peft's format")
    p.add_argument("--backbone", default="puppets", help=f"{BACKBONE_HELP} (%(default)s)")
    p.add_argument("--steps", type=int, default=config.steps, help="of AdamW (%(default)s)")
    p.add_argument("--rank", type=int, default=config.rank, help="of every layer (%(default)s)")
    p.add_argument("--alpha", type=float, default=config.alpha, help="layers are scaled by alpha / rank (%(default)s)")
    p.add_argument("--learning-rate", type=float, default=config.learning_rate, help="constant (%(default)s)")
    p.add_argument("--batch-size", type=int, default=config.batch_size, help="per step and process (%(default)s)")
    p.add_argument(
        "--identity-weight", type=float, default=config.identity_weight, metavar="WEIGHT",
        help="of a loss that keeps the image's look; ours, not the paper's (%(default)s)",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=0, help="of everything random (%(default)s)")
    p.add_argument("--ema", type=float, metavar="DECAY", help="write the weights' running average (none)")
    p.add_argument("--state", type=Path, metavar="FOLDER", help="checkpoint and curve (OUT.state)")
    p.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS", help="(%(default)s)")
    p.add_argument("--cache", type=Path, metavar="FOLDER", help="encoded clips (STATE/cache)")
    p.add_argument("--windows", type=int, default=cache.windows, help="random windows of a clip (%(default)s)")
    p.add_argument("--frames", type=int, default=cache.frames, help="random condition frames of a clip (%(default)s)")
    p.add_argument("--tracker", choices=TRACKERS, help="that gets the losses as well; tensorboard: in STATE")
    return p


def _train(options: argparse.Namespace) -> int:
    from flexiact.train_refadapter.command import train_on_files

    return train_on_files(options)


main = command(parser, _train)

if __name__ == "__main__":
    sys.exit(main())
