"""Names of results: SHA-256 over canonical JSON, so that equal inputs meet the same file and unequal ones never do."""

import hashlib
import json
from typing import Any

KEY_SCHEME = 2
"""Part of every key; raise it when the payload of any key changes its meaning."""

_KEY_LENGTH = 32  # hex digits: 128 bits, and file names that can still be read aloud in halves


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, ASCII, tuples as lists.

    Raises:
        ValueError: when `value` holds something that JSON has no word for (NaN, a path, a tensor).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"not JSON: {error}") from error


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def key(kind: str, payload: dict[str, Any]) -> str:
    """A result's name (32 hex digits); `kind` keeps fits, samples and features apart."""
    return digest({"kind": kind, "scheme": KEY_SCHEME, **payload})[:_KEY_LENGTH]
