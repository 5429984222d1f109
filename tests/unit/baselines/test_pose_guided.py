"""Pose guidance: what is stored, fitted, drawn and refused; true keypoints by digest; the recipe of control weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.pose_guided import PAPER, PRESETS, PoseGuided, PoseTransfer
from benchmark.bounds.true_poses import TruePoseGuided, TruePoses
from benchmark.planning.methods import METHODS, TRUE_KEYPOINTS
from benchmark.planning.plan import Cell
from benchmark.stages.execute import Executor, format_of
from benchmark.store.folder import RunFolder
from benchmark.suites.puppets import PuppetCase
from benchmark.suites.truth import stage
from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.backbone.control import Control
from flexiact.pose.estimators import PoseEstimator
from flexiact.pose.skeleton import draw_skeletons, links_of
from flexiact.puppets.recipes import control as train_control
from flexiact.puppets.world.clip import SIZE, render_clip
from flexiact.puppets.world.rigs import KEYPOINTS
from flexiact.puppets.world.scene import random_scene
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, save_tiny_control, tiny_backbone
from tests.support.harness import CASES, DarkestPixels

COUNT = len(KEYPOINTS)


class Scripted:
    """Answers with given keypoints: for clips those of the reference, for single frames those of the target."""

    name = "scripted"
    keypoint_names = KEYPOINTS
    score_threshold = 0.3

    def __init__(self, reference: np.ndarray, target: np.ndarray, scores: np.ndarray | None = None) -> None:
        self.reference, self.target = reference.astype(np.float32), target.astype(np.float32)
        self.scores = np.ones(reference.shape[:2], np.float32) if scores is None else scores

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(frames) == 1:
            return self.target[None], np.ones((1, COUNT), np.float32)
        return self.reference, self.scores


@pytest.fixture
def controlled(tmp_path: Path) -> Backbone:
    return tiny_backbone(control=save_tiny_control(tmp_path / "control", tiny_backbone()))


def poses(seed: int = 0, num_frames: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).uniform(2, 14, (num_frames, COUNT, 2))


def video(backbone: Backbone, estimator: PoseEstimator, **changes: object) -> np.ndarray:
    method = PoseGuided(backbone, PAPER.changed(**changes), estimator)
    action = method.fit(Video(random_frames(1), 8.0), "a dog", seed=0)
    return method.control_video(action, random_frames(3, 1)[0])


def drawn(keypoints: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
    sure = np.ones(keypoints.shape[:2]) if scores is None else scores
    return draw_skeletons(keypoints, sure, links_of(KEYPOINTS), (16, 24))


# ---- estimating, fitting, drawing


@pytest.mark.parametrize("anchor", ["all", "first"])
@pytest.mark.parametrize("fit", ["vertical", "uniform", "size"])
@pytest.mark.parametrize("points", ["trunk", "all"])
def test_a_body_of_other_size_and_place_is_drawn_on_the_target_s(
    anchor: Any, fit: Any, points: Any, controlled: Backbone
) -> None:
    shown = poses()
    if anchor == "all":
        shown = shown[:1].repeat(9, 0)  # then every frame fits the target exactly
    moved = shown * 0.8 + [2, 3]
    found = video(controlled, Scripted(shown, moved[0]), anchor=anchor, fit=fit, points=points)
    np.testing.assert_allclose(found.astype(int), drawn(moved), atol=60)  # a 16th of a pixel at an edge
    assert (found != drawn(shown)).any()


@pytest.mark.parametrize(("points", "same"), [("trunk", True), ("all", False)])
def test_limbs_move_the_fit_only_where_they_are_part_of_it(points: Any, same: bool, controlled: Backbone) -> None:
    shown, target = poses(), poses()[0]
    limbs = [KEYPOINTS.index(name) for name in KEYPOINTS if name not in {"nose", "chest", "pelvis"}]
    other = target.copy()
    other[limbs] += 5
    first, second = (
        video(controlled, Scripted(shown, body), anchor="first", points=points) for body in (target, other)
    )
    assert (first == second).all() == same


def test_the_anchor_decides_the_fit(controlled: Backbone) -> None:
    estimator = Scripted(poses(), poses(1)[0])
    first, every = (video(controlled, estimator, anchor=a) for a in ("first", "all"))
    assert (first != every).any()


def test_points_below_the_threshold_are_neither_drawn_nor_fitted(controlled: Backbone) -> None:
    shown, scores = poses(), np.ones((9, COUNT), np.float32)
    scores[:, 4], scores[:, 5] = 0.29, 0.31
    wrong = shown.copy()
    wrong[:, 4] = 500.0
    found = video(controlled, Scripted(wrong, shown[0], scores), anchor="first", points="all")
    np.testing.assert_array_equal(found, drawn(shown, np.where(scores < 0.3, 0, scores)))


def test_nothing_found_is_a_black_video_and_still_a_transfer(controlled: Backbone) -> None:
    nobody = Scripted(poses(), poses()[0], np.zeros((9, COUNT), np.float32))
    assert not video(controlled, nobody).any()
    method = PoseGuided(controlled, estimator=nobody)
    action = method.fit(Video(random_frames(1), 8.0), "", seed=0)
    assert method.transfer(action, Request(random_frames(3, 1)[0], "a dog", 0)).frames.std() > 1


def test_guidance_starts_from_a_video_without_skeleton(controlled: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, attached = [], Control.attached

    def watched(control: Control, latents: torch.Tensor) -> Any:
        seen.append(latents)
        return attached(control, latents)

    monkeypatch.setattr(Control, "attached", watched)
    request = Request(random_frames(3, 1)[0], "a dog", 0)
    for guidance in (1.0, 2.0):
        method = PoseGuided(controlled, PAPER.changed(guidance_scale=guidance), Scripted(poses(), poses(1)[0]))
        method.transfer(method.fit(Video(random_frames(1), 8.0), "", seed=0), request)
    (alone,), (without, shown) = seen
    assert torch.equal(alone, shown) and shown.any() and not without.any()


def test_the_skeleton_changes_the_video(controlled: Backbone) -> None:
    request, videos = Request(random_frames(3, 1)[0], "a dog", 0), []
    for seed in (0, 1):
        method = PoseGuided(controlled, estimator=Scripted(poses(seed), poses(2)[0]))
        videos.append(method.transfer(method.fit(Video(random_frames(1), 8.0), "", seed=0), request).frames)
    assert (videos[0] != videos[1]).any()


# ---- configuration


def test_presets() -> None:
    backbone = tiny_backbone()
    assert PoseGuided.preset(backbone) == PoseGuided.preset(replace(backbone, name="puppets")) == PRESETS["puppets"]
    assert PRESETS["puppets"].fit.estimator == "puppets"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("anchor", "last"),
        ("fit", "rigid"),
        ("points", "limbs"),
        ("num_inference_steps", 0),
        ("refadapter_weight", float("nan")),
        ("guidance_scale", np.inf),
    ],
)
def test_bad_settings_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        PoseTransfer(**{field: value})


def test_missing_weights_are_named(controlled: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^control: backbone tiny has no control weights"):
        PoseGuided(tiny_backbone(), estimator=DarkestPixels())
    with pytest.raises(ValueError, match="^refadapter_weight: backbone tiny has no RefAdapter"):
        PoseGuided(controlled, PAPER.changed(refadapter_weight=0.7), DarkestPixels())
    with pytest.raises(ValueError, match="^estimator: unknown name 'x'"):
        PoseGuided(controlled, PAPER.changed(estimator="x"))


def test_refadapter_adds_to_control(controlled: Backbone, backbone: Backbone) -> None:
    both = replace(controlled, refadapter=backbone.refadapter)
    request, frames = Request(random_frames(3, 1)[0], "a dog", 0), []
    for weight in (0.0, 0.7):
        method = PoseGuided(both, PAPER.changed(refadapter_weight=weight), DarkestPixels())
        frames.append(method.transfer(method.fit(Video(random_frames(1), 8.0), "", seed=0), request).frames)
        assert (method.transfer_config()["refadapter"] is None) == (weight == 0)
    assert (frames[0] != frames[1]).any()


# ---- true keypoints


def test_keypoints_are_found_by_the_digest_of_the_frames() -> None:
    truth = TruePoses()
    assert isinstance(truth, PoseEstimator)
    frames, keypoints = random_frames(0), poses().astype(np.float32)
    keypoints[:, 7] = np.nan
    truth.tell(frames, keypoints)
    found, scores = truth.estimate(frames.copy())
    np.testing.assert_array_equal(scores, np.where(np.arange(COUNT) == 7, 0, 1)[None].repeat(9, 0))
    np.testing.assert_array_equal(np.delete(found, 7, 1), np.delete(keypoints, 7, 1))
    assert np.isfinite(found).all()
    changed = frames.copy()
    changed[0, 0, 0, 0] ^= 1
    for other in (changed, frames[:1]):
        with pytest.raises(ValueError, match="frames: their true keypoints are not known"):
            truth.estimate(other)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case_id)
def test_the_truth_of_a_case_is_that_of_its_pictures(case: PuppetCase, controlled: Backbone) -> None:
    staged = stage(case, format_of(controlled))
    assert staged.source.keypoints.shape == (9, COUNT, 2)
    absent = [i for i, n in enumerate(KEYPOINTS) if n.startswith("tail")]  # a biped's reference
    assert np.isnan(staged.source.keypoints[:, absent]).all()
    np.testing.assert_array_equal(staged.target_keypoints, staged.truth.target_keypoints)
    # The middle of a frame of 16x24 px shows a square of 16: points lie around it.
    assert abs(np.nanmean(staged.target_keypoints[:, 0]) - 12) < 4


def test_the_harness_tells_this_method_and_no_other(controlled: Backbone, tmp_path: Path) -> None:
    told = METHODS["pose_guided-true"].build(controlled)
    assert isinstance(told, TruePoseGuided)
    assert [name for name, entry in METHODS.items() if TRUE_KEYPOINTS in entry.needs] == ["pose_guided-true"]
    assert "true keypoints" in METHODS["pose_guided-true"].extra_supervision
    folder = RunFolder(tmp_path / "run")
    with folder.opened():
        executor = Executor(folder, controlled, {"m": told}, {case.case_id: case for case in CASES}, told=("m",))
        rows = [executor.execute(Cell(f"k{i}", "f", "m", "method", case.case_id, 0, 0)) for i, case in enumerate(CASES)]
    assert [(row.status, row.error) for row in rows] == [("ok", None)] * 2
    with pytest.raises(ValueError, match="frames: their true keypoints are not known"):
        told.fit(Video(random_frames(1), 8.0), "", seed=0)


# ---- recipe


def test_a_detection_has_an_estimator_s_faults() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [render_clip(random_scene(generator, "train", "fish"), ()) for _ in range(8)]
    found = [train_control.detected(clip, generator) for clip in clips]
    scores = np.stack([s for _, s in found])
    exists = clips[0].keypoint_exists
    assert (scores[..., ~exists] == 0).all() and 0 < (scores[..., exists] == 0).mean() < 0.1
    assert scores[scores > 0].min() >= train_control.LOWEST_SCORE and scores.max() <= 1
    off = np.stack([points - clip.keypoints for (points, _), clip in zip(found, clips, strict=True)])
    assert 0.1 < off.std() < train_control.MAX_JITTER_PX and len(set(off.std((1, 2, 3)).round(3).tolist())) == 8


@pytest.mark.slow
def test_the_recipe_makes_weights_that_the_method_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_control, "SHARD_CLIPS", 4)
    monkeypatch.setattr(train_control, "_RENDERED", 4)
    monkeypatch.setattr(train_control, "BATCH", 2)
    for name in ("one", "two"):
        run = train_control.ControlRun(tmp_path / name, tmp_path / f"{name}-out", 3, seed=0, device="cpu", shards=1)
        train_control.train_control(run)
    files = [tmp_path / f"{name}-out" / "model.safetensors" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes() and files[0].stat().st_size < 16 * 2**20
    assert "{" not in (tmp_path / "one-out" / "README.md").read_text()
    backbone = replace(load_backbone("puppets", control=tmp_path / "one-out"), num_inference_steps=2)
    Control.load(backbone.control, backbone)
    method = METHODS["pose_guided"].build(backbone)
    clip = render_clip(random_scene(torch.Generator().manual_seed(0), "test"), ())
    action = method.fit(clip.video, "a dog", seed=0)
    made = method.transfer(action, Request(clip.video.frames[0], "a dog", 0))
    assert made.frames.shape == (9, SIZE, SIZE, 3)
    # The control video is that of a figure which is there.
    assert method.control_video(action, clip.video.frames[0]).any()
