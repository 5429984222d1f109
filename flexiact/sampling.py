"""The denoising loop that every method shares: from a target image and a prompt to a video.

With nothing added the loop gives the numbers of diffusers' CogVideoXImageToVideoPipeline bit by bit (a test compares
them). A method can add two things: keyword arguments of the attention for each step, and a guide, which may change the
inputs of a step's prediction.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid
from diffusers.utils.torch_utils import randn_tensor

from flexiact.backbone.attention import Rotary
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import decode_latents, encode_image, encode_text
from flexiact.task import Request, Video

StepKwargs = Callable[[int], dict[str, Any] | None]
"""Timestep -> keyword arguments of the attention processors in that step."""


@dataclass(frozen=True, eq=False)
class Step:
    """Inputs of a step's prediction.

    Attributes:
        index: Index of the step, from 0.
        timestep: Timestep of the model; it falls from step to step.
        latents: Noisy latents, [1, F, C, h, w]; the initial noise at index 0. A guide may return float32 latents: they
            are cast to the model's dtype for the prediction, but the scheduler steps from the float32 values.
        condition: Condition latents, [1, F, C, h, w].
        text: Text states, [rows, L, width]; the last row is the prompt's.
        rotary: Rotary positions for this step alone; None: the model's own.
    """

    index: int
    timestep: int
    latents: torch.Tensor
    condition: torch.Tensor
    text: torch.Tensor
    rotary: Rotary | None = None


Guide = Callable[[Step], Step]
"""A function called before each step's prediction; it may return the step with other latents or positions."""


@dataclass(frozen=True)
class Sampler:
    """Settings of the way from noise to a clip, which `sample_video` describes."""

    num_inference_steps: int
    guidance_scale: float
    step_kwargs: StepKwargs | None = None
    guide: Guide | None = None


OFS = 2.0  # the constant that CogVideoX 1.5 was trained with and the pipeline passes


@torch.no_grad()
def sample_video(
    backbone: Backbone,
    request: Request,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    step_kwargs: StepKwargs | None = None,
    guide: Guide | None = None,
) -> Video:
    """Make the video of a request.

    One CPU generator, seeded with `request.seed`, draws all noise in this order: the VAE's posterior, the initial
    latents, the sampler's own. A seed therefore means the same on every device.

    Args:
        backbone: Backbone; the target has its size, and the video gets its size, length and rate.
        request: Target image, prompt and seed.
        num_inference_steps: Number of sampler steps.
        guidance_scale: Scale of classifier-free guidance against the empty prompt; 1 or less turns it off.
        step_kwargs: Keyword arguments of the attention processors for each step; both guidance branches get the same.
        guide: Function that may change latents and positions before each step.

    Raises:
        ValueError: If the target has another size or the output is not finite; the message names the field.
    """
    backbone.check_frames("target", request.target[None])
    generator = torch.Generator().manual_seed(request.seed)
    text = encode_text(backbone, ["", request.prompt] if guidance_scale > 1 else [request.prompt])
    condition = encode_image(backbone, request.target, generator)
    sampler = Sampler(num_inference_steps, guidance_scale, step_kwargs, guide)
    latents = denoise(backbone, text, condition, sampler, generator)
    if not torch.isfinite(latents).all():
        raise ValueError(f"backbone: {backbone.name} gave latents that are not finite")
    return Video(decode_latents(backbone, latents)[0], backbone.fps)


@torch.no_grad()
def denoise(
    backbone: Backbone, text: torch.Tensor, condition: torch.Tensor, sampler: Sampler, generator: torch.Generator
) -> torch.Tensor:
    """Clean latents [1, F, C, h, w] of one clip, denoised from noise drawn from `generator`.

    Args:
        backbone: Backbone with its scheduler; neither is changed.
        text: Text states of the empty prompt and the prompt, [2, L, width], or of the prompt alone, [1, L, width].
        condition: Condition latents from `encode_image`, [1, F, C, h, w].
        sampler: Number of steps, and additions of a method; its guidance scale counts if `text` has two rows.
        generator: Source of all noise, on the CPU.
    """
    # A scheduler keeps state between calls; a copy keeps the backbone as it was.
    scheduler = type(backbone.scheduler).from_config(backbone.scheduler.config)
    scheduler.set_timesteps(sampler.num_inference_steps, device=backbone.device)
    guided = len(text) == 2
    model = Denoiser(backbone)
    conditions = condition.expand(len(text), -1, -1, -1, -1)
    latents = randn_tensor(condition.shape, generator=generator, device=backbone.device, dtype=text.dtype)
    latents = latents * scheduler.init_noise_sigma
    for index, (timestep, advance) in enumerate(_steps(scheduler, generator)):
        step = Step(index, int(timestep), latents, condition, text)
        if sampler.guide:
            step = sampler.guide(step)
        inputs = torch.cat([step.latents, step.latents]) if guided else step.latents
        inputs = scheduler.scale_model_input(inputs, timestep).to(text.dtype)
        kwargs = sampler.step_kwargs(step.timestep) if sampler.step_kwargs else None
        prediction = model(inputs, conditions, text, timestep.expand(len(text)), kwargs, step.rotary).float()
        if guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + sampler.guidance_scale * (with_prompt - without)
        latents = advance(prediction, step.latents).to(text.dtype)
    return latents


class Denoiser:
    """The transformer, called without the arguments that depend only on the backbone's size."""

    def __init__(self, backbone: Backbone) -> None:
        """Compute rotary positions once for all calls."""
        self.transformer = backbone.transformer
        self.rotary = rotary_embedding(backbone)
        self.ofs = backbone.transformer.config.ofs_embed_dim and torch.full(
            (1,), OFS, device=backbone.device, dtype=backbone.dtype
        )

    def __call__(
        self,
        noisy: torch.Tensor,
        condition: torch.Tensor,
        text: torch.Tensor,
        timestep: torch.Tensor,
        attention_kwargs: dict[str, Any] | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """Predict velocity, noise or clean latents, depending on the scheduler's prediction type.

        Args:
            noisy: Noisy latents, [B, F, C, h, w].
            condition: Condition latents, [B, F, C, h, w].
            text: Text states, [B, L, width].
            timestep: Timestep of each row, int64 [B].
            attention_kwargs: Keyword arguments of the attention processors.
            rotary: Rotary positions to use instead of the model's own.

        Returns:
            The prediction, [B, F, C, h, w].
        """
        return self.transformer(
            hidden_states=torch.cat([noisy, condition], dim=2),
            encoder_hidden_states=text,
            timestep=timestep,
            ofs=self.ofs,
            image_rotary_emb=self.rotary if rotary is None else rotary,
            attention_kwargs=attention_kwargs,
            return_dict=False,
        )[0]


def rotary_embedding(backbone: Backbone) -> Rotary | None:
    """Cosines and sines [video tokens, head width] of the rotary positions; None for models without them."""
    return rotary_embedding_of(backbone.transformer, backbone.latent_shape, backbone.device)


def rotary_embedding_of(
    transformer: CogVideoXTransformer3DModel, latent_shape: Sequence[int], device: torch.device
) -> Rotary | None:
    """`rotary_embedding` for latents of shape F, C, h, w."""
    config = transformer.config
    if not config.use_rotary_positional_embeddings:
        return None
    num_frames, _, height, width = latent_shape
    grid = height // config.patch_size, width // config.patch_size
    base_height, base_width = config.sample_height // config.patch_size, config.sample_width // config.patch_size
    if config.patch_size_t is None:
        return get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, base_width, base_height),
            grid_size=grid,
            temporal_size=num_frames,
            device=device,
        )
    return get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim,
        crops_coords=None,
        grid_size=grid,
        temporal_size=num_frames // config.patch_size_t,
        grid_type="slice",
        max_size=(base_height, base_width),
        device=device,
    )


Advance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A function of prediction and latents that returns the latents of the next step."""


def _steps(scheduler: Any, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, Advance]]:
    """Each timestep with the function that makes the latents of the next one.

    The two schedulers differ only in their signatures: DPM also reads one earlier step and draws noise.
    """
    looks_back = isinstance(scheduler, CogVideoXDPMScheduler)
    earlier_clean, earlier_timestep = None, None

    def advance(prediction: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        nonlocal earlier_clean
        if not looks_back:
            return scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        latents, earlier_clean = scheduler.step(
            prediction, earlier_clean, timestep, earlier_timestep, latents, generator=generator, return_dict=False
        )
        return latents

    for timestep in scheduler.timesteps:
        yield timestep, advance
        earlier_timestep = timestep
