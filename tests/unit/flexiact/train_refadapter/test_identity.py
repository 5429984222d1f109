"""The identity-consistency loss: what it sees, what it does not see, and that training uses it."""

import pytest
import torch
from torch import Tensor

from flexiact.batches import Batch
from flexiact.train_refadapter.configs import RefAdapterConfig
from flexiact.train_refadapter.identity import identity_loss, identity_term
from flexiact.train_refadapter.trainer import train_refadapter
from tests.support.backbones import tiny_backbone

ONE = torch.ones(2, 1, 1, 1, 1)


def latents(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(2, frames, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_equals_a_slow_version():
    predicted, image, abar = latents(3), latents(1, 1), torch.tensor([0.2, 0.9]).view(2, 1, 1, 1, 1)
    expected = 0.0
    for clip in range(2):
        right = image[clip, 0].flatten(1).double()
        for frame in predicted[clip].flatten(2).double():
            mean = (frame.mean(1) - right.mean(1)).square().mean()
            covariance = (torch.cov(frame, correction=0) - torch.cov(right, correction=0)).square().mean()
            expected += abar[clip].item() * (mean + covariance) / 3 / 2
    torch.testing.assert_close(identity_loss(predicted, image, abar).double(), expected, rtol=1e-5, atol=0)


def test_places_do_not_matter_and_colours_do():
    image = latents(1)
    moved = image.flatten(3)[..., torch.randperm(36, generator=torch.Generator().manual_seed(3))].view_as(image)
    frames = torch.cat([image, moved, image.flip(-1)], 1)
    assert identity_loss(frames, image, ONE) < 1e-10
    assert identity_loss(frames.roll(1, dims=2), image, ONE) > 1e-3
    assert identity_loss(frames, image[:1].expand(2, -1, -1, -1, -1) + 1, ONE) > 0.5


def test_a_dropped_image_and_pure_noise_ask_for_nothing():
    image = latents(1)
    image[0] = 0
    both = identity_loss(latents(3, 2), image, ONE)
    assert both == identity_loss(latents(3, 2)[1:], image[1:], ONE[1:]) / 2 > 0
    assert identity_loss(latents(3, 2), image, 0 * ONE) == 0


def test_the_training_reads_its_weight():
    backbone = tiny_backbone()
    generator = torch.Generator().manual_seed(0)
    clean, condition = torch.randn(2, 2, *backbone.latent_shape, generator=generator)
    condition[:, 1:] = 0
    batch = Batch(clean, condition, torch.randn(2, 6, backbone.text_encoder.config.d_model, generator=generator))
    assert identity_term(0.0, backbone, batch) is None
    losses = [
        train_refadapter(backbone, [batch] * 2, RefAdapterConfig(2, 2, 2, identity_weight=weight), seed=0)[1]
        for weight in (0.0, 0.5)
    ]
    assert all(heavier > lighter for lighter, heavier in zip(*losses, strict=True))


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_weight_below_zero_is_named(weight: float):
    with pytest.raises(ValueError, match="identity_weight"):
        RefAdapterConfig(identity_weight=weight)
