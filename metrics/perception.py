"""Measure the features of videos. No other module of the package runs networks; this one loads them on request.

Each backend's name states its kind and weights, since values of different backends are not comparable. A backend that
cannot be loaded is absent with a reason: its features are None, and metrics that need them are skipped.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.features import VideoFeatures
from metrics.motion.flow import flow_name
from metrics.tracking import LucasKanade

if TYPE_CHECKING:
    from flexiact.pose.estimators import PoseEstimator
    from flexiact.task import Video

PRETRAINED = {"ViT-B-32": ("ViT-B-32-quickgelu", "openai")}
"""Short names of image encoders, with open_clip's architecture and weights. OpenAI's weights need the quick GELU."""

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
ENCODER_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
"""Weights in the folder of an image encoder; the first that is there is read, as open_clip prefers them too."""

_BATCH = 64


class PerceptionError(ValueError):
    """A backend cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class OpenClipEncoder:
    """An open_clip model with its own preprocessing and tokenizer; texts are truncated to its length in tokens."""

    name: str
    model: Any
    preprocess: Any
    tokenizer: Any
    device: Any = "cpu"

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] to float32 [T, D] of unit norm."""
        import torch
        from PIL import Image

        images = torch.stack([self.preprocess(Image.fromarray(frame)) for frame in frames])
        with torch.inference_mode():
            parts = [self.model.encode_image(b.to(self.device), normalize=True) for b in images.split(_BATCH)]
        return torch.cat(parts).float().cpu().numpy()

    def encode_text(self, text: str) -> np.ndarray:
        """A text to float32 [D] of unit norm."""
        import torch

        with torch.inference_mode():
            tokens = self.tokenizer([text]).to(self.device)
            return self.model.encode_text(tokens, normalize=True)[0].float().cpu().numpy()


def load_image_encoder(source: str | Path, device: Any = "cpu") -> OpenClipEncoder:
    """Load an image and text encoder through open_clip.

    Args:
        source: Path to a folder with open_clip_config.json, weights named as in `ENCODER_FILES` and, unless the model
            uses CLIP's own tokenizer, a tokenizer in it or in its subfolder `tokenizer`; or a name in `PRETRAINED`; or
            `architecture/weights` as open_clip lists them. Names may download.
        device: Device that runs the encoder.

    Raises:
        PerceptionError: If the folder is incomplete, the name unknown, or the weights cannot be fetched.
    """
    if isinstance(source, Path) or Path(source).is_dir():
        return _load_folder(Path(source), device)
    import open_clip

    name, tag = PRETRAINED.get(source) or (source.rpartition("/")[0], source.rpartition("/")[2])
    if (name, tag) not in open_clip.list_pretrained():
        known = ", ".join(PRETRAINED)
        raise PerceptionError(
            f"image encoder {source!r}: neither a folder, nor {known}, nor architecture/weights known to open_clip"
        )
    try:
        with _no_log():
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=tag, device=device)
    except Exception as error:  # hub clients fail in many ways; all of them mean the same here
        raise PerceptionError(
            f"image encoder {source!r}: its weights could not be fetched ({type(error).__name__}: {_line(error)}); "
            "fetch them once on a machine with network, or give a folder that has them as model.safetensors"
        ) from error
    return OpenClipEncoder(f"open_clip {name}/{tag}", model.eval(), preprocess, open_clip.get_tokenizer(name), device)


def _load_folder(folder: Path, device: Any) -> OpenClipEncoder:
    config_file = folder / "open_clip_config.json"
    weights = next((folder / name for name in ENCODER_FILES if (folder / name).is_file()), folder / ENCODER_FILES[-1])
    if not config_file.is_file():
        raise PerceptionError(f"image encoder: {config_file} is missing")
    if not weights.is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        instead = f", and {pickles[0]} is not read: save it as safetensors" if pickles else ""
        raise PerceptionError(f"image encoder: {weights} is missing{instead}")
    import open_clip
    import torch

    reading = str(config_file)
    try:
        config = json.loads(config_file.read_text())["model_cfg"]
        with _no_log():  # it would say that the weights, which are read below, are random
            model, _, preprocess = open_clip.create_model_and_transforms(
                f"local-dir:{folder}", load_weights=False, pretrained_text=False, device=device
            )
        reading = str(weights)
        open_clip.load_checkpoint(model, str(weights))  # by its name, because open_clip itself may choose another
        reading = f"the tokenizer of {folder}"
        if (folder / "tokenizer").is_dir():
            length = config["text_cfg"].get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
            tokenizer = open_clip.tokenizer.HFTokenizer(str(folder / "tokenizer"), context_length=length)
        else:
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # open_clip, safetensors and transformers raise different types
        raise PerceptionError(
            f"image encoder: {reading} is damaged, not fetched or of another model; fetch it again, in a clone "
            f"with `git lfs pull` ({type(error).__name__}: {_line(error)})"
        ) from error
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    return OpenClipEncoder(f"open_clip {folder.name} {digest}", model.eval(), preprocess, tokenizer, device)


@dataclass(frozen=True, eq=False)
class Lpips:
    """Learned perceptual distance of Zhang et al. 2018: AlexNet features, linear heads fitted to human judgements."""

    model: Any
    device: Any = "cpu"
    name: str = "lpips 0.1 alexnet"

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distance of each frame of uint8 [T, H, W, 3] from the other video's: float32 [T], 0 for equal frames."""
        import torch

        videos = [torch.from_numpy(np.ascontiguousarray(v)).permute(0, 3, 1, 2) for v in (first, second)]
        sides = [video.float() / 127.5 - 1 for video in videos]
        with torch.inference_mode():
            pairs = zip(*(side.split(_BATCH) for side in sides), strict=True)
            parts = [self.model(a.to(self.device), b.to(self.device)).flatten() for a, b in pairs]
        return torch.cat(parts).float().cpu().numpy()


def load_lpips(device: Any = "cpu") -> Lpips:
    """Load LPIPS if torchvision's AlexNet is in torch's cache; never download it.

    Raises:
        PerceptionError: If AlexNet is not in the cache: the lpips package ships only its linear heads.
    """
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if not file.is_file():
        raise PerceptionError(
            f"LPIPS needs torchvision's AlexNet, and {file} is not there; fetch it once with "
            "`python -c 'import torchvision; torchvision.models.alexnet(weights=\"DEFAULT\")'`"
        )
    import lpips

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision by deprecated names
            model = lpips.LPIPS(net="alex", verbose=False)
    except Exception as error:
        raise PerceptionError(f"LPIPS: {file} cannot be loaded ({type(error).__name__}: {_line(error)})") from error
    return Lpips(model.eval().to(device), device)


@dataclass(frozen=True, eq=False)
class Perception:
    """Everything that measures videos. A backend that is None leaves its features None.

    Attributes:
        image_encoder: Backend that embeds frames and prompts.
        tracker: Backend that follows points.
        pose: Backend that finds keypoints.
        perceptual: Backend that compares frames with the truth's.
        absent: Reason why a backend is None, by its name in `backends`.
    """

    image_encoder: OpenClipEncoder | None = None
    tracker: LucasKanade | None = field(default_factory=LucasKanade)
    pose: "PoseEstimator | None" = None
    perceptual: Lpips | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def backends(self) -> dict[str, str]:
        """Name of the backend behind each `Metric.backend`; "none: reason" where there is none."""
        found = {
            "image_encoder": self.image_encoder,
            "tracker": self.tracker,
            "pose": self.pose,
            "perceptual": self.perceptual,
        }
        reasons = {name: f"none: {self.absent.get(name, 'not asked for')}" for name in found}
        names = {name: reasons[name] if backend is None else backend.name for name, backend in found.items()}
        return {**names, "pixels": "decoded frames", "flow": flow_name()}

    def describe(self, video: "Video") -> VideoFeatures:
        """All features of one video (a still image is a video of one frame); None where there is no backend."""
        frames = video.frames
        tracks, visible = self.tracker.track(frames) if self.tracker is not None else (None, None)
        points, scores = self._keypoints(frames)
        return VideoFeatures(
            frames=frames,
            image_embeddings=self.image_encoder.encode_images(frames) if self.image_encoder is not None else None,
            tracks=tracks,
            track_visible=visible,
            keypoints=points,
            keypoint_scores=scores,
        )

    def _keypoints(self, frames: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Keypoints and scores for `VideoFeatures`; scores below the estimator's threshold become 0."""
        if self.pose is None:
            return None, None
        points, scores = self.pose.estimate(frames)
        return points, np.where(scores >= self.pose.score_threshold, scores, np.zeros_like(scores))

    def embed_text(self, text: str) -> np.ndarray | None:
        """float32 [D] of unit norm, or None without an image encoder."""
        return self.image_encoder.encode_text(text) if self.image_encoder is not None else None

    def perceptual_distance(self, frames: np.ndarray, true_frames: np.ndarray) -> np.ndarray | None:
        """float32 [T] for `Features.perceptual_distance`, or None without LPIPS."""
        return self.perceptual.distance(frames, true_frames) if self.perceptual is not None else None


def load_perception(
    image_encoder: str | Path | None = None, pose: "PoseEstimator | None" = None, device: Any = "cpu"
) -> Perception:
    """Perception with OpenCV's tracker, the named image encoder, the given pose estimator, and LPIPS if available.

    Only LPIPS may be absent although the caller did not leave it out; the reason is stored.

    Raises:
        PerceptionError: If the image encoder was asked for and cannot be loaded.
    """
    encoder = load_image_encoder(image_encoder, device) if image_encoder is not None else None
    try:
        perceptual, absent = load_lpips(device), {}
    except PerceptionError as error:
        perceptual, absent = None, {"perceptual": str(error)}
    return Perception(image_encoder=encoder, pose=pose, perceptual=perceptual, absent=absent)


@contextmanager
def _no_log() -> Iterator[None]:
    """Let open_clip log nothing: what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
