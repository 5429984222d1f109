"""Checks that every method makes: the arguments of `fit`, and that an action is its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flexiact.backbone.backbone import Backbone
from flexiact.ranges import check_seed, check_text
from flexiact.task import Action, Video


def check_fit(backbone: Backbone, reference: Video, caption: str, seed: int) -> None:
    """Refuse arguments that `fit` cannot use.

    Raises:
        ValueError: If an argument is wrong; the message names it.
    """
    check_seed(seed)
    backbone.check_frames("reference", reference.frames, backbone.num_frames)
    check_text("caption", caption)


def check_action(action: Action, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an action unless its entries have the names and shapes in `shapes`, dtype float32 and finite values.

    Raises:
        ValueError: If an entry is wrong; the message names it.
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
