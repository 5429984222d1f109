"""Calibrate the pose judge, measure it on held-out worlds, and write its model card."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexiact.pose.estimators import MMPoseEstimator, PoseEstimator, TopDownEstimator, axis_score
from flexiact.puppets.recipes.judges import degrade
from flexiact.puppets.world.actions import TEST_ACTIONS, random_action
from flexiact.puppets.world.clip import SIZE, projections, render_clips, target_clip
from flexiact.puppets.world.render import draw
from flexiact.puppets.world.rigs import BONES, RIGS, TRAINING_RIGS
from flexiact.puppets.world.scene import random_scene

PCK_SHARE = 0.1
CALIBRATION_SEED, TEST_SEED = 910_001, 920_001
SCENES_PER_RIG = 50


@dataclass(frozen=True, eq=False)
class Frames:
    """Held-out clips and their truth.

    Attributes:
        frames: uint8 [N, T, S, S, 3].
        targets: uint8 [N, S, S, 3], the same scenes at rest.
        keypoints: float32 [N, T, 13, 2], (x, y) in pixels.
        target_keypoints: float32 [N, 13, 2].
        exists: bool [N, 13].
        body_px: [N], one body unit.
        rigs: N names.
        bare: uint8 [N, S, S, 3], the backgrounds alone.
    """

    frames: np.ndarray
    targets: np.ndarray
    keypoints: np.ndarray
    target_keypoints: np.ndarray
    exists: np.ndarray
    body_px: np.ndarray
    rigs: tuple[str, ...]
    bare: np.ndarray


def held_out(split: str, seed: int, scenes_per_rig: int = SCENES_PER_RIG) -> Frames:
    """Render clips of every rig: test actions in the test split, random actions in any other."""
    generator = torch.Generator().manual_seed(seed)
    rigs = tuple(rig for rig in (TRAINING_RIGS if split == "train" else RIGS) for _ in range(scenes_per_rig))
    scenes = [random_scene(generator, split, rig) for rig in rigs]
    named = list(TEST_ACTIONS.values())
    actions = [named[i % len(named)] if split == "test" else random_action(generator) for i in range(len(scenes))]
    clips, targets = render_clips(scenes, actions), [target_clip(s) for s in scenes]
    nothing = torch.zeros(len(scenes), len(BONES), dtype=torch.bool)
    bare, _ = draw(projections(scenes, torch.zeros(len(scenes), 1, 21)), scenes, nothing, SIZE)
    return Frames(
        np.stack([c.video.frames for c in clips]),
        np.stack([c.video.frames[0] for c in targets]),
        np.stack([c.keypoints for c in clips]),
        np.stack([c.keypoints[0] for c in targets]),
        np.stack([c.keypoint_exists for c in clips]),
        np.array([s.camera.scale * SIZE for s in scenes]),
        rigs,
        bare.numpy(),
    )


def degraded(frames: np.ndarray, how: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Apply a degradation to uint8 frames [..., S, S, 3]."""
    flat = torch.from_numpy(frames.reshape(-1, *frames.shape[-3:])).permute(0, 3, 1, 2).float() / 255
    result = (how(flat).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return result.numpy().reshape(frames.shape)


def conditions() -> dict[str, Callable[[Tensor], Tensor]]:
    """The degradations of the model card, by name."""

    def noisy(sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda x: degrade.add_noise(x, sigma, torch.Generator().manual_seed(1))

    return {
        "clean": lambda x: x,
        "blur, sigma 1 px": lambda x: degrade.blur(x, 1.0),
        "blur, sigma 2 px": lambda x: degrade.blur(x, 2.0),
        "blur, sigma 3 px": lambda x: degrade.blur(x, 3.0),
        "half resolution": lambda x: degrade.coarse(x, 2),
        "quarter resolution": lambda x: degrade.coarse(x, 4),
        "noise, sigma 0.05": noisy(0.05),
        "noise, sigma 0.10": noisy(0.10),
        "noise, sigma 0.20": noisy(0.20),
        "contrast 0.5": lambda x: degrade.lower_contrast(x, 0.5),
        "contrast 0.25": lambda x: degrade.lower_contrast(x, 0.25),
        "JPEG-like, step 0.05": lambda x: degrade.jpeg_like(x, 0.05),
        "JPEG-like, step 0.10": lambda x: degrade.jpeg_like(x, 0.10),
        "ghost of the next frame, 0.3": lambda x: degrade.ghost(x, x.roll(-1, 0), 0.3),
    }


def figureless(bare: np.ndarray) -> dict[str, np.ndarray]:
    """Images without a figure, uint8 [N, S, S, 3] by name."""
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, (len(bare), 1, 1, 3))
    return {
        "bare background": bare,
        "one colour": np.broadcast_to(levels, bare.shape).astype(np.uint8),
        "white noise": generator.integers(0, 256, bare.shape).astype(np.uint8),
        "noisy background": degraded(bare, lambda x: degrade.add_noise(x, 0.1, torch.Generator().manual_seed(2))),
    }


def calibrated(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Fit the score's temperature and threshold on fresh worlds of the judges' own split.

    The temperature makes the mean score equal the share of points that lie within the radius on both axes, over clean
    and moderately degraded frames. The threshold is the smallest multiple of 0.01, at least 0.3, above 99 % of the
    scores on every kind of figureless image.
    """
    judge = MMPoseEstimator(folder)
    data = held_out("judge", CALIBRATION_SEED, 30)
    exists = np.repeat(data.exists[:, None], data.frames.shape[1], 1)
    names = ("clean", "blur, sigma 2 px", "noise, sigma 0.10", "contrast 0.5", "ghost of the next frame, 0.3")
    answers = []
    for name in names:
        frames = degraded(data.frames, conditions()[name])
        x, y = judge.logits(frames.reshape(-1, SIZE, SIZE, 3))
        points = judge.model.head.decoder.decode(x.copy(), y.copy())[0]
        off = np.abs(points - data.keypoints.reshape(points.shape).clip(0, SIZE)).max(-1)
        keep = exists.reshape(points.shape[:2])
        answers.append((x[keep], y[keep], points[keep], off[keep] <= judge.scoring.radius_px))
    x, y, points, right = (np.concatenate(part) for part in zip(*answers, strict=True))
    bins = float(config["codec"]["simcc_split_ratio"])

    def scores(temperature: float) -> np.ndarray:
        scoring = replace(judge.scoring, temperature=temperature)
        axes = [axis_score(v, p, bins, scoring) for v, p in ((x, points[:, 0]), (y, points[:, 1]))]
        return np.minimum(*axes)

    options = [round(0.6 + 0.1 * i, 1) for i in range(25)]
    temperature = min(options, key=lambda t: abs(float(scores(t).mean()) - float(right.mean())))
    judge.scoring = replace(judge.scoring, temperature=temperature)
    scoring = {**config["scoring"], "temperature": temperature, "threshold": found_threshold(judge, data)}
    return {**config, "scoring": scoring}


def found_threshold(estimator: PoseEstimator, data: Frames) -> float:
    """Smallest multiple of 0.01, at least 0.3, above 99 % of the scores on every kind of figureless image."""
    empty = [np.quantile(estimator.estimate(images)[1], 0.99) for images in figureless(data.bare).values()]
    return round(max(0.3, float(np.ceil(max(empty) * 100) / 100)), 2)


@dataclass(frozen=True)
class Accuracy:
    """PCK@0.1 (points below the threshold are misses), mean error of found points in px (nan: none), share missed."""

    pck: float
    error_px: float
    missed: float

    def cells(self) -> str:
        """The three values as cells of a Markdown table."""
        return f"{self.pck:.3f} | {self.error_px:.2f} | {self.missed:.3f}"


def accuracy(judge: PoseEstimator, data: Frames, frames: np.ndarray, rig: str | None = None) -> Accuracy:
    """Measure the judge on (degraded) frames [N, T, S, S, 3] of held-out clips, of one rig or all."""
    keep = np.array([rig in (None, r) for r in data.rigs])
    points, scores = judge.estimate(frames[keep].reshape(-1, SIZE, SIZE, 3))
    truth = data.keypoints[keep]
    error = np.linalg.norm(points.reshape(truth.shape) - truth, axis=-1)
    found = scores.reshape(error.shape) >= judge.score_threshold
    counted = np.repeat(data.exists[keep][:, None], error.shape[1], 1)
    near = error <= PCK_SHARE * data.body_px[keep][:, None, None]
    found_error = float(error[counted & found].mean()) if (counted & found).any() else float("nan")
    return Accuracy(float((near & found)[counted].mean()), found_error, float(1 - found[counted].mean()))


def displacement_agreement(judge: PoseEstimator, data: Frames, frames: np.ndarray) -> float:
    """Mean cosine over clips of found and true displacements from the target image; missed points are still."""
    count, length = frames.shape[:2]
    points, scores = (v.reshape(count, length, *v.shape[1:]) for v in judge.estimate(frames.reshape(-1, SIZE, SIZE, 3)))
    rest, rest_scores = judge.estimate(data.targets)
    found = (scores >= judge.score_threshold) & (rest_scores >= judge.score_threshold)[:, None]
    moved = (points - rest[:, None]) * found[..., None] * data.exists[:, None, :, None]
    true = (data.keypoints - data.target_keypoints[:, None]) * data.exists[:, None, :, None]
    moved, true = moved.reshape(count, -1), true.reshape(count, -1)
    norms = np.linalg.norm(moved, axis=1) * np.linalg.norm(true, axis=1)
    return float(((moved * true).sum(1) / np.maximum(norms, 1e-9)).mean())


def _reliability(judge: MMPoseEstimator, data: Frames) -> list[str]:
    """Share of points within the radius, by score, over all conditions of the card."""
    rows, scores, right = [], [], []
    for how in conditions().values():
        points, score = judge.estimate(degraded(data.frames, how).reshape(-1, SIZE, SIZE, 3))
        off = np.abs(points - data.keypoints.reshape(points.shape).clip(0, SIZE)).max(-1)
        keep = np.repeat(data.exists[:, None], data.frames.shape[1], 1).reshape(score.shape)
        scores.append(score[keep])
        right.append(off[keep] <= judge.scoring.radius_px)
    score, hit = np.concatenate(scores), np.concatenate(right)
    edges = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (score >= low) & ((score < high) | (high == 1.0))
        share = f"{hit[inside].mean():.3f}" if inside.any() else "none"
        rows.append(f"| {low:.1f} to {high:.1f} | {inside.mean():.3f} | {share} |")
    return rows


def tables(estimator: PoseEstimator, data: Frames) -> dict[str, str]:
    """Rows of a card's tables: `rigs`, `conditions` (degradations) and `empty` (images without a figure)."""
    rigs = [f"| {rig} | {accuracy(estimator, data, data.frames, rig).cells()} |" for rig in RIGS]
    degradations = []
    for name, how in conditions().items():
        frames = degraded(data.frames, how)
        agreement = displacement_agreement(estimator, data, frames)
        degradations.append(f"| {name} | {accuracy(estimator, data, frames).cells()} | {agreement:.3f} |")
    empty = [
        f"| {name} | {float((estimator.estimate(images)[1] >= estimator.score_threshold).mean()):.4f} |"
        for name, images in figureless(data.bare).items()
    ]
    return {"rigs": "\n".join(rigs), "conditions": "\n".join(degradations), "empty": "\n".join(empty)}


def measured_card(folder: Path, judge: TopDownEstimator, data: Frames, card: str, **facts: object) -> dict[str, float]:
    """Write an estimator's card, README.md, on the test split; return its PCK@0.1 and agreement on clean frames."""
    text = card.format(
        parameters=f"{sum(p.numel() for p in judge.model.parameters()) / 1e6:.2f}",
        scenes=len(data.rigs),
        count=data.frames.shape[0] * data.frames.shape[1],
        threshold=judge.score_threshold,
        **tables(judge, data),
        **facts,
    )
    (folder / "README.md").write_text(text)
    return {
        "pck": accuracy(judge, data, data.frames).pck,
        "agreement": displacement_agreement(judge, data, data.frames),
    }


def write_card(folder: Path, steps: int, seed: int) -> dict[str, float]:
    """Measure the finished judge on the test split and write its card; see `measured_card`."""
    judge, data = MMPoseEstimator(folder), held_out("test", TEST_SEED)
    facts = {"steps": steps, "seed": seed, "temperature": judge.scoring.temperature}
    radius, reliability = f"{judge.scoring.radius_px:g}", "\n".join(_reliability(judge, data))
    return measured_card(folder, judge, data, CARD, **facts, radius=radius, reliability=reliability)


CARD = """# Pose judge of the puppet world

An mmpose `TopdownPoseEstimator` (CSPNeXt, deepen 0.167, widen 0.125; three stages joined at 8x8; RTMCC head with
SimCC), {parameters} M parameters, 64x64 whole frames, 13 keypoints. `config.json` is an mmengine config,
`model.safetensors` the averaged weights in half precision. It is a measuring instrument: it was trained on every
rig, skin and background, on seeds of its own, with mmpose's own loss on clean and degraded frames.

    python -m flexiact.puppets.train pose --steps {steps} --seed {seed}

    from flexiact.pose.estimators import MMPoseEstimator
    keypoints, scores = MMPoseEstimator("flexiact/puppets/weights/pose").estimate(frames)

## Accuracy on held-out worlds

The test split: held-out skins and backgrounds, the 41 test actions (no training action comes near them), {scenes}
clips, {count} frames, drawn with a seed that nothing else uses. A point is right within 0.1 of one body unit (the
extent of the figure at rest). Every point that the body has counts, hidden by the body or not, in the frame
or not; a point scored below the threshold counts as a miss.

| rig | PCK@0.1 | error of found points, px | missed |
|---|---|---|---|
{rigs}

| frames | PCK@0.1 | error of found points, px | missed | agreement |
|---|---|---|---|---|
{conditions}

*Agreement* is the mean cosine between found and true displacements from the target image, over the whole clip, points
not found standing still: what motion agreement can reach at best with this judge on such frames.

## Scores

A score is the probability, by the model's own answer, that the point lies within {radius} px of the place reported,
on the less certain axis. Logits are divided by {temperature}, which makes the mean score the share of right points on
fresh worlds of the judges' own split, clean and degraded. Absent parts and figureless frames were trained towards the
flat distribution. The threshold is **{threshold}**: the smallest hundredth (0.3 at least) that 99 % of the points
reported on every kind of figureless image, backgrounds of that split, stay below.

| score, all conditions above | share of points | right |
|---|---|---|
{reliability}

| images without a figure, test split | points found |
|---|---|
{empty}

## Limits

One figure in each frame, drawn as this world draws it; other videos need another judge. Left and right are told apart
by their colour (left the second, right the first, dark), so a video that loses the colours loses the sides. The rates
above are for the degradations named; a diffusion model fails in further ways.
"""
