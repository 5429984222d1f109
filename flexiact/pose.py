"""Finding keypoints: what every pose estimator promises, and the one that runs an mmpose model."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from flexiact.mmpose_stubs import import_mmpose, quiet

_BATCH = 64  # frames put through the network at a time


@runtime_checkable
class PoseEstimator(Protocol):
    """Finds the keypoints of the one figure in each frame.

    Attributes:
        name: of the estimator and its weights, for score tables.
        keypoint_names: K names, the order of the answers.
        score_threshold: a point that scores less counts as not found.
    """

    name: str
    keypoint_names: tuple[str, ...]
    score_threshold: float

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds keypoints.

        Args:
            frames: uint8 [T, H, W, 3], sRGB.

        Returns:
            Keypoints float32 [T, K, 2], (x, y) in pixels, pixel centres at half-integers, and scores float32 [T, K] in
            [0, 1].
        """
        ...


def build_model(config: Mapping[str, Any], seed: int | None = None) -> Any:
    """Builds the model of an mmengine config, an untyped nn.Module; the global random state stays as it was.

    Args:
        config: mmengine's, of which `model` is read.
        seed: of mmpose's own initialisation; None leaves weights that are to be replaced.

    Raises:
        ValueError: mmpose cannot build `config["model"]`.
    """
    models, registry = import_mmpose("mmpose.registry").MODELS, import_mmpose("mmengine.registry")
    import_mmpose("mmpose.models")  # registers them
    with quiet(), torch.random.fork_rng(devices=[]), registry.DefaultScope.overwrite_default_scope("mmpose"):
        torch.default_generator.manual_seed(seed or 0)  # the processor's alone
        try:
            model = models.build(dict(config["model"]))
            if seed is not None:
                model.init_weights()
        except (KeyError, TypeError, AssertionError) as error:
            raise ValueError(f"config: mmpose cannot build the model: {error}") from error
    return model


@dataclass(frozen=True)
class Scoring:
    """How a score is read from SimCC logits.

    The score of a point is the probability, by the model's own answer, that it lies within `radius_px` of the place
    reported, on the less certain of the two axes.

    Attributes:
        beta: factor on the logits in the training loss.
        temperature: divides the logits; fitted on held-out frames so that scores are shares of right answers.
        radius_px: in pixels of the model's input.
        threshold: a point that scores less counts as not found.
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
    """Probability mass near the places reported on one axis.

    Args:
        logits: [..., W] of the head, W bins.
        places: [...] in pixels of the model's input.
        bins_per_px: SimCC split ratio.
        scoring: factors and radius.

    Returns:
        [...] in [0, 1].
    """
    scaled = logits.astype(np.float64) * (scoring.beta / scoring.temperature)
    mass = np.exp(scaled - scaled.max(-1, keepdims=True))
    offset = np.abs(np.arange(logits.shape[-1]) - places[..., None] * bins_per_px)
    near = offset <= scoring.radius_px * bins_per_px
    share: np.ndarray = (mass * near).sum(-1) / mass.sum(-1)
    return share.astype(np.float32)


class MMPoseEstimator:
    """Runs an mmpose top-down model with a SimCC head on whole frames, many at a time.

    The folder holds `config.json` (an mmengine config that also names `keypoint_names`, `codec` and `scoring`) and
    `model.safetensors`. Nothing is fetched, unpickled or executed. The keypoints are those of mmpose's own
    `inference_topdown` with the whole frame as the box.

    Attributes:
        name: "mmpose-" and the first digits of the weights' sha256.
        keypoint_names: K names.
        score_threshold: a point that scores less counts as not found.
        scoring: how scores are read.
    """

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        """Loads a judge.

        Raises:
            ValueError: a file is missing or damaged, the weights do not fit the config or are not finite.
        """
        folder = Path(folder)
        config = _read_config(folder / "config.json")
        weights = folder / "model.safetensors"
        model = build_model(config)
        model.load_state_dict(_read_weights(weights, model))
        self.name = f"mmpose-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}"
        self.keypoint_names: tuple[str, ...] = tuple(config["keypoint_names"])
        self.scoring = Scoring(**config["scoring"])
        self.score_threshold = self.scoring.threshold
        self._bins_per_px = float(config["codec"]["simcc_split_ratio"])
        self._input_size = (int(config["codec"]["input_size"][0]), int(config["codec"]["input_size"][1]))
        self._device = torch.device(device)
        self.model = model.to(self._device).eval()

    @torch.no_grad()
    def logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The head's answers [T, K, W] and [T, K, H] to uint8 images [T, H, W, 3] of the model's input size."""
        processor = self.model.data_preprocessor
        mean, std = (getattr(processor, n).view(1, 3, 1, 1) for n in ("mean", "std"))
        # mmpose reads BGR files: only a model that converts them was trained on RGB.
        order = [0, 1, 2] if processor._channel_conversion else [2, 1, 0]
        parts: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH][..., order]).to(self._device).permute(0, 3, 1, 2)
            with quiet():
                features = self.model.extract_feat((batch.float() - mean) / std)
                parts.append(self.model.head.forward(features))
        x, y = (torch.cat(axis).float().cpu().numpy() for axis in zip(*parts, strict=True))
        return x, y

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds the keypoints of the figure in each frame (see `PoseEstimator`).

        Raises:
            ValueError: frames are not uint8 [T, H, W, 3].
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or 0 in frames.shape:
            raise ValueError("frames: expected a uint8 array [T, H, W, 3]")
        if frames.shape[-1] != 3:
            raise ValueError(f"frames: expected 3 channels, got shape {list(frames.shape)}")
        images, scale, origin = _whole_frame(frames, self._input_size)
        x, y = self.logits(images)
        points = self.model.head.decoder.decode(x.copy(), y.copy())[0]
        pair = ((x, points[..., 0]), (y, points[..., 1]))
        scores = [axis_score(logits, place, self._bins_per_px, self.scoring) for logits, place in pair]
        keypoints = points / np.asarray(self._input_size) * scale + origin
        return keypoints.astype(np.float32), np.minimum(*scores)


def _whole_frame(frames: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits whole frames into the model's input as mmpose does, with black bars where the shapes differ.

    Returns:
        Images [T, size, size, 3]; side lengths and corner (x, y), in pixels of the frames, of the box that they show.
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


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"config: cannot read {path}: {error}") from error
    missing = [k for k in ("model", "codec", "keypoint_names", "scoring") if k not in config]
    if missing:
        raise ValueError(f"config: {path} lacks {', '.join(missing)}")
    return config


def _read_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Reads weights in single precision and holds them against the model.

    Raises:
        ValueError: unreadable, not finite, or of another model.
    """
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
