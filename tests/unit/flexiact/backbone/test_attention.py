"""Extra tokens in the attention, against an independent and slow implementation with a dense mask."""

import math

import pytest
import torch
from torch import nn

from flexiact.backbone.attention import (
    DENSE_LIMIT,
    attention_with_channel,
    attention_with_mask,
    biased_attention,
    extra_tokens_attached,
)
from flexiact.sampling import Denoiser
from tests.support.backbones import tiny_backbone
from tests.support.slow_attention import random_inputs, random_tokens, slow_prediction

BIASES = [0.0, 0.331, 1.0]


def slow_attention(query, key, value, num_text, num_extra, bias):
    """Softmax of explicit logits in float64, row by row."""
    query, key, value = query.double(), key.double(), value.double()
    logits = torch.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(query.shape[-1])
    for row in range(num_text, query.shape[2]):
        for column in range(key.shape[2] - num_extra, key.shape[2]):
            logits[:, :, row, column] += bias
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.einsum("bhqk,bhkd->bhqd", weights, value)


@pytest.mark.parametrize("width", [8, 13, 32])
@pytest.mark.parametrize("form", [attention_with_mask, attention_with_channel, biased_attention])
def test_every_form_equals_the_slow_one(form, width: int):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 11, width, generator=generator)
    key, value = torch.randn(2, 2, 3, 15, width, generator=generator)
    for bias in (*BIASES, -2.0):
        expected = slow_attention(query, key, value, num_text=4, num_extra=4, bias=bias)
        torch.testing.assert_close(form(query, key, value, 4, 4, bias).double(), expected, atol=1e-5, rtol=0)
        exact = form(query.double(), key.double(), value.double(), 4, 4, bias)
        torch.testing.assert_close(exact, expected, atol=1e-13, rtol=0)


def test_rule_takes_a_form_without_a_mask_for_many_tokens(monkeypatch: pytest.MonkeyPatch):
    taken = []
    monkeypatch.setattr("flexiact.backbone.attention.attention_with_mask", lambda *_: taken.append("mask"))
    monkeypatch.setattr("flexiact.backbone.attention.attention_with_channel", lambda *_: taken.append("channel"))
    side = math.isqrt(DENSE_LIMIT)
    few, many = torch.zeros(1, 1, side, 1), torch.zeros(1, 1, side + 1, 1)
    biased_attention(few, few, few, 1, 1, 0.5)
    biased_attention(many, many, many, 1, 1, 0.5)
    assert taken == ["mask", "channel"]


@pytest.mark.parametrize("form", ["rule", "mask", "channel"])
@pytest.mark.parametrize("bias", BIASES)
def test_transformer_with_extra_tokens_equals_the_slow_one(bias: float, form: str, monkeypatch: pytest.MonkeyPatch):
    if form != "rule":
        chosen = {"mask": attention_with_mask, "channel": attention_with_channel}[form]
        monkeypatch.setattr("flexiact.backbone.attention.biased_attention", chosen)
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    with extra_tokens_attached(backbone.transformer):
        ours = Denoiser(backbone)(*inputs, {"extra_tokens": tokens, "extra_bias": bias})
    torch.testing.assert_close(ours, slow_prediction(backbone, inputs, tokens, bias), atol=1e-5, rtol=0)


def test_tokens_are_heard_even_when_zero_and_bias_matters():
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    plain = Denoiser(backbone)(*inputs)
    with extra_tokens_attached(backbone.transformer):
        denoiser = Denoiser(backbone)
        assert torch.equal(denoiser(*inputs), plain)  # absent tokens: diffusers' own attention
        silent = denoiser(*inputs, {"extra_tokens": torch.zeros_like(tokens)})
        unbiased = denoiser(*inputs, {"extra_tokens": tokens})
        biased = denoiser(*inputs, {"extra_tokens": tokens, "extra_bias": 1.0})
        assert torch.equal(denoiser(*inputs, {"extra_tokens": tokens, "extra_bias": -math.inf}), plain)
    for one, other in ((plain, silent), (silent, unbiased), (unbiased, biased)):
        assert (one - other).abs().max() > 1e-3


def test_bias_is_for_video_queries_only():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 12, 8, generator=generator)
    without = biased_attention(query, key, value, 5, 3, 0.0)
    with_bias = biased_attention(query, key, value, 5, 3, 1.0)
    torch.testing.assert_close(with_bias[:, :, :5], without[:, :, :5])
    assert ((with_bias - without)[:, :, 5:].abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("form", [attention_with_mask, attention_with_channel])
def test_gradients_reach_the_tokens_of_every_block(form, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flexiact.backbone.attention.biased_attention", form)
    backbone = tiny_backbone()
    tokens = random_tokens(backbone).requires_grad_()
    with extra_tokens_attached(backbone.transformer):
        kwargs = {"extra_tokens": tokens, "extra_bias": 0.331}
        Denoiser(backbone)(*random_inputs(backbone), kwargs).square().sum().backward()
    fast = tokens.grad.clone()
    tokens.grad = None
    slow_prediction(backbone, random_inputs(backbone), tokens, 0.331).square().sum().backward()
    assert (fast.abs().amax(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(fast, tokens.grad, atol=1e-4, rtol=1e-4)


def test_processors_return_even_after_an_error():
    backbone = tiny_backbone()
    before = dict(backbone.transformer.attn_processors)
    with pytest.raises(KeyError), extra_tokens_attached(backbone.transformer):
        assert dict(backbone.transformer.attn_processors) != before
        raise KeyError("x")
    assert dict(backbone.transformer.attn_processors) == before


def test_half_precision_states_take_float_tokens():
    backbone = tiny_backbone()
    inputs, tokens = random_inputs(backbone), random_tokens(backbone)
    with extra_tokens_attached(backbone.transformer):
        kwargs = {"extra_tokens": tokens, "extra_bias": 1.0}
        exact = Denoiser(backbone)(*inputs, kwargs)
        backbone.transformer.to(torch.bfloat16)
        states = [states.to(torch.bfloat16) for states in inputs[:3]]
        rough = Denoiser(backbone)(*states, inputs[3], kwargs)
    assert rough.dtype == torch.bfloat16
    assert nn.functional.mse_loss(rough.float(), exact) < 1e-3 * exact.var()
