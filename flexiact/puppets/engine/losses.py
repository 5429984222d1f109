"""Loss of the puppet backbone: the velocity's squared error and optional terms."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flexiact.puppets.engine import processes

LEAST_MOVEMENT = 0.05
"""Lower bound of the energy that a clip's loss is divided by: a twentieth of a latent's variance."""


@dataclass(frozen=True)
class LossTerms:
    """Weights of the optional terms of the loss; if all are 0, the loss is the squared error alone.

    Attributes:
        movement: Share of `movement_weights` in the weights of clips, 0 to 1.
        contrast: Weight of `contrast_loss`.
        pointing: Weight of a term for the keypoints, see recipes.backbone.pointer.
        channels: Exponent of the channels' variance in `channel_weights`, 0 to 1.
    """

    movement: float = 0.0
    contrast: float = 0.0
    pointing: float = 0.0
    channels: float = 0.0

    def scaled(self, share: float) -> "LossTerms":
        """Return all weights but that of the channels times `share`, which falls to 0 in training.

        Movement and contrast shift the best prediction; a weight for each channel does not.
        """
        return LossTerms(share * self.movement, share * self.contrast, share * self.pointing, self.channels)


class Batch(NamedTuple):
    """Clean latents [B, F, C, h, w], zero-padded condition latents, ids [B, L], keypoints [B, T, K, 2] if known."""

    clean: Tensor
    condition: Tensor
    ids: Tensor
    points: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Noising:
    """Settings of the noising.

    Attributes:
        alphas: Noise schedule [T] (alphas_cumprod).
        rotary: Rotary positions.
        precision: Dtype of matrix products.
        variance: Variance [C] of the clean latents' channels; None: not known, and `LossTerms.channels` must be 0.
    """

    alphas: Tensor
    rotary: tuple[Tensor, Tensor]
    precision: torch.dtype = torch.bfloat16
    variance: Tensor | None = None


def movement_weights(clean: Tensor) -> Tensor:
    """Weights [B] of mean 1, inverse to the energy of a clip's latents [B, F, C, h, w] minus their first frame."""
    energy = (clean - clean[:, :1]).square().flatten(1).mean(1)
    weights = 1 / energy.clamp(min=LEAST_MOVEMENT)
    return weights / weights.mean()


def contrast_loss(predicted: Tensor, other: Tensor) -> Tensor:
    """Minus the squared distance [B] to the velocity that would lead to another clip (arXiv 2506.05350, equation 5).

    Unlike in the paper, `other` has the noise of the clip itself. Only the clean latents differ, so the best prediction
    keeps the right share of noise.
    """
    return -(predicted - other).square().flatten(1).mean(1)


def channel_weights(alpha: Tensor, variance: Tensor, exponent: float) -> Tensor:
    """Weights [B, 1, C, 1, 1] of mean 1 over channels, for abar `alpha` [B, 1, 1, 1, 1].

    A weight is abar + (1 - abar) / variance^exponent. With exponent 1 it is EDM's (arXiv 2206.00364, table 1) for each
    channel's own variance: close to pure noise every channel counts by the share of its variance that is missed.
    Without it the channels of a linear code that tell the movement inside a latent frame count little, since the
    brightness of large areas has most of the variance.
    """
    weights = alpha + (1 - alpha) * variance.pow(-exponent).view(1, 1, -1, 1, 1)
    return weights / weights.mean(2, keepdim=True)


def timesteps(uniform: Tensor, high_noise_share: float, count: int) -> Tensor:
    """Map uniform draws [2, B] to timesteps [B] below `count`.

    The first row gives the timestep. Where the second is below `high_noise_share`, the sixth root of the first moves it
    towards pure noise.
    """
    u, high_noise = uniform
    # The sixth root of a draw just below 1 rounds to 1.
    return (torch.where(high_noise < high_noise_share, u ** (1 / 6), u) * count).long().clamp(max=count - 1)


@contextmanager
def _attention_on(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Use plain half-precision products on a CPU: for so few tokens they are a third faster than fused attention."""
    if device.type != "cpu" or precision == torch.float32:
        yield
        return
    reduced = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # applies to CPUs too
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduced)


class Predicted(NamedTuple):
    """Velocity [B, F, C, h, w] that a model predicts, the noise of that shape, and abar [B, 1, 1, 1, 1]."""

    velocity: Tensor
    noise: Tensor
    alpha: Tensor


def predict(
    model: nn.Module, batch: Batch, noising: Noising, generator: torch.Generator, high_noise_share: float
) -> Predicted:
    """Noise a batch and have the model predict the velocity.

    Draws are made for the whole batch; the model sees this process's rows only, and the result has these rows.

    Args:
        model: Network from noisy and condition latents, ids, timesteps and rotary positions to velocity.
        batch: Clips, on the generator's device.
        noising: Schedule, positions and dtype.
        generator: Source of all randomness.
        high_noise_share: Share of timesteps drawn as u^(1/6) of the schedule's length, close to pure noise.
    """
    alphas, device = noising.alphas, batch.clean.device
    uniform = torch.rand(2, len(batch.clean), generator=generator, device=device)
    timestep = timesteps(uniform, high_noise_share, len(alphas))
    noise = torch.randn(batch.clean.shape, generator=generator, device=device)
    clean, condition, ids, timestep, noise = _mine(noising, batch.clean, batch.condition, batch.ids, timestep, noise)
    alpha = alphas[timestep].view(-1, 1, 1, 1, 1)
    with (
        torch.autocast(alphas.device.type, torch.bfloat16, enabled=noising.precision == torch.bfloat16),
        _attention_on(alphas.device, noising.precision),
    ):
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = model(noisy, condition, ids, timestep, noising.rotary)
    return Predicted(velocity.float(), noise, alpha)


def _mine(noising: Noising, *tensors: Tensor) -> tuple[Tensor, ...]:
    """This process's rows of tensors of a whole batch, on the model's device."""
    mine = processes.rows(len(tensors[0]))
    return tuple(tensor[mine].to(noising.alphas.device) for tensor in tensors)


def velocity_loss(
    model: nn.Module,
    batch: Batch,
    noising: Noising,
    generator: torch.Generator,
    high_noise_share: float,
    terms: LossTerms = LossTerms(),  # noqa: B008 (frozen)
) -> Tensor:
    """Mean squared error of the velocity plus the optional terms, over this process's rows.

    The velocity's squared error is 1 / (1 - abar) times that of the clean latent. Weights and negatives are those of
    the whole batch: `contrast_loss` pushes each clip away from the next one. `predict` says what the arguments are.
    """
    predicted, noise, alpha = predict(model, batch, noising, generator, high_noise_share)
    weights = 1 + terms.movement * (movement_weights(batch.clean) - 1)
    clean, negative, weights = _mine(noising, batch.clean, batch.clean.roll(1, 0), weights)
    signal, grain = alpha.sqrt(), (1 - alpha).sqrt()
    errors = (predicted - (signal * noise - grain * clean)).square()
    if terms.channels:
        assert noising.variance is not None  # whoever asks for the term gives it
        errors = channel_weights(alpha, noising.variance, terms.channels) * errors
    loss = errors.flatten(1).mean(1)
    if terms.contrast:
        loss = loss + terms.contrast * contrast_loss(predicted, signal * noise - grain * negative)
    return (weights * loss).mean()
