"""Faster 3D convolutions on a CPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class OneDnnConv3d(TorchFunctionMode):
    """Within this context oneDNN computes 3D convolutions of float32 on a CPU; all other functions stay as they are.

    For one thread and small inputs torch prefers a kernel of its own, which takes two to five times as long. Both agree
    up to rounding. Where torch was built without oneDNN, nothing changes.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or oneDNN's in its place."""
        if func is torch.conv3d and not kwargs and _suits(*args):
            frames, weight, bias, stride, padding, dilation, groups = args
            return torch.mkldnn_convolution(frames, weight, bias, padding, stride, dilation, groups)
        return func(*args, **(kwargs or {}))


def _suits(*args: Any) -> bool:
    """True for the arguments that `torch.nn.Conv3d` passes on, if oneDNN can take them."""
    if len(args) != 7 or not torch.backends.mkldnn.is_available():
        return False
    frames, padding = args[0], args[4]
    return frames.device.type == "cpu" and frames.dtype == torch.float32 and not isinstance(padding, str)
