"""The puppets' RefAdapter: what its batches show, and that a stopped training ends like an unbroken one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import clean_latent
from flexiact.puppets.engine import processes
from flexiact.puppets.recipes import refadapter
from flexiact.puppets.recipes.refadapter import RefAdapterRun, UntrimmedClips, train
from flexiact.puppets.train import main
from flexiact.refadapter import RefAdapter
from tests.support.backbones import tiny_backbone

RUN = RefAdapterRun(Path("state"), steps=4, seed=0, shards=1)


def met(folder: Path) -> None:
    """Write how many processes accelerate finds, and the mean of their numbers."""
    accelerator = Accelerator(cpu=True)
    mean = accelerator.reduce(torch.tensor(float(accelerator.process_index)), "mean")
    (folder / str(accelerator.process_index)).write_text(f"{accelerator.num_processes} {mean.item()}")


def random_clips(backbone: Backbone, count: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames, *size = backbone.latent_shape
    return {
        "latents": torch.randn(count, frames, *size, generator=generator),
        "first": torch.randn(count, 1, *size, generator=generator),
        "other": torch.randn(count, 1, *size, generator=generator),
        "captions": torch.randint(3, 9, (count, 5, 6), generator=generator, dtype=torch.int16),
    }


@pytest.mark.parametrize("condition", ["first", "other"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_batch_shows_the_image_that_is_asked_for(condition: str, replaced: bool):
    backbone = tiny_backbone()
    clips = random_clips(backbone)
    drawn = UntrimmedClips(clips, replace(RUN, condition=condition, replaced=replaced), "mark")
    batch = drawn.draw(backbone, 200, torch.Generator().manual_seed(1))
    dropped = 0
    for clean, shown in zip(batch.clean, batch.condition, strict=True):
        number = next(i for i, clip in enumerate(clips["latents"]) if torch.equal(clip[1:], clean[1:]))
        first = clips["latents"][number, 0]
        if not shown.any():
            dropped += 1
            assert torch.equal(clean[0], first)
            continue
        assert torch.equal(shown[0], clips[condition][number, 0]) and not shown[1:].any()
        expected = clean_latent(backbone, shown[None])[0, 0] if replaced else first
        torch.testing.assert_close(clean[0], expected)
    assert 0 < dropped < 40


def test_variants_have_folders_and_digests_of_their_own():
    changes = ({}, {"condition": "first"}, {"replaced": False}, {"rank": 4}, {"identity_weight": 0.5})
    runs = [replace(RUN, **change) for change in changes]
    clips = random_clips(tiny_backbone())
    assert len({run.name for run in runs}) == len({UntrimmedClips(clips, run, "m").digest for run in runs}) == 5
    asked = ["", " --condition first", " --keep-first", " --rank 4", " --identity-weight 0.5"]
    assert [run.options for run in runs] == [f"--steps 4 --shards 1 --seed 0{more}" for more in asked]


def test_the_command_s_options_are_the_card_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = []
    monkeypatch.setattr(refadapter, "train", lambda run, *_: runs.append(run))
    asked = "--steps 4 --shards 1 --seed 0 --condition first --keep-first --rank 4 --identity-weight 0.5"
    asked += " --processes 2 --compile"
    assert main(["refadapter", *asked.split(), "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert [run.options for run in runs] == [asked]


def test_a_stopped_training_ends_like_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backbone = tiny_backbone()
    clips = random_clips(backbone)
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone/linear_code.safetensors").touch()
    monkeypatch.setattr(refadapter, "PUPPET_WEIGHTS", tmp_path)
    monkeypatch.setattr(refadapter, "shipped_backbone", lambda *_: backbone)
    monkeypatch.setattr(refadapter, "load_linear_code", lambda _: None)
    monkeypatch.setattr(refadapter, "recipe_mark", lambda *_: "mark")
    monkeypatch.setattr(refadapter, "cached_clips", lambda *_: clips)
    cpu, run = torch.device("cpu"), replace(RUN, rank=4)
    whole = train(replace(run, state=tmp_path / "a"), tmp_path / "whole", cpu)
    train(replace(run, state=tmp_path / "b", steps=2), tmp_path / "half", cpu)
    resumed = train(replace(run, state=tmp_path / "b"), tmp_path / "resumed", cpu)
    found = [(folder / "adapter_model.safetensors").read_bytes() for folder in (whole, resumed, tmp_path / "half")]
    assert found[0] == found[1] != found[2]
    assert "(rank 4, alpha 4)" in (whole / "README.md").read_text()
    assert RefAdapter.load(whole, backbone.transformer) is not None


def test_the_trainer_finds_the_other_processes(tmp_path: Path):
    processes.run(2, met, tmp_path)
    assert [(tmp_path / str(number)).read_text() for number in range(2)] == ["2 0.5", "2 0.5"]


def test_without_a_linear_code_the_shipped_backbone_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refadapter, "PUPPET_WEIGHTS", tmp_path)
    monkeypatch.setattr(refadapter, "shipped_backbone", lambda *_: tiny_backbone())
    with pytest.raises(ValueError, match="is older; write one with backbone --branch-at"):
        train(RUN, tmp_path / "out", torch.device("cpu"))
