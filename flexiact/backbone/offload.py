"""Let networks wait on the CPU and take turns on a device: a network moves there for use, and the others leave.

A pipeline's model offload (accelerate's `cpu_offload_with_hook`) moves one predecessor away, in the fixed order in
which a pipeline uses its networks. Fit and transfer use other orders, so here a network moves all others away. A
network counts as loaded only if all its weights are on the device, because an adapter may have been attached while it
was on the CPU.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils.memory import clear_device_cache
from torch import nn

HOME = torch.device("cpu")


class TakingTurns(ModelHook):
    """Makes room on the device before its network computes; diffusers' VAE also calls it in `encode` and `decode`."""

    def __init__(self, device: torch.device, others: Sequence[nn.Module]) -> None:
        """Store the device, and the networks that have to leave it."""
        self.device = device
        self.others = others

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Move the others to the CPU and the network to the device; its arguments are on the device already."""
        leaving = [other for other in self.others if not _is_on(other, HOME)]
        for other in leaving:
            other.to(HOME)
        if leaving:
            clear_device_cache()
        if not _is_on(module, self.device):
            module.to(self.device)
        return args, kwargs


def take_turns(
    networks: Mapping[str, nn.Module], device: torch.device, staying: AbstractSet[str] = frozenset()
) -> None:
    """Let networks on the CPU take turns on a device; the parts named in `staying` are there already and stay."""
    for part, network in networks.items():
        others = [other for name, other in networks.items() if name != part and name not in staying]
        add_hook_to_module(network, TakingTurns(device, others), append=True)


def begin_turns(networks: Mapping[str, nn.Module], device: torch.device, staying: AbstractSet[str]) -> bool:
    """Let networks that a GPU has no room for take turns from now on, all but `staying`; no number changes.

    Returns:
        True if that saves memory: False on a CPU, and if they take turns already.
    """
    if device.type == "cpu" or any(isinstance(getattr(n, "_hf_hook", None), TakingTurns) for n in networks.values()):
        return False
    take_turns(networks, device, staying)
    return True


def _is_on(network: nn.Module, device: torch.device) -> bool:
    """True if all weights are on the device; "cuda" without a number is any GPU, as in torch."""
    places = {tensor.device for tensors in (network.parameters(), network.buffers()) for tensor in tensors}
    return all(place.type == device.type and device.index in {None, place.index} for place in places)
