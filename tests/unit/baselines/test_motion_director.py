"""MotionDirector: its loss, its single frames and its two LoRAs against slow versions and folded weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import motion_director
from baselines.motion_director import (
    PAPER,
    PRESETS,
    TARGETS,
    MotionDirector,
    appearance_debiased,
    motion_loss,
)
from baselines.stills import first_frame_positions, still_batches
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_text
from flexiact.batches import Batch, DrawConfig
from flexiact.sampling import Denoiser, rotary_embedding, sample_video
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, tiny_backbone
from tests.support.slow_attention import random_inputs

QUICK = PAPER.changed(rank=2, spatial_steps=2, temporal_steps=3, learning_rate=1e-2)
FORMS = {
    "rotary": {},
    "sinusoidal": {"use_rotary_positional_embeddings": False},
    "learned": {"use_learned_positional_embeddings": True},
    "temporal patches": {"patch_size_t": 2},
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def request_of(target: np.ndarray, seed: int = 0) -> Request:
    return Request(target, "a blue bird", seed)


# ----------------------------------------------------------------------------------------------------------------- loss


def slow_debiased(values: torch.Tensor, anchor: list[int]) -> torch.Tensor:
    out = torch.empty_like(values)
    for row in range(values.shape[0]):
        for frame in range(values.shape[1]):
            out[row, frame] = 2**0.5 * values[row, frame] - values[row, anchor[row]]
    return out


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 4), st.data())
def test_debiased_values_equal_the_slow_ones(rows: int, frames: int, data: st.DataObject):
    anchor = data.draw(st.lists(st.integers(0, frames - 1), min_size=rows, max_size=rows))
    values = torch.randn(rows, frames, 2, 3, 1, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    expected = slow_debiased(values, anchor)
    torch.testing.assert_close(appearance_debiased(values, torch.tensor(anchor)), expected)


def test_what_all_frames_share_is_nearly_silent():
    shared = torch.ones(1, 4, 1, 2, 2)
    debiased = appearance_debiased(shared, torch.tensor([2]))
    torch.testing.assert_close(debiased, shared * (math.sqrt(2) - 1))
    moving = torch.zeros(1, 4, 1, 2, 2)
    moving[:, 1] = 1
    assert appearance_debiased(moving, torch.tensor([2])).square().sum() == pytest.approx(8)  # 4 elements, doubled


def slow_loss(backbone: Backbone, batch: Batch, seed: int, debias_weight: float) -> torch.Tensor:
    """The same draws in the same order, then element by element with numpy."""
    generator = torch.Generator().manual_seed(seed)
    abars = backbone.scheduler.alphas_cumprod.double()
    rows, frames = batch.clean.shape[:2]
    timesteps = torch.randint(len(abars), (rows,), generator=generator)
    noise = torch.randn(batch.clean.shape, generator=generator)
    anchors = torch.randint(frames, (rows,), generator=generator).tolist()
    noisy, targets = torch.empty_like(batch.clean), torch.empty_like(batch.clean)
    for row in range(rows):
        signal, spread = float(abars[timesteps[row]]) ** 0.5, float(1 - abars[timesteps[row]]) ** 0.5
        noisy[row] = signal * batch.clean[row] + spread * noise[row]
        targets[row] = {
            "v_prediction": signal * noise[row] - spread * batch.clean[row],
            "epsilon": noise[row],
            "sample": batch.clean[row],
        }[backbone.scheduler.config.prediction_type]
    with torch.no_grad():
        predicted = Denoiser(backbone)(noisy, batch.condition, batch.text, timesteps)
    plain = ((predicted - targets) ** 2).mean()
    difference = slow_debiased(predicted, anchors) - slow_debiased(targets, anchors)
    return plain + debias_weight * (difference**2).mean()


@pytest.mark.parametrize("debias_weight", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_loss_equals_the_slow_one(prediction_type: str, debias_weight: float):
    backbone = tiny_backbone(scheduler_config={"prediction_type": prediction_type})
    clean, condition, text, _ = random_inputs(backbone, batch=3)
    batch = Batch(clean, condition, text)
    generator = torch.Generator().manual_seed(5)
    loss = motion_loss(Denoiser(backbone), backbone.scheduler, batch, generator, debias_weight)
    torch.testing.assert_close(loss, slow_loss(backbone, batch, 5, debias_weight), atol=1e-5, rtol=1e-5)


def test_unknown_prediction_type_is_named():
    backbone = tiny_backbone(scheduler_config={"prediction_type": "flow"})
    clean, condition, text, _ = random_inputs(backbone)
    with pytest.raises(ValueError, match="^prediction_type: "):
        motion_loss(
            Denoiser(backbone), backbone.scheduler, Batch(clean, condition, text), torch.Generator().manual_seed(0), 1.0
        )


# --------------------------------------------------------------------------------------------------------------- stills


@each_form
def test_a_still_has_the_positions_of_the_clip_s_first_frame(form: dict):
    backbone = tiny_backbone(transformer_config=form)
    stills, transformer = replace(backbone, num_frames=1), backbone.transformer
    assert stills.latent_shape[0] == (form.get("patch_size_t") or 1)
    if form.get("use_learned_positional_embeddings"):
        learned = transformer.patch_embed.pos_embedding
        learned.copy_(torch.randn(learned.shape, generator=torch.Generator().manual_seed(0)))
    rotary = rotary_embedding(backbone)
    if rotary is not None:
        for whole, single in zip(rotary, rotary_embedding(stills), strict=True):
            torch.testing.assert_close(single, whole[: stills.num_video_tokens])
    clean, condition, text, _ = random_inputs(backbone)
    inputs, few = torch.cat([clean, condition], dim=2), stills.latent_shape[0]
    whole = transformer.patch_embed(text, inputs)
    own = transformer.patch_embed
    with pytest.raises(KeyError), first_frame_positions(transformer, few):
        single = transformer.patch_embed(text, inputs[:, :few])
        torch.testing.assert_close(single, whole[:, : single.shape[1]])
        raise KeyError("x")
    assert transformer.patch_embed is own
    assert torch.equal(transformer.patch_embed(text, inputs), whole)


def test_still_batches_are_single_frames_with_themselves_as_condition(backbone: Backbone, reference: Video):
    stills = replace(backbone, num_frames=1)
    config = DrawConfig(batch_size=64, image_dropout=0.25, caption_dropout=0.25)
    batch = next(still_batches(stills, reference, "a dog", config, torch.Generator().manual_seed(0)))
    assert batch.clean.shape == batch.condition.shape == (64, *stills.latent_shape)
    kept = batch.condition.flatten(1).abs().sum(1) > 0
    assert 0 < (~kept).sum() < 32
    # A condition is its own frame's: both are samples of one posterior, far nearer each other than other frames.
    distances = torch.cdist(batch.clean[kept].flatten(1), batch.condition[kept].flatten(1))
    assert len(batch.clean.flatten(1).unique(dim=0)) == len(reference.frames)
    own = torch.stack([encode_image(stills, f, torch.Generator().manual_seed(1)) for f in reference.frames])
    assert own.shape[0] == len(batch.condition[kept].flatten(1).unique(dim=0))
    assert distances.diagonal().mean() < distances.mean()
    empty, caption = encode_text(stills, ["", "a dog"])
    dropped = [torch.equal(text, empty) for text in batch.text]
    assert 0 < sum(dropped) < 32 and sum(torch.equal(text, caption) for text in batch.text) == 64 - sum(dropped)


# -------------------------------------------------------------------------------------------------------- the two LoRAs


@each_form
def test_fit_and_transfer_on_every_form_of_the_model(form: dict, reference: Video, target: np.ndarray):
    backbone = tiny_backbone(transformer_config=form)
    method = MotionDirector(backbone, QUICK)
    action = method.fit(reference, "a red dog", seed=0)
    assert len(action) == 2 * 2 * len(TARGETS)  # the temporal LoRA's halves, nothing of the spatial one
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in action.values())
    assert method.transfer(action, request_of(target)).frames.shape == (9, 16, 24, 3)


def test_transfer_equals_the_temporal_product_folded_into_the_weights(reference: Video, target: np.ndarray):
    backbone, folded = tiny_backbone(), tiny_backbone()
    method = MotionDirector(backbone, QUICK.changed(temporal_weight=0.8))
    action = method.fit(reference, "a red dog", seed=0)
    for path in {name.rpartition(".lora_")[0] for name in action}:
        down, up = (action[f"{path}.lora_{half}.weight"] for half in "AB")
        folded.transformer.get_submodule(path).weight.data += 0.8 * up @ down  # alpha = rank
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0}
    expected = sample_video(folded, request_of(target), **settings).frames.astype(int)
    plain = sample_video(backbone, request_of(target), **settings).frames.astype(int)
    frames = method.transfer(action, request_of(target)).frames
    assert np.abs(frames - expected).max() <= 1 < np.abs(frames - plain).max()
    silent = MotionDirector(backbone, QUICK.changed(temporal_weight=0.0))
    np.testing.assert_array_equal(silent.transfer(action, request_of(target)).frames, plain)


def test_animation_adds_the_product_of_a_lora_that_saw_the_target_alone(reference: Video, target: np.ndarray):
    backbone, folded = tiny_backbone(), tiny_backbone()
    method = MotionDirector(backbone, QUICK.changed(animate=True))
    action, request = method.fit(reference, "a red dog", seed=0), request_of(target)
    look = {name: value.clone() for name, value in method._look_of_target(request).state().items()}
    other = method._look_of_target(request_of(255 - target)).state()
    assert any((look[name] != other[name]).any() for name in look)
    for product in (action, look):
        for path in {name.rpartition(".lora_")[0] for name in product}:
            down, up = (product[f"{path}.lora_{half}.weight"] for half in "AB")
            folded.transformer.get_submodule(path).weight.data += up @ down
    expected = sample_video(folded, request, num_inference_steps=4, guidance_scale=3.0).frames.astype(int)
    plain = MotionDirector(backbone, QUICK).transfer(action, request).frames.astype(int)
    frames = method.transfer(action, request).frames
    assert np.abs(frames - expected).max() <= 1 < np.abs(frames - plain).max()


def test_spatial_lora_is_attached_and_frozen_while_the_temporal_one_learns(
    backbone: Backbone, reference: Video, monkeypatch: pytest.MonkeyPatch
):
    learned, seen = [], []
    own = motion_director.optimise

    def spy(parameters, batches, loss_of, plan, *, label, generator):
        layer = backbone.transformer.transformer_blocks[1].ff.net[2]
        depth = 0
        while hasattr(layer, "base_layer"):
            layer, depth = layer.base_layer, depth + 1
        earlier = [p.clone() for p in learned[0]] if learned else []
        assert not any(p.requires_grad for p in (learned[0] if learned else []))
        assert all(p.requires_grad for p in parameters)
        own(parameters, batches, loss_of, plan, label=label, generator=generator)
        assert all(torch.equal(a, b) for a, b in zip(earlier, learned[0] if learned else [], strict=True))
        assert any(p.abs().max() > 0 for p in parameters[1::2])  # the up halves have left zero
        seen.append((label, depth, plan.steps, plan.betas, len(next(batches).clean[0])))
        learned.append(list(parameters))

    monkeypatch.setattr(motion_director, "optimise", spy)
    MotionDirector(backbone, QUICK).fit(reference, "a red dog", seed=0)
    assert seen == [
        ("spatial LoRA", 1, QUICK.fit.spatial_steps, (0.9, 0.999), 1),
        ("temporal LoRA", 2, QUICK.fit.temporal_steps, (0.9, 0.999), backbone.latent_shape[0]),
    ]
    assert not {id(p) for p in learned[0]} & {id(p) for p in learned[1]}


def test_temporal_lora_learns_the_clip(backbone: Backbone, reference: Video, monkeypatch: pytest.MonkeyPatch):
    losses = {}
    own = motion_director.optimise

    def spy(*args, label, **more):
        losses[label] = own(*args, label=label, **more)

    monkeypatch.setattr(motion_director, "optimise", spy)
    config = QUICK.changed(temporal_steps=60, batch_size=4)
    MotionDirector(backbone, config).fit(reference, "a red dog", seed=0)
    found = losses["temporal LoRA"]
    assert np.mean(found[-10:]) < 0.9 * np.mean(found[:10])


def test_refadapter_is_heard_at_transfer_alone(backbone: Backbone, reference: Video, target: np.ndarray):
    plain, adapted = (MotionDirector(backbone, QUICK.changed(refadapter_weight=weight)) for weight in (0.0, 0.7))
    assert plain.fit_config() == adapted.fit_config() and plain.transfer_config() != adapted.transfer_config()
    action = plain.fit(reference, "a red dog", seed=0)
    assert all(torch.equal(action[name], t) for name, t in adapted.fit(reference, "a red dog", seed=0).items())
    frames = [method.transfer(action, request_of(target)).frames for method in (plain, adapted)]
    assert (frames[0] != frames[1]).any()
    with pytest.raises(ValueError, match="^refadapter_weight: "):
        MotionDirector(tiny_backbone(), QUICK.changed(refadapter_weight=0.7))


def test_loras_are_full_precision_on_a_half_precision_model(reference: Video, target: np.ndarray):
    method = MotionDirector(tiny_backbone(dtype=torch.bfloat16), QUICK)
    action = method.fit(reference, "a red dog", seed=0)
    assert any(not torch.equal(t, t.bfloat16().float()) for t in action.values())
    assert method.transfer(action, request_of(target)).frames.shape == (9, 16, 24, 3)


# -------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("spatial_steps", 0),
        ("temporal_steps", 1.5),
        ("batch_size", 0),
        ("num_inference_steps", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -1.0),
        ("debias_weight", math.inf),
        ("image_dropout", 1.5),
        ("caption_dropout", -0.1),
        ("temporal_weight", math.nan),
        ("refadapter_weight", math.inf),
        ("guidance_scale", math.nan),
    ],
)
def test_bad_numbers_are_named(field: str, value: float):
    with pytest.raises(ValueError, match=f"^{field}: "):
        PAPER.changed(**{field: value})


def test_presets(backbone: Backbone):
    paper = PRESETS["paper"].fit
    assert (paper.rank, paper.spatial_steps, paper.temporal_steps, paper.learning_rate) == (32, 300, 3000, 5e-4)
    others = backbone, replace(backbone, name="puppets")
    assert all(MotionDirector.preset(other) == PRESETS["puppets"] for other in others)


@pytest.mark.parametrize("action", [None, {"x": 1}, {}, {"x": torch.zeros(1)}])
def test_other_actions_are_named(backbone: Backbone, target: np.ndarray, action: object):
    with pytest.raises(ValueError, match="^action: "):
        MotionDirector(backbone, QUICK).transfer(action, request_of(target))


def test_reference_and_caption_are_checked(backbone: Backbone, reference: Video):
    method = MotionDirector(backbone, QUICK)
    with pytest.raises(ValueError, match="^caption: "):
        method.fit(reference, None, seed=0)
    with pytest.raises(ValueError, match="^reference: "):
        method.fit(Video(random_frames(0, 8), 8.0), "a dog", seed=0)
