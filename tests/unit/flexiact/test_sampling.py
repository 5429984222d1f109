"""The denoising loop against diffusers' own pipeline, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from PIL import Image

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import clean_latent, decode_latents, encode_image, encode_text, encode_video
from flexiact.sampling import Sampler, Step, denoise, rotary_embedding, sample_video
from flexiact.task import Request
from tests.support.backbones import HEIGHT, WIDTH, random_frames, tiny_backbone, tiny_transformer

MODELS = {
    "ddim": {"scheduler": "ddim"},
    "dpm": {"scheduler": "dpm"},
    "leading-steps": {"scheduler": "ddim", "scheduler_config": {"timestep_spacing": "leading"}},
    "no-rotary": {"transformer_config": {"use_rotary_positional_embeddings": False}},
    "larger-base-grid": {"transformer_config": {"sample_height": 8, "sample_width": 10}},
    "half-precision": {"scheduler": "dpm", "dtype": torch.bfloat16},
    "temporal-patches": {"transformer_config": {"patch_size_t": 2, "ofs_embed_dim": 8}},
}


def stock_pipeline(backbone: Backbone) -> CogVideoXImageToVideoPipeline:
    pipeline = CogVideoXImageToVideoPipeline(
        backbone.tokenizer, backbone.text_encoder, backbone.vae, backbone.transformer, backbone.scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize("model", MODELS)
def test_equals_the_stock_pipeline(model: str, guidance_scale: float):
    backbone = tiny_backbone(**MODELS[model])
    target = random_frames(0, 1)[0]
    request = Request(target, "a red dog waves", 5)
    stock = {
        "image": Image.fromarray(target),
        "prompt": request.prompt,
        "height": HEIGHT,
        "width": WIDTH,
        "num_frames": backbone.num_frames,
        "num_inference_steps": 4,
        "guidance_scale": guidance_scale,
        "max_sequence_length": backbone.max_text_tokens,
    }
    pipeline = stock_pipeline(backbone)

    generator = torch.Generator().manual_seed(5)
    condition = encode_image(backbone, target, generator)
    text = encode_text(backbone, ["", request.prompt] if guidance_scale > 1 else [request.prompt])
    ours = denoise(backbone, text, condition, Sampler(4, guidance_scale), generator)
    theirs = pipeline(**stock, generator=torch.Generator().manual_seed(5), output_type="latent").frames
    assert torch.equal(ours, theirs)

    video = sample_video(backbone, request, num_inference_steps=4, guidance_scale=guidance_scale)
    frames = pipeline(**stock, generator=torch.Generator().manual_seed(5), output_type="pil").frames[0]
    np.testing.assert_array_equal(video.frames, np.stack([np.asarray(frame) for frame in frames]))
    assert video.fps == backbone.fps and video.frames.std() > 1


def test_inverted_scale_of_conditions_follows_the_pipeline():
    backbone = tiny_backbone()
    image = random_frames(0, 1)[0]
    plain = encode_image(backbone, image, torch.Generator().manual_seed(0))
    backbone.vae.register_to_config(invert_scale_latents=True)
    inverted = encode_image(backbone, image, torch.Generator().manual_seed(0))
    scale = backbone.vae.config.scaling_factor
    torch.testing.assert_close(inverted * scale**2, plain)
    torch.testing.assert_close(clean_latent(backbone, inverted), plain[:, :1])


def test_conditions_are_the_image_then_zeros():
    backbone = tiny_backbone()
    frames = random_frames(0)
    condition = encode_image(backbone, frames[0], torch.Generator().manual_seed(0))
    alone = encode_video(backbone, frames[:1], torch.Generator().manual_seed(0))
    assert condition.shape == (1, *backbone.latent_shape)
    assert torch.equal(condition[:, :1], alone) and not condition[:, 1:].any()


def test_latents_and_frames_have_the_model_s_shapes():
    for overrides in ({}, {"patch_size_t": 2}):
        backbone = tiny_backbone(transformer_config=overrides)
        latents = encode_video(backbone, random_frames(0), torch.Generator().manual_seed(0))
        assert latents.shape == (1, *backbone.latent_shape)
        assert decode_latents(backbone, latents).shape == (1, 9, HEIGHT, WIDTH, 3)


def test_rotary_positions_cover_video_tokens():
    for overrides in ({}, {"patch_size_t": 2}):
        backbone = tiny_backbone(transformer_config=overrides)
        cosines, sines = rotary_embedding(backbone)
        assert cosines.shape == sines.shape == (backbone.num_video_tokens, 16)


def test_scheduler_and_global_generator_stay_as_they_were():
    backbone = tiny_backbone(scheduler="dpm")
    scheduler, state = dict(vars(backbone.scheduler)), torch.random.get_rng_state()
    sample_video(backbone, Request(random_frames(0)[0], "a dog", 0), num_inference_steps=2, guidance_scale=6.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert vars(backbone.scheduler) == scheduler


def test_step_kwargs_are_asked_for_every_timestep():
    backbone = tiny_backbone()
    seen: list[int] = []

    def step_kwargs(timestep: int) -> None:
        seen.append(timestep)

    request = Request(random_frames(0)[0], "a dog", 0)
    sample_video(backbone, request, num_inference_steps=4, guidance_scale=6.0, step_kwargs=step_kwargs)
    assert seen == [999, 749, 499, 249]


def test_a_guide_sees_every_step_and_what_it_changes_is_used():
    backbone = tiny_backbone()
    request = Request(random_frames(0)[0], "a dog", 0)
    seen: list[Step] = []

    def watch(step: Step) -> Step:
        seen.append(step)
        return step

    def video(guide=None) -> np.ndarray:
        return sample_video(backbone, request, num_inference_steps=4, guidance_scale=6.0, guide=guide).frames

    plain = video()
    np.testing.assert_array_equal(plain, video(watch))
    assert [(step.index, step.timestep) for step in seen] == [(0, 999), (1, 749), (2, 499), (3, 249)]
    assert all(step.latents.shape == (1, *backbone.latent_shape) and len(step.text) == 2 for step in seen)
    # Latents taken from another step lead on from there; positions reversed in the first step alone show as well.
    final = video(lambda step: replace(step, latents=seen[3].latents) if step.index == 3 else step)
    np.testing.assert_array_equal(plain, final)
    other = video(lambda step: replace(step, latents=-step.latents) if step.index == 0 else step)
    assert (other != plain).any()
    turned = tuple(states.flip(0) for states in rotary_embedding(backbone))
    assert (video(lambda step: replace(step, rotary=turned) if step.index == 0 else step) != plain).any()


def test_bad_input_names_the_field():
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="target: expected 16x24"):
        request = Request(random_frames(0, 1, 24, 16)[0], "a dog", 0)
        sample_video(backbone, request, num_inference_steps=2, guidance_scale=1.0)
    backbone.transformer.proj_out.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="backbone"):
        request = Request(random_frames(0)[0], "a dog", 0)
        sample_video(backbone, request, num_inference_steps=2, guidance_scale=1.0)


def test_text_longer_than_the_model_takes_is_cut():
    backbone = tiny_backbone()
    assert torch.equal(
        encode_text(backbone, ["a red dog jumps on the grass a a"]), encode_text(backbone, ["a red dog jumps on the"])
    )
    assert tiny_transformer().config.max_text_seq_length == encode_text(backbone, [""]).shape[1]
