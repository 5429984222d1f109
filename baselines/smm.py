"""SMM: pull the changes of spatially averaged features between frames to those of the reference, without training.

Yatim et al., "Space-Time Diffusion Features for Zero-Shot Text-Driven Motion Transfer" (DMT), CVPR 2024, arXiv
2311.17009, section 4. The spatial marginal mean phi_i is a block's output at frame i averaged over its places. With phi
for the new video and phi* for the reference, both at the same timestep,

    loss = sum over frames i < j of 1 - cos(phi_i - phi_j, phi*_i - phi*_j).

The reference is inverted by DDIM; its features at each guided timestep are those of the inverted latents. A transfer
starts from the low spatial frequencies of the inverted latents at the last timestep and the high ones of random noise.
In the first 40 % of steps it takes 10 steps of Adam on the latents before each prediction.

Departures from the paper, whose model is a U-Net that starts from text:
- The features are those of the video tokens after the middle block, as in adaptations to diffusion transformers; on the
  puppets the block is tuned. One of those adaptations compares the reference's differences with themselves, so that
  nothing is guided; here the new video's are compared.
- The reference is inverted with its caption as the prompt and conditioned on its first frame.
- The paper's text has squared differences, its released code 1 - cosine. The released form is used here.
- The released code inverts in 999 steps, here `inversion_steps` says in how many; by default the sampler's timesteps
  are the levels.
- The inversion starts at timestep 0, where CogVideoX' latents are nearly clean, and evaluates every level at its own
  timestep.
- The released code adds noise to each step's result and repeats the step from there (restart sampling), sums the loss
  over several modules of one decoder block, and has a negative prompt. Here there is one pass per step, one block's
  output and the empty prompt.
- A sampler that draws its own noise (DPM) is used unchanged.
- Bilinear resampling has `align_corners=False`.

Size of a fit at CogVideoX-5B's native size with 50 steps: 20 x 13 x 3,072 features and the inverted latents, 8 MB.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from baselines.guidance import AdamConfig, GuidedMethod, LookConfig, adam
from flexiact.backbone.codec import encode_text
from flexiact.backbone.probe import BlockCapture
from flexiact.configured import Config
from flexiact.ranges import check_count
from flexiact.sampling import Guide, Step
from flexiact.task import Video
from flexiact.training import MIN_NOISE, predicted_clean

FEATURES_KEY, INVERTED_KEY = "features", "inverted"


@dataclass(frozen=True, kw_only=True)
class SmmLook(LookConfig):
    """Settings of the look at the reference.

    Attributes:
        inversion_steps: Number of evenly spaced levels of the inversion beside the sampler's timesteps; None: none.
    """

    inversion_steps: int | None = None

    def __post_init__(self) -> None:
        if self.inversion_steps is not None:
            check_count("inversion_steps", self.inversion_steps)


@dataclass(frozen=True, kw_only=True)
class SmmGuidance(AdamConfig):
    """Settings of SMM's guidance; the defaults are the paper's.

    Attributes:
        low_pass: Factor by which latents are reduced and enlarged again to find their low frequencies; with 1 a
            transfer starts from the whole inverted latents, without the seed's noise.
    """

    guided_share: float = 0.4
    adam_steps: int = 10
    learning_rate: float = 0.007
    final_learning_rate: float = 0.004
    low_pass: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("low_pass", self.low_pass)


PAPER = Config(SmmLook(), SmmGuidance())
PRESETS = {
    "paper": PAPER,
    # Found by `benchmark.tune`, block and share of steps included.
    "puppets": PAPER.changed(
        block=5,
        learning_rate=0.05,
        final_learning_rate=0.025,
        guided_share=0.4,
        low_pass=4,
        guidance_scale=3.0,
        checkpointing=False,
    ),
}


class SpatialMarginalMean(GuidedMethod[SmmLook, SmmGuidance]):
    """Guidance by spatially averaged features.

    An action holds `features` [guided steps, F, width] and `inverted` latents [F, C, h, w] of the reference.
    """

    method_id = "SpatialMarginalMean"
    version = 1
    presets = PRESETS

    def fit_config(self) -> dict[str, Any]:
        """All settings that looking reads, with the timesteps of the guided steps."""
        steps, _ = self.config.transfer.resolved(self.backbone)
        return super().fit_config() | {"num_inference_steps": steps, "guided_steps": self.guided_steps}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the two entries."""
        config = self.backbone.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        return {FEATURES_KEY: (self.guided_steps, self.grid[0], width), INVERTED_KEY: self.backbone.latent_shape}

    def look(self, reference: Video, caption: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Invert the reference, with its caption as the prompt."""
        latents, condition = self.encoded(reference, generator)
        text, kind = encode_text(self.backbone, [caption]), str(self.backbone.scheduler.config.prediction_type)
        timesteps = self._timesteps()
        levels = sorted({0, *timesteps, *self._levels_between()})
        features: dict[int, Tensor] = {}
        latents = latents.float()
        for level, higher in zip(levels, [*levels[1:], None], strict=True):
            seen, prediction = self.whole_pass(latents, condition, text, level)
            features[level] = self._features(seen)
            if higher is not None:
                latents = renoised(latents, prediction, self.abar(level), self.abar(higher), kind)
        kept = torch.stack([features[timestep] for timestep in timesteps[: self.guided_steps]])
        return {FEATURES_KEY: kept, INVERTED_KEY: latents[0]}

    def guide(self, action: dict[str, Tensor]) -> Guide:
        """A guide that starts from the inverted latents' low frequencies and changes latents to lower the loss."""
        features, inverted, settings = action[FEATURES_KEY], action[INVERTED_KEY][None], self.config.transfer

        def guide(step: Step) -> Step:
            latents = step.latents
            if step.index == 0:
                latents = with_low_frequencies(latents.float(), inverted, settings.low_pass)
            rate = settings.rate(step.index, self.guided_steps)
            with self.passes(step) as see:
                latents = adam(
                    latents,
                    lambda latents: smm_loss(self._features(see(latents, None)), features[step.index]),
                    settings.adam_steps,
                    rate,
                )
            return replace(step, latents=latents)

        return guide

    def _features(self, seen: BlockCapture) -> Tensor:
        """Spatial marginal means, float32 [F, width]."""
        return seen.features()[0].float().unflatten(0, (self.grid[0], -1)).mean(dim=1)

    def _levels_between(self) -> list[int]:
        """Evenly spaced timesteps of the whole schedule, as `inversion_steps` asks for."""
        steps, length = self.config.fit.inversion_steps, len(self.backbone.scheduler.alphas_cumprod)
        return [] if steps is None else [round(i * (length - 1) / steps) for i in range(1, steps + 1)]

    def _timesteps(self) -> list[int]:
        """Timesteps of the sampler, falling."""
        scheduler = type(self.backbone.scheduler).from_config(self.backbone.scheduler.config)
        scheduler.set_timesteps(self.config.transfer.resolved(self.backbone)[0])
        return [int(timestep) for timestep in scheduler.timesteps]


def smm_loss(features: Tensor, reference: Tensor) -> Tensor:
    """Sum over frames i < j of 1 - cos(f_i - f_j, r_i - r_j), for features and reference [F, width]."""
    first, second = torch.triu_indices(len(features), len(features), offset=1, device=features.device)
    cosine = functional.cosine_similarity(features[first] - features[second], reference[first] - reference[second])
    return (1 - cosine).sum()


def renoised(latents: Tensor, prediction: Tensor, abar: Tensor, higher: Tensor, kind: str) -> Tensor:
    """Take one inverse step of DDIM (arXiv 2010.02502, equation 14), from abar to that of a noisier level, `higher`."""
    clean = predicted_clean(prediction.float(), latents, abar, kind)
    noise = (latents - abar.sqrt() * clean) / (1 - abar).clamp_min(MIN_NOISE).sqrt()
    return higher.sqrt() * clean + (1 - higher).sqrt() * noise


def with_low_frequencies(noise: Tensor, source: Tensor, factor: int) -> Tensor:
    """`noise` with its low spatial frequencies taken from `source`; both [1, F, C, h, w]."""
    return noise - low_frequencies(noise, factor) + low_frequencies(source, factor)


def low_frequencies(latents: Tensor, factor: int) -> Tensor:
    """Latents [B, F, C, h, w] reduced by `factor` (to sides of 1 or more) and enlarged again, bilinear, antialiased."""
    height, width = latents.shape[-2:]
    frames = latents.flatten(0, 1)
    for size in ((max(1, height // factor), max(1, width // factor)), (height, width)):
        frames = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)
    return frames.view_as(latents)
