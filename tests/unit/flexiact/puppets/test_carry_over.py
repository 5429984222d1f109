"""A backbone carried over to another code computes the same as before, seen through the map between the codes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file

from flexiact.puppets.recipes import vae
from flexiact.puppets.recipes.backbone.carry_over import (
    CodeMap,
    carried_text_encoder,
    carried_transformer,
    carried_vae,
    fit_code_map,
)
from flexiact.puppets.recipes.backbone.model import (
    MAX_TEXT_TOKENS,
    TextToVelocity,
    new_text_encoder,
    new_transformer,
    rotary_positions,
)
from flexiact.puppets.recipes.linear_code import fit_linear_code
from flexiact.puppets.recipes.vae import (
    LATENT_CHANNELS,
    new_vae,
    to_tensor,
    train_decoder,
    train_encoder,
    training_videos,
)

OLD, SIZE = 16, 4


@pytest.fixture(scope="module")
def codes() -> CodeMap:
    forth = torch.randn(LATENT_CHANNELS, OLD, generator=torch.Generator().manual_seed(0)) / LATENT_CHANNELS**0.5
    return CodeMap(forth, torch.linalg.pinv(forth), 1.0)


def through(codes: CodeMap, latents: torch.Tensor, channel: int) -> torch.Tensor:
    """Old latents of new ones."""
    return (latents.movedim(channel, -1) @ codes.forth).movedim(-1, channel)


def _ids(*ids: int) -> torch.Tensor:
    """A caption of full length whose last word is repeated."""
    return torch.tensor([[*ids, *[ids[-1]] * (MAX_TEXT_TOKENS - len(ids))]])


@torch.no_grad()
def test_the_transformer_reads_and_writes_the_new_code(codes: CodeMap) -> None:
    torch.manual_seed(1)
    words = {"<unk>": 0, "hops": 1, "bows": 2}
    old = TextToVelocity(new_text_encoder(len(words)), new_transformer(OLD, SIZE)).eval()
    torch.nn.init.normal_(old.transformer.proj_out.weight, std=0.1)
    new = TextToVelocity(
        carried_text_encoder(old.text_encoder, words, {"bows": 0, "hops": 1, "glides": 2, "<unk>": 3}),
        carried_transformer(old.transformer, codes),
    ).eval()
    noisy, image = torch.randn(2, 1, 3, LATENT_CHANNELS, SIZE, SIZE)
    rotary, timestep = rotary_positions(old.transformer, through(codes, noisy, 2)), torch.tensor([500])
    expected = old(*(through(codes, x, 2) for x in (noisy, image)), _ids(2, 1, 0), timestep, rotary)
    found = new(noisy, image, _ids(0, 1, 2), timestep, rotary)
    torch.testing.assert_close(through(codes, found, 2), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_both_halves_of_the_vae_use_the_new_code(codes: CodeMap) -> None:
    torch.manual_seed(2)
    old = AutoencoderKLCogVideoX.from_config({**new_vae().config, "latent_channels": OLD, "scaling_factor": 0.7}).eval()
    new, pixels = carried_vae(old, codes).eval(), torch.rand(1, 3, 5, 8, 8) * 2 - 1
    encoded = new.encode(pixels).latent_dist
    torch.testing.assert_close(through(codes, encoded.mean, 1), 0.7 * old.encode(pixels).latent_dist.mean)
    torch.testing.assert_close(encoded.std, torch.full_like(encoded.std, 0.05))
    latents = torch.randn(1, LATENT_CHANNELS, 2, 2, 2)
    torch.testing.assert_close(
        new.decode(latents).sample, old.decode(through(codes, latents, 1) / 0.7).sample, atol=1e-4, rtol=1e-4
    )


def test_the_vae_begins_with_weights_of_its_own_shape_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "_LINEAR_CODE_CLIPS", 8)
    monkeypatch.setattr(vae, "_FIGURE_CLIPS", 1)
    stored = new_vae()
    stored.save_pretrained(tmp_path / "own/vae")
    train_decoder(tmp_path, 1, 0, torch.device("cpu"), tmp_path / "own")
    decoder, name = load_file(tmp_path / "vae-decoder.safetensors"), "conv_out.conv.bias"
    torch.testing.assert_close(decoder[name], stored.decoder.state_dict()[name], atol=1e-3, rtol=0)  # one small step
    AutoencoderKLCogVideoX.from_config({**stored.config, "latent_channels": OLD}).save_pretrained(
        tmp_path / "other/vae"
    )
    with pytest.raises(ValueError, match="carry_over"):
        train_encoder(tmp_path, 1, 0, torch.device("cpu"), tmp_path / "other")


def test_the_map_is_found_where_one_code_is_linear_in_the_other() -> None:
    pixels = to_tensor(training_videos(torch.Generator().manual_seed(3), 4))
    code = fit_linear_code(pixels, 8)
    mixing = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))

    class Mixed:
        """VAE whose latents are a mixture of the code's."""

        config = type("Config", (), {"scaling_factor": 2.0})

        def encode(self, clip: torch.Tensor) -> object:
            latents = (code.encode(clip).movedim(1, -1) @ mixing / 2 + 1).movedim(-1, 1)
            return type("Output", (), {"latent_dist": type("Posterior", (), {"mode": lambda self: latents})()})

    found = fit_code_map(Mixed(), code, pixels)  # type: ignore[arg-type]
    torch.testing.assert_close(found.forth, mixing, atol=1e-3, rtol=1e-3)
    assert found.explained > 0.9999
