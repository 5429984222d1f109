"""Look inside one block of the transformer while it computes: its output, and the queries and keys of its attention.

Everything is attached by context managers and gone afterwards, on errors too. It works beside any attention processor
and adapter, with gradients, and with activations computed twice (checkpointing).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from flexiact.backbone.attention import Rotary


@dataclass(eq=False)
class BlockCapture:
    """What one block saw and gave in the transformer's last call.

    Attributes:
        attention: the block's attention.
        states: video states that went into it [B, video tokens, width].
        rotary: positions that went into it; None for models without them.
        output: video states after the block [B, video tokens, width].
    """

    attention: Attention
    states: Tensor | None = None
    rotary: Rotary | None = None
    output: Tensor | None = None

    def features(self) -> Tensor:
        """The block's output.

        Raises:
            RuntimeError: when the transformer was not called.
        """
        return _seen(self.output)

    def queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """Of the video tokens, normed and with rotary positions: each [B, heads, video tokens, head width].

        They are projected anew from what went into the attention, so that no attention processor has to know of it.

        Raises:
            RuntimeError: when the transformer was not called.
        """
        states, attention = _seen(self.states), self.attention
        query = _heads(attention, attention.to_q(states), attention.norm_q)
        key = _heads(attention, attention.to_k(states), attention.norm_k)
        if self.rotary is not None:
            query, key = apply_rotary_emb(query, self.rotary), apply_rotary_emb(key, self.rotary)
        return query, key


@contextmanager
def captured(transformer: CogVideoXTransformer3DModel, index: int) -> Iterator[BlockCapture]:
    """Watch block `index` (from 0) of the transformer; what it saw last is in the object given."""
    block = transformer.transformer_blocks[index]
    seen = BlockCapture(block.attn1)

    def before_attention(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.states, seen.rotary = kwargs["hidden_states"], kwargs["image_rotary_emb"]

    def after_block(_module: nn.Module, _args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        seen.output = output[0]

    handles = [
        block.attn1.register_forward_pre_hook(before_attention, with_kwargs=True),
        block.register_forward_hook(after_block),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def cut_after(transformer: CogVideoXTransformer3DModel, index: int) -> Iterator[None]:
    """Let the transformer compute blocks 0 to `index` only; its prediction means nothing then, and costs less."""
    blocks = transformer.transformer_blocks
    transformer.transformer_blocks = blocks[: index + 1]
    try:
        yield
    finally:
        transformer.transformer_blocks = blocks


@contextmanager
def checkpointing(transformer: CogVideoXTransformer3DModel, enabled: bool) -> Iterator[None]:
    """Compute activations twice instead of storing them (or the other way), whatever was set before."""
    switch = {True: transformer.enable_gradient_checkpointing, False: transformer.disable_gradient_checkpointing}
    before = transformer.gradient_checkpointing
    if before != enabled:
        switch[enabled]()
    try:
        yield
    finally:
        if before != enabled:
            switch[before]()


def middle_block(num_blocks: int) -> int:
    """The block by which the methods that guide by features do so as published: 20 of 42."""
    return (num_blocks - 1) // 2


def _seen(states: Tensor | None) -> Tensor:
    if states is None:
        raise RuntimeError("capture: the transformer was not called")
    return states


def _heads(attention: Attention, states: Tensor, norm: nn.Module | None) -> Tensor:
    heads = states.unflatten(2, (attention.heads, -1)).transpose(1, 2)
    return heads if norm is None else norm(heads)
