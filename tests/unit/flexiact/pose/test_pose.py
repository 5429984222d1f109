"""The mmpose adapter against mmpose's own paths, its stubs, and the shipped pose judge."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flexiact import PUPPET_WEIGHTS
from flexiact.pose import mmpose_import as mmpose_stubs
from flexiact.pose.estimators import MMPoseEstimator, PoseEstimator, Scoring, axis_score, build_model
from flexiact.puppets.recipes.judges import pose_judge as judge_pose
from flexiact.puppets.world.clip import SIZE, target_clip
from flexiact.puppets.world.rigs import KEYPOINTS, RIGS
from flexiact.puppets.world.scene import random_scene

SHIPPED = PUPPET_WEIGHTS / "pose"
shipped_only = pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="no weights in this checkout")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the judge's config and random weights whose answers differ from frame to frame."""
    folder = tmp_path_factory.mktemp("pose")
    (folder / "config.json").write_text(json.dumps(judge_pose.pose_config()))
    model = build_model(judge_pose.pose_config(), seed=3)
    for layer in (model.head.cls_x, model.head.cls_y, model.head.final_layer):
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(4))
    judge_pose.save_half(model, folder / "model.safetensors")
    return folder


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


# ---- stubs


def test_stubs_answer_imports_and_are_installed_once() -> None:
    mmpose_stubs.import_mmpose()
    assert mmpose_stubs.install_stubs() == ()
    assert "mmpose.apis" in sys.modules
    if importlib.util.find_spec("mmcv._ext") is None:
        operator = sys.modules["mmcv.ops"].MultiScaleDeformableAttention
        with pytest.raises(RuntimeError, match="full mmcv"):
            operator(embed_dims=8)
    tensor = torch.ones(2)
    assert mmpose_stubs.reduce_mean(tensor) is tensor


def test_stubs_are_not_used_beside_the_full_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mmcv.ops", "mmdet", "mmdet.utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(mmpose_stubs, "find_spec", lambda name: object())
    assert mmpose_stubs.install_stubs() == ()
    assert "mmcv.ops" not in sys.modules and "mmdet" not in sys.modules


def test_stubs_stand_in_for_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mmcv.ops", "mmdet", "mmdet.utils"):
        # setitem first, so that the original state comes back whatever the call below does
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(mmpose_stubs, "find_spec", lambda name: None)
    assert mmpose_stubs.install_stubs() == ("mmcv.ops", "mmdet", "mmdet.utils")
    from mmdet.utils import ConfigType, reduce_mean  # type: ignore[import-not-found]

    assert ConfigType is dict and callable(reduce_mean)
    assert importlib.util.find_spec("mmdet") is not None
    with pytest.raises(ImportError):
        importlib.import_module("mmdet.apis")


# ---- building and loading


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    one, two = (build_model(judge_pose.pose_config(), seed=5) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_config_that_mmpose_refuses_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="config"):
        build_model({"model": {"type": "NoSuchEstimator"}})


def test_mmengine_reads_the_config(untrained: Path) -> None:
    config = mmpose_stubs.import_mmpose("mmengine.config").Config.fromfile(str(untrained / "config.json"))
    assert config.model.backbone.type == "CSPNeXt"


def test_damaged_folders_are_refused(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config"):
        MMPoseEstimator(tmp_path)
    config = judge_pose.pose_config()
    (tmp_path / "config.json").write_text(json.dumps({**config, "scoring": {**config["scoring"], "temperature": 0}}))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="weights"):
        MMPoseEstimator(tmp_path)
    state = load_file(untrained / "model.safetensors")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="scoring.temperature"):
        MMPoseEstimator(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({**state, "head.cls_x.weight": state["head.cls_x.weight"] * float("nan")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="head.cls_x.weight .* not finite"):
        MMPoseEstimator(tmp_path)
    del state["head.cls_x.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="another model"):
        MMPoseEstimator(tmp_path)


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 64, 64, 4), (0, 64, 64, 3)])
def test_bad_frames_are_refused(untrained: Path, shape: tuple[int, ...]) -> None:
    judge = MMPoseEstimator(untrained)
    with pytest.raises(ValueError, match="frames"):
        judge.estimate(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="frames"):
        judge.estimate(np.zeros((1, 64, 64, 3), np.float32))


# ---- inference


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (100, 60)])
def test_equals_mmposes_own_inference(untrained: Path, size: tuple[int, int]) -> None:
    judge = MMPoseEstimator(untrained)
    apis = mmpose_stubs.import_mmpose("mmpose.apis")
    config = mmpose_stubs.import_mmpose("mmengine.config").Config.fromfile(str(untrained / "config.json"))
    frames = _noise(3, *size, 3)
    with mmpose_stubs.quiet():
        model = apis.init_model(config, device="cpu")
        model.load_state_dict(judge.model.state_dict())
        # mmpose takes BGR images, as OpenCV reads them
        theirs = [apis.inference_topdown(model, f[..., ::-1].copy())[0].pred_instances.keypoints[0] for f in frames]
    keypoints, scores = judge.estimate(frames)
    assert keypoints.shape == (3, len(KEYPOINTS), 2) and keypoints.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(keypoints, np.stack(theirs), atol=1e-3)
    assert len(np.unique(keypoints)) > 10  # the comparison is not between constants


def test_answers_do_not_depend_on_the_batch_and_are_pure(untrained: Path) -> None:
    judge = MMPoseEstimator(untrained)
    assert isinstance(judge, PoseEstimator) and judge.keypoint_names == KEYPOINTS
    frames = _noise(70, 64, 64, 3)
    kept = frames.copy()
    keypoints, scores = judge.estimate(frames)
    one, score = judge.estimate(frames[66:67])
    np.testing.assert_array_equal(one[0], keypoints[66])
    np.testing.assert_allclose(score[0], scores[66], atol=1e-5)
    np.testing.assert_array_equal(frames, kept)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_axis_score_equals_a_slow_sum() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32)
    places = np.array([0.0, 3.5, 10.0, 19.5, 25.0])
    scoring = Scoring(beta=3.0, temperature=1.5, radius_px=2.0, threshold=0.5)
    for row, place, got in zip(logits, places, axis_score(logits, places, 2.0, scoring), strict=True):
        weights = [np.exp(2.0 * v) for v in row]
        near = sum(w for i, w in enumerate(weights) if abs(i / 2.0 - place) <= 2.0)
        assert got == pytest.approx(near / sum(weights), rel=1e-5)


def test_a_flat_answer_scores_its_share_of_the_axis() -> None:
    scoring = Scoring(beta=10.0, temperature=1.0, radius_px=4.0, threshold=0.5)
    score = axis_score(np.zeros((1, 128), np.float32), np.array([32.0]), 2.0, scoring)
    assert score[0] == pytest.approx(17 / 128)


# ---- the shipped judge


@shipped_only
def test_shipped_judge_finds_figures_of_every_rig() -> None:
    judge = MMPoseEstimator(SHIPPED)
    generator = torch.Generator().manual_seed(77)
    right = []
    for rig in RIGS:
        for _ in range(4):
            scene = random_scene(generator, "test", rig)
            clip = target_clip(scene)
            keypoints, scores = judge.estimate(clip.video.frames)
            error = np.linalg.norm(keypoints - clip.keypoints, axis=-1)
            near = (error <= 0.1 * scene.camera.scale * SIZE) & (scores >= judge.score_threshold)
            right.append(near[:, clip.keypoint_exists].mean())
    assert np.mean(right) > 0.9


@shipped_only
def test_shipped_judge_finds_nothing_where_nothing_is() -> None:
    judge = MMPoseEstimator(SHIPPED)
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    for frames in (grey, _noise(20, 64, 64, 3)):
        assert (judge.estimate(frames)[1] >= judge.score_threshold).mean() < 0.03
