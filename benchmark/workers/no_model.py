"""A format in place of a backbone, for runs of real material whose videos were all made elsewhere."""

from dataclasses import dataclass
from typing import cast

import torch

from flexiact.backbone.backbone import Backbone

NO_MODEL = "none"
"""Name of the backbone in run.json when there is none."""


@dataclass(frozen=True)
class NoModel:
    """All that describes a backbone in run.json, and no network: submissions, `still`, `copy-reference` need none."""

    num_frames: int
    height: int
    width: int
    fps: float
    device: torch.device
    name: str = NO_MODEL
    revision: str = NO_MODEL
    dtype: str = NO_MODEL
    max_text_tokens: int = 0
    num_inference_steps: int = 0
    guidance_scale: float = 1.0
    num_parameters: int = 0

    check_frames = Backbone.check_frames


def without_model(form: tuple[int, int, int, float], device: torch.device) -> Backbone:
    """The stand-in for a format: frames, height, width, rate. Whoever builds a method on it gets an AttributeError."""
    return cast(Backbone, NoModel(*form, device))
