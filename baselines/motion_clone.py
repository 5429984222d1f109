"""MotionClone: pull each place's strongest attention over time to that of the reference, without training.

Ling et al., "MotionClone: Training-Free Motion Cloning for Controllable Video Generation", ICLR 2025, arXiv 2406.05338,
section 3. Temporal attention A[h, p, i, j] of head h is the attention of place p at frame i to itself at frame j. One
pass with the null prompt over the reference, noised to timestep 400, gives A*. Only its largest value over j for each
(h, p, i) and the index j* are stored. In the first 40 % of the timesteps the latents descend the gradient of

    loss = mean over (h, p, i) of (A[h, p, i, j*] - A*[h, p, i, j*])^2

by guidance_weight * (1 - abar) * gradient. The paper's weight is 2,000.

Departures from the paper, whose model is AnimateDiff, a U-Net with attention over time alone:
- A is the block's attention on tokens of the same place in all frames, renormalised: a softmax over frames of the joint
  attention's logits. The block is the middle one, on the puppets a tuned one.
- The reference's pass is conditioned on its first frame.
- The released code lowers the noise in the direction term of DDIM. This moves the next latents by
  weight * sqrt(1 - abar) * sqrt(1 - abar of the next step) * gradient. Here the step's own latents move before its
  prediction, by almost the same amount. The prediction sees the move, and any sampler can be used.
- The released code sums the loss over the six temporal attentions of one decoder block, each a mean over its own
  places. Here it is one block's mean. A weight of 2,000 is therefore not the same force; every backbone needs tuning.
- It samples in 300 steps; 180 of them share the first 40 % of timesteps, with one gradient each. Here each of the 20
  guided steps of 50 takes `gradient_steps` = 9, so that as many gradients act over the same timesteps. The weight's
  ramps over the first and last 10 of the 180 are left out. These are its settings for text alone, which the paper
  describes; for a given first frame the released code has weaker ones, 40 of 100 steps over the first 30 %.
- The released sampler has a negative prompt; here it is the empty one.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baselines.guidance import GuidanceConfig, GuidedMethod, LookConfig, gradient
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_text
from flexiact.configured import Config
from flexiact.ranges import check_count, check_positive
from flexiact.sampling import Guide, Step
from flexiact.task import Video

STRENGTH_KEY, FRAME_KEY = "attention", "frame"


@dataclass(frozen=True, kw_only=True)
class MotionCloneLook(LookConfig):
    """Settings of the look at the reference; the default is the paper's.

    Attributes:
        reference_timestep: Timestep to which the reference is noised.
    """

    reference_timestep: int = 400

    def __post_init__(self) -> None:
        if not isinstance(self.reference_timestep, int) or self.reference_timestep < 0:
            raise ValueError(f"reference_timestep: expected an integer of 0 or more, got {self.reference_timestep}")


@dataclass(frozen=True, kw_only=True)
class MotionCloneGuidance(GuidanceConfig):
    """Settings of MotionClone's guidance; the defaults are the paper's.

    Attributes:
        gradient_steps: Number of gradient steps before each guided prediction.
        guidance_weight: Factor of (1 - abar) * gradient.
    """

    guided_share: float = 0.4
    gradient_steps: int = 9
    guidance_weight: float = 2000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("gradient_steps", self.gradient_steps)
        check_positive("guidance_weight", self.guidance_weight)


PAPER = Config(MotionCloneLook(), MotionCloneGuidance())
PRESETS = {
    "paper": PAPER,
    # Found by `benchmark.tune`, block and share of steps included. Two gradient steps instead of the paper's nine are
    # for speed.
    "puppets": PAPER.changed(
        block=5,
        gradient_steps=2,
        guidance_weight=4000.0,
        reference_timestep=400,
        guided_share=0.2,
        guidance_scale=4.5,
        checkpointing=False,
    ),
}


class MotionClone(GuidedMethod[MotionCloneLook, MotionCloneGuidance]):
    """Guidance by sparse temporal attention.

    An action holds `attention`, the reference's strongest value for every query, in (0, 1], and `frame`, the index of
    its frame: each [heads, places, F].
    """

    method_id = "MotionClone"
    version = 1
    presets = PRESETS

    def __init__(self, backbone: Backbone, config: Config[MotionCloneLook, MotionCloneGuidance] | None = None) -> None:
        super().__init__(backbone, config)
        last, timestep = len(backbone.scheduler.alphas_cumprod) - 1, self.config.fit.reference_timestep
        if timestep > last:
            raise ValueError(f"reference_timestep: expected 0 to {last}, got {timestep}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the two entries, which are equal."""
        frames, height, width = self.grid
        shape = (self.backbone.transformer.config.num_attention_heads, height * width, frames)
        return {STRENGTH_KEY: shape, FRAME_KEY: shape}

    def look(self, reference: Video, caption: str, generator: torch.Generator) -> dict[str, Tensor]:
        """The reference's strongest attention; the caption is not read."""
        strength, frame = self.attention(reference, generator).max(dim=-1)
        return {STRENGTH_KEY: strength, FRAME_KEY: frame}

    def attention(self, video: Video, generator: torch.Generator) -> Tensor:
        """Attention between frames at the same place in one pass over a noised video, float32 [heads, places, F, F]."""
        clean, condition = self.encoded(video, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        timestep = self.config.fit.reference_timestep
        abar = self.abar(timestep)
        noisy = abar.sqrt() * clean.float() + (1 - abar).sqrt() * noise
        seen, _ = self.whole_pass(noisy, condition, encode_text(self.backbone, [""]), timestep)
        return temporal_attention(*seen.queries_and_keys(), self.grid[0])

    def guide(self, action: dict[str, Tensor]) -> Guide:
        """A guide that moves the latents down the gradient.

        Raises:
            ValueError: If a frame of the action does not exist.
        """
        strength, frame = action[STRENGTH_KEY], action[FRAME_KEY]
        last = self.grid[0] - 1
        if not (frame == frame.long().clamp(0, last)).all():
            raise ValueError(f"action[{FRAME_KEY!r}]: expected whole numbers from 0 to {last}")
        return lambda step: self._guided(step, strength, frame.long())

    def _guided(self, step: Step, strength: Tensor, frame: Tensor) -> Step:
        rate = self.config.transfer.guidance_weight * (1 - self.abar(step.timestep))
        latents = step.latents.float()
        with self.passes(step) as see:

            def loss_of(latents: Tensor) -> Tensor:
                attention = temporal_attention(*see(latents, None).queries_and_keys(), self.grid[0])
                return top_loss(attention, strength, frame)

            for _ in range(self.config.transfer.gradient_steps):
                latents = latents.detach().requires_grad_()
                latents = latents - rate * gradient(latents, loss_of)
        return replace(step, latents=latents.detach())


def temporal_attention(query: Tensor, key: Tensor, num_frames: int) -> Tensor:
    """Attention between frames at the same place, renormalised over frames.

    Args:
        query: Queries of one clip's video tokens, [1, heads, frames * places, d].
        key: Keys, with the same shape.
        num_frames: Number of frames of the token grid.

    Returns:
        Attention, float32 [heads, places, frames of the query, frames]; it sums to 1 over the last axis.
    """
    rows, columns = (
        states[0].float().unflatten(1, (num_frames, -1)).transpose(1, 2) for states in (query, key)
    )  # [heads, places, frames, d]
    return (rows @ columns.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)


def top_loss(attention: Tensor, strength: Tensor, frame: Tensor) -> Tensor:
    """Mean squared difference between `strength` and the attention to the stored frame of each query.

    Args:
        attention: Attention, [heads, places, frames of the query, frames].
        strength: Stored attention, [heads, places, frames of the query].
        frame: Stored frame indices, int64, with the shape of `strength`.
    """
    return (attention.gather(-1, frame[..., None])[..., 0] - strength).square().mean()
