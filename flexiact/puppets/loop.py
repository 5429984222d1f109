"""The one training loop behind every recipe of the puppet world: seeded, resumable, with its curve on disk."""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm


@dataclass(frozen=True)
class Plan:
    """What decides the outcome of a training run.

    Attributes:
        steps: optimiser steps in all.
        seed: of every random draw; step i always sees the same generator, so a resumed run equals an uninterrupted one.
        learning_rate: peak value, reached after `warmup` steps, held, then brought down to zero linearly over the last
            `decay` share of the steps.
        ema: decay of the exponential moving average of the weights, None for no average.
        checkpoint_every: steps between checkpoints.
    """

    steps: int
    seed: int
    learning_rate: float
    warmup: int = 50
    decay: float = 0.4
    ema: float | None = None
    checkpoint_every: int = 500

    @property
    def decay_from(self) -> int:
        """The first step whose rate is below the peak for good."""
        return self.steps - int(self.decay * self.steps)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, left)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one step, independent of every other step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


class _Matrix(nn.Module):
    """Parametrisation that stores a convolution's weight as the matrix that Muon wants."""

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


def build_optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices, which learns these small models in about half the steps, and AdamW for the rest.

    Input and output layers count as the rest: parameters whose name holds "embed", "proj_out", "conv_in" or "conv_out".
    """
    rest_names = ("embed", "proj_out", "conv_in", "conv_out", "shared")
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and min(parameter.shape) > 1 and not any(part in name for part in rest_names)
        (matrices if hidden else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=plan.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


class Checkpoint:
    """Model, average and optimisers of a run in one file that is replaced atomically."""

    def __init__(self, folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
        self.path, self.model, self.optimizers, self.seed = folder / "checkpoint.pt", model, optimizers, seed
        self.average: dict[str, Tensor] = {}

    def save(self, step: int) -> None:
        """Writes the state after `step` steps."""
        content = {"step": step, "seed": self.seed, "model": self.model.state_dict(), "average": self.average}
        content["optimizers"] = [o.state_dict() for o in self.optimizers]
        partial = self.path.with_suffix(".partial")
        torch.save(content, partial)
        partial.replace(self.path)

    def load(self) -> int:
        """Restores the newest state and returns its step, 0 when there is none.

        Raises:
            ValueError: the state belongs to a run with another seed.
        """
        if not self.path.exists():
            return 0
        content = torch.load(self.path, weights_only=True)
        if content["seed"] != self.seed:
            raise ValueError(f"seed: {self.path} was trained with seed {content['seed']}; name another --state folder")
        self.model.load_state_dict(content["model"])
        self.average = content["average"]
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return int(content["step"])

    def update_average(self, decay: float, step: int) -> None:
        """Moves the average towards the weights, faster in the beginning."""
        decay = min(decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if name not in self.average:
                    self.average[name] = value.detach().clone()
                elif value.is_floating_point():
                    self.average[name].lerp_(value.detach(), 1 - decay)


def train(model: nn.Module, loss_of: Callable[[int, torch.Generator], Tensor], plan: Plan, folder: Path) -> None:
    """Trains `model` in place; afterwards it holds the average where the plan asks for one.

    Args:
        model: moved to its device already.
        loss_of: the loss of a step, drawing all randomness from the generator it is given.
        plan: steps, seed and rates.
        folder: where checkpoint.pt and curve.csv are kept; a second call goes on from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _flatten_convolutions(model)
    optimizers = build_optimizers(model, plan)
    checkpoint = Checkpoint(folder, model, optimizers, plan.seed)
    first = checkpoint.load()
    model.train()
    recent: list[float] = []
    begun = time.monotonic()
    for step in tqdm(range(first, plan.steps), initial=first, total=plan.steps, desc=folder.name, mininterval=5):
        loss = loss_of(step, step_generator(plan.seed, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if plan.ema:
            checkpoint.update_average(plan.ema, step)
        recent.append(float(loss.detach()))
        if not math.isfinite(recent[-1]):
            raise ValueError(f"loss: not finite at step {step}; lower the learning rate")
        done = step + 1
        if done % 50 == 0 or done == plan.steps:
            _log(folder / "curve.csv", done, sum(recent) / len(recent), time.monotonic() - begun)
            recent.clear()
        if done % plan.checkpoint_every == 0 or done == plan.steps:
            checkpoint.save(done)
    if plan.ema and checkpoint.average:
        model.load_state_dict(checkpoint.average)
    _restore_convolutions(model)
    model.eval()


def _log(path: Path, step: int, loss: float, seconds: float) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "loss", "seconds"])
        writer.writerow([step, f"{loss:.6f}", f"{seconds:.1f}"])
