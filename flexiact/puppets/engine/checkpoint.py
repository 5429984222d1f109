"""State of a training run in one safetensors file, replaced atomically; nothing is ever unpickled."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flexiact.media.files import replacing

FORMAT = 1
"""Raised when the names of the tensors or of the metadata change."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, shared ones once; views, not copies."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights, named as in `weights_of`, into the model.

    Raises:
        ValueError: If the weights belong to another model.
    """
    own = weights_of(model)
    if own.keys() != weights.keys():
        raise ValueError(
            f"checkpoint: it lacks or adds {sorted(own.keys() ^ weights.keys())[:3]}; it is another model's"
        )
    for name, value in own.items():
        value.copy_(weights[name])


@dataclass
class Progress:
    """Progress of a run: its state without model and optimisers.

    Attributes:
        seed: Seed of the run.
        step: Number of optimiser steps done.
        about: Other facts that a resumed run needs, such as its origin.
        averages: Averaged weights by name, by width.
    """

    seed: int
    step: int = 0
    about: dict[str, str] = field(default_factory=dict)
    averages: dict[float, dict[str, Tensor]] = field(default_factory=dict)


def save(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write the whole state; a run killed while writing leaves the old file intact."""
    tensors = {f"model/{name}": value for name, value in weights_of(model).items()}
    for width, average in progress.averages.items():
        tensors |= {f"average/{width}/{name}": value for name, value in average.items()}
    for i, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{parameter}/{key}": value for key, value in state.items()}
    metadata = {"format": FORMAT, "seed": progress.seed, "step": progress.step, "about": progress.about}
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as partial:
        save_file(content, partial, {"run": json.dumps(metadata, sort_keys=True)})


def read_header(path: Path) -> Progress:
    """Step, seed and `about` of a checkpoint, without its tensors.

    Raises:
        ValueError: If the file has another format.
    """
    with safe_open(path, "pt") as file:
        run = json.loads((file.metadata() or {}).get("run", "{}"))
    if run.get("format") != FORMAT:
        raise ValueError(
            f"checkpoint: {path} has format {run.get('format')}, not {FORMAT}; name another --state folder"
        )
    return Progress(run["seed"], run["step"], run["about"])


def read_average(path: Path, width: float) -> dict[str, Tensor]:
    """Read one average of a checkpoint: weights by name."""
    prefix = f"average/{width}/"
    with safe_open(path, "pt") as file:
        names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 (the file is no mapping)
        return {key.removeprefix(prefix): file.get_tensor(key) for key in names}


def load(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], seed: int) -> Progress:
    """Load a checkpoint into model and optimisers and return its progress.

    Raises:
        ValueError: If the checkpoint has another seed, another model or another format.
    """
    progress = read_header(path)
    if progress.seed != seed:
        raise ValueError(f"seed: {path} was trained with seed {progress.seed}; name another --state folder")
    own, weights = weights_of(model), dict[str, Tensor]()
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (the file is no mapping)
            kind, _, rest = key.partition("/")
            if kind == "model":
                weights[rest] = file.get_tensor(key)
                continue
            number, _, name = rest.partition("/")
            if kind == "average":
                progress.averages.setdefault(float(number), {})[name] = file.get_tensor(key).to(own[name].device)
            else:
                parameter, _, entry = name.partition("/")
                states[int(number)].setdefault(int(parameter), {})[entry] = file.get_tensor(key)
    put_weights(model, weights)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return progress
