"""Load the diffusers components of one CogVideoX image-to-video model.

`flexiact.backbone.specs` lists the known models and their names on a command line. This module contains no width,
depth, resolution or length: it reads all of them from the components.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

from flexiact.backbone.hub import snapshot
from flexiact.backbone.loading import (
    FILES,
    NO_SAVINGS,
    BackboneError,
    Savings,
    load_networks,
    reading,
    resolve_device,
)
from flexiact.backbone.parts import check_parts
from flexiact.backbone.specs import CONTROL_FOLDER, PEFT_FOLDER, SETTINGS_FILE, BackboneSpec, find_spec, native_settings
from flexiact.media.digests import folder_digest
from flexiact.media.files import read_json_object
from flexiact.terminal.cli import one_line

SCHEDULERS = {
    "CogVideoXDDIMScheduler": CogVideoXDDIMScheduler,
    "CogVideoXDPMScheduler": CogVideoXDPMScheduler,
}

PUBLISHED_SAMPLER = {"timestep_spacing": "trailing"}
"""Settings of the DPM scheduler with which CogVideoX' command line and FlexiAct's code sample the published models."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """Components and native settings of one model; networks are in eval mode and their weights never change.

    Attributes:
        name: Key in `BACKBONES`, for presets and tables; for a folder, the folder's name.
        revision: Identity of the exact weights: a commit or the SHA-256 of a local folder, with their quantisation.
        num_frames: Number of pixel frames of a clip; one more than a multiple of twice the temporal compression.
        height: Height of a frame, px.
        width: Width of a frame, px.
        fps: Frame rate of the training clips, frames per second.
        max_text_tokens: Number of tokens to which every prompt is padded or truncated.
        num_inference_steps: Number of sampler steps, unless a method sets its own.
        guidance_scale: Scale of classifier-free guidance, unless a method sets its own; 1 or less turns guidance off.
        fit_share: Share of their optimiser steps that presets take, in (0, 1]; below 1 only to see that fits run.
        refadapter: Path to the matching RefAdapter folder in peft's format; None if there is none.
        control: Path to the matching control folder (see `flexiact.backbone.control`); None if there is none.
        device: Device that runs the networks.
        dtype: Floating-point dtype of the computations.
        tiled_decode: True to decode latents in overlapping tiles with blended seams: less memory, other numbers.
        quantised: Quantisation of the transformer's linear layers, "8bit" or "4bit"; None: they are in `dtype`.

    Raises:
        BackboneError: If sizes do not fit together; the message names the field.
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
    fit_share: float = 1.0
    refadapter: Path | None = None
    control: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    tiled_decode: bool = False
    quantised: str | None = None

    def __post_init__(self) -> None:
        clip = 2 * self.vae.config.temporal_compression_ratio
        # After an odd first frame the VAE decodes latent frames in pairs, so other lengths would get extra frames.
        if self.num_frames < 1 or (self.num_frames - 1) % clip:
            raise BackboneError(f"num_frames: expected {clip}k + 1, got {self.num_frames}")
        patch = self.spatial_compression * self.transformer.config.patch_size
        for side in ("height", "width"):
            if getattr(self, side) < 1 or getattr(self, side) % patch:
                raise BackboneError(f"{side}: expected a multiple of {patch} px, got {getattr(self, side)}")

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def num_latent_frames(self) -> int:
        """Number of latent frames of a clip, before padding to the temporal patch."""
        return (self.num_frames - 1) // self.vae.config.temporal_compression_ratio + 1

    @property
    def num_padding_frames(self) -> int:
        """Number of latent frames prepended to fill the temporal patches (CogVideoX 1.5), otherwise 0."""
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
    def token_grid(self) -> tuple[int, int, int]:
        """Frames, height and width of the video tokens of a clip in the transformer."""
        config = self.transformer.config
        frames, _, height, width = self.latent_shape
        return frames // (config.patch_size_t or 1), height // config.patch_size, width // config.patch_size

    @property
    def num_video_tokens(self) -> int:
        """Number of video tokens of a clip in the transformer."""
        return math.prod(self.token_grid)

    @property
    def num_parameters(self) -> int:
        """Number of the transformer's weights, which the titles of tables show."""
        return int(self.transformer.num_parameters())  # counts two weights per byte of 4-bit weights

    def check_frames(self, name: str, frames: np.ndarray, num_frames: int | None = None) -> None:
        """Refuse uint8 frames [T, H, W, 3] whose size is not the model's or whose number is not `num_frames`.

        Raises:
            ValueError: If size or number differ; the message names `name` and both sizes.
        """
        if frames.shape[1:3] != (self.height, self.width):
            raise ValueError(
                f"{name}: expected {self.height}x{self.width} px (height x width), "
                f"got {frames.shape[1]}x{frames.shape[2]}"
            )
        if num_frames is not None and len(frames) != num_frames:
            raise ValueError(f"{name}: expected {num_frames} frames, got {len(frames)}")


def load_backbone(
    backbone: str,
    device: str = "cpu",
    refadapter: Path | None = None,
    control: Path | None = None,
    savings: Savings = NO_SAVINGS,
) -> Backbone:
    """Load an entry of `BACKBONES` or a folder.

    Args:
        backbone: Name or folder, as for `find_spec`.
        device: "cpu", "cuda", "cuda:1" or "auto".
        refadapter: Path to a RefAdapter folder that replaces the entry's own.
        control: Path to a control folder that replaces the entry's own.
        savings: Options that trade memory against time or exact numbers.

    Raises:
        BackboneError: If the name is unknown, or files are missing or damaged.
    """
    name, spec = find_spec(backbone)
    check_folders(refadapter, control)
    spec = replace(spec, refadapter=refadapter or spec.refadapter, control=control or spec.control)
    return load_folder(_local_folder(name, spec), name=name, device=device, spec=spec, savings=savings)


def check_folders(refadapter: Path | None, control: Path | None = None) -> None:
    """Refuse, before anything is loaded, a RefAdapter or control that is no folder.

    Raises:
        BackboneError: If there is none; for a file the message says its place.
    """
    for field_name, path, place in (("refadapter", refadapter, PEFT_FOLDER), ("control", control, CONTROL_FOLDER)):
        if path and path.is_file():
            raise BackboneError(f"{field_name}: {path} is a file; put it into a folder {place}")
        if path and not path.is_dir():
            raise BackboneError(f"{field_name}: no folder {path}")


def load_folder(
    folder: Path,
    *,
    name: str,
    device: str = "cpu",
    spec: BackboneSpec | None = None,
    savings: Savings = NO_SAVINGS,
) -> Backbone:
    """Load a folder in diffusers' layout; a RefAdapter or control folder that does not exist counts as none.

    Raises:
        BackboneError: If files are missing or damaged, or sizes do not fit together.
    """
    spec = spec or BackboneSpec(folder)
    target = resolve_device(device)
    savings.check(target)
    check_parts(name, folder)
    dtype = savings.dtype_on(target.type, spec.cuda_dtype)
    try:
        index = read_json_object(folder / "model_index.json")
        settings = native_settings(spec, folder)
        scheduler_class = _scheduler_class(index.get("scheduler"))
        with reading("scheduler"):
            scheduler = scheduler_class.from_pretrained(folder, subfolder="scheduler")
            if spec.published:  # regardless of the class that its repository names
                scheduler = CogVideoXDPMScheduler.from_config(scheduler.config, **PUBLISHED_SAMPLER)
        with reading("tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        networks = load_networks(folder, target, dtype, savings)
    except BackboneError:
        raise
    except KeyError as error:
        raise BackboneError(f"backbone {name}: {folder / SETTINGS_FILE} does not say {error}") from error
    except (OSError, ValueError) as error:
        raise BackboneError(f"backbone {name}: cannot be loaded from {folder} ({one_line(error)})") from error
    revision = spec.revision or folder_digest(folder)
    return Backbone(
        name=name,
        revision=f"{revision}+{savings.quantise}" if savings.quantise else revision,
        **networks,
        tokenizer=tokenizer,
        scheduler=scheduler,
        **settings,
        refadapter=spec.refadapter if spec.refadapter and spec.refadapter.is_dir() else None,
        control=spec.control if spec.control and spec.control.is_dir() else None,
        device=target,
        dtype=dtype,
        tiled_decode=spec.tiled_decode,
        quantised=savings.quantise,
    )


def _scheduler_class(named: object) -> type[CogVideoXDDIMScheduler | CogVideoXDPMScheduler]:
    """The class that an entry of model_index.json names, [library, class]."""
    found = named[-1] if isinstance(named, list) and named else named
    if not isinstance(found, str) or found not in SCHEDULERS:
        raise ValueError(f"model_index.json names the scheduler {found}; write one of {', '.join(SCHEDULERS)}")
    return SCHEDULERS[found]


def _local_folder(name: str, spec: BackboneSpec) -> Path:
    if isinstance(spec.source, Path):
        return spec.source
    if spec.revision is None:
        raise BackboneError(
            f"backbone: {name} has no pinned revision; give {name}@COMMIT, a commit of {spec.source} on the model hub, "
            "or a folder with the model"
        )
    try:
        return snapshot(spec.source, spec.revision, FILES)
    except OSError as error:
        raise BackboneError(
            f"backbone {name}: {spec.source} cannot be fetched ({one_line(error)}); fetch it on a machine with network "
            "and give the folder, --backbone FOLDER"
        ) from error
