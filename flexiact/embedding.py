"""The embedding in which FlexiAct stores an action, and the schedule of its bias over the denoising steps.

Early steps (large timesteps) settle motion, which is low in frequency; late ones settle appearance. With the schedule
video tokens attend to the embedding early, and less so later. The action passes then, but not the reference's look.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from flexiact.backbone.backbone import Backbone
from flexiact.ranges import check_choice, check_number
from flexiact.task import Action

Shape = Literal["cosine", "linear", "hard", "constant", "removed"]

ACTION_KEY = "frequency_aware_embedding"

PAPER_RATIOS = (0.0585, 0.0180)
"""Signal-to-noise ratios of CogVideoX-5B at the paper's thresholds, timesteps 700 and 800."""

PAPER_SHARE = 226 / (226 + 226 + 17_550)
"""Equal-logits attention share of the paper's 226 embedding tokens, with 226 text and 17,550 video tokens."""


@dataclass(frozen=True)
class FrequencySchedule:
    """W(t), the bias on the logits of video queries for the embedding's keys, at timestep t.

    W(t) = alpha for t >= high, 0 for t < low, and between them
    cosine: alpha / 2 * (cos(pi * (high - t) / (high - low)) + 1), the paper's;
    linear: alpha * (t - low) / (high - low);
    hard: 0, a switch at `high`.
    constant is alpha everywhere. With a bias of 0 the embedding stays in the attention. removed is cosine, but it takes
    the embedding out of the attention below `low`: W(t) is minus infinity there.

    Raises:
        ValueError: If a number is not finite, low is above high, or the shape is unknown; the message names the field.
    """

    alpha: float = 1.0
    low: float = 700
    high: float = 800
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        for name in ("alpha", "low", "high"):
            check_number(f"schedule.{name}", getattr(self, name))
        if self.low > self.high:
            raise ValueError(f"schedule.low: expected at most high = {self.high}, got {self.low}")
        check_choice("schedule.shape", self.shape, get_args(Shape))

    def __call__(self, timestep: float) -> float:
        """W(t)."""
        if self.shape == "constant" or timestep >= self.high:
            return self.alpha
        if self.shape == "hard" or timestep < self.low:
            return -math.inf if self.shape == "removed" else 0.0
        if self.shape == "linear":
            return self.alpha * (timestep - self.low) / (self.high - self.low)
        return self.alpha / 2 * (math.cos(math.pi * (self.high - timestep) / (self.high - self.low)) + 1)


@dataclass(frozen=True, eq=False)
class FrequencyAwareEmbedding:
    """One matrix of learned tokens per block; `tokens` is float32 [num_blocks, length, width]."""

    tokens: torch.Tensor

    @classmethod
    def zeros(cls, backbone: Backbone, length: int) -> "FrequencyAwareEmbedding":
        """An embedding of zeros on the backbone's device, which requires gradients.

        Raises:
            ValueError: If `length` is below 1.
        """
        if length < 1:
            raise ValueError(f"embedding_tokens: expected 1 or more, got {length}")
        blocks, width = _blocks_and_width(backbone.transformer.config)
        return cls(torch.zeros(blocks, length, width, device=backbone.device, requires_grad=True))

    @classmethod
    def drawn(
        cls, backbone: Backbone, length: int, std: float, generator: torch.Generator
    ) -> "FrequencyAwareEmbedding":
        """The embedding that a fit starts from: normal with mean 0, drawn from `generator` on the CPU.

        At `std` 0, the released code's start, nothing is drawn. Tokens have no position, so equal ones get equal
        gradients. Those that start from zero therefore stay equal: `length` tokens are then one, with the bias
        log(length).

        Raises:
            ValueError: If `length` is below 1.
        """
        embedding = cls.zeros(backbone, length)
        if std:
            start = std * torch.randn(embedding.tokens.shape, generator=generator)
            embedding.tokens.data.copy_(start)
        return embedding

    @classmethod
    def from_action(cls, action: Action, backbone: Backbone) -> "FrequencyAwareEmbedding":
        """Copy the tokens of an action to the backbone's device.

        Raises:
            ValueError: If an entry is missing, unknown, of another shape or dtype, or not finite; the message names it.
        """
        return cls(action_tokens(action, backbone.transformer.config).to(backbone.device))

    def to_action(self) -> Action:
        """A copy of the tokens on the CPU, for saving."""
        return {ACTION_KEY: self.tokens.detach().to("cpu", torch.float32, copy=True).contiguous()}

    def attention_kwargs(self, bias: float = 0.0) -> dict[str, Any]:
        """Keyword arguments of the processors in `flexiact.backbone.attention`."""
        return {"extra_tokens": self.tokens, "extra_bias": bias}


def spread(tokens: torch.Tensor) -> float:
    """Distance of tokens [blocks, length, width] from their block's mean, as a share of their norm.

    Both are root mean squares over all blocks. 0 says that the tokens of a block are one and the same, and 1 that they
    have no mean.
    """
    tokens = tokens.double()
    apart = (tokens - tokens.mean(dim=1, keepdim=True)).square().mean()
    return float((apart / tokens.square().mean().clamp_min(1e-30)).sqrt())


def signal_to_noise(alphas_cumprod: torch.Tensor, timestep: int) -> float:
    """Signal-to-noise ratio abar / (1 - abar) of the latents at a timestep."""
    abar = float(alphas_cumprod[timestep])
    return abar / (1 - abar) if abar < 1 else math.inf


def timestep_of(alphas_cumprod: torch.Tensor, ratio: float) -> int:
    """The timestep of a falling noise schedule whose signal-to-noise ratio is nearest to `ratio`, in logarithms."""
    abar = alphas_cumprod.double().clamp(1e-12, 1 - 1e-12)
    return int(((abar / (1 - abar)).log() - math.log(ratio)).abs().argmin())


def matched_schedule(backbone: Backbone, schedule: FrequencySchedule) -> FrequencySchedule:
    """The schedule with thresholds at the paper's signal-to-noise ratios on a backbone's noise schedule."""
    low, high = (timestep_of(backbone.scheduler.alphas_cumprod, ratio) for ratio in PAPER_RATIOS)
    return replace(schedule, low=low, high=high)


def matched_tokens(backbone: Backbone) -> int:
    """Number of embedding tokens that have the paper's attention share (`PAPER_SHARE`) on a backbone."""
    others = backbone.max_text_tokens + backbone.num_video_tokens
    return max(1, round(others * PAPER_SHARE / (1 - PAPER_SHARE)))


def attention_share(backbone: Backbone, embedding_tokens: int, bias: float) -> float:
    """Share of a video query's softmax mass on the embedding, in [0, 1], if all logits without the bias were equal.

    It is L e^bias / (L e^bias + text + video tokens). The effect of a bias depends on the ratio of token counts, which
    differs between models (226 to 17,550 in the paper).
    """
    heard = embedding_tokens * math.exp(bias)
    return heard / (heard + backbone.max_text_tokens + backbone.num_video_tokens)


def schedule_report(backbone: Backbone, schedule: FrequencySchedule, embedding_tokens: int) -> list[dict[str, float]]:
    """At `high`, the middle and `low`: timestep, signal-to-noise ratio, bias and equal-logits attention share."""
    last = len(backbone.scheduler.alphas_cumprod) - 1
    report = []
    for timestep in (schedule.high, (schedule.high + schedule.low) / 2, schedule.low):
        nearest = min(max(round(timestep), 0), last)
        bias = schedule(timestep)
        report.append(
            {
                "timestep": float(timestep),
                "signal_to_noise": signal_to_noise(backbone.scheduler.alphas_cumprod, nearest),
                "bias": bias,
                "attention_share": attention_share(backbone, embedding_tokens, bias),
            }
        )
    return report


def action_tokens(action: Action, config: Any) -> torch.Tensor:
    """The tokens of an action, float32 [num_blocks, length, width], not copied; `config` is the transformer's.

    Raises:
        ValueError: If an entry is missing, unknown, of another shape or dtype, or not finite; the message names it.
    """
    if not isinstance(action, Mapping) or set(action) != {ACTION_KEY}:
        names = sorted(action) if isinstance(action, Mapping) else type(action).__name__
        raise ValueError(f"action: expected one entry {ACTION_KEY!r}, got {names}")
    tokens = action[ACTION_KEY]
    name = f"action[{ACTION_KEY!r}]"
    if not isinstance(tokens, torch.Tensor) or tokens.dtype != torch.float32:
        found = tokens.dtype if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"{name}: expected a float32 tensor, got {found}")
    blocks, width = _blocks_and_width(config)
    if tokens.ndim != 3 or tokens.shape[0] != blocks or tokens.shape[2] != width or tokens.shape[1] < 1:
        raise ValueError(f"{name}: expected shape [{blocks}, tokens, {width}], got {list(tokens.shape)}")
    if not torch.isfinite(tokens).all():
        raise ValueError(f"{name}: holds values that are not finite")
    return tokens


def _blocks_and_width(config: Any) -> tuple[int, int]:
    return config.num_layers, config.num_attention_heads * config.attention_head_dim
