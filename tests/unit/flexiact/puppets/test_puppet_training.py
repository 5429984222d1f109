"""The recipes of the puppet world: a stopped run goes on as if it had not been, and what is saved loads."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from flexiact.puppets.engine.averages import exponent, update
from flexiact.puppets.engine.checkpoint import read_header
from flexiact.puppets.engine.loop import CHECKPOINT, Pace, Plan, kept_name, step_generator, train
from flexiact.puppets.engine.losses import (
    Batch,
    LossTerms,
    Noising,
    contrast_loss,
    movement_weights,
    timesteps,
    velocity_loss,
)
from flexiact.puppets.engine.muon import BatchedMuon, orthogonalised
from flexiact.puppets.recipes import clip_shards, control
from flexiact.puppets.recipes import vae as train_vae
from flexiact.puppets.recipes.backbone.model import (
    MAX_TEXT_TOKENS,
    draw_batch,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_transformer,
    rotary_positions,
)
from flexiact.puppets.recipes.backbone.model import TextToVelocity as Model
from flexiact.puppets.recipes.clip_shards import cached_clips
from flexiact.puppets.recipes.linear_code import LinearCode, fit_linear_code
from flexiact.puppets.recipes.vae import (
    MOTION_WEIGHT,
    assembled,
    motion_cosine,
    motion_weights,
    new_vae,
    psnr,
    to_tensor,
    train_decoder,
    train_encoder,
    training_videos,
    vae_figures,
    world_code,
)
from flexiact.puppets.train import main

EVERY_STEP = Pace(checkpoint_minutes=0)


def small_run(
    folder, steps: int, stop: int | None = None, averages=(0.1,), pace: Pace = EVERY_STEP
) -> dict[str, torch.Tensor]:
    """A run of a tiny network, with an error at step `stop`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 1))

    def loss_of(step: int, generator: torch.Generator) -> torch.Tensor:
        if step == stop:
            raise InterruptedError
        x = torch.randn(6, 1, 4, 4, generator=generator)
        return (model(x)[:, 0] - x.mean((1, 2, 3))).square().mean()

    train(model, loss_of, Plan(steps, 3, 1e-2, warmup=5, averages=averages, kept=(20,)), folder, pace)
    return model.state_dict()


@pytest.mark.parametrize("averages", [(), (0.05, 0.2)])
def test_a_stopped_run_ends_as_an_uninterrupted_one(tmp_path, averages):
    with pytest.raises(InterruptedError):
        small_run(tmp_path / "stopped", 40, stop=25, averages=averages)
    resumed = small_run(tmp_path / "stopped", 40, averages=averages)
    whole = small_run(tmp_path / "whole", 40, averages=averages, pace=Pace(look_every=7))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    for name in (CHECKPOINT, kept_name(20)):  # optimisers and averages as well
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_out_of_time_is_stored_and_goes_on(tmp_path):
    small_run(tmp_path / "stopped", 40, pace=Pace(stop_minutes=0))
    assert read_header(tmp_path / "stopped" / CHECKPOINT).step == 1
    resumed, whole = small_run(tmp_path / "stopped", 40), small_run(tmp_path / "whole", 40)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_an_average_is_the_weighted_sum_of_its_profile():
    values = torch.randn(30, generator=step_generator(0, 0)).double()
    average: dict[str, torch.Tensor] = {}
    for step, value in enumerate(values):
        update(average, {"x": value, "n": torch.tensor(step)}, 0.1, step)
    beta = 1 - 1 / torch.arange(1, 31, dtype=torch.float64)
    beta = beta ** (exponent(0.1) + 1)
    weights = torch.stack([(1 - beta[i]) * beta[i + 1 :].prod() for i in range(30)])
    assert average["x"].item() == pytest.approx(float((weights * values).sum()), abs=1e-9)
    assert average["n"] == 29


@given(st.floats(0.01, 0.27))
def test_the_exponent_gives_the_width(width):
    gamma = exponent(width)
    assert ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5 == pytest.approx(width, rel=1e-6)


@pytest.mark.parametrize("width", [0.0, 0.28, -1.0])
def test_a_width_without_a_profile_is_refused(width):
    with pytest.raises(ValueError, match="width"):
        exponent(width)


@pytest.mark.parametrize("shape", [(5, 24, 8), (5, 8, 24), (1, 8, 8)])
def test_matrices_are_orthogonalised_as_by_the_plain_iteration(shape):
    matrices = torch.randn(shape, generator=step_generator(0, 1))
    matrices[..., 0] *= 1e-3
    for matrix, found in zip(matrices.double(), orthogonalised(matrices), strict=True):
        x = matrix / matrix.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
        assert torch.allclose(found.double(), x, atol=2e-3)


def test_muon_steps_as_torch_s_does():
    def after(optimizer_of) -> list[torch.Tensor]:
        generator = step_generator(0, 2)
        parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 24), (24, 8), (8, 24))]
        optimizer = optimizer_of(parameters)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        return parameters

    ours = after(lambda parameters: BatchedMuon(parameters, lr=0.1))
    theirs = after(lambda p: torch.optim.Muon(p, lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    # Theirs computes in bfloat16.
    assert all((a - b).norm() < 0.02 * 3 * 0.2 * 24**0.5 * 0.1 * 8**0.5 for a, b in zip(ours, theirs, strict=True))


def test_clips_that_move_less_weigh_more_but_no_more_than_the_floor_allows():
    clean = torch.zeros(3, 3, 1, 2, 2)
    clean[0, 1:] = 1.0  # energy 2/3
    clean[1, 1:] = 0.5  # energy 1/6; the third clip stands still
    weights = movement_weights(clean)
    assert weights.mean().item() == pytest.approx(1.0)
    assert (weights[1] / weights[0]).item() == pytest.approx(4.0)
    assert (weights[2] / weights[0]).item() == pytest.approx((2 / 3) / 0.05)


def test_the_contrast_grows_with_the_distance_to_the_other_clip():
    predicted = torch.tensor([[1.0, 2.0], [0.0, 0.0]]).view(2, 1, 1, 1, 2)
    assert contrast_loss(predicted, torch.zeros_like(predicted)).tolist() == [-2.5, 0.0]


class Echo(nn.Module):
    """Predicts its noisy input."""

    def forward(self, noisy, condition, ids, timestep, rotary):
        return noisy


def echo_loss(batch: Batch, terms: LossTerms) -> float:
    alphas = torch.linspace(0.9, 0.1, 10)
    noising = Noising(alphas, (alphas, alphas), torch.float32)
    return float(velocity_loss(Echo(), batch, noising, step_generator(0, 3), 0.5, terms))


def test_the_largest_draw_is_the_last_timestep():
    largest = 1 - 2**-24
    assert timesteps(torch.tensor([[0.0, 0.5, largest, largest], [0.9, 0.9, 0.9, 0.1]]), 0.5, 1000).tolist() == [
        0, 500, 999, 999,
    ]  # fmt: skip


def test_the_next_clip_is_avoided():
    clean = torch.randn(4, 3, 1, 2, 2, generator=step_generator(0, 4))
    batch = Batch(clean, clean, torch.zeros(4, 2))
    plain, contrast = echo_loss(batch, LossTerms()), LossTerms(contrast=0.1)
    assert echo_loss(batch, contrast) != plain
    # Where the next clip is the same, the distance is the loss: a tenth of it is taken away.
    same = Batch(clean[:1], clean[:1], torch.zeros(1, 2))
    assert echo_loss(same, contrast) == pytest.approx(0.9 * echo_loss(same, LossTerms()))
    assert contrast.scaled(0.0) == LossTerms()


def test_training_lowers_the_loss_and_writes_its_curve(tmp_path):
    small_run(tmp_path, 200, averages=(), pace=Pace())
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [50, 100, 150, 200]
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])


def test_steps_that_are_done_again_stand_in_the_curve_once(tmp_path):
    with pytest.raises(InterruptedError):
        small_run(tmp_path, 200, stop=120, pace=Pace())  # stored after step 20 only, when that state was kept
    small_run(tmp_path, 200, pace=Pace())
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [50, 100, 150, 200]


def test_looking_less_often_tells_the_same_curve(tmp_path):
    for every in (1, 25):
        small_run(tmp_path / str(every), 100, pace=Pace(look_every=every))
    often, seldom = (
        list(csv.DictReader((tmp_path / every / "curve.csv").read_text().splitlines())) for every in ("1", "25")
    )
    assert [row["step"] for row in often] == [row["step"] for row in seldom] == ["50", "100"]
    assert [float(a["loss"]) for a in often] == pytest.approx([float(b["loss"]) for b in seldom], abs=2e-6)


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
    assert latents.shape == (1, 20, 3, 16, 16)
    figures = vae_figures(vae, lambda pixels: vae.encode(pixels).latent_dist.mode(), videos)
    assert 0 < figures["psnr_db"] < 20 and abs(figures["motion_cosine"]) < 0.5  # untrained


def test_pixels_that_change_weigh_more():
    clips = torch.zeros(1, 3, 5, 8, 8)
    clips[:, :, 2, :4] = 1.0
    weights = motion_weights(clips)
    assert weights.mean() == pytest.approx(1)
    changing, still = weights[0, 0, 1:4, :4], weights[0, 0, :, 4:]
    assert torch.allclose(changing, (1 + MOTION_WEIGHT) * still[0, 0, 0])
    assert torch.allclose(weights[0, 0, [0, 4], :4], still[0, 0, 0])


def test_figures_of_pictures_by_hand():
    video = np.zeros((2, 4, 4, 3), np.uint8)
    video[1, 0] = 100
    assert psnr(video + np.uint8(1), video) == pytest.approx(20 * np.log10(255))
    assert motion_cosine(video, video) == pytest.approx(1)
    assert motion_cosine(video[::-1], video) == pytest.approx(-1)
    assert motion_cosine(np.zeros_like(video), video) == 0


def test_the_halves_are_trained_apart_and_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(train_vae, "_LINEAR_CODE_CLIPS", 4)
    monkeypatch.setattr(train_vae, "_FIGURE_CLIPS", 2)
    assert train_encoder(tmp_path, 1, 0, torch.device("cpu"))["missed_share"] > 0.1  # hardly trained
    with pytest.raises(ValueError, match="train vae_decoder first"):
        assembled(tmp_path)
    assert train_decoder(tmp_path, 1, 0, torch.device("cpu"))["psnr_db"] < 20
    whole = assembled(tmp_path)
    for half in ("encoder", "decoder"):
        stored = load_file(tmp_path / f"vae-{half}.safetensors")
        assert stored.keys() == getattr(whole, half).state_dict().keys()
        assert all(torch.equal(stored[n], t) for n, t in getattr(whole, half).state_dict().items())
    assert torch.equal(world_code(tmp_path, 0).basis, world_code(tmp_path, 1).basis)  # fitted once, then read


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One tiny shard, and the same again in another folder."""
    patch = pytest.MonkeyPatch()
    patch.setattr(clip_shards, "SHARD_CLIPS", 16)
    torch.manual_seed(0)
    code = fit_linear_code(to_tensor(training_videos(step_generator(0, 0), 4)), 20)
    made = [cached_clips(code, new_tokenizer(), tmp_path_factory.mktemp("clips"), 0, 1) for _ in range(2)]
    patch.undo()
    return made


def test_shards_are_functions_of_seed_and_number(clips):
    first, second = clips
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    assert first["latents"].shape == (16, 3, 20, 16, 16)
    assert first["other"].shape == first["first"].shape == (16, 1, 20, 16, 16)
    assert not torch.equal(first["other"], first["first"])


def test_a_shard_made_at_once_is_that_of_its_parts(monkeypatch):
    monkeypatch.setattr(clip_shards, "_BATCH", 2)
    generator = torch.Generator().manual_seed(0)
    parts = [clip_shards._draw_clips(generator) for _ in range(2)]
    code = LinearCode(torch.randn(20, 192, generator=generator) / 14, torch.zeros(192), torch.tensor(1.0))
    whole, *each = (
        clip_shards._rendered(code, new_tokenizer(), d, clip_shards.CPU) for d in (clip_shards._together(parts), *parts)
    )
    joined = {key: torch.cat([part[key] for part in each]) for key in whole}
    torch.testing.assert_close(whole, joined, rtol=2e-3, atol=2e-3, equal_nan=True)
    assert not torch.equal(whole["latents"][:2], whole["latents"][2:])


def test_a_batch_pads_its_condition_and_drops_captions(clips):
    clean, condition, ids, points = draw_batch(clips[0], "first", 64, step_generator(0, 1))
    assert points is not None and points.shape == (64, 9, 13, 2)
    assert clean.shape == condition.shape == (64, 3, 20, 16, 16)
    assert not condition[:, 1:].any()
    assert ids.shape == (64, MAX_TEXT_TOKENS)
    assert (ids[:, 0] == 1).any() and (ids[:, 0] != 1).any()


def test_captions_of_control_clips_tell_nothing_of_the_action(clips):
    several = clips[0] | {"captions": torch.arange(2, 7)[None, :, None].expand(16, 5, 3)}  # a number a wording
    ids = draw_batch(several, "first", 200, step_generator(0, 1), control.WORDING_SHARES).ids
    assert set(ids[:, 0].tolist()) == {1, 2}  # none, or the subject's
    assert len(set(draw_batch(several, "first", 200, step_generator(0, 1)).ids[:, 0].tolist())) == 6


def test_some_clips_lose_their_skeleton():
    latents = 1 + torch.rand(400, 3, 4, 2, 2, generator=step_generator(0, 1))
    dropped = control.partly_dropped(latents, step_generator(0, 2))
    gone = (dropped == 0).flatten(1).all(1)
    assert 0.05 < gone.float().mean() < 0.15 and torch.equal(dropped[~gone], latents[~gone])


def test_one_step_of_the_backbone_has_gradients_everywhere(clips):
    torch.manual_seed(0)
    transformer = new_transformer(20, 16)
    model = Model(new_text_encoder(len(new_tokenizer())), transformer)
    alphas = new_scheduler().alphas_cumprod.float()
    generator = step_generator(0, 2)
    batch = draw_batch(clips[0], "first", 2, generator)
    loss = velocity_loss(model, batch, Noising(alphas, rotary_positions(transformer, batch[0])), generator, 0.5)
    number = batch.points[..., 0].isfinite().sum()
    (loss + model.pointer(batch.points, number)).backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_branch_without_its_vae_or_trunk_is_refused_in_one_line(tmp_path, capsys):
    command = ["backbone", "--branch-at", "16", "--state", str(tmp_path), "--threads", "1"]
    assert main(command) == 2
    assert "train vae_encoder first" in capsys.readouterr().err
    halves = new_vae()
    for half in ("encoder", "decoder"):
        save_file(getattr(halves, half).state_dict(), tmp_path / f"vae-{half}.safetensors")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "train the trunk" in error
