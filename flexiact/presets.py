"""Which settings a method has on a backbone: a preset as a whole, and the backbone's own where one is left open."""

from collections.abc import Mapping
from typing import Protocol, TypeVar

from flexiact.backbone.backbone import Backbone
from flexiact.ranges import check_count, check_number

LARGE = 10**9
"""Parameters from which on a backbone without a preset of its own gets the paper's."""

Config = TypeVar("Config")


class SamplerSettings(Protocol):
    """The part of a configuration that the sampler reads; None means the backbone's own."""

    @property
    def num_inference_steps(self) -> int | None:
        """Steps of the sampler."""

    @property
    def guidance_scale(self) -> float | None:
        """Of classifier-free guidance."""


def preset_of(presets: Mapping[str, Config], backbone: Backbone) -> Config:
    """The entry of a backbone's name, else "paper" for `LARGE` models and "puppets" for others."""
    if backbone.name in presets:
        return presets[backbone.name]
    return presets["paper" if backbone.num_parameters >= LARGE else "puppets"]


def check_sampler_settings(config: SamplerSettings) -> None:
    """Refuse settings out of range.

    Raises:
        ValueError: naming the field.
    """
    if config.num_inference_steps is not None:
        check_count("num_inference_steps", config.num_inference_steps)
    if config.guidance_scale is not None:
        check_number("guidance_scale", config.guidance_scale)


def sampler_settings(config: SamplerSettings, backbone: Backbone) -> tuple[int, float]:
    """Steps and guidance scale of a configuration on a backbone."""
    steps, guidance = config.num_inference_steps, config.guidance_scale
    return (
        backbone.num_inference_steps if steps is None else steps,
        backbone.guidance_scale if guidance is None else guidance,
    )
