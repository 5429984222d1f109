"""Load the backbone and the judges of a run, and set the threads of a process."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing torch takes seconds, which --help should not cost
    import torch

    from flexiact.backbone.backbone import Backbone
    from flexiact.backbone.loading import Savings
    from metrics.perception import Perception

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Networks:
    """Names of a run's networks, so that every process can load its own copies.

    Attributes:
        backbone: Name or folder for `flexiact.backbone.backbone.load_backbone`.
        refadapter: Folder of RefAdapter; None: the backbone's own.
        steps: Number of sampler steps; None: the backbone's own number.
        control: Folder of the control weights; None: the backbone's own.
        fit_share: Share of their optimiser steps that presets take, in (0, 1].
        form: Frames, height, width and rate in place of a backbone; None: there is one.
    """

    backbone: str
    refadapter: Path | None
    steps: int | None
    control: Path | None
    savings: "Savings"
    image_encoder: str | None
    puppets: bool
    fit_share: float
    form: tuple[int, int, int, float] | None = None

    def load(self, device: str) -> "tuple[Backbone, Perception]":
        """Load the backbone and the judges onto a device.

        Raises:
            ValueError: If one of them cannot be loaded.
        """
        if self.form is None:
            loaded = load(self.backbone, device, self.refadapter, self.steps, self.control, self.savings)
            backbone = replace(loaded, fit_share=self.fit_share)
        else:
            from benchmark.workers.no_model import without_model
            from flexiact.backbone.loading import resolve_device

            backbone = without_model(self.form, resolve_device(device))
        return backbone, load_judges(self.image_encoder, backbone.device, self.puppets)


def load(
    name: str,
    device: str,
    refadapter: Path | None,
    steps: int | None,
    control: Path | None = None,
    savings: "Savings | None" = None,
) -> "Backbone":
    """Load the backbone of a run, with deterministic kernels wherever torch has them.

    Raises:
        ValueError: If the backbone cannot be loaded or its weights are not finite.
    """
    import torch

    from flexiact.backbone.backbone import load_backbone
    from flexiact.backbone.loading import NO_SAVINGS
    from flexiact.memory.check import check_memory

    savings = savings or NO_SAVINGS
    check_memory(name, device, savings)  # checks the device as well, before any file is read
    # Some GPU kernels have no deterministic form; torch warns about them and uses them all the same.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # With them torch fills all new memory, to show reads of what was never written: a tenth of a transfer's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    backbone = load_backbone(name, device, refadapter, control, savings)
    return backbone if steps is None else replace(backbone, num_inference_steps=steps)


def load_judges(image_encoder: str | None, device: "torch.device", puppets: bool = True) -> "Perception":
    """Load the judges: the embedded pose estimator and either the embedded image encoder or another one.

    Args:
        image_encoder: Name for `metrics.perception.load_image_encoder`; None loads the embedded encoder.
        device: Device that the judges run on.
        puppets: True if the videos show puppets. The pose estimator knows only puppets and is left out otherwise.

    Raises:
        ValueError: If weights are missing or damaged.
    """
    from flexiact import PUPPET_WEIGHTS
    from flexiact.pose.estimators import MMPoseEstimator
    from metrics.perception import load_perception

    pose = MMPoseEstimator(PUPPET_WEIGHTS / "pose", device) if puppets else None
    return load_perception(image_encoder or PUPPET_WEIGHTS / "clip", pose, device)


def set_threads(threads: int | None) -> None:
    """Set the number of threads of this process, since it can change the last bits of a sum.

    None: $OMP_NUM_THREADS if it is set, else one per core that this process may use.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    count = threads or (int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0)))
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(count)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA reads it at its start; determinism needs it
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)
