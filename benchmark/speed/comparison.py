"""Run one comparison: warm up, time its variants in interleaved rounds, and measure their peak memory on a GPU."""

import resource
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmark.speed.timing import Clock, Variant, paired_ratios, spread, timed

GIB = 2**30

_SIGNIFICANT = 5  # digits of stored seconds


@dataclass(frozen=True)
class Comparison:
    """Ways to do the same task, to be compared.

    Attributes:
        setting: Sizes that were measured.
        rivals: Names of the variants that the others are divided by.
        figures: Other numbers of a variant, by name.
        left_out: Reason by name, for each variant that cannot be measured here.
    """

    title: str
    setting: str
    variants: Mapping[str, Variant]
    rivals: tuple[str, ...]
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


@torch.no_grad()
def measure(comparison: Comparison, device: torch.device, repeats: int | None = None) -> dict[str, Any]:
    """Run a comparison; the result is JSON.

    Each variant first runs once by itself to measure its peak memory on a GPU: the largest allocation minus the memory
    allocated before, that is weights and inputs. A variant that does not fit into memory is left out.
    """
    clock = device_clock(device)
    first_s: dict[str, float] = {}
    peaks: dict[str, float | None] = {}
    left_out = dict(comparison.left_out)
    for name, variant in comparison.variants.items():
        try:
            first_s[name], peaks[name] = _first_run(variant, device, clock)
        except torch.OutOfMemoryError:
            left_out[name] = "out of memory"
            torch.cuda.empty_cache()
    seconds = timed({name: comparison.variants[name] for name in first_s}, clock, first_s, repeats)
    rivals = [name for name in comparison.rivals if name in seconds]
    variants = {
        name: {
            "seconds": asdict(spread(times)),
            "ratios": {rival: asdict(paired_ratios(times, seconds[rival])) for rival in rivals if rival != name},
            "peak_gib": peaks[name],
            "figures": dict(comparison.figures.get(name, {})),
            "rounds_s": [float(f"{value:.{_SIGNIFICANT}g}") for value in times],
        }
        for name, times in seconds.items()
    }
    words = {"title": comparison.title, "setting": comparison.setting, "rivals": rivals}
    return words | {"variants": variants, "left_out": left_out}


def device_clock(device: torch.device) -> Clock:
    """Clock for measurements on a device.

    On a GPU, and with several threads, it reads wall time, once the device has finished its work. With one thread on a
    CPU it reads the processor time of this process and of its ended child processes. On an idle machine that is the
    wall time; on a busy one other work is not counted.
    """
    if device.type == "cpu":
        return time.perf_counter if torch.get_num_threads() > 1 else _processor_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def clock_name(device: torch.device) -> str:
    """Name of the quantity that `device_clock` reads."""
    return "processor time" if device_clock(device) is _processor_time else "wall time"


def _processor_time() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _first_run(variant: Variant, device: torch.device, clock: Clock) -> tuple[float, float | None]:
    """Seconds, and on a GPU the peak allocation in GiB minus the memory allocated before."""
    with variant.around():
        before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        start = clock()
        variant.run()
        seconds = clock() - start
        peak = (torch.cuda.max_memory_allocated(device) - before) / GIB if device.type == "cuda" else None
    return seconds, peak


def type_name(dtype: torch.dtype) -> str:
    """Short name of a dtype, such as `float32`."""
    return str(dtype).removeprefix("torch.")
