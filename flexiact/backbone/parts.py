"""Check, before loading, that a folder holds a whole model: downloads stop halfway, and variants have other names."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from flexiact.backbone.loading import NETWORKS, BackboneError
from flexiact.media.files import not_fetched
from flexiact.terminal.cli import one_line

_INDEX = "*.safetensors.index.json"
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")
_WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")


def check_parts(name: str, folder: Path) -> None:
    """Refuse a folder in diffusers' layout if a file is missing, cut short, or named as a variant.

    Raises:
        BackboneError: If a part is not whole; the message names the part or file.
    """
    for part, file in {"scheduler": "scheduler_config.json", **dict.fromkeys(NETWORKS, "config.json")}.items():
        if not (folder / part / file).is_file():
            raise _incomplete(name, folder / part / file, "is missing")
        _check_json(name, folder / part / file)
    vocabularies = [path for pattern in _VOCABULARIES for path in (folder / "tokenizer").glob(pattern)]
    if not vocabularies:
        raise _incomplete(name, folder / "tokenizer", "is missing or holds no vocabulary")
    for path in vocabularies:
        _check_fetched(name, path)
    for path in (folder / "tokenizer").glob("*.json"):
        _check_json(name, path)
    for part in NETWORKS:
        for path in _weights(name, folder / part):
            _check_whole(name, path)


def _weights(name: str, part: Path) -> list[Path]:
    """Paths to a network's weights: one file, or all that an index names; [] for torch's older format."""
    for index in part.glob(_INDEX):
        if index.name.removesuffix(".index.json") in _WEIGHTS:
            _check_fetched(name, index)
            try:
                return [part / file for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise _incomplete(name, index, f"cannot be read ({one_line(error)})") from error
    files = [part / file for file in _WEIGHTS if os.path.lexists(part / file)]  # a link may lead nowhere
    if not files and not any(part.glob("*.bin")):
        others = sorted(path.name for path in part.glob("*.safetensors"))
        variant = f", only {others[0]}: rename it, or fetch the model without a variant" if others else ""
        raise BackboneError(f"backbone {name}: {part} holds no {' or '.join(_WEIGHTS)}{variant}")
    return files


def _check_whole(name: str, path: Path) -> None:
    """Refuse weights that are missing or have fewer bytes than their header says."""
    if not path.is_file():
        raise _incomplete(name, path, "is missing")
    _check_fetched(name, path)
    try:
        with safe_open(path, "pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise _incomplete(name, path, f"is cut short or damaged ({one_line(error)})") from error


def _check_json(name: str, path: Path) -> None:
    _check_fetched(name, path)
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _incomplete(name, path, f"is cut short or damaged ({one_line(error)})") from error


def _check_fetched(name: str, path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise _incomplete(name, path, "is empty")
    if instead := not_fetched(start):
        raise BackboneError(f"backbone {name}: {path} {instead}")


def _incomplete(name: str, path: Path, problem: str) -> BackboneError:
    return BackboneError(f"backbone {name}: {path} {problem}; fetch the model again")
