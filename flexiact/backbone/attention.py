"""CogVideoX joint attention with extra tokens, and a bias on the logits of video queries for them.

The extra tokens of a block are additional keys and values. They go through the block's own projections and key norm and
carry no rotary position. They are no queries, since their outputs would be dropped. For a video query i and an extra
key j the logit is q_i k_j / sqrt(d) + bias; text queries get no bias. With bias 0 the tokens are still part of the
softmax, so bias 0 differs from "no tokens"; a bias of minus infinity means no tokens, for text queries as well.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from torch.nn import functional

DENSE_LIMIT = 2**20
"""Largest queries x keys with an explicit mask; above it, or on a GPU, the mask-free form is faster."""

HEAD_WIDTH_STEP = 8
"""Fast attention kernels need head widths that are multiples of this."""

Rotary = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines [video tokens, head width] of rotary positions."""


class ExtraTokensProcessor:
    """Attention processor of one block; its only state is the block's index.

    `attention_kwargs` of the transformer hold `extra_tokens` [num_blocks, L, width] and `extra_bias` (a float).
    Without `extra_tokens` it equals diffusers' own processor.
    """

    def __init__(self, block: int) -> None:
        """Store the block's index in `extra_tokens`."""
        self.block = block
        self._plain = CogVideoXAttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        extra_tokens: torch.Tensor | None = None,
        extra_bias: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend; returns video states [B, S, width] and text states [B, L, width]."""
        if extra_tokens is None or extra_bias == -math.inf:
            return self._plain(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        if attention_mask is not None:
            raise ValueError("attention_mask: not supported together with extra_tokens")
        num_text = encoder_hidden_states.shape[1]
        states = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        tokens = extra_tokens[self.block].to(states.dtype)
        query, key = queries_and_all_keys(attn, states, tokens, image_rotary_emb, num_text)
        value, extra_value = (split_heads(attn, attn.to_v(part)) for part in (states, tokens[None]))
        value = torch.cat([value, extra_value.expand(len(states), -1, -1, -1)], dim=2)
        return joined(attn, biased_attention(query, key, value, num_text, len(tokens), extra_bias), num_text)


def extra_tokens_attached(transformer: CogVideoXTransformer3DModel) -> AbstractContextManager[None]:
    """Let every block of the transformer take `extra_tokens`; on exit the former processors return."""
    return processors_attached(transformer, ExtraTokensProcessor)


@contextmanager
def processors_attached(transformer: CogVideoXTransformer3DModel, processor_of: Callable[[int], Any]) -> Iterator[None]:
    """Give block i the attention processor `processor_of(i)`; on exit the former processors return."""
    blocks = [block.attn1 for block in transformer.transformer_blocks]
    before = [attention.processor for attention in blocks]
    try:
        for index, attention in enumerate(blocks):
            attention.processor = processor_of(index)
        yield
    finally:
        for attention, processor in zip(blocks, before, strict=True):
            attention.processor = processor


def biased_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_text: int, num_extra: int, bias: float
) -> torch.Tensor:
    """Softmax attention with `bias` added to the logits of video queries for extra keys.

    With bias 0 this is plain attention. On a CPU with up to `DENSE_LIMIT` logits an explicit mask is the fastest form.
    Otherwise an additional channel holds the bias, so that the fast kernels remain usable.

    Args:
        query: Queries, [B, heads, text + video, d].
        key: Keys, [B, heads, text + video + extra, d].
        value: Values, with the shape of `key`.
        num_text: Number of text queries, which get no bias.
        num_extra: Number of extra keys, which come last.
        bias: Bias added to q k / sqrt(d); finite.

    Returns:
        Attended values, [B, heads, text + video, d].
    """
    if bias == 0:
        return functional.scaled_dot_product_attention(query, key, value)
    if query.device.type == "cpu" and query.shape[2] * key.shape[2] <= DENSE_LIMIT:
        return attention_with_mask(query, key, value, num_text, num_extra, bias)
    return attention_with_channel(query, key, value, num_text, num_extra, bias)


def attention_with_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_text: int, num_extra: int, bias: float
) -> torch.Tensor:
    """`biased_attention` with an additive mask [queries, keys]."""
    mask = query.new_zeros(query.shape[2], key.shape[2])
    mask[num_text:, -num_extra:] = bias
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_with_channel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_text: int, num_extra: int, bias: float
) -> torch.Tensor:
    """`biased_attention` with one more channel: 1 in video queries, bias * sqrt(d) in extra keys, 0 elsewhere.

    The channel's product adds exactly the bias after the logits are scaled by 1 / sqrt(d), where d is the width without
    the channel. For the kernels, further zero channels round the width up, and values get the same padding.
    """
    width = query.shape[-1]
    padding = HEAD_WIDTH_STEP - width % HEAD_WIDTH_STEP
    query, key, value = (functional.pad(states, (0, padding)) for states in (query, key, value))
    query[:, :, num_text:, width] = 1
    key[:, :, -num_extra:, width] = bias * math.sqrt(width)
    return functional.scaled_dot_product_attention(query, key, value, scale=1 / math.sqrt(width))[..., :width]


def queries_and_keys(
    attn: Attention, states: torch.Tensor, rotary: Rotary | None, num_text: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Project to heads [B, heads, tokens, head width], norm, and add rotary positions to the video tokens.

    Args:
        attn: Attention of a block.
        states: [B, tokens, width], text tokens first.
        rotary: Positions of the video tokens; None for models without them.
        num_text: Number of text tokens.
    """
    query = _normed(attn.norm_q, split_heads(attn, attn.to_q(states)))
    key = _normed(attn.norm_k, split_heads(attn, attn.to_k(states)))
    if rotary is None:
        return query, key
    query, key = (
        torch.cat([states[:, :, :num_text], apply_rotary_emb(states[:, :, num_text:], rotary)], dim=2)
        for states in (query, key)
    )
    return query, key


def queries_and_all_keys(
    attn: Attention, states: torch.Tensor, tokens: torch.Tensor, rotary: Rotary | None, num_text: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`queries_and_keys` with the keys of extra tokens [L, width] behind the others.

    Returns:
        Queries [B, heads, tokens, head width] and keys [B, heads, tokens + L, head width].
    """
    query, key = queries_and_keys(attn, states, rotary, num_text)
    # Computed once, because all rows of the batch share them; appended, so that rotary positions do not move.
    extra_key = _normed(attn.norm_k, split_heads(attn, attn.to_k(tokens[None])))
    return query, torch.cat([key, extra_key.expand(len(states), -1, -1, -1)], dim=2)


def split_heads(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    """Projected states [B, tokens, width] as [B, heads, tokens, head width]."""
    return states.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def joined(attn: Attention, heads: torch.Tensor, num_text: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Attended heads [B, heads, text + video, head width] as output states: of the video, then of the text."""
    states = attn.to_out[1](attn.to_out[0](heads.transpose(1, 2).flatten(2)))
    return states[:, num_text:], states[:, :num_text]


def _normed(norm: torch.nn.Module | None, states: torch.Tensor) -> torch.Tensor:
    return states if norm is None else norm(states)
