"""Measure on held-out worlds whether the puppet backbone follows full captions, before any method runs on it.

Test actions of the large movements that it was trained on are judged apart from all others. While it is trained,
development actions in worlds of the development split are judged instead, so that no decision rests on test actions.
Generated clips are compared with a still image, the same scene doing another action, and the true clip after the VAE.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import decode_latents, encode_video
from flexiact.pose.estimators import PoseEstimator
from flexiact.puppets.recipes.vae import motion_cosine
from flexiact.puppets.world.actions import DEV_ACTIONS, TEST_ACTIONS, PuppetAction, is_large
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import Clip, render_clip
from flexiact.puppets.world.rigs import RIGS, TRAINING_RIGS
from flexiact.puppets.world.scene import Scene, random_scene
from flexiact.sampling import sample_video
from flexiact.task import Request

CANDIDATES = ("generated", "still", "another action", "truth through the VAE")
LARGE_ACTIONS = {name: action for name, action in TEST_ACTIONS.items() if is_large(action)}
OTHER_ACTIONS = {name: action for name, action in TEST_ACTIONS.items() if name not in LARGE_ACTIONS}
DEVELOPMENT_ACTIONS = {name: action for name, action in DEV_ACTIONS.items() if is_large(action)}
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Judgement:
    """Errors against the true clip, one row per world and one column per name in `CANDIDATES`.

    Attributes:
        pixel: Root mean squared error in grey levels of 255, over the frames after the first quarter.
        keypoint: Mean distance in pixels between the pose judge's keypoints and the true ones, over the same frames.
        motion: Cosine between the candidate's differences of adjacent frames and the true ones.
    """

    pixel: np.ndarray
    keypoint: np.ndarray
    motion: np.ndarray


def judge(
    backbone: Backbone,
    pose: PoseEstimator,
    actions: Mapping[str, PuppetAction],
    worlds: int,
    seed: int,
    split: str = "test",
) -> Judgement:
    """Judge `worlds` clips made from first frame and full caption; skins and backgrounds are the split's."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in tqdm(range(worlds), desc="judging", delay=5):
        scene, action, other = _draw(generator, actions, index, split)
        truth = render_clip(scene, action)
        request = Request(truth.video.frames[0], caption(scene, action, "full"), seed + index)
        generated = sample_video(
            backbone,
            request,
            num_inference_steps=backbone.num_inference_steps,
            guidance_scale=backbone.guidance_scale,
        ).frames
        still = np.repeat(truth.video.frames[:1], len(truth.video.frames), 0)
        coded = decode_latents(backbone, encode_video(backbone, truth.video.frames, generator))[0]
        candidates = (generated, still, render_clip(scene, other).video.frames, coded)
        rows.append([_errors(frames, truth, pose) for frames in candidates])
    table = np.array(rows)
    return Judgement(table[..., 0], table[..., 1], table[..., 2])


def _draw(
    generator: torch.Generator, actions: Mapping[str, PuppetAction], index: int, split: str
) -> tuple[Scene, PuppetAction, PuppetAction]:
    """Draw a scene, an action that its body can do, and another such action."""
    scene = random_scene(generator, split, TRAINING_RIGS[index % len(TRAINING_RIGS)])
    able = [n for n, a in actions.items() if {m.channel for m in a} <= set(RIGS[scene.rig].channels)]
    first, second = torch.randperm(len(able), generator=generator)[:2].tolist()
    return scene, actions[able[first]], actions[able[second]]


def _errors(frames: np.ndarray, truth: Clip, pose: PoseEstimator) -> tuple[float, float, float]:
    first = -(-len(frames) // 4)
    real = truth.video.frames.astype(np.float64)
    made = frames.astype(np.float64)
    pixel = float(np.sqrt(((made[first:] - real[first:]) ** 2).mean()))
    found, _ = pose.estimate(frames)
    distance = np.linalg.norm(found[first:] - truth.keypoints[first:], axis=-1)[:, truth.keypoint_exists]
    return pixel, float(distance.mean()), motion_cosine(made, real)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def as_markdown(judgement: Judgement) -> str:
    """Table of the model card, and a sentence that says whether captions are followed."""
    lines = ["| candidate | pixel RMSE | keypoint error (px) | motion cosine |", "|---|---|---|---|"]
    for column, name in enumerate(CANDIDATES):
        cells = [f"{field[:, column].mean():.3f}" for field in (judgement.pixel, judgement.keypoint, judgement.motion)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    for column in (1, 2):
        for what, field in (("pixel RMSE", judgement.pixel), ("keypoint error", judgement.keypoint)):
            gain = field[:, column] - field[:, 0]
            low, high = _interval(gain)
            verdict = "better" if low > 0 else "not shown to be better"
            lines.append(
                f"- {what}: generated is {verdict} than *{CANDIDATES[column]}*: "
                f"lower by {gain.mean():.3f}, 95 % interval [{low:.3f}, {high:.3f}], {len(gain)} worlds."
            )
    return "\n".join(lines) + "\n"
