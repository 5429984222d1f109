"""Losses and loops: the fit of an embedding to one reference, and what RefAdapter's training shares with it.

A loop takes any iterable of batches and any function from a batch to a loss, so that a fit, a recipe on rendered clips
and a run under accelerate all go through `optimise`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from flexiact.backbone import Backbone
from flexiact.codec import clean_latent, encode_image, encode_text, encode_video
from flexiact.sampling import Denoiser
from flexiact.task import Video

MIN_NOISE = 1e-5
"""Floor of 1 - abar in the loss's weight. CogVideoX' own schedules stay above 8e-4; one that starts free of noise would
otherwise weigh its first timestep without bound."""

CHECKPOINTING_PARAMETERS = 10**9
"""From this size on activations are computed again in the backward pass: same numbers, a fraction of the memory."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees, on the backbone's device.

    Attributes:
        clean: latents to be noised [B, F, C, h, w].
        condition: [B, F, C, h, w], zeros where the image is dropped.
        text: states [B, L, width], of the empty text where the caption is dropped.
    """

    clean: Tensor
    condition: Tensor
    text: Tensor


@dataclass(frozen=True)
class Optimisation:
    """AdamW at a constant rate.

    Attributes:
        steps: of the optimiser.
        learning_rate: constant.
        weight_decay: decoupled.
        betas: of AdamW.
        max_grad_norm: gradients are scaled down to this norm.
    """

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
    debias_weight: float = 0.0,
    attention_kwargs: dict[str, Any] | None = None,
) -> Tensor:
    """Mean over the batch of (1 / (1 - abar)) |x - x0|^2 + debias_weight |sqrt(2) e[i+1] - e[i]|^2, e = x - x0.

    x is the clean latent that the model's prediction implies, x0 the true one, i a random latent frame; both norms are
    means over elements. Timesteps are uniform, drawn with noise and frames from `generator` on the CPU.

    Args:
        denoiser: the model.
        scheduler: says which noise levels there are and what the model predicts.
        batch: clean latents and conditions.
        generator: on the CPU, of all randomness.
        debias_weight: of the second term, which compares changes between adjacent frames instead of looks.
        attention_kwargs: for the attention processors.

    Returns:
        A float32 scalar.
    """
    clean = batch.clean
    abars = scheduler.alphas_cumprod
    timestep = torch.randint(len(abars), (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    abar = abars[timestep.to(abars.device)].to(clean.device, torch.float32).view(-1, 1, 1, 1, 1)
    noisy = abar.sqrt() * clean.float() + (1 - abar).sqrt() * noise
    prediction = denoiser(
        noisy.to(clean.dtype), batch.condition, batch.text, timestep.to(clean.device), attention_kwargs
    )
    error = predicted_clean(prediction.float(), noisy, abar, scheduler.config.prediction_type) - clean.float()
    weight = 1 / (1 - abar).clamp_min(MIN_NOISE)
    loss = (weight * error.square()).mean()
    if debias_weight and clean.shape[1] > 1:
        rows = torch.arange(len(clean))
        frame = torch.randint(clean.shape[1] - 1, (len(clean),), generator=generator)
        change = math.sqrt(2) * error[rows, frame + 1] - error[rows, frame]
        loss = loss + debias_weight * change.square().mean()
    return loss


def predicted_clean(prediction: Tensor, noisy: Tensor, abar: Tensor, prediction_type: str) -> Tensor:
    """The clean latents that a prediction implies.

    With a terminal signal-to-noise ratio of zero (abar = 0) velocity is still well defined; noise says nothing of the
    clean latents there, so `epsilon` takes abar as at least `MIN_NOISE`.

    Raises:
        ValueError: for an unknown prediction type.
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
    backward: Callable[[Tensor], object] = Tensor.backward,
    label: str = "fit",
) -> list[float]:
    """Take `plan.steps` steps, one batch each; a progress bar shows on a terminal once it takes longer than 5 s.

    Args:
        parameters: what is learned, in place.
        batches: at least as many as steps.
        loss_of: the loss of a batch.
        plan: steps and rates.
        backward: how gradients are computed, for accelerate.
        label: of the progress bar.

    Returns:
        The loss of every step.

    Raises:
        ValueError: when batches run out, or the loss is not finite.
    """
    optimiser = torch.optim.AdamW(
        parameters, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay, fused=True
    )
    source = iter(batches)
    losses: list[Tensor] = []
    for step in tqdm(range(plan.steps), desc=label, delay=5, leave=False, disable=None):
        batch = next(source, None)
        if batch is None:
            raise ValueError(f"batches: ran out after {step} of {plan.steps} steps")
        with torch.enable_grad():
            loss = loss_of(batch)
            backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if step % 50 == 49 or step == plan.steps - 1:  # not every step: reading a number makes a GPU wait
            _check_finite(losses[-50:], step)
    return [float(loss) for loss in losses]


def reference_batches(
    backbone: Backbone,
    reference: Video,
    caption: str,
    *,
    crops: int,
    crop_min_scale: float,
    batch_size: int,
    image_dropout: float,
    caption_dropout: float,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Batches of random crops of the reference without end; every crop and text is encoded once, here and now.

    Crops differ in place and size, so that what they share is the action and not the layout. The condition of a crop
    is its own first frame.
    """
    clips = random_crops(reference.frames, crops, crop_min_scale, generator)
    clean = torch.cat([encode_video(backbone, clip, generator) for clip in clips])
    conditions = torch.cat([encode_image(backbone, clip[0], generator) for clip in clips])
    texts = encode_text(backbone, ["", caption])

    def draw() -> Iterator[Batch]:
        while True:
            chosen = torch.randint(len(clips), (batch_size,), generator=generator)
            keep_image = (torch.rand(batch_size, generator=generator) >= image_dropout).view(-1, 1, 1, 1, 1)
            keep_text = (torch.rand(batch_size, generator=generator) >= caption_dropout).long()
            chosen, keep_image, keep_text = (t.to(backbone.device) for t in (chosen, keep_image, keep_text))
            yield Batch(clean[chosen], conditions[chosen] * keep_image.to(clean.dtype), texts[keep_text])

    return draw()


def random_crops(frames: np.ndarray, count: int, min_scale: float, generator: torch.Generator) -> list[np.ndarray]:
    """Crop a clip at random, the same window in all frames, and resize it back: `count` arrays like `frames`.

    A window keeps the proportions; its side is uniform in [min_scale, 1] of the frame's, its place uniform.

    Raises:
        ValueError: when count is below 1 or min_scale outside (0, 1].
    """
    if count < 1:
        raise ValueError(f"crops: expected 1 or more, got {count}")
    if not 0 < min_scale <= 1:
        raise ValueError(f"crop_min_scale: expected 0 < scale <= 1, got {min_scale}")
    height, width = frames.shape[1:3]
    images = [Image.fromarray(frame) for frame in frames]
    crops = []
    for scale, across, down in torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist():
        side = min_scale + (1 - min_scale) * scale
        left, top = across * (1 - side) * width, down * (1 - side) * height
        box = (left, top, left + side * width, top + side * height)
        resized = [image.resize((width, height), Image.Resampling.BICUBIC, box=box) for image in images]
        crops.append(np.stack([np.asarray(image) for image in resized]))
    return crops


def untrimmed_batch(
    backbone: Backbone,
    clips: Sequence[tuple[Video, str]],
    generator: torch.Generator,
    *,
    image_dropout: float = 0.05,
    caption_dropout: float = 0.1,
) -> Batch:
    """RefAdapter's batch: of each untrimmed video a random window, with any frame of the whole as its condition.

    The window's first clean latent is replaced by that frame's, so that the model learns to start from an image whose
    pose and place are not the clip's own. Where the image is dropped the clip stays whole.

    Args:
        backbone: whose frame size the videos have.
        clips: videos of at least the backbone's number of frames, and their captions.
        generator: of windows, frames, dropouts and the VAE's samples.
        image_dropout: chance of a condition of zeros.
        caption_dropout: chance of the empty caption.
    """
    cleans, conditions, texts = [], [], []
    for video, caption in clips:
        spare = len(video.frames) - backbone.num_frames
        if spare < 0:
            raise ValueError(f"clips: expected {backbone.num_frames} frames or more, got {len(video.frames)}")
        backbone.check_frames("clips", video.frames)
        start = int(torch.randint(spare + 1, (), generator=generator))
        frame = int(torch.randint(len(video.frames), (), generator=generator))
        drop_image, drop_caption = torch.rand(2, generator=generator).tolist()
        clean = encode_video(backbone, video.frames[start : start + backbone.num_frames], generator)
        condition = encode_image(backbone, video.frames[frame], generator)
        if drop_image < image_dropout:  # then the clip does not give the image away either
            condition = torch.zeros_like(condition)
        else:
            clean = torch.cat([clean_latent(backbone, condition), clean[:, 1:]], dim=1)
        cleans.append(clean)
        conditions.append(condition)
        texts.append("" if drop_caption < caption_dropout else caption)
    return Batch(torch.cat(cleans), torch.cat(conditions), encode_text(backbone, texts))


@contextmanager
def frozen(transformer: CogVideoXTransformer3DModel) -> Iterator[None]:
    """Keep gradients from the transformer's own weights; large models compute activations twice instead of storing."""
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


def _check_finite(losses: list[Tensor], step: int) -> None:
    if not torch.isfinite(torch.stack(losses)).all():
        raise ValueError(f"loss: not finite by step {step}; lower the learning rate, or look at the input")
