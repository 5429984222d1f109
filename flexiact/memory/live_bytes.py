"""Bytes of tensors alive at the same time, followed operation by operation; on the meta device nothing is computed."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within it, storages that operations make are counted until they are freed, backward passes included.

    Attributes:
        now: bytes alive, of those made within.
        peak: the most that were alive at any one time.
    """

    def __init__(self, device: torch.device) -> None:
        """Count on one kind of device only."""
        super().__init__()
        self.device = device
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation; results that are views of what was there before count nothing."""
        for leaf in tree_leaves((args, kwargs)):
            self._note(leaf, counted=False)
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            self._note(leaf, counted=True)
        return made

    def _note(self, leaf: object, counted: bool) -> None:
        if not isinstance(leaf, Tensor) or leaf.device.type != self.device.type:
            return
        storage = leaf.untyped_storage()
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        size = storage.nbytes() if counted else 0
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, id(storage), size).atexit = False

    def _freed(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size


class FusedAttention(TorchFunctionMode):
    """Within it, attention holds what the fused kernels of a GPU hold: inputs, output, a sum a query; no logits.

    On a device without such kernels torch writes all logits out, which at the sizes of large models no card could hold.
    Values mean nothing: this is for counting.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Stand in for scaled_dot_product_attention, and leave all else as it is."""
        if func is functional.scaled_dot_product_attention:
            return _Kernel.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """An output [..., queries, value width] of no meaning."""
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Gradients of no meaning."""
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
