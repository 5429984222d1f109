"""Train RefAdapter on untrimmed videos.

    accelerate launch -m flexiact.train_refadapter DATA --backbone NAME --out FOLDER

DATA is a folder of video files, each with its caption in a text file of the same name (`jump.mp4`, `jump.txt`), or a
.csv file with the header `path,caption`, whose paths are relative to its folder and stay inside.

Videos and captions are encoded once, by all processes together, into --cache; the training reads only that. Checkpoints
and the loss curve are kept in --state: after a stop the same command goes on there and ends as if nothing had happened.
More --steps go on as well; any other change that changes numbers needs another --state.

Every process draws --batch-size videos a step, and gradients are averaged over processes. On CPUs accelerate starts one
process only; more are started by `ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m flexiact.train_refadapter`.

Exit codes: 0 done; 2 stopped, for the reason in the line on standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs

from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.cli import BACKBONE_HELP, OneLineParser, one_line
from flexiact.train_refadapter.clip_cache import CacheConfig, CacheError, cache_clips
from flexiact.train_refadapter.clips import list_clips
from flexiact.train_refadapter.trainer import LongRun, RefAdapterConfig, train_long

PATIENCE = timedelta(hours=12)
"""So long processes wait for each other: the shares of a large data set are not encoded in equal times."""

TRACKERS = ("tensorboard", "wandb")


def parser() -> argparse.ArgumentParser:
    """The command line."""
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
    p.add_argument("--seed", type=int, default=0, help="of everything random (%(default)s)")
    p.add_argument("--ema", type=float, metavar="DECAY", help="write the weights' running average (none)")
    p.add_argument("--state", type=Path, metavar="FOLDER", help="checkpoint and curve (OUT.state)")
    p.add_argument("--checkpoint-every", type=int, default=500, metavar="STEPS", help="(%(default)s)")
    p.add_argument("--cache", type=Path, metavar="FOLDER", help="encoded clips (STATE/cache)")
    p.add_argument("--windows", type=int, default=cache.windows, help="random windows of a clip (%(default)s)")
    p.add_argument("--frames", type=int, default=cache.frames, help="random condition frames of a clip (%(default)s)")
    p.add_argument("--tracker", choices=TRACKERS, help="that gets the losses as well; tensorboard: in STATE")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    state = options.state or Path(f"{options.out}.state")
    installed = options.tracker in [str(tracker) for tracker in get_available_trackers()]
    accelerator = Accelerator(
        log_with=options.tracker if installed else None,
        project_dir=state,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    try:
        if options.tracker and not installed:
            raise ValueError(f"tracker: {options.tracker} is not installed (pip install {options.tracker})")
        message = train(options, state, accelerator)
    except (ValueError, OSError) as error:
        if accelerator.is_main_process or isinstance(error, CacheError):  # all others are the same in all processes
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    accelerator.end_training()
    if accelerator.is_main_process:
        print(message)
    return 0


def train(options: argparse.Namespace, state: Path, accelerator: Accelerator) -> str:
    """Encode, train, and write the adapter.

    Returns:
        A line about it.

    Raises:
        ValueError: naming what is wrong.
    """
    config = RefAdapterConfig(options.rank, options.alpha, options.steps, options.learning_rate, options.batch_size)
    run = LongRun(config, options.seed, state, options.checkpoint_every, options.ema)
    cache = CacheConfig(options.windows, options.frames, options.seed)
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"out: {options.out} is no folder")
    listed = list_clips(options.data)
    backbone = load_backbone(options.backbone, str(accelerator.device))
    clips = cache_clips(options.cache or state / "cache", backbone, listed, cache, accelerator)
    release_encoders(backbone)
    if accelerator.log_with:
        settings = {name: value for name, value in vars(options).items() if isinstance(value, int | float | str)}
        accelerator.init_trackers("refadapter", settings)
    adapter, losses = train_long(backbone, clips, run, accelerator)
    if accelerator.is_main_process:
        adapter.save(options.out)
    recent = losses[-100:]
    return f"{options.out}: mean loss of the last {len(recent)} steps {sum(recent) / len(recent):.4f}"


def release_encoders(backbone: Backbone) -> None:
    """Free the memory of the networks that training does not call; their sizes can still be asked for."""
    for network in (backbone.vae, backbone.text_encoder):
        network.to("meta")
    if backbone.device.type == "cuda":
        torch.cuda.empty_cache()
