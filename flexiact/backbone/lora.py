"""Low-rank layers (LoRA, through peft) outside a transformer that replace its layers while attached.

The transformer's weights are never written to. Adapters add up: a second one that is attached wraps the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn


class LowRankLayers:
    """peft's layers, by its `config`, for some of a transformer's linear layers; newly made layers change nothing."""

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        name: str,
        targets: Sequence[str],
        config: LoraConfig,
        seed: int = 0,
    ) -> None:
        """Make the layers while nothing is attached to the transformer.

        Args:
            transformer: Transformer whose blocks are adapted.
            name: Name of the adapter inside peft, and in errors.
            targets: Ends of the paths of the layers to wrap in every block, such as "to_q".
            config: Configuration of peft, with the same targets.
            seed: Seed of the down halves' initial weights.
        """
        self.config = config
        self._name = name
        self._transformer = transformer
        self._mirror = _mirror(transformer, targets)
        trainable = [(parameter, parameter.requires_grad) for parameter in self._mirror.parameters()]
        with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
            torch.manual_seed(seed)
            inject_adapter_in_model(config, self._mirror, name)
        for parameter, before in trainable:  # peft freezes the layers it wraps
            parameter.requires_grad_(before)
        self._layers = {path: layer for path, layer in self._mirror.named_modules() if isinstance(layer, LoraLayer)}
        # Listed now, because the tree also holds another adapter's weights while it is attached on top of that.
        self._parameters = [weight for path, weight in self._mirror.named_parameters() if ".lora_" in path]

    def parameters(self) -> list[nn.Parameter]:
        """The layers' own weights, in a fixed order."""
        return list(self._parameters)

    def state(self) -> dict[str, torch.Tensor]:
        """Weights by peft's names, shared with the layers; call it only while detached."""
        return get_peft_model_state_dict(self._mirror, adapter_name=self._name)

    def fill(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy weights by peft's names into the layers.

        Raises:
            ValueError: If names or shapes differ from those of `state`, or weights are not finite floating-point
                numbers; the message begins with the adapter's name.
        """
        expected = self.state()
        if set(state) != set(expected):
            odd = sorted(set(state) ^ set(expected))
            raise ValueError(f"{self._name}: made for another transformer, {len(odd)} names differ, e.g. {odd[0]}")
        for path, tensor in state.items():
            if tensor.shape != expected[path].shape:
                raise ValueError(
                    f"{self._name}: {path} expected shape {list(expected[path].shape)}, got {list(tensor.shape)}"
                )
            if not tensor.is_floating_point():
                raise ValueError(f"{self._name}: {path} expected floating-point numbers, got {tensor.dtype}")
            if not torch.isfinite(tensor.float()).all():  # isfinite takes no 8-bit numbers
                raise ValueError(f"{self._name}: {path} holds values that are not finite")
        set_peft_model_state_dict(self._mirror, dict(state), adapter_name=self._name)

    @contextmanager
    def attached(self, weight: float) -> Iterator[None]:
        """Add the layers' products, times `weight`, inside the transformer; weight 0 keeps every bit."""
        if weight == 0:
            yield
            return
        places = [_place(self._transformer, path) for path in self._layers]
        before = [parent._modules[name] for parent, name in places]
        wrapped = [layer._modules["base_layer"] for layer in self._layers.values()]
        try:
            for (parent, name), below, layer in zip(places, before, self._layers.values(), strict=True):
                layer.set_scale(self._name, weight)
                layer._modules["base_layer"] = below
                parent._modules[name] = layer
            yield
        finally:
            for (parent, name), below, layer, own in zip(places, before, self._layers.values(), wrapped, strict=True):
                parent._modules[name] = below
                layer._modules["base_layer"] = own


def _mirror(transformer: CogVideoXTransformer3DModel, targets: Sequence[str]) -> nn.Module:
    """A tree of only the layers to wrap (shared, not copied), with the same paths as in the transformer.

    peft works on this tree, so that the transformer itself does not change.
    """
    mirror = nn.Module()
    ends = tuple(f".{target}" for target in targets)
    for path, layer in transformer.named_modules():
        if not (path.startswith("transformer_blocks.") and path.endswith(ends)):
            continue
        *parents, name = path.split(".")
        node = mirror
        for step in parents:
            if step not in node._modules:
                node.add_module(step, nn.Module())
            node = node.get_submodule(step)
        node.add_module(name, layer)
    return mirror


def _place(transformer: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return transformer.get_submodule(parent), name
