"""MotionClone: hold each place's strongest attention over time to that of the reference, without training.

Ling et al., "MotionClone: Training-Free Motion Cloning for Controllable Video Generation", ICLR 2025, arXiv 2406.05338,
section 3. Temporal attention A[h, p, i, j] of head h is how much place p at frame i looks at itself at frame j. Of the
reference, noised to timestep 400 and seen once with the null prompt, only the largest value over j of each (h, p, i)
and its index are kept. In the first 40 % of the timesteps the latents go down the gradient of

    loss = mean over (h, p, i) of (A[h, p, i, j*] - A*[h, p, i, j*])^2,    j* the index kept,

by guidance_weight * (1 - abar) * gradient. The paper's weight is 2,000.

Departures from the paper, whose model is AnimateDiff, a U-Net with attention over time alone:
- A is the block's attention on tokens of the same place in all frames, renormalised: a softmax over frames of the joint
  attention's logits. The middle block is taken, on the puppets one that was tuned.
- The reference's pass is conditioned on its first frame.
- The released code lowers the noise in the direction term of DDIM, which moves the next latents by
  weight * sqrt(1 - abar) * sqrt(1 - abar of the next step) * gradient. Here the step's own latents move before its
  prediction, by almost the same amount, so that the prediction sees it and any sampler will do.
- The released code sums the loss over the six temporal attentions of one decoder block, each a mean over its own
  places. Here it is one block's mean: the weight is to be tuned for every backbone, 2,000 is not the same force.
- It samples in 300 steps of which 180 share the first 40 % of timesteps, one gradient each. Here each of the 20 guided
  steps of 50 takes `gradient_steps` = 9, so that as many gradients act over the same timesteps. The weight's ramps over
  the first and last 10 of the 180 are left out. These are its settings for text alone, which the paper describes; for a
  given first frame the released code has weaker ones, 40 of 100 steps over the first 30 %.
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
    """The default is the paper's.

    Attributes:
        reference_timestep: Timestep to which the reference is noised.
    """

    reference_timestep: int = 400

    def __post_init__(self) -> None:
        if not isinstance(self.reference_timestep, int) or self.reference_timestep < 0:
            raise ValueError(f"reference_timestep: expected an integer of 0 or more, got {self.reference_timestep}")


@dataclass(frozen=True, kw_only=True)
class MotionCloneGuidance(GuidanceConfig):
    """The defaults are the paper's.

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
    # Found by `benchmark.tune`: weight, timestep and guidance in the middle block, then the block among all, then
    # share, weight, steps and timestep again. Two steps instead of the paper's nine, for speed: they lower the loss
    # tenfold.
    "puppets": PAPER.changed(
        block=5,
        gradient_steps=2,
        guidance_weight=4000.0,
        reference_timestep=280,
        guidance_scale=1.0,
        checkpointing=False,
    ),
}


class MotionClone(GuidedMethod[MotionCloneLook, MotionCloneGuidance]):
    """Guidance by sparse temporal attention.

    Of the reference are kept `attention`, the strongest value of every query, in (0, 1], and `frame`, the index of its
    frame: each [heads, places, F].
    """

    method_id = "MotionClone"
    version = 1
    presets = PRESETS

    def __init__(self, backbone: Backbone, config: Config[MotionCloneLook, MotionCloneGuidance] | None = None) -> None:
        """See `GuidedMethod`.

        Raises:
            ValueError: naming the setting that this backbone cannot have.
        """
        super().__init__(backbone, config)
        last, timestep = len(backbone.scheduler.alphas_cumprod) - 1, self.config.fit.reference_timestep
        if timestep > last:
            raise ValueError(f"reference_timestep: expected 0 to {last}, got {timestep}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Two entries of one shape."""
        frames, height, width = self.grid
        shape = (self.backbone.transformer.config.num_attention_heads, height * width, frames)
        return {STRENGTH_KEY: shape, FRAME_KEY: shape}

    def look(self, reference: Video, caption: str, generator: torch.Generator) -> dict[str, Tensor]:
        """The strongest attention; the caption is not read."""
        strength, frame = self.attention(reference, generator).max(dim=-1)
        return {STRENGTH_KEY: strength, FRAME_KEY: frame}

    def attention(self, video: Video, generator: torch.Generator) -> Tensor:
        """Between frames at the same place, in one pass over a noised video: float32 [heads, places, F, F]."""
        clean, condition = self.encoded(video, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        timestep = self.config.fit.reference_timestep
        abar = self.abar(timestep)
        noisy = abar.sqrt() * clean.float() + (1 - abar).sqrt() * noise
        seen, _ = self.whole_pass(noisy, condition, encode_text(self.backbone, [""]), timestep)
        return temporal_attention(*seen.queries_and_keys(), self.grid[0])

    def guide(self, action: dict[str, Tensor]) -> Guide:
        """Move the latents down the gradient.

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
        query: Queries of one clip's video tokens [1, heads, frames * places, d].
        key: Keys of the same shape.
        num_frames: Number of frames of the token grid.

    Returns:
        Float32 [heads, places, frames of the query, frames]; sums to 1 over the last.
    """
    rows, columns = (
        states[0].float().unflatten(1, (num_frames, -1)).transpose(1, 2) for states in (query, key)
    )  # [heads, places, frames, d]
    return (rows @ columns.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)


def top_loss(attention: Tensor, strength: Tensor, frame: Tensor) -> Tensor:
    """Mean squared difference from `strength` of the attention on the frame kept for each query.

    Args:
        attention: [heads, places, frames of the query, frames].
        strength: [heads, places, frames of the query].
        frame: int64, as strength.
    """
    return (attention.gather(-1, frame[..., None])[..., 0] - strength).square().mean()
