"""An independent and slow implementation of attention to extra tokens, and inputs for it."""

import math

import torch

from flexiact.backbone.backbone import Backbone
from flexiact.sampling import Denoiser


def random_inputs(backbone: Backbone, seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, *backbone.latent_shape, generator=generator)
    condition = torch.randn(batch, *backbone.latent_shape, generator=generator)
    text = torch.randn(batch, backbone.max_text_tokens, 16, generator=generator)
    return latents, condition, text, torch.full((batch,), 850)


def random_tokens(backbone: Backbone, length: int = 5, seed: int = 1) -> torch.Tensor:
    config = backbone.transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    return torch.randn(config.num_layers, length, width, generator=torch.Generator().manual_seed(seed))


class SlowProcessor:
    """A block's attention written out: extra tokens after the text, all queries computed, dense mask, then dropped."""

    def __init__(self, tokens: torch.Tensor, bias: float) -> None:
        self.tokens, self.bias = tokens, bias

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        batch, num_text = encoder_hidden_states.shape[:2]
        num_extra, num_video = len(self.tokens), hidden_states.shape[1]
        states = torch.cat([encoder_hidden_states, self.tokens.expand(batch, -1, -1), hidden_states], dim=1)
        first_video = num_text + num_extra
        projected = []
        for layer, norm in ((attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k), (attn.to_v, None)):
            heads = layer(states).reshape(batch, states.shape[1], attn.heads, -1).permute(0, 2, 1, 3)
            projected.append(norm(heads) if norm else heads)
        for heads in projected[:2]:
            cosines, sines = image_rotary_emb
            video = heads[:, :, first_video:].clone()
            turned = torch.empty_like(video)
            turned[..., 0::2], turned[..., 1::2] = -video[..., 1::2], video[..., 0::2]
            heads[:, :, first_video:] = video * cosines + turned * sines
        query, key, value = projected
        mask = torch.zeros(states.shape[1], states.shape[1])
        mask[first_video:, num_text:first_video] = self.bias
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask
        out = (logits.softmax(-1) @ value).permute(0, 2, 1, 3).reshape(batch, states.shape[1], -1)
        out = attn.to_out[0](out)
        assert out.shape[1] == num_text + num_extra + num_video
        return out[:, first_video:], out[:, :num_text]


def slow_prediction(backbone: Backbone, inputs, tokens: torch.Tensor, bias: float) -> torch.Tensor:
    blocks = [block.attn1 for block in backbone.transformer.transformer_blocks]
    before = [block.processor for block in blocks]
    for index, block in enumerate(blocks):
        block.processor = SlowProcessor(tokens[index], bias)
    try:
        return Denoiser(backbone)(*inputs)
    finally:
        for block, processor in zip(blocks, before, strict=True):
            block.processor = processor
