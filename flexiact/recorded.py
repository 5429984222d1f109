"""Settings as keys record them, so that results stay valid when a setting is added."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NEUTRAL: dict[str, Any] = {"initial_std": 0.0, "identity_weight": 0.0}
"""Settings that came after results were stored, with the value that changes nothing, draws of random numbers included.

A value here may never change, not even with the setting's default. Settings of settings are not looked up.
"""


def recorded(settings: "DataclassInstance") -> dict[str, Any]:
    """All settings of a half as JSON, but for those of `NEUTRAL` at their neutral value.

    Keys are made of it, so that fits and videos which took days stay valid when a setting is added.
    """
    told = asdict(settings)
    return {name: value for name, value in told.items() if name not in NEUTRAL or value != NEUTRAL[name]}
