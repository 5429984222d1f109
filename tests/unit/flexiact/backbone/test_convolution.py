"""oneDNN's 3D convolutions: the same numbers up to rounding, in the one place where they are wanted."""

import pytest
import torch

from flexiact.backbone import convolution
from flexiact.backbone.codec import decode_latents
from flexiact.backbone.convolution import OneDnnConv3d
from tests.support.backbones import tiny_backbone


@pytest.fixture
def calls(monkeypatch) -> list[torch.Size]:
    """Shapes of the videos that oneDNN was given."""
    seen, real = [], torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *args: seen.append(args[0].shape) or real(*args))
    return seen


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2, "bias": False}])
def test_onednn_gives_the_same_numbers(settings: dict, calls: list):
    torch.manual_seed(0)
    layer, frames = torch.nn.Conv3d(4, 6, 3, **settings), torch.randn(1, 4, 7, 9, 8)
    expected = layer(frames)
    with OneDnnConv3d():
        found = layer(frames)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert calls == [frames.shape]
    layer(frames)
    assert len(calls) == 1  # outside, torch decides again


@pytest.mark.parametrize("what", ["another type", "padding by name", "no oneDNN"])
def test_torch_decides_where_onednn_cannot(what: str, calls: list, monkeypatch):
    layer, frames = (
        torch.nn.Conv3d(2, 2, 3, padding="same" if what == "padding by name" else 0),
        torch.ones(1, 2, 3, 3, 3),
    )
    if what == "another type":
        layer, frames = layer.double(), frames.double()
    if what == "no oneDNN":
        monkeypatch.setattr(convolution.torch.backends.mkldnn, "is_available", lambda: False)
    expected = layer(frames)
    with OneDnnConv3d():
        assert torch.equal(layer(frames), expected)
    assert calls == []


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
def test_decoding_uses_it(calls: list):
    backbone = tiny_backbone()
    decode_latents(backbone, torch.zeros(1, *backbone.latent_shape))
    assert len(calls) > 10
