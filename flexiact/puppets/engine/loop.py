"""The one training loop behind every recipe of the puppet world: seeded, resumable, with its curve on disk."""

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from flexiact.puppets.engine import averages, checkpoint, processes
from flexiact.puppets.engine.checkpoint import Progress
from flexiact.puppets.engine.muon import BatchedMuon

CHECKPOINT = "checkpoint.safetensors"
_CURVE = "curve.csv"
_LOG_EVERY = 50


def kept_name(step: int | str) -> str:
    """File name of the checkpoint that is kept after a step."""
    return f"step-{step}.safetensors"


@dataclass(frozen=True)
class Plan:
    """Settings that decide the outcome of a training run.

    Attributes:
        steps: Number of optimiser steps in all.
        seed: Seed of every random draw; step i always sees the same generator, so a resumed run equals an unbroken one.
        learning_rate: Peak value. It is reached after `warmup` steps, held, and lowered linearly to zero over the last
            `decay` share of the steps; a `decay` of 0 holds it to the end.
        draws: Device of the steps' generators; another device draws other numbers.
        averages: Relative widths of the power-function averages of the weights.
        kept: Steps after which the checkpoint is kept, see `kept_name`.
    """

    steps: int
    seed: int
    learning_rate: float
    warmup: int = 50
    decay: float = 0.4
    averages: tuple[float, ...] = ()
    kept: tuple[int, ...] = ()
    draws: str = "cpu"

    @property
    def decay_from(self) -> int:
        """The first step whose rate is below the peak for good."""
        return self.steps - round(self.decay * self.steps)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / max(1, self.steps - self.decay_from)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, left)


@dataclass(frozen=True)
class Pace:
    """Times at which a run is logged, stored and stopped; they never change its result.

    Attributes:
        checkpoint_minutes: Minutes between two checkpoints.
        stop_minutes: Minutes until the run is stored and stopped; None runs to the end.
        look_every: Number of steps between two reads of loss and clock; each read makes a GPU wait.
        publish: Function that gets the progress after every checkpoint.
    """

    checkpoint_minutes: float = 5.0
    stop_minutes: float | None = None
    look_every: int = 1
    publish: Callable[[Progress], None] | None = None


def look_every(device: torch.device) -> int:
    """Number of steps between two reads that costs a device little time; a divisor of the curve's 50."""
    return 1 if device.type == "cpu" else 25


def step_generator(seed: int, step: int, device: str = "cpu") -> torch.Generator:
    """The source of all randomness of one step, independent of every other step."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


class _Matrix(nn.Module):
    """Parametrisation that stores a convolution's weight as the matrix that Muon needs."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, matrix: Tensor) -> Tensor:
        return matrix.view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.flatten(1)


def _flatten_convolutions(model: nn.Module) -> None:
    for module in [m for m in model.modules() if isinstance(m, nn.Conv3d | nn.Conv2d)]:
        parametrize.register_parametrization(module, "weight", _Matrix(module.weight.shape))


def _restore_convolutions(model: nn.Module) -> None:
    for module in [m for m in model.modules() if parametrize.is_parametrized(m, "weight")]:
        parametrize.remove_parametrizations(module, "weight")


def put_kept(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights of a checkpoint, where convolutions are matrices, into the model."""
    _flatten_convolutions(model)
    checkpoint.put_weights(model, weights)
    _restore_convolutions(model)


def build_optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Build Muon for hidden matrices and AdamW for the rest.

    Muon trains these small models in about half the steps. Input and output layers belong to the rest: parameters whose
    name contains "embed", "proj_out", "conv_in" or "conv_out", and the text encoder's embedding ("shared").
    """
    rest_names = ("embed", "proj_out", "conv_in", "conv_out", "shared")
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        hidden = parameter.ndim == 2 and min(parameter.shape) > 1 and not any(part in name for part in rest_names)
        (matrices if hidden else rest).append(parameter)
    muon = BatchedMuon(matrices, lr=plan.learning_rate)
    adam = torch.optim.AdamW(rest, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


def train(
    model: nn.Module,
    loss_of: Callable[[int, torch.Generator], Tensor],
    plan: Plan,
    folder: Path,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
    about: dict[str, str] | None = None,
) -> bool:
    """Train `model` in place. A finished model holds the first of the plan's averages, if there are any.

    Args:
        model: Model, already on its device.
        loss_of: Function from step and generator to the loss. All randomness comes from the generator. With several
            processes it is the loss of this process's rows.
        plan: Steps, seed and learning rate.
        folder: Folder of checkpoint.safetensors and curve.csv; a second call resumes from there.
        pace: Times to store and to stop.
        about: Facts to store with the run, added to those of earlier starts; "origin" is written to the curve.

    Returns:
        True if the run is finished.

    Raises:
        ValueError: If the loss is not finite, or the folder holds another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _flatten_convolutions(model)
    optimizers = build_optimizers(model, plan)
    progress = Progress(plan.seed, about=about or {})
    if (folder / CHECKPOINT).exists():
        progress = checkpoint.load(folder / CHECKPOINT, model, optimizers, plan.seed)
        progress.about |= about or {}
    model.train()
    _run(model, loss_of, plan, _Writer(folder, model, optimizers, progress, pace))
    finished = progress.step >= plan.steps
    if finished and plan.averages:
        checkpoint.put_weights(model, progress.averages[plan.averages[0]])
    _restore_convolutions(model)
    model.eval()
    return finished


class _Writer:
    """Writer of a run's files; only process 0 writes."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        progress: Progress,
        pace: Pace,
    ) -> None:
        self.folder, self.model, self.optimizers, self.progress, self.pace = folder, model, optimizers, progress, pace
        self.begun = self.stored = time.monotonic()
        self.losses: list[float] = []
        self.looked = progress.step
        if processes.rank() == 0 and (folder / _CURVE).exists():
            self._forget_later_rows()

    def out_of_time(self) -> bool:
        minutes = self.pace.stop_minutes
        return minutes is not None and time.monotonic() - self.begun >= 60 * minutes

    def after_look(self, loss: float, last: bool, kept: bool) -> None:
        self.losses += [loss] * (self.progress.step - self.looked)
        self.looked = self.progress.step
        if processes.rank():
            return
        if self.progress.step % _LOG_EVERY == 0 or last:
            self._log()
        if kept:  # first, so that a run stopped between the two stores this again
            self._store(kept_name(self.progress.step))
        if last or kept or time.monotonic() - self.stored >= 60 * self.pace.checkpoint_minutes:
            self._store(CHECKPOINT)
            if self.pace.publish:
                self.pace.publish(self.progress)

    def _store(self, name: str) -> None:
        checkpoint.save(self.folder / name, self.model, self.optimizers, self.progress)
        self.stored = time.monotonic()

    def _forget_later_rows(self) -> None:
        """Drop the curve's rows after the checkpoint; their steps are run and logged again."""
        lines = (self.folder / _CURVE).read_text().splitlines(keepends=True)
        if not lines:  # stopped before its first row was flushed
            return
        header, *rows = lines
        done = [row for row in rows if int(row.split(",")[0]) <= self.progress.step]
        (self.folder / _CURVE).write_text("".join([header, *done]))

    def _log(self) -> None:
        path, new = self.folder / _CURVE, not (self.folder / _CURVE).exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "loss", "seconds", "origin"])
            loss, seconds = sum(self.losses) / len(self.losses), time.monotonic() - self.begun
            origin = self.progress.about.get("origin", "seed")
            writer.writerow([self.progress.step, f"{loss:.6f}", f"{seconds:.1f}", origin])
        self.losses.clear()


def _update(model: nn.Module, plan: Plan, writer: _Writer) -> None:
    """Step the optimisers with the gradients, then update the averages."""
    progress, step = writer.progress, writer.progress.step
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in writer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    for width in plan.averages:
        averages.update(progress.averages.setdefault(width, {}), checkpoint.weights_of(model), width, step)
    progress.step = step + 1


def _run(model: nn.Module, loss_of: Callable[[int, torch.Generator], Tensor], plan: Plan, writer: _Writer) -> None:
    first = writer.progress.step
    bar = tqdm(
        range(first, plan.steps),
        initial=first,
        total=plan.steps,
        desc=writer.folder.name,
        mininterval=5,
        disable=processes.rank() > 0,
    )
    unread: list[Tensor] = []
    for step in bar:
        loss = loss_of(step, step_generator(plan.seed, step, plan.draws))
        loss.backward()
        unread.append(loss.detach())
        kept, last = step + 1 in plan.kept, step + 1 == plan.steps
        figures, look = torch.zeros(2), kept or last or (step + 1) % writer.pace.look_every == 0
        if look:
            figures = torch.tensor([float(torch.stack(unread).mean()), float(writer.out_of_time())])
            unread.clear()
        # All processes must stop after the same step: one that is out of time stops all.
        mean, stop = processes.average(model.parameters(), figures).tolist()
        if not math.isfinite(mean):
            raise ValueError(f"loss: not finite at step {step}; lower the learning rate")
        _update(model, plan, writer)
        if look:
            writer.after_look(mean, last or stop > 0, kept)
        if stop:
            break
