"""The backbone and the prompt, nothing else: what action transfer has to beat."""

from typing import Any

from flexiact.backbone.backbone import Backbone
from flexiact.sampling import sample_video
from flexiact.task import Action, Request, Video

PRESETS = {"puppets": 1.0}
"""Guidance by backbone, where tuning found better than the backbone's own."""


class ImageToVideo:
    """Plain image-to-video generation; it never looks at the reference."""

    method_id = "ImageToVideo"
    version = 1
    uses_reference = False

    def __init__(
        self, backbone: Backbone, num_inference_steps: int | None = None, guidance_scale: float | None = None
    ) -> None:
        """Take the backbone's own steps and the guidance of `PRESETS`, else its own, where none are given."""
        self.backbone = backbone
        self.num_inference_steps = backbone.num_inference_steps if num_inference_steps is None else num_inference_steps
        preset = PRESETS.get(backbone.name, backbone.guidance_scale)
        self.guidance_scale = preset if guidance_scale is None else guidance_scale

    def fit_config(self) -> dict[str, Any]:
        """Nothing is fitted."""
        return {}

    def transfer_config(self) -> dict[str, Any]:
        """The sampler's settings."""
        return {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Learn nothing."""
        return {}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video that the prompt describes.

        Raises:
            ValueError: naming the field, for an action that is not empty or a target of another size.
        """
        if action:
            raise ValueError(f"action: expected none, got {sorted(action)}")
        return sample_video(
            self.backbone,
            request,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
        )
