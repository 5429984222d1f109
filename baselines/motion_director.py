"""MotionDirector (Zhao et al., arXiv 2310.08465) on an image-to-video DiT: FlexiAct's baseline "MD-I2V".

A spatial LoRA learns the look of single frames. A temporal LoRA is trained on the clip with the spatial one attached
and frozen, so that it learns the motion. Its loss has an appearance-debiased term (section 4.2), which compares
phi(e)_i = sqrt(beta^2 + 1) e_i - beta e_anchor of prediction and target. Here beta = 1, and the anchor is a random
frame of the clip. Only the temporal LoRA is used at inference.

"MD-I2V" may also mean the released code's image animation: a second spatial LoRA, trained on the target image, is used
at inference beside the temporal one. Its 300 steps are the number that FlexiAct's paper gives. `animate` chooses this
reading.

Departures from the paper and its released code:

- The paper's U-Net has spatial and temporal transformers, one for each LoRA. A DiT attends to space and time at once,
  so both LoRAs are on the same attention and feed-forward layers of every block.
- The LoRAs are trained one after the other instead of alternating. The spatial one is always attached while the
  temporal one trains; the released code leaves it out in a fifth of the steps. Steps are FlexiAct's 300 and 3,000; the
  released code takes 150 of each on ModelScope and ZeroScope.
- The model sees an image: the first frame of a clip, or the single frame itself. The spatial LoRA therefore has less to
  learn. Images and captions are sometimes dropped, as in FlexiAct's training on this backbone.
- A single frame is encoded as a clip of one latent frame. It is not cut out of the clip's latents, because these are
  compressed in time here.
- e is the quantity that the model predicts, velocity for CogVideoX, as in the released code; the paper writes noise.
- There is no LoRA dropout (0.1 in the released code) and no flipped frame. Gradients are clipped to norm 1.
- The LoRA of the target image has the weight decay of the others (1e-4 in the released code).
- A transfer starts from the request's seed alone. In the released code half of the initial noise is the reference's
  inverted latent.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from baselines.stills import first_frame_positions, still_batches
from flexiact.arguments import check_fit
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.lora import LowRankLayers
from flexiact.batches import Batch, DrawConfig, reference_batches
from flexiact.configured import AdaptedSettings, Config, ConfiguredMethod
from flexiact.ranges import check_count, check_not_negative, check_number, check_positive
from flexiact.refadapter import TARGETS as ATTENTION
from flexiact.sampling import Denoiser
from flexiact.task import Action, Request, Video
from flexiact.training import Optimisation, frozen, noised, optimise

TARGETS = (*ATTENTION, "ff.net.0.proj", "ff.net.2")
BETAS = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class MotionDirectorFit(DrawConfig):
    """Settings of the fit; the defaults are MD-I2V's where FlexiAct gives them, otherwise the released code's.

    Attributes:
        rank: Rank of both LoRAs; their products are added unscaled.
        spatial_steps: Number of AdamW steps on single frames.
        temporal_steps: Number of AdamW steps on the clip.
        learning_rate: Learning rate of both LoRAs, constant.
        weight_decay: Weight decay of AdamW.
        debias_weight: Weight of the appearance-debiased term; 0 leaves it out.
    """

    rank: int = 32
    spatial_steps: int = 300
    temporal_steps: int = 3000
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    debias_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank", "spatial_steps", "temporal_steps"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        for name in ("weight_decay", "debias_weight"):
            check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class MotionDirectorTransfer(AdaptedSettings):
    """Settings of the transfer; the defaults are the released code's for video.

    Attributes:
        temporal_weight: Weight of the temporal LoRA.
        animate: True to train a spatial LoRA on the target image first, with the fit's settings of the spatial one, and
            to use it with weight 1.
    """

    temporal_weight: float = 1.0
    animate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temporal_weight", self.temporal_weight)


PAPER = Config(MotionDirectorFit(), MotionDirectorTransfer())
PRESETS = {
    "paper": PAPER,
    # Rank and steps, and with them the steps' ratio (the paper's is 1:10), are set for speed and a small model; rate,
    # temporal weight and guidance were found by `benchmark.tune`.
    "puppets": PAPER.changed(
        rank=8,
        spatial_steps=30,
        temporal_steps=120,
        learning_rate=5e-4,
        batch_size=2,
        temporal_weight=1.3,
        guidance_scale=3.0,
    ),
}


class MotionDirector(ConfiguredMethod[MotionDirectorFit, MotionDirectorTransfer]):
    """MotionDirector: `fit` trains both LoRAs, `transfer` uses the temporal one, whose weights are the action.

    With `animate` a transfer also trains a spatial LoRA on the target image and uses both.
    """

    method_id = "MotionDirector"
    version = 1
    uses_reference = True
    presets = PRESETS

    def transfer_config(self) -> dict[str, Any]:
        """All settings that `transfer` reads: also the LoRA's rank, and those of training on the target."""
        trained = {"fit": self.fit_config()} if self.config.transfer.animate else {}
        return super().transfer_config() | {"rank": self.config.fit.rank} | trained

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Fit the spatial LoRA to frames of the reference, then the temporal one to the whole reference."""
        check_fit(self.backbone, reference, caption, seed)
        config, generator = self.config.fit, torch.Generator().manual_seed(seed)
        spatial, temporal = self._lora("spatial", generator), self._lora("temporal", generator)
        with frozen(self.backbone.transformer):
            self._learn_look(spatial, reference, caption, config.spatial_steps, generator)
            clips = reference_batches(self.backbone, reference, caption, config, generator)
            with spatial.attached(1.0), temporal.attached(1.0):
                loss = self._loss(self.backbone, config.debias_weight, generator)
                plan = self._plan(config.temporal_steps)
                optimise(temporal.parameters(), clips, loss, plan, label="temporal LoRA", generator=generator)
        return {
            name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for name, tensor in temporal.state().items()
        }

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` with the temporal LoRA and, with `animate`, one of the target's look."""
        if not isinstance(action, Mapping) or not all(isinstance(entry, Tensor) for entry in action.values()):
            raise ValueError(f"action: expected tensors by name, got {type(action).__name__}")
        temporal = self._lora("action", torch.Generator().manual_seed(0))  # the action replaces the drawn weights
        temporal.fill(action)
        with ExitStack() as attached:
            if self.config.transfer.animate:
                attached.enter_context(self._look_of_target(request).attached(1.0))
            attached.enter_context(temporal.attached(self.config.transfer.temporal_weight))
            return self.sample(request)

    def _look_of_target(self, request: Request) -> LowRankLayers:
        """Train a spatial LoRA on the target image; its randomness depends on the request's seed alone."""
        self.backbone.check_frames("target", request.target[None])
        generator = torch.Generator().manual_seed(request.seed)
        spatial, image = self._lora("look", generator), Video(request.target[None], self.backbone.fps)
        with frozen(self.backbone.transformer):
            self._learn_look(spatial, image, request.prompt, self.config.fit.spatial_steps, generator)
        return spatial

    def _learn_look(
        self, spatial: LowRankLayers, video: Video, caption: str, steps: int, generator: torch.Generator
    ) -> None:
        """Train a spatial LoRA on single frames of a video, then freeze it."""
        stills = replace(self.backbone, num_frames=1)  # the same networks, for clips of one frame
        frames = still_batches(stills, video, caption, self.config.fit, generator)
        with first_frame_positions(self.backbone.transformer, stills.latent_shape[0]), spatial.attached(1.0):
            loss, plan = self._loss(stills, 0.0, generator), self._plan(steps)
            optimise(spatial.parameters(), frames, loss, plan, label="spatial LoRA", generator=generator)
        for parameter in spatial.parameters():
            parameter.requires_grad_(False)

    def _lora(self, name: str, generator: torch.Generator) -> LowRankLayers:
        rank = self.config.fit.rank
        # alpha = rank: products are added unscaled. The released code draws the down halves with deviation 1 / rank.
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), init_lora_weights="gaussian")
        seed = int(torch.randint(2**31, (), generator=generator))
        layers = LowRankLayers(self.backbone.transformer, name, TARGETS, config, seed)
        for parameter in layers.parameters():  # in half precision small steps would be lost
            parameter.data = parameter.data.float()
        return layers

    def _plan(self, steps: int) -> Optimisation:
        return Optimisation(steps, self.config.fit.learning_rate, self.config.fit.weight_decay, BETAS)

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
    """Mean of |p - e|^2 + debias_weight |phi(p)_i - phi(e)_i|^2, with prediction p and target e: a float32 scalar.

    Timesteps are uniform; `generator` draws them, noise and anchors on the CPU.

    Raises:
        ValueError: For an unknown prediction type.
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
    """phi(e)_i = sqrt(2) e_i - e_anchor for every latent frame i of e [B, F, C, h, w]; anchors are int64 [B]."""
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
