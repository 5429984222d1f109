"""Recipe of the puppets' control weights: the shipped backbone learns to follow a skeleton.

Clips come from the training split. Their control videos are drawn from the true keypoints with the faults of an
estimator: jitter, missed points and uncertain scores. As in MimicMotion and AnimateAnyone the skeleton is the clip's
own; another body's skeleton is fitted at transfer only. All weights of the transformer are trained, as in
CogVideoX-Fun; the text encoder is frozen.

Captions say nothing about the action. With those of the backbone's training, of which two thirds tell it, a model that
understands words needs no skeleton.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.control import save_control, widened
from flexiact.pose.skeleton import DRAWING_VERSION, draw_skeletons, links_of
from flexiact.puppets.engine import processes
from flexiact.puppets.engine.loop import Pace, Plan, look_every, step_generator, train
from flexiact.puppets.engine.losses import Batch, LossTerms, Noising, velocity_loss
from flexiact.puppets.recipes.backbone.model import draw_batch, rotary_positions
from flexiact.puppets.recipes.clip_shards import cached_shards, encode, joined
from flexiact.puppets.recipes.shipped import shipped_backbone
from flexiact.puppets.recipes.vae import to_tensor
from flexiact.puppets.world.actions import PuppetAction, random_action, random_large_action
from flexiact.puppets.world.captions import wordings
from flexiact.puppets.world.clip import SIZE, Clip, render_clips
from flexiact.puppets.world.render import RENDERER_VERSION
from flexiact.puppets.world.rigs import KEYPOINTS, RIGS
from flexiact.puppets.world.scene import Scene, random_scene
from flexiact.task import Video

BATCH = 32
SHARD_CLIPS = 128
CLIPS_VERSION = 2
"""Raised when the same seed gives other scenes, actions or captions."""
# Share of clips with large movements, which alone the backbone was trained on; the others move any channel.
LARGE_SHARE = 0.5
_RENDERED = 16  # clips at a time
_SHARD_SEED_OFFSET = 8_000_000  # no shard shares a seed with any step, nor with the backbone's clips
TRAINING_VERSION = 3
"""Raised when the same clips lead to other weights."""
# Shares of captions of the subject, of all others, and of none; see the backbone's.
WORDING_SHARES = (0.9, 0.0, 0.0, 0.0, 0.0, 0.1)
# As in the backbone's training. The weight of the movement falls to zero with the learning rate.
TERMS = LossTerms(movement=0.5, channels=0.5)
CONTROL_DROPOUT = 0.1
"""Share of clips that have zeros for their control video, while the learning rate falls: what guidance starts from."""
HIGH_NOISE_SHARE = 0.4  # see the backbone's; here a skeleton tells the movement in every step
MAX_JITTER_PX, MISSED_SHARE, LOWEST_SCORE = 2.0, 0.03, 0.5


def detected(clip: Clip, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A clip's keypoints [T, K, 2] and scores [T, K] as an estimator might report them.

    Jitter is normal; its strength is drawn once per clip, up to `MAX_JITTER_PX`. A `MISSED_SHARE` of the points scores
    0, the others between `LOWEST_SCORE` and 1. Points that the body lacks score 0.
    """
    shape = clip.keypoints.shape[:2]
    strength = MAX_JITTER_PX * torch.rand((), generator=generator)
    jitter = torch.randn(*shape, 2, generator=generator) * strength
    scores = LOWEST_SCORE + (1 - LOWEST_SCORE) * torch.rand(shape, generator=generator)
    found = torch.rand(shape, generator=generator) >= MISSED_SHARE
    return clip.keypoints + jitter.numpy(), (scores * found).numpy() * clip.keypoint_exists


def _shard(backbone: Backbone, seed: int, index: int) -> dict[str, Tensor]:
    generator = step_generator(seed, _SHARD_SEED_OFFSET + index)
    return joined(_batch(backbone, generator) for _ in range(SHARD_CLIPS // _RENDERED))


def _batch(backbone: Backbone, generator: torch.Generator) -> dict[str, Tensor]:
    """Clips with their control videos.

    The latents of a clip and of its control video are joined on channels, so one draw of rows serves both.
    """
    scenes = [random_scene(generator, "train") for _ in range(_RENDERED)]
    actions = [_action(generator, scene) for scene in scenes]
    clips = render_clips(scenes, actions)
    links = links_of(KEYPOINTS)
    drawn = [draw_skeletons(*detected(clip, generator), links, (SIZE, SIZE)) for clip in clips]
    pixels = to_tensor([clip.video for clip in clips])
    control = encode(backbone.vae, to_tensor([Video(frames, clips[0].video.fps) for frames in drawn]))
    first = encode(backbone.vae, pixels[:, :, :1])
    texts = [text for s, a in zip(scenes, actions, strict=True) for text in wordings(s, a)]
    ids = backbone.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return {
        "latents": torch.cat([encode(backbone.vae, pixels), control], 2),
        "first": torch.cat([first, torch.zeros_like(first)], 2),
        "captions": ids.view(_RENDERED, -1, ids.shape[-1]).to(torch.int16),
    }


def _action(generator: torch.Generator, scene: Scene) -> PuppetAction:
    if float(torch.rand((), generator=generator)) < LARGE_SHARE:
        return random_large_action(generator, RIGS[scene.rig].channels)
    return random_action(generator)


def recipe_mark(backbone: Backbone, seed: int) -> str:
    """Name of all that clips and weights depend on outside this module; after a change the recipe starts anew."""
    drawing = f"drawing{DRAWING_VERSION}-renderer{RENDERER_VERSION}"
    return f"v{CLIPS_VERSION}-{backbone.revision[:12]}-{drawing}-seed{seed}"


def _shipped_shard(device: str, seed: int, index: int) -> dict[str, Tensor]:
    """Make a shard in a process of its own, which loads the backbone itself."""
    return _shard(shipped_backbone(device), seed, index)


def control_clips(backbone: Backbone, folder: Path, seed: int, shards: int, workers: int = 1) -> dict[str, Tensor]:
    """Clips with their control videos, for the shipped backbone on its device; folders and shards as in `cached_clips`.

    Returns:
        latents [N, F, 2C, h, w] (a clip's, then its control's), first [N, 1, 2C, h, w] (an image's, then zeros), both
        float16, and captions int16 [N, W, L] in all `wordings`, on the backbone's device.
    """
    make = partial(_shard, backbone, seed) if workers == 1 else partial(_shipped_shard, str(backbone.device), seed)
    return cached_shards(folder / recipe_mark(backbone, seed), shards, make, workers, backbone.device)


class ControlToVelocity(nn.Module):
    """The widened transformer, which is trained; the text encoder is called, but is no submodule."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.transformer = widened(backbone.transformer).requires_grad_(True)
        self._encode = backbone.text_encoder.forward

    def forward(self, noisy: Tensor, condition: Tensor, ids: Tensor, timestep: Tensor, rotary: tuple) -> Tensor:
        """Velocity [B, F, C, h, w] for noisy latents of that shape and condition [B, F, 2C, h, w]: image, control."""
        with torch.no_grad():
            text = self._encode(ids).last_hidden_state
        return self.transformer(
            hidden_states=torch.cat([noisy, condition], 2),
            encoder_hidden_states=text,
            timestep=timestep,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]


@dataclass(frozen=True)
class ControlRun:
    """Settings of a training of control weights.

    Attributes:
        state: Folder of checkpoints and cached clips.
        out: Folder of the weights and their card.
        steps: Number of optimiser steps.
        seed: Seed of the clips and of every step.
        device: Name of the device.
        shards: Number of shards of `SHARD_CLIPS` clips.
        processes: Number of one-thread processes that make clips and, on a CPU, train.
        compiled: True to fuse the model.
    """

    state: Path
    out: Path
    steps: int
    seed: int
    device: str
    shards: int
    processes: int = 1
    compiled: bool = False


def train_control(run: ControlRun) -> Path:
    """Train control weights on the shipped backbone; write the weights that differ from it, with a card, to `out`."""
    backbone = shipped_backbone(run.device)
    clips = control_clips(backbone, run.state / "control-clips", run.seed, run.shards, run.processes)
    processes.run(run.processes if run.device == "cpu" else 1, _train_process, run, clips)
    return run.out


def _plan(run: ControlRun) -> Plan:
    """Settings that decide the outcome."""
    return Plan(run.steps, run.seed, learning_rate=5e-4, averages=(0.10,), draws=run.device)


def _train_process(run: ControlRun, clips: dict[str, Tensor]) -> None:
    backbone = shipped_backbone(run.device)
    model = ControlToVelocity(backbone)
    if run.compiled:
        model.transformer.compile(dynamic=False)
    alphas = backbone.scheduler.alphas_cumprod.float().to(backbone.device)
    # Some processors emulate bfloat16, at half the speed of single precision.
    precision = torch.float32 if run.device == "cpu" else torch.bfloat16
    variance = clips["latents"][:SHARD_CLIPS].chunk(2, 2)[0].float().var((0, 1, 3, 4))
    noising = Noising(alphas, rotary_positions(backbone.transformer, clips["latents"]), precision, variance)
    plan = _plan(run)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        both, padded, ids, _ = draw_batch(clips, "first", BATCH, generator, WORDING_SHARES)
        (clean, control), (image, _) = both.chunk(2, 2), padded.chunk(2, 2)
        if step >= plan.decay_from:
            control = partly_dropped(control, generator)
        batch = Batch(clean, torch.cat([image, control], 2), ids)
        terms = TERMS.scaled(plan.rate(step) / plan.learning_rate)
        return velocity_loss(model, batch, noising, generator, HIGH_NOISE_SHARE, terms)

    folder = run.state / "control" / f"t{TRAINING_VERSION}-{recipe_mark(backbone, run.seed)}"
    train(model, loss_of, plan, folder, Pace(look_every=look_every(backbone.device)))
    if processes.rank() == 0:
        save_control(run.out, model.transformer, backbone)
        (run.out / "README.md").write_text(_card(run, backbone, len(clips["latents"])))


def partly_dropped(control: Tensor, generator: torch.Generator) -> Tensor:
    """Control latents [B, F, C, h, w] with zeros for a `CONTROL_DROPOUT` of the clips."""
    shown = torch.rand(len(control), generator=generator, device=control.device) >= CONTROL_DROPOUT
    return control * shown.view(-1, 1, 1, 1, 1)


def _card(run: ControlRun, backbone: Backbone, clips: int) -> str:
    return CARD.format(
        revision=backbone.revision[:12],
        steps=run.steps,
        batch=BATCH,
        samples=run.steps * BATCH,
        shards=run.shards,
        clips=clips,
        seed=run.seed,
        device=run.device,
        last=run.steps - _plan(run).decay_from,
        dropped=CONTROL_DROPOUT,
        mib=(run.out / "model.safetensors").stat().st_size / 2**20,
    )


CARD = """# Control weights of the puppet backbone

The backbone's transformer with a control video's latents as a third input, [noisy | image | control] on channels
(`flexiact.backbone.control`): the weights that differ from the backbone's, {mib:.1f} MiB in half precision, for its
revision {revision}. Trained on {clips} clips of the training world; their control videos are skeletons drawn from the
true keypoints with an estimator's jitter, misses and scores.

    python -m flexiact.puppets.train control --steps {steps} --shards {shards} --seed {seed} --device {device}

{steps} steps of {batch} clips, {samples:,} samples, averaged weights. Captions tell nothing of the action. In the last
{last} steps {dropped:.0%} of the clips had no skeleton.

Another revision of the backbone needs other weights.
"""
