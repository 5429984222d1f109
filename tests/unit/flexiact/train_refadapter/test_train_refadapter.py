"""RefAdapter's training: what it learns, what a stop leaves, and what several processes agree on."""

import csv
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from safetensors.torch import load_file

from flexiact import training
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_text
from flexiact.batches import Batch
from flexiact.refadapter import RefAdapter
from flexiact.sampling import Denoiser
from flexiact.train_refadapter.clip_cache import CachedClips, cache_clips
from flexiact.train_refadapter.clips import list_clips
from flexiact.train_refadapter.configs import MAX_STEPS, RefAdapterConfig
from flexiact.train_refadapter.state import update_average
from flexiact.train_refadapter.trainer import (
    LongRun,
    step_generator,
    train_long,
    train_refadapter,
)
from flexiact.training import denoising_loss
from tests.support.backbones import tiny_backbone
from tests.support.clips import write_folder
from tests.support.harm.two_processes import CACHE, CONFIG, long_run, stopped_and_gone_on_with

ROOT = Path(__file__).parents[4]


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator()


@pytest.fixture
def clips(backbone: Backbone, tmp_path: Path, accelerator: Accelerator) -> CachedClips:
    listed = list_clips(write_folder(tmp_path / "videos"))
    return cache_clips(tmp_path / "cache", backbone, listed, CACHE, accelerator)


def random_batches(backbone: Backbone, steps: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    text = encode_text(backbone, ["a dog"]).expand(2, -1, -1)
    latents = torch.randn(steps, 2, 2, *backbone.latent_shape, generator=generator).to(backbone.dtype)
    return [Batch(clean, condition, text) for clean, condition in latents]


def weights(adapter: RefAdapter) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in adapter.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def slow_training(
    backbone: Backbone, clips: CachedClips, run: LongRun, processes: int
) -> tuple[list[torch.Tensor], list[float]]:
    """The averaged weights and the losses of several processes' training, in one process and without a loop of ours."""
    adapter = RefAdapter(backbone.transformer, run.config.rank, run.config.alpha, run.seed)
    learned = adapter.parameters()
    average, losses = weights(adapter), []
    optimiser = torch.optim.AdamW(learned, lr=run.config.learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)
    for step in range(run.config.steps):
        loss = torch.zeros(())
        for process in range(processes):
            generator = step_generator(run.seed, process, step)
            batch = clips.draw(backbone, run.config.batch_size, generator)
            with adapter.attached(1.0):
                part = denoising_loss(Denoiser(backbone), backbone.scheduler, batch, generator)
            loss = loss + part / processes
        gradients = torch.autograd.grad(loss, learned)
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient * min(1.0, 1.0 / norm)
        optimiser.step()
        decay = min(run.ema, (1 + step) / (10 + step))
        average = [decay * old + (1 - decay) * new for old, new in zip(average, weights(adapter), strict=True)]
        losses.append(float(loss.detach()))
    return average, losses


def test_an_adapter_learns_and_leaves_the_backbone(backbone: Backbone):
    before = {name: value.clone() for name, value in backbone.transformer.state_dict().items()}
    config = RefAdapterConfig(rank=2, alpha=2, steps=4, learning_rate=1e-2)
    adapter, losses = train_refadapter(backbone, random_batches(backbone, 4), config, seed=0)
    again, _ = train_refadapter(backbone, random_batches(backbone, 4), config, seed=0)
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses)
    assert equal(weights(adapter), weights(again))
    assert all(value.any() for value in weights(adapter))  # the up halves start from zero
    after = backbone.transformer.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_computing_activations_twice_keeps_the_numbers(backbone: Backbone, monkeypatch: pytest.MonkeyPatch):
    config = RefAdapterConfig(rank=2, alpha=2, steps=3, learning_rate=1e-2)
    plain, _ = train_refadapter(backbone, random_batches(backbone, 3), config, seed=0)
    monkeypatch.setattr(training, "CHECKPOINTING_PARAMETERS", 1)
    again, _ = train_refadapter(backbone, random_batches(backbone, 3), config, seed=0)
    assert equal(weights(plain), weights(again))


def test_a_half_precision_backbone_trains_a_float_adapter(tmp_path: Path, accelerator: Accelerator):
    backbone = tiny_backbone(dtype=torch.bfloat16)
    config = RefAdapterConfig(rank=2, alpha=2, steps=2)
    adapter, _ = train_refadapter(backbone, random_batches(backbone, 2), config, seed=0)
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())
    listed = list_clips(write_folder(tmp_path / "videos"))
    clips = cache_clips(tmp_path / "cache", backbone, listed, CACHE, accelerator)
    assert load_file(clips.files[0])["windows"].dtype == torch.bfloat16
    adapter, _ = train_long(backbone, clips, long_run(tmp_path / "state"), accelerator)
    assert all(parameter.dtype == torch.float32 for parameter in adapter.parameters())


def test_a_long_run_follows_the_slow_one(
    backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator
):
    before = {name: value.clone() for name, value in backbone.transformer.state_dict().items()}
    adapter, losses = train_long(backbone, clips, long_run(tmp_path / "state"), accelerator)
    after = backbone.transformer.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    expected, expected_losses = slow_training(backbone, clips, long_run(tmp_path / "slow"), 1)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=0)
    torch.testing.assert_close(weights(adapter), expected, rtol=1e-3, atol=1e-4)
    rows = list(csv.DictReader((tmp_path / "state" / "curve.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    assert [float(row["loss"]) for row in rows] == losses


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_stopped_run_ends_as_one_that_was_not(
    backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator, ema: float | None
):
    runs = [replace(long_run(tmp_path / name), ema=ema) for name in ("whole", "stopped")]
    whole, losses = train_long(backbone, clips, runs[0], accelerator)
    resumed, resumed_losses = stopped_and_gone_on_with(backbone, clips, runs[1], accelerator)
    assert equal(weights(whole), weights(resumed)) and losses == resumed_losses
    assert (runs[0].state / "curve.csv").read_bytes() == (runs[1].state / "curve.csv").read_bytes()
    ended, _ = train_long(backbone, clips, runs[0], accelerator)  # nothing is left to do
    assert equal(weights(whole), weights(ended))
    for run in runs:
        assert sorted(path.name for path in run.state.iterdir()) == ["checkpoint.safetensors", "curve.csv"]


def test_more_steps_go_on_where_fewer_ended(
    backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator
):
    run = long_run(tmp_path / "state")
    train_long(backbone, clips, replace(run, config=replace(CONFIG, steps=5)), accelerator)
    more, _ = train_long(backbone, clips, run, accelerator)
    whole, _ = train_long(backbone, clips, replace(run, state=tmp_path / "whole"), accelerator)
    assert equal(weights(more), weights(whole))
    with pytest.raises(ValueError, match=r"^steps: .* at 10 already, 5 asked for"):
        train_long(backbone, clips, replace(run, config=replace(CONFIG, steps=5)), accelerator)


def test_what_a_kill_left_is_removed(backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".checkpoint.safetensors.1.partial").write_bytes(b"half")
    train_long(backbone, clips, long_run(tmp_path / "state"), accelerator)
    assert not list((tmp_path / "state").glob(".*"))


def test_a_state_of_another_run_is_refused(
    backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator
):
    run = long_run(tmp_path / "state")
    train_long(backbone, clips, run, accelerator)
    others = {
        "batch_size 2 instead of 4": replace(run, config=replace(CONFIG, batch_size=4)),
        "learning_rate 0.01 instead of 0.001": replace(run, config=replace(CONFIG, learning_rate=1e-3)),
        "rank 2 instead of 3": replace(run, config=replace(CONFIG, rank=3)),
        "seed 3 instead of 4": replace(run, seed=4),
        "ema 0.9 instead of None": replace(run, ema=None),
        "identity_weight None instead of 0.5": replace(run, config=replace(CONFIG, identity_weight=0.5)),
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match=f"^state: .* with {words}; name another --state"):
            train_long(backbone, clips, other, accelerator)
    weighted = replace(run, state=tmp_path / "weighted", config=replace(CONFIG, identity_weight=0.5))
    _, losses = train_long(backbone, clips, weighted, accelerator)
    assert losses[0] > train_long(backbone, clips, run, accelerator)[1][0]
    with pytest.raises(ValueError, match="with identity_weight 0.5 instead of None"):
        train_long(backbone, clips, replace(weighted, config=CONFIG), accelerator)
    fewer = CachedClips(clips.files[:2], clips.empty)
    with pytest.raises(ValueError, match="with clips .* instead of"):
        train_long(backbone, fewer, run, accelerator)
    with pytest.raises(ValueError, match="with backbone seed-0 instead of seed-1"):
        train_long(tiny_backbone(seed=1), clips, run, accelerator)


def test_a_damaged_state_is_refused(backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator):
    run = long_run(tmp_path / "state")
    run.state.mkdir()
    run.checkpoint.write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"^state: .*checkpoint.safetensors cannot be read"):
        train_long(backbone, clips, run, accelerator)
    torch.save({"weights": torch.zeros(1)}, run.checkpoint)  # a pickle, which could hold code
    with pytest.raises(ValueError, match=r"^state: .*checkpoint.safetensors cannot be read"):
        train_long(backbone, clips, run, accelerator)
    blocked = replace(run, state=run.checkpoint / "below")
    with pytest.raises(ValueError, match=r"^state: no folder"):
        train_long(backbone, clips, blocked, accelerator)


def test_a_loss_that_is_not_finite_stops_the_run(
    backbone: Backbone, clips: CachedClips, tmp_path: Path, accelerator: Accelerator
):
    broken = CachedClips(clips.files, torch.full_like(clips.empty, torch.nan), caption_dropout=1.0)
    run = long_run(tmp_path / "state")
    with pytest.raises(ValueError, match="^loss: not finite by step 4"):
        train_long(backbone, broken, run, accelerator)
    assert not run.checkpoint.exists()


def test_the_running_average_follows_its_formula():
    history = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average, slow = [history[0].clone()], history[0].tolist()
    for step, row in enumerate(history[1:]):
        update_average(average, [row], 0.7, step)
        decay = min(0.7, (1 + step) / (10 + step))
        slow = [decay * old + (1 - decay) * new for old, new in zip(slow, row.tolist(), strict=True)]
    torch.testing.assert_close(average[0].tolist(), slow)


def test_draws_depend_on_seed_process_and_step_alone():
    seeds = {
        step_generator(seed, process, step).initial_seed()
        for seed in (0, 1)
        for process in (0, 1, 4095)
        for step in (0, 1, MAX_STEPS - 1)
    }
    assert len(seeds) == 18 and all(0 <= seed < 2**32 for seed in seeds)
    first, again = (torch.rand(4, generator=step_generator(5, 2, 7)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"steps": MAX_STEPS + 1}, {"learning_rate": math.nan}, {"learning_rate": 0}, {"batch_size": 0}],
)
def test_a_configuration_out_of_range_is_named(change: dict):
    with pytest.raises(ValueError, match=f"^{next(iter(change))}: "):
        RefAdapterConfig(**change)


@pytest.mark.parametrize("change", [{"ema": 1.0}, {"ema": 0.0}, {"checkpoint_every": 0}, {"seed": -1}])
def test_a_run_out_of_range_is_named(tmp_path: Path, change: dict):
    with pytest.raises(ValueError, match=f"^{next(iter(change))}: "):
        replace(long_run(tmp_path), **change)


class Lines(GeneralTracker):
    """A tracker of accelerate's that keeps what it is told."""

    name = "lines"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, float]] = []

    @property
    def tracker(self) -> list[tuple[int, float]]:
        return self.lines

    def log(self, values: dict, step: int | None = None, **_: object) -> None:
        self.lines.append((step, values["loss"]))


def test_trackers_get_every_loss(backbone: Backbone, clips: CachedClips, tmp_path: Path):
    lines = Lines()
    accelerator = Accelerator(log_with=lines)
    accelerator.init_trackers("refadapter")
    _, losses = train_long(backbone, clips, long_run(tmp_path / "state"), accelerator)
    assert lines.lines == list(enumerate(losses, start=1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_learn_together(tmp_path: Path, accelerator: Accelerator):
    data = write_folder(tmp_path / "videos")
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launched = subprocess.run(
        [
            sys.executable,
            "-m",
            *launcher,
            "--master-port",
            str(free_port()),
            "-m",
            "tests.support.harm.two_processes",
            data,
            tmp_path,
        ],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=500,
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("mean loss of the last 10 steps") == 1
    ends = [tmp_path / own / name for own in ("0", "1") for name in ("whole", "stopped")] + [tmp_path / "command"]
    contents = {(end / "adapter_model.safetensors").read_bytes() for end in ends}
    assert len(contents) == 1  # in both processes, stopped or not, by the command or by the function
    states = [tmp_path / "whole", tmp_path / "stopped", tmp_path / "command.state"]
    assert len({(state / "curve.csv").read_bytes() for state in states}) == 1
    assert len({(state / "checkpoint.safetensors").read_bytes() for state in states}) == 1

    backbone = tiny_backbone()
    before = sorted((tmp_path / "cache").iterdir())
    clips = cache_clips(tmp_path / "cache", backbone, list_clips(data), CACHE, accelerator)
    assert sorted((tmp_path / "cache").iterdir()) == before  # one process encodes what two do
    expected, expected_losses = slow_training(backbone, clips, long_run(tmp_path / "slow"), 2)
    trained = RefAdapter.load(tmp_path / "command", backbone.transformer)
    torch.testing.assert_close(weights(trained), expected, rtol=1e-3, atol=1e-4)
    rows = csv.DictReader((tmp_path / "whole" / "curve.csv").read_text().splitlines())
    torch.testing.assert_close([float(row["loss"]) for row in rows], expected_losses, rtol=1e-4, atol=0)

    # One process of as many videos is another run: like losses, other draws, and not to be mixed up with this one.
    alone = long_run(tmp_path / "alone", replace(CONFIG, batch_size=4))
    adapter, losses = train_long(backbone, clips, alone, accelerator)
    assert not equal(weights(adapter), weights(trained))
    assert sum(losses) == pytest.approx(sum(expected_losses), rel=0.5)
    with pytest.raises(ValueError, match="processes 2 instead of 1"):
        train_long(backbone, clips, long_run(tmp_path / "whole"), accelerator)
