"""Keys of results: SHA-256 over canonical JSON. Equal inputs have equal keys; others have other keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flexiact.media.digests import canonical_json

if TYPE_CHECKING:
    from flexiact.task import ActionTransfer

KEY_SCHEME = 2
"""Version of the keys and part of each of them; raise it when the payload of any key changes its meaning."""

_KEY_LENGTH = 32  # hex digits: 128 bits, and file names that people can still read


def key(kind: str, payload: Mapping[str, Any]) -> str:
    """Key of a result (32 hex digits); `kind` separates fits, samples and features."""
    return key_maker(kind, payload)({})


def method_key(method: ActionTransfer) -> str:
    """Key of a method with its version and all of its settings."""
    settings = {"fit": method.fit_config(), "transfer": method.transfer_config()}
    return key("method", {"id": method.method_id, "version": method.version} | settings)


def key_maker(kind: str, shared: Mapping[str, Any]) -> Callable[[Mapping[str, str]], str]:
    """Function that makes the keys of many results whose payloads have entries in common.

    Args:
        kind: Kind of the results, see `key`.
        shared: Entries that all payloads share. They are written as JSON once, which is most of a key's cost.

    Returns:
        Function from the other entries, each as its canonical JSON, to the key of the whole payload.
    """
    fixed = {name: canonical_json(value) for name, value in {"kind": kind, "scheme": KEY_SCHEME, **shared}.items()}

    def make(others: Mapping[str, str]) -> str:
        entries = {**fixed, **others}
        text = ",".join([f'"{name}":{entries[name]}' for name in sorted(entries)])
        return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:_KEY_LENGTH]

    return make
