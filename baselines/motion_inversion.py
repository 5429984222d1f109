"""Motion Inversion (Wang et al., arXiv 2403.20193) on an image-to-video DiT: motion as embeddings added to features.

The model is frozen. For every attention layer two embeddings are learned from one clip. m_QK [1, frames, C] is added to
the normed features before the query and key projections, m_V [height * width, frames, C] before the value projection:

    softmax((x + m_QK) W_q ((x + m_QK) W_k)^T / sqrt(d)) (x + m_V) W_v.

After the fit m_V still holds the reference's look. For the motion of objects it is replaced by the differences between
its frames, which drop static content; the first frame is unchanged, as in the released code. For the motion of the
camera m_V is left out.

Departures from the paper and its released code:

- The paper's U-Net attends along time alone, at each place separately, and has embeddings in the layers of lowest
  resolution. A DiT attends to all places and times at once, at one resolution. Every block therefore has both
  embeddings, added to its video tokens only, never to text. m_QK of a frame is the same at all places, so it is blind
  to space.
- m_V has 42 x 1,350 x 13 x 3,072 numbers for CogVideoX-5B, 8.4 GiB in float32. With its gradient, AdamW's two moments
  and the gradients of indexing single blocks, a fit needs some 42 GiB for m_V in addition to the weights.
- Frames are latent frames (pairs of them if the model has temporal patches).
- The model sees the clip's first frame. Images and captions are sometimes dropped, as in FlexiAct's training on this
  backbone. Rotary or other positions stay on.
- The loss is that of the model's prediction, velocity for CogVideoX, as in the released code. For other prediction
  types it is the velocity's loss too (see `denoising_loss`). Gradients are clipped to norm 1.
- A transfer starts from the request's seed alone. In the released code half of the initial noise is the reference's
  inverted latent.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional

from flexiact.arguments import check_action, check_fit
from flexiact.backbone.attention import joined, processors_attached, queries_and_keys, split_heads
from flexiact.backbone.backbone import Backbone
from flexiact.batches import Batch, DrawConfig, reference_batches
from flexiact.configured import AdaptedSettings, Config, ConfiguredMethod
from flexiact.ranges import check_choice, check_count, check_not_negative, check_positive
from flexiact.sampling import Denoiser
from flexiact.task import Action, Request, Video
from flexiact.training import Optimisation, denoising_loss, frozen, optimise

Motion = Literal["object", "camera"]

KEYS = ("query_key", "value")
BETAS = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class MotionInversionFit(DrawConfig):
    """Settings of AdamW, at a constant rate; the defaults are the released code's, the dropouts FlexiAct's."""

    fit_steps: int = 400
    learning_rate: float = 2e-2
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("fit_steps", self.fit_steps)
        check_positive("learning_rate", self.learning_rate)
        check_not_negative("weight_decay", self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class MotionInversionTransfer(AdaptedSettings):
    """Settings of the transfer; the defaults are the released code's.

    Attributes:
        motion: "object" or "camera" motion; "camera" leaves m_V out.
        debias: True to replace m_V by its frame differences for the motion of objects.
    """

    motion: Motion = "object"
    debias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("motion", self.motion, get_args(Motion))


PAPER = Config(MotionInversionFit(), MotionInversionTransfer())
PRESETS = {
    "paper": PAPER,
    # Steps and batches are set for speed; rate and guidance were found by `benchmark.tune`.
    "puppets": PAPER.changed(fit_steps=150, batch_size=2, learning_rate=2e-2, guidance_scale=1.0),
}


class MotionInversion(ConfiguredMethod[MotionInversionFit, MotionInversionTransfer]):
    """Embeddings of every block, which `fit` learns and `transfer` adds to another video."""

    method_id = "MotionInversion"
    version = 1
    uses_reference = True
    presets = PRESETS

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Fit both embeddings, from zeros, to the whole reference."""
        check_fit(self.backbone, reference, caption, seed)
        config, generator = self.config.fit, torch.Generator().manual_seed(seed)
        batches = reference_batches(self.backbone, reference, caption, config, generator)
        shapes = embedding_shapes(self.backbone)
        learned = [torch.zeros(shapes[key], device=self.backbone.device, requires_grad=True) for key in KEYS]
        kwargs = attention_kwargs(*learned)
        denoiser, scheduler = Denoiser(self.backbone), self.backbone.scheduler

        def loss_of(batch: Batch) -> Tensor:
            return denoising_loss(denoiser, scheduler, batch, generator, attention_kwargs=kwargs)

        plan = Optimisation(config.fit_steps, config.learning_rate, config.weight_decay, BETAS)
        with frozen(self.backbone.transformer), motion_embedding_attached(self.backbone.transformer):
            optimise(learned, batches, loss_of, plan, label="motion embedding", generator=generator)
        return {key: tensor.detach().to("cpu", copy=True) for key, tensor in zip(KEYS, learned, strict=True)}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` doing the action."""
        check_action(action, embedding_shapes(self.backbone))
        query_key, value = (action[key].to(self.backbone.device) for key in KEYS)
        config = self.config.transfer
        if config.motion == "camera":
            kwargs = attention_kwargs(query_key, None)
        else:
            kwargs = attention_kwargs(query_key, frame_differences(value) if config.debias else value)
        with motion_embedding_attached(self.backbone.transformer):
            return self.sample(request, lambda timestep: kwargs)


def embedding_shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Shapes of m_QK, [blocks, frames, width], and m_V, [blocks, places, frames, width]; frames are the tokens'."""
    config = backbone.transformer.config
    blocks, width = config.num_layers, config.num_attention_heads * config.attention_head_dim
    frames = backbone.latent_shape[0] // (config.patch_size_t or 1)
    return {
        "query_key": (blocks, frames, width),
        "value": (blocks, backbone.num_video_tokens // frames, frames, width),
    }


def frame_differences(value: Tensor) -> Tensor:
    """Replace each frame of m_V [blocks, places, frames, width], except the first, by its change from the previous."""
    return torch.cat([value[:, :, :1], value[:, :, 1:] - value[:, :, :-1]], dim=2)


def attention_kwargs(query_key: Tensor, value: Tensor | None) -> dict[str, Any]:
    """Keyword arguments of the processors: m_QK, and m_V or None."""
    return {"motion_query_key": query_key, "motion_value": value}


class MotionEmbeddingProcessor:
    """Attention of one block with motion embeddings added to its video tokens; its only state is the block's index."""

    def __init__(self, block: int) -> None:
        """Store the block's index in the embeddings."""
        self.block = block

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        *,
        motion_query_key: Tensor,
        motion_value: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Attend; returns video states [B, S, width] and text states [B, L, width]."""
        if attention_mask is not None:
            raise ValueError("attention_mask: not supported together with motion embeddings")
        num_text = encoder_hidden_states.shape[1]
        per_frame = motion_query_key[self.block].to(hidden_states.dtype)
        places = hidden_states.shape[1] // len(per_frame)
        moved = hidden_states + per_frame.repeat_interleave(places, dim=0)  # tokens come frame by frame
        valued = hidden_states
        if motion_value is not None:
            valued = hidden_states + motion_value[self.block].transpose(0, 1).flatten(0, 1).to(hidden_states.dtype)
        states = torch.cat([encoder_hidden_states, moved], dim=1)
        query, key = queries_and_keys(attn, states, image_rotary_emb, num_text)
        value = split_heads(attn, attn.to_v(torch.cat([encoder_hidden_states, valued], dim=1)))
        return joined(attn, functional.scaled_dot_product_attention(query, key, value), num_text)


def motion_embedding_attached(transformer: CogVideoXTransformer3DModel) -> AbstractContextManager[None]:
    """Let every block of the transformer take motion embeddings; on exit the former processors return."""
    return processors_attached(transformer, MotionEmbeddingProcessor)
