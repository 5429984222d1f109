"""The provenance of a run, as names and texts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from reports.wording import NOTHING


def provenance(info: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance in run.json; cases, methods and metrics have their own tables."""
    names = [name for name in info if name not in ("cases", "methods", "metrics", "provenance")]
    configurations = {
        name: {
            kind: entry[kind]
            for kind in ("version", "fit_config", "transfer_config")
            if entry.get(kind) not in (None, {})
        }
        for name, entry in info["methods"].items()
        if entry["kind"] == "method"
    }
    return {name: info[name] for name in names} | dict(info.get("provenance") or {}) | {"methods": configurations}


def flattened(value: object, path: str = "") -> list[tuple[str, str]]:
    """Nested mappings as dotted names and texts."""
    if isinstance(value, Mapping) and value:
        return [
            row for name, inner in value.items() for row in flattened(inner, f"{path}.{name}" if path else str(name))
        ]
    if isinstance(value, list | tuple | np.ndarray):
        return [(path, ", ".join(map(str, value)) or NOTHING)]
    return [(path, NOTHING if value is None or value == {} else str(value))]
