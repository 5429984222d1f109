"""What every method refuses: the arguments of `fit`, and an action that is not its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flexiact.backbone.backbone import Backbone
from flexiact.ranges import check_seed
from flexiact.task import Action, Video


def check_fit(backbone: Backbone, reference: Video, caption: str, seed: int) -> None:
    """Refuse what `fit` cannot take.

    Raises:
        ValueError: naming the argument.
    """
    check_seed(seed)
    backbone.check_frames("reference", reference.frames, backbone.num_frames)
    if not isinstance(caption, str):
        raise ValueError(f"caption: expected text, got {type(caption).__name__}")


def check_action(action: Action, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an action whose float32 entries are not named and shaped as said, or are not finite.

    Raises:
        ValueError: naming the entry.
    """
    if not isinstance(action, Mapping) or set(action) != set(shapes):
        names = sorted(action) if isinstance(action, Mapping) else type(action).__name__
        raise ValueError(f"action: expected entries {sorted(shapes)}, got {names}")
    for name, shape in shapes.items():
        tensor = action[name]
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"action[{name!r}]: expected a float32 tensor, got {found}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"action[{name!r}]: expected shape {list(shape)}, got {list(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"action[{name!r}]: holds values that are not finite")
