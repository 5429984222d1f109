"""Find keypoints: the protocol of pose estimators, and the estimators that run an mmpose model."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from flexiact.pose.mmpose_import import import_mmpose, quiet

_BATCH = 64  # frames per forward pass


@runtime_checkable
class PoseEstimator(Protocol):
    """Finds the keypoints of the one figure in each frame.

    Attributes:
        name: Name of the estimator and its weights, for score tables.
        keypoint_names: K names, in the order of the keypoints.
        score_threshold: Lowest score of a point that counts as found.
    """

    name: str
    keypoint_names: tuple[str, ...]
    score_threshold: float

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find keypoints.

        Args:
            frames: Frames, uint8 [T, H, W, 3], sRGB.

        Returns:
            Keypoints float32 [T, K, 2], (x, y) in pixels, pixel centres at half-integers, and scores float32 [T, K] in
            [0, 1].
        """


def build_model(config: Mapping[str, Any], seed: int | None = None) -> Any:
    """Build the model of an mmengine config, an untyped nn.Module; the global random state does not change.

    Args:
        config: mmengine config; only `model` is read.
        seed: Seed of mmpose's own initialisation; None skips it, for weights that will be replaced.

    Raises:
        ValueError: If mmpose cannot build `config["model"]`.
    """
    models, registry = import_mmpose("mmpose.registry").MODELS, import_mmpose("mmengine.registry")
    import_mmpose("mmpose.models")  # registers them
    with quiet(), torch.random.fork_rng(devices=[]), registry.DefaultScope.overwrite_default_scope("mmpose"):
        torch.default_generator.manual_seed(seed or 0)  # only the CPU's generator
        try:
            model = models.build(dict(config["model"]))
            if seed is not None:
                model.init_weights()
        except (KeyError, TypeError, AssertionError) as error:
            raise ValueError(f"config: mmpose cannot build the model: {error}") from error
    return model


@dataclass(frozen=True)
class Scoring:
    """Parameters that turn SimCC logits into a score.

    The score of a point is the model's own probability that the point lies within `radius_px` of the reported place, on
    the less certain of the two axes.

    Attributes:
        beta: Factor on the logits in the training loss.
        temperature: Divisor of the logits, fitted on held-out frames so that scores are shares of right answers.
        radius_px: Radius in pixels of the model's input.
        threshold: Lowest score of a point that counts as found.
    """

    beta: float
    temperature: float
    radius_px: float
    threshold: float

    def __post_init__(self) -> None:
        for field in ("beta", "temperature", "radius_px"):
            if not (math.isfinite(getattr(self, field)) and getattr(self, field) > 0):
                raise ValueError(f"scoring.{field}: expected a finite number above 0, got {getattr(self, field)}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"scoring.threshold: expected 0 to 1, got {self.threshold}")


def axis_score(logits: np.ndarray, places: np.ndarray, bins_per_px: float, scoring: Scoring) -> np.ndarray:
    """Probability mass near the reported places on one axis, [...] in [0, 1].

    Args:
        logits: Logits of the head, [..., W] for W bins.
        places: Reported places, [...], in pixels of the model's input.
        bins_per_px: SimCC split ratio.
        scoring: Factors and radius.
    """
    scaled = logits.astype(np.float64) * (scoring.beta / scoring.temperature)
    mass = np.exp(scaled - scaled.max(-1, keepdims=True))
    offset = np.abs(np.arange(logits.shape[-1]) - places[..., None] * bins_per_px)
    near = offset <= scoring.radius_px * bins_per_px
    share: np.ndarray = (mass * near).sum(-1) / mass.sum(-1)
    return share.astype(np.float32)


class TopDownEstimator(ABC):
    """An mmpose top-down model that runs on batches of whole frames; subclasses read its head.

    The folder holds `config.json` (an mmengine config that also names `keypoint_names`, `codec` and `scoring`) and
    `model.safetensors`. Nothing is fetched, unpickled or executed. The keypoints equal those of mmpose's own
    `inference_topdown` with the whole frame as the box.

    Attributes:
        name: "mmpose-" and the first digits of the weights' SHA-256.
        keypoint_names: K names.
        score_threshold: Lowest score of a point that counts as found.
    """

    score_threshold: float

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        """Load an estimator.

        Raises:
            ValueError: If a file is missing or damaged, or the weights do not fit the config or are not finite.
        """
        folder = Path(folder)
        self.config = read_config(folder)
        weights = folder / "model.safetensors"
        model = build_model(self.config)
        model.load_state_dict(_read_weights(weights, model))
        self.name = f"mmpose-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}"
        self.keypoint_names: tuple[str, ...] = tuple(self.config["keypoint_names"])
        size = self.config["codec"]["input_size"]
        self.input_size = (int(size[0]), int(size[1]))
        self._device = torch.device(device)
        self.model = model.to(self._device).eval()

    @torch.no_grad()
    def head_answers(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The head's outputs, each an array [T, K, ...], for uint8 images [T, H, W, 3] of the model's input size."""
        processor = self.model.data_preprocessor
        mean, std = (getattr(processor, n).view(1, 3, 1, 1) for n in ("mean", "std"))
        # mmpose reads BGR files, so only a model that converts them was trained on RGB.
        order = [0, 1, 2] if processor._channel_conversion else [2, 1, 0]
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH][..., order]).to(self._device).permute(0, 3, 1, 2)
            with quiet():
                features = self.model.extract_feat((batch.float() - mean) / std)
                answer = self.model.head.forward(features)
            parts.append(answer if isinstance(answer, tuple) else (answer,))
        return tuple(torch.cat(output).float().cpu().numpy() for output in zip(*parts, strict=True))

    @abstractmethod
    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [T, K, 2] in pixels of the model's input, and scores [T, K], for images of the model's input size."""

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the keypoints of the figure in each frame (see `PoseEstimator`).

        Raises:
            ValueError: If frames are not uint8 [T, H, W, 3].
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or 0 in frames.shape:
            raise ValueError("frames: expected a uint8 array [T, H, W, 3]")
        if frames.shape[-1] != 3:
            raise ValueError(f"frames: expected 3 channels, got shape {list(frames.shape)}")
        images, scale, origin = _whole_frame(frames, self.input_size)
        points, scores = self.read(images)
        keypoints = points / np.asarray(self.input_size) * scale + origin
        return keypoints.astype(np.float32), scores


class MMPoseEstimator(TopDownEstimator):
    """An mmpose model with a SimCC head, which classifies a point's place on each axis; `scoring` rates the points."""

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        """Load a SimCC model (see `TopDownEstimator`)."""
        super().__init__(folder, device)
        self.scoring = Scoring(**self.config["scoring"])
        self.score_threshold = self.scoring.threshold
        self._bins_per_px = float(self.config["codec"]["simcc_split_ratio"])

    def logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The head's logits [T, K, W] and [T, K, H] for uint8 images [T, H, W, 3] of the model's input size."""
        x, y = self.head_answers(images)
        return x, y

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points decoded by mmpose's codec; a point's score is that of the less certain axis."""
        x, y = self.logits(images)
        points = self.model.head.decoder.decode(x.copy(), y.copy())[0]
        pair = ((x, points[..., 0]), (y, points[..., 1]))
        scores = [axis_score(logits, place, self._bins_per_px, self.scoring) for logits, place in pair]
        return points, np.minimum(*scores)


class HeatmapEstimator(TopDownEstimator):
    """An mmpose model with a heatmap head. A point's score is the height of its map's peak, clipped to [0, 1]."""

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        """Load a heatmap model (see `TopDownEstimator`).

        Raises:
            ValueError: As for `TopDownEstimator`, and if `scoring.threshold` is not in [0, 1].
        """
        super().__init__(folder, device)
        self.score_threshold = float(self.config["scoring"]["threshold"])
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"scoring.threshold: expected 0 to 1, got {self.score_threshold}")

    def read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points decoded by mmpose's codec, frame by frame."""
        (heatmaps,) = self.head_answers(images)
        with quiet():
            points = np.concatenate([self.model.head.decoder.decode(maps)[0] for maps in heatmaps])
        return points, heatmaps.max((2, 3)).clip(0, 1)


def load_estimator(folder: Path | str, device: torch.device | str = "cpu") -> TopDownEstimator:
    """Load a folder as the class of estimator that its codec needs (see `TopDownEstimator`).

    Raises:
        ValueError: If a file is missing or damaged, or the codec is unknown.
    """
    kind = read_config(Path(folder))["codec"].get("type")
    kinds = {"SimCCLabel": MMPoseEstimator, "MSRAHeatmap": HeatmapEstimator}
    if kind not in kinds:
        raise ValueError(f"codec.type: expected one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind](folder, device)


def _whole_frame(frames: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit whole frames into the model's input as mmpose does, with black bars where the aspect ratios differ.

    Returns:
        Images [T, size, size, 3]; side lengths and corner (x, y) of the box that they show, in pixels of the frames.
    """
    height, width = frames.shape[1:3]
    aspect = size[0] / size[1]
    scale = np.asarray([max(width, height * aspect), max(height, width / aspect)], dtype=np.float32)
    centre = np.asarray([width / 2, height / 2], dtype=np.float32)
    if (width, height) != size:
        import cv2

        matrix = import_mmpose("mmpose.structures.bbox").get_warp_matrix(centre, scale, 0.0, output_size=size)
        frames = np.stack([cv2.warpAffine(f, matrix, size, flags=cv2.INTER_LINEAR) for f in frames])
    return frames, scale, centre - scale / 2


def read_config(folder: Path) -> dict[str, Any]:
    """The config of an estimator's folder.

    Raises:
        ValueError: If the config is missing, damaged or incomplete.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"config: cannot read {path}: {error}") from error
    missing = [k for k in ("model", "codec", "keypoint_names", "scoring") if k not in config]
    if missing:
        raise ValueError(f"config: {path} lacks {', '.join(missing)}")
    return config


def _read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Read weights in single precision and compare them with the model."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights: cannot read {path}: {error}") from error
    expected = {n: t.shape for n, t in model.state_dict().items()}
    if {n: t.shape for n, t in state.items()} != expected:
        raise ValueError(f"weights: {path} holds the weights of another model")
    state = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weights: {name} in {path} is not finite")
    return state
