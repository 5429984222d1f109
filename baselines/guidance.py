"""Base of methods that guide the sampler without training: settings, guiding passes, Adam on latents.

Each method stores features of the reference. In the first steps of a transfer it changes the inputs of the prediction,
so that the features of the new video come closer to them. Features are those of one block, where a guiding pass ends.
RefAdapter acts in all passes, also over the reference, so that all compared features come from one network.

Memory of one guiding pass, in addition to the weights: for L tokens (text and video) of width C in b bytes, every block
stores 12 L C b for the backward pass. With checkpointing it stores L C b, and the block at work 12 L C b. Measured on
the puppet backbone in float32: 12.2 and 1.0. At CogVideoX-5B's native size (L = 17,776, C = 3,072, 21 blocks to the
middle one, bfloat16) this gives 28 GB without and 3.6 GB with checkpointing, not measured there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from flexiact.arguments import check_action, check_fit
from flexiact.backbone.attention import Rotary, extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_video
from flexiact.backbone.probe import BlockCapture, captured, checkpointing, cut_after, middle_block
from flexiact.configured import AdaptedSettings, Config, ConfiguredMethod
from flexiact.ranges import check_count, check_positive
from flexiact.refadapter import adapted, refadapter_digest
from flexiact.sampling import Denoiser, Guide, Step
from flexiact.task import Action, Request, Video
from flexiact.training import frozen


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Settings that looking at the reference reads; `block` counts from 0, None is the middle one."""

    block: int | None = None


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig(AdaptedSettings):
    """Further settings of every guided transfer.

    Attributes:
        guided_share: Share of the sampler's steps that are guided, from the first on, in (0, 1].
        checkpointing: True to use activation checkpointing in guiding passes.
    """

    guided_share: float = 0.2
    checkpointing: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.guided_share <= 1:
            raise ValueError(f"guided_share: expected a share in (0, 1], got {self.guided_share}")


@dataclass(frozen=True, kw_only=True)
class AdamConfig(GuidanceConfig):
    """Settings of a method that takes steps of Adam before each guided step's prediction.

    Attributes:
        adam_steps: Number of Adam steps before each prediction.
        learning_rate: Learning rate in the first guided step.
        final_learning_rate: Learning rate in the last guided step; it is linear between them.
    """

    adam_steps: int = 5
    learning_rate: float = 0.002
    final_learning_rate: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("adam_steps", self.adam_steps)
        for name in ("learning_rate", "final_learning_rate"):
            check_positive(name, getattr(self, name))

    def rate(self, index: int, guided_steps: int) -> float:
        """The learning rate in guided step `index` (from 0)."""
        share = index / (guided_steps - 1) if guided_steps > 1 else 0.0
        return self.learning_rate + share * (self.final_learning_rate - self.learning_rate)


Look = TypeVar("Look", bound=LookConfig)
Guidance = TypeVar("Guidance", bound=GuidanceConfig)


class GuidedMethod(ConfiguredMethod[Look, Guidance], ABC):
    """A method that stores features of one block; a subclass defines them (`look`) and guides by them (`guide`).

    Attributes:
        block: Index of the block whose features guide.
        guided_steps: Number of guided steps.
        grid: Frames, height and width of the video tokens.
    """

    uses_reference = True

    def __init__(self, backbone: Backbone, config: Config[Look, Guidance] | None = None) -> None:
        """Store the backbone, and the configuration or its preset; read RefAdapter's weights if that uses them.

        Raises:
            ValueError: If this backbone cannot have a setting; the message names it.
        """
        super().__init__(backbone, config)
        blocks, block = backbone.transformer.config.num_layers, self.config.fit.block
        if block is not None and not 0 <= block < blocks:
            raise ValueError(f"block: expected 0 to {blocks - 1}, got {block}")
        self.block = middle_block(blocks) if block is None else block
        self.grid = backbone.token_grid
        steps, _ = self.config.transfer.resolved(backbone)
        self.guided_steps = max(1, round(self.config.transfer.guided_share * steps))

    @classmethod
    def preset(cls, backbone: Backbone) -> Config[Look, Guidance]:
        """The default configuration for a backbone; without its own preset, that of its size with the middle block."""
        config = super().preset(backbone)
        return config if backbone.name in cls.presets else config.changed(block=None)

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of an action's entries."""

    @abstractmethod
    def look(self, reference: Video, caption: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Features of the reference to store, on any device."""

    @abstractmethod
    def guide(self, action: dict[str, Tensor]) -> Guide:
        """A guide by an action, whose entries have the shapes of `shapes` and are on the backbone's device."""

    def fit_config(self) -> dict[str, Any]:
        """All settings that looking at the reference reads, with RefAdapter's if it is used."""
        weight = self.config.transfer.adapter_weight
        adapter = {"refadapter_weight": weight, "refadapter": refadapter_digest(self.backbone, weight)}
        return super().fit_config() | {"block": self.block} | (adapter if weight else {})

    def transfer_config(self) -> dict[str, Any]:
        """All settings, because guiding passes look as well."""
        return super().fit_config() | {"block": self.block} | super().transfer_config()

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Look at the reference, without training."""
        check_fit(self.backbone, reference, caption, seed)
        kept = self.look(reference, caption, torch.Generator().manual_seed(seed))
        return {name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous() for name, tensor in kept.items()}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target`, guided by the stored features of the reference."""
        check_action(action, self.shapes())
        return self.guided(request, self.guide({name: t.to(self.backbone.device) for name, t in action.items()}))

    def encoded(self, video: Video, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clean latents of a video, and the condition from its first frame: each [1, F, C, h, w]."""
        latents = encode_video(self.backbone, video.frames, generator)
        return latents, encode_image(self.backbone, video.frames[0], generator)

    def abar(self, timestep: int) -> Tensor:
        """Product of alphas at a timestep, a float32 scalar."""
        return self.backbone.scheduler.alphas_cumprod[timestep].to(self.backbone.device, torch.float32)

    @torch.no_grad()
    def whole_pass(
        self, latents: Tensor, condition: Tensor, text: Tensor, timestep: int
    ) -> tuple[BlockCapture, Tensor]:
        """The block's capture and the prediction in one pass without guidance.

        Raises:
            ValueError: If the prediction is not finite.
        """
        weight, transformer = self.config.transfer.adapter_weight, self.backbone.transformer
        with adapted(self._adapter, weight), captured(transformer, self.block) as seen:
            times = torch.full((1,), timestep, device=self.backbone.device)
            prediction = Denoiser(self.backbone)(latents.to(self.backbone.dtype), condition, text, times)
        if not torch.isfinite(prediction).all():
            raise ValueError(f"backbone: {self.backbone.name} gave a prediction that is not finite")
        return seen, prediction

    def guided(self, request: Request, guide: Guide) -> Video:
        """Make the video of a request, guided in the first `guided_steps` steps.

        Raises:
            ValueError: If the target has another size, or the output is not finite; the message names the field.
        """

        def guide_first(step: Step) -> Step:
            return guide(step) if step.index < self.guided_steps else step

        return self.sample(request, guide=guide_first)

    @contextmanager
    def passes(self, step: Step) -> Iterator[Callable[[Tensor, Rotary | None], BlockCapture]]:
        """Yield a function of latents and positions that returns the block's capture at a step, with gradients.

        There is no classifier-free guidance: only the prompt's branch is computed, as published. Later blocks are left
        out.
        """
        transformer = self.backbone.transformer
        denoiser = Denoiser(self.backbone)
        # Diffusers' own processor applies positions in place, which breaks gradients with respect to them. The one for
        # extra tokens does not, and without such tokens it computes the same.
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        no_tokens = torch.zeros(transformer.config.num_layers, 0, width, device=self.backbone.device)
        timestep = torch.full((1,), step.timestep, device=self.backbone.device)
        with ExitStack() as stack:
            stack.enter_context(frozen(transformer))
            stack.enter_context(checkpointing(transformer, self.config.transfer.checkpointing))
            stack.enter_context(extra_tokens_attached(transformer))
            stack.enter_context(cut_after(transformer, self.block))
            seen = stack.enter_context(captured(transformer, self.block))
            stack.enter_context(torch.enable_grad())

            def see(latents: Tensor, rotary: Rotary | None) -> BlockCapture:
                tokens = None if rotary is None else {"extra_tokens": no_tokens}
                noisy = latents.to(self.backbone.dtype)
                denoiser(noisy, step.condition, step.text[-1:], timestep, tokens, rotary)
                return seen

            yield see


def adam(start: Tensor, loss_of: Callable[[Tensor], Tensor], steps: int, learning_rate: float) -> Tensor:
    """Take `steps` steps of Adam (betas .9 and .999) from `start` to lower `loss_of`; return the value in float32.

    In bfloat16, changes below half the spacing of its numbers would be lost.

    Raises:
        ValueError: If the loss is not finite.
    """
    value = start.detach().float().clone().requires_grad_()
    optimiser = torch.optim.Adam([value], lr=learning_rate)
    for _ in range(steps):
        value.grad = gradient(value, loss_of)
        optimiser.step()
    return value.detach()


def gradient(value: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of `loss_of` at `value`, which needs gradients.

    Raises:
        ValueError: If the loss is not finite.
    """
    with torch.enable_grad():
        loss = loss_of(value)
    if not torch.isfinite(loss):
        raise ValueError("loss: not finite while guiding; the backbone's features or the action are damaged")
    return torch.autograd.grad(loss, value)[0]
