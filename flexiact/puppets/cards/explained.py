"""Share of each kind of movement that the backbone has learned, measured by one denoising step.

Clips with held-out skins and backgrounds are noised to a given timestep. The clean latents are predicted in one step
from the first frame and the full caption. The explained share is 1 - |predicted - clean|^2 / |still - clean|^2, where
`still` repeats the latents of the first frame: 0 is as good as a still image, 1 is exact. Only development actions and
random ones are used, so decisions about training may rest on these figures.

A clip is also missed where nothing moves: copying the first frame is not exact either. The last column tells how much
of all that is missed lies there.

For the trunk, which still has its layer that points at keypoints, a second table tells what the middle of the
transformer knows, whether or not it can be drawn: the error of the places pointed at, over keypoints that move.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from flexiact.puppets.engine.checkpoint import read_average
from flexiact.puppets.engine.loop import CHECKPOINT, put_kept
from flexiact.puppets.recipes.backbone.model import (
    TextToVelocity,
    new_scheduler,
    new_tokenizer,
    rotary_positions,
)
from flexiact.puppets.recipes.backbone.start import AVERAGES, untrained
from flexiact.puppets.recipes.clip_shards import encode, encode_linear
from flexiact.puppets.recipes.linear_code import BLOCK
from flexiact.puppets.recipes.vae import LATENT_CHANNELS, to_tensor, world_code
from flexiact.puppets.world.actions import DEV_ACTIONS, PuppetAction, is_large, random_large_action
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import SIZE, render_clips
from flexiact.puppets.world.rigs import LIMBS, RIGS, TRAINING_RIGS
from flexiact.puppets.world.scene import Scene, random_scene

TIMESTEPS = (999, 900, 750, 500, 250)
DEVELOPMENT = "development actions"
MOVED = 3.0
"""Smallest distance, in pixels, of a keypoint from its first place that counts as movement in `pointed`."""
RESTING = 1e-3
"""Largest mean square, over channels, of the movement at a place of the latents that is at rest."""
_BATCH = 32


def _pair(limb: str, motion: str) -> tuple[str, ...]:
    return tuple(f"{name}_{motion}" for name in LIMBS if name.startswith(limb))


KINDS: dict[str, tuple[str, ...]] = {
    "bow": ("trunk_pitch",),
    "hop": ("hop",),
    "advance": ("shift",),
    "forelimbs swing": _pair("fore", "swing"),
    "forelimbs spread": _pair("fore", "spread"),
    "hindlimbs swing": _pair("hind", "swing"),
    "hindlimbs spread": _pair("hind", "spread"),
    "hindlimbs bend": _pair("hind", "flex"),
}
"""Channels that move alone in the clips of a kind."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Clips of one kind.

    Attributes:
        latents: Latents of the clips [N, F, C, h, w].
        still: Latents of clips that repeat the first frame, of the same shape.
        first: Latents of the first frame [N, 1, C, h, w].
        ids: Caption ids [N, L].
        points: Keypoints [N, T, 13, 2] in pixels, nan where the body lacks the part.
    """

    latents: Tensor
    still: Tensor
    first: Tensor
    ids: Tensor
    points: Tensor


class Trained(NamedTuple):
    """Model to measure, its encoder from pixels [B, 3, T, H, W] to latents [B, F, C, h, w], and its tokenizer."""

    encode: Callable[[Tensor], Tensor]
    tokenizer: PreTrainedTokenizerFast
    model: TextToVelocity


def _drawn(kind: str, count: int, generator: torch.Generator) -> list[tuple[Scene, PuppetAction]]:
    able = [r for r in TRAINING_RIGS if set(KINDS.get(kind, ())) <= set(RIGS[r].channels)]
    development = [a for a in DEV_ACTIONS.values() if is_large(a)]
    drawn: list[tuple[Scene, PuppetAction]] = []
    while len(drawn) < count:
        scene = random_scene(generator, "dev", able[len(drawn) % len(able)])
        if kind == DEVELOPMENT:
            fitting = [a for a in development if {m.channel for m in a} <= set(RIGS[scene.rig].channels)]
            action = fitting[int(torch.randint(len(fitting), (), generator=generator))]
        else:
            action = random_large_action(generator, KINDS[kind])
        if any(motion.shape != "hold" for motion in action):
            drawn.append((scene, action))
    return drawn


def held_out_clips(trained: Trained, count: int, seed: int) -> dict[str, HeldOut]:
    """Render and encode `count` clips of the development actions, and as many of every kind."""
    clips = {}
    for number, kind in enumerate((DEVELOPMENT, *KINDS)):
        drawn = _drawn(kind, count, torch.Generator().manual_seed(seed * 1000 + number))
        scenes, actions = [scene for scene, _ in drawn], [action for _, action in drawn]
        rendered = render_clips(scenes, actions)
        pixels = to_tensor([clip.video for clip in rendered])
        texts = [caption(scene, action, "full") for scene, action in drawn]
        still = pixels[:, :, :1].expand_as(pixels)
        ids = trained.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        latents, unmoved, first = (trained.encode(x).float() for x in (pixels, still, pixels[:, :, :1]))
        exists = np.stack([clip.keypoint_exists for clip in rendered])[:, None, :, None]
        points = np.where(exists, np.stack([clip.keypoints for clip in rendered]), np.nan)
        clips[kind] = HeldOut(latents, unmoved, first, ids, torch.from_numpy(points).float())
    return clips


def explained(model: TextToVelocity, clips: HeldOut, timestep: int, seed: int) -> float:
    """Share of the movement that one step from `timestep` explains; the noise is drawn from the seed."""
    wrong = sum(float(missed.sum()) for _, missed in _missed(model, clips, timestep, seed))
    return 1 - wrong / float(_movement(clips).sum())


def missed_at_rest(model: TextToVelocity, clips: HeldOut, timestep: int, seed: int) -> float:
    """Share, of what one step from `timestep` misses, that lies at places at rest (see `RESTING`)."""
    parts = list(_missed(model, clips, timestep, seed))
    missed, rows = torch.cat([part for _, part in parts]), torch.cat([rows for rows, _ in parts])
    return float(missed[_movement(clips)[rows] <= RESTING].sum() / missed.sum())


def _movement(clips: HeldOut) -> Tensor:
    """Mean square over channels [N, F, h, w] of the latents minus those of a still image."""
    return (clips.still - clips.latents).square().mean(2)


def _missed(model: TextToVelocity, clips: HeldOut, timestep: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of a part of the clips, and the mean square over channels [B, F, h, w] of what one step misses."""
    for rows, clean in _one_step(model, clips, timestep, seed):
        yield rows, (clean - clips.latents[rows]).square().mean(2)


@torch.no_grad()
def _one_step(model: TextToVelocity, clips: HeldOut, timestep: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of a part of the clips, and the clean latents that one step predicts for them."""
    alpha = float(new_scheduler().alphas_cumprod[timestep])
    rotary = rotary_positions(model.transformer, clips.latents)
    noise = torch.randn(clips.latents.shape, generator=torch.Generator().manual_seed(seed))
    noisy = alpha**0.5 * clips.latents + (1 - alpha) ** 0.5 * noise
    for rows in torch.arange(len(noisy)).split(_BATCH):
        condition = torch.zeros_like(noisy[rows])
        condition[:, :1] = clips.first[rows]
        velocity = model(noisy[rows], condition, clips.ids[rows], torch.full((len(rows),), timestep), rotary)
        yield rows, alpha**0.5 * noisy[rows] - (1 - alpha) ** 0.5 * velocity


@torch.no_grad()
def pointed(model: TextToVelocity, clips: HeldOut, seed: int) -> tuple[float, float]:
    """Mean distance in pixels from keypoints to where the trunk's middle block points, and to the first frame's place.

    It is taken at the first of `TIMESTEPS`, over keypoints that are `MOVED` pixels or more from their first place.
    """
    known, unmoved = [], []
    for rows, _ in _one_step(model, clips, TIMESTEPS[0], seed):
        points = clips.points[rows]
        away = (points - points[:, :1]).norm(dim=-1)
        moved = away >= MOVED  # false for nan
        known.append((model.pointer.places() - points).norm(dim=-1)[moved])
        unmoved.append(away[moved])
    return float(torch.cat(known).mean()), float(torch.cat(unmoved).mean())


def explained_table(model: TextToVelocity, clips: Mapping[str, HeldOut], seed: int) -> dict[str, list[float]]:
    """Explained shares of every kind at each of `TIMESTEPS`, and then `missed_at_rest` at the first of them."""
    return {
        kind: [
            *(explained(model, those, t, seed) for t in TIMESTEPS),
            missed_at_rest(model, those, TIMESTEPS[0], seed),
        ]
        for kind, those in clips.items()
    }


def load_trained(folder: Path) -> Trained:
    """Load a finished backbone folder in single precision."""
    vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae").float().eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    transformer = CogVideoXTransformer3DModel.from_pretrained(folder / "transformer")
    text_encoder = T5EncoderModel.from_pretrained(folder / "text_encoder")
    model = TextToVelocity(text_encoder.float(), transformer.float()).eval()
    return Trained(partial(encode, vae), tokenizer, model)


def load_trunk(state: Path, seed: int) -> Trained:
    """Load the trunk's latest checkpoint, with the average of its weights."""
    path, code = state / "backbone" / CHECKPOINT, world_code(state, seed)
    model = untrained(LATENT_CHANNELS, SIZE // BLOCK)
    put_kept(model, read_average(path, AVERAGES[0]))
    return Trained(partial(encode_linear, code), new_tokenizer(), model.eval())


def as_markdown(table: Mapping[str, Sequence[float]]) -> str:
    """Table of the card: one row per kind, and the mean over the kinds that move limbs."""
    columns = ["movement", *(f"t = {t}" for t in TIMESTEPS), "of the missed, at rest"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    limbs = np.mean([shares for kind, shares in table.items() if "limbs" in kind], axis=0).tolist()
    for name, shares in (*table.items(), ("limbs, mean", limbs)):
        lines.append(f"| {name} | {' | '.join(f'{share:.2f}' for share in shares)} |")
    return "\n".join(lines) + "\n"


def pointed_markdown(model: TextToVelocity, clips: Mapping[str, HeldOut], seed: int) -> str:
    """Table of `pointed` for every kind."""
    rows = [(kind, *pointed(model, those, seed)) for kind, those in clips.items()]
    lines = ["| keypoints that move | pointed at, px | still image, px |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {kind} | {known:.1f} | {unmoved:.1f} |" for kind, known, unmoved in rows)]) + "\n"
