"""Capture one block of the transformer while it computes: its output, and the queries and keys of its attention.

Context managers attach the hooks and remove them afterwards, also on errors. The capture works with any attention
processor and adapter, with gradients, and with activation checkpointing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from flexiact.backbone.attention import Rotary, queries_and_keys


@dataclass(eq=False)
class BlockCapture:
    """Inputs and output of one block in the transformer's last call.

    Attributes:
        attention: Attention of the block.
        states: Video states before the attention, [B, video tokens, width].
        rotary: Rotary positions of the attention; None for models without them.
        output: Video states after the block, [B, video tokens, width].
    """

    attention: Attention
    states: Tensor | None = None
    rotary: Rotary | None = None
    output: Tensor | None = None

    def features(self) -> Tensor:
        """The block's output.

        Raises:
            RuntimeError: If the transformer was not called.
        """
        return _seen(self.output)

    def queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """Queries and keys of the video tokens, normed and rotated, each [B, heads, video tokens, head width].

        They are projected again from the attention's inputs, so that no attention processor has to store them.

        Raises:
            RuntimeError: If the transformer was not called.
        """
        return queries_and_keys(self.attention, _seen(self.states), self.rotary)


@contextmanager
def captured(transformer: CogVideoXTransformer3DModel, index: int) -> Iterator[BlockCapture]:
    """Watch block `index` (from 0) of the transformer; the yielded object holds its last inputs and output."""
    block = transformer.transformer_blocks[index]
    seen = BlockCapture(block.attn1)

    def before_attention(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.states, seen.rotary = kwargs["hidden_states"], kwargs["image_rotary_emb"]

    def after_block(_module: nn.Module, _args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        seen.output = output[0]

    hook = block.attn1.register_forward_pre_hook(before_attention, with_kwargs=True)
    with hook, block.register_forward_hook(after_block):
        yield seen


@contextmanager
def cut_after(transformer: CogVideoXTransformer3DModel, index: int) -> Iterator[None]:
    """Let the transformer compute only blocks 0 to `index`; its prediction is then meaningless, but cheaper."""
    blocks = transformer.transformer_blocks
    transformer.transformer_blocks = blocks[: index + 1]
    try:
        yield
    finally:
        transformer.transformer_blocks = blocks


@contextmanager
def checkpointing(transformer: CogVideoXTransformer3DModel, enabled: bool) -> Iterator[None]:
    """Turn activation checkpointing on or off; on exit the former setting returns."""
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
    """Index of the middle block, by which the published methods guide with features: block 20 of 42."""
    return (num_blocks - 1) // 2


def _seen(states: Tensor | None) -> Tensor:
    if states is None:
        raise RuntimeError("capture: the transformer was not called")
    return states
