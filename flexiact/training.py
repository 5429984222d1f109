"""Losses and the optimiser's loop, for fits to one reference and for RefAdapter's training.

`optimise` takes any iterable of batches and any function from a batch to a loss, so that it serves fits and recipes on
rendered clips alike. A long run under accelerate (`flexiact.train_refadapter.trainer`) takes the same steps.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from tqdm import tqdm

from flexiact.batches import Batch as Batch
from flexiact.resuming import begin_loop
from flexiact.sampling import Denoiser

MIN_NOISE = 1e-5
"""Smallest 1 - abar in the loss's weight. In CogVideoX' own schedules it stays above 8e-4; in a schedule that starts
without noise the weight of the first timestep would otherwise be unbounded."""

CHECKPOINTING_PARAMETERS = 10**9
"""Number of parameters from which on activation checkpointing is used: same numbers, a fraction of the memory."""


Term = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Further term of a loss: a function of predicted clean latents, true ones (both [B, F, C, h, w]) and abar
[B, 1, 1, 1, 1], all float32."""


@dataclass(frozen=True)
class Optimisation:
    """Settings of AdamW at a constant rate; gradients with a norm above `max_grad_norm` are scaled down to it."""

    steps: int
    learning_rate: float
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0


def denoising_loss(
    denoiser: Denoiser,
    scheduler: Any,
    batch: Batch,
    generator: torch.Generator,
    *,
    further: Term | None = None,
    attention_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """Mean over the batch of (1 / (1 - abar)) |x - x0|^2, plus a further term.

    x is the clean latent that the model's prediction implies, x0 the true one; the norm is a mean over elements.
    Timesteps are uniform, drawn with noise from `generator` on the CPU.

    Args:
        denoiser: Model to train.
        scheduler: Scheduler with the noise levels and the model's prediction type.
        batch: Clean latents and conditions.
        generator: Source of all randomness, on the CPU.
        further: Function of x, x0 and abar that gives a term to add.
        attention_kwargs: Keyword arguments of the attention processors.

    Returns:
        A float32 scalar.
    """
    clean = batch.clean
    timestep, abar, _, noisy = noised(clean, scheduler, generator)
    prediction = denoiser(noisy.to(clean.dtype), batch.condition, batch.text, timestep, attention_kwargs)
    predicted = predicted_clean(prediction.float(), noisy, abar, scheduler.config.prediction_type)
    weight = 1 / (1 - abar).clamp_min(MIN_NOISE)
    loss = (weight * (predicted - clean.float()).square()).mean()
    return loss if further is None else loss + further(predicted, clean.float(), abar)


def debias_term(weight: float, generator: torch.Generator) -> Term | None:
    """Term weight * |sqrt(2) e[i+1] - e[i]|^2 with e = x - x0, on changes between frames instead of their appearance.

    i is a random latent frame, drawn from `generator` on the CPU; the norm is a mean over elements. At weight 0
    there is no term, and a model of one latent frame has none.
    """

    def change(predicted: Tensor, clean: Tensor, abar: Tensor) -> Tensor:
        error = predicted - clean
        if error.shape[1] == 1:
            return error.new_zeros(())
        rows = torch.arange(len(error))
        frame = torch.randint(error.shape[1] - 1, (len(error),), generator=generator)
        return weight * (math.sqrt(2) * error[rows, frame + 1] - error[rows, frame]).square().mean()

    return change if weight else None


def noised(clean: Tensor, scheduler: Any, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Add noise to clean latents [B, F, C, h, w] at uniform timesteps; `generator` draws both on the CPU.

    Returns:
        Timestep, int64 [B]; abar [B, 1, 1, 1, 1], noise and noisy latents [B, F, C, h, w], all float32.
    """
    abars = scheduler.alphas_cumprod
    timestep = torch.randint(len(abars), (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    abar = abars[timestep.to(abars.device)].to(clean.device, torch.float32).view(-1, 1, 1, 1, 1)
    return timestep.to(clean.device), abar, noise, abar.sqrt() * clean.float() + (1 - abar).sqrt() * noise


def predicted_clean(prediction: Tensor, noisy: Tensor, abar: Tensor, prediction_type: str) -> Tensor:
    """The clean latents that a prediction implies.

    At a terminal signal-to-noise ratio of zero (abar = 0) a predicted velocity still determines the clean latents, but
    predicted noise does not. For `epsilon`, abar is therefore at least `MIN_NOISE`.

    Raises:
        ValueError: For an unknown prediction type.
    """
    if prediction_type == "v_prediction":
        return abar.sqrt() * noisy - (1 - abar).sqrt() * prediction
    if prediction_type == "epsilon":
        return (noisy - (1 - abar).sqrt() * prediction) / abar.clamp_min(MIN_NOISE).sqrt()
    if prediction_type == "sample":
        return prediction
    raise ValueError(f"prediction_type: unknown {prediction_type!r}")


def optimise(
    parameters: Sequence[Tensor],
    batches: Iterable[Batch],
    loss_of: Callable[[Batch], Tensor],
    plan: Optimisation,
    *,
    label: str = "fit",
    generator: torch.Generator | None = None,
) -> list[float]:
    """Take `plan.steps` steps, one batch each, and return their losses; a terminal shows a progress bar after 5 s.

    Parameters are trained in place. Inside `flexiact.resuming.resumable` a long loop stores its state, and resumes from
    there, if it knows the generator from which batches and losses draw.

    Raises:
        ValueError: If batches run out, or the loss is not finite.
    """
    optimiser = new_optimiser(parameters, plan)
    source, loop = iter(batches), begin_loop(parameters, optimiser, generator)
    losses: list[Tensor] = loop.restore() if loop else []
    left = range(len(losses), plan.steps)
    for step in tqdm(left, initial=left.start, total=plan.steps, desc=label, delay=5, leave=False, disable=None):
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"batches: ran out after {step} of {plan.steps} steps")
        with torch.enable_grad():
            loss = loss_of(batch)
            loss.backward()
        take_step(optimiser, parameters, plan)
        losses.append(loss.detach())
        if step % 50 == 49 or step == plan.steps - 1:  # not in every step, because reading a number makes a GPU wait
            check_finite(losses[-50:], step)
        if loop:
            loop.after_step(losses, last=step == plan.steps - 1)
    return [float(loss) for loss in losses]


def new_optimiser(parameters: Sequence[Tensor], plan: Optimisation) -> torch.optim.AdamW:
    """AdamW with the plan's settings."""
    return torch.optim.AdamW(
        parameters, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay, fused=True
    )


def take_step(optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], plan: Optimisation) -> None:
    """Scale the gradients down to the plan's norm, take an optimiser step, and clear them."""
    torch.nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def check_finite(losses: Sequence[Tensor], step: int) -> None:
    """Refuse losses that are not finite; the last one is that of `step`.

    Raises:
        ValueError: If a loss is not finite; the message names the step.
    """
    if not torch.isfinite(torch.stack(list(losses))).all():
        raise ValueError(f"loss: not finite by step {step}; lower the learning rate, or look at the input")


@contextmanager
def frozen(transformer: CogVideoXTransformer3DModel) -> Iterator[None]:
    """Freeze the transformer's own weights inside; turn on activation checkpointing for large models."""
    before = [(parameter, parameter.requires_grad) for parameter in transformer.parameters()]
    checkpointing = transformer.gradient_checkpointing
    large = sum(parameter.numel() for parameter, _ in before) >= CHECKPOINTING_PARAMETERS
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        if large and not checkpointing:
            transformer.enable_gradient_checkpointing()
        yield
    finally:
        for parameter, needed in before:
            parameter.requires_grad_(needed)
        if large and not checkpointing:
            transformer.disable_gradient_checkpointing()
