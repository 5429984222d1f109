"""The pose judge: a small mmpose top-down model, trained on puppet frames with mmpose's own loss.

The whole frame is the bounding box. If a frame shows no figure, or a body lacks a part, the target is the flat
distribution. So the sharpness of the model's answer says whether there is anything to find.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from flexiact.pose.estimators import build_model
from flexiact.pose.mmpose_import import import_mmpose, quiet
from flexiact.puppets.cards.pose_judge import calibrated, write_card
from flexiact.puppets.engine.loop import Plan, train
from flexiact.puppets.recipes.clip_shards import rendered_once
from flexiact.puppets.recipes.judges.degrade import random_degradation, shuffle_blocks
from flexiact.puppets.world.actions import curves, random_action
from flexiact.puppets.world.clip import NUM_FRAMES, SIZE, projections, render_values
from flexiact.puppets.world.render import draw
from flexiact.puppets.world.rigs import BONE_ENDS, BONES, KEYPOINTS, LIMBS
from flexiact.puppets.world.scene import Scene, random_scene

BINS_PER_PX = 2.0
SIGMA_BINS = 6.0
BATCH = 64
POOL_SCENES = 48_000
FRAMES_PER_SCENE = 3
# Shares of a batch that show no figure: the bare background, and blocks of a frame in another order.
BARE_SHARE, SHUFFLED_SHARE = 0.05, 0.03
FLAT_WEIGHT = 0.3  # weight of the targets that say "not there"
PREPROCESSOR = {
    "type": "PoseDataPreprocessor",
    "mean": [127.5, 127.5, 127.5],
    "std": [64.0, 64.0, 64.0],
    "bgr_to_rgb": True,
}
MARGIN_PX = 8.0  # points up to this far outside the frame are learnt as lying on its border; farther ones are ignored


def _metainfo() -> dict[str, Any]:
    """Keypoints and skeleton in mmpose's terms."""
    swap = {n: n.replace("left", "right") if "left" in n else n.replace("right", "left") for n in KEYPOINTS}
    points = {
        i: {"name": n, "id": i, "color": [40, 160, 240], "type": "upper", "swap": swap[n] if swap[n] != n else ""}
        for i, n in enumerate(KEYPOINTS)
    }
    links = [BONE_ENDS[bone] for bone in sorted(BONES, key=lambda bone: bone.startswith(LIMBS))]  # limbs last
    skeleton = {i: {"link": list(link), "id": i, "color": [40, 160, 240]} for i, link in enumerate(links)}
    return {
        "dataset_name": "puppets",
        "paper_info": {},
        "keypoint_info": points,
        "skeleton_info": skeleton,
        "joint_weights": [1.0] * len(KEYPOINTS),
        "sigmas": [0.05] * len(KEYPOINTS),
    }


def pose_config() -> dict[str, Any]:
    """The judge's mmengine config: model, test pipeline, keypoint names and how scores are read."""
    codec = {
        "type": "SimCCLabel",
        "input_size": [SIZE, SIZE],
        "sigma": SIGMA_BINS,
        "simcc_split_ratio": BINS_PER_PX,
        "normalize": False,
        "use_dark": False,
    }
    gau = {"hidden_dims": 128, "s": 64, "expansion_factor": 2, "dropout_rate": 0.0, "drop_path": 0.0}
    model = {
        "type": "TopdownPoseEstimator",
        "data_preprocessor": PREPROCESSOR,
        "backbone": {
            "type": "CSPNeXt",
            "arch": "P5",
            "expand_ratio": 0.5,
            "deepen_factor": 0.167,
            "widen_factor": 0.125,
            "out_indices": [2, 3, 4],
            "norm_cfg": {"type": "BN"},
            "act_cfg": {"type": "SiLU"},
        },
        # At 64x64 the last stage is 2x2, too coarse for a head: join three stages at the finest one's 8x8.
        "neck": {"type": "FeatureMapProcessor", "select_index": [0, 1, 2], "concat": True},
        "head": {
            "type": "RTMCCHead",
            "in_channels": 224,
            "out_channels": len(KEYPOINTS),
            "input_size": [SIZE, SIZE],
            "in_featuremap_size": [8, 8],
            "simcc_split_ratio": BINS_PER_PX,
            "final_layer_kernel_size": 3,
            "gau_cfg": {**gau, "act_fn": "SiLU", "use_rel_bias": False, "pos_enc": False},
            "loss": {"type": "KLDiscretLoss", "use_target_weight": True, "beta": 10.0, "label_softmax": True},
            "decoder": codec,
        },
        "test_cfg": {"flip_test": False},
    }
    scoring = {"beta": 10.0, "temperature": 1.0, "radius_px": SIZE / 16, "threshold": 0.5}
    return whole_config(model, codec, scoring)


def whole_config(model: dict[str, Any], codec: dict[str, Any], scoring: dict[str, float]) -> dict[str, Any]:
    """mmengine config of a model of whole puppet frames, with mmpose's test pipeline and our reading of scores."""
    pipeline = [
        {"type": "LoadImage"},
        {"type": "GetBBoxCenterScale", "padding": 1.0},
        {"type": "TopdownAffine", "input_size": [SIZE, SIZE]},
        {"type": "PackPoseInputs"},
    ]
    dataset = {"type": "BaseCocoStyleDataset", "metainfo": _metainfo(), "pipeline": pipeline}
    return {
        "default_scope": "mmpose",
        "model": model,
        "codec": codec,
        "train_dataloader": {"dataset": {"metainfo": _metainfo()}},
        "test_dataloader": {"dataset": dataset},
        "keypoint_names": list(KEYPOINTS),
        "scoring": scoring,
    }


@dataclass(frozen=True, eq=False)
class Pool:
    """Rendered training frames, as memory maps.

    Attributes:
        frames: uint8 [N, 3, S, S, 3], three neighbouring frames of a clip.
        bare: uint8 [N, S, S, 3], the background without the figure.
        keypoints: float32 [N, 3, 13, 2], (x, y) in pixels.
        exists: bool [N, 13].
    """

    frames: np.ndarray
    bare: np.ndarray
    keypoints: np.ndarray
    exists: np.ndarray


def _render_chunk(scenes: list[Scene], generator: torch.Generator) -> tuple[np.ndarray, ...]:
    """Three neighbouring frames of a random action of every scene, and its background alone."""
    values = []
    for _ in scenes:
        still = torch.rand((), generator=generator) < 0.1
        start = int(torch.randint(NUM_FRAMES - FRAMES_PER_SCENE + 1, (), generator=generator))
        values.append(curves(() if still else random_action(generator), NUM_FRAMES)[start : start + FRAMES_PER_SCENE])
    clips = render_values(scenes, torch.stack(values))
    nothing = torch.zeros(len(scenes), len(BONES), dtype=torch.bool)
    bare, _ = draw(projections(scenes, torch.stack(values)[:, :1]), scenes, nothing, SIZE)
    return (
        np.stack([c.video.frames for c in clips]),
        bare.numpy(),
        np.stack([c.keypoints for c in clips]),
        np.stack([c.keypoint_exists for c in clips]),
    )


def render_pool(folder: Path, scenes: int, seed: int, split: str = "judge") -> Pool:
    """Render frames of a split's worlds once, or open those of an earlier start with the same count and seed."""
    shape, points = (SIZE, SIZE, 3), (FRAMES_PER_SCENE, len(KEYPOINTS), 2)
    arrays = {
        "frames": ((scenes, FRAMES_PER_SCENE, *shape), "u1"),
        "bare": ((scenes, *shape), "u1"),
        "keypoints": ((scenes, *points), "f4"),
        "exists": ((scenes, len(KEYPOINTS)), "?"),
    }

    def render(files: Sequence[np.ndarray]) -> None:
        generator = torch.Generator().manual_seed(seed)
        for start in tqdm(range(0, scenes, 200), desc="render", mininterval=5):
            batch = [random_scene(generator, split) for _ in range(min(200, scenes - start))]
            for file, part in zip(files, _render_chunk(batch, generator), strict=True):
                file[start : start + len(batch)] = part

    return Pool(*rendered_once(folder, {"scenes": scenes, "seed": seed, "split": split}, arrays, render))


def simcc_labels(keypoints: Tensor, exists: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of the head in the encoding of mmpose's codec, for a batch and not rounded to bins.

    Args:
        keypoints: [B, 13, 2], (x, y) in pixels.
        exists: bool [B, 13]; False gives a label of zeros, which mmpose's loss reads as the flat distribution.

    Returns:
        Labels of x and of y [B, 13, 128], and weights [B, 13].
    """
    bins = torch.arange(int(SIZE * BINS_PER_PX), device=keypoints.device)
    centres = (keypoints * BINS_PER_PX).clamp(0, len(bins) - 1)[..., None]
    labels = torch.exp(-((bins - centres) ** 2) / (2 * SIGMA_BINS**2)) * exists[..., None, None]
    return labels[:, :, 0], labels[:, :, 1], keypoint_weights(keypoints, exists)


def keypoint_weights(keypoints: Tensor, exists: Tensor) -> Tensor:
    """Loss weights [B, 13] of points [B, 13, 2]: 0 far outside the frame, `FLAT_WEIGHT` for a missing part."""
    far = ((keypoints < -MARGIN_PX) | (keypoints > SIZE + MARGIN_PX)).any(-1)
    return torch.where(exists, torch.where(far, 0.0, 1.0), FLAT_WEIGHT)


def draw_batch(pool: Pool, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Draw frames [B, 3, S, S] in 0..1, degraded, keypoints [B, 13, 2] and exists [B, 13] (all False: no figure)."""
    rows = torch.randint(len(pool.frames), (BATCH,), generator=generator)
    which = torch.randint(FRAMES_PER_SCENE, (BATCH,), generator=generator)
    beside = torch.where(which == 0, 1, which - 1)
    order = rows.argsort().numpy()  # memory maps are read in order
    rows_np, which_np, beside_np = rows.numpy()[order], which.numpy()[order], beside.numpy()[order]
    fate = torch.rand(BATCH, generator=generator)
    bare, shuffled = fate < BARE_SHARE, (fate >= BARE_SHARE) & (fate < BARE_SHARE + SHUFFLED_SHARE)
    frames, others = pool.frames[rows_np, which_np], pool.frames[rows_np, beside_np]
    frames[bare.numpy()] = pool.bare[rows_np[bare.numpy()]]
    others[bare.numpy()] = frames[bare.numpy()]
    images, neighbours = (torch.from_numpy(f).to(device).permute(0, 3, 1, 2).float() / 255 for f in (frames, others))
    if shuffled.any():
        images[shuffled] = shuffle_blocks(images[shuffled], generator)
        neighbours[shuffled] = images[shuffled]
    images = random_degradation(images, neighbours, generator)
    exists = torch.from_numpy(pool.exists[rows_np]) & ~(bare | shuffled)[:, None]
    return images, torch.from_numpy(pool.keypoints[rows_np, which_np]).to(device), exists.to(device)


def normalised(model: Any, images: Tensor) -> Tensor:
    """Normalise images [B, 3, S, S] in 0..1 as mmpose's preprocessor does."""
    mean, std = (getattr(model.data_preprocessor, name).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (images * 255 - mean) / std


def pose_loss(model: Any, images: Tensor, keypoints: Tensor, exists: Tensor) -> Tensor:
    """mmpose's loss of a batch, per frame."""
    sample_type = import_mmpose("mmpose.structures").PoseDataSample
    label_type = import_mmpose("mmengine.structures").InstanceData
    x, y, weights = simcc_labels(keypoints, exists)
    labels = label_type(keypoint_x_labels=x, keypoint_y_labels=y, keypoint_weights=weights)
    sample = sample_type(gt_instance_labels=labels)  # one sample that holds the whole batch
    with quiet():
        losses = model.loss(normalised(model, images), [sample])
    return losses["loss_kpt"] / len(images)


def save_half(model: nn.Module, path: Path) -> None:
    """Write a model's weights as safetensors, floating-point tensors in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {n: t.detach().cpu() for n, t in model.state_dict().items()}
    save_file({n: (t.half() if t.is_floating_point() else t).contiguous() for n, t in state.items()}, path)


@dataclass(frozen=True, eq=False)
class Recipe:
    """Settings that differ between the trainings of estimators.

    Attributes:
        config: mmengine config, made by `whole_config`.
        split: Split of the worlds that it sees.
        scenes: Number of scenes to render, three frames each.
        loss: Loss function of the model and a batch's images, keypoints and existence.
    """

    config: dict[str, Any]
    split: str
    scenes: int
    loss: Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def train_estimator(
    recipe: Recipe, state: Path, out: Path, steps: int, seed: int, device: torch.device | str = "cpu"
) -> None:
    """Train an estimator and write its config.json and model.safetensors to `out`.

    A step is of 64 frames. `state` holds the rendered frames, the checkpoint and curve.csv; a second start resumes from
    it.
    """
    device = torch.device(device)
    pool = render_pool(state / "pool", recipe.scenes, seed, recipe.split)
    model = build_model(recipe.config, seed).to(device)
    plan = Plan(steps, seed, learning_rate=3e-3, averages=(0.10,))
    train(model, lambda _, generator: recipe.loss(model, *draw_batch(pool, generator, device)), plan, state)
    save_half(model, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(recipe.config, indent=1) + "\n")


def train_pose(state: Path, out: Path, steps: int, seed: int, device: torch.device | str = "cpu") -> dict[str, float]:
    """Train the pose judge, calibrate it and write its card (see `train_estimator`).

    Returns:
        Figures on the test split, see `cards.pose_judge.write_card`.
    """
    config = pose_config()
    train_estimator(Recipe(config, "judge", POOL_SCENES, pose_loss), state, out, steps, seed, device)
    (out / "config.json").write_text(json.dumps(calibrated(out, config), indent=1) + "\n")
    return write_card(out, steps, seed)
