"""The backbones that the suite knows, and what a command line may call one."""

import json
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
from flexiact.cli import one_line

SETTINGS_FILE = "puppets.json"


@dataclass(frozen=True)
class BackboneSpec:
    """Where a backbone comes from, and what is known of it beforehand.

    Attributes:
        source: a local folder in diffusers' layout, or the name of a repository on the model hub.
        revision: commit on the hub; None for a folder, whose digest is its revision, and for a repository without a
            pinned commit, which is loaded only as NAME@REVISION.
        published: what is known beforehand; None: native settings are read from the folder's puppets.json.
        refadapter: folder in peft's format.
        control: folder as `flexiact.backbone.control` reads it.
        cuda_dtype: on a GPU; a CPU computes in float32.
        tiled_decode: as in `Backbone`.
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
"""Names that settings of methods are chosen by: no folder may have one of them."""


def find_spec(backbone: str) -> tuple[str, BackboneSpec]:
    """Name and entry of what a command line calls a backbone; nothing is fetched or loaded.

    Args:
        backbone: NAME of an entry of `BACKBONES`, NAME@REVISION of one on the hub (a commit, 40 hexadecimal digits),
            or FOLDER in diffusers' layout, whose native settings are in its puppets.json, or else those of the
            published model that has the same sizes.

    Raises:
        BackboneError: when it is none of these.
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
        OSError: when there is no such file (ValueError: when it is no JSON; KeyError: when it leaves one out).
    """
    settings = spec.settings or json.loads(Path(folder, SETTINGS_FILE).read_text())
    return {key: settings[key] for key in SETTINGS}


def configurations(spec: BackboneSpec) -> dict[str, dict[str, Any]]:
    """Configurations of the networks by part: those of its folder, or the published ones; nothing is fetched.

    Raises:
        OSError: when files are missing (or ValueError, when they are no JSON).
    """
    if isinstance(spec.source, Path):
        return {part: json.loads((spec.source / part / "config.json").read_text()) for part in NETWORKS}
    if spec.published is None:
        raise BackboneError(f"backbone: the sizes of {spec.source} are not known without fetching it")
    return {part: getattr(spec.published, part) for part in NETWORKS}


def _folder_spec(folder: Path) -> BackboneSpec:
    if (folder / SETTINGS_FILE).is_file():
        return BackboneSpec(folder)
    try:
        config = dict(json.loads((folder / "transformer" / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BackboneError(f"backbone: {folder} holds no model in diffusers' layout ({one_line(error)})") from error
    sizes = ["in_channels", "patch_size", "patch_size_t", "sample_frames"]
    if config.get("patch_size_t") is None:  # later models cut positions from a table of any size
        sizes += ["sample_height", "sample_width"]
    for spec in BACKBONES.values():
        if spec.published and all(config.get(size) == spec.published.transformer.get(size) for size in sizes):
            return replace(spec, source=folder, revision=None, refadapter=None, control=None)
    raise BackboneError(f"backbone: {folder} needs a {SETTINGS_FILE} that says {', '.join(SETTINGS)}")
