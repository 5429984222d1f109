"""Compute what a comparison costs on a large model: `python -m benchmark.cost`. Nothing is fetched, loaded or measured.

The settings of all methods on the model say how often the transformer's blocks run; the model's sizes say what one run
costs. For L tokens of width C a block takes 24 L C^2 + 4 L^2 C operations (multiplications and additions; attention,
projections and a fourfold hidden layer). With gradients it takes three times the first part (forward, once more under
checkpointing, backward to its inputs) and four times the second. Not counted, a few percent: text encoder, VAE,
embeddings, extra tokens, optimisers and the judges.
"""

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmark.planning.methods import DITFLOW, FLEXIACT, I2V, MOTION_CLONE, MOTION_DIRECTOR, MOTION_INVERSION, SMM
from benchmark.suites.puppets import load_suite
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from flexiact.backbone.backbone import Backbone
    from flexiact.task import ActionTransfer

TFLOPS = 400.0
"""Assumed speed in 10^12 operations a second: two fifths of the 989 that an H100 is sold with, dense, bfloat16."""

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "flexiact": (FLEXIACT, {}),
    "motion_director": (MOTION_DIRECTOR, {}),
    "motion_director-animate": (MOTION_DIRECTOR, {"animate": True}),
    "motion_inversion": (MOTION_INVERSION, {}),
    "ditflow": (DITFLOW, {}),
    "smm": (SMM, {}),
    "motion_clone": (MOTION_CLONE, {}),
    "i2v": (I2V, {}),
}
"""Class and changed settings of each row; entries that differ in other settings cost the same."""

_GIB = 1024.0**3


@dataclass(frozen=True)
class Work:
    """Runs of the transformer.

    Attributes:
        plain: Number of runs without gradients, a row of a batch each.
        learned: Number of runs with gradients through the whole transformer.
        learned_stills: Number of these on a clip of one frame.
        guided: Number of runs with gradients as far as the block that guides.
        depth: Share of the blocks that a guided run takes.
    """

    plain: float = 0.0
    learned: float = 0.0
    learned_stills: float = 0.0
    guided: float = 0.0
    depth: float = 1.0


def work_of(method: "ActionTransfer", backbone: "Backbone") -> tuple[Work, Work]:
    """Runs of the transformer in a fit, and in a transfer."""
    made: Any = method  # settings are no part of the protocol
    config = made.config
    steps, guidance = config.transfer.resolved(backbone)
    sampling = float(steps * (2 if guidance > 1 else 1))
    fit, transfer = config.fit, config.transfer
    rows = getattr(fit, "batch_size", 1)
    if hasattr(transfer, "guided_share"):
        guided = made.guided_steps
        changes = getattr(transfer, "adam_steps", None) or transfer.gradient_steps
        share = (made.block + 1) / backbone.transformer.config.num_layers
        looks = len({0, *made._timesteps(), *made._levels_between()}) if hasattr(made, "_timesteps") else 1
        return Work(plain=looks), Work(plain=sampling, guided=guided * changes, depth=share)
    if hasattr(fit, "temporal_steps"):
        stills = fit.spatial_steps * rows
        look = Work(plain=sampling, learned_stills=stills if transfer.animate else 0)
        return Work(learned=fit.temporal_steps * rows, learned_stills=stills), look
    return Work(learned=getattr(fit, "fit_steps", 0) * rows), Work(plain=sampling)


def operations(work: Work, backbone: "Backbone") -> float:
    """Number of operations of some work on a backbone."""
    clip, clip_learned = _run(backbone, backbone.latent_shape[0])
    _, still_learned = _run(backbone, 1)
    learned = work.learned + work.guided * work.depth
    return work.plain * clip + learned * clip_learned + work.learned_stills * still_learned


def _run(backbone: "Backbone", latent_frames: int) -> tuple[float, float]:
    """Operations of one run over a clip without and with gradients."""
    config = backbone.transformer.config
    width, tokens = config.num_attention_heads * config.attention_head_dim, _tokens(backbone, latent_frames)
    linear, attention = 24 * tokens * width**2 * config.num_layers, 4 * tokens**2 * width * config.num_layers
    return linear + attention, 3 * linear + 4 * attention


def _tokens(backbone: "Backbone", latent_frames: int) -> int:
    """Tokens of text and of a clip."""
    config = backbone.transformer.config
    _, _, height, width = backbone.latent_shape
    frames = -(-latent_frames // (config.patch_size_t or 1))
    return int(config.max_text_seq_length + frames * (height // config.patch_size) * (width // config.patch_size))


def memory_gib(fit: Work, transfer: Work, backbone: "Backbone", transfer_gib: float, fit_gib: float) -> float:
    """Peak memory of a method in GiB, without savings.

    A guiding pass keeps the input of each block up to the one that guides, and all that this one computes
    (`baselines.guidance`), beside the memory of a transfer.
    """
    config = backbone.transformer.config
    values = _tokens(backbone, backbone.latent_shape[0]) * config.num_attention_heads * config.attention_head_dim
    blocks = transfer.depth * config.num_layers + 12
    guiding = values * backbone.dtype.itemsize * blocks / _GIB if transfer.guided else 0.0
    return max(transfer_gib + guiding, fit_gib if fit.learned or transfer.learned_stills else 0.0)


def cost_page(name: str, suite_name: str, seeds: int, tflops: float) -> str:
    """The table of costs as Markdown.

    Raises:
        ValueError: If backbone or suite is unknown.
    """
    from flexiact.backbone.loading import NO_SAVINGS
    from flexiact.memory.estimate import estimate, outline
    from reports.tables.formats import markdown_rows

    suite = load_suite(suite_name)
    cases = suite.chosen(suite.case_ids)
    references, count = len({case.reference_id for case in cases}) * seeds, len(cases) * seeds
    backbone = outline(name)
    sizes = estimate(backbone)
    peaks = sizes.peak(NO_SAVINGS, ["transfer"]) / _GIB, sizes.peak(NO_SAVINGS, ["fit"]) / _GIB
    columns = ("method", "a fit, PFLOP", "a transfer, PFLOP", "memory, GiB", "all fits, h", "all transfers, h")
    lines, total = [], 0.0
    for row, (path, changes) in ROWS.items():
        fit, transfer = work_of(_built(path, backbone, **changes), backbone)
        costs = operations(fit, backbone), operations(transfer, backbone)
        hours = [n * cost / (tflops * 1e12) / 3600 for n, cost in zip((references, count), costs, strict=True)]
        total += sum(hours)
        memory = memory_gib(fit, transfer, backbone, *peaks)
        work = (f"{cost / 1e15:,.0f}" for cost in costs)
        lines.append((f"`{row}`", *work, f"{memory:.1f}", *(f"{h:.1f}" for h in hours)))
    said = f"In all {total:,.0f} GPU hours at {tflops:g} TFLOP/s: suite {suite_name}, {references} fits and {count}"
    return f"{markdown_rows(columns, lines)}\n\n{said} transfers a method, backbone {name}."


def _built(path: str, backbone: "Backbone", **changes: Any) -> "ActionTransfer":
    """The method of a class with its settings on a backbone, without RefAdapter, whose cost is small."""
    module, _, name = path.rpartition(".")
    kind: Any = getattr(import_module(module), name)
    config = kind.preset(backbone).changed(**changes)
    if hasattr(config.transfer, "refadapter_weight"):
        config = config.changed(refadapter_weight=None)
    return kind(backbone, config)


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.cost", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--backbone", default="cogvideox-5b-i2v", metavar="NAME", help="%(default)s")
    p.add_argument("--suite", default="puppets", metavar="NAME", help="puppet suite whose cases count (%(default)s)")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="number of seeds (%(default)s)")
    p.add_argument("--tflops", type=float, default=TFLOPS, help="10^12 operations a second of the GPU (%(default)s)")
    return p


def _print(options: argparse.Namespace) -> None:
    if options.seeds < 1 or not options.tflops > 0:
        raise ValueError("seeds, tflops: expected numbers above 0")
    print(cost_page(options.backbone, options.suite, options.seeds, options.tflops))


main = command(parser, _print)

if __name__ == "__main__":
    sys.exit(main())
