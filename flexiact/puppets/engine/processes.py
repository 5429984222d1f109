"""Training in several processes of one thread each, which is faster for small networks than several threads.

With `rows` and `average`, every process draws the whole batch from the step's generator, works on its rows and averages
gradients. So a step gives the same result with any number of processes, up to rounding.
"""

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException, spawn

REFUSED = "refused"
"""File in the processes' folder: why one of them ended."""


def rank() -> int:
    """Number of this process; process 0 writes files and progress bars."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rows(size: int) -> slice:
    """This process's rows of a batch.

    Raises:
        ValueError: If the batch cannot be shared evenly.
    """
    if size % count():
        raise ValueError(f"batch: {size} clips cannot be shared by {count()} processes; choose a multiple")
    share = size // count()
    return slice(rank() * share, (rank() + 1) * share)


def average(parameters: Iterable[nn.Parameter], figures: Tensor) -> Tensor:
    """Average gradients, in place, and figures (float32 [K]) over all processes in one message; return the figures."""
    if count() == 1:
        return figures
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([figures, *(g.flatten() for g in gradients)])
    dist.all_reduce(flat)
    figures, *parts = flat.div_(count()).split([len(figures), *(g.numel() for g in gradients)])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return figures


def run(processes: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)` in this process, or in `processes` new, connected ones of one thread each.

    New processes import `work`, a function of a module, and its arguments are pickled.

    Raises:
        ValueError: If `work` raises one in any process, with its text.
    """
    if processes == 1:
        work(*arguments)
        return
    with TemporaryDirectory() as folder:
        refused = Path(folder, REFUSED)
        try:
            spawn(_member, (processes, folder, work, arguments), nprocs=processes)
        except ProcessRaisedException as error:
            if refused.exists():
                raise ValueError(refused.read_text(encoding="utf-8")) from error
            raise


def _member(rank: int, processes: int, folder: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # one machine: no host name has to be resolved
    places, sizes = ("RANK", "LOCAL_RANK"), ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
    about = dict.fromkeys(places, rank) | dict.fromkeys(sizes, processes) | {"OMP_NUM_THREADS": 1}
    os.environ.update({name: str(number) for name, number in about.items()})  # by these accelerate finds the others
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=processes, timeout=timedelta(minutes=10)
    )
    try:
        work(*arguments)
    except ValueError as error:
        Path(folder, REFUSED).write_text(str(error), encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()
