"""The known backbones, and their names on a command line."""

import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.cogvideox import COGVIDEOX_5B_I2V, COGVIDEOX_15_5B_I2V, Published
from flexiact.backbone.loading import NETWORKS, BackboneError
from flexiact.media.files import read_json_object
from flexiact.ranges import check_positive
from flexiact.terminal.cli import one_line

SETTINGS_FILE = "puppets.json"
PEFT_FOLDER = "as adapter_model.safetensors, beside an adapter_config.json that says r and lora_alpha"
"""Words on the place of a LoRA's weights in a folder."""

CONTROL_FOLDER = "as model.safetensors, beside its control.json"
"""Words on the place of control weights in a folder."""


@dataclass(frozen=True)
class BackboneSpec:
    """Source of a backbone, and its settings.

    Attributes:
        source: Path to a local folder in diffusers' layout, or the name of a repository on the model hub.
        revision: Commit on the hub; None for a folder, whose digest is its revision, and for a repository without a
            pinned commit, which is loaded only as NAME@REVISION.
        published: Published settings and sizes; None: native settings are read from the folder's puppets.json.
        refadapter: Path to a RefAdapter folder in peft's format.
        control: Path to a folder that `flexiact.backbone.control` reads.
        cuda_dtype: Floating-point dtype on a GPU; a CPU computes in float32.
        tiled_decode: True to decode in tiles (see `Backbone`).
    """

    source: Path | str
    revision: str | None = None
    published: Published | None = None
    refadapter: Path | None = None
    control: Path | None = None
    cuda_dtype: torch.dtype = torch.float32
    tiled_decode: bool = False

    @property
    def settings(self) -> dict[str, Any] | None:
        """The native settings where they are published."""
        return self.published.settings if self.published else None


SETTINGS = ("num_frames", "height", "width", "fps", "max_text_tokens", "num_inference_steps", "guidance_scale")

BACKBONES: dict[str, BackboneSpec] = {
    "puppets": BackboneSpec(
        PUPPET_WEIGHTS / "backbone", refadapter=PUPPET_WEIGHTS / "refadapter", control=PUPPET_WEIGHTS / "control"
    ),
    "cogvideox-5b-i2v": BackboneSpec(
        "zai-org/CogVideoX-5b-I2V",
        revision="a6f0f4858a8395e7429d82493864ce92bf73af11",
        published=COGVIDEOX_5B_I2V,
        cuda_dtype=torch.bfloat16,
        tiled_decode=True,
    ),
    "cogvideox-1.5-5b-i2v": BackboneSpec(
        "zai-org/CogVideoX1.5-5B-I2V",
        published=COGVIDEOX_15_5B_I2V,
        cuda_dtype=torch.bfloat16,
        tiled_decode=True,
    ),
}


RESERVED = {"puppets", "paper", "released"}
"""Reserved preset names. A backbone folder must not use one, or it would silently get that preset."""


def find_spec(backbone: str) -> tuple[str, BackboneSpec]:
    """Name and entry of a backbone given on a command line; nothing is fetched or loaded.

    Args:
        backbone: NAME of an entry of `BACKBONES`, NAME@REVISION of an entry on the hub (a commit, 40 hexadecimal
            digits), or FOLDER in diffusers' layout. A folder's native settings are in its puppets.json; without that
            file they are those of the published model with the same sizes.

    Raises:
        BackboneError: If `backbone` is none of these.
    """
    name, at, revision = backbone.partition("@")
    if name in BACKBONES:
        spec = BACKBONES[name]
        if not at:
            return name, spec
        if isinstance(spec.source, Path):
            raise BackboneError(f"backbone: {name} is not on the hub, so it has no revisions to choose from")
        if not re.fullmatch("[0-9a-f]{40}", revision):
            raise BackboneError(f"backbone: expected a commit (40 hexadecimal digits) after {name}@, got {revision!r}")
        return name, replace(spec, revision=revision)
    folder = Path(backbone)
    if folder.is_dir():
        if (own := folder.resolve().name) in RESERVED:
            raise BackboneError(f"backbone: {folder} has the name of settings that are not its own; rename the folder")
        return own, _folder_spec(folder)
    if os.sep in backbone or folder.exists():
        raise BackboneError(f"backbone: {backbone} is no folder")
    close = get_close_matches(name, BACKBONES, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    raise BackboneError(f"backbone: unknown name {backbone!r}{hint} (known: {', '.join(BACKBONES)})")


def native_settings(spec: BackboneSpec, folder: Path | str) -> dict[str, Any]:
    """The settings of `Backbone` named in `SETTINGS`: the published ones, or those of the folder's puppets.json.

    Raises:
        OSError: If there is no such file (ValueError: if it is no JSON object; KeyError: if it lacks a setting).
    """
    settings = spec.settings or read_json_object(Path(folder, SETTINGS_FILE))
    for key in SETTINGS:
        kind = float if key in ("fps", "guidance_scale") else int
        if isinstance(settings[key], bool) or not isinstance(settings[key], (int, kind)):
            raise ValueError(f"{SETTINGS_FILE}: {key} is {settings[key]!r}, write a number ({kind.__name__})")
        check_positive(f"{SETTINGS_FILE}: {key}", settings[key])
    return {key: settings[key] for key in SETTINGS}


def configurations(spec: BackboneSpec) -> dict[str, dict[str, Any]]:
    """Configurations of the networks by part: those of the folder, or the published ones; nothing is fetched.

    Raises:
        OSError: If files are missing (ValueError: if they are no JSON objects).
    """
    if isinstance(spec.source, Path):
        return {part: read_json_object(spec.source / part / "config.json") for part in NETWORKS}
    if spec.published is None:
        raise BackboneError(f"backbone: the sizes of {spec.source} are not known without fetching it")
    return {part: getattr(spec.published, part) for part in NETWORKS}


def _folder_spec(folder: Path) -> BackboneSpec:
    if (folder / SETTINGS_FILE).is_file():
        return BackboneSpec(folder)
    try:
        config = read_json_object(folder / "transformer" / "config.json")
    except (OSError, ValueError) as error:
        raise BackboneError(f"backbone: {folder} holds no model in diffusers' layout ({one_line(error)})") from error
    sizes = ["in_channels", "patch_size", "patch_size_t", "sample_frames"]
    if config.get("patch_size_t") is None:  # later models slice positions from a table of any size
        sizes += ["sample_height", "sample_width"]
    for spec in BACKBONES.values():
        if spec.published and all(config.get(size) == spec.published.transformer.get(size) for size in sizes):
            return replace(spec, source=folder, revision=None, refadapter=None, control=None)
    raise BackboneError(f"backbone: {folder} needs a {SETTINGS_FILE} that says {', '.join(SETTINGS)}")
