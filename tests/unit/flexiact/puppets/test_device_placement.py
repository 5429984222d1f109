"""Where tensors lie when there is a GPU: run on tensors that have a device and a shape but no numbers.

Mixing devices is an error there, and so is reading a number, which would make a GPU wait.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from flexiact.puppets.engine import averages
from flexiact.puppets.engine.checkpoint import weights_of
from flexiact.puppets.engine.loop import Plan, build_optimizers
from flexiact.puppets.engine.losses import LossTerms, Noising, velocity_loss
from flexiact.puppets.recipes.backbone.model import (
    TextToVelocity,
    _wording_shares,
    draw_batch,
    new_scheduler,
    new_text_encoder,
    new_transformer,
    rotary_positions,
)
from flexiact.puppets.recipes.clip_shards import encode_linear
from flexiact.puppets.recipes.linear_code import LinearCode
from flexiact.puppets.recipes.vae import as_pixels
from flexiact.puppets.world.clip import SIZE, bone_visibility, projections
from flexiact.puppets.world.render import draw
from flexiact.puppets.world.scene import random_scene

GPU = torch.device("cuda:0")


def test_clips_are_drawn_and_encoded_where_their_projection_lies():
    scenes = [random_scene(torch.Generator().manual_seed(0), "train")] * 2
    code = LinearCode(torch.randn(20, 192), torch.zeros(192), torch.tensor(1.0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        view = projections(scenes, torch.zeros(2, 9, 21))
        images, parts = draw(view.to(GPU), scenes, bone_visibility(scenes), SIZE)
        latents = encode_linear(code, as_pixels(images.view(2, 9, SIZE, SIZE, 3)))
    assert images.device == parts.device == latents.device == GPU
    assert latents.shape == (2, 3, 20, 16, 16) and latents.dtype == torch.float16


def test_a_step_never_leaves_the_gpu_nor_waits_for_it():
    with FakeTensorMode(), GPU:
        clips = {
            "latents": torch.zeros(8, 3, 20, 16, 16, dtype=torch.half),
            "first": torch.zeros(8, 1, 20, 16, 16, dtype=torch.half),
            "captions": torch.zeros(8, 5, 40, dtype=torch.int16),
            "points": torch.zeros(8, 9, 13, 2, dtype=torch.half),
        }
        model = TextToVelocity(new_text_encoder(120), new_transformer(20, 16))
        alphas, average = torch.zeros(1000), {}
        noising = Noising(alphas, rotary_positions(model.transformer, clips["latents"]), torch.float32)
    optimizers = build_optimizers(model, Plan(2, 0, 1e-3))
    with noising.alphas.fake_mode:  # without the default device: what is made on the processor shows
        for step in range(2):
            batch = draw_batch(clips, "first", 4, torch.Generator().manual_seed(step))
            loss = velocity_loss(model, batch, noising, torch.Generator(), 0.5, LossTerms(0.5, 0.1, 0.1))
            loss = loss + model.pointer(batch.points, batch.points[..., 0].isfinite().sum())
            for parameter in model.parameters():  # `backward` needs a GPU
                parameter.grad = torch.zeros_like(parameter)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            averages.update(average, weights_of(model), 0.05, step)
        with pytest.raises(DataDependentOutputException):
            float(loss.detach())
    _wording_shares.cache_clear()
    assert loss.device == GPU and {value.device for value in average.values()} == {GPU}
    assert new_scheduler().alphas_cumprod.shape == alphas.shape
