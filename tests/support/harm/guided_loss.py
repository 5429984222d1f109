"""Watch the losses of a guided transfer."""

from typing import Any

import pytest
import torch

import baselines.guidance
import baselines.motion_clone
from flexiact.task import Request, Video
from tests.support.backbones import random_frames


def guided_losses(method: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss before every gradient that a transfer takes, from its own reference."""
    plain, losses = baselines.guidance.gradient, []

    def watched(value: torch.Tensor, loss_of: Any) -> torch.Tensor:
        def loss(value: torch.Tensor) -> torch.Tensor:
            found = loss_of(value)
            losses.append(float(found.detach()))
            return found

        return plain(value, loss)

    for module in (baselines.guidance, baselines.motion_clone):
        monkeypatch.setattr(module, "gradient", watched)
    action = method.fit(Video(random_frames(1), 8.0), "a red dog jumps", seed=0)
    method.transfer(action, Request(random_frames(2, 1)[0], "a blue bird", 0))
    return losses
