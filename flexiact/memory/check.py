"""Compute which settings fit which card: `python -m flexiact.memory`, from configurations, not measured.

`flexiact.memory.estimate` describes the computation and its limits. Nothing is fetched or loaded, and no GPU is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from flexiact.terminal.cli import QUANTISE, OneLineParser, command

if TYPE_CHECKING:  # --help answers without the seconds that torch takes
    from flexiact.backbone.loading import Savings
    from flexiact.memory.estimate import Estimate, Job

GIB = 1024.0**3
CARDS_GIB = (24, 40, 80)
CUDA_GIB = 1.0
"""Subtracted from a card for CUDA itself and for gaps between allocations: an allowance, not a measurement."""


def parser() -> argparse.ArgumentParser:
    """The command line; reading it loads no network library."""
    p = OneLineParser(prog="python -m flexiact.memory", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--backbone", metavar="NAME", help="an entry of BACKBONES or a folder (all published models)")
    return p


def _print_tables(options: argparse.Namespace) -> None:
    from flexiact.backbone.specs import BACKBONES
    from flexiact.memory.estimate import estimate, outline

    names = [options.backbone] if options.backbone else [name for name, spec in BACKBONES.items() if spec.published]
    for name in names:
        print(table(estimate(outline(name))), end="\n\n")
    print(
        f"GiB, computed, not measured. A card counts as {CUDA_GIB:g} GiB smaller, for CUDA itself. Transfers carry a "
        "RefAdapter; fits are FlexiAct's."
    )


def table(estimate: Estimate, cards_gib: Sequence[int] = CARDS_GIB) -> str:
    """A backbone's needs with every combination of savings, and the jobs that fit each card."""
    backbone = estimate.backbone
    held = ", ".join(f"{estimate.transformer[way] / GIB:.1f} in {way}" for way in QUANTISE)
    lines = [
        f"{backbone.name}: {backbone.num_frames} frames of {backbone.height}x{backbone.width} px, "
        f"{backbone.num_video_tokens:,} video tokens, {str(backbone.dtype).removeprefix('torch.')}",
        f"weights: transformer and RefAdapter {estimate.transformer[None] / GIB:.1f} ({held}), "
        f"text encoder {estimate.text_encoder / GIB:.1f}, VAE {estimate.vae / GIB:.1f}",
        f"{'':<26}{'transfer':>10}{'fit':>10}" + "".join(f"{f'{card} GiB card':>15}" for card in cards_gib),
    ]
    for savings in _combinations():
        transfer, fit = estimate.peak(savings, ["transfer"]) / GIB, estimate.peak(savings, ["fit"]) / GIB
        fits = "".join(f"{_which(transfer, fit, card - CUDA_GIB):>15}" for card in cards_gib)
        lines.append(f"{_options(savings) or 'without options':<26}{transfer:>10.1f}{fit:>10.1f}{fits}")
    return "\n".join(lines)


def check_memory(backbone: str, device: str, savings: Savings, *, fits: bool = True) -> None:
    """Refuse jobs that need more than a GPU's free memory before anything is loaded; on a CPU nothing is checked.

    Args:
        backbone: Name or folder, as for `flexiact.backbone.specs.find_spec`.
        device: Device, as for `flexiact.backbone.loading.resolve_device`.
        savings: Options that are in use already.
        fits: True if actions will be learned; transfers alone can need less memory.

    Raises:
        BackboneError: If the memory is too small (the message says what would help), or the backbone or the device is
            unknown.
    """
    import torch

    from flexiact.backbone.loading import BackboneError, resolve_device

    target = resolve_device(device)
    savings.check(target)
    if target.type != "cuda":
        return
    from flexiact.memory.estimate import estimate, outline

    jobs: list[Job] = ["transfer", "fit"] if fits else ["transfer"]
    lacking = shortage(estimate(outline(backbone, savings)), torch.cuda.mem_get_info(target)[0], savings, jobs)
    if lacking:
        raise BackboneError(f"device: {lacking}")


def shortage(
    estimate: Estimate, free_bytes: int, savings: Savings, jobs: Collection[Job] = ("transfer", "fit")
) -> str | None:
    """One line that says why jobs do not fit the free memory and which options need less; None if they fit."""
    needed = estimate.peak(savings, jobs)
    if needed <= free_bytes:
        return None
    less = {_options(other): estimate.peak(other, jobs) for other in _combinations(savings.dtype)}
    less = {options: peak for options, peak in less.items() if peak < needed}
    fitting = {options: peak for options, peak in less.items() if peak <= free_bytes}
    remedies = ", ".join(f"{options} {peak / GIB:.1f}" for options, peak in (fitting or less).items())
    advice = "it fits with" if fitting else "no option makes it fit, less take" if less else "no option takes less"
    return (
        f"{estimate.backbone.name} needs {needed / GIB:.1f} GiB (computed, to {' and '.join(jobs)}), "
        f"{free_bytes / GIB:.1f} are free on the GPU; {advice} {remedies}"
    ).strip()


def _combinations(dtype: str | None = None) -> list[Savings]:
    from flexiact.backbone.loading import Savings

    return [Savings(offload, way, dtype) for way in (None, *QUANTISE) for offload in (False, True)]


def _options(savings: Savings) -> str:
    """Savings as command-line options."""
    given = ["--offload"] if savings.offload else []
    valued = {"--quantise": savings.quantise, "--dtype": savings.dtype}
    return " ".join([*given, *(f"{option} {value}" for option, value in valued.items() if value)])


def _which(transfer: float, fit: float, available: float) -> str:
    """The jobs that fit: "both", "transfer", "fit" or "-"."""
    fitting = [name for name, need in (("transfer", transfer), ("fit", fit)) if need <= available]
    return "both" if len(fitting) == 2 else fitting[0] if fitting else "-"


main = command(parser, _print_tables)
