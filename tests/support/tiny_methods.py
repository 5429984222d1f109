"""Methods on the smallest real backbone: their presets there, what they are given, and what they might leave behind."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import ditflow, motion_clone, motion_director, motion_inversion, pose_guided, smm
from benchmark.planning.methods import METHODS
from flexiact.backbone.backbone import Backbone
from flexiact.method import PRESETS, FlexiActConfig
from flexiact.pose.rtmpose import PUPPETS
from flexiact.task import Action, ActionTransfer, Request, Video
from tests.support.backbones import random_frames, save_tiny_control, save_tiny_refadapter, tiny_backbone
from tests.support.harness import DarkestPixels

REFERENCES = [Video(random_frames(seed), 8.0) for seed in (1, 2)]
TARGET, OTHER_TARGET = random_frames(3, 1)[0], random_frames(4, 1)[0]
CAPTION, PROMPT = "a red dog jumps", "a blue bird"

# Tables of presets, and what they hold for the tiny backbone: the paper's weights, and a fit that takes a second;
# independent of what other backbones are tuned to.
TINY_PRESETS: list[tuple[dict[str, Any], Any]] = [
    (
        PRESETS,
        FlexiActConfig().changed(embedding_tokens=4, fit_steps=25, learning_rate=3e-2, batch_size=2, crops=4),
    ),
    (
        motion_director.PRESETS,
        motion_director.PAPER.changed(rank=4, spatial_steps=10, temporal_steps=20, learning_rate=1e-2),
    ),
    (motion_inversion.PRESETS, motion_inversion.PAPER.changed(fit_steps=25)),
    (ditflow.PRESETS, ditflow.PAPER.changed(learning_rate=0.02, final_learning_rate=0.01)),
    (smm.PRESETS, smm.PAPER),
    (motion_clone.PRESETS, motion_clone.PAPER.changed(gradient_steps=2)),
    (pose_guided.PRESETS, pose_guided.PAPER.changed(estimator=PUPPETS, anchor="first", fit="size", points="all")),
]


def patch_tiny(patch: pytest.MonkeyPatch) -> None:
    """Presets, and eyes for methods that look for a figure: noise shows none, so its darkest pixels are called one."""
    for presets, config in TINY_PRESETS:
        patch.setitem(presets, "tiny", config)
    patch.setattr(pose_guided, "estimator_by_name", lambda name, device: DarkestPixels(f"darkest pixels of {name}"))
    entry = METHODS["pose_guided-true"]

    def told(backbone: Backbone) -> ActionTransfer:
        method = entry.build(backbone)
        for frames in (*(reference.frames for reference in REFERENCES), TARGET[None], OTHER_TARGET[None]):
            method.poses.tell(frames, DarkestPixels().estimate(frames)[0])
        return method

    patch.setitem(METHODS, "pose_guided-true", replace(entry, build=told))


def new_backbone(folder: Path) -> Backbone:
    refadapter = save_tiny_refadapter(folder / "refadapter", tiny_backbone())
    return tiny_backbone(refadapter=refadapter, control=save_tiny_control(folder / "control", tiny_backbone()))


_FITS: dict[tuple[Any, ...], Action] = {}


def fitted(method: ActionTransfer, reference: int = 0, seed: int = 0) -> Action:
    """The action of a reference; methods of the same class and fit configuration share it, as in the harness."""
    key = (type(method), json.dumps(method.fit_config(), sort_keys=True), reference, seed)
    if key not in _FITS:
        _FITS[key] = method.fit(REFERENCES[reference], CAPTION, seed=seed)
    return _FITS[key]


def transferred(method: ActionTransfer, action: Action, seed: int = 0) -> np.ndarray:
    return method.transfer(action, Request(TARGET, PROMPT, seed)).frames


def generators() -> dict[str, Any]:
    """The state of every global generator."""
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def trace(backbone: Backbone) -> dict[str, Any]:
    """Everything about a backbone that a method might leave changed."""
    parts = {"vae": backbone.vae, "transformer": backbone.transformer, "text_encoder": backbone.text_encoder}
    found: dict[str, Any] = {"scheduler": repr(vars(backbone.scheduler)), "generators": generators()}
    for part, network in parts.items():
        found[part] = {
            "modules": [(name, id(module), module.training) for name, module in network.named_modules()],
            "attributes": [sorted(vars(module)) for module in network.modules()],
            "hooks": [
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()
            ],
            "weights": {name: value.numpy().tobytes() for name, value in network.state_dict().items()},
            "trainable": [parameter.requires_grad for parameter in network.parameters()],
            "gradients": [parameter.grad is None for parameter in network.parameters()],
        }
    found["processors"] = [(name, id(p)) for name, p in backbone.transformer.attn_processors.items()]
    return found
