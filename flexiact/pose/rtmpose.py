"""Estimators by name: the shipped one for puppets, and mmpose's published ones for people and for animals.

A published estimator is fetched on first use. OpenMMLab's checkpoint is checked against its published digest, read
without executing anything in it, and stored as a folder that `flexiact.pose.estimators` loads. The whole frame is the
box, so one figure should fill much of the frame. (mmpose gives its models a detector's box with a margin of a quarter,
and averages over a flip; neither is done here.)
"""

import codecs
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar
from safetensors.torch import save_file

from flexiact import PUPPET_WEIGHTS
from flexiact.pose.estimators import PoseEstimator, build_model, load_estimator
from flexiact.pose.mmpose_import import import_mmpose, quiet
from flexiact.terminal.cli import one_line

COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
AP10K_KEYPOINTS = (
    "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow", "left_front_paw",
    "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee", "left_back_paw", "right_hip",
    "right_knee", "right_back_paw",
)  # fmt: skip
# The names by which numpy 1 and 2 pickle arrays.
_ARRAYS: list[Any] = [
    *(
        (part, f"numpy.{core}.multiarray.{part.__name__}")
        for part in (_reconstruct, scalar)
        for core in ("core", "_core")
    ),
    *(np.ndarray, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType, np.dtypes.Int64DType, np.dtypes.UInt8DType),
    codecs.encode,
]
_SERVER = "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/"


@dataclass(frozen=True)
class PublishedModel:
    """A model of mmpose's own collection (RTMPose, arXiv 2303.07399).

    Attributes:
        config: Path to the config below the configs folder of the installed mmpose package.
        url: URL of the checkpoint.
        sha256_prefix: First digits of the checkpoint's digest.
        keypoint_names: Names of the keypoints in the model's order.
        threshold: Lowest score of a point that counts as found; the default is DWPose's, which MimicMotion uses.
    """

    config: str
    url: str
    sha256_prefix: str
    keypoint_names: tuple[str, ...]
    threshold: float = 0.3


PUBLISHED: dict[str, PublishedModel] = {
    "rtmpose-m": PublishedModel(
        "body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb256-420e_aic-coco-256x192.py",
        _SERVER + "rtmpose-m_simcc-aic-coco_pt-aic-coco_420e-256x192-63eb25f7_20230126.pth",
        "63eb25f7",
        COCO_KEYPOINTS,
    ),
    "rtmpose-m-ap10k": PublishedModel(
        "animal_2d_keypoint/rtmpose/ap10k/rtmpose-m_8xb64-210e_ap10k-256x256.py",
        _SERVER + "rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.pth",
        "7a041aa1",
        AP10K_KEYPOINTS,
    ),
}
PUPPETS = "puppets"


class FetchedEstimator:
    """A published model that is fetched and loaded at the first call of `estimate` (see `PoseEstimator`)."""

    def __init__(self, name: str, device: torch.device | str = "cpu", cache: Path | None = None) -> None:
        """Look the model up and read no file; `cache` falls back to torch.hub's folder."""
        model = PUBLISHED[name]
        self.name = f"{name}-{model.sha256_prefix}"
        self.keypoint_names = model.keypoint_names
        self.score_threshold = model.threshold
        self._load: Callable[[], PoseEstimator] = lambda: load_estimator(fetched_folder(name, cache), device)
        self._loaded: PoseEstimator | None = None

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the keypoints of the figure in each frame.

        Raises:
            ValueError: If the weights cannot be fetched or read, or frames are not uint8 [T, H, W, 3].
        """
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded.estimate(frames)


def estimator_by_name(name: str, device: torch.device | str = "cpu") -> PoseEstimator:
    """An estimator for a method; nothing is fetched yet.

    Raises:
        ValueError: If the name is unknown, or the shipped weights are missing or damaged.
    """
    if name == PUPPETS:
        return load_estimator(PUPPET_WEIGHTS / "pose_driver", device)
    if name not in PUBLISHED:
        raise ValueError(f"estimator: unknown name {name!r} (known: {', '.join((PUPPETS, *PUBLISHED))})")
    return FetchedEstimator(name, device)


def fetched_folder(name: str, cache: Path | None = None) -> Path:
    """The folder of a published model; it is made if it is missing.

    Raises:
        ValueError: If the checkpoint cannot be fetched, is not the published one, or cannot be read.
    """
    model = PUBLISHED[name]
    cache = cache or Path(torch.hub.get_dir()) / "flexiact"
    folder, checkpoint = cache / f"{name}-{model.sha256_prefix}", cache / model.url.rpartition("/")[2]
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not checkpoint.is_file():
            torch.hub.download_url_to_file(model.url, str(checkpoint), model.sha256_prefix, progress=False)
    except (OSError, RuntimeError) as error:
        reason = one_line(error)
        raise ValueError(
            f"estimator {name}: cannot fetch {model.url} ({reason}); put the file at {checkpoint}"
        ) from error
    if not hashlib.sha256(checkpoint.read_bytes()).hexdigest().startswith(model.sha256_prefix):
        raise ValueError(f"estimator {name}: {checkpoint} is not the published file; remove it, or put that one there")
    convert(model, checkpoint, folder)
    return folder


def convert(model: PublishedModel, checkpoint: Path, folder: Path) -> None:
    """Write a checkpoint as config.json and model.safetensors.

    Raises:
        ValueError: If the checkpoint cannot be read or belongs to another model.
    """
    config = _config(model)
    network = build_model(config)
    try:
        # A checkpoint also names its dataset, in arrays; no other types are allowed.
        with torch.serialization.safe_globals(_ARRAYS):
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict(state)
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"estimator: {checkpoint} cannot be read ({one_line(error)[:200]})") from error
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, partial / "model.safetensors")
    (partial / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    try:
        os.replace(partial, folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)


def _config(model: PublishedModel) -> dict[str, Any]:
    """The config of a folder, made from the model's own config in the installed mmpose package."""
    root = Path(str(import_mmpose("mmpose").__file__)).parent / ".mim" / "configs"
    with quiet():
        source = import_mmpose("mmengine.config").Config.fromfile(str(root / model.config))
    plain: dict[str, Any] = json.loads(json.dumps(source.to_dict()))
    network, codec = plain["model"], plain["codec"]
    backbone = {k: v for k, v in network["backbone"].items() if k not in ("_scope_", "init_cfg")}
    network = {**network, "backbone": {**backbone, "norm_cfg": {"type": "BN"}}, "test_cfg": {"flip_test": False}}
    loss, side = network["head"]["loss"], min(codec["input_size"])
    scoring = {"beta": loss["beta"], "temperature": 1.0, "radius_px": side / 16, "threshold": model.threshold}
    return {"model": network, "codec": codec, "keypoint_names": list(model.keypoint_names), "scoring": scoring}
