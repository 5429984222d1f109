"""The diffusers components of one CogVideoX image-to-video model, and the table of those the suite knows.

Nothing here knows a width, depth, resolution or length: all of it is read from the components.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging as transformers_logging

PUPPET_WEIGHTS = Path(__file__).parent / "puppets" / "weights"
SCHEDULERS = {
    "CogVideoXDDIMScheduler": CogVideoXDDIMScheduler,
    "CogVideoXDPMScheduler": CogVideoXDPMScheduler,
}


class BackboneError(ValueError):
    """A backbone that is unknown, missing or unusable; the message is one line."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """Components and native settings of one model; networks are in eval mode and their weights stay as they are.

    Attributes:
        name: key in `BACKBONES`, for presets and tables.
        revision: names the exact weights: a commit, or the SHA-256 of a local folder.
        num_frames: pixel frames of a clip; one more than a multiple of twice the temporal compression.
        height: of a frame, px.
        width: of a frame, px.
        fps: rate the model was trained at, frames per second.
        max_text_tokens: length every prompt is padded or cut to.
        num_inference_steps: steps of the sampler unless a method asks for others.
        guidance_scale: of classifier-free guidance unless a method asks for another; 1 or less turns it off.
        refadapter: folder of the matching RefAdapter in peft's format, None where there is none.
        control: folder of the matching control weights (see `flexiact.control`), None where there is none.

    Raises:
        BackboneError: naming the field, when sizes do not fit together or a weight is not finite.
    """

    name: str
    revision: str
    vae: AutoencoderKLCogVideoX
    transformer: CogVideoXTransformer3DModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    scheduler: CogVideoXDDIMScheduler | CogVideoXDPMScheduler
    num_frames: int
    height: int
    width: int
    fps: float
    max_text_tokens: int
    num_inference_steps: int
    guidance_scale: float
    refadapter: Path | None = None
    control: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        clip = 2 * self.vae.config.temporal_compression_ratio
        # The VAE decodes latent frames in pairs after an odd first one: other lengths come back with extra frames.
        if self.num_frames < 1 or (self.num_frames - 1) % clip:
            raise BackboneError(f"num_frames: expected {clip}k + 1, got {self.num_frames}")
        patch = self.spatial_compression * self.transformer.config.patch_size
        for side in ("height", "width"):
            if getattr(self, side) < 1 or getattr(self, side) % patch:
                raise BackboneError(f"{side}: expected a multiple of {patch} px, got {getattr(self, side)}")
        for part in ("vae", "transformer", "text_encoder"):
            for name, parameter in getattr(self, part).named_parameters():
                if not torch.isfinite(parameter).all():
                    raise BackboneError(f"{part}.{name}: holds values that are not finite")

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def num_latent_frames(self) -> int:
        """Latent frames of a clip, before padding to the temporal patch."""
        return (self.num_frames - 1) // self.vae.config.temporal_compression_ratio + 1

    @property
    def num_padding_frames(self) -> int:
        """Latent frames put in front so that temporal patches come out even (CogVideoX 1.5), otherwise 0."""
        return -self.num_latent_frames % (self.transformer.config.patch_size_t or 1)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Padded latent frames, channels, latent height, latent width."""
        return (
            self.num_latent_frames + self.num_padding_frames,
            self.transformer.config.in_channels // 2,
            self.height // self.spatial_compression,
            self.width // self.spatial_compression,
        )

    @property
    def num_video_tokens(self) -> int:
        """Video tokens of a clip in the transformer."""
        config = self.transformer.config
        frames, _, height, width = self.latent_shape
        return frames // (config.patch_size_t or 1) * (height // config.patch_size) * (width // config.patch_size)

    @property
    def num_parameters(self) -> int:
        """Weights of the transformer: the number a table is titled with."""
        return sum(parameter.numel() for parameter in self.transformer.parameters())

    def check_frames(self, name: str, frames: np.ndarray, num_frames: int | None = None) -> None:
        """Refuse uint8 frames [T, H, W, 3] of another size than the model's, or another length than `num_frames`.

        Raises:
            ValueError: naming `name` and both sizes.
        """
        if frames.shape[1:3] != (self.height, self.width):
            raise ValueError(
                f"{name}: expected {self.height}x{self.width} px (height x width), "
                f"got {frames.shape[1]}x{frames.shape[2]}"
            )
        if num_frames is not None and len(frames) != num_frames:
            raise ValueError(f"{name}: expected {num_frames} frames, got {len(frames)}")


@dataclass(frozen=True)
class BackboneSpec:
    """Where a backbone comes from.

    Attributes:
        source: a local folder in diffusers' layout, or the name of a repository on the model hub.
        revision: commit on the hub; None for a folder, whose digest is its revision.
        settings: the native settings of `Backbone` from num_frames on; None: read from the folder's puppets.json.
        refadapter: folder in peft's format.
        control: folder as `flexiact.control` reads it.
        cuda_dtype: on a GPU; a CPU computes in float32.
    """

    source: Path | str
    revision: str | None = None
    settings: dict[str, Any] | None = None
    refadapter: Path | None = None
    control: Path | None = None
    cuda_dtype: torch.dtype = torch.float32


SETTINGS = ("num_frames", "height", "width", "fps", "max_text_tokens", "num_inference_steps", "guidance_scale")

BACKBONES: dict[str, BackboneSpec] = {
    "puppets": BackboneSpec(
        PUPPET_WEIGHTS / "backbone", refadapter=PUPPET_WEIGHTS / "refadapter", control=PUPPET_WEIGHTS / "control"
    ),
    "cogvideox-5b-i2v": BackboneSpec(
        "zai-org/CogVideoX-5b-I2V",
        revision="a6f0f4858a8395e7429d82493864ce92bf73af11",
        settings={
            "num_frames": 49,
            "height": 480,
            "width": 720,
            "fps": 8.0,
            "max_text_tokens": 226,
            "num_inference_steps": 50,
            "guidance_scale": 6.0,
        },
        cuda_dtype=torch.bfloat16,
    ),
}


def load_backbone(
    name: str, device: str = "cpu", refadapter: Path | None = None, control: Path | None = None
) -> Backbone:
    """Load an entry of `BACKBONES`.

    Args:
        name: of the entry.
        device: "cpu", "cuda", "cuda:1" or "auto".
        refadapter: folder to take instead of the entry's own.
        control: likewise.

    Raises:
        BackboneError: when the name is unknown, or files are missing or damaged.
    """
    if name not in BACKBONES:
        close = get_close_matches(name, BACKBONES, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise BackboneError(f"backbone: unknown name {name!r}{hint} (known: {', '.join(BACKBONES)})")
    spec = BACKBONES[name]
    for field_name, path in (("refadapter", refadapter), ("control", control)):
        if path and not path.is_dir():
            raise BackboneError(f"{field_name}: no folder {path}")
    spec = replace(spec, refadapter=refadapter or spec.refadapter, control=control or spec.control)
    return load_folder(_local_folder(name, spec), name=name, device=device, spec=spec)


def load_folder(folder: Path, *, name: str, device: str = "cpu", spec: BackboneSpec | None = None) -> Backbone:
    """Load a folder in diffusers' layout; folders of a RefAdapter or control weights that do not exist count as none.

    Raises:
        BackboneError: when files are missing or damaged, or sizes do not fit together.
    """
    spec = spec or BackboneSpec(folder)
    target = resolve_device(device)
    dtype = spec.cuda_dtype if target.type == "cuda" else torch.float32
    try:
        index = json.loads((folder / "model_index.json").read_text())
        settings = spec.settings or json.loads((folder / "puppets.json").read_text())
        settings = {key: settings[key] for key in SETTINGS}
        scheduler = SCHEDULERS[index["scheduler"][1]].from_pretrained(folder, subfolder="scheduler")
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        networks = _load_networks(folder, target, dtype)
    except KeyError as error:
        raise BackboneError(f"backbone {name}: {folder} does not say {error}") from error
    except (OSError, ValueError) as error:
        raise BackboneError(f"backbone {name}: cannot be loaded from {folder} ({_one_line(error)})") from error
    return Backbone(
        name=name,
        revision=spec.revision or folder_digest(folder),
        **networks,
        tokenizer=tokenizer,
        scheduler=scheduler,
        **settings,
        refadapter=spec.refadapter if spec.refadapter and spec.refadapter.is_dir() else None,
        control=spec.control if spec.control and spec.control.is_dir() else None,
        device=target,
        dtype=dtype,
    )


def resolve_device(device: str) -> torch.device:
    """Turn "auto" into the GPU where there is one, otherwise the CPU; pass other names on.

    Raises:
        BackboneError: when the name is no device or the device is not there.
    """
    try:
        resolved = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise BackboneError(f"device: unknown name {device!r}") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"device: {device!r} asked for, but torch sees no GPU")
    return resolved


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names and bytes of all weights and configurations below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".json"}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _local_folder(name: str, spec: BackboneSpec) -> Path:
    if isinstance(spec.source, Path):
        if not (spec.source / "model_index.json").is_file():
            raise BackboneError(f"backbone {name}: no weights at {spec.source}")
        return spec.source
    from huggingface_hub import snapshot_download  # here, because only backbones on the hub need it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt"]
        return Path(snapshot_download(spec.source, revision=spec.revision, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise BackboneError(f"backbone {name}: cannot fetch {spec.source} ({_one_line(error)})") from error


def _load_networks(folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    classes = {
        "vae": AutoencoderKLCogVideoX,
        "transformer": CogVideoXTransformer3DModel,
        "text_encoder": T5EncoderModel,
    }
    bars = diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        networks = {
            part: kind.from_pretrained(folder, subfolder=part, torch_dtype=dtype) for part, kind in classes.items()
        }
        return {part: network.to(device).eval().requires_grad_(False) for part, network in networks.items()}
    finally:
        for module, enabled in zip((diffusers_logging, transformers_logging), bars, strict=True):
            if enabled:
                module.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
