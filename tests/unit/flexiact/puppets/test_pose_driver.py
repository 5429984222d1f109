"""The estimator that drives pose-guided methods: its recipe, its heatmaps against mmpose's own, and what is shipped."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiact import PUPPET_WEIGHTS
from flexiact.pose.estimators import (
    HeatmapEstimator,
    MMPoseEstimator,
    PoseEstimator,
    build_model,
    load_estimator,
)
from flexiact.pose.mmpose_import import import_mmpose, quiet
from flexiact.puppets.cards import pose_judge as judge_pose_card
from flexiact.puppets.recipes.judges import pose_driver as driver_pose
from flexiact.puppets.recipes.judges import pose_judge as judge_pose
from flexiact.puppets.world.clip import SIZE, target_clip
from flexiact.puppets.world.rigs import HELD_OUT_RIG, KEYPOINTS
from flexiact.puppets.world.scene import random_scene

WEIGHTS = PUPPET_WEIGHTS


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's config with random weights whose answers differ from frame to frame."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "config.json").write_text(json.dumps(driver_pose.driver_config()))
    model = build_model(driver_pose.driver_config(), seed=3)
    torch.nn.init.normal_(model.head.final_layer.weight, generator=torch.Generator().manual_seed(4))
    judge_pose.save_half(model, folder / "model.safetensors")
    return folder


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _points(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.rand(count, 13, 2, generator=torch.Generator().manual_seed(3)) * 60
    return points, torch.rand(count, 13, generator=torch.Generator().manual_seed(5)) < 0.7


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (100, 60)])
def test_equals_mmposes_own_inference(untrained: Path, size: tuple[int, int]) -> None:
    driver = load_estimator(untrained)
    assert isinstance(driver, HeatmapEstimator) and isinstance(driver, PoseEstimator)
    apis = import_mmpose("mmpose.apis")
    config = import_mmpose("mmengine.config").Config.fromfile(str(untrained / "config.json"))
    frames = _noise(3, *size, 3)
    with quiet():
        model = apis.init_model(config, device="cpu")
        model.load_state_dict(driver.model.state_dict())
        theirs = [apis.inference_topdown(model, f[..., ::-1].copy())[0].pred_instances for f in frames]
    keypoints, scores = driver.estimate(frames)
    np.testing.assert_allclose(keypoints, np.stack([p.keypoints[0] for p in theirs]), atol=1e-2)
    np.testing.assert_allclose(scores, np.stack([p.keypoint_scores[0] for p in theirs]).clip(0, 1), atol=1e-5)
    assert len(np.unique(keypoints)) > 10


def test_labels_are_those_of_mmposes_codec() -> None:
    points, exists = _points()
    settings = {k: v for k, v in driver_pose.driver_config()["codec"].items() if k != "type"}
    codec = import_mmpose("mmpose.codecs").MSRAHeatmap(**(settings | {"unbiased": True}))  # the one that does not round
    decoder = import_mmpose("mmpose.codecs").MSRAHeatmap(**settings)
    ours = driver_pose.heatmap_labels(points, exists).numpy()
    for maps, place, there in zip(ours, points.numpy(), exists.numpy(), strict=True):
        theirs = codec.encode(place[None], there[None].astype(np.float32))["heatmaps"]
        np.testing.assert_allclose(maps, theirs, atol=0.02)  # theirs ends at three sigma
        decoded = decoder.decode(maps)[0][0]
        inside = there & ((place > 4) & (place < 58)).all(-1)  # cells at the border are not refined
        np.testing.assert_allclose(decoded[inside], place[inside], atol=0.51)  # quarters of a cell of 2 px


def test_the_batched_loss_is_mmposes_loss_of_single_samples() -> None:
    structures, containers = import_mmpose("mmpose.structures"), import_mmpose("mmengine.structures")
    model = build_model(driver_pose.driver_config(), seed=1).eval()
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    points, exists = _points()
    ours = driver_pose.heatmap_loss(model, images, points, exists)
    weights = judge_pose.keypoint_weights(points, exists)
    samples = []
    for maps, weight in zip(driver_pose.heatmap_labels(points, exists), weights, strict=True):
        labels = containers.InstanceData(keypoint_weights=weight[None])
        fields = containers.PixelData(heatmaps=maps)
        samples.append(structures.PoseDataSample(gt_instance_labels=labels, gt_fields=fields))
    with quiet():
        theirs = model.loss((images * 255 - 127.5) / 64, samples)["loss_kpt"]
    torch.testing.assert_close(ours, theirs * 32**2 / (torch.pi * 1.5**2))


def test_an_unknown_codec_and_a_bad_threshold_are_named(untrained: Path, tmp_path: Path) -> None:
    config = driver_pose.driver_config()
    (tmp_path / "model.safetensors").write_bytes((untrained / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "scoring": {"threshold": 2}}))
    with pytest.raises(ValueError, match="scoring.threshold"):
        load_estimator(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "codec": {**config["codec"], "type": "Guess"}}))
    with pytest.raises(ValueError, match="codec.type: expected one of SimCCLabel, MSRAHeatmap, got 'Guess'"):
        load_estimator(tmp_path)


def test_the_driver_sees_the_training_split_alone(tmp_path: Path) -> None:
    data = judge_pose_card.held_out("train", 3, 1)
    assert HELD_OUT_RIG not in data.rigs and len(data.rigs) == 4
    judge_pose.render_pool(tmp_path, 2, 1, "train")
    stamp = (tmp_path / "frames.npy").stat().st_mtime_ns
    judge_pose.render_pool(tmp_path, 2, 1, "judge")  # never taken for the other's
    assert (tmp_path / "frames.npy").stat().st_mtime_ns != stamp


@pytest.mark.slow
def test_the_recipe_resumes_to_the_same_digest_and_writes_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {split: judge_pose_card.held_out(split, 5, 1) for split in ("train", "test")}
    monkeypatch.setattr(driver_pose, "held_out", lambda split, *_: small[split])
    monkeypatch.setattr(driver_pose, "POOL_SCENES", 8)
    monkeypatch.setattr(judge_pose, "BATCH", 4)

    def digest(name: str) -> str:
        figures = driver_pose.train_driver(tmp_path / name, tmp_path / f"{name}-out", 2, 0)
        assert set(figures) == {"pck", "agreement"}
        assert "{" not in (tmp_path / f"{name}-out" / "README.md").read_text()
        return hashlib.sha256((tmp_path / f"{name}-out" / "model.safetensors").read_bytes()).hexdigest()

    assert digest("one") == digest("two") == digest("two")


# ---- what is shipped


def test_shipped_driver_and_judge_are_two_models() -> None:
    driver, judge = load_estimator(WEIGHTS / "pose_driver"), load_estimator(WEIGHTS / "pose")
    assert isinstance(driver, HeatmapEstimator) and isinstance(judge, MMPoseEstimator)
    assert driver.keypoint_names == judge.keypoint_names == KEYPOINTS and driver.name != judge.name
    assert driver.config["model"]["backbone"]["type"] != judge.config["model"]["backbone"]["type"]
    assert (WEIGHTS / "pose_driver" / "README.md").is_file()


def test_shipped_driver_finds_figures_and_nothing_where_nothing_is() -> None:
    driver = load_estimator(WEIGHTS / "pose_driver")
    generator, right = torch.Generator().manual_seed(78), []
    for _ in range(16):
        scene = random_scene(generator, "train")
        clip = target_clip(scene)
        keypoints, scores = driver.estimate(clip.video.frames)
        error = np.linalg.norm(keypoints - clip.keypoints, axis=-1)
        near = (error <= 0.1 * scene.camera.scale * SIZE) & (scores >= driver.score_threshold)
        right.append(near[:, clip.keypoint_exists].mean())
    assert np.mean(right) > 0.7
    assert (driver.estimate(_noise(20, 64, 64, 3))[1] >= driver.score_threshold).mean() < 0.03
