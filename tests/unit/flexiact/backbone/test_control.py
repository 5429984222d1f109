"""Control latents on channels: against diffusers' own control pipeline, and no trace of them afterwards."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXFunControlPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.backbone.codec import encode_control, encode_text, encode_video
from flexiact.backbone.control import PROJECTION, Control, load_control, save_control, widened
from flexiact.backbone.loading import BackboneError
from flexiact.sampling import Denoiser, Sampler, denoise
from tests.support.backbones import NO_CONTENT, random_frames, save_tiny_control, tiny_backbone, tiny_transformer

FORMS = {
    "5b": {},
    "2b": {"use_rotary_positional_embeddings": False},
    "1.5": {"patch_size_t": 2, "ofs_embed_dim": 8},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def inputs(backbone: Backbone) -> tuple[torch.Tensor, ...]:
    """Noisy and condition latents, text, timestep."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, *backbone.latent_shape)
    noisy, condition = (torch.randn(shape, generator=generator) for _ in range(2))
    return noisy, condition, encode_text(backbone, ["", "a dog"]), torch.tensor([500, 500])


@every_form
def test_a_widened_transformer_predicts_what_the_original_does(form: dict) -> None:
    backbone = tiny_backbone(transformer_config=form)
    wide = widened(backbone.transformer)
    noisy, condition, text, timestep = inputs(backbone)
    control = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = Denoiser(backbone)(noisy, condition, text, timestep)
        after = Denoiser(replace(backbone, transformer=wide))(noisy, torch.cat([condition, control], 2), text, timestep)
    torch.testing.assert_close(before, after)
    assert wide.config.in_channels == 12 and backbone.transformer.config.in_channels == 8


@every_form
def test_attached_equals_the_wide_transformer_that_was_saved(form: dict, tmp_path: Path) -> None:
    backbone = tiny_backbone(transformer_config=form)
    control = Control.load(save_tiny_control(tmp_path, backbone), backbone)
    wide = widened(backbone.transformer)
    wide.load_state_dict({n: t.float() for n, t in load_file(tmp_path / "model.safetensors").items()}, strict=False)
    noisy, condition, text, timestep = inputs(backbone)
    latents = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = Denoiser(replace(backbone, transformer=wide))(
            noisy, torch.cat([condition, latents], 2), text, timestep
        )
        with control.attached(latents):
            found = Denoiser(backbone)(noisy, condition, text, timestep)
        plain = Denoiser(backbone)(noisy, condition, text, timestep)
    torch.testing.assert_close(found, expected)
    assert (found - plain).abs().max() > 0.01


def test_with_the_image_left_out_it_is_diffusers_fun_control_pipeline() -> None:
    backbone = tiny_backbone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fun = tiny_transformer().eval().requires_grad_(False)
    fun.load_state_dict(backbone.transformer.state_dict())
    weight = backbone.transformer.state_dict()[PROJECTION]
    noisy, other = weight.chunk(2, 1)
    frames = random_frames(4)
    pipeline = CogVideoXFunControlPipeline(
        tokenizer=backbone.tokenizer,
        text_encoder=backbone.text_encoder,
        vae=backbone.vae,
        transformer=fun,
        scheduler=type(backbone.scheduler).from_config(backbone.scheduler.config),
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a dog",
        control_video=[Image.fromarray(frame) for frame in frames],
        height=backbone.height,
        width=backbone.width,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        max_sequence_length=backbone.max_text_tokens,
        output_type="latent",
    ).frames
    control = Control(backbone, {PROJECTION: torch.cat([noisy, torch.zeros_like(noisy), other], 1)})
    anything = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(2))
    with control.attached(encode_control(backbone, frames)):
        text = encode_text(backbone, ["", "a dog"])
        ours = denoise(backbone, text, anything, Sampler(4, 3.0), torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@every_form
def test_control_latents_are_the_posterior_s_mode_and_padded_as_clips_are(form: dict) -> None:
    backbone = tiny_backbone(transformer_config=form)
    frames = random_frames(0)
    latents = encode_control(backbone, frames)
    assert torch.equal(latents, encode_control(backbone, frames))
    draws = torch.cat([encode_video(backbone, frames, torch.Generator().manual_seed(i)) for i in range(64)])
    assert latents.shape == (1, *backbone.latent_shape) == (1, *draws.shape[1:])
    spread = draws.std(0).clamp_min(1e-6)
    assert ((draws.mean(0) - latents[0]).abs() / spread).max() < 1  # 5.5 of its own standard errors are 0.7


@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left(fails: bool, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    transformer = backbone.transformer
    control = Control.load(save_tiny_control(tmp_path, backbone), backbone)

    def state() -> list[object]:
        own = [(n, id(p), p.requires_grad, p.data.numpy().tobytes()) for n, p in transformer.named_parameters()]
        return [own, [(n, id(m), sorted(vars(m))) for n, m in transformer.named_modules()]]

    before = state()
    try:
        with control.attached(torch.zeros(1, *backbone.latent_shape)):
            assert state() != before
            if fails:
                raise InterruptedError
    except InterruptedError:
        pass
    assert state() == before


def test_only_what_differs_is_stored_in_half_precision(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    save_tiny_control(tmp_path, backbone)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) == {PROJECTION, "transformer_blocks.0.attn1.to_q.weight"}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    save_control(tmp_path / "whole", widened(backbone.transformer), backbone)
    assert set(load_file(tmp_path / "whole" / "model.safetensors")) == {PROJECTION}


DAMAGE: dict[str, tuple[Callable[[dict], dict], str]] = {
    "missing": (lambda w: {n: t for n, t in w.items() if n != PROJECTION}, f"{PROJECTION} is missing"),
    "fun": (lambda w: {**w, PROJECTION: w[PROJECTION][:, :8].contiguous()}, "takes two inputs"),
    "shape": (lambda w: {**w, PROJECTION: w[PROJECTION][1:].contiguous()}, "expected shape"),
    "unknown": (lambda w: {**w, "x.y": torch.zeros(1)}, "made for another transformer"),
    "nan": (lambda w: {**w, PROJECTION: w[PROJECTION] * torch.nan}, "not finite"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_named(damage: str, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    save_tiny_control(tmp_path, backbone)
    change, message = DAMAGE[damage]
    save_file(change(load_file(tmp_path / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"control: .*{message}"):
        Control.load(tmp_path, backbone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_fewer_bits_are_read_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    file = save_tiny_control(tmp_path, backbone) / "model.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(stored, file)
    found = Control.load(tmp_path, backbone)._weights
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in stored.items())
    save_file({PROJECTION: stored[PROJECTION].float().log().to(dtype)}, file)
    with pytest.raises(ValueError, match=f"control: {PROJECTION} holds values that are not finite"):
        Control.load(tmp_path, backbone)


@pytest.mark.parametrize("file", ["control.json", "model.safetensors"])
@pytest.mark.parametrize(("content", "says"), list(NO_CONTENT.items()))
def test_files_without_their_content_say_so(file: str, content: bytes, says: str, tmp_path: Path) -> None:
    backbone = tiny_backbone()
    (save_tiny_control(tmp_path, backbone) / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"control: .*{file} {says}") as caught:
        Control.load(tmp_path, backbone)
    assert "\n" not in str(caught.value)


def test_weights_of_another_revision_or_drawing_and_no_weights_are_said_in_one_line(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match=r"control: backbone tiny has no control weights .*puppets.train control"):
        load_control(backbone)
    with pytest.raises(ValueError, match="control: cannot be read"):
        Control.load(tmp_path, backbone)
    save_tiny_control(tmp_path, backbone)
    with pytest.raises(ValueError, match="was trained on revision seed-0 of the backbone, this is seed-1; train it"):
        load_control(tiny_backbone(seed=1, control=tmp_path))
    about = json.loads((tmp_path / "control.json").read_text())
    (tmp_path / "control.json").write_text(json.dumps(about | {"drawing_version": 0}))
    with pytest.raises(ValueError, match="drawn as version 0"):
        Control.load(tmp_path, backbone)


def test_a_backbone_carries_control_weights_as_it_carries_a_refadapter(tmp_path: Path) -> None:
    shipped = load_backbone("puppets")
    assert shipped.control is None or shipped.control.is_dir()
    assert load_backbone("puppets", control=tmp_path).control == tmp_path
    with pytest.raises(BackboneError, match="control: no folder"):
        load_backbone("puppets", control=tmp_path / "none")


def test_control_frames_reach_the_prediction(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    control = Control.load(save_tiny_control(tmp_path, backbone), backbone)
    noisy, condition, text, timestep = inputs(backbone)
    answers = []
    for frames in (random_frames(1), random_frames(2)):
        with torch.no_grad(), control.attached(encode_control(backbone, frames)):  # one clip for both rows
            answers.append(Denoiser(backbone)(noisy, condition, text, timestep).numpy())
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
