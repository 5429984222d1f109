"""FlexiAct: learn the action of one reference video as an embedding, and transfer it to any target image."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from flexiact.arguments import check_fit
from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.batches import Batch, reference_batches
from flexiact.batches import FitConfig as FitConfig
from flexiact.configured import AdaptedSettings, Config, ConfiguredMethod, preset_of
from flexiact.embedding import FrequencyAwareEmbedding, FrequencySchedule, matched_schedule, matched_tokens
from flexiact.sampling import Denoiser
from flexiact.task import Action, Request, Video
from flexiact.training import Optimisation, debias_term, denoising_loss, frozen, optimise


@dataclass(frozen=True, kw_only=True)
class TransferConfig(AdaptedSettings):
    """Settings of `FlexiAct.transfer`, by default the paper's; without a `schedule`, the embedding's bias is 0."""

    schedule: FrequencySchedule | None = field(default_factory=FrequencySchedule)
    refadapter_weight: float | None = 0.7


@dataclass(frozen=True)
class FlexiActConfig(Config[FitConfig, TransferConfig]):
    """Settings of FlexiAct; the defaults are the paper's."""

    fit: FitConfig = field(default_factory=FitConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)


PRESETS: dict[str, FlexiActConfig] = {
    # With the second loss of the released code, which the paper does not mention.
    "paper": FlexiActConfig(),
    # As the authors' released code: its inference never fills the mask that it builds for the bias (`vid2embed` stays
    # 0), so the embedding has bias 0 at every step; RefAdapter's weight is 0.7 all the same.
    "released": FlexiActConfig().changed(schedule=None),
    # Tokens (226 in the paper), steps and batches are set for speed and a small model; rate, guidance, schedule and
    # weight were found by `benchmark.tune` (reports/published/tuning). The Base came to the same rate and guidance.
    # Tokens start apart, because equal ones would stay one token: docs/methods.md has the figures.
    "puppets": FlexiActConfig().changed(
        embedding_tokens=16,
        initial_std=0.1,
        fit_steps=150,
        learning_rate=3e-2,
        batch_size=2,
        schedule=FrequencySchedule(alpha=2.0, low=850, high=950),
        refadapter_weight=0.4,
        guidance_scale=4.5,
    ),
}


def preset(backbone: Backbone) -> FlexiActConfig:
    """The configuration for a backbone.

    A backbone that `PRESETS` names gets its entry. Others get the paper's from 1e9 parameters on, otherwise
    the puppets'; the schedule's thresholds are then at the paper's signal-to-noise ratios on their own noise schedule.
    """
    config: FlexiActConfig = preset_of(PRESETS, backbone)
    schedule = config.transfer.schedule
    if backbone.name in PRESETS or schedule is None:
        return config
    return config.changed(schedule=matched_schedule(backbone, schedule))


def principled(backbone: Backbone) -> FlexiActConfig:
    """The paper's settings transferred to any backbone by their meaning.

    The schedule switches at the paper's signal-to-noise ratios. The number of fitted tokens gives the paper's attention
    share. RefAdapter has the paper's weight. None of these is tuned. Guidance and the fit's start, steps, rate and
    batch are those of the backbone's preset, which may be tuned.
    """
    return preset(backbone).changed(
        embedding_tokens=matched_tokens(backbone),
        schedule=matched_schedule(backbone, FrequencySchedule()),
        refadapter_weight=TransferConfig().refadapter_weight,
    )


class FlexiAct(ConfiguredMethod[FitConfig, TransferConfig]):
    """The paper's method; embedding and RefAdapter are attached only while `fit` and `transfer` run."""

    method_id = "FlexiAct"
    version = 1
    uses_reference = True
    presets = PRESETS
    preset = staticmethod(preset)

    @property
    def reads_crops(self) -> bool:
        """True if `fit` reads the crops that come with a reference (`Video.crops`)."""
        return self.config.fit.crops == 0

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Fit the embedding to crops of the reference, without RefAdapter and without bias."""
        check_fit(self.backbone, reference, caption, seed)
        config, generator = self.config.fit, torch.Generator().manual_seed(seed)
        embedding = FrequencyAwareEmbedding.drawn(self.backbone, config.embedding_tokens, config.initial_std, generator)
        batches = reference_batches(self.backbone, reference, caption, config, generator)
        plan = Optimisation(
            config.fit_steps, config.learning_rate, config.weight_decay, max_grad_norm=config.max_grad_norm
        )
        with frozen(self.backbone.transformer), extra_tokens_attached(self.backbone.transformer):
            loss = self._loss(embedding, generator)
            optimise([embedding.tokens], batches, loss, plan, label="embedding", generator=generator)
        return embedding.to_action()

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` doing the action."""
        embedding = FrequencyAwareEmbedding.from_action(action, self.backbone)
        schedule = self.config.transfer.schedule

        def step_kwargs(timestep: int) -> dict[str, Any]:
            return embedding.attention_kwargs(schedule(timestep) if schedule else 0.0)

        with extra_tokens_attached(self.backbone.transformer):
            return self.sample(request, step_kwargs)

    def _loss(self, embedding: FrequencyAwareEmbedding, generator: torch.Generator) -> Callable[[Batch], torch.Tensor]:
        denoiser, debias = Denoiser(self.backbone), debias_term(self.config.fit.debias_weight, generator)

        def loss_of(batch: Batch) -> torch.Tensor:
            return denoising_loss(
                denoiser,
                self.backbone.scheduler,
                batch,
                generator,
                further=debias,
                attention_kwargs=embedding.attention_kwargs(),
            )

        return loss_of
