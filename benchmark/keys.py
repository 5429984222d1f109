"""Keys of results: SHA-256 over canonical JSON. Equal inputs have equal keys; others have other keys."""

from typing import Any

from flexiact.media.digests import json_digest

KEY_SCHEME = 2
"""Version of the keys and part of each of them; raise it when the payload of any key changes its meaning."""

_KEY_LENGTH = 32  # hex digits: 128 bits, and file names that people can still read


def key(kind: str, payload: dict[str, Any]) -> str:
    """Key of a result (32 hex digits); `kind` separates fits, samples and features."""
    return json_digest({"kind": kind, "scheme": KEY_SCHEME, **payload})[:_KEY_LENGTH]
