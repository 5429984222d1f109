"""The form of all objects that a run directory describes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

CONFIG = ConfigDict(
    extra="forbid",
    use_attribute_docstrings=True,
    allow_inf_nan=False,
    json_schema_serialization_defaults_required=True,
)
"""Settings of every object and row."""


def unit(name: str) -> Any:
    """Field of a number in this unit."""
    return Field(json_schema_extra={"unit": name})


class Entry(BaseModel):
    """An object of run.json: no key but those described."""

    model_config = CONFIG
