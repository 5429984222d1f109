"""Names of results: SHA-256 over canonical JSON, so that equal inputs meet the same file and unequal ones never do."""

from typing import Any

from flexiact.media.digests import json_digest

KEY_SCHEME = 2
"""Part of every key; raise it when the payload of any key changes its meaning."""

_KEY_LENGTH = 32  # hex digits: 128 bits, and file names that can still be read aloud in halves


def key(kind: str, payload: dict[str, Any]) -> str:
    """A result's name (32 hex digits); `kind` keeps fits, samples and features apart."""
    return json_digest({"kind": kind, "scheme": KEY_SCHEME, **payload})[:_KEY_LENGTH]
