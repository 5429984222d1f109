"""Train RefAdapter on untrimmed videos: `python -m flexiact.train_refadapter VIDEOS --backbone NAME --out FOLDER`.

VIDEOS is a folder of video files, each with its caption in a text file of the same name (`jump.mp4`, `jump.txt`). Under
`accelerate launch` every process takes its own part of the randomness and gradients are averaged.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from flexiact.adapter import RefAdapter
from flexiact.backbone import Backbone, load_backbone
from flexiact.batches import Batch, untrimmed_batch
from flexiact.command_line import BACKBONE_HELP
from flexiact.sampling import Denoiser
from flexiact.task import Video, check_seed
from flexiact.training import Optimisation, denoising_loss, frozen, optimise
from flexiact.video import fit_frames, read_video

VIDEO_SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


@dataclass(frozen=True)
class RefAdapterConfig:
    """How the adapter is made and trained; the defaults are the paper's.

    Attributes:
        rank: of every layer.
        alpha: layers are scaled by alpha / rank.
        steps: of AdamW.
        learning_rate: constant.
        batch_size: videos per step and process.
    """

    rank: int = 64
    alpha: float = 32
    steps: int = 40_000
    learning_rate: float = 1e-5
    batch_size: int = 8


def train_refadapter(
    backbone: Backbone,
    batches: Iterable[Batch],
    config: RefAdapterConfig,
    *,
    seed: int,
    accelerator: Accelerator | None = None,
) -> tuple[RefAdapter, list[float]]:
    """Train an adapter from nothing; the backbone is left as it was.

    Args:
        backbone: to adapt.
        batches: with conditions from anywhere in a video, as `untrimmed_batch` makes them.
        config: size, steps and rate.
        seed: of the adapter's beginning and of noise and timesteps.
        accelerator: averages gradients over processes, if there are several.

    Returns:
        The adapter, and the loss of every step.
    """
    check_seed(seed)
    adapter = RefAdapter(backbone.transformer, config.rank, config.alpha, seed)
    parameters = adapter.parameters()
    for parameter in parameters:  # half precision would lose steps as small as these
        parameter.data = parameter.data.float()
    rank = accelerator.process_index if accelerator else 0
    generator = torch.Generator().manual_seed(_process_seed(seed, rank))
    denoiser = Denoiser(backbone)

    def loss_of(batch: Batch) -> torch.Tensor:
        return denoising_loss(denoiser, backbone.scheduler, batch, generator)

    def backward(loss: torch.Tensor) -> None:
        loss.backward()
        if accelerator and accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")

    plan = Optimisation(config.steps, config.learning_rate)
    with frozen(backbone.transformer), adapter.attached(1.0):
        losses = optimise(parameters, batches, loss_of, plan, backward=backward, label="RefAdapter")
    return adapter, losses


def untrimmed_batches(
    backbone: Backbone, clips: Sequence[tuple[Video, str]], batch_size: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Random batches of videos and captions without end.

    Raises:
        ValueError: when there are no clips, or one does not fit the backbone.
    """
    if not clips:
        raise ValueError("clips: none given")
    while True:
        chosen = torch.randint(len(clips), (batch_size,), generator=generator).tolist()
        yield untrimmed_batch(backbone, [clips[index] for index in chosen], generator)


def read_clips(folder: Path, backbone: Backbone) -> list[tuple[Video, str]]:
    """Every video of a folder at the backbone's frame size, with its caption.

    Raises:
        ValueError: when there are no videos, one cannot be read or is too short, or a caption is missing.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
    clips = []
    for path in paths:
        caption = path.with_suffix(".txt")
        if not caption.is_file():
            raise ValueError(f"{path}: its caption {caption.name} is missing")
        video = read_video(path)
        if len(video.frames) < backbone.num_frames:
            raise ValueError(f"{path}: expected {backbone.num_frames} frames or more, got {len(video.frames)}")
        video = fit_frames(video, len(video.frames), backbone.height, backbone.width)
        clips.append((video, caption.read_text(encoding="utf-8").strip()))
    return clips


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    defaults = RefAdapterConfig()
    parser = argparse.ArgumentParser(prog="python -m flexiact.train_refadapter", description=__doc__)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="puppets", help=BACKBONE_HELP)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--rank", type=int, default=defaults.rank)
    parser.add_argument("--alpha", type=float, default=defaults.alpha)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    config = RefAdapterConfig(options.rank, options.alpha, options.steps, options.learning_rate, options.batch_size)
    accelerator = Accelerator()
    try:
        backbone = load_backbone(options.backbone, str(accelerator.device))
        # Another generator than the loss's, so that data and noise do not move together.
        generator = torch.Generator().manual_seed(_process_seed(options.seed, accelerator.process_index) + 1)
        batches = untrimmed_batches(backbone, read_clips(options.videos, backbone), config.batch_size, generator)
        adapter, losses = train_refadapter(backbone, batches, config, seed=options.seed, accelerator=accelerator)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if accelerator.is_main_process:
        adapter.save(options.out)
        recent = losses[-100:]
        print(f"{options.out}: mean loss of the last {len(recent)} steps {sum(recent) / len(recent):.4f}")
    return 0


def _process_seed(seed: int, rank: int) -> int:
    return (seed + 2_654_435_761 * rank) % (2**63 - 1)


if __name__ == "__main__":
    sys.exit(main())
