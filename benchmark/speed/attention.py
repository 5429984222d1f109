"""Biased attention of one block: in our forms, without any bias, and in the form of the authors' release."""

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from benchmark.speed.comparison import Comparison, type_name
from benchmark.speed.timing import Variant
from flexiact.backbone.attention import attention_with_channel, attention_with_mask, biased_attention

BIAS = 1.0


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one block's attention; `width` is the width of one head."""

    heads: int
    width: int
    text: int
    video: int
    extra: int
    batch: int
    dtype: torch.dtype


GPU_SHAPE = AttentionShape(48, 64, 226, 17_550, 226, 2, torch.bfloat16)
"""Shape of CogVideoX-5B, with the paper's number of extra tokens and both branches of guidance."""
CPU_SHAPE = AttentionShape(2, 64, 24, 1024, 16, 2, torch.float32)
"""Heads and text of the puppets backbone, with five times its video tokens: more logits than `DENSE_LIMIT`."""


def attention(shape: AttentionShape, device: torch.device) -> Comparison:
    """Compare the bias on extra keys, in our forms, with no bias and with a mask for all queries and keys."""
    generator = torch.Generator(device).manual_seed(0)
    num_own, num_extra = shape.text + shape.video, shape.extra

    def draw(tokens: int) -> torch.Tensor:
        size = shape.batch, shape.heads, tokens, shape.width
        return torch.randn(size, generator=generator, device=device, dtype=shape.dtype)

    query, key, value = draw(num_own), draw(num_own + num_extra), draw(num_own + num_extra)
    ours = query, key, value, shape.text, num_extra, BIAS
    every_query = torch.cat([query, draw(num_extra)], dim=2)
    q, k, v = (as_released(states, shape.text, num_extra) for states in (every_query, key, value))
    none, dense = "no bias", "dense mask, as released"
    return Comparison(
        title="Attention of one block",
        setting=(
            f"{shape.heads} heads × {shape.width}, {shape.text} text + {shape.video} video + {num_extra} extra tokens, "
            f"batch {shape.batch}, {type_name(shape.dtype)}, bias {BIAS:g}"
        ),
        variants={
            none: Variant(partial(functional.scaled_dot_product_attention, query, key, value)),
            "ours: by rule": Variant(partial(biased_attention, *ours)),
            "ours: one more channel": Variant(partial(attention_with_channel, *ours)),
            "ours: mask": Variant(partial(attention_with_mask, *ours)),
            dense: Variant(partial(dense_attention, q, k, v, shape.text, num_extra, BIAS)),
        },
        rivals=(none, dense),
    )


def dense_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_text: int, num_extra: int, bias: float
) -> torch.Tensor:
    """Biased attention in the form of the authors' release (its inference attention, with the bias on).

    Extra tokens stand between text and video and are also queries. Every call makes an L x L mask of zeros, text rows
    included, and adds the bias in the rows of video and the columns of extra tokens. The release drops the rows of
    extra tokens after the output projection; here they are kept. All states are [B, heads, text + extra + video, d].
    """
    first_video = num_text + num_extra
    mask = torch.zeros((query.shape[2], query.shape[2]), device=query.device, dtype=query.dtype)
    mask[first_video:, num_text:first_video] += bias
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def as_released(states: torch.Tensor, num_text: int, num_extra: int) -> torch.Tensor:
    """Reorder tokens [B, heads, text + video + extra, d] to the release's order: text, extra, video."""
    text, video, extra = states.split([num_text, states.shape[2] - num_text - num_extra, num_extra], dim=2)
    return torch.cat([text, extra, video], dim=2)
