"""Read and write learned weights in our own files, and rename them to and from the authors' release.

A RefAdapter is a folder in peft's format, which `flexiact.refadapter.RefAdapter.load` reads; an action is one
.safetensors file. The header of the safetensors file holds the facts that are known about it (JSON). No number changes.

LoRA scale: the release's layers add weight * alpha / rank * up(down(x)), with an alpha of 32 that is in its code, not
in its files. peft, and therefore `RefAdapter.attached(weight)`, does the same. Weight 1 means the same in both: half
the product at rank 64.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from flexiact.checkpoints.authors import (
    DTYPES,
    Release,
    Sizes,
    checked,
    creating,
    embedding_names,
    num_blocks,
    refadapter_names,
)
from flexiact.embedding import ACTION_KEY
from flexiact.media.files import read_tensors
from flexiact.ranges import check_positive
from flexiact.refadapter import CONFIG_FILE, TARGETS, WEIGHTS_FILE, peft_names, read_config
from flexiact.task import Action
from flexiact.terminal.cli import one_line

_METADATA = "flexiact"  # our entry in a safetensors header
_FIT = "fit"  # the entry that `flexiact.fits` writes


def save_refadapter(release: Release, folder: Path, alpha: float, about: Mapping[str, Any]) -> None:
    """Write a RefAdapter as the folder that `RefAdapter.save` would write, with unchanged numbers.

    `alpha` is that of its training; the header of the weights tells what is known about them, as JSON.

    Raises:
        ValueError: If `release` is an embedding, `alpha` is not above 0, or the folder holds weights or cannot be
            written.
    """
    release.require("refadapter")
    check_positive("alpha", alpha)
    names = refadapter_names(release.sizes.blocks)
    weights = {names[name]: _copy(tensor) for name, tensor in release.tensors.items()}
    with creating(folder / WEIGHTS_FILE) as partial:
        save_file(weights, partial, {"format": "pt", _METADATA: json.dumps(about)})
        LoraConfig(r=release.inner, lora_alpha=alpha, target_modules=list(TARGETS)).save_pretrained(str(folder))
        # peft keeps the targets in a set, whose order changes with Python's hash seed.
        config = json.loads((folder / CONFIG_FILE).read_text()) | {"target_modules": list(TARGETS)}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))


def load_refadapter(folder: Path, sizes: Sizes | None = None) -> tuple[Release, float, dict[str, Any]]:
    """The RefAdapter of a folder in peft's format by the release's names, its alpha, and the facts in its header.

    Raises:
        ValueError: If files are missing or damaged, or `checked` refuses the weights.
    """
    rank, alpha = read_config(folder)
    weights, about = _safetensors(folder / WEIGHTS_FILE)
    weights = peft_names(folder, weights)
    ours = {new: old for old, new in refadapter_names(num_blocks(weights)).items()}
    release = checked({ours.get(name, name): tensor for name, tensor in weights.items()}, sizes)
    release.require("refadapter")
    if rank != release.inner:
        raise ValueError(f"refadapter: {folder / CONFIG_FILE} says rank {rank}, the weights have {release.inner}")
    return replace(release, source=folder.name), float(alpha), about


def action_of(release: Release) -> Action:
    """An embedding as an action, float32 [blocks, tokens, width], which represents the other dtypes exactly.

    Raises:
        ValueError: If it is a RefAdapter.
    """
    release.require("embedding")
    return {ACTION_KEY: torch.cat(list(release.tensors.values())).float()}


def release_of(action: Action, sizes: Sizes | None = None, dtype: str = "float32") -> Release:
    """An action of FlexiAct as an embedding of the release, in the dtype `dtype`.

    Raises:
        ValueError: If it belongs to another method or size, or `dtype` does not represent its numbers exactly.
    """
    if set(action) != {ACTION_KEY} or action[ACTION_KEY].ndim != 3:
        found = {name: list(tensor.shape) for name, tensor in sorted(action.items())[:3]}
        raise ValueError(f"action: expected one entry {ACTION_KEY!r} [blocks, tokens, width], got {found}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    whole = action[ACTION_KEY]
    tokens = whole.to(DTYPES[dtype])
    release = checked(dict(zip(embedding_names(len(tokens)), tokens[:, None], strict=True)), sizes)
    if not torch.equal(tokens.to(whole.dtype), whole):
        raise ValueError(f"dtype: {dtype} does not hold the numbers of {ACTION_KEY} exactly")
    return release


def save_action(action: Action, path: Path, about: Mapping[str, Any]) -> None:
    """Write an action as safetensors, with the known facts (JSON) in the header.

    Raises:
        ValueError: If the name does not end in .safetensors, or the file exists or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"out: expected a name that ends in .safetensors, got {path}")
    with creating(path) as partial:
        save_file({name: _copy(tensor) for name, tensor in action.items()}, partial, {_METADATA: json.dumps(about)})


def load_action(path: Path) -> tuple[Action, dict[str, Any]]:
    """Read an action and the facts in its header; {} if there are none.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    return _safetensors(path)


def _safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        tensors, header = read_tensors(path)
        about = dict(json.loads(header.get(_METADATA, "{}")))
        backbone = json.loads(header.get(_FIT, "{}")).get("backbone", {})
        about |= {"backbone_revision": backbone["revision"]} if "revision" in backbone else {}
        return tensors, about
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(f"checkpoint: {path} cannot be read ({one_line(error)})") from error


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in contiguous memory of its own, which safetensors requires."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)
