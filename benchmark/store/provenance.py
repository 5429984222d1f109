"""Provenance of a run's numbers: code, packages, weights, device, threads, flags. It names no person and no host."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from flexiact.media.digests import weights_digest

PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "tokenizers", "peft", "accelerate", "safetensors",
    "open_clip_torch", "mmpose", "mmengine", "mmcv-lite", "opencv-python-headless", "lpips", "av", "pillow", "numpy",
    "scipy", "pandas", "pyarrow",
)  # fmt: skip
"""Packages whose version can change a number."""

_REPOSITORY = Path(__file__).resolve().parents[2]
_RESULT_FLAGS = (
    "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_CUDA_ALLOC_CONF", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY",
)  # fmt: skip


def provenance(device: torch.device, weights: Iterable[Path], workers: int = 1) -> dict[str, Any]:
    """Everything that could explain a difference between two runs, as JSON.

    Weights are digested of the folders that exist; `workers` processes compute, each with as many threads as this one.
    """
    return {
        "code": code_state(_REPOSITORY),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _installed(name))},
        "weights": {folder.name: digest for folder in weights if (digest := weights_digest(folder))},
        "device": device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "workers": workers,
        "flags": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **{name: os.environ[name] for name in _RESULT_FLAGS if name in os.environ},
        },
    }


def code_state(folder: Path) -> dict[str, Any]:
    """Commit of a checkout, and True if files differ from the commit; both None if the folder is no checkout.

    An installed copy inside a checkout of something else, which does not track it, is none.
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", ".") is not None
    commit = _git(folder, "rev-parse", "HEAD") if tracked else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None or changes is None else bool(changes)}


def device_name(device: torch.device) -> str:
    """Name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
