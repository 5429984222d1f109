"""Types of the task: a video, a request, an action, and the protocol of every method."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from flexiact.ranges import check_seed, check_text

Action = Mapping[str, torch.Tensor]
"""The result of `fit`: CPU tensors by name, savable as safetensors; empty if a method learns nothing."""


@dataclass(frozen=True, eq=False, slots=True)
class Video:
    """Decoded frames and their rate.

    Attributes:
        frames: Frames in order, uint8 [T, H, W, 3], sRGB, T >= 1.
        fps: Frames per second, finite and > 0; the mean if the rate varies.
        times: Times of the frames in seconds from the first, float64 [T], rising; None: evenly spaced, at `fps`.
        crops: Crops of the same action that come with it, each uint8 [T, h, w, 3]; most videos have none.

    Raises:
        ValueError: If a field is not as above; the message names it.
    """

    frames: np.ndarray
    fps: float
    times: np.ndarray | None = None
    crops: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        _check_uint8("frames", self.frames, ndim=4, axes="T H W 3")
        if isinstance(self.fps, bool) or not isinstance(self.fps, int | float):
            raise ValueError(f"fps: expected a number, got {type(self.fps).__name__}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps: expected a finite rate above 0, got {self.fps}")
        if self.times is not None and (
            self.times.shape != self.frames.shape[:1] or not (np.diff(self.times) > 0).all()
        ):
            raise ValueError(f"times: expected {len(self.frames)} rising seconds, got {self.times}")
        for crop in self.crops:
            _check_uint8("crops", crop, ndim=4, axes="T H W 3")


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """One transfer to make.

    Attributes:
        target: Image that the video starts from, uint8 [H, W, 3], sRGB.
        prompt: Text for the text encoder; may be empty.
        seed: Seed of all noise in the transfer, 0 <= seed < 2**63.

    Raises:
        ValueError: If a field is not as above; the message names it.
    """

    target: np.ndarray
    prompt: str
    seed: int

    def __post_init__(self) -> None:
        _check_uint8("target", self.target, ndim=3, axes="H W 3")
        check_text("prompt", self.prompt)
        check_seed(self.seed)


@runtime_checkable
class ActionTransfer(Protocol):
    """A method: `fit` once per reference (slow), `transfer` once per target.

    There are two configurations, because they are keys of cached results: `fit_config` of a fit, both of a video. Each
    is JSON and holds exactly what its verb reads, so that variants that differ only in `transfer` share one fit. What
    `flexiact.recorded` leaves out has its neutral value.

    Attributes:
        method_id: Name of the class in keys and stored descriptions, independent of its module. It never changes, and
            no other class has it, not even a subclass.
        version: Version, raised whenever the same configuration begins to give other numbers.
        uses_reference: False for methods that read only the prompt and the target.
    """

    method_id: str
    version: int
    uses_reference: bool

    def fit_config(self) -> dict[str, Any]:
        """Everything that `fit` reads in addition to its arguments and the backbone."""

    def transfer_config(self) -> dict[str, Any]:
        """Everything that `transfer` reads in addition to its arguments and the backbone."""

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Learn the action of `reference`, which `caption` describes; all randomness comes from `seed`.

        Raises:
            ValueError: If the reference's size or length is not the backbone's; the message names the field.
        """

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` doing `action`, at the backbone's size, length and rate.

        Raises:
            ValueError: If the action is of another model or the target of another size; the message names the field.
        """


def _check_uint8(field: str, array: object, ndim: int, axes: str) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{field}: expected a numpy array [{axes}], got {type(array).__name__}")
    if array.dtype != np.uint8:
        raise ValueError(f"{field}: expected uint8 [{axes}], got {array.dtype}")
    if array.ndim != ndim or array.shape[-1] != 3:
        raise ValueError(f"{field}: expected shape [{axes}], got {list(array.shape)}")
    if 0 in array.shape:
        raise ValueError(f"{field}: empty, shape {list(array.shape)}")
