"""What helps the backbone to learn: an encoder taught beforehand, and a term for where the keypoints are."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flexiact.puppets.engine.checkpoint import weights_of
from flexiact.puppets.engine.loop import step_generator
from flexiact.puppets.engine.losses import LossTerms, channel_weights
from flexiact.puppets.recipes.backbone import words
from flexiact.puppets.recipes.backbone.model import new_transformer
from flexiact.puppets.recipes.backbone.pointer import Pointer, token_shares
from flexiact.puppets.recipes.backbone.start import BackboneRun, new_model, untrained
from flexiact.puppets.recipes.backbone.words import read_words, readable_share, told_courses, train_words


def test_a_point_is_shared_by_the_tokens_around_it():
    corner, centre, between, beyond = token_shares(
        torch.tensor([[4.0, 4.0], [12.0, 20.0], [16.0, 4.0], [90.0, -5.0]]), 8
    ).view(4, 8, 8)
    assert corner[0, 0] == centre[2, 1] == beyond[0, 7] == 1
    assert between[0, 1] == between[0, 2] == 0.5
    assert all(float(shares.sum()) == pytest.approx(1) for shares in (corner, centre, between, beyond))


def slow_term(pointer: Pointer, tokens: Tensor, points: Tensor) -> float:
    """Every frame and keypoint on its own."""
    terms = []
    for clip in range(points.shape[0]):
        for frame in range(points.shape[1]):
            latent, place = (frame + 3) // 4, (frame + 3) % 4
            seen = tokens[clip, 64 * latent : 64 * (latent + 1)]
            seen = (seen - seen.mean(-1, keepdim=True)) / (seen.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
            logits = pointer.proj_out(seen)[:, 13 * place : 13 * (place + 1)]
            for k in range(13):
                if not points[clip, frame, k].isnan().any():
                    wanted = token_shares(points[clip, frame, k], 8)
                    terms.append(-float((wanted * logits[:, k].log_softmax(0)).sum()))
    return sum(terms) / len(terms)


def test_the_pointing_term_is_that_of_every_frame_and_keypoint_alone():
    torch.manual_seed(0)
    transformer = new_transformer(20, 16)
    pointer = Pointer(transformer)
    tokens = torch.randn(2, 192, 128)
    points = 64 * torch.rand(2, 9, 13, 2)
    points[0, :, 4] = torch.nan
    pointer._keep(transformer.transformer_blocks[3], (), (tokens, tokens))
    with torch.no_grad():
        known = points[..., 0].isfinite().sum()
        assert float(pointer(points, known)) == pytest.approx(slow_term(pointer, tokens, points), rel=1e-5)
        pointer.proj_out.weight.zero_(), pointer.proj_out.bias.zero_()
        assert float(pointer(points, known)) == pytest.approx(math.log(64))


def test_near_pure_noise_a_channel_counts_by_the_share_of_its_variance_that_is_missed():
    variance, alpha = torch.tensor([9.0, 1.0, 0.04]), torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1, 1)
    for exponent in (0.5, 1.0):
        found = channel_weights(alpha, variance, exponent)
        assert found.shape == (3, 1, 3, 1, 1)
        for row, abar in enumerate(alpha.flatten().tolist()):
            weights = [abar + (1 - abar) / v**exponent for v in variance.tolist()]
            mean = sum(weights) / len(weights)
            assert found[row].flatten().tolist() == pytest.approx([weight / mean for weight in weights])
    # Errors that are the same share of every channel's variance then count the same.
    missed = channel_weights(alpha[:1], variance, 1.0).flatten() * variance
    assert missed.tolist() == pytest.approx([float(missed[0])] * 3)


def test_weights_of_channels_do_not_fall_with_the_rate():
    assert LossTerms(0.5, 0.2, 0.1, 0.5).scaled(0.5) == LossTerms(0.25, 0.1, 0.05, 0.5)


def test_captions_of_the_whole_action_tell_its_course():
    texts, courses = told_courses(step_generator(0, 1), 8, "dev", (0.0, 0.0, 1.0, 0.0, 0.0))
    assert courses.shape == (8, 9, 21) and len(texts) == 8
    assert all("none" in text or "full" in text for text in texts)
    subjects, _ = told_courses(step_generator(0, 1), 8, "dev", (1.0, 0.0, 0.0, 0.0, 0.0))
    assert all(text.startswith(subject) for text, subject in zip(texts, subjects, strict=True))


def test_a_backbone_begins_with_the_words_that_were_taught(tmp_path: Path):
    run = BackboneRun(tmp_path, 0, 10, taught="words")
    clips = {"latents": torch.zeros(1, 3, 20, 16, 16)}
    with pytest.raises(ValueError, match="run `train words` first"):
        new_model(run, clips)
    share = train_words(tmp_path, 2, 0, torch.device("cpu"))["explained_share"]
    assert math.isfinite(share) and share < 1
    taught, own = read_words(tmp_path), weights_of(new_model(run, clips).text_encoder)
    assert all(torch.equal(taught[name], own[name]) for name in own)
    untaught = weights_of(new_model(BackboneRun(tmp_path, 0, 10), clips).text_encoder)
    assert not torch.equal(untaught["shared.weight"], own["shared.weight"])


def test_what_words_tell_is_read_from_the_mean_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words, "_HELD_OUT", 64)
    torch.manual_seed(0)
    encoder = untrained(20, 16).text_encoder
    # Fewer captions than the layer has inputs are learnt by heart and tell nothing about others.
    few, many = (readable_share(encoder, 0, captions) for captions in (100, 1000))
    assert few < many < 0.9
    encoder.encoder.final_layer_norm.weight.data.zero_()
    assert readable_share(encoder, 0, 100) == pytest.approx(0, abs=0.1)  # nothing but the mean course is left


def test_taught_words_take_the_place_of_those_of_finished_weights(tmp_path: Path):
    finished, clips = tmp_path / "finished", {"latents": torch.zeros(1, 3, 20, 16, 16)}
    stored = untrained(20, 16)
    stored.transformer.save_pretrained(finished / "transformer")
    stored.text_encoder.save_pretrained(finished / "text_encoder")
    train_words(tmp_path, 1, 0, torch.device("cpu"))
    model = new_model(BackboneRun(tmp_path, 0, 10, from_weights=finished, taught="words"), clips)
    own = weights_of(model.text_encoder)
    assert all(torch.equal(value, own[name]) for name, value in read_words(tmp_path).items())
    assert torch.equal(stored.transformer.proj_out.weight, model.transformer.proj_out.weight)
