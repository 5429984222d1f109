"""Published estimators by name: fetched from a stand-in for the server, checked, converted, and refused in one line."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiact.pose import rtmpose as pose_models
from flexiact.pose.estimators import HeatmapEstimator, PoseEstimator, build_model
from flexiact.pose.rtmpose import PUBLISHED, FetchedEstimator, PublishedModel, estimator_by_name, fetched_folder
from flexiact.pose.skeleton import links_of


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> PublishedModel:
    """RTMPose-m with random weights as OpenMMLab publishes it: a pickle of weights and arrays that say what it is."""
    model = PUBLISHED["rtmpose-m"]
    network = build_model(pose_models._config(model), seed=0)
    path = tmp_path_factory.mktemp("server") / "rtmpose-m.pth"
    about = {"dataset_meta": {"sigmas": np.ones(17, np.float32), "ids": np.arange(17)}, "epoch": 420}
    torch.save({"meta": about, "state_dict": network.state_dict()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(model, url=path.as_uri(), sha256_prefix=digest[:8])


def test_a_published_model_is_fetched_once_when_it_is_first_used(
    served: PublishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "rtmpose-m", served)
    estimator = FetchedEstimator("rtmpose-m", cache=tmp_path)
    assert isinstance(estimator, PoseEstimator) and not list(tmp_path.iterdir())
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    keypoints, scores = estimator.estimate(frames)
    assert keypoints.shape == (2, 17, 2) and scores.shape == (2, 17) and len(estimator.keypoint_names) == 17
    assert ((scores >= 0) & (scores <= 1)).all() and np.isfinite(keypoints).all()
    (tmp_path / "rtmpose-m.pth").unlink()  # the folder alone serves the next time
    again, _ = FetchedEstimator("rtmpose-m", cache=tmp_path).estimate(frames)
    np.testing.assert_array_equal(keypoints, again)
    assert sorted(p.name for p in fetched_folder("rtmpose-m", tmp_path).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_what_cannot_be_fetched_or_is_not_the_published_file_is_said_in_one_line(
    served: PublishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "rtmpose-m", replace(served, url=(tmp_path / "gone.pth").as_uri()))
    with pytest.raises(ValueError, match=r"^estimator rtmpose-m: cannot fetch file://.*; put the file at .*gone\.pth$"):
        fetched_folder("rtmpose-m", tmp_path / "cache")
    monkeypatch.setitem(PUBLISHED, "rtmpose-m", replace(served, sha256_prefix="00000000"))
    with pytest.raises(ValueError, match="estimator rtmpose-m: cannot fetch"):
        fetched_folder("rtmpose-m", tmp_path / "cache")
    (tmp_path / "cache" / "rtmpose-m.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="rtmpose-m.pth is not the published file"):
        fetched_folder("rtmpose-m", tmp_path / "cache")
    prefix = hashlib.sha256(b"not a checkpoint").hexdigest()[:8]
    monkeypatch.setitem(PUBLISHED, "rtmpose-m", replace(served, sha256_prefix=prefix))
    with pytest.raises(ValueError, match="estimator: .*rtmpose-m.pth cannot be read"):
        fetched_folder("rtmpose-m", tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["rtmpose-m.pth"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_built_from_the_installed_configurations(name: str) -> None:
    model = PUBLISHED[name]
    network = build_model(pose_models._config(model))
    assert network.head.out_channels == len(model.keypoint_names) == 17
    assert model.sha256_prefix in model.url
    assert len({end for link in links_of(model.keypoint_names) for end in link}) == 17


def test_names() -> None:
    assert isinstance(estimator_by_name("puppets"), HeatmapEstimator)
    assert estimator_by_name("rtmpose-m-ap10k").keypoint_names[4] == "root_of_tail"
    with pytest.raises(ValueError, match="estimator: unknown name 'openpose'"):
        estimator_by_name("openpose")
