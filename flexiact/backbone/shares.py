"""Record the share of attention that video tokens give the extra tokens while the transformer computes.

The share of video query i is the softmax mass of the extra keys,

    sum over extra j of exp(l_ij) / sum over all j of exp(l_ij),    l_ij = q_i k_j / sqrt(d), + bias for extra j,

mean over heads, in float32. A hook computes it from the inputs of the attention, as `flexiact.backbone.probe` does, so
that no processor has to store anything and outputs stay as they are.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from flexiact.backbone.attention import ExtraTokensProcessor, queries_and_all_keys

LOGITS_AT_ONCE = 2**24
"""Largest number of logits in memory; more queries are taken in turns."""


@contextmanager
def shares_recorded(transformer: CogVideoXTransformer3DModel) -> Iterator[list[list[Tensor]]]:
    """Yield one list a block; each call of the transformer with extra tokens appends shares [B, video tokens] to it.

    Shares are float32, on the CPU, in [0, 1]. They are of the processors of `extra_tokens_attached`, which may be
    attached later. Calls without extra tokens append nothing; a bias of minus infinity gives shares of 0.
    """
    blocks = [block.attn1 for block in transformer.transformer_blocks]
    shares: list[list[Tensor]] = [[] for _ in blocks]

    def before_attention(attn: Attention, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if isinstance(attn.processor, ExtraTokensProcessor) and kwargs.get("extra_tokens") is not None:
            shares[attn.processor.block].append(_shares_of(attn, kwargs).cpu())

    with ExitStack() as hooks:
        for attn in blocks:
            hooks.enter_context(attn.register_forward_pre_hook(before_attention, with_kwargs=True))
        yield shares


@torch.no_grad()
def _shares_of(attn: Attention, inputs: dict[str, Any]) -> Tensor:
    text, video, bias = inputs["encoder_hidden_states"], inputs["hidden_states"], inputs.get("extra_bias", 0.0)
    tokens = inputs["extra_tokens"][attn.processor.block].to(video.dtype)
    if bias == -math.inf:
        return video.new_zeros(video.shape[:2], dtype=torch.float32)
    states = torch.cat([text, video], dim=1)
    query, key = queries_and_all_keys(attn, states, tokens, inputs["image_rotary_emb"], text.shape[1])
    return extra_shares(query[:, :, text.shape[1] :], key, len(tokens), bias)


def extra_shares(query: Tensor, key: Tensor, num_extra: int, bias: float) -> Tensor:
    """Softmax mass that queries give the extra keys, mean over heads, float32 [B, video].

    Args:
        query: Queries of the video, [B, heads, video, d].
        key: Keys, [B, heads, text + video + extra, d]; the extra ones come last.
        num_extra: Number of extra keys.
        bias: Bias added to the logits of extra keys; finite.
    """
    batch, heads, _, width = query.shape
    key = key.float().transpose(-1, -2) / math.sqrt(width)
    shares = []
    for part in query.split(max(1, LOGITS_AT_ONCE // (batch * heads * key.shape[-1])), dim=2):
        logits = part.float() @ key
        logits[..., -num_extra:] += bias
        shares.append(logits.softmax(-1)[..., -num_extra:].sum(-1).mean(1))
    return torch.cat(shares, dim=1)
