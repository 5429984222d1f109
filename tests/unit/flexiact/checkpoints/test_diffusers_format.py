"""The method inside diffusers' own pipeline gives the numbers of our loop, and leaves the pipeline as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.checkpoints.stock_pipeline import attached, export_lora
from flexiact.embedding import ACTION_KEY, FrequencySchedule
from flexiact.method import FlexiAct, FlexiActConfig
from flexiact.refadapter import CONFIG_FILE, PREFIX, WEIGHTS_FILE, RefAdapter
from flexiact.task import Action, Request
from tests.support.backbones import decoding_as_we_do, random_frames, save_tiny_refadapter, tiny_backbone

SCHEDULE = FrequencySchedule(alpha=2.0, low=300, high=700)


def pipeline(backbone: Backbone) -> CogVideoXImageToVideoPipeline:
    pipe = CogVideoXImageToVideoPipeline(
        backbone.tokenizer, backbone.text_encoder, backbone.vae, backbone.transformer, backbone.scheduler
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: CogVideoXImageToVideoPipeline, backbone: Backbone, request: Request, **arguments: Any) -> np.ndarray:
    frames = pipe(
        image=Image.fromarray(request.target),
        prompt=request.prompt,
        height=backbone.height,
        width=backbone.width,
        num_frames=backbone.num_frames,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(request.seed),
        max_sequence_length=backbone.max_text_tokens,
        **arguments,
    ).frames[0]
    return np.stack([np.asarray(frame) for frame in frames])


def some_action(backbone: Backbone, seed: int = 0) -> Action:
    config = backbone.transformer.config
    shape = config.num_layers, 3, config.num_attention_heads * config.attention_head_dim
    return {ACTION_KEY: torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


def ours(backbone: Backbone, action: Action, request: Request, weight: float | None = 0.7) -> np.ndarray:
    config = FlexiActConfig().changed(
        schedule=SCHEDULE, refadapter_weight=weight, num_inference_steps=4, guidance_scale=3.0
    )
    return FlexiAct(backbone, config).transfer(action, request).frames


def make(kind: str, tmp_path: Path) -> Backbone:
    if kind == "puppets":
        return load_backbone("puppets")
    folder = save_tiny_refadapter(tmp_path / "tiny", tiny_backbone())
    return tiny_backbone(scheduler=kind, refadapter=folder)


@pytest.mark.parametrize("kind", ["ddim", "dpm", "puppets"])
def test_the_stock_pipeline_gives_our_numbers(kind: str, tmp_path: Path) -> None:
    backbone = make(kind, tmp_path)
    request = Request(random_frames(3, 1, backbone.height, backbone.width)[0], "a blue dog jumps", 5)
    action = some_action(backbone)
    expected, without_adapter = ours(backbone, action, request), ours(backbone, action, request, None)
    assert (expected != without_adapter).any()

    pipe = decoding_as_we_do(pipeline(backbone))
    plain = call(pipe, backbone, request)
    with attached(pipe, action, SCHEDULE):
        np.testing.assert_array_equal(call(pipe, backbone, request), without_adapter)
    pipe.load_lora_weights(export_lora(backbone.refadapter, tmp_path / "lora.safetensors"), adapter_name="refadapter")
    pipe.set_adapters("refadapter", 0.7)
    with attached(pipe, action, SCHEDULE):
        np.testing.assert_array_equal(call(pipe, backbone, request), expected)
    pipe.unload_lora_weights()
    np.testing.assert_array_equal(call(pipe, backbone, request), plain)


@pytest.mark.parametrize("kind", ["plain", "rslora", "names", "mark"])
def test_an_exported_refadapter_has_the_strength_that_it_has_here(kind: str, tmp_path: Path) -> None:
    backbone = make("ddim", tmp_path)
    config, weights = backbone.refadapter / CONFIG_FILE, backbone.refadapter / WEIGHTS_FILE
    if kind == "rslora":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True, "lora_alpha": 3}))
    elif kind == "mark":
        config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    elif kind == "names":
        state = load_file(weights).items()
        save_file({n.replace(PREFIX, "transformer.").replace(".weight", ".style.weight"): t for n, t in state}, weights)
    with RefAdapter.load(backbone.refadapter, backbone.transformer).attached(1.0):
        ours = backbone.transformer.transformer_blocks[1].attn1.to_v
        expected = ours.scaling["refadapter"], ours.lora_B["refadapter"].weight.clone()
    pipe = pipeline(backbone)
    pipe.load_lora_weights(export_lora(backbone.refadapter, tmp_path / "lora.safetensors"), adapter_name="theirs")
    theirs = backbone.transformer.transformer_blocks[1].attn1.to_v
    assert theirs.scaling["theirs"] == pytest.approx(expected[0])
    assert torch.equal(theirs.lora_B["theirs"].weight, expected[1])


@pytest.mark.parametrize(
    "setting", [{"use_dora": True}, {"alpha_pattern": {"to_q": 8}}, {"rank_pattern": {"to_q": 8}}, []]
)
def test_what_refadapter_lacks_is_not_exported(setting: Any, tmp_path: Path) -> None:
    config = make("ddim", tmp_path).refadapter / CONFIG_FILE
    config.write_text(json.dumps(json.loads(config.read_text()) | setting if setting else setting))
    with pytest.raises(ValueError, match="refadapter: .*(is not supported|holds no JSON object)"):
        export_lora(config.parent, tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()


def test_attached_leaves_no_trace_and_keeps_other_attention_kwargs(tmp_path: Path) -> None:
    backbone = make("ddim", tmp_path)
    pipe, request = pipeline(backbone), Request(random_frames(3)[0], "a dog", 5)
    before = [block.attn1.processor for block in backbone.transformer.transformer_blocks]
    with pytest.raises(RuntimeError), attached(pipe, some_action(backbone), SCHEDULE):
        raise RuntimeError
    assert not backbone.transformer._forward_pre_hooks and not backbone.transformer._forward_pre_hooks_with_kwargs
    assert [block.attn1.processor for block in backbone.transformer.transformer_blocks] == before

    pipe.load_lora_weights(export_lora(backbone.refadapter, tmp_path / "lora.safetensors"))
    with attached(pipe, some_action(backbone), SCHEDULE):
        full, half = (call(pipe, backbone, request, attention_kwargs={"scale": scale}) for scale in (1.0, 0.5))
    pipe.unload_lora_weights()
    assert (full != half).any()
    np.testing.assert_array_equal(half, ours(backbone, some_action(backbone), request, 0.5))


def test_the_bias_follows_the_schedule_and_none_means_zero(tmp_path: Path) -> None:
    backbone = make("ddim", tmp_path)
    pipe, request, action = pipeline(backbone), Request(random_frames(3)[0], "a dog", 5), some_action(backbone)

    def frames(schedule: FrequencySchedule | None) -> np.ndarray:
        with attached(pipe, action, schedule):
            return call(pipe, backbone, request)

    np.testing.assert_array_equal(frames(None), frames(FrequencySchedule(alpha=0.0)))
    assert (frames(None) != frames(SCHEDULE)).any()
    assert (frames(FrequencySchedule(2.0, 900, 900, "hard")) != frames(FrequencySchedule(2.0, shape="constant"))).any()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    pipe = pipeline(make("ddim", tmp_path))
    wrong = {"other": torch.zeros(1)}, {ACTION_KEY: torch.zeros(2, 3, 5)}
    for action in wrong:
        with pytest.raises(ValueError, match="^action"), attached(pipe, action, None):
            pass
    with pytest.raises(ValueError, match="^refadapter: cannot be read from"):
        export_lora(tmp_path / "missing", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="^file: "):
        export_lora(tmp_path / "tiny", tmp_path / "a.bin")
    assert not list(tmp_path.glob("a.*"))
