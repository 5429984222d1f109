"""DiTFlow: pull the displacements that attention implies between frames to those of the reference, without training.

Pondaven et al., "Video Motion Transfer with Diffusion Transformers", CVPR 2025, arXiv 2412.07776, section 3. For video
tokens u of frame i and v of frame j, with queries and keys of one block averaged over its H heads of width d,

    A_ij[u, v] = softmax_v (temperature / (H sqrt(d)) sum_h q_h[u] k_h[v]),    softmax over the tokens of frame j,
    flow_ij[u] = sum_v A_ij[u, v] place(v) - place(u)                            (in tokens),

the attention motion flow. The reference's flow comes from one pass over its clean latents at timestep 0 with the empty
prompt, with argmax in place of the mean over v. In the first 20 % of steps Adam changes the latents (or the rotary
positions) to lower the mean squared difference of both flows where the reference moves.

The released code can take the mean over v for the reference as well (`reference_flow="mean"`); then every token counts.

Departures from the paper:
- The model starts from an image, the paper's from text. The reference's pass is therefore conditioned on its first
  frame.
- In the guided steps the released code also copies keys and values of block 0 from the noised reference. They carry the
  reference's look; here the image determines the look, so they are left out.
- The released code changes the positions of queries and of keys apart; `optimise="rotary"` changes one set for both.
- It samples the 5B model with a guidance scale that falls from step to step; here the scale is the backbone's own.
- If nothing moves in the reference there is no guidance (the published mean over no element is undefined).
- The middle block is 20 of 42, as published. Of 30 blocks it is 14; the released code has 15. On the puppets it is
  tuned.

Memory in addition to `baselines.guidance`: the attention map, its logits and their gradients, each of S^2 values with 4
bytes for S video tokens (1.2 GB each for the 17,550 of CogVideoX-5B, about 4 GB in all).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from baselines.guidance import AdamConfig, GuidedMethod, LookConfig, adam
from flexiact.backbone.attention import Rotary
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_text
from flexiact.backbone.probe import BlockCapture
from flexiact.configured import Config
from flexiact.ranges import check_choice, check_positive
from flexiact.sampling import Guide, Step, rotary_embedding
from flexiact.task import Video

Optimised = Literal["latents", "rotary"]
ReferenceFlow = Literal["strongest", "mean"]

ACTION_KEY = "motion_flow"


@dataclass(frozen=True, kw_only=True)
class DiTFlowLook(LookConfig):
    """Settings of flows; the defaults are the paper's.

    Attributes:
        temperature: Factor of the logits before the softmax.
        reference_flow: Place of a token in another frame of the reference: that of its strongest attention, or the
            mean.
    """

    temperature: float = 2.0
    reference_flow: ReferenceFlow = "strongest"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_choice("reference_flow", self.reference_flow, get_args(ReferenceFlow))


@dataclass(frozen=True, kw_only=True)
class DiTFlowGuidance(AdamConfig):
    """Settings of DiTFlow's guidance; the defaults are the paper's for CogVideoX-5B.

    Attributes:
        optimise: Target of Adam: the latents, or the positions of the guided steps (carried from step to step).
    """

    optimise: Optimised = "latents"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("optimise", self.optimise, get_args(Optimised))


PAPER = Config(DiTFlowLook(), DiTFlowGuidance())
PRESETS = {
    "paper": PAPER,
    # Found by `benchmark.tune`, block and share of steps included.
    "puppets": PAPER.changed(
        block=5,
        learning_rate=0.005,
        final_learning_rate=0.0025,
        guided_share=0.55,
        guidance_scale=4.5,
        checkpointing=False,
    ),
}


class DiTFlow(GuidedMethod[DiTFlowLook, DiTFlowGuidance]):
    """Guidance by attention motion flow; an action is the reference's `motion_flow`, [F, F, tokens, 2], (x, y)."""

    method_id = "DiTFlow"
    version = 1
    presets = PRESETS

    def __init__(self, backbone: Backbone, config: Config[DiTFlowLook, DiTFlowGuidance] | None = None) -> None:
        super().__init__(backbone, config)
        rotary = backbone.transformer.config.use_rotary_positional_embeddings
        if self.config.transfer.optimise == "rotary" and not rotary:
            raise ValueError(f"optimise: backbone {backbone.name} has no rotary positions")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the only entry."""
        frames, height, width = self.grid
        return {ACTION_KEY: (frames, frames, height * width, 2)}

    def look(self, reference: Video, caption: str, generator: torch.Generator) -> dict[str, Tensor]:
        """The reference's flow; the caption is not read."""
        seen = self.seen(reference, generator)
        if self.config.fit.reference_flow == "mean":
            return {ACTION_KEY: self._flow(seen)}
        return {ACTION_KEY: strongest_flow(head_mean_logits(*seen.queries_and_keys()), self.grid)}

    def seen(self, video: Video, generator: torch.Generator) -> BlockCapture:
        """The block's capture in one pass over a video at timestep 0, with the empty prompt."""
        return self.whole_pass(*self.encoded(video, generator), encode_text(self.backbone, [""]), 0)[0]

    def guide(self, action: dict[str, Tensor]) -> Guide:
        """A guide that lowers the loss by changing each step's latents, or the positions from step to step."""
        reference = action[ACTION_KEY]
        optimised: Rotary | None = None

        def guide(step: Step) -> Step:
            nonlocal optimised
            if not reference.any():
                return step
            if self.config.transfer.optimise == "latents":
                return self._guide_latents(step, reference)
            optimised = self._guide_rotary(step, reference, optimised)
            return replace(step, rotary=optimised)

        return guide

    def loss(self, seen: BlockCapture, reference: Tensor) -> Tensor:
        """Mean squared difference between the flow of a pass and the reference's, where the reference's is not 0."""
        flow = self._flow(seen)
        moving = reference.norm(dim=-1) > 0
        return (flow[moving] - reference[moving]).square().mean()

    def _flow(self, seen: BlockCapture) -> Tensor:
        return mean_flow(head_mean_logits(*seen.queries_and_keys()), self.grid, self.config.fit.temperature)

    def _guide_latents(self, step: Step, reference: Tensor) -> Step:
        settings = self.config.transfer
        rate = settings.rate(step.index, self.guided_steps)
        with self.passes(step) as see:
            latents = adam(
                step.latents, lambda latents: self.loss(see(latents, None), reference), settings.adam_steps, rate
            )
        return replace(step, latents=latents)

    def _guide_rotary(self, step: Step, reference: Tensor, before: Rotary | None) -> Rotary:
        start = before or rotary_embedding(self.backbone)
        assert start is not None  # refused on construction
        settings = self.config.transfer
        rate = settings.rate(step.index, self.guided_steps)
        with self.passes(step) as see:
            cosines, sines = adam(
                torch.stack(start),
                lambda rotary: self.loss(see(step.latents, (rotary[0], rotary[1])), reference),
                settings.adam_steps,
                rate,
            )
        return cosines, sines


def head_mean_logits(query: Tensor, key: Tensor) -> Tensor:
    """Mean over heads of q k / sqrt(d), float32 [S, S], for one clip's queries and keys [1, H, S, d].

    The sum over heads is one product of all channels, so that no map of a single head is stored.
    """
    heads, width = query.shape[1], query.shape[3]
    rows, columns = (states[0].transpose(0, 1).flatten(1).float() for states in (query, key))
    return rows @ columns.T / (heads * math.sqrt(width))


def mean_flow(logits: Tensor, grid: tuple[int, int, int], temperature: float) -> Tensor:
    """Displacement of every token to every frame, as the mean place under softmax(temperature * logits), logits [S, S].

    Returns:
        Displacements, [frames of the token, frames, height * width, 2], (x, y) in tokens.
    """
    attention = (_by_frame(logits, grid) * temperature).softmax(dim=-1)
    places = _places(grid, logits.device)
    return attention @ places - places


def strongest_flow(logits: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Displacement of every token to the place of its largest logit in every frame; no gradients."""
    places = _places(grid, logits.device)
    return places[_by_frame(logits, grid).argmax(dim=-1)] - places


def _by_frame(logits: Tensor, grid: tuple[int, int, int]) -> Tensor:
    frames, height, width = grid
    return logits.view(frames, height * width, frames, height * width).transpose(1, 2)


def _places(grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """Coordinates (x, y) of every token of a frame, float32 [height * width, 2]."""
    _, height, width = grid
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1).float()
