"""What the harness's tests share: two small cases, a cheap perception, a quick FlexiAct, and a session of them."""

from dataclasses import dataclass
from pathlib import Path
from weakref import ref

import numpy as np
import pandas as pd
import torch

from benchmark.planning.plan import Cell
from benchmark.stages.session import Outcome, RunRequest, Workers, run_session
from benchmark.store import gather
from benchmark.store.folder import RunFolder
from benchmark.store.schema.rows import SampleRow
from benchmark.suites.puppets import AXES, PuppetCase, PuppetSuite
from benchmark.suites.truth import specification_digests
from flexiact.backbone.backbone import Backbone
from flexiact.method import PRESETS, FitConfig, FlexiActConfig
from flexiact.puppets.world.actions import DEV_ACTIONS
from flexiact.puppets.world.answers import axes
from flexiact.puppets.world.rigs import KEYPOINTS
from flexiact.puppets.world.scene import random_scene, scene_to_dict
from metrics.perception import LucasKanade, Perception
from tests.support.pose_distance import pose_distance

QUICK = FlexiActConfig(fit=FitConfig(embedding_tokens=2, fit_steps=2, batch_size=1, crops=2))
METHODS = ("flexiact", "base-embedding", "i2v")
METRICS = ("motion_agreement", "pck", "true_appearance_error", "motion_fidelity", "dynamic_degree", "text_similarity")
EDGES = {axis: (0.2, 20.0) for axis in AXES}


def quick_flexiact(patch) -> None:
    """Make FlexiAct fit in a moment on the tiny backbone; `patch` is pytest's monkeypatch, or a setitem of its own."""
    patch.setitem(PRESETS, "tiny", QUICK)


def small_case(action: str = "lean", seed: int = 0, number: int = 1) -> PuppetCase:
    """One reference for each action, another target for each number."""
    reference = random_scene(torch.Generator().manual_seed(seed), "train", "biped")
    target = random_scene(torch.Generator().manual_seed(100 + number), "train", "quadruped")
    return PuppetCase(
        case_id=f"{action}-biped-to-quadruped-{number}",
        suite="small",
        action=action,
        wrong_action="hail",
        reference_id=f"{action}-biped",
        target_id=f"{action}-quadruped-{number}",
        caption="a red bird",
        prompt=f"a blue dog on the grass {number}",
        axes={**axes(reference, target), "pose": pose_distance(target, DEV_ACTIONS[action])},
        terciles=dict.fromkeys(AXES, "near"),
        left_out_share=0.0,
        licence="Apache-2.0",
        source="rendered by flexiact.puppets",
        digests=specification_digests(reference, target, DEV_ACTIONS[action]),
        reference=scene_to_dict(reference),
        target=scene_to_dict(target),
    )


def small_suite(cases: tuple[PuppetCase, ...]) -> PuppetSuite:
    return PuppetSuite("small", "for tests", None, EDGES, tuple(sorted(case.case_id for case in cases)))


CASES = (small_case(number=1), small_case(number=2))


@dataclass(frozen=True)
class PatchEmbedder:
    """Mean colours of a 2x2 division as an image's embedding; letters as a text's."""

    name: str = "patches"

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        count, height, width, _ = frames.shape
        blocks = frames[:, : height // 2 * 2, : width // 2 * 2].reshape(count, 2, height // 2, 2, width // 2, 3)
        flat = blocks.mean((2, 4)).reshape(count, 12).astype(np.float32) + 1
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    def encode_text(self, text: str) -> np.ndarray:
        counts = np.array([1 + text.count(letter) for letter in "abcdefghiklm"], np.float32)
        return counts / np.linalg.norm(counts)


@dataclass(frozen=True)
class DarkestPixels:
    """Calls the darkest pixels of a frame its keypoints: no good, but a function of the frame."""

    name: str = "darkest pixels"
    keypoint_names: tuple[str, ...] = KEYPOINTS
    score_threshold: float = 0.3

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = frames.sum(-1).reshape(len(frames), -1).argsort(axis=1, kind="stable")[:, : len(KEYPOINTS)]
        y, x = np.divmod(order, frames.shape[2])
        points = np.stack([x, y], -1).astype(np.float32) + 0.5
        return points, np.ones(points.shape[:2], np.float32)


def small_perception(**parts) -> Perception:
    defaults = {"image_encoder": PatchEmbedder(), "tracker": LucasKanade(grid=6), "pose": DarkestPixels()}
    return Perception(**(defaults | parts))


def session(
    out: Path, backbone: Backbone, perception: Perception | None = None, workers: Workers | None = None, **changes
) -> Outcome:
    """Run the small suite, or part of it."""
    request = {
        "suite": "small",
        "cases": CASES,
        "methods": METHODS,
        "seeds": (0,),
        "metrics": METRICS,
        "out": out,
        "headline": METRICS[0],
    }
    asked = RunRequest(**(request | changes))
    return run_session(asked, backbone, perception or small_perception(), {"test": True}, workers)


def watch_rows(patch) -> list[ref]:
    """Let tables be read in parts of three videos, and fail if more than seven rows are held at a time.

    Two parts of the tables, and the row that was read, make seven.

    Returns:
        A reference to each row that was read.
    """
    kept, read = gather.sample_row, []

    def watched(folder: RunFolder, cell: Cell) -> SampleRow | None:
        if row := kept(folder, cell):
            read.append(ref(row))
            assert sum(known() is not None for known in read) <= 7
        return row

    patch.setattr(gather, "_CELLS_AT_ONCE", 3)
    patch.setattr(gather, "sample_row", watched)
    return read


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every visible file: time of last change and content."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    return {p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


MEASURED = ["fit_s", "transfer_s", "peak_memory_gib"]
"""Columns of samples.parquet that differ between equal runs."""


def assert_same_runs(one: Path, other: Path) -> None:
    """Fail unless two run directories hold the same rows, files and results."""
    for name in ("samples", "scores"):
        first, second = (pd.read_parquet(out / f"{name}.parquet") for out in (one, other))
        pd.testing.assert_frame_equal(
            first.drop(columns=MEASURED, errors="ignore"), second.drop(columns=MEASURED, errors="ignore")
        )
    assert set(tree(one)) == set(tree(other))
    # Files of videos differ at every write; their digests, of decoded frames, are among the samples.
    for folder in ("scores", "features"):
        first, second = (
            {path.relative_to(out): path.read_bytes() for path in (out / folder).glob("*/*")} for out in (one, other)
        )
        assert first == second
