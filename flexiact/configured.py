"""Base of methods with settings: a configuration in two halves, the keys derived from it, presets and RefAdapter."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from flexiact.backbone.backbone import Backbone
from flexiact.ranges import check_count, check_number
from flexiact.recorded import recorded
from flexiact.refadapter import adapted, load_refadapter, refadapter_digest
from flexiact.sampling import Guide, StepKwargs, sample_video
from flexiact.task import Request, Video

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OPTIMISER_STEPS = ("fit_steps", "spatial_steps", "temporal_steps")
"""Names of the settings that count the optimiser steps of a fit."""
LARGE = 10**9
"""Number of parameters from which on a backbone without a preset of its own gets the paper's."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """Settings of the sampler in every method; what is None is the backbone's own."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if self.num_inference_steps is not None:
            check_count("num_inference_steps", self.num_inference_steps)
        if self.guidance_scale is not None:
            check_number("guidance_scale", self.guidance_scale)

    @property
    def adapter_weight(self) -> float:
        """Weight of RefAdapter; 0 means that it is not used."""
        return 0.0

    def resolved(self, backbone: Backbone) -> tuple[int, float]:
        """Number of steps and guidance scale on a backbone."""
        steps, guidance = self.num_inference_steps, self.guidance_scale
        return (
            backbone.num_inference_steps if steps is None else steps,
            backbone.guidance_scale if guidance is None else guidance,
        )

    def described(self, backbone: Backbone) -> dict[str, Any]:
        """All settings that keys record, with the values they have on a backbone, as JSON."""
        steps, guidance = self.resolved(backbone)
        return recorded(self) | {"num_inference_steps": steps, "guidance_scale": guidance}


@dataclass(frozen=True, kw_only=True)
class AdaptedSettings(SamplerSettings):
    """Settings of the sampler in a method that can use RefAdapter, unless its weight is 0 or None."""

    refadapter_weight: float | None = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("refadapter_weight", self.adapter_weight)

    @property
    def adapter_weight(self) -> float:
        """Weight of RefAdapter; 0 means that it is not used."""
        return self.refadapter_weight or 0.0

    def described(self, backbone: Backbone) -> dict[str, Any]:
        """The settings of `SamplerSettings.described`, and the digest of RefAdapter's weights."""
        return super().described(backbone) | {"refadapter": refadapter_digest(backbone, self.adapter_weight)}


@dataclass(frozen=True)
class NoSettings:
    """The half of a configuration whose verb reads no settings."""


Fit = TypeVar("Fit", bound="DataclassInstance")
Transfer = TypeVar("Transfer", bound=SamplerSettings)


@dataclass(frozen=True)
class Config(Generic[Fit, Transfer]):
    """Settings in two halves, by who reads them, so that variants that differ only in `transfer` share a fit."""

    fit: Fit
    transfer: Transfer

    def changed(self, **changes: Any) -> Self:
        """A copy with other values, each in the half that has a setting of its name.

        Raises:
            ValueError: If no half has a setting, or its value is out of range; the message names it.
        """
        halves: dict[str, Any] = {}
        for half, settings in (("fit", self.fit), ("transfer", self.transfer)):
            own = {field.name: changes.pop(field.name) for field in fields(settings) if field.name in changes}
            halves[half] = replace(settings, **own)
        if changes:
            raise ValueError(f"{next(iter(changes))}: no such setting")
        return replace(self, **halves)


def preset_of(presets: Mapping[str, Any], backbone: Backbone) -> Any:
    """The entry with the backbone's name; without one, "paper" from `LARGE` parameters on, otherwise "puppets".

    Of its `OPTIMISER_STEPS` the backbone's `fit_share` is left, and at least one.
    """
    own = backbone.name in presets
    found = presets[backbone.name if own else "paper" if backbone.num_parameters >= LARGE else "puppets"]
    if backbone.fit_share == 1:
        return found
    steps = {name: number for name, number in vars(found.fit).items() if name in OPTIMISER_STEPS}
    return found.changed(**{name: max(1, round(backbone.fit_share * number)) for name, number in steps.items()})


class ConfiguredMethod(Generic[Fit, Transfer]):
    """A method whose keys are its settings, as `flexiact.recorded` tells them.

    A subclass adds the missing parts of `ActionTransfer`.

    Attributes:
        presets: Configurations by name of the backbone; "paper" and "puppets" serve all others (see `preset_of`).
    """

    presets: ClassVar[Mapping[str, Any]]

    def __init__(self, backbone: Backbone, config: Config[Fit, Transfer] | None = None) -> None:
        """Store the backbone, and the configuration or its preset; read RefAdapter's weights if that uses them.

        Raises:
            ValueError: If a setting does not fit this backbone, or RefAdapter's files are damaged.
        """
        self.backbone = backbone
        self.config: Config[Fit, Transfer] = self.preset(backbone) if config is None else config
        self._adapter = load_refadapter(backbone, self.config.transfer.adapter_weight)

    @classmethod
    def preset(cls, backbone: Backbone) -> Config[Fit, Transfer]:
        """The default configuration for a backbone."""
        return preset_of(cls.presets, backbone)

    @classmethod
    def from_preset(cls, backbone: Backbone, **changes: Any) -> Self:
        """The method with changes to the backbone's default configuration."""
        return cls(backbone, cls.preset(backbone).changed(**changes))

    def fit_config(self) -> dict[str, Any]:
        """All settings that `fit` reads, as keys record them."""
        return recorded(self.config.fit)

    def transfer_config(self) -> dict[str, Any]:
        """All settings that `transfer` reads, with the values they have on the backbone."""
        return self.config.transfer.described(self.backbone)

    def sample(self, request: Request, step_kwargs: StepKwargs | None = None, guide: Guide | None = None) -> Video:
        """Make a video as `sample_video` does, with the configured sampler, and with RefAdapter if that is configured.

        Raises:
            ValueError: If the target has another size, or the output is not finite; the message names the field.
        """
        steps, guidance = self.config.transfer.resolved(self.backbone)
        with adapted(self._adapter, self.config.transfer.adapter_weight):
            return sample_video(
                self.backbone,
                request,
                num_inference_steps=steps,
                guidance_scale=guidance,
                step_kwargs=step_kwargs,
                guide=guide,
            )
