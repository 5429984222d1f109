"""The long run of the backbone: a trunk, its branches, a warm start, and several processes that equal one."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import load_file, save_file

from flexiact.puppets.engine.checkpoint import read_average, read_header, weights_of
from flexiact.puppets.engine.loop import CHECKPOINT, kept_name
from flexiact.puppets.recipes import clip_shards as latents
from flexiact.puppets.recipes import vae as train_vae
from flexiact.puppets.recipes.backbone import start, trunk
from flexiact.puppets.recipes.backbone.model import new_tokenizer
from flexiact.puppets.recipes.backbone.pointer import POINTING
from flexiact.puppets.recipes.backbone.pointing import train_pointing
from flexiact.puppets.recipes.backbone.start import BackboneRun, new_model
from flexiact.puppets.recipes.backbone.trunk import train_branch, train_trunk
from flexiact.puppets.recipes.clip_shards import cached_clips
from flexiact.puppets.recipes.vae import new_vae, world_code
from flexiact.puppets.train import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> BackboneRun:
    """Four steps of two clips, on one small shard of an untrained VAE; the trunk is trained."""
    state = tmp_path_factory.mktemp("state")
    torch.manual_seed(0)
    vae = new_vae()
    for half in ("encoder", "decoder"):
        save_file(getattr(vae, half).state_dict(), state / f"vae-{half}.safetensors")
    patch = pytest.MonkeyPatch()
    patch.setattr(latents, "SHARD_CLIPS", 16)
    run = BackboneRun(state, seed=0, steps=4, batch=2, shards=1)
    patch.setattr(train_vae, "_LINEAR_CODE_CLIPS", 4)
    cached_clips(world_code(state, 0), new_tokenizer(), state / "clips", 0, 1)
    patch.undo()
    patch.setattr(start, "MARKS", (4,))
    assert "[4, 8]" in train_trunk(run)
    yield run
    patch.undo()


@pytest.fixture(scope="module")
def written(run: BackboneRun, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "backbone"
    assert train_branch(run, 4, out) == f"written to {out}"
    return out


def elsewhere(run: BackboneRun, state: Path, **changes) -> BackboneRun:
    """The same VAE and clips with no training done."""
    for name in ("vae-encoder.safetensors", "vae-decoder.safetensors", "clips", "linear_code.safetensors"):
        (state / name).symlink_to(run.state / name)
    return replace(run, state=state, **changes)


def test_a_branch_leaves_the_trunk_as_it_was_and_ends_at_rate_zero(run: BackboneRun, written: Path):
    before = (run.state / "backbone" / CHECKPOINT).read_bytes()
    plan = run.branch(4)
    assert plan.steps == 3 and plan.decay_from == 2 and plan.rate(2) > 0 == plan.rate(3)
    assert run.trunk.rate(run.steps - 1) == run.trunk.rate(3)
    assert (written / "model_index.json").exists() and (written / "transformer/config.json").exists()
    assert "goes on" not in train_branch(run, 4, written)  # finished: written again, trained no more
    assert (run.state / "backbone" / CHECKPOINT).read_bytes() == before


def test_the_average_may_be_chosen_afterwards(run: BackboneRun, written: Path, tmp_path: Path):
    train_branch(replace(run, average=0.10), 4, tmp_path / "wide")
    state = load_file(run.state / "backbone-branch-4" / CHECKPOINT)
    for folder, width in ((written, 0.05), (tmp_path / "wide", 0.1)):
        stored = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")["proj_out.weight"]
        assert torch.equal(stored, state[f"average/{width}/transformer.proj_out.weight"].half())
    assert not torch.equal(
        state["average/0.05/transformer.proj_out.weight"], state["model/transformer.proj_out.weight"]
    )


def test_a_branch_needs_a_state_that_was_kept(run: BackboneRun, tmp_path: Path):
    with pytest.raises(ValueError, match="--branch-at"):
        train_branch(run, 6, tmp_path)


def test_a_run_keeps_its_recipe(run: BackboneRun):
    with pytest.raises(ValueError, match="begun with batch 2"):
        train_trunk(replace(run, batch=4))


def test_a_run_that_goes_on_with_more_clips_says_from_where(run: BackboneRun, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(latents, "SHARD_CLIPS", 16)
    begun = elsewhere(run, tmp_path)
    for shards, steps in ((1, 2), (2, 3), (2, 4)):
        train_trunk(replace(begun, shards=shards, steps=steps))
    about = read_header(tmp_path / "backbone" / CHECKPOINT).about
    assert about["shards"] == "1 from step 0, 2 from step 2"


def test_training_starts_again_from_written_weights_and_says_so(run: BackboneRun, written: Path, tmp_path: Path):
    again = elsewhere(run, tmp_path, from_weights=written, steps=1)
    clips = {"latents": torch.zeros(1, 3, 20, 16, 16)}
    stored = load_file(written / "transformer/diffusion_pytorch_model.safetensors")
    own = new_model(again, clips).transformer.state_dict()
    assert own.keys() == stored.keys() and all(torch.equal(own[name], stored[name].float()) for name in stored)
    train_trunk(again)
    rows = list(csv.DictReader((tmp_path / "backbone/curve.csv").read_text().splitlines()))
    assert rows[-1]["origin"].startswith("weights ")
    train_trunk(replace(again, steps=2, from_weights=None))  # a run that goes on remembers
    rows = list(csv.DictReader((tmp_path / "backbone/curve.csv").read_text().splitlines()))
    assert rows[-1]["step"] == "2" and rows[-1]["origin"] == rows[0]["origin"]


def test_the_trunk_begins_with_what_pointing_has_taught(run: BackboneRun, tmp_path: Path):
    begun, clips = elsewhere(run, tmp_path, steps=2), {"latents": torch.zeros(1, 3, 20, 16, 16)}
    with pytest.raises(ValueError, match="run `train pointing` to its end first"):
        new_model(replace(begun, taught="pointing"), clips)
    assert "goes on" in train_pointing(replace(begun, minutes=0.0))
    assert not (tmp_path / POINTING).exists()
    assert "backbone --taught pointing" in train_pointing(begun)
    taught, untaught = new_model(replace(begun, taught="pointing"), clips), new_model(begun, clips)
    learned = load_file(tmp_path / POINTING)
    assert all(torch.equal(value, weights_of(taught)[name]) for name, value in learned.items())
    first, last = "transformer.transformer_blocks.0.ff.net.2.weight", "transformer.transformer_blocks.7.ff.net.2.weight"
    for name, same in ((first, False), (last, True), ("text_encoder.shared.weight", False)):
        assert torch.equal(weights_of(taught)[name], weights_of(untaught)[name]) is same


def test_two_processes_learn_what_one_does(run: BackboneRun, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(trunk, "faster_precision", lambda *_: "float32")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = elsewhere(run, tmp_path / "one", steps=2), elsewhere(run, tmp_path / "two", steps=2, processes=2)
    train_trunk(one)
    train_trunk(two)
    a, b = (load_file(r.state / "backbone" / kept_name(2)) for r in (one, two))
    assert a.keys() == b.keys()
    # Orthogonalised steps have the length lr whatever the gradient's: rounding must stay far below one.
    assert all((a[key].float() - b[key].float()).abs().max() < 1e-5 for key in a if key.startswith("model/"))


def test_what_there_is_is_written_with_every_checkpoint(run: BackboneRun, tmp_path: Path):
    train_trunk(elsewhere(run, tmp_path, snapshots=tmp_path / "out"))
    average = read_average(tmp_path / "backbone" / CHECKPOINT, 0.05)
    kept = {name.replace("parametrizations.weight.original", "weight"): x for name, x in average.items()}
    stored = load_file(tmp_path / "out/transformer/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(x.flatten(), kept[f"transformer.{n}"].half().flatten()) for n, x in stored.items())


def bare_environment(folder: Path) -> dict[str, str]:
    """Variables of an environment without any package but those that training needs, and what these need."""
    todo, seen = ["torch", "diffusers", "numpy", "safetensors", "transformers"], set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen or not list(metadata.distributions(name=name)):
            continue
        seen.add(name)
        found = metadata.distribution(name)
        todo += [r.name for r in map(Requirement, found.requires or []) if not r.marker or r.marker.evaluate()]
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}


def test_a_machine_with_few_packages_finishes_a_backbone_in_its_time(run: BackboneRun, tmp_path: Path):
    (tmp_path / "site").mkdir()
    state = elsewhere(run, tmp_path).state
    command = "-S -m flexiact.puppets.train backbone --device cpu --minutes 0.01 --finish --branch-share 0.5"
    command += " --batch 2 --shards 1 --threads 1"
    arguments = [sys.executable, *command.split(), "--state", str(state), "--out", str(tmp_path / "out")]
    done = subprocess.run(arguments, env=bare_environment(tmp_path / "site"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "peft" not in {path.name for path in (tmp_path / "site").iterdir()}
    steps = read_header(state / "backbone" / CHECKPOINT).step
    assert read_header(state / f"backbone-branch-{2 * steps}" / CHECKPOINT).step == steps + max(1, round(0.5 * steps))
    files = [path for path in (tmp_path / "out/backbone").rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) <= 15 * 2**20
    again = BackboneRun(state, 0, 1, from_weights=tmp_path / "out/backbone")
    assert new_model(again, {"latents": torch.zeros(1, 3, 20, 16, 16)})


@pytest.mark.parametrize(
    "wrong", [["--finish"], ["--processes", "3"], ["--average", "0.07"], ["--branch-at", "5"], ["--branch-share", "0"]]
)
def test_wrong_options_are_one_line(run: BackboneRun, wrong: list[str], capsys):
    state = ["--state", str(run.state), "--threads", "1", "--shards", "1"]
    assert main(["backbone", *wrong, *state]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --") and error.count("\n") == 1
