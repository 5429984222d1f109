"""One of several processes that train RefAdapter together on the tiny backbone.

    python -m torch.distributed.run --nproc-per-node 2 ... -m tests.support.harm.two_processes DATA OUT

Each writes into OUT/<its number>/ what it ends with: of a run that went through, of one that was stopped and gone on
with, and of the command.
"""

import sys
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import Accelerator

from flexiact.backbone.backbone import Backbone
from flexiact.batches import Batch
from flexiact.refadapter import RefAdapter
from flexiact.train_refadapter import command
from flexiact.train_refadapter.__main__ import main as train_refadapter
from flexiact.train_refadapter.clip_cache import CachedClips, cache_clips
from flexiact.train_refadapter.clips import list_clips
from flexiact.train_refadapter.configs import CacheConfig, RefAdapterConfig
from flexiact.train_refadapter.trainer import LongRun, train_long
from tests.support.backbones import tiny_backbone

CACHE = CacheConfig(windows=2, frames=3, seed=3)
CONFIG = RefAdapterConfig(rank=2, alpha=2.0, steps=10, learning_rate=1e-2, batch_size=2)
OPTIONS = "--rank 2 --alpha 2 --steps 10 --learning-rate 0.01 --batch-size 2 --windows 2 --frames 3 --seed 3".split()
OPTIONS += "--ema 0.9 --checkpoint-every 4".split()


def long_run(state: Path, config: RefAdapterConfig = CONFIG) -> LongRun:
    return LongRun(config, seed=3, state=state, checkpoint_every=4, ema=0.9)


class Stopped:
    """Clips that end after some draws, as a process does that is killed then."""

    def __init__(self, clips: CachedClips, draws: int) -> None:
        self.clips, self.left, self.digest = clips, draws, clips.digest

    def draw(self, backbone: Backbone, batch_size: int, generator: torch.Generator) -> Batch:
        if self.left == 0:
            raise InterruptedError
        self.left -= 1
        return self.clips.draw(backbone, batch_size, generator)


def stopped_and_gone_on_with(
    backbone: Backbone, clips: CachedClips, run: LongRun, accelerator: Accelerator
) -> tuple[RefAdapter, list[float]]:
    """The run, but for the seven steps after which it is stopped for the first time."""
    with suppress(InterruptedError):
        train_long(backbone, Stopped(clips, 7), run, accelerator)
        raise AssertionError("was not stopped")
    return train_long(backbone, clips, run, accelerator)


def main() -> int:
    data, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    accelerator, backbone = Accelerator(), tiny_backbone()
    assert accelerator.num_processes == 2
    own = out / str(accelerator.process_index)
    clips = cache_clips(out / "cache", backbone, list_clips(data), CACHE, accelerator)
    adapter, _ = train_long(backbone, clips, long_run(out / "whole"), accelerator)
    adapter.save(own / "whole")
    adapter, _ = stopped_and_gone_on_with(backbone, clips, long_run(out / "stopped"), accelerator)
    adapter.save(own / "stopped")
    command.load_backbone = lambda *_: tiny_backbone()
    folders = ["--out", str(out / "command"), "--cache", str(out / "cache")]
    return train_refadapter([str(data), *folders, *OPTIONS])


if __name__ == "__main__":
    sys.exit(main())
