"""Memory before anything is loaded: bytes that are counted, bytes that are followed, and what is said about them."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from flexiact.backbone.backbone import load_backbone
from flexiact.backbone.loading import NO_SAVINGS, BackboneError, Savings
from flexiact.memory.check import GIB, check_memory, main, shortage, table
from flexiact.memory.estimate import (
    STAGES,
    Estimate,
    _decoding,
    _denoising,
    _encoding,
    _learning,
    estimate,
    held,
    outline,
)
from flexiact.memory.live_bytes import FusedAttention, LiveBytes, counted_once
from flexiact.refadapter import RefAdapter
from flexiact.train_refadapter.configs import RefAdapterConfig
from tests.support.backbones import save_tiny_folder, tiny_backbone

LARGE = ["cogvideox-5b-i2v", "cogvideox-1.5-5b-i2v"]


# -------------------------------------------------------------------------------------------------- what is followed


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bytes_alive_of_a_program_that_is_known(device: str):
    weight = torch.zeros(1000, device=device)
    with LiveBytes(torch.device(device)) as live:
        weight.view(10, 100).t()  # of what was there before
        first = torch.zeros(100, device=device)
        rows = first.view(10, 10)
        rows += 1  # in place
        assert (live.now, live.peak) == (400, 400)
        second = first + rows.flatten()
        assert live.now == 800
        del first
        assert live.now == 800  # the view holds it
        del rows
        assert (live.now, live.peak) == (400, 800)
        third = second.to(torch.float64)
        assert (live.now, live.peak) == (1200, 1200)
        del second, third
    assert (live.now, live.peak) == (0, 1200)


def test_only_the_device_that_is_asked_for_is_followed():
    with LiveBytes(torch.device("meta")) as live:
        torch.zeros(100)
        kept = torch.zeros(10, device="meta")
    assert live.peak == live.now == kept.nbytes


def test_activations_that_are_computed_twice_take_less():
    layers = nn.Sequential(*(nn.Sequential(*(nn.GELU() for _ in range(5))) for _ in range(8)))
    peaks = []
    for twice in (False, True):
        with LiveBytes(torch.device("meta")) as live:
            states = start = torch.zeros(512, 64, device="meta", requires_grad=True)
            for layer in layers:
                states = checkpoint(layer, states, use_reentrant=False) if twice else layer(states)
            states.sum().backward()
        assert start.grad is not None and live.peak > 8 * start.nbytes
        peaks.append(live.peak)
    assert peaks[1] < 0.7 * peaks[0]


def test_attention_holds_no_logits():
    query = torch.zeros(1, 2, 1000, 8, device="meta", requires_grad=True)
    peaks = []
    for kernel in (False, True):
        with LiveBytes(torch.device("meta")) as live, FusedAttention() if kernel else torch.enable_grad():
            functional.scaled_dot_product_attention(query, query, query, scale=1.0).sum().backward()
        assert query.grad.shape == query.shape
        peaks.append(live.peak)
    logits = 2 * 1000 * 1000 * 4
    assert peaks[0] > logits > 2 * peaks[1]


# -------------------------------------------------------------------------------------------------- what is counted


def real_bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def test_weights_are_those_of_the_puppets_and_passes_take_what_they_take():
    real, planned = load_backbone("puppets"), outline("puppets")
    for part in ("text_encoder", "transformer", "vae"):
        assert held(getattr(planned, part)) == real_bytes(getattr(real, part)) > 0
    assert (planned.latent_shape, planned.num_parameters) == (real.latent_shape, real.num_parameters)
    assert _decoding(planned) == _decoding(real) > planned.height * planned.width * 3 * 4 * planned.num_frames
    assert _encoding(planned, planned.num_frames) == _encoding(real, real.num_frames) > 0


def test_repeated_calls_take_what_the_first_one_took_and_are_not_computed(monkeypatch: pytest.MonkeyPatch):
    backbone, calls = replace(tiny_backbone(), num_frames=33, tiled_decode=True), []
    backbone.vae.enable_tiling(8, 8, 0.25, 0.25)
    for part in (backbone.vae.decoder.conv_in, backbone.vae.encoder.conv_in):
        part.register_forward_hook(lambda *_: calls.append(1))
    found = []
    for once in (counted_once, lambda *_: nullcontext()):
        monkeypatch.setattr("flexiact.memory.estimate.counted_once", once)
        calls.clear()
        found.append((_decoding(backbone), _encoding(backbone, 33), len(calls)))
    assert found[0][:2] == found[1][:2]
    assert 3 * found[0][2] < found[1][2]


def test_a_folder_is_known_from_its_configurations(tmp_path: Path):
    folder = save_tiny_folder(tmp_path / "tiny", tiny_backbone())
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    found = estimate(outline(str(folder)))
    assert found.vae == real_bytes(tiny_backbone().vae) and found.text_encoder == real_bytes(
        tiny_backbone().text_encoder
    )
    assert found.backbone.num_video_tokens == tiny_backbone().num_video_tokens
    assert all(found.activations[stage] > 0 for stages in STAGES.values() for stage in stages if stage != "text")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(BackboneError, match="backbone tiny: cannot be looked up"):
        outline(str(folder))


def test_quantised_weights_are_counted_by_their_layers():
    layers = nn.Sequential(nn.Linear(128, 64), nn.LayerNorm(64), nn.Linear(64, 3, bias=False)).bfloat16()
    kept = 2 * (64 + 64 + 64)  # biases and the norm, two bytes each
    assert held(layers) == kept + 2 * (128 * 64 + 64 * 3)
    assert held(layers, "8bit") == kept + (128 * 64 + 4 * 64) + (64 * 3 + 4 * 3)
    assert held(layers, "4bit") == kept + (128 * 64 // 2 + 4 * 128) + (64 * 3 // 2 + 4 * 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_published_models_have_their_published_sizes(name: str):
    planned = outline(name)
    assert planned.dtype == torch.bfloat16 and planned.device.type == "meta"
    # The files of the transformer of 1.5 are 4.98, 4.95 and 1.22 GB; the older one's has a table of positions beside.
    table_of_positions = 2 * (226 + 17_550) * 3072 if name == LARGE[0] else 0
    assert held(planned.transformer) - table_of_positions == pytest.approx(11.15e9, rel=0.005)
    assert sum(parameter.numel() for parameter in planned.text_encoder.parameters()) == 4_762_310_656
    assert sum(parameter.numel() for parameter in planned.vae.parameters()) == pytest.approx(215.6e6, rel=0.005)


@pytest.mark.slow
def test_the_larger_model_has_its_tokens():
    planned = outline("cogvideox-1.5-5b-i2v")
    # 81 frames are 21 latent ones, one more in front makes 11 pairs; 768 x 1360 px are 48 x 85 patches.
    assert planned.latent_shape == (22, 16, 96, 170) and planned.num_padding_frames == 1
    assert planned.num_video_tokens == 11 * 48 * 85 == 44_880
    # A step's states at guidance, [2, text + video, 3072] in bfloat16, several times over, but no logits.
    states, paper = 2 * (226 + 44_880) * 3072 * 2, RefAdapterConfig()
    assert 4 * states < _denoising(planned, RefAdapter(planned.transformer, paper.rank, paper.alpha)) < 40 * states
    assert _learning(planned) < 42 * 2 * states  # what all blocks would keep without being computed twice


# ---------------------------------------------------------------------------------------------------- what is said


@pytest.fixture(scope="module")
def known() -> Estimate:
    """20 GiB of weights, of which 10 are the transformer's; 4 more in a transfer, 6 in a fit."""
    gib = int(GIB)
    return Estimate(
        backbone=outline("puppets"),
        text_encoder=9 * gib,
        vae=gib,
        transformer={None: 10 * gib, "8bit": 5 * gib, "4bit": 3 * gib},
        activations={"text": 0, "image": 1, "clip": gib, "denoise": 4 * gib, "decode": 3 * gib, "learn": 6 * gib},
        largest_layer=0,
    )


@pytest.mark.parametrize(
    ("savings", "transfer", "fit"),
    [
        (NO_SAVINGS, 24, 26),
        (Savings(offload=True), 14, 16),  # the transformer and what it does
        (Savings(quantise="8bit"), 19, 21),
        (Savings(quantise="4bit"), 17, 19),
        (Savings(True, "8bit"), 14, 14),  # the transformer stays beside the text encoder
        (Savings(True, "4bit"), 12, 12),
    ],
    ids=str,
)
def test_peaks_are_of_what_is_there_at_a_time(known: Estimate, savings: Savings, transfer: int, fit: int):
    assert known.peak(savings, ["transfer"]) == transfer * GIB
    assert known.peak(savings, ["fit"]) == fit * GIB
    assert known.peak(savings) == max(transfer, fit) * GIB


def test_the_table_says_what_fits(known: Estimate):
    lines = table(known, cards_gib=(16, 26, 28)).splitlines()
    assert "16 GiB card" in lines[2]
    rows = {line[:26].strip(): line[26:].split() for line in lines[3:]}
    assert rows["without options"] == ["24.0", "26.0", "-", "transfer", "both"]
    assert rows["--offload"] == ["14.0", "16.0", "transfer", "both", "both"]
    assert rows["--offload --quantise 4bit"] == ["12.0", "12.0", "both", "both", "both"]
    assert len(rows) == 6


def test_too_little_memory_is_said_with_what_would_help(known: Estimate):
    assert shortage(known, 26 * int(GIB), NO_SAVINGS) is None
    assert shortage(known, 25 * int(GIB), NO_SAVINGS, ["transfer"]) is None
    said = shortage(known, 18 * int(GIB), NO_SAVINGS)
    assert said is not None and "\n" not in said
    assert "needs 26.0 GiB (computed, to transfer and fit), 18.0 are free on the GPU; it fits with" in said
    assert "--offload 16.0" in said and "--offload --quantise 4bit 12.0" in said
    assert "--quantise 8bit 21.0" not in said.replace("--offload --quantise", "")
    none_fits = shortage(known, 2 * int(GIB), Savings(offload=True))
    assert none_fits is not None and "no option makes it fit, less take --offload --quantise 8bit 14.0" in none_fits
    assert str(shortage(known, 0, Savings(True, "4bit"))).endswith("no option takes less")
    in_words = shortage(known, 18 * int(GIB), Savings(dtype="float32"))
    assert in_words is not None and "--offload --dtype float32 16.0" in in_words


def test_memory_is_that_of_the_dtype():
    whole, half = (outline("puppets", Savings(dtype=name)) for name in ("float32", "bfloat16"))
    assert held(whole.transformer) == pytest.approx(2 * held(half.transformer), rel=0.01)


def test_on_a_cpu_nothing_is_checked_but_the_options(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flexiact.memory.estimate.outline", None)  # would fail
    check_memory("cogvideox-5b-i2v", "cpu", Savings(offload=True))
    with pytest.raises(BackboneError, match="quantise: needs a GPU"):
        check_memory("cogvideox-5b-i2v", "cpu", Savings(quantise="8bit"))


def test_a_gpu_with_too_little_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flexiact.backbone.loading.resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10**6, 10**6))
    with pytest.raises(BackboneError, match="^device: puppets needs .* 0.0 are free on the GPU") as caught:
        check_memory("puppets", "cuda", NO_SAVINGS)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (80 * 2**30, 80 * 2**30))
    check_memory("puppets", "auto", NO_SAVINGS)


def test_command_prints_a_table_and_refuses_in_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--backbone", "puppets"]) == 0
    shown = capsys.readouterr().out
    assert "puppets: 9 frames of 64x64 px, 192 video tokens, float32" in shown and "computed, not measured" in shown
    assert main(["--backbone", "pupets"]) == 2
    refused = capsys.readouterr().err
    assert refused.startswith("error: backbone: unknown name 'pupets'") and refused.count("\n") == 1
