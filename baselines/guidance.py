"""What methods that guide the sampler without training share: settings, the passes they look into, Adam on latents.

Each of them keeps features of the reference and, in the first steps of a transfer, changes what a step is predicted
from, so that the features of the video being made come closer. Features are those of one block, where a guiding pass
ends. RefAdapter acts in all passes, those over the reference too: what is compared comes from one network.

Memory of one guiding pass, beyond the weights: for L tokens (text and video) of width C in b bytes, every block keeps
12 L C b for the backward pass; with checkpointing L C b, and 12 L C b for the block at work. Measured on the puppet
backbone in float32 (12.2 and 1.0). At CogVideoX-5B's native size (L = 17,776, C = 3,072, 21 blocks to the middle one,
bfloat16) that comes to 28 GB without and 3.6 GB with checkpointing, not measured there.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from flexiact.backbone.attention import Rotary, extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.probe import BlockCapture, captured, checkpointing, cut_after, middle_block
from flexiact.presets import check_sampler_settings, preset_of, sampler_settings
from flexiact.ranges import check_count, check_number, check_positive
from flexiact.refadapter import adapted, load_refadapter, refadapter_digest
from flexiact.sampling import Denoiser, Guide, Step, sample_video
from flexiact.task import Request, Video
from flexiact.training import frozen


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Settings of every guided method.

    Attributes:
        block: whose features guide, from 0; None: the middle one.
        guided_share: of the sampler's steps, the first ones, in (0, 1].
        checkpointing: compute activations twice in guiding passes instead of storing them.
        refadapter_weight: at transfer; 0: the backbone alone.
        num_inference_steps: None: the backbone's own.
        guidance_scale: None: the backbone's own.
    """

    block: int | None = None
    guided_share: float = 0.2
    checkpointing: bool = True
    refadapter_weight: float = 0.0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.guided_share <= 1:
            raise ValueError(f"guided_share: expected a share in (0, 1], got {self.guided_share}")
        check_number("refadapter_weight", self.refadapter_weight)
        check_sampler_settings(self)


@dataclass(frozen=True, kw_only=True)
class AdamConfig(GuidanceConfig):
    """Settings of a method that takes steps of Adam before each guided step's prediction.

    Attributes:
        adam_steps: before each prediction.
        learning_rate: in the first guided step.
        final_learning_rate: in the last guided step; linear between them.
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


Config = TypeVar("Config", bound=GuidanceConfig)


def guided_preset(presets: Mapping[str, Config], backbone: Backbone) -> Config:
    """The preset for a backbone; a block that was tuned is that backbone's alone, others get the middle."""
    config = preset_of(presets, backbone)
    return config if backbone.name in presets else replace(config, block=None)


class GuidedModel:
    """A backbone with the settings of a guided method: passes that are looked into, and guided sampling."""

    def __init__(self, backbone: Backbone, config: GuidanceConfig) -> None:
        """Read RefAdapter's weights if the configuration uses them.

        Raises:
            ValueError: when the block does not exist, or RefAdapter is asked for and the backbone has none.
        """
        blocks = backbone.transformer.config.num_layers
        if config.block is not None and not 0 <= config.block < blocks:
            raise ValueError(f"block: expected 0 to {blocks - 1}, got {config.block}")
        self.backbone, self.config = backbone, config
        self.block = middle_block(blocks) if config.block is None else config.block
        self.num_inference_steps, self.guidance_scale = sampler_settings(config, backbone)
        self.guided_steps = max(1, round(config.guided_share * self.num_inference_steps))
        self._adapter = load_refadapter(backbone, config.refadapter_weight)

    def transfer_config(self) -> dict[str, Any]:
        """All settings, as they are used; RefAdapter's weights by their digest."""
        digest = refadapter_digest(self.backbone, self.config.refadapter_weight)
        return asdict(self.config) | {
            "block": self.block,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "refadapter": digest,
        }

    def fit_config(self) -> dict[str, Any]:
        """What every look at the reference reads: the block, and RefAdapter where there is one."""
        weight = self.config.refadapter_weight
        adapter = {"refadapter_weight": weight, "refadapter": refadapter_digest(self.backbone, weight)}
        return {"block": self.block} | (adapter if weight else {})

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, height and width of the video tokens."""
        config = self.backbone.transformer.config
        frames, _, height, width = self.backbone.latent_shape
        return frames // (config.patch_size_t or 1), height // config.patch_size, width // config.patch_size

    @torch.no_grad()
    def look(self, latents: Tensor, condition: Tensor, text: Tensor, timestep: int) -> tuple[BlockCapture, Tensor]:
        """One whole pass over the reference without guidance: what the block saw, and the prediction.

        Raises:
            ValueError: when the prediction is not finite.
        """
        with (
            adapted(self._adapter, self.config.refadapter_weight),
            captured(self.backbone.transformer, self.block) as seen,
        ):
            times = torch.full((1,), timestep, device=self.backbone.device)
            prediction = Denoiser(self.backbone)(latents.to(self.backbone.dtype), condition, text, times)
        if not torch.isfinite(prediction).all():
            raise ValueError(f"backbone: {self.backbone.name} gave a prediction that is not finite")
        return seen, prediction

    def sample(self, request: Request, guide: Guide) -> Video:
        """Make the video of a request, guided in the first `guided_steps` steps.

        Raises:
            ValueError: naming the field, for a target of another size or output that is not finite.
        """

        def guide_first(step: Step) -> Step:
            return guide(step) if step.index < self.guided_steps else step

        with adapted(self._adapter, self.config.refadapter_weight):
            return sample_video(
                self.backbone,
                request,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                guide=guide_first,
            )

    @contextmanager
    def passes(self, step: Step) -> Iterator[Callable[[Tensor, Rotary | None], BlockCapture]]:
        """Within it, (latents, positions) -> what the block sees of them at a step with its prompt, with gradients.

        Without classifier-free guidance: the prompt's branch alone, as published. Blocks behind are left out.
        """
        transformer = self.backbone.transformer
        denoiser = Denoiser(self.backbone)
        # Diffusers' own processor writes positions in place, which gradients by positions do not survive. The one for
        # extra tokens does not, and with none of them it computes the same.
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        no_tokens = torch.zeros(transformer.config.num_layers, 0, width, device=self.backbone.device)
        timestep = torch.full((1,), step.timestep, device=self.backbone.device)
        with ExitStack() as stack:
            stack.enter_context(frozen(transformer))
            stack.enter_context(checkpointing(transformer, self.config.checkpointing))
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
    """Take `steps` steps of Adam (betas .9 and .999) from `start` down `loss_of`; given back in float32.

    Cast to bfloat16, moves of less than half the spacing of its numbers would come back as no move at all.

    Raises:
        ValueError: when the loss is not finite.
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
        ValueError: when the loss is not finite.
    """
    with torch.enable_grad():
        loss = loss_of(value)
    if not torch.isfinite(loss):
        raise ValueError("loss: not finite while guiding; the backbone's features or the action are damaged")
    return torch.autograd.grad(loss, value)[0]


def on_cpu(tensor: Tensor) -> Tensor:
    """A copy for an action: float32, on the CPU, contiguous, without gradients."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
