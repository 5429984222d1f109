"""Channel-wise video control: a CogVideoX image-to-video transformer that also sees the latents of a control video.

The form is CogVideoX-Fun's (diffusers' CogVideoXFunControlPipeline): the control video is encoded by the same VAE
(`flexiact.backbone.codec.encode_control`) and concatenated to the noisy latents on channels. Fun's released
transformers take [noisy | control] and see no image, so the input does not determine the subject. Here the image's
latents keep their place between the two, as in an image-to-video model:

    [noisy | image condition | control], each of `out_channels` channels

A control folder holds `control.json` and `model.safetensors`, with the weights that differ from the backbone's, by the
names of CogVideoXTransformer3DModel. `patch_embed.proj.weight` is always one of them and takes 3 x `out_channels`
channels in the order above (for CogVideoX 1.5's linear patch embedding: features, channels first). The complete weights
of a transformer trained in this form can therefore be used unchanged.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from flexiact.backbone.backbone import Backbone
from flexiact.media.files import read_json_object, read_tensors
from flexiact.pose.skeleton import DRAWING_VERSION
from flexiact.terminal.cli import one_line

CONTROL_FILE, WEIGHTS_FILE = "control.json", "model.safetensors"
PROJECTION = "patch_embed.proj.weight"


class Control:
    """Weights that let a backbone's transformer see a control video; they are in place only while attached."""

    def __init__(self, backbone: Backbone, weights: Mapping[str, Tensor]) -> None:
        """Copy weights by name to the backbone's device.

        Raises:
            ValueError: If the weights belong to another transformer, or are not finite.
        """
        own = backbone.transformer.state_dict()
        if PROJECTION not in weights:
            raise ValueError(f"control: {PROJECTION} is missing")
        for name, tensor in weights.items():
            if name not in own:
                raise ValueError(f"control: made for another transformer, it has {name}")
            expected = list(own[name].shape)
            if name == PROJECTION:
                if list(tensor.shape) == expected:
                    raise ValueError(f"control: {name} takes two inputs; expected noisy, image and control latents")
                expected[1] = expected[1] * 3 // 2
            if list(tensor.shape) != expected:
                raise ValueError(f"control: {name} expected shape {expected}, got {list(tensor.shape)}")
            if not torch.isfinite(tensor.float()).all():  # isfinite takes no 8-bit numbers
                raise ValueError(f"control: {name} holds values that are not finite")
        self._transformer = backbone.transformer
        self._weights = {
            name: nn.Parameter(tensor.to(backbone.device, backbone.dtype), requires_grad=False)
            for name, tensor in weights.items()
        }

    @classmethod
    def load(cls, folder: Path, backbone: Backbone) -> "Control":
        """Read a control folder.

        Raises:
            ValueError: If files are missing or damaged, or were made for another backbone or drawing version.
        """
        try:
            made_for = read_json_object(folder / CONTROL_FILE)
            revision, drawing = made_for["backbone_revision"], made_for["drawing_version"]
            weights, _ = read_tensors(folder / WEIGHTS_FILE)
        except KeyError as error:
            raise ValueError(f"control: {folder / CONTROL_FILE} does not say {error}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"control: cannot be read from {folder} ({one_line(error)})") from error
        if revision != backbone.revision:
            raise ValueError(
                f"control: {folder} was trained on revision {str(revision)[:12]} of the backbone, this is "
                f"{backbone.revision[:12]}; train it again"
            )
        if drawing != DRAWING_VERSION:
            raise ValueError(f"control: {folder} was trained on skeletons drawn as version {drawing} draws them")
        return cls(backbone, weights)

    @contextmanager
    def attached(self, latents: Tensor) -> Iterator[None]:
        """Let the transformer compute with the control's weights and see control latents [B or 1, F, C, h, w].

        On exit every weight and module is in its place again.
        """
        transformer = self._transformer
        before: list[tuple[dict[str, Any], str, Tensor | None]] = []
        patch_embed = transformer.patch_embed
        try:
            for name, parameter in self._weights.items():
                path, _, last = name.rpartition(".")
                if name != PROJECTION:
                    module = transformer.get_submodule(path)
                    # Positions that are stored in a checkpoint are buffers.
                    place: dict[str, Any] = module._buffers if last in module._buffers else module._parameters
                    before.append((place, last, place[last]))
                    place[last] = parameter
            transformer._modules["patch_embed"] = _WithControl(patch_embed, self._weights[PROJECTION], latents)
            yield
        finally:
            transformer._modules["patch_embed"] = patch_embed
            for place, last, original in before:
                place[last] = original


def load_control(backbone: Backbone) -> Control:
    """The backbone's control weights.

    Raises:
        ValueError: If there are none, or they are damaged or belong to another revision.
    """
    if backbone.control is None:
        raise ValueError(
            f"control: backbone {backbone.name} has no control weights (a folder as flexiact.backbone.control "
            "reads it; the puppets' are made by python -m flexiact.puppets.train control)"
        )
    if backbone.quantised:
        raise ValueError(f"control: its weights do not go with a transformer held in {backbone.quantised}")
    return Control.load(backbone.control, backbone)


def widened(transformer: CogVideoXTransformer3DModel) -> CogVideoXTransformer3DModel:
    """A copy that takes 3 x `out_channels` channels. The control's weights are 0, so it predicts the same."""
    wide: CogVideoXTransformer3DModel = copy.deepcopy(transformer)
    weight = wide.patch_embed.proj.weight
    columns = weight.new_zeros(len(weight), weight.shape[1] // 2, *weight.shape[2:])
    wide.patch_embed.proj = _with_weight(wide.patch_embed.proj, nn.Parameter(torch.cat([weight.detach(), columns], 1)))
    wide.register_to_config(in_channels=transformer.config.in_channels * 3 // 2)
    return wide


def save_control(folder: Path, wide: CogVideoXTransformer3DModel, backbone: Backbone) -> None:
    """Write a widened transformer's weights where they differ from the backbone's, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    own = backbone.transformer.state_dict()
    weights = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in wide.named_parameters()
        if name == PROJECTION or not torch.equal(tensor.detach(), own[name])
    }
    save_file(weights, folder / WEIGHTS_FILE)
    made_for = {"backbone": backbone.name, "backbone_revision": backbone.revision, "drawing_version": DRAWING_VERSION}
    (folder / CONTROL_FILE).write_text(json.dumps(made_for, indent=2) + "\n")


class _WithControl(nn.Module):
    """A patch embedding that appends the control latents to its video input."""

    def __init__(self, patch_embed: nn.Module, weight: nn.Parameter, latents: Tensor) -> None:
        super().__init__()
        self.embed = copy.copy(patch_embed)
        self.embed._modules = dict(patch_embed._modules)
        self.embed._modules["proj"] = _with_weight(patch_embed.get_submodule("proj"), weight)
        self.latents = latents

    def forward(self, text: Tensor, video: Tensor) -> Tensor:
        """Text and video tokens."""
        control = self.latents.to(video.dtype).expand(len(video), -1, -1, -1, -1)
        return self.embed(text, torch.cat([video, control], dim=2))


def _with_weight(layer: nn.Module, weight: nn.Parameter) -> nn.Module:
    """A copy of the layer with another weight and a shared bias; the layer itself does not change."""
    other = copy.copy(layer)
    other._parameters = {**layer._parameters, "weight": weight}
    return other
