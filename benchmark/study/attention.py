"""Measure what FlexiAct's schedule rests on: where and when videos attend to the embedding, and when content settles.

The paper shows in its Figure 2 that videos attend to the embedding where things move, early, and to details later. Here
the moving parts are known, so that it can be tested. Every case is sampled three times: with the fitted embedding at
bias 0, which is the observation; with it and the preset's schedule, which is its use; and with the tokens that a fit
starts from at bias 0, which shows what any token would get.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from benchmark.planning.keys import key
from benchmark.stages.execute import format_of
from benchmark.study.regions import COVERED_SHARE, regions
from benchmark.suites.puppets import PuppetCase, PuppetSuite
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.shares import shares_recorded
from flexiact.embedding import FrequencyAwareEmbedding, attention_share
from flexiact.fits import FitFolder, fit_description
from flexiact.media.digests import canonical_json
from flexiact.method import FlexiAct
from flexiact.puppets.world.render import RENDERER_VERSION
from flexiact.task import Action, Request, Video
from flexiact.terminal.progress import counted
from flexiact.training import predicted_clean

LOW_BELOW = 0.25
"""Largest low frequency, in cycles a latent frame or cell: half of the highest that can be told."""

DEFINITIONS = {
    "share": "softmax mass that a video token gives the embedding's tokens, mean over heads, with the prompt",
    "moving part": "one end of it is, at some judged frame of the right answer, further from its place in the target "
    "image than what is judged has to be",
    "inside": f"tokens that moving parts cover by {COVERED_SHARE:g} or more, in the right answer; outside: the others; "
    f"still: those outside that parts at rest cover as much. The first frame, the target image, is left out. The video "
    "itself may move elsewhere than the right answer",
    "early, late": "steps in the highest and the lowest third of the timesteps",
    "settled": "1 - squared distance of a step's predicted clean latents from the result's / that of the target image, "
    "standing still, from the result's; in a band of frequencies over time or in space; low: up to "
    f"{LOW_BELOW:g} cycles a latent frame or cell",
}
"""Words of the page."""

MIN_STEPS = 3
"""Smallest number of sampler steps: one in each third of the timesteps."""


@dataclass(frozen=True)
class Plan:
    """Amount of a study.

    Attributes:
        fit_steps: Number of optimiser steps of a fit; None: the preset's.
    """

    references: int
    targets: int
    fit_steps: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Sampled:
    """Measurements of one transfer.

    Attributes:
        timesteps: Timestep of each step.
        shares: Shares of attention on the embedding by the branch with the prompt, [steps, blocks, video tokens].
        clean: Clean latents that each step predicts, after guidance, [steps, F, C, h, w]; the last are the result.
    """

    timesteps: list[int]
    shares: Tensor
    clean: Tensor


def measured(suite: PuppetSuite, backbone: Backbone, fits: FitFolder, plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sample every case in the three ways, and measure; fits come from the cache or go there.

    Returns:
        Two tables with the columns case_id, reference_id, embedding ("fitted" at bias 0, "scheduled", or "unfitted" at
        bias 0), step, timestep, and: block, region (those of `regions`), share (mean over the region's tokens; NaN
        without one) in the first; content ("time" or "space"), band ("low" or "high"), settled in the second.

    Raises:
        ValueError: If the suite has fewer references or targets, there are fewer than `MIN_STEPS` sampler steps, or
            FlexiAct cannot be built on the backbone.
    """
    if backbone.num_inference_steps < MIN_STEPS:
        raise ValueError(f"steps: expected {MIN_STEPS} or more, got {backbone.num_inference_steps}")
    cases = chosen(suite, plan.references, plan.targets)
    plain, scheduled = _methods(backbone, plan)
    fit, generator = plain.config.fit, torch.Generator().manual_seed(plan.seed)
    unfitted = FrequencyAwareEmbedding.drawn(backbone, fit.embedding_tokens, fit.initial_std, generator).to_action()
    fits.check()
    shares, settled = [], []
    for case in counted(cases, len(cases), "attention"):
        staged = case.show(format_of(backbone))
        action = _fitted(plain, staged.reference, case.caption, fits, plan.seed)
        places = regions(staged.truth, backbone.token_grid, format_of(backbone))
        request = Request(staged.target, case.prompt, plan.seed)
        for embedding, method, tokens in (
            ("fitted", plain, action),
            ("scheduled", scheduled, action),
            ("unfitted", plain, unfitted),
        ):
            seen = sampled(method, tokens, request)
            row = (case.case_id, case.reference_id, embedding)
            shares += [(*row, *found) for found in _share_rows(seen, places)]
            settled += [(*row, *found) for found in _settled_rows(seen, backbone.num_padding_frames)]
    first = ["case_id", "reference_id", "embedding", "step", "timestep"]
    return (
        pd.DataFrame(shares, columns=[*first, "block", "region", "share"]),
        pd.DataFrame(settled, columns=[*first, "content", "band", "settled"]),
    )


def _methods(backbone: Backbone, plan: Plan) -> tuple[FlexiAct, FlexiAct]:
    """FlexiAct with bias 0 throughout, and with the preset's schedule; both have the same fits."""
    changes = {} if plan.fit_steps is None else {"fit_steps": plan.fit_steps}
    plain = FlexiAct.from_preset(backbone, schedule=None, **changes)
    return plain, FlexiAct.from_preset(backbone, **changes)


def chosen(suite: PuppetSuite, references: int, targets: int) -> list[PuppetCase]:
    """The first cases of the first references of a suite.

    Raises:
        ValueError: If the suite has fewer; the message names the option.
    """
    groups: dict[str, list[PuppetCase]] = {}
    for case in suite.chosen(suite.case_ids):
        groups.setdefault(case.reference_id, []).append(case)
    for name, asked, most in (
        ("references", references, len(groups)),
        ("targets", targets, min(map(len, groups.values()))),
    ):
        if not 1 <= asked <= most:
            raise ValueError(f"{name}: expected 1 to {most} in suite {suite.name}, got {asked}")
    return [case for group in list(groups.values())[:references] for case in group[:targets]]


def _fitted(method: FlexiAct, reference: Video, caption: str, fits: FitFolder, seed: int) -> Action:
    description = fit_description(method, reference, caption, seed)
    name = key("fit", description)
    kept = fits.load(name)
    if kept is not None:
        return kept[0]
    action = method.fit(reference, caption, seed=seed)
    fits.save(name, action, {"fit": canonical_json(description)})
    return action


def sampled(method: FlexiAct, action: Action, request: Request) -> Sampled:
    """Transfer once, and measure every step of it."""
    backbone = method.backbone
    _, guidance = method.config.transfer.resolved(backbone)
    with shares_recorded(backbone.transformer) as shares, _clean_recorded(backbone, guidance) as steps:
        method.transfer(action, request)
    by_block = [torch.stack([call[-1] for call in block]) for block in shares]
    timesteps, clean = zip(*steps, strict=True)
    return Sampled(list(timesteps), torch.stack(by_block, dim=1), torch.cat(clean))


@contextmanager
def _clean_recorded(backbone: Backbone, guidance_scale: float) -> Iterator[list[tuple[int, Tensor]]]:
    """Yield a list; each call of the transformer appends its timestep and the clean latents that it implies."""
    scheduler, channels = backbone.scheduler, backbone.latent_shape[1]
    steps: list[tuple[int, Tensor]] = []

    def record(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: tuple[Tensor]) -> None:
        timestep, prediction = int(kwargs["timestep"][0]), output[0].float()
        if len(prediction) == 2:  # without and with the prompt, as in `flexiact.sampling.denoise`
            prediction = prediction[:1] + guidance_scale * (prediction[1:] - prediction[:1])
        noisy = kwargs["hidden_states"][-1:, :, :channels].float()
        abar = scheduler.alphas_cumprod[timestep].to(noisy.device)
        steps.append((timestep, predicted_clean(prediction, noisy, abar, scheduler.config.prediction_type).cpu()))

    with backbone.transformer.register_forward_hook(record, with_kwargs=True):
        yield steps


def settled_shares(clean: Tensor, axes: tuple[int, ...]) -> dict[str, Tensor]:
    """Share of the change's energy in a band of frequencies that each step has settled, "low" and "high", [steps].

    The change is the latents less the result's first latent frame, which is the target image. Without that the still
    content, which the image gives from the first step on, would be nearly all of the low frequencies. With D_s the
    discrete Fourier transform of the change that step s predicts, and S the last step,

        settled_s = 1 - sum over band of |D_s - D_S|^2 / sum over band of |D_S|^2.

    It is 1 at the last step, 0 for the target image standing still, and below 0 for what is worse. Low are frequencies
    up to `LOW_BELOW`, in more than one dimension by their length. NaN where the result has no energy.

    Args:
        clean: Latents without padding frames, [steps, F, C, h, w].
        axes: Dimensions of the transform.
    """
    spectrum = torch.fft.fftn((clean - clean[-1:, :1]).double(), dim=axes)
    squared = torch.zeros([1] * clean.ndim, dtype=torch.float64)
    for axis in axes:
        size = [1] * clean.ndim
        size[axis] = -1
        squared = squared + torch.fft.fftfreq(clean.shape[axis], dtype=torch.float64).square().view(size)
    low = squared.sqrt() <= LOW_BELOW
    shares = {}
    for band, within in (("low", low), ("high", ~low)):
        error = ((spectrum - spectrum[-1:]).abs().square() * within).flatten(1).sum(1)
        energy = float((spectrum[-1:].abs().square() * within).sum())
        shares[band] = 1 - error / energy if energy > 0 else torch.full_like(error, torch.nan)
    return shares


def _share_rows(seen: Sampled, places: Mapping[str, Tensor]) -> Iterator[tuple[int, int, int, str, float]]:
    for region, mask in places.items():
        means = seen.shares[:, :, mask].mean(dim=-1)  # NaN without a token
        for step, timestep in enumerate(seen.timesteps):
            for block, share in enumerate(means[step].tolist()):
                yield step, timestep, block, region, share


def _settled_rows(seen: Sampled, num_padding_frames: int) -> Iterator[tuple[int, int, str, str, float]]:
    clean = seen.clean[:, num_padding_frames:]
    contents = {"time": settled_shares(clean, (1,)), "space": settled_shares(clean, (3, 4))}
    for content, bands in contents.items():
        for band, values in bands.items():
            for step, (timestep, value) in enumerate(zip(seen.timesteps, values.tolist(), strict=True)):
                yield step, timestep, content, band, value


def described(suite: PuppetSuite, backbone: Backbone, plan: Plan) -> dict[str, Any]:
    """Facts of a study for `reports.studies.attention_study.publish`, but its command."""
    _, method = _methods(backbone, plan)
    schedule, tokens = method.config.transfer.schedule, method.config.fit.embedding_tokens
    fit = method.config.fit
    return {
        "backbone": backbone.name,
        "suite": suite.name,
        "timesteps": len(backbone.scheduler.alphas_cumprod),
        "equal_share": attention_share(backbone, tokens, 0.0),
        "definitions": DEFINITIONS,
        "facts": {
            "suite": f"{suite.name}, version {suite.version}, digest {suite.digest[:12]}",
            "backbone": f"{backbone.name}, revision {backbone.revision[:12]}, {backbone.num_inference_steps} steps",
            "embedding": f"{tokens} tokens, {fit.fit_steps} steps of fitting, seed {plan.seed}",
            "schedule's bias": str(schedule),
            "RefAdapter": f"weight {method.config.transfer.adapter_weight:g}",
            "renderer": f"version {RENDERER_VERSION}",
        },
    }
