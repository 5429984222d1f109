"""Check, before loading, that a folder holds a whole model: downloads stop halfway, and variants have other names."""

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from flexiact.backbone.loading import NETWORKS, BackboneError
from flexiact.media.files import is_clutter, no_content
from flexiact.terminal.cli import one_line

_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")
_WEIGHTS = dict.fromkeys(NETWORKS, "diffusion_pytorch_model.safetensors") | {"text_encoder": "model.safetensors"}
_OTHER_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".pt", ".pth")


def check_parts(name: str, folder: Path) -> None:
    """Refuse a folder in diffusers' layout if a file is missing, cut short, or named as a variant.

    Raises:
        BackboneError: If a part is not whole; the message names the part or file.
    """
    if not (folder / "model_index.json").is_file():
        raise _incomplete(name, folder / "model_index.json", "is missing")
    for part, file in {"scheduler": "scheduler_config.json", **dict.fromkeys(NETWORKS, "config.json")}.items():
        if not (folder / part / file).is_file():
            raise _incomplete(name, folder / part / file, "is missing")
        if _json_object(name, folder / part / file).get("quantization_config"):
            raise BackboneError(
                f"backbone {name}: {folder / part / file} has a quantization_config; fetch the model without "
                "quantisation (--quantise quantises while it is loaded)"
            )
    tokenizer = [path for path in (folder / "tokenizer").glob("*") if not is_clutter(path)]
    vocabularies = [path for path in tokenizer if any(path.match(pattern) for pattern in _VOCABULARIES)]
    if not vocabularies:
        raise _incomplete(name, folder / "tokenizer", "is missing or holds no vocabulary")
    for path in vocabularies:
        _check_fetched(name, path)
    for path in tokenizer:
        if path.suffix == ".json":
            _json_object(name, path)
    for part in NETWORKS:
        for path in _weights(name, folder, part):
            _check_whole(name, path)


def _weights(name: str, folder: Path, part: str) -> list[Path]:
    """Paths to the safetensors files that a network is read from: a single one, or all that an index names."""
    single, index = folder / part / _WEIGHTS[part], folder / part / f"{_WEIGHTS[part]}.index.json"
    alone = os.path.lexists(single)  # a link may lead nowhere
    if alone and (part == "text_encoder" or not index.is_file()):  # diffusers prefers an index, transformers does not
        return [single]
    if not index.is_file():
        raise BackboneError(f"backbone {name}: {folder / part} holds no {single.name}{_instead(folder / part, index)}")
    _check_fetched(name, index)
    try:
        shards = [_shard(index, file) for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _incomplete(name, index, f"cannot be read ({one_line(error)})") from error
    if alone and any(not path.is_file() for path in shards):
        raise BackboneError(
            f"backbone {name}: {index} names files that are missing; remove it if {single.name} is whole, which is "
            "read only without it"
        )
    return shards


def _shard(index: Path, file: str) -> Path:
    """Path to a file that an index names; others would be read without counting in the revision."""
    if Path(file).name != file or Path(file).suffix != ".safetensors":
        raise ValueError(f"names {file}, expected .safetensors beside it")
    return index.with_name(file)


def _instead(part: Path, index: Path) -> str:
    """Words on the weights that a folder holds by other names or in other formats, and the remedy; "" if none."""
    others = sorted(path.name for path in part.iterdir() if path.suffix in _OTHER_WEIGHTS and not is_clutter(path))
    if not others:
        return ""
    if not others[0].endswith(".safetensors"):
        return f", only {others[0]}, which is not read: save it as safetensors"
    if re.search(r"-\d+-of-\d+\.", others[0]):
        return f", only {others[0]}, a part of it: fetch {index.name} too"
    return f", only {others[0]}: rename it, or fetch the model without a variant"


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


def _json_object(name: str, path: Path) -> dict[str, Any]:
    """Content of a file that a library will read, which takes no byte order mark."""
    _check_fetched(name, path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _incomplete(name, path, f"is cut short or damaged ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise _incomplete(name, path, "holds no JSON object")
    return found


def _check_fetched(name: str, path: Path) -> None:
    if problem := no_content(path):
        raise BackboneError(f"backbone {name}: {path} {problem}")


def _incomplete(name: str, path: Path, problem: str) -> BackboneError:
    return BackboneError(f"backbone {name}: {path} {problem}; fetch the model again")
