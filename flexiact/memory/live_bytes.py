"""Count the bytes of live tensors, operation by operation; on the meta device nothing is computed."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class LiveBytes(TorchDispatchMode):
    """A mode that counts storages from the operation that makes them until they are freed, also in backward passes.

    Attributes:
        now: Number of live bytes that were made inside the mode.
        peak: Largest value of `now` so far.
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
        """Run an operation; results that are views of existing storages are not counted."""
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


@dataclass(frozen=True)
class _Kind:
    """All of a tensor that memory depends on."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


@contextmanager
def counted_once(module: nn.Module, live: LiveBytes) -> Iterator[None]:
    """Let a module compute once for each kind of input; later calls of the same kind add what the first one took.

    A VAE decodes a long video by a hundred calls of its decoder, of a few kinds. Outputs of repeated calls are empty
    tensors, so the context is for counting alone. Equal shapes must need equal memory, and no output may be a view.
    """
    known: dict[str, tuple[int, Any]] = {}
    forward = module.forward

    def once(*args: Any, **kwargs: Any) -> Any:
        asked = str(tree_map(_kind, (args, kwargs)))
        before, peak = live.now, live.peak
        if asked in known:
            live.peak = max(peak, before + known[asked][0])
            return tree_map(_empty, known[asked][1])
        live.peak = before
        made = forward(*args, **kwargs)
        known[asked] = live.peak - before, tree_map(_kind, made)
        live.peak = max(peak, live.peak)
        return made

    module.forward = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


def _kind(leaf: Any) -> Any:
    return _Kind(leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _empty(leaf: Any) -> Any:
    return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) if isinstance(leaf, _Kind) else leaf


class FusedAttention(TorchFunctionMode):
    """A mode in which attention stores what a GPU's fused kernels store: inputs, output and a sum per query, no logits.

    On a device without such kernels torch stores all logits, which no card could hold at the sizes of large models.
    Values are meaningless: the mode is for counting only.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace scaled_dot_product_attention, and run all other functions unchanged."""
        if func is functional.scaled_dot_product_attention:
            return _Kernel.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """An output [..., queries, value width] without meaning."""
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Gradients without meaning."""
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
