"""RefAdapter's training from a folder of videos to the written adapter."""

import argparse
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs

from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.train_refadapter.clip_cache import CacheError, cache_clips
from flexiact.train_refadapter.clips import list_clips
from flexiact.train_refadapter.configs import CacheConfig, RefAdapterConfig
from flexiact.train_refadapter.trainer import LongRun, train_long

PATIENCE = timedelta(hours=12)
"""Longest time that processes wait for each other: shares of a large data set take unequal times to encode."""


def train_on_files(options: argparse.Namespace) -> int:
    """Run the command in one of accelerate's processes.

    Returns:
        The exit code: 0, or 2 in a process that leaves the error message to the main process.

    Raises:
        ValueError: If the training fails; raised in the main process, and in one that cannot read its cache.
        OSError: If the system fails; raised in the same processes.
    """
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
            raise
        return 2
    accelerator.end_training()
    if accelerator.is_main_process:
        print(message)
    return 0


def train(options: argparse.Namespace, state: Path, accelerator: Accelerator) -> str:
    """Encode, train, and write the adapter; return a line with its folder and the mean loss of the last steps.

    Raises:
        ValueError: If the data, a setting or the state is wrong; the message names it.
    """
    config = RefAdapterConfig(
        options.rank,
        options.alpha,
        options.steps,
        options.learning_rate,
        options.batch_size,
        options.identity_weight,
    )
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
    """Free the memory of the networks that training does not call; their sizes can still be read."""
    for network in (backbone.vae, backbone.text_encoder):
        network.to("meta")
    if backbone.device.type == "cuda":
        torch.cuda.empty_cache()
