"""Measure wall time and peak memory of a piece of work. The harness measures; no method reports its own cost."""

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_GIB = 1024.0**3


@dataclass
class Cost:
    """Wall time and peak memory of a block; both are set when the block ends.

    Attributes:
        seconds: Wall time.
        peak_gib: Peak memory. On a CUDA device: the most that torch allocated. On a CPU: the process's largest
            resident set, which includes loaded weights and libraries.
    """

    seconds: float = 0.0
    peak_gib: float = 0.0


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measure a block; the cost is set even if the block raises."""
    cost = Cost()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak_rss()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            cost.peak_gib = torch.cuda.max_memory_allocated(device) / _GIB
        else:
            cost.peak_gib = _peak_rss() / _GIB
        cost.seconds = time.perf_counter() - start


def _reset_peak_rss() -> None:
    """Reset the kernel's peak of the resident set; if that is not allowed, the peak stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _peak_rss() -> float:
    """Largest resident set in bytes since the last reset."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return float(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
