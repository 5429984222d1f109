"""RefAdapter's training: on given batches, or as a long run under accelerate that resumes after a kill.

Paper: FlexiAct (arXiv 2505.03730): AdamW at a constant rate, 40,000 steps of 8 untrimmed clips, weight 1 in training.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from flexiact.backbone.backbone import Backbone
from flexiact.batches import Batch
from flexiact.media.files import make_folder, replacing
from flexiact.ranges import check_count, check_seed
from flexiact.recorded import recorded
from flexiact.refadapter import RefAdapter
from flexiact.sampling import Denoiser
from flexiact.terminal.progress import counted
from flexiact.train_refadapter.configs import MAX_STEPS, RefAdapterConfig
from flexiact.train_refadapter.identity import identity_term
from flexiact.train_refadapter.state import TrainingState
from flexiact.training import Optimisation, check_finite, denoising_loss, frozen, optimise

LOG_EVERY = 50
"""Number of steps between reads of the losses: each read makes a GPU wait."""


class Clips(Protocol):
    """Source of batches for a long run."""

    @property
    def digest(self) -> str:
        """Digest of everything that the batches depend on."""

    def draw(self, backbone: Backbone, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch; all randomness comes from `generator`."""


@dataclass(frozen=True)
class LongRun:
    """Settings of a training whose state is kept on disk.

    Attributes:
        config: Settings of the adapter; the number of steps may be raised later, since the rate is constant.
        seed: Seed of the adapter's initial weights and of all draws.
        state: Folder of checkpoint.safetensors and curve.csv, made if missing; all processes must see it.
        checkpoint_every: Number of steps between checkpoints.
        ema: Decay of a running average of the weights, which then is the result; None (as in the paper) keeps none.

    Raises:
        ValueError: If a field is out of range; the message names it.
    """

    config: RefAdapterConfig
    seed: int
    state: Path
    checkpoint_every: int = 500
    ema: float | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_count("checkpoint_every", self.checkpoint_every)
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema: expected a decay between 0 and 1, got {self.ema}")

    @property
    def checkpoint(self) -> Path:
        """Path to the file that a stopped run resumes from."""
        return self.state / "checkpoint.safetensors"


def train_refadapter(
    backbone: Backbone, batches: Iterable[Batch], config: RefAdapterConfig, *, seed: int
) -> tuple[RefAdapter, list[float]]:
    """Train a new adapter in this process, and return it with the loss of every step; the backbone is left unchanged.

    Batches have conditions from anywhere in a video; `seed` is that of initial weights, noise and timesteps.
    """
    adapter = _new_adapter(backbone, config, seed)
    generator = torch.Generator().manual_seed(seed)
    denoiser = Denoiser(backbone)

    def loss_of(batch: Batch) -> Tensor:
        return _loss(denoiser, backbone, batch, config, generator)

    plan = Optimisation(config.steps, config.learning_rate)
    with frozen(backbone.transformer), adapter.attached(1.0):
        losses = optimise(adapter.parameters(), batches, loss_of, plan, label="RefAdapter")
    return adapter, losses


def train_long(
    backbone: Backbone, clips: Clips, run: LongRun, accelerator: Accelerator
) -> tuple[RefAdapter, list[float]]:
    """Train an adapter, or resume from its state folder; the backbone is left unchanged.

    All processes take each step together, with the mean of their gradients: P processes of B videos learn from P B
    videos per step. The randomness of a step depends on seed, process and step alone. So a resumed run ends like an
    unbroken one, bit by bit if the device is deterministic (a CPU is). One process of P B videos draws other clips than
    P processes of B: equal quality, different weights.

    Args:
        backbone: Backbone to adapt; its VAE and text encoder are not called.
        clips: Clips to draw from.
        run: Size, steps, learning rate and state folder.
        accelerator: Accelerator of this process; its trackers get the loss of every step.

    Returns:
        The adapter, the same in all processes, and the mean loss over processes of every step from the first on.

    Raises:
        ValueError: If the state is damaged, of another run or beyond `config.steps`, or the loss is not finite; raised
            in all processes.
        CacheError: If a clip's file cannot be read; raised in that process alone, and the launcher ends the others.
    """
    adapter = _new_adapter(backbone, run.config, run.seed)
    plan = Optimisation(run.config.steps, run.config.learning_rate)
    state = TrainingState(adapter.parameters(), plan, run.ema, _about(backbone, clips, run, accelerator))
    make_folder("state", run.state)
    state.load(run.checkpoint)
    if len(state.losses) > run.config.steps:
        raise ValueError(f"steps: {run.checkpoint} is at {len(state.losses)} already, {run.config.steps} asked for")
    with frozen(backbone.transformer), adapter.attached(1.0):
        _advance(backbone, clips, run, state, accelerator)
    state.use_average()
    return adapter, state.losses


def step_generator(seed: int, process: int, step: int) -> torch.Generator:
    """The source of all randomness of one step in one process.

    A CPU generator reads 32 bits of its seed; within a run of up to 4096 processes no two seeds are equal.
    """
    start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4])
    return torch.Generator().manual_seed((start + process * MAX_STEPS + step) % 2**32)


def average_gradients(parameters: Sequence[Tensor], accelerator: Accelerator) -> None:
    """Average gradients over all processes in one exchange: many small exchanges would each wait for the network.

    This is done by hand, since the trained layers are not one module that could be wrapped for distributed training.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _new_adapter(backbone: Backbone, config: RefAdapterConfig, seed: int) -> RefAdapter:
    check_seed(seed)
    adapter = RefAdapter(backbone.transformer, config.rank, config.alpha, seed)
    for parameter in adapter.parameters():  # half precision would lose steps as small as these
        parameter.data = parameter.data.float()
    return adapter


def _loss(
    denoiser: Denoiser, backbone: Backbone, batch: Batch, config: RefAdapterConfig, generator: torch.Generator
) -> Tensor:
    further = identity_term(config.identity_weight, backbone, batch)
    return denoising_loss(denoiser, backbone.scheduler, batch, generator, further=further)


def _advance(backbone: Backbone, clips: Clips, run: LongRun, state: TrainingState, accelerator: Accelerator) -> None:
    """Take the steps that are left, while the adapter is attached."""
    first, last = len(state.losses), run.config.steps
    steps: Iterable[int] = range(first, last)
    if accelerator.is_main_process:
        for unfinished in run.state.glob(".*.partial"):  # a kill in the middle of writing leaves it behind
            unfinished.unlink(missing_ok=True)
        steps = counted(steps, last, "RefAdapter", first=first)
    denoiser = Denoiser(backbone)
    recent: list[Tensor] = []
    for step in steps:
        generator = step_generator(run.seed, accelerator.process_index, step)
        batch = clips.draw(backbone, run.config.batch_size, generator)
        with torch.enable_grad():
            loss = _loss(denoiser, backbone, batch, run.config, generator)
            loss.backward()
        average_gradients(state.parameters, accelerator)
        state.take(step)
        recent.append(loss.detach())
        done = step + 1
        saving = done % run.checkpoint_every == 0 or done == last
        if saving or done % LOG_EVERY == 0:
            _note(state, recent, run.state / "curve.csv", accelerator)
            recent.clear()
        if saving and accelerator.is_main_process:
            state.save(run.checkpoint)


def _about(backbone: Backbone, clips: Clips, run: LongRun, accelerator: Accelerator) -> dict[str, Any]:
    """Everything that the result of a run depends on, as JSON values."""
    about = recorded(run.config)
    del about["steps"]
    return about | {
        "seed": run.seed,
        "ema": run.ema,
        "processes": accelerator.num_processes,
        "backbone": backbone.revision,
        "dtype": str(backbone.dtype),
        "clips": clips.digest,
    }


def _note(state: TrainingState, recent: Sequence[Tensor], curve: Path, accelerator: Accelerator) -> None:
    """Write the latest losses, averaged over processes, to the state, the curve on disk and the trackers."""
    losses = accelerator.reduce(torch.stack(list(recent)), "mean")
    first = len(state.losses) + 1
    check_finite([losses], first + len(recent) - 1)
    state.losses += losses.tolist()
    if not accelerator.is_main_process:
        return
    with replacing(curve) as unfinished:
        rows = [f"{step},{loss!r}\n" for step, loss in enumerate(state.losses, start=1)]
        unfinished.write_text("step,loss\n" + "".join(rows))
    for step, loss in enumerate(state.losses[first - 1 :], start=first):
        accelerator.log({"loss": loss}, step=step)
