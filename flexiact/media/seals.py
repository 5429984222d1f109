"""Seals: JSON and safetensors files hold a digest of their own content, so that damage shows wherever they are copied.

A file without a seal, written before there were any, is taken as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexiact.media.digests import canonical_json, json_digest

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "seal"
"""Name of the seal: a key of a JSON object, or of a safetensors header's metadata."""

_METADATA = "__metadata__"


class SealError(ValueError):
    """A content that is not what was sealed; the message is one line."""


def sealed_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal, the SHA-256 of the other keys in canonical JSON, as the last key."""
    return {**value, SEAL: json_digest(value)}


def unsealed_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without its seal.

    Raises:
        SealError: If the seal is not that of the other keys.
    """
    rest = dict(value)
    try:
        sound = SEAL not in rest or rest.pop(SEAL) == json_digest(rest)
    except RecursionError:
        sound = False
    if not sound:
        raise SealError("its seal is not that of its content")
    return rest


def sealed_tensors(content: bytes) -> bytes:
    """A safetensors file with its seal, the SHA-256 of header and tensors, among the header's metadata."""
    header, data = _parts(content)
    metadata = header.get(_METADATA, {})
    text = json.dumps({**header, _METADATA: {**metadata, SEAL: _digest(header, data)}}).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data


def check_tensors(content: bytes) -> None:
    """Check the seal of a safetensors file, if it has one.

    Raises:
        SealError: If the file is truncated, or the seal is not that of its content.
    """
    header, data = _parts(content)
    metadata = dict(header.get(_METADATA, {}))
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != _digest({**header, _METADATA: metadata}, data):
        raise SealError("its seal is not that of its content")


def read_sealed_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Tensors of a safetensors file whose seal holds, and its header without the seal.

    Raises:
        OSError: If the file cannot be read (SealError, SafetensorError: if it is damaged).
    """
    from safetensors.torch import load

    content = path.read_bytes()
    check_tensors(content)
    header = {name: text for name, text in _parts(content)[0].get(_METADATA, {}).items() if name != SEAL}
    try:
        loaded = load(content)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # a dtype or shape that torch does not have
        raise SealError(f"its tensors cannot be loaded ({type(error).__name__})") from error
    # Copied, because tensors at odd addresses in the file would give products with other last bits.
    return {name: tensor.clone() for name, tensor in loaded.items()}, header


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise SealError("its header is damaged") from error
    if not isinstance(header, dict) or not isinstance(header.get(_METADATA, {}), dict):
        raise SealError("its header is damaged")
    return header, content[8 + length :]


def _digest(header: Mapping[str, Any], data: bytes) -> str:
    metadata = header.get(_METADATA) or {}
    digest = hashlib.sha256(canonical_json({**header, _METADATA: metadata}).encode())
    digest.update(data)
    return digest.hexdigest()
