"""Checkpoints of long fits: a fit that was stopped goes on from its last one and ends as if it had never been stopped.

Whoever runs a fit opens `resumable` around it. Every loop of `flexiact.training.optimise` inside then stores its state
now and then, so methods need not know of it. Short fits store nothing.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from flexiact.media.files import replacing
from flexiact.media.seals import SealError, read_sealed_tensors, sealed_tensors

EVERY_S = 300.0
"""Seconds between two checkpoints, and before the first one."""


@dataclass
class FitCheckpoints:
    """Checkpoints of one fit.

    Attributes:
        folder: Folder of one file per loop; it is made with the first file.
        every_s: Seconds between two checkpoints.
        loops: Number of loops begun so far; a fit begins the same ones in the same order each time.
        earlier_s: Seconds that earlier, stopped starts of this fit have spent up to the checkpoint.
        begun: Clock at the start.
    """

    folder: Path
    every_s: float
    loops: int = 0
    earlier_s: float = 0.0
    begun: float = 0.0

    def discard(self) -> None:
        """Delete all checkpoints; the finished fit is stored elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)


_CURRENT: ContextVar[FitCheckpoints | None] = ContextVar("checkpoints", default=None)


@contextmanager
def resumable(folder: Path, every_s: float = EVERY_S) -> Iterator[FitCheckpoints]:
    """Keep checkpoints of the fit inside in a folder of its own, named after everything that the fit depends on."""
    checkpoints = FitCheckpoints(folder, every_s, begun=time.monotonic())
    token = _CURRENT.set(checkpoints)
    try:
        yield checkpoints
    finally:
        _CURRENT.reset(token)


@dataclass(eq=False)
class Loop:
    """State of one loop of optimiser steps.

    Attributes:
        checkpoints: Checkpoints of the fit.
        path: Path to this loop's file.
        parameters: Parameters that it trains, in place.
        optimiser: AdamW over these parameters.
        generator: Source of all randomness of its batches and losses.
        stored: Clock when the state was last stored.
    """

    checkpoints: FitCheckpoints
    path: Path
    parameters: Sequence[Tensor]
    optimiser: torch.optim.AdamW
    generator: torch.Generator
    stored: float

    def restore(self) -> list[Tensor]:
        """Load the stored state; return the losses of the steps done, none if there is no whole file."""
        try:
            tensors, header = read_sealed_tensors(self.path)
        except (FileNotFoundError, SafetensorError, SealError):
            return []
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"parameter/{index}"])
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": _moments(tensors)})
        self.generator.set_state(tensors["generator"])
        self.checkpoints.earlier_s = max(self.checkpoints.earlier_s, float(header["seconds"]))
        return list(tensors["losses"].to(self.parameters[0].device).unbind())

    def after_step(self, losses: Sequence[Tensor], last: bool) -> None:
        """Store the state if it is time, and at the end of a loop that was stored before.

        A state that is not finite is not stored: the fit is about to fail, and another try has to begin before it.

        Raises:
            WriteError: If it cannot be written.
        """
        due = time.monotonic() - self.stored >= self.checkpoints.every_s
        if not due and not (last and self.path.exists()):
            return
        told = torch.stack([loss.float() for loss in losses])
        if not all(torch.isfinite(values).all() for values in (told, *self.parameters)):
            return
        tensors = {f"parameter/{index}": p.detach() for index, p in enumerate(self.parameters)}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{name}": value for name, value in values.items()}
        tensors |= {"generator": self.generator.get_state(), "losses": told}
        whole = {name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        seconds = self.checkpoints.earlier_s + time.monotonic() - self.checkpoints.begun
        content = sealed_tensors(save(whole, metadata={"seconds": str(seconds)}))
        with replacing(self.path) as partial:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
        self.stored = time.monotonic()


def begin_loop(
    parameters: Sequence[Tensor], optimiser: torch.optim.AdamW, generator: torch.Generator | None
) -> Loop | None:
    """The next loop of the present `resumable` fit; None outside of one, or if nobody knows the loop's generator."""
    checkpoints = _CURRENT.get()
    if checkpoints is None or generator is None:
        return None
    path = checkpoints.folder / f"{checkpoints.loops}.safetensors"
    checkpoints.loops += 1
    return Loop(checkpoints, path, parameters, optimiser, generator, time.monotonic())


def _moments(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimiser":
            index, _, field = rest.partition("/")
            state.setdefault(int(index), {})[field] = value
    return state
