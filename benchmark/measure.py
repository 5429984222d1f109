"""What a piece of work costs: wall time and peak memory, measured here and never by the one that is measured."""

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
    """Filled in when the measured block ends.

    Attributes:
        seconds: Wall time.
        peak_gib: Peak memory: torch's largest allocation on a CUDA device; on a CPU the process's largest resident set,
            loaded weights and libraries included.
    """

    seconds: float = 0.0
    peak_gib: float = 0.0


@contextmanager
def measured(device: torch.device) -> Iterator[Cost]:
    """Measure a block; the cost is filled in even when the block raises."""
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
    """Start the kernel's high-water mark anew; where that is not allowed, the mark stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _peak_rss() -> float:
    """Bytes of the largest resident set since the mark was reset."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    return float(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
