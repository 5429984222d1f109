"""Losses against their formulas, crops, batches, and the loop."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiact import batches as batches_module
from flexiact import training
from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_text, encode_video
from flexiact.batches import Batch, FitConfig, random_crops, reference_batches
from flexiact.embedding import spread
from flexiact.method import FlexiAct, FlexiActConfig
from flexiact.sampling import Denoiser
from flexiact.task import Request, Video
from flexiact.training import MIN_NOISE, Optimisation, debias_term, denoising_loss, frozen, optimise, predicted_clean
from tests.support.backbones import random_frames, save_tiny_refadapter, tiny_backbone, tiny_scheduler

CROPS = FitConfig(crops=3, crop_min_scale=0.5, batch_size=4)


def random_batch(backbone: Backbone, size: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(7)
    shape = (size, *backbone.latent_shape)
    clean, condition = torch.randn(2, *shape, generator=generator)
    return Batch(clean, condition, encode_text(backbone, ["a dog"]).expand(size, -1, -1))


@pytest.mark.parametrize("debias_weight", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_loss_follows_the_formula(prediction_type: str, debias_weight: float):
    backbone = tiny_backbone(scheduler_config={"prediction_type": prediction_type, "rescale_betas_zero_snr": False})
    batch = random_batch(backbone)
    generator = torch.Generator().manual_seed(0)
    further = debias_term(debias_weight, generator)
    loss = denoising_loss(Denoiser(backbone), backbone.scheduler, batch, generator, further=further)
    generator = torch.Generator().manual_seed(0)
    timesteps = torch.randint(1000, (3,), generator=generator)
    noise = torch.randn(batch.clean.shape, generator=generator)
    pairs = torch.randint(batch.clean.shape[1] - 1, (3,), generator=generator)
    expected = 0.0
    for row, (timestep, pair) in enumerate(zip(timesteps.tolist(), pairs.tolist(), strict=True)):
        abar = float(backbone.scheduler.alphas_cumprod[timestep])
        clean = batch.clean[row].double()
        noisy = math.sqrt(abar) * clean + math.sqrt(1 - abar) * noise[row].double()
        out = Denoiser(backbone)(
            noisy[None].float(), batch.condition[row][None], batch.text[row][None], torch.tensor([timestep])
        )[0].double()
        found = {
            "v_prediction": math.sqrt(abar) * noisy - math.sqrt(1 - abar) * out,
            "epsilon": (noisy - math.sqrt(1 - abar) * out) / math.sqrt(abar),
            "sample": out,
        }[prediction_type]
        change = (math.sqrt(2) * found[pair + 1] - found[pair]) - (math.sqrt(2) * clean[pair + 1] - clean[pair])
        expected += ((found - clean) ** 2).mean() / (1 - abar) + debias_weight * (change**2).mean()
    torch.testing.assert_close(loss.double(), expected / 3, rtol=1e-4, atol=0)


def test_velocity_s_weight_makes_it_the_error_of_the_velocity():
    generator = torch.Generator().manual_seed(0)
    clean, noise, predicted = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    abar = torch.tensor(0.3, dtype=torch.float64)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    velocity = abar.sqrt() * noise - (1 - abar).sqrt() * clean
    torch.testing.assert_close(predicted_clean(velocity, noisy, abar, "v_prediction"), clean)
    error = predicted_clean(predicted, noisy, abar, "v_prediction") - clean
    torch.testing.assert_close((error**2).mean() / (1 - abar), ((predicted - velocity) ** 2).mean())


def test_ends_of_the_noise_schedule_stay_finite():
    assert tiny_scheduler().alphas_cumprod[-1] == 0
    assert 1 - tiny_scheduler().alphas_cumprod[0] > MIN_NOISE  # the floor is for other schedules only
    for prediction_type in ("v_prediction", "epsilon", "sample"):
        for abar in (0.0, 1.0):
            found = predicted_clean(torch.ones(4), torch.ones(4), torch.tensor(abar), prediction_type)
            assert torch.isfinite(found).all()
    with pytest.raises(ValueError, match="prediction_type"):
        predicted_clean(torch.ones(1), torch.ones(1), torch.tensor(0.5), "flow")


def test_crops_cut_the_same_window_out_of_every_frame():
    still = np.repeat(random_frames(0, 1), 4, axis=0)
    crops = random_crops(still, 12, 0.5, torch.Generator().manual_seed(0))
    assert len(crops) == 12
    for crop in crops:
        assert crop.shape == still.shape and crop.dtype == np.uint8
        assert (crop == crop[:1]).all()
    assert len({crop.tobytes() for crop in crops}) == 12
    again = random_crops(still, 12, 0.5, torch.Generator().manual_seed(0))
    assert all((a == b).all() for a, b in zip(crops, again, strict=True))
    np.testing.assert_array_equal(random_crops(still, 1, 1.0, torch.Generator().manual_seed(0))[0], still)


def test_a_crop_s_window_keeps_proportions_and_stays_inside():
    height, width = 40, 60
    ramp = np.zeros((1, height, width, 3), dtype=np.uint8)
    ramp[0, :, :, 0] = np.arange(width) * 4
    ramp[0, :, :, 1] = np.arange(height)[:, None] * 4
    for crop in random_crops(ramp, 20, 0.5, torch.Generator().manual_seed(0)):
        across = (int(crop[0, 0, -3, 0]) - int(crop[0, 0, 2, 0])) / (4 * (width - 5))
        down = (int(crop[0, -3, 0, 1]) - int(crop[0, 2, 0, 1])) / (4 * (height - 5))
        assert 0.48 < across < 1.02 and across == pytest.approx(down, abs=0.03)


def test_encodes_once_per_fit(backbone: Backbone, reference: Video, monkeypatch: pytest.MonkeyPatch):
    calls = {"vae": 0, "text": 0}

    def counting(name, function):
        def count(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return count

    monkeypatch.setattr(backbone.vae, "encode", counting("vae", backbone.vae.encode))
    monkeypatch.setattr(batches_module, "encode_text", counting("text", batches_module.encode_text))
    FlexiAct(backbone, FlexiActConfig(FitConfig(embedding_tokens=2, fit_steps=8, crops=3))).fit(
        reference, "a dog", seed=0
    )
    assert calls == {"vae": 2 * 3, "text": 1}


def test_batches_drop_images_and_captions_and_hide_layout(backbone: Backbone, reference: Video):
    def draw(image_dropout: float, caption_dropout: float) -> Batch:
        generator = torch.Generator().manual_seed(0)
        config = replace(CROPS, image_dropout=image_dropout, caption_dropout=caption_dropout)
        return next(reference_batches(backbone, reference, "a dog", config, generator))

    kept, dropped = draw(0.0, 0.0), draw(1.0, 1.0)
    assert kept.clean.shape == kept.condition.shape == (4, *backbone.latent_shape)
    texts = encode_text(backbone, ["", "a dog"])
    assert all(torch.equal(text, texts[1]) for text in kept.text)
    assert all(torch.equal(text, texts[0]) for text in dropped.text)
    assert kept.condition[:, 0].abs().amax(dim=(1, 2, 3)).min() > 0 and not kept.condition[:, 1:].any()
    assert not dropped.condition.any()
    assert torch.equal(kept.clean, dropped.clean)


def test_a_fit_may_take_the_crops_that_come_with_a_reference(backbone: Backbone, reference: Video):
    config, own = replace(CROPS, crops=0, batch_size=50, image_dropout=0.0), (random_frames(7), random_frames(8))
    given = replace(reference, crops=own)
    batch = next(reference_batches(backbone, given, "a dog", config, torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(0)
    encoded = [encode_video(backbone, crop, generator)[0] for crop in own]
    drawn = [[torch.equal(clean, one) for one in encoded] for clean in batch.clean]
    assert all(map(any, drawn)) and all(map(any, zip(*drawn, strict=True)))  # nothing else, and each of them
    with pytest.raises(ValueError, match="crops: 0 takes those that come with the reference, but it has none"):
        next(reference_batches(backbone, reference, "a dog", config, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="crops: expected .* frames, got 4"):
        short = replace(reference, crops=(random_frames(7)[:4],))
        next(reference_batches(backbone, short, "a dog", config, torch.Generator().manual_seed(0)))


def test_dropout_happens_as_often_as_asked(backbone: Backbone, reference: Video):
    config, generator = replace(CROPS, batch_size=2000), torch.Generator().manual_seed(0)
    batches = reference_batches(backbone, reference, "a dog", config, generator)
    batch = next(batches)
    empty = encode_text(backbone, [""])
    assert float((batch.condition[:, 0].abs().amax(dim=(1, 2, 3)) == 0).float().mean()) == pytest.approx(0.05, abs=0.02)
    assert float((batch.text == empty).all(dim=(1, 2)).float().mean()) == pytest.approx(0.1, abs=0.03)


def test_fit_lowers_the_loss(backbone: Backbone):
    target = torch.tensor([1.0, -2.0])
    learned = torch.zeros(2, requires_grad=True)
    losses = optimise([learned], [backbone] * 200, lambda _: (learned - target).square().sum(), Optimisation(200, 0.05))
    assert losses[0] == 5.0 and losses[-1] < 0.01 and len(losses) == 200


def test_loop_stops_at_trouble():
    learned = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="batches"):
        optimise([learned], [1, 2], lambda _: learned.sum(), Optimisation(3, 0.1))
    with pytest.raises(ValueError, match="loss"):
        optimise([learned], [1, 2], lambda _: learned.sum() * torch.nan, Optimisation(2, 0.1))


def test_fit_learns_something_of_the_reference(backbone: Backbone, reference: Video):
    config = FlexiActConfig(FitConfig(embedding_tokens=4, fit_steps=60, learning_rate=3e-2, batch_size=4, crops=2))
    method = FlexiAct(backbone, config)
    action = method.fit(reference, "a dog", seed=0)
    held_out = replace(config.fit, batch_size=64, image_dropout=0.0, caption_dropout=0.0)
    batch = next(reference_batches(backbone, reference, "a dog", held_out, torch.Generator().manual_seed(1)))

    def loss(tokens: torch.Tensor) -> float:
        with torch.no_grad(), extra_tokens_attached(backbone.transformer):
            kwargs = {"extra_tokens": tokens}
            noise = torch.Generator().manual_seed(2)
            return float(denoising_loss(Denoiser(backbone), backbone.scheduler, batch, noise, attention_kwargs=kwargs))

    learned = next(iter(action.values()))
    assert loss(learned) < 0.98 * loss(torch.zeros_like(learned))


@pytest.mark.parametrize("std", [0.0, 0.5])
def test_tokens_that_start_equal_stay_equal(backbone: Backbone, reference: Video, std: float):
    fit = FitConfig(embedding_tokens=4, initial_std=std, fit_steps=20, learning_rate=3e-2, crops=2)
    (tokens,) = FlexiAct(backbone, FlexiActConfig(fit)).fit(reference, "a dog", seed=0).values()
    assert tokens.any() and (spread(tokens) < 1e-4 if std == 0 else spread(tokens) > 0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"debias_weight": 0.0},
        {"initial_std": 0.1},
        {"crops": 4},
        {"crop_min_scale": 1.0},
        {"image_dropout": 1.0},
        {"caption_dropout": 1.0},
    ],
)
def test_every_part_of_the_fit_s_configuration_is_read(backbone: Backbone, reference: Video, change: dict):
    base = FitConfig(embedding_tokens=2, fit_steps=3, crops=2)
    actions = [
        FlexiAct(backbone, FlexiActConfig(fit)).fit(reference, "a dog", seed=0)
        for fit in (base, replace(base, **change))
    ]
    first, second = (next(iter(action.values())) for action in actions)
    assert not torch.equal(first, second)


def test_frozen_restores_what_was_trainable(monkeypatch: pytest.MonkeyPatch):
    transformer = tiny_backbone().transformer
    transformer.proj_out.requires_grad_(True)
    before = [parameter.requires_grad for parameter in transformer.parameters()]
    monkeypatch.setattr(training, "CHECKPOINTING_PARAMETERS", 1)
    with frozen(transformer):
        assert not any(parameter.requires_grad for parameter in transformer.parameters())
        assert transformer.gradient_checkpointing
    assert [parameter.requires_grad for parameter in transformer.parameters()] == before
    assert not transformer.gradient_checkpointing


def test_checkpointing_keeps_the_numbers(backbone: Backbone, reference: Video, monkeypatch: pytest.MonkeyPatch):
    method = FlexiAct(backbone, FlexiActConfig(FitConfig(embedding_tokens=2, fit_steps=3, crops=2)))
    plain = method.fit(reference, "a dog", seed=0)
    monkeypatch.setattr(training, "CHECKPOINTING_PARAMETERS", 1)
    again = method.fit(reference, "a dog", seed=0)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_half_precision_backbone_fits_a_float_embedding(tmp_path: Path, reference: Video, target: np.ndarray):
    folder = save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())
    backbone = tiny_backbone(dtype=torch.bfloat16, refadapter=folder)
    method = FlexiAct(backbone, FlexiActConfig(FitConfig(embedding_tokens=2, fit_steps=3, crops=2)))
    action = method.fit(reference, "a dog", seed=0)
    assert all(tensor.dtype == torch.float32 and tensor.any() for tensor in action.values())
    assert method.transfer(action, Request(target, "a dog", 0)).frames.shape == reference.frames.shape
