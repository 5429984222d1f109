"""The method inside a stock diffusers pipeline, with RefAdapter as a LoRA file and an action attached for some calls.

    pipe.load_lora_weights(export_lora("refadapter", "refadapter_lora.safetensors"), adapter_name="refadapter")
    pipe.set_adapters("refadapter", 0.7)
    with attached(pipe, load_file("action.safetensors"), FrequencySchedule()):
        video = pipe(image, prompt, ...).frames[0]

The latents are those of `flexiact.method`, bit by bit (a test compares them). So are the frames if both decode alike.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXImageToVideoPipeline

from flexiact.backbone.attention import extra_tokens_attached
from flexiact.checkpoints.authors import refadapter_names
from flexiact.checkpoints.ours import load_refadapter
from flexiact.embedding import FrequencySchedule, action_tokens
from flexiact.refadapter import PREFIX, TARGETS
from flexiact.task import Action


def export_lora(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> str:
    """Write a RefAdapter (a folder in peft's format) as the single file that `load_lora_weights` reads.

    Args:
        folder: Path to a folder with adapter_config.json and adapter_model.safetensors.
        file: Path to the file to write, with the suffix .safetensors; an existing file is replaced.

    Returns:
        Path to the file, for `load_lora_weights`.

    Raises:
        ValueError: If the folder cannot be read or is no RefAdapter, such as DoRA, or the file has another suffix.
    """
    folder, file = Path(folder), Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"file: expected a name that ends in .safetensors, got {file.name}")
    release, alpha, _ = load_refadapter(folder)
    names = refadapter_names(release.sizes.blocks)
    CogVideoXImageToVideoPipeline.save_lora_weights(
        file.parent,
        transformer_lora_layers={names[name].removeprefix(PREFIX): value for name, value in release.tensors.items()},
        weight_name=file.name,
        # Without rank and alpha the product of a layer would be scaled by 1 instead of alpha / rank.
        transformer_lora_adapter_metadata={"r": release.inner, "lora_alpha": alpha, "target_modules": list(TARGETS)},
    )
    return str(file)


@contextmanager
def attached(pipe: Any, action: Action, schedule: FrequencySchedule | None) -> Iterator[None]:
    """Add an action to every call of a pipeline's transformer; on exit the transformer is as before.

    Args:
        pipe: Any object with a CogVideoX transformer as `transformer`, such as CogVideoXImageToVideoPipeline.
        action: Action that `FlexiAct.fit` learned on the same transformer.
        schedule: Schedule of the embedding's bias; None: bias 0 throughout.

    Raises:
        ValueError: If the action belongs to another model; the message names the field.
    """
    transformer = pipe.transformer
    tokens = action_tokens(action, transformer.config)

    def add_action(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal tokens
        tokens = tokens.to(kwargs["hidden_states"].device)  # known only now: parts of a pipeline may be offloaded
        bias = schedule(int(kwargs["timestep"][0])) if schedule else 0.0
        own = {"extra_tokens": tokens, "extra_bias": bias}
        return args, kwargs | {"attention_kwargs": (kwargs.get("attention_kwargs") or {}) | own}

    hook = transformer.register_forward_pre_hook(add_action, with_kwargs=True)
    with hook, extra_tokens_attached(transformer):
        yield
