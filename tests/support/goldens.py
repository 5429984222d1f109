"""What the golden tests compare, and where its stored values lie; tests/store_goldens.py stores them."""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from flexiact.pose.skeleton import draw_skeletons, links_of
from flexiact.puppets.world.rigs import KEYPOINTS
from flexiact.task import Action, ActionTransfer
from metrics import Metric
from tests.support.metric_features import features

GOLDEN = Path(__file__).parents[1] / "golden"
METHODS_FOLDER, METRICS_FILE, SKELETON_FILE = GOLDEN / "methods", GOLDEN / "metrics.json", GOLDEN / "skeleton.png"


def action_file(method: ActionTransfer) -> Path:
    """Where the action of a class of methods is; one that learns nothing has none."""
    return METHODS_FOLDER / f"{method.method_id}.safetensors"


def stored_action(method: ActionTransfer) -> Action:
    path = action_file(method)
    return {name: tensor.clone() for name, tensor in load_file(path).items()} if path.exists() else {}


def cells(frames: np.ndarray) -> np.ndarray:
    """Mean over every 4x4 px of every frame, [T, H / 4, W / 4, 3]: room for other processors' rounding."""
    num_frames, height, width, _ = frames.shape
    return frames.reshape(num_frames, height // 4, 4, width // 4, 4, 3).mean(axis=(2, 4), dtype=np.float64)


def metric_value(metric: Metric) -> float | None:
    return metric.compute(features(3, num_answers=2))


def skeleton_picture() -> np.ndarray:
    """Three puppet skeletons beside each other, every part drawn, the last one less and less sure."""
    grid = np.random.default_rng(5).uniform(6, 58, (3, 13, 2)).astype(np.float32)
    scores = np.stack([np.ones(13), np.ones(13), np.linspace(1, 0, 13)])
    return np.concatenate(list(draw_skeletons(grid, scores, links_of(KEYPOINTS), (64, 64))), axis=1)
