"""MotionDirector (Zhao et al., arXiv 2310.08465) on an image-to-video DiT: FlexiAct's baseline "MD-I2V".

A spatial LoRA learns what single frames look like; a temporal LoRA, trained on the clip with the spatial one attached
and frozen, is left with the motion. Its loss has an appearance-debiased term (section 4.2): on prediction and target
alike phi(e)_i = sqrt(beta^2 + 1) e_i - beta e_anchor, beta = 1, the anchor a random frame of the clip. Only the
temporal LoRA is used at inference.

Departures from the paper and its released code:

- The paper's U-Net has spatial and temporal transformers, one for each LoRA. A DiT attends to space and time at once:
  both LoRAs are on the same attention and feed-forward layers of every block.
- The LoRAs are trained one after the other instead of alternating, and the spatial one is never left out while the
  temporal one trains (the released code does so in a fifth of the steps). Steps are FlexiAct's 300 and 3,000; the
  released code takes 150 of each on ModelScope and ZeroScope.
- The model sees an image: of a clip its first frame, of a single frame the frame itself, hence the spatial LoRA has
  less to learn. Images and captions are dropped now and then, as in FlexiAct's training on this backbone.
- A single frame is encoded as a clip of one latent frame, instead of cut out of the clip's latents, which are
  compressed in time here.
- e is what the model predicts, velocity for CogVideoX, as in the released code; the paper writes noise.
- No LoRA dropout (0.1 in the released code), no flipped frames, gradients clipped to norm 1.
- The initial noise holds none of the reference's inverted latent (half of it in the released code): a transfer starts
  from the request's seed alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from baselines.stills import first_frame_positions, still_batches
from flexiact.arguments import check_fit
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.lora import LowRankLayers
from flexiact.batches import Batch, reference_batches, whole_frame
from flexiact.presets import check_sampler_settings, preset_of, sampler_settings
from flexiact.ranges import check_count, check_not_negative, check_number, check_positive, check_share
from flexiact.refadapter import TARGETS as ATTENTION
from flexiact.refadapter import adapted, load_refadapter, refadapter_digest
from flexiact.sampling import Denoiser, sample_video
from flexiact.task import Action, Request, Video
from flexiact.training import Optimisation, frozen, noised, optimise

TARGETS = (*ATTENTION, "ff.net.0.proj", "ff.net.2")
BETAS = (0.9, 0.999)
_AT_TRANSFER = ("temporal_weight", "refadapter_weight", "num_inference_steps", "guidance_scale")


@dataclass(frozen=True)
class MotionDirectorConfig:
    """The defaults are MD-I2V's where FlexiAct gives them, otherwise those of MotionDirector's released code.

    Attributes:
        rank: of both LoRAs, whose products are added unscaled.
        spatial_steps: of AdamW, on single frames.
        temporal_steps: of AdamW, on the clip.
        learning_rate: constant, for both.
        weight_decay: of AdamW.
        batch_size: frames, or draws of noise for the clip, per step.
        debias_weight: of the appearance-debiased term; 0 leaves it out.
        image_dropout: chance of a condition of zeros.
        caption_dropout: chance of the empty caption.
        temporal_weight: of the temporal LoRA at transfer.
        refadapter_weight: at transfer; 0: no RefAdapter.
        num_inference_steps: None: the backbone's own.
        guidance_scale: None: the backbone's own.
    """

    rank: int = 32
    spatial_steps: int = 300
    temporal_steps: int = 3000
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    batch_size: int = 1
    debias_weight: float = 1.0
    image_dropout: float = 0.05
    caption_dropout: float = 0.1
    temporal_weight: float = 1.0
    refadapter_weight: float = 0.0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "spatial_steps", "temporal_steps", "batch_size"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        for name in ("weight_decay", "debias_weight"):
            check_not_negative(name, getattr(self, name))
        for name in ("image_dropout", "caption_dropout"):
            check_share(name, getattr(self, name))
        for name in ("temporal_weight", "refadapter_weight"):
            check_number(name, getattr(self, name))
        check_sampler_settings(self)


PRESETS: dict[str, MotionDirectorConfig] = {
    "paper": MotionDirectorConfig(),
    # Rank and steps, and so their ratio (the paper's is 1:10), are set for speed and a small model; rate, temporal
    # weight and guidance were found by `benchmark.tune`.
    "puppets": MotionDirectorConfig(
        rank=8,
        spatial_steps=30,
        temporal_steps=120,
        learning_rate=2.5e-4,
        batch_size=2,
        temporal_weight=1.6,
        guidance_scale=2.0,
    ),
}


def preset(backbone: Backbone) -> MotionDirectorConfig:
    """The configuration for a backbone: its own where `PRESETS` names it, the paper's for 1e9 parameters and more."""
    return preset_of(PRESETS, backbone)


class MotionDirector:
    """Spatial and temporal LoRA at `fit`, the temporal one at `transfer`; an action is the temporal one's weights."""

    method_id = "MotionDirector"
    version = 1
    uses_reference = True

    def __init__(self, backbone: Backbone, config: MotionDirectorConfig | None = None) -> None:
        """Read RefAdapter's weights if the configuration uses them.

        Raises:
            ValueError: when RefAdapter is asked for and the backbone has none, or its files are damaged.
        """
        self.backbone = backbone
        self.config = config or preset(backbone)
        self._stills = replace(backbone, num_frames=1)  # the same networks, for clips of one frame
        self._adapter = load_refadapter(backbone, self.config.refadapter_weight)

    def fit_config(self) -> dict[str, Any]:
        """What `fit` reads."""
        return {name: value for name, value in asdict(self.config).items() if name not in _AT_TRANSFER}

    def transfer_config(self) -> dict[str, Any]:
        """What `transfer` reads; RefAdapter's weights by their digest."""
        steps, guidance = sampler_settings(self.config, self.backbone)
        return {
            "rank": self.config.rank,
            "temporal_weight": self.config.temporal_weight,
            "refadapter_weight": self.config.refadapter_weight,
            "refadapter": refadapter_digest(self.backbone, self.config.refadapter_weight),
            "num_inference_steps": steps,
            "guidance_scale": guidance,
        }

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Fit the spatial LoRA to frames of the reference, then the temporal one to all of it.

        Raises:
            ValueError: naming the field, for a reference of another size or length than the backbone's.
        """
        check_fit(self.backbone, reference, caption, seed)
        config, generator = self.config, torch.Generator().manual_seed(seed)
        spatial, temporal = self._lora("spatial", generator), self._lora("temporal", generator)
        transformer = self.backbone.transformer
        draws = whole_frame(config.batch_size, config.image_dropout, config.caption_dropout)
        with frozen(transformer):
            frames = still_batches(self._stills, reference, caption, draws, generator)
            with first_frame_positions(transformer, self._stills.latent_shape[0]), spatial.attached(1.0):
                loss, plan = self._loss(self._stills, 0.0, generator), self._plan(config.spatial_steps)
                optimise(spatial.parameters(), frames, loss, plan, label="spatial LoRA")
            for parameter in spatial.parameters():
                parameter.requires_grad_(False)
            clips = reference_batches(self.backbone, reference, caption, draws, generator)
            with spatial.attached(1.0), temporal.attached(1.0):
                loss = self._loss(self.backbone, config.debias_weight, generator)
                plan = self._plan(config.temporal_steps)
                optimise(temporal.parameters(), clips, loss, plan, label="temporal LoRA")
        return {
            name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for name, tensor in temporal.state().items()
        }

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` with the temporal LoRA alone.

        Raises:
            ValueError: naming the field, for an action of another model or a target of another size.
        """
        if not isinstance(action, Mapping) or not all(isinstance(entry, Tensor) for entry in action.values()):
            raise ValueError(f"action: expected tensors by name, got {type(action).__name__}")
        temporal = self._lora("action", torch.Generator().manual_seed(0))  # whatever is drawn, the action replaces it
        temporal.fill(action)
        steps, guidance = sampler_settings(self.config, self.backbone)
        with adapted(self._adapter, self.config.refadapter_weight), temporal.attached(self.config.temporal_weight):
            return sample_video(self.backbone, request, num_inference_steps=steps, guidance_scale=guidance)

    def _lora(self, name: str, generator: torch.Generator) -> LowRankLayers:
        rank = self.config.rank
        # alpha = rank: products are added unscaled. The released code draws the down halves with deviation 1 / rank.
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), init_lora_weights="gaussian")
        seed = int(torch.randint(2**31, (), generator=generator))
        layers = LowRankLayers(self.backbone.transformer, name, TARGETS, config, seed)
        for parameter in layers.parameters():  # half precision would lose small steps
            parameter.data = parameter.data.float()
        return layers

    def _plan(self, steps: int) -> Optimisation:
        return Optimisation(steps, self.config.learning_rate, self.config.weight_decay, BETAS)

    def _loss(
        self, backbone: Backbone, debias_weight: float, generator: torch.Generator
    ) -> Callable[[Batch], torch.Tensor]:
        denoiser = Denoiser(backbone)

        def loss_of(batch: Batch) -> torch.Tensor:
            return motion_loss(denoiser, backbone.scheduler, batch, generator, debias_weight)

        return loss_of


def motion_loss(
    denoiser: Denoiser, scheduler: Any, batch: Batch, generator: torch.Generator, debias_weight: float
) -> Tensor:
    """Mean of |p - e|^2 + debias_weight |phi(p)_i - phi(e)_i|^2, p being predicted and e what should have been.

    Timesteps are uniform; they, noise and anchors are drawn from `generator` on the CPU.

    Args:
        denoiser: the model.
        scheduler: says which noise levels there are and what the model predicts.
        batch: clean latents and conditions.
        generator: of all randomness.
        debias_weight: of the appearance-debiased term.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: for an unknown prediction type.
    """
    clean = batch.clean
    timestep, abar, noise, noisy = noised(clean, scheduler, generator)
    predicted = denoiser(noisy.to(clean.dtype), batch.condition, batch.text, timestep).float()
    target = _target(clean.float(), noise, abar, scheduler.config.prediction_type)
    loss = (predicted - target).square().mean()
    if debias_weight:
        anchor = torch.randint(clean.shape[1], (len(clean),), generator=generator).to(clean.device)
        difference = appearance_debiased(predicted, anchor) - appearance_debiased(target, anchor)
        loss = loss + debias_weight * difference.square().mean()
    return loss


def appearance_debiased(values: Tensor, anchor: Tensor) -> Tensor:
    """Take phi(e)_i = sqrt(2) e_i - e_anchor of every latent frame i.

    Args:
        values: e, [B, F, C, h, w].
        anchor: int64 [B], one frame for each row.

    Returns:
        As values.
    """
    rows = torch.arange(len(values), device=values.device)
    return math.sqrt(2) * values - values[rows, anchor][:, None]


def _target(clean: Tensor, noise: Tensor, abar: Tensor, prediction_type: str) -> Tensor:
    targets = {
        "v_prediction": abar.sqrt() * noise - (1 - abar).sqrt() * clean,
        "epsilon": noise,
        "sample": clean,
    }
    if prediction_type not in targets:
        raise ValueError(f"prediction_type: unknown {prediction_type!r}")
    return targets[prediction_type]
