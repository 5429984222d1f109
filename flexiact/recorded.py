"""Settings as keys record them, so that results stay valid when a setting is added."""

from dataclasses import asdict, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def later(neutral: Any) -> Any:
    """Field for a setting that came after results were stored; `neutral`, its default, changes nothing.

    Keys leave the setting out while it has that value, so that fits and videos which took days stay valid.
    """
    return field(default=neutral, metadata={"later": True})


def recorded(settings: "DataclassInstance") -> dict[str, Any]:
    """All settings of a half as JSON, but for those of `later` at their neutral value."""
    left_out = [f.name for f in fields(settings) if f.metadata.get("later") and getattr(settings, f.name) == f.default]
    return {name: value for name, value in asdict(settings).items() if name not in left_out}
