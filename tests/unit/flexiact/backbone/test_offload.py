"""Networks that take turns: the same numbers, and never two of them on the device."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import add_hook_to_module
from torch import nn

from flexiact.backbone.backbone import Backbone, load_folder
from flexiact.backbone.codec import decode_latents, encode_video
from flexiact.backbone.loading import NO_SAVINGS, Savings
from flexiact.backbone.offload import TakingTurns, begin_turns, take_turns
from flexiact.backbone.specs import BACKBONES
from flexiact.embedding import ACTION_KEY
from flexiact.method import FitConfig, FlexiAct, FlexiActConfig, TransferConfig
from flexiact.task import Request, Video
from tests.support.backbones import random_frames, save_tiny_folder, save_tiny_refadapter, tiny_backbone, tiny_vae

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")  # the one other device that every machine has
QUICK = FlexiActConfig(FitConfig(embedding_tokens=3, fit_steps=2, crops=2), TransferConfig(num_inference_steps=2))


def test_offload_changes_no_number(tmp_path: Path):
    folder = save_tiny_folder(tmp_path / "tiny", tiny_backbone())
    refadapter = save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone())
    made = []
    for savings in (NO_SAVINGS, Savings(offload=True)):
        backbone = replace(load_folder(folder, name="tiny", savings=savings), refadapter=refadapter)
        for network in (backbone.text_encoder, backbone.transformer, backbone.vae):
            assert isinstance(getattr(network, "_hf_hook", None), TakingTurns) == savings.offload
        method = FlexiAct(backbone, QUICK)
        action = method.fit(Video(random_frames(1), 8.0), "a dog jumps", seed=0)
        made.append(
            (backbone.revision, action[ACTION_KEY], method.transfer(action, Request(random_frames(2)[0], "", 1)))
        )
    (revision, tokens, video), (other_revision, other_tokens, other_video) = made
    assert revision == other_revision and torch.equal(tokens, other_tokens) and tokens.any()
    np.testing.assert_array_equal(video.frames, other_video.frames)


class Traveller(nn.Linear):
    """A network that writes down where it goes; its weights lose their values there, as on the meta device."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        super().__init__(2, 2)
        self.name, self.log = name, log

    def to(self, device: torch.device) -> "Traveller":
        self.log.append((self.name, device.type))
        for module in self.modules():
            for name, parameter in module._parameters.items():
                module._parameters[name] = nn.Parameter(torch.zeros(parameter.shape, device=device))
        return self


def test_networks_without_room_begin_to_take_turns_once():
    log: list[tuple[str, str]] = []
    networks = {name: Traveller(name, log).to(ELSEWHERE) for name in ("text_encoder", "transformer", "vae")}
    assert not begin_turns(networks, CPU, set())
    assert begin_turns(networks, ELSEWHERE, {"transformer"}) and not begin_turns(networks, ELSEWHERE, set())
    log.clear()
    networks["vae"](torch.zeros(1, 2, device=ELSEWHERE))
    assert log == [("text_encoder", "cpu")]


def test_each_comes_when_it_is_used_and_the_others_leave():
    log: list[tuple[str, str]] = []
    text, transformer, vae = (Traveller(name, log) for name in ("text", "transformer", "vae"))
    take_turns({"text": text, "transformer": transformer, "vae": vae}, ELSEWHERE)
    states = torch.zeros(1, 2, device=ELSEWHERE)
    for network, moves in (
        (vae, [("vae", "meta")]),
        (text, [("vae", "cpu"), ("text", "meta")]),
        (transformer, [("text", "cpu"), ("transformer", "meta")]),
        (transformer, []),
        (vae, [("transformer", "cpu"), ("vae", "meta")]),
    ):
        log.clear()
        network(states)
        assert log == moves


def test_what_is_attached_in_the_meantime_comes_along():
    log: list[tuple[str, str]] = []
    transformer, vae = Traveller("transformer", log), Traveller("vae", log)
    take_turns({"transformer": transformer, "vae": vae}, ELSEWHERE)
    transformer(torch.zeros(1, 2, device=ELSEWHERE))
    transformer.adapter = nn.Linear(1, 1)
    log.clear()
    transformer(torch.zeros(1, 2, device=ELSEWHERE))
    assert log == [("transformer", "meta")] and transformer.adapter.weight.device == ELSEWHERE


def test_what_stays_is_never_moved():
    log: list[tuple[str, str]] = []
    transformer, vae = Traveller("transformer", log), Traveller("vae", log)
    transformer.to(ELSEWHERE)
    take_turns({"transformer": transformer, "vae": vae}, ELSEWHERE, staying={"transformer"})
    log.clear()
    for network in (vae, transformer, vae):
        network(torch.zeros(1, 2, device=ELSEWHERE))
    assert log == [("vae", "meta"), ("vae", "cpu"), ("vae", "meta")]


def test_the_vae_makes_room_when_it_encodes_and_decodes():
    calls: list[str] = []

    class Told(TakingTurns):
        def pre_forward(self, module: nn.Module, *args: object, **kwargs: object) -> tuple:
            calls.append(type(module).__name__)
            return super().pre_forward(module, *args, **kwargs)

    vae = tiny_vae().eval()
    add_hook_to_module(vae, Told(CPU, []))
    with torch.no_grad():
        vae.decode(vae.encode(torch.zeros(1, 3, 1, 16, 24)).latent_dist.mode())
    assert calls == ["AutoencoderKLCogVideoX"] * 2


def test_tiles_are_for_decoding_alone_and_not_for_puppets(backbone: Backbone):
    assert not backbone.tiled_decode and not BACKBONES["puppets"].tiled_decode
    assert all(spec.tiled_decode for spec in BACKBONES.values() if spec.published)
    backbone = replace(backbone, height=32, width=40)
    backbone.vae.enable_tiling(24, 20)  # tiles whose overlaps are whole numbers of cells, as the large models' are
    backbone.vae.disable_tiling()
    tiled = replace(backbone, tiled_decode=True)
    frames = random_frames(5, height=32, width=40)
    latents, same = (encode_video(b, frames, torch.Generator().manual_seed(0)) for b in (backbone, tiled))
    assert torch.equal(latents, same)
    whole, in_tiles = decode_latents(backbone, latents), decode_latents(tiled, latents)
    assert not backbone.vae.use_tiling and not backbone.vae.use_slicing
    backbone.vae.enable_tiling()
    np.testing.assert_array_equal(in_tiles, decode_latents(backbone, latents))
    assert in_tiles.shape == whole.shape and (in_tiles != whole).any()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_hooks_do_not_mind_a_device_that_is_there_already(device: str):
    log: list[tuple[str, str]] = []
    only = Traveller("only", log)
    only.to(torch.device(device))
    take_turns({"only": only}, torch.device(device))
    log.clear()
    only(torch.zeros(1, 2, device=device))
    assert log == []


def test_a_benchmark_takes_a_folder_and_the_options(tmp_path: Path):
    from benchmark.run import parser
    from benchmark.workers.load import load

    folder = save_tiny_folder(tmp_path / "tiny", tiny_backbone())
    args = parser().parse_args(["--backbone", str(folder), "--device", "cpu", "--offload", "--quantise", "4bit"])
    assert args.offload and args.quantise == "4bit"
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    try:
        backbone = load(args.backbone, args.device, None, 3, None, Savings(args.offload))
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
    assert (backbone.name, backbone.num_inference_steps) == ("tiny", 3)
    assert isinstance(backbone.vae._hf_hook, TakingTurns)
