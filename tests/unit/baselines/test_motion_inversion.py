"""Motion Inversion: embeddings in the attention against a slow version written out, and what is done with them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import motion_inversion
from baselines.motion_inversion import (
    PAPER,
    PRESETS,
    MotionInversion,
    attention_kwargs,
    embedding_shapes,
    frame_differences,
    motion_embedding_attached,
)
from flexiact.backbone.backbone import Backbone
from flexiact.sampling import Denoiser
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, tiny_backbone
from tests.support.slow_attention import random_inputs

QUICK = PAPER.changed(fit_steps=5)
FORMS = {
    "rotary": {},
    "sinusoidal": {"use_rotary_positional_embeddings": False},
    "temporal patches": {"patch_size_t": 2},
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def request_of(target: np.ndarray, seed: int = 0) -> Request:
    return Request(target, "a blue bird", seed)


def random_embeddings(backbone: Backbone, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = embedding_shapes(backbone)
    return tuple(torch.randn(shapes[key], generator=generator) for key in ("query_key", "value"))


class SlowProcessor:
    """A block's attention written out; embeddings are added token by token, softmax is explicit."""

    def __init__(self, query_key: torch.Tensor, value: torch.Tensor | None) -> None:
        self.query_key, self.value = query_key, value

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        batch, num_text = encoder_hidden_states.shape[:2]
        frames = len(self.query_key)
        places = hidden_states.shape[1] // frames
        for_query_key, for_value = hidden_states.clone(), hidden_states.clone()
        for frame in range(frames):
            for place in range(places):
                token = frame * places + place
                for_query_key[:, token] += self.query_key[frame]
                if self.value is not None:
                    for_value[:, token] += self.value[place, frame]
        projected = []
        for layer, norm, video in (
            (attn.to_q, attn.norm_q, for_query_key),
            (attn.to_k, attn.norm_k, for_query_key),
            (attn.to_v, None, for_value),
        ):
            states = layer(torch.cat([encoder_hidden_states, video], dim=1))
            heads = states.reshape(batch, states.shape[1], attn.heads, -1).permute(0, 2, 1, 3)
            projected.append(norm(heads) if norm else heads)
        if image_rotary_emb is not None:
            for heads in projected[:2]:
                cosines, sines = image_rotary_emb
                video = heads[:, :, num_text:].clone()
                turned = torch.empty_like(video)
                turned[..., 0::2], turned[..., 1::2] = -video[..., 1::2], video[..., 0::2]
                heads[:, :, num_text:] = video * cosines + turned * sines
        query, key, value = projected
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        out = attn.to_out[0]((weights @ value).permute(0, 2, 1, 3).reshape(batch, query.shape[2], -1))
        return out[:, num_text:], out[:, :num_text]


def slow_prediction(backbone: Backbone, inputs, query_key: torch.Tensor, value: torch.Tensor | None) -> torch.Tensor:
    blocks = [block.attn1 for block in backbone.transformer.transformer_blocks]
    for index, block in enumerate(blocks):
        block.processor = SlowProcessor(query_key[index], None if value is None else value[index])
    return Denoiser(backbone)(*inputs)


@each_form
@pytest.mark.parametrize("with_value", [True, False])
def test_embeddings_in_the_transformer_equal_the_slow_ones(form: dict, with_value: bool):
    backbone = tiny_backbone(transformer_config=form)
    inputs, (query_key, value) = random_inputs(backbone), random_embeddings(backbone)
    value = value if with_value else None
    plain = Denoiser(backbone)(*inputs)
    with motion_embedding_attached(backbone.transformer):
        ours = Denoiser(backbone)(*inputs, attention_kwargs(query_key, value))
    assert (ours - plain).abs().max() > 1e-2
    torch.testing.assert_close(ours, slow_prediction(backbone, inputs, query_key, value), atol=1e-5, rtol=1e-5)


@each_form
def test_embeddings_of_zero_are_the_model_itself(form: dict):
    backbone = tiny_backbone(transformer_config=form)
    inputs, zeros = random_inputs(backbone), [torch.zeros_like(e) for e in random_embeddings(backbone)]
    plain = Denoiser(backbone)(*inputs)
    with motion_embedding_attached(backbone.transformer):
        torch.testing.assert_close(Denoiser(backbone)(*inputs, attention_kwargs(*zeros)), plain)


def test_text_states_get_neither_embedding():
    backbone = tiny_backbone()
    attention = backbone.transformer.transformer_blocks[0].attn1
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 6, 32, generator=generator)
    video = torch.zeros(1, backbone.num_video_tokens, 32)
    query_key, value = random_embeddings(backbone)
    seen = []
    with motion_embedding_attached(backbone.transformer):
        hook = attention.to_v.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        attention(hidden_states=video, encoder_hidden_states=text, **attention_kwargs(query_key, value))
        hook.remove()
    assert torch.equal(seen[0][:, :6], text)
    assert torch.equal(seen[0][0, 6:].unflatten(0, (3, 6)).transpose(0, 1), value[0])


@each_form
def test_shapes_follow_the_backbone(form: dict):
    backbone = tiny_backbone(transformer_config=form)
    frames = 2 if form.get("patch_size_t") else 3
    assert embedding_shapes(backbone) == {"query_key": (2, frames, 32), "value": (2, 6, frames, 32)}


def test_processors_of_before_return_even_after_an_error(backbone: Backbone):
    before = {name: id(processor) for name, processor in backbone.transformer.attn_processors.items()}
    with pytest.raises(KeyError), motion_embedding_attached(backbone.transformer):
        raise KeyError("x")
    assert {name: id(processor) for name, processor in backbone.transformer.attn_processors.items()} == before


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_frame_differences_equal_the_slow_ones(blocks: int, places: int, frames: int, seed: int):
    value = torch.randn(blocks, places, frames, 2, generator=torch.Generator().manual_seed(seed))
    expected = value.clone()
    for block in range(blocks):
        for place in range(places):
            for frame in range(1, frames):
                expected[block, place, frame] = value[block, place, frame] - value[block, place, frame - 1]
    assert torch.equal(frame_differences(value), expected)


def test_differences_drop_what_does_not_change():
    still = torch.randn(2, 6, 1, 32, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 3, -1)
    assert not frame_differences(still)[:, :, 1:].any()


@each_form
def test_fit_learns_both_embeddings_of_every_block(form: dict, reference: Video, target: np.ndarray):
    backbone = tiny_backbone(transformer_config=form)
    method = MotionInversion(backbone, QUICK)
    action = method.fit(reference, "a red dog", seed=0)
    assert {key: tuple(tensor.shape) for key, tensor in action.items()} == embedding_shapes(backbone)
    assert all((tensor.flatten(1).abs().amax(1) > 0).all() for tensor in action.values())
    assert method.transfer(action, request_of(target)).frames.shape == (9, 16, 24, 3)


def test_fit_lowers_the_loss(backbone: Backbone, reference: Video, monkeypatch: pytest.MonkeyPatch):
    losses, own = [], motion_inversion.optimise

    def spy(*args, **named):
        losses.extend(own(*args, **named))

    monkeypatch.setattr(motion_inversion, "optimise", spy)
    MotionInversion(backbone, QUICK.changed(fit_steps=60, batch_size=4)).fit(reference, "a red dog", seed=0)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_debias_and_camera_change_the_value_embedding_alone(backbone: Backbone, reference: Video, target: np.ndarray):
    methods = {
        "debiased": MotionInversion(backbone, QUICK),
        "biased": MotionInversion(backbone, QUICK.changed(debias=False)),
        "camera": MotionInversion(backbone, QUICK.changed(motion="camera")),
    }
    assert len({str(method.fit_config()) for method in methods.values()}) == 1
    assert len({str(method.transfer_config()) for method in methods.values()}) == 3
    query_key, value = random_embeddings(backbone)
    action = {"query_key": query_key, "value": value}
    frames = {name: method.transfer(action, request_of(target)).frames for name, method in methods.items()}
    assert (frames["debiased"] != frames["biased"]).any() and (frames["camera"] != frames["biased"]).any()
    by_hand = action | {"value": frame_differences(value)}
    np.testing.assert_array_equal(methods["biased"].transfer(by_hand, request_of(target)).frames, frames["debiased"])
    without = methods["biased"].transfer(action | {"value": torch.zeros_like(value)}, request_of(target)).frames
    assert np.abs(without.astype(int) - frames["camera"]).max() <= 1


def test_refadapter_is_heard_at_transfer_alone(backbone: Backbone, reference: Video, target: np.ndarray):
    plain, adapted = (MotionInversion(backbone, QUICK.changed(refadapter_weight=weight)) for weight in (0.0, 0.7))
    assert plain.fit_config() == adapted.fit_config()
    action = plain.fit(reference, "a red dog", seed=0)
    assert all(torch.equal(action[name], t) for name, t in adapted.fit(reference, "a red dog", seed=0).items())
    frames = [method.transfer(action, request_of(target)).frames for method in (plain, adapted)]
    assert (frames[0] != frames[1]).any()
    with pytest.raises(ValueError, match="^refadapter_weight: "):
        MotionInversion(tiny_backbone(), QUICK.changed(refadapter_weight=0.7))


def test_half_precision_models_have_full_precision_embeddings(reference: Video, target: np.ndarray):
    method = MotionInversion(tiny_backbone(dtype=torch.bfloat16), QUICK)
    action = method.fit(reference, "a red dog", seed=0)
    assert all(tensor.dtype == torch.float32 for tensor in action.values())
    assert method.transfer(action, request_of(target)).frames.shape == (9, 16, 24, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fit_steps", 0),
        ("batch_size", 0.5),
        ("num_inference_steps", 0),
        ("learning_rate", -1.0),
        ("weight_decay", math.nan),
        ("image_dropout", 1.5),
        ("caption_dropout", -0.1),
        ("motion", "both"),
        ("refadapter_weight", math.inf),
        ("guidance_scale", math.nan),
    ],
)
def test_bad_settings_are_named(field: str, value: object):
    with pytest.raises(ValueError, match=f"^{field}: "):
        PAPER.changed(**{field: value})


def test_presets(backbone: Backbone):
    paper = PRESETS["paper"]
    assert (paper.fit.fit_steps, paper.fit.learning_rate) == (400, 0.02)
    assert (paper.transfer.motion, paper.transfer.debias) == ("object", True)
    others = backbone, replace(backbone, name="puppets")
    assert all(MotionInversion.preset(other) == PRESETS["puppets"] for other in others)


@pytest.mark.parametrize("action", [None, {}, {"value": torch.zeros(1)}, {"query_key": 1, "value": 2}])
def test_other_actions_are_named(backbone: Backbone, target: np.ndarray, action: object):
    with pytest.raises(ValueError, match="^action"):
        MotionInversion(backbone, QUICK).transfer(action, request_of(target))


def test_reference_and_caption_are_checked(backbone: Backbone, reference: Video):
    method = MotionInversion(backbone, QUICK)
    with pytest.raises(ValueError, match="^caption: "):
        method.fit(reference, None, seed=0)
    with pytest.raises(ValueError, match="^reference: "):
        method.fit(Video(random_frames(0, 8), 8.0), "a dog", seed=0)
