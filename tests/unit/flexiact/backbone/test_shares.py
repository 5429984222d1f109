"""The recorded shares of attention, against attention written out in float64."""

import math

import pytest
import torch

from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.shares import shares_recorded
from flexiact.sampling import Denoiser
from tests.support.backbones import tiny_backbone
from tests.support.slow_attention import SlowProcessor, random_inputs, random_tokens

BIAS = 0.7


class WatchedSlowProcessor(SlowProcessor):
    """Attention written out in float64; it keeps the mean over heads of every video query's mass on extra tokens."""

    shares: torch.Tensor

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        text, extra = encoder_hidden_states.double(), self.tokens.double()
        states = torch.cat([text, extra.expand(len(text), -1, -1), hidden_states.double()], dim=1)
        first, last = text.shape[1], text.shape[1] + len(extra)
        heads = []
        for layer, norm in ((attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k)):
            projected = states @ layer.weight.double().T + layer.bias.double()
            split = projected.reshape(*states.shape[:2], attn.heads, -1).transpose(1, 2)
            mean, spread = split.mean(-1, keepdim=True), split.var(-1, correction=0, keepdim=True)
            split = (split - mean) / (spread + norm.eps).sqrt() * norm.weight.double() + norm.bias.double()
            video = split[:, :, last:].clone()
            turned = torch.stack([-video[..., 1::2], video[..., 0::2]], dim=-1).flatten(-2)
            cosines, sines = (part.double() for part in image_rotary_emb)
            split[:, :, last:] = video * cosines + turned * sines
            heads.append(split)
        weights = (heads[0][:, :, last:] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1])).exp()
        weights[..., first:last] *= math.exp(self.bias)
        self.shares = (weights[..., first:last].sum(-1) / weights.sum(-1)).mean(1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)


def slow_shares(backbone: Backbone, inputs, tokens: torch.Tensor, bias: float) -> list[torch.Tensor]:
    blocks = [block.attn1 for block in backbone.transformer.transformer_blocks]
    for index, block in enumerate(blocks):
        block.processor = WatchedSlowProcessor(tokens[index], bias)
    Denoiser(backbone)(*inputs)
    return [block.processor.shares for block in blocks]


@pytest.mark.parametrize("at_once", [2**24, 100])
@pytest.mark.parametrize("bias", [0.0, BIAS])
def test_shares_equal_the_slow_ones(bias: float, at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flexiact.backbone.shares.LOGITS_AT_ONCE", at_once)
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    with shares_recorded(backbone.transformer) as shares, extra_tokens_attached(backbone.transformer):
        Denoiser(backbone)(*inputs, {"extra_tokens": tokens, "extra_bias": bias})
    slow = slow_shares(tiny_backbone(), inputs, tokens, bias)
    for block, expected in zip(shares, slow, strict=True):
        (found,) = block
        assert found.dtype == torch.float32 and found.shape == (2, backbone.num_video_tokens)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
        assert 0.01 < found.min() and found.max() < 0.99 and found.std() > 1e-3


def test_outputs_stay_as_they_are_and_nothing_remains():
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    kwargs = {"extra_tokens": tokens, "extra_bias": BIAS}
    denoiser = Denoiser(backbone)
    with extra_tokens_attached(backbone.transformer):
        alone = denoiser(*inputs, kwargs)
        with shares_recorded(backbone.transformer) as shares:
            assert torch.equal(denoiser(*inputs, kwargs), alone)
        denoiser(*inputs, kwargs)
    assert [len(block) for block in shares] == [1, 1]
    with pytest.raises(KeyError), shares_recorded(backbone.transformer):
        raise KeyError("x")
    assert not any(module._forward_pre_hooks for module in backbone.transformer.modules())


def test_calls_without_extra_tokens_are_no_calls_and_removed_tokens_get_nothing():
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    denoiser = Denoiser(backbone)
    with shares_recorded(backbone.transformer) as shares:
        denoiser(*inputs)
        with extra_tokens_attached(backbone.transformer):
            denoiser(*inputs)
            assert shares == [[], []]
            denoiser(*inputs, {"extra_tokens": tokens, "extra_bias": -math.inf})
    assert all(len(block) == 1 and (block[0] == 0).all() for block in shares)


def test_half_precision_states_give_shares_in_full_precision():
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone.transformer.to(dtype)
        states = [states.to(dtype) for states in inputs[:3]]
        with shares_recorded(backbone.transformer) as shares, extra_tokens_attached(backbone.transformer):
            Denoiser(backbone)(*states, inputs[3], {"extra_tokens": tokens, "extra_bias": BIAS})
        found.append(torch.stack([block[0] for block in shares]))
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], atol=0.02, rtol=0)
