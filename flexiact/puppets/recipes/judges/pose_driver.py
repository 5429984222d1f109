"""The pose driver: the pose estimator of pose-guided methods, independent of the judge that measures their results.

It has another architecture (ResNet and heatmaps), another seed and other worlds: the training split alone. So held-out
skins, backgrounds and the held-out rig are as new to it as to the method. A score is the height of a heatmap's peak;
absent parts and figureless frames have flat maps.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flexiact.pose.estimators import HeatmapEstimator
from flexiact.pose.mmpose_import import quiet
from flexiact.puppets.cards.pose_judge import (
    CALIBRATION_SEED,
    TEST_SEED,
    found_threshold,
    held_out,
    measured_card,
)
from flexiact.puppets.recipes.judges.pose_judge import (
    PREPROCESSOR,
    Recipe,
    keypoint_weights,
    normalised,
    train_estimator,
    whole_config,
)
from flexiact.puppets.world.clip import SIZE
from flexiact.puppets.world.rigs import KEYPOINTS

HEATMAP_CELLS = 32  # along a side
SIGMA_CELLS = 1.5
BASE_CHANNELS = 12  # of the first stage; the next ones double it
POOL_SCENES = 4000
SEED_OFFSET = 500_009  # the same --seed gives judge and driver different frames and initial weights


def driver_config() -> dict[str, Any]:
    """The driver's mmengine config: ResNet-18 at 12 base channels, its four stages joined at 16x16, heatmaps 32x32."""
    codec = {
        "type": "MSRAHeatmap",
        "input_size": [SIZE, SIZE],
        "heatmap_size": [HEATMAP_CELLS, HEATMAP_CELLS],
        "sigma": SIGMA_CELLS,
        # Unbiased decoding would throw points with a flat map far out of the frame.
        "unbiased": False,
    }
    model = {
        "type": "TopdownPoseEstimator",
        "data_preprocessor": PREPROCESSOR,
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "stem_channels": BASE_CHANNELS,
            "base_channels": BASE_CHANNELS,
            "out_indices": [0, 1, 2, 3],
        },
        "neck": {"type": "FeatureMapProcessor", "select_index": [0, 1, 2, 3], "concat": True},
        "head": {
            "type": "HeatmapHead",
            "in_channels": 15 * BASE_CHANNELS,
            "out_channels": len(KEYPOINTS),
            "deconv_out_channels": [32],
            "deconv_kernel_sizes": [2],
            "conv_out_channels": [32],
            "conv_kernel_sizes": [3],
            "loss": {"type": "KeypointMSELoss", "use_target_weight": True},
            "decoder": codec,
        },
        "test_cfg": {"flip_test": False},
    }
    return whole_config(model, codec, {"threshold": 0.3})


def heatmap_labels(keypoints: Tensor, exists: Tensor) -> Tensor:
    """Targets [B, 13, 32, 32] of the head in the encoding of mmpose's codec, for a batch and not rounded to cells.

    Args:
        keypoints: [B, 13, 2], (x, y) in pixels; points outside the frame are learnt as lying on its border.
        exists: bool [B, 13]; where False the map is zero.
    """
    cells = torch.arange(HEATMAP_CELLS, device=keypoints.device)
    centres = (keypoints * (HEATMAP_CELLS / SIZE)).clamp(0, HEATMAP_CELLS - 1)[..., None]
    x, y = torch.exp(-((cells - centres) ** 2) / (2 * SIGMA_CELLS**2)).unbind(2)
    return y[..., None] * x[..., None, :] * exists[..., None, None]


def heatmap_loss(model: Any, images: Tensor, keypoints: Tensor, exists: Tensor) -> Tensor:
    """mmpose's loss of a batch, scaled so that a model with empty answers scores about 1."""
    labels = heatmap_labels(keypoints, exists)
    with quiet():
        answer = model.head.forward(model.extract_feat(normalised(model, images)))
    loss: Tensor = model.head.loss_module(answer, labels, keypoint_weights(keypoints, exists))
    return loss * (HEATMAP_CELLS**2 / (torch.pi * SIGMA_CELLS**2))


def train_driver(state: Path, out: Path, steps: int, seed: int, device: torch.device | str = "cpu") -> dict[str, float]:
    """Train the driver, find its threshold on fresh worlds of the training split and write its card.

    Returns:
        PCK@0.1 and agreement on clean frames of the test split.
    """
    config = driver_config()
    recipe = Recipe(config, "train", POOL_SCENES, heatmap_loss)
    train_estimator(recipe, state, out, steps, seed + SEED_OFFSET, device)
    threshold = found_threshold(HeatmapEstimator(out), held_out("train", CALIBRATION_SEED + 1, 30))
    (out / "config.json").write_text(json.dumps({**config, "scoring": {"threshold": threshold}}, indent=1) + "\n")
    driver, data = HeatmapEstimator(out), held_out("test", TEST_SEED)
    return measured_card(out, driver, data, CARD, steps=steps, seed=seed, pool=POOL_SCENES)


CARD = """# Pose driver of the puppet world

An mmpose `TopdownPoseEstimator` (ResNet-18 at 12 base channels, its four stages joined at 16x16; heatmap head,
32x32), {parameters} M parameters, 64x64 whole frames, 13 keypoints. `config.json` is an mmengine config,
`model.safetensors` the averaged weights in half precision. Pose-guided methods see references and targets through it.
It shares neither architecture nor seed nor worlds with the pose judge beside it, which measures their videos: it was
trained on {pool} scenes of the training split only, three frames each, with mmpose's own loss on clean and degraded
frames. Held-out skins and backgrounds and the held-out rig (saurian) are new to it.

    python -m flexiact.puppets.train pose_driver --steps {steps} --seed {seed}

    from flexiact.pose.estimators import load_estimator
    keypoints, scores = load_estimator("flexiact/puppets/weights/pose_driver").estimate(frames)

## Accuracy on held-out worlds

The test split, the same {scenes} clips ({count} frames) as on the judge's card. A point is right within 0.1 of one body
unit; a point scored below the threshold counts as a miss.

| rig | PCK@0.1 | error of found points, px | missed |
|---|---|---|---|
{rigs}

| frames | PCK@0.1 | error of found points, px | missed | agreement |
|---|---|---|---|---|
{conditions}

*Agreement* is the mean cosine between found and true displacements from the target image, points not found standing
still: what a method can know of the motion that it is shown.

## Scores

A score is the height of the heatmap's peak, cut to [0, 1]. The threshold is **{threshold}**: the smallest hundredth
(0.3 at least) that 99 % of the points reported on every kind of figureless image, backgrounds of the training split,
stay below.

| images without a figure, test split | points found |
|---|---|
{empty}

## Limits

One figure in each frame, drawn as this world draws it; other videos need another estimator
(`flexiact.pose.rtmpose`).
"""
