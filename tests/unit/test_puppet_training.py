"""The recipes of the puppet world: a stopped run goes on as if it had not been, and what is saved loads."""

import csv

import pytest
import torch
from torch import nn

from flexiact.puppets.latents import cached_clips
from flexiact.puppets.loop import Plan, step_generator, train
from flexiact.puppets.train import main
from flexiact.puppets.train_backbone import (
    MAX_TEXT_TOKENS,
    draw_batch,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_transformer,
    rotary_positions,
    velocity_loss,
)
from flexiact.puppets.train_backbone import TextToVelocity as Model
from flexiact.puppets.train_vae import new_vae, psnr, to_tensor, training_videos


def small_run(folder, steps: int, stop: int | None = None, ema: float | None = 0.9) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 1))

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        if step == stop:
            raise InterruptedError
        x = torch.randn(6, 1, 4, 4, generator=generator)
        return (model(x)[:, 0] - x.mean((1, 2, 3))).square().mean()

    train(model, loss_of, Plan(steps, 3, 1e-2, warmup=5, ema=ema, checkpoint_every=10), folder)
    return model.state_dict()


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_stopped_run_ends_as_an_uninterrupted_one(tmp_path, ema):
    with pytest.raises(InterruptedError):
        small_run(tmp_path / "stopped", 40, stop=25, ema=ema)
    resumed, whole = small_run(tmp_path / "stopped", 40, ema=ema), small_run(tmp_path / "whole", 40, ema=ema)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_training_lowers_the_loss_and_writes_its_curve(tmp_path):
    small_run(tmp_path, 200, ema=None)
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [50, 100, 150, 200]
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])


def test_another_seed_needs_another_folder(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        return model(torch.randn(2, 3, generator=generator)).square().mean()

    train(model, loss_of, Plan(5, 0, 1e-2), tmp_path)
    with pytest.raises(ValueError, match="seed"):
        train(model, loss_of, Plan(5, 1, 1e-2), tmp_path)


def test_the_rate_warms_up_holds_and_ends_at_zero():
    plan = Plan(100, 0, 1.0, warmup=10, decay=0.5)
    assert plan.rate(0) == pytest.approx(0.1)
    assert plan.rate(30) == 1.0
    assert plan.rate(99) == pytest.approx(0.02)


def test_steps_have_generators_of_their_own():
    draws = {float(torch.rand((), generator=step_generator(seed, step))) for seed in (0, 1) for step in range(20)}
    assert len(draws) == 40


def test_the_tokenizer_knows_every_word_and_ends_the_text():
    ids = new_tokenizer()("striped red blue bird, left, large, profile", padding="max_length").input_ids
    assert len(ids) == MAX_TEXT_TOKENS
    assert 2 not in ids and ids[7] == 1 and set(ids[8:]) == {0}


def test_the_vae_codes_a_clip_into_three_latent_frames():
    torch.manual_seed(0)
    vae = new_vae()
    videos = training_videos(step_generator(0, 0), 1)
    with torch.no_grad():
        latents = vae.encode(to_tensor(videos)).latent_dist.mode()
    assert latents.shape == (1, 16, 3, 16, 16)
    assert 0 < psnr(vae, videos)[0] < 20  # untrained


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One tiny shard, and the same again in another folder."""
    from flexiact.puppets import latents

    patch = pytest.MonkeyPatch()
    patch.setattr(latents, "SHARD_CLIPS", 16)
    torch.manual_seed(0)
    vae, tokenizer = new_vae().eval(), new_tokenizer()
    made = [cached_clips(vae, tokenizer, tmp_path_factory.mktemp("clips"), 0, 1) for _ in range(2)]
    patch.undo()
    return made


def test_shards_are_functions_of_seed_and_number(clips):
    first, second = clips
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["latents"].shape == (16, 3, 16, 16, 16)
    assert first["other"].shape == first["first"].shape == (16, 1, 16, 16, 16)
    assert not torch.equal(first["other"], first["first"])


def test_a_batch_pads_its_condition_and_drops_captions(clips):
    clean, condition, ids = draw_batch(clips[0], "first", 64, step_generator(0, 1))
    assert clean.shape == condition.shape == (64, 3, 16, 16, 16)
    assert not condition[:, 1:].any()
    assert ids.shape == (64, MAX_TEXT_TOKENS)
    assert (ids[:, 0] == 1).any() and (ids[:, 0] != 1).any()


def test_one_step_of_the_backbone_has_gradients_everywhere(clips):
    torch.manual_seed(0)
    transformer = new_transformer(16, 16)
    model = Model(new_text_encoder(len(new_tokenizer())), transformer)
    alphas = new_scheduler().alphas_cumprod.float()
    generator = step_generator(0, 2)
    batch = draw_batch(clips[0], "first", 2, generator)
    loss = velocity_loss(model, batch, alphas, rotary_positions(transformer, batch[0]), generator, 0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_missing_vae_is_one_line(tmp_path, capsys):
    assert main(["backbone", "--steps", "1", "--state", str(tmp_path), "--threads", "1"]) == 2
    assert "error:" in capsys.readouterr().err
