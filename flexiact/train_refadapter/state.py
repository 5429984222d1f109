"""State of a long training, and its checkpoint: one safetensors file, which cannot hold code.

The file is replaced atomically, so a run that is killed at any moment resumes from the last checkpoint.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from flexiact.media.files import read_tensors, replacing
from flexiact.terminal.cli import one_line
from flexiact.training import Optimisation, new_optimiser, take_step

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's names


class TrainingState:
    """Weights, AdamW's moments, an optional running average of the weights, and the loss of every step.

    Attributes:
        parameters: Parameters to train, in place.
        losses: Losses of the steps so far, over all processes.
        average: Running average of the parameters; None if none is kept.
    """

    def __init__(
        self, parameters: Sequence[Tensor], plan: Optimisation, ema: float | None, about: Mapping[str, Any]
    ) -> None:
        """Start before the first step.

        Args:
            parameters: Parameters to train.
            plan: Optimisation settings.
            ema: Decay of the running average, see `update_average`; None keeps none.
            about: Everything that the result depends on, as JSON values; a checkpoint with other values is refused.
        """
        self.parameters = list(parameters)
        self.losses: list[float] = []
        self.average = None if ema is None else [parameter.detach().clone() for parameter in self.parameters]
        self._plan, self._ema, self._about = plan, ema, about
        self._optimiser = new_optimiser(self.parameters, plan)

    def take(self, step: int) -> None:
        """Take a step, counted from 0, with the parameters' gradients."""
        take_step(self._optimiser, self.parameters, self._plan)
        if self.average is not None and self._ema is not None:
            update_average(self.average, [parameter.detach() for parameter in self.parameters], self._ema, step)

    def use_average(self) -> None:
        """Replace the parameters by their average, if there is one."""
        if self.average is not None:
            for parameter, average in zip(self.parameters, self.average, strict=True):
                parameter.data.copy_(average)

    def save(self, path: Path) -> None:
        """Write a checkpoint.

        Raises:
            ValueError: If it cannot be written.
        """
        named = self._named() | {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
        try:
            with replacing(path) as unfinished:
                save_file(tensors, unfinished, {"run": json.dumps(self._about)})
        except SafetensorError as error:
            raise ValueError(f"state: {path} cannot be written ({one_line(error)})") from error

    def load(self, path: Path) -> None:
        """Resume from a checkpoint, if there is one.

        Raises:
            ValueError: If it is damaged, or its run had other settings or data.
        """
        if not path.exists():
            return
        try:
            tensors, header = read_tensors(path)
            found = dict(json.loads(header["run"]))
            losses = tensors.pop("losses").tolist()
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"state: {path} cannot be read ({one_line(error)})") from error
        pairs = [(name, found.get(name), self._about.get(name)) for name in {**found, **self._about}]
        other = [f"{name} {theirs} instead of {ours}" for name, theirs, ours in pairs if theirs != ours]
        if other:
            raise ValueError(f"state: {path} is of a run with {', '.join(other)}; name another --state folder")
        self._fill(path, tensors)
        self.losses = losses

    def _named(self) -> dict[str, Tensor]:
        """Every tensor of the state after at least one step."""
        named: dict[str, Tensor] = {}
        for index, parameter in enumerate(self.parameters):
            state = self._optimiser.state[parameter]
            named |= {f"weight.{index}": parameter, f"step.{index}": state["step"]}
            named |= {f"{moment}.{index}": state[moment] for moment in MOMENTS}
        return named | {f"average.{index}": average for index, average in enumerate(self.average or [])}

    def _fill(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        kinds = ("weight", *MOMENTS) if self.average is None else ("weight", *MOMENTS, "average")
        shapes = {f"{kind}.{index}": p.shape for index, p in enumerate(self.parameters) for kind in kinds}
        shapes |= {f"step.{index}": torch.Size([]) for index in range(len(self.parameters))}
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            raise ValueError(f"state: {path} holds tensors of other names or shapes than the adapter's")
        state: dict[int, dict[str, Tensor]] = {}
        for index, parameter in enumerate(self.parameters):
            parameter.data.copy_(tensors[f"weight.{index}"])
            state[index] = {name: tensors[f"{name}.{index}"] for name in ("step", *MOMENTS)}
            if self.average is not None:
                self.average[index].copy_(tensors[f"average.{index}"])
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})


def update_average(average: list[Tensor], weights: list[Tensor], decay: float, step: int) -> None:
    """Move a running average towards the weights after a step (from 0), in place: a <- d a + (1 - d) w.

    d = min(decay, (1 + step) / (10 + step)), so the first steps, in which the weights change most, are soon forgotten.
    """
    get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))(average, weights, None)
