"""RefAdapter: a low-rank adapter on the attention of every block, so that any image may be the condition.

It is a peft LoRA on to_q, to_k, to_v and to_out.0, kept in peft's own file format. Its layers live beside the
transformer and take the places of the layers they wrap only while attached; the wrapped layers are never written to.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
PREFIX = "base_model.model."  # how peft names the wrapped model in its files
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_NAME = "refadapter"


class RefAdapter:
    """The adapter's layers for one transformer.

    Attributes:
        rank: of every layer.
        alpha: with which the product of a layer is scaled: alpha / rank at weight 1.
    """

    def __init__(self, transformer: CogVideoXTransformer3DModel, rank: int, alpha: float, seed: int = 0) -> None:
        """Make layers that change nothing yet (the paper's size: rank 64, alpha 32); `seed` draws the down halves.

        Raises:
            ValueError: when rank is below 1 or alpha not above 0.
        """
        if rank < 1:
            raise ValueError(f"rank: expected 1 or more, got {rank}")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha: expected a number above 0, got {alpha}")
        self.rank, self.alpha = rank, alpha
        self._transformer = transformer
        self._mirror = _mirror(transformer)
        trainable = [(parameter, parameter.requires_grad) for parameter in self._mirror.parameters()]
        with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
            torch.manual_seed(seed)
            self._config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS))
            inject_adapter_in_model(self._config, self._mirror, _NAME)
        for parameter, before in trainable:  # peft freezes the layers it wraps
            parameter.requires_grad_(before)
        self._layers = {path: layer for path, layer in self._mirror.named_modules() if isinstance(layer, LoraLayer)}

    @classmethod
    def load(cls, folder: Path, transformer: CogVideoXTransformer3DModel) -> "RefAdapter":
        """Read a folder in peft's format.

        Raises:
            ValueError: when files are missing or damaged, for another transformer, or a weight is not finite.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            weights = load_file(folder / WEIGHTS_FILE)
            adapter = cls(transformer, int(config["r"]), config["lora_alpha"])
        except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(f"refadapter: cannot be read from {folder} ({' '.join(str(error).split())})") from error
        adapter._fill({key.removeprefix(PREFIX): tensor for key, tensor in weights.items()})
        return adapter

    def save(self, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, which peft reads."""
        folder.mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self._mirror, adapter_name=_NAME)
        weights = {PREFIX + key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        self._config.save_pretrained(str(folder))
        # peft keeps the targets in a set, whose order changes with Python's hash seed: equal adapters, equal files.
        config = json.loads((folder / CONFIG_FILE).read_text()) | {"target_modules": list(TARGETS)}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))

    def parameters(self) -> list[nn.Parameter]:
        """The adapter's own weights, in a fixed order."""
        return [parameter for name, parameter in self._mirror.named_parameters() if ".lora_" in name]

    @contextmanager
    def attached(self, weight: float) -> Iterator[None]:
        """Let the transformer compute with the adapter at `weight`; 0 is the transformer alone, bit by bit.

        Raises:
            ValueError: when the weight is not a finite number.
        """
        if not math.isfinite(weight):
            raise ValueError(f"refadapter_weight: expected a finite number, got {weight}")
        if weight == 0:
            yield
            return
        places = [_place(self._transformer, path) for path in self._layers]
        before = [parent._modules[name] for parent, name in places]
        try:
            for (parent, name), layer in zip(places, self._layers.values(), strict=True):
                layer.set_scale(_NAME, weight)
                parent._modules[name] = layer
            yield
        finally:
            for (parent, name), original in zip(places, before, strict=True):
                parent._modules[name] = original

    def _fill(self, state: dict[str, torch.Tensor]) -> None:
        expected = get_peft_model_state_dict(self._mirror, adapter_name=_NAME)
        if set(state) != set(expected):
            odd = sorted(set(state) ^ set(expected))
            raise ValueError(f"refadapter: made for another transformer, {len(odd)} names differ, e.g. {odd[0]}")
        for name, tensor in state.items():
            if tensor.shape != expected[name].shape:
                raise ValueError(
                    f"refadapter: {name} expected shape {list(expected[name].shape)}, got {list(tensor.shape)}"
                )
            if not torch.isfinite(tensor).all():
                raise ValueError(f"refadapter: {name} holds values that are not finite")
        set_peft_model_state_dict(self._mirror, state, adapter_name=_NAME)


def _mirror(transformer: CogVideoXTransformer3DModel) -> nn.Module:
    """A tree with the same paths as the transformer's, of nothing but the layers to wrap (shared, not copied).

    peft then works on this tree, and the transformer itself keeps no mark of it.
    """
    mirror = nn.Module()
    for block in range(len(transformer.transformer_blocks)):
        for target in TARGETS:
            path = f"transformer_blocks.{block}.attn1.{target}"
            *parents, name = path.split(".")
            node = mirror
            for step in parents:
                if step not in node._modules:
                    node.add_module(step, nn.Module())
                node = node.get_submodule(step)
            node.add_module(name, transformer.get_submodule(path))
    return mirror


def _place(transformer: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return transformer.get_submodule(parent), name
