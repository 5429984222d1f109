"""What is compared: every comparison at tiny size, with equal numbers where rivals have to agree."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.speed import command as speed
from benchmark.speed import price as speed_price
from benchmark.speed.attention import AttentionShape, as_released, attention, dense_attention
from benchmark.speed.comparison import Comparison, measure
from benchmark.speed.models import Architecture, five_b, large_gpu, random_backbone
from benchmark.speed.timing import Variant
from benchmark.speed.whole import PROMPT, encoding_batches, fit, fused, step, transfer
from flexiact.backbone.attention import biased_attention
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_text
from flexiact.backbone.specs import BACKBONES
from tests.support.backbones import WORDS, random_frames, tiny_tokenizer, tiny_transformer, tiny_vae
from tests.support.harness import CASES, QUICK, quick_flexiact, small_perception

CPU = torch.device("cpu")
SHAPE = AttentionShape(heads=2, width=8, text=3, video=11, extra=4, batch=2, dtype=torch.float32)


@pytest.fixture
def tiny(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The tiny backbone with settings that fit in a moment."""
    quick_flexiact(monkeypatch)
    return backbone


def comparison(name: str, backbone: Backbone) -> Comparison:
    if name == "attention":
        return attention(SHAPE, CPU)
    if name == "price":
        return speed_price.price(backbone, {case.case_id: case for case in CASES}, small_perception(), "eager")
    return {"step": step, "transfer": transfer, "fit": fit}[name](backbone)


def run_of(found: Comparison, name: str):
    """What a variant computes."""
    with torch.no_grad(), found.variants[name].around():
        return found.variants[name].run()


@pytest.mark.parametrize("name", speed.COMPARISONS)
def test_every_comparison_gives_finite_figures_above_zero(name: str, tiny: Backbone) -> None:
    found = measure(comparison(name, tiny), CPU, repeats=2)
    assert len(found["variants"]) >= 2 and found["rivals"] and set(found["rivals"]) <= set(found["variants"])
    for way, variant in found["variants"].items():
        assert variant["peak_gib"] is None and len(variant["rounds_s"]) == 2
        assert set(variant["ratios"]) == set(found["rivals"]) - {way}
        numbers = [value for entry in (variant["seconds"], *variant["ratios"].values()) for value in entry.values()]
        assert all(math.isfinite(value) and value > 0 for value in [*numbers, *variant["rounds_s"]])
        assert all(math.isfinite(value) for value in variant["figures"].values())


def test_every_form_of_the_attention_gives_the_same_numbers() -> None:
    found = attention(SHAPE, CPU)
    expected = run_of(found, "ours: by rule")
    for name in ("ours: one more channel", "ours: mask"):
        torch.testing.assert_close(run_of(found, name), expected, atol=1e-5, rtol=0)
    released = run_of(found, "dense mask, as released")
    own = torch.cat([released[:, :, : SHAPE.text], released[:, :, SHAPE.text + SHAPE.extra :]], dim=2)
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)
    assert (run_of(found, "no bias") - expected)[:, :, SHAPE.text :].abs().max() > 1e-3


@pytest.mark.parametrize("bias", [0.0, 0.331, 2.0])
def test_dense_mask_equals_the_biased_form_whatever_extra_tokens_ask(bias: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 18, 8, generator=generator, dtype=torch.float64)
    ours = biased_attention(query[:, :, :14], key, value, 3, 4, bias)
    whole = dense_attention(*(as_released(states, 3, 4) for states in (query, key, value)), 3, 4, bias)
    torch.testing.assert_close(torch.cat([whole[:, :, :3], whole[:, :, 7:]], dim=2), ours, atol=1e-12, rtol=0)


def test_our_loop_gives_the_frames_of_the_stock_pipeline(tiny: Backbone) -> None:
    found = transfer(tiny)
    stock = (run_of(found, "diffusers' pipeline") * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(run_of(found, "our loop").frames, stock)
    assert (run_of(found, "our loop, FlexiAct").frames != stock).any()


def test_a_step_computes_what_its_variants_are_named_after_and_leaves_no_trace(tiny: Backbone) -> None:
    before = {name: weight.clone() for name, weight in tiny.transformer.state_dict().items()}
    processors = dict(tiny.transformer.attn_processors)
    found = step(tiny)
    results = {name: run_of(found, name) for name in found.variants}
    torch.testing.assert_close(results["with both, RefAdapter merged"], results["with both"], atol=1e-3, rtol=1e-3)
    names = ["transformer alone", "with the embedding", "with RefAdapter", "with both"]
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            assert (results[one] - results[other]).abs().max() > 2e-3
    after = tiny.transformer.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert dict(tiny.transformer.attn_processors) == processors


def test_merged_weights_are_in_a_copy_without_layers_of_the_adapter(tiny: Backbone) -> None:
    merged = fused(tiny, 0.7)
    own = dict(tiny.transformer.named_parameters())
    changed = {name for name, weight in merged.named_parameters() if not torch.equal(weight, own[name])}
    assert {name.rpartition("attn1.")[2] for name in changed} == {f"to_{x}.weight" for x in ("q", "k", "v", "out.0")}
    assert list(dict(merged.named_modules())) == list(dict(tiny.transformer.named_modules()))


def test_batches_that_are_encoded_anew_are_like_those_of_the_fit(tiny: Backbone) -> None:
    config = replace(QUICK.fit, batch_size=3)
    batches = encoding_batches(tiny, random_frames(1), PROMPT, config, torch.Generator().manual_seed(0))
    batch = next(batches)
    assert batch.clean.shape == batch.condition.shape == (3, *tiny.latent_shape)
    assert torch.equal(batch.text, encode_text(tiny, [PROMPT] * 3))
    assert not batch.condition[:, 1:].any() and batch.condition[:, 0].any()
    assert not torch.equal(next(batches).clean, batch.clean)


def test_a_fit_step_has_a_loss_and_thaws(tiny: Backbone) -> None:
    tiny.transformer.requires_grad_(True)
    found = fit(tiny)
    losses = {name: run_of(found, name) for name in found.variants}
    assert all(len(loss) == 1 and math.isfinite(loss[0]) for loss in losses.values())
    assert all(weight.requires_grad and weight.grad is None for weight in tiny.transformer.parameters())


def test_steps_are_halved_and_quartered_and_compiled_blocks_keep_the_numbers(tiny: Backbone) -> None:
    found = comparison("price", tiny)
    assert list(found.variants) == ["4 steps", "2 steps", "1 step", "4 steps, compiled"] and found.left_out == {}
    quick, plain = run_of(found, "4 steps, compiled").frames, run_of(found, "4 steps").frames
    assert np.abs(quick.astype(int) - plain).max() <= 1
    assert (plain != run_of(found, "2 steps").frames).any()
    assert all(block._compiled_call_impl is None for block in tiny.transformer.transformer_blocks)
    assert set(found.figures["4 steps, compiled"]) == {
        "motion_agreement_centred",
        "true_appearance_error",
        "first_video_s",
    }


def test_a_compiler_that_does_not_work_is_left_out_with_the_reason(tiny: Backbone) -> None:
    found = speed_price.price(tiny, {CASES[0].case_id: CASES[0]}, small_perception(), "nobody's")
    assert list(found.variants) == ["4 steps", "2 steps", "1 step"]
    assert "nobody's" in found.left_out["4 steps, compiled"]


def test_reasons_name_no_folders() -> None:
    text = "OSError: no '/some/where/a.cpp', 3.5 s/step, gcc at /usr/bin/g++"
    assert speed_price.without_paths(text) == "OSError: no 'a.cpp', 3.5 s/step, gcc at g++"


def test_what_has_no_room_is_left_out() -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("tried to allocate 58 GiB")

    variants = {"large": Variant(full), "small": Variant(lambda: None)}
    found = measure(Comparison("t", "s", variants, ("large", "small")), CPU, repeats=1)
    assert set(found["variants"]) == {"small"} and found["left_out"] == {"large": "out of memory"}
    assert found["rivals"] == ["small"]


def test_a_model_of_noise_runs_through_the_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_flexiact(monkeypatch)
    config = {key: value for key, value in tiny_transformer().config.items() if not key.startswith("_")}
    vae = {key: value for key, value in tiny_vae().config.items() if not key.startswith("_")}
    words = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    settings = {"num_frames": 9, "height": 16, "width": 24, "fps": 8.0, "max_text_tokens": 6}
    settings |= {"num_inference_steps": 2, "guidance_scale": 3.0}
    sizes = Architecture(settings, config, vae, words, name="tiny", rank=2, alpha=2.0)
    model = random_backbone(sizes, tiny_tokenizer(), CPU, torch.bfloat16, tmp_path)
    assert {weight.dtype for weight in model.transformer.parameters()} == {torch.bfloat16}
    assert not large_gpu(model.device) and model.tiled_decode
    for build in (step, transfer, fit):
        found = measure(build(model), CPU, repeats=1)
        assert not found["left_out"] and len(found["variants"]) == len(build(model).variants)


def test_the_large_architecture_is_that_of_the_published_model() -> None:
    sizes = five_b()
    assert sizes.settings == BACKBONES["cogvideox-5b-i2v"].settings
    heads, width = sizes.transformer["num_attention_heads"], sizes.transformer["attention_head_dim"]
    assert (sizes.transformer["num_layers"], heads * width) == (42, 3072)
    # Both halves on four layers a block: the 66.06 M parameters of the paper's RefAdapter.
    assert 42 * 4 * 2 * sizes.rank * heads * width == 66_060_288
    assert five_b(1).text_encoder["num_layers"] == 1
