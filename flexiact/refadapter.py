"""RefAdapter: a low-rank adapter on the attention of every block, so that any image may be the condition.

It is a peft LoRA on to_q, to_k, to_v and to_out.0, stored in peft's own file format. Its layers live outside the
transformer and replace the layers that they wrap only while attached. The wrapped layers are never written to.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.lora import LowRankLayers
from flexiact.backbone.specs import PEFT_FOLDER
from flexiact.media.digests import folder_digest
from flexiact.media.files import is_clutter, read_json_object, read_tensors
from flexiact.ranges import check_count, check_number, check_positive
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import note

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
PREFIX = "base_model.model."  # how peft names the wrapped model in its files
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_NAME = "refadapter"
_HARMLESS = {
    *("r", "lora_alpha", "use_rslora", "target_modules", "init_lora_weights", "lora_dropout", "inference_mode"),
    *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version", "runtime_config"),
    *("exclude_modules", "megatron_core", "megatron_config"),
}
"""Entries of peft's configuration that are read here, or have no effect once weights are learned."""

_REMEDIES = {
    ".safetensors": f"put it there {PEFT_FOLDER}",
    **dict.fromkeys(
        (".bin", ".ckpt", ".pt", ".pth"),
        "save it as safetensors; one of the authors' release is converted by `python -m flexiact.checkpoints import`",
    ),
}
"""What to do with weights of other names and formats, by suffix."""

_PLAIN_STARTS = {"gaussian", "orthogonal", "eva"}  # initial LoRA weights; other choices also change the wrapped weights


class RefAdapter:
    """The adapter's layers for one transformer; at weight 1, a layer's product is scaled by `alpha / rank`."""

    def __init__(self, transformer: CogVideoXTransformer3DModel, rank: int, alpha: float, seed: int = 0) -> None:
        """Make layers that change nothing yet (the paper has rank 64, alpha 32); `seed` draws the down halves.

        Raises:
            ValueError: If `rank` is below 1 or `alpha` not above 0.
        """
        check_count("rank", rank)
        check_positive("alpha", alpha)
        self.rank, self.alpha = rank, alpha
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS))
        self._layers = LowRankLayers(transformer, _NAME, TARGETS, config, seed)

    @classmethod
    def load(cls, folder: Path, transformer: CogVideoXTransformer3DModel) -> "RefAdapter":
        """Read a folder in peft's format.

        Raises:
            ValueError: If files are missing, damaged or for another transformer, or a weight is not finite.
        """
        rank, alpha = read_config(folder)
        try:
            weights, _ = read_tensors(folder / WEIGHTS_FILE)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"refadapter: cannot be read from {folder} ({one_line(error)})") from error
        if rank > max((side for tensor in weights.values() for side in tensor.shape), default=0):
            raise ValueError(f"refadapter: {folder / CONFIG_FILE} says rank {rank}, the weights are smaller")
        adapter = cls(transformer, rank, alpha)
        named = peft_names(folder, weights)
        adapter._layers.fill({key.removeprefix(PREFIX): tensor for key, tensor in named.items()})
        return adapter

    def save(self, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, which peft reads."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self._layers.state()
        weights = {PREFIX + key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        self._layers.config.save_pretrained(str(folder))
        # peft keeps the targets in a set, whose order changes with Python's hash seed; equal adapters need equal files.
        config = json.loads((folder / CONFIG_FILE).read_text()) | {"target_modules": list(TARGETS)}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))

    def parameters(self) -> list[nn.Parameter]:
        """The adapter's own weights, in a fixed order."""
        return self._layers.parameters()

    @contextmanager
    def attached(self, weight: float) -> Iterator[None]:
        """Let the transformer compute with the adapter at `weight`; 0 is the transformer alone, bit by bit.

        Raises:
            ValueError: If the weight is not a finite number.
        """
        check_number("refadapter_weight", weight)
        with self._layers.attached(weight):
            yield


def read_config(folder: Path) -> tuple[int, float]:
    """Rank and alpha of a folder in peft's format; products are scaled by alpha / rank.

    If `use_rslora` is set, peft divides by the square root of the rank; the returned alpha gives the same scale.

    Raises:
        ValueError: If a file is missing, or this one is damaged or sets features that these layers lack (DoRA, ...).
    """
    _check_complete(folder)
    try:
        config = read_json_object(folder / CONFIG_FILE)
    except (OSError, ValueError) as error:
        raise ValueError(f"refadapter: cannot be read from {folder} ({one_line(error)})") from error
    try:
        if (config.get("peft_type") or "LORA") == "LORA":  # others are refused below
            rank, alpha = int(config["r"]), config["lora_alpha"]
            check_positive("lora_alpha", alpha)
    except KeyError as error:
        raise ValueError(f"refadapter: {folder / CONFIG_FILE} does not say {error}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"refadapter: cannot be read from {folder} ({CONFIG_FILE}: {one_line(error)})") from error
    default = LoraConfig().to_dict()
    odd = [name for name, value in config.items() if name not in _HARMLESS and value and value != default.get(name)]
    if isinstance(config.get("init_lora_weights"), str) and config["init_lora_weights"] not in _PLAIN_STARTS:
        odd.append("init_lora_weights")
    if odd:
        settings = ", ".join(f"{name} = {config[name]}" for name in sorted(odd))
        raise ValueError(f"refadapter: {folder / CONFIG_FILE} sets {settings}, which is not supported")
    return rank, alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _check_complete(folder: Path) -> None:
    """Refuse a folder that lacks a file; say what to do with those of other programs."""
    lacking = [file for file in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / file).is_file()]
    if not lacking:
        return
    files = [path for path in sorted(folder.glob("*")) if path.suffix in _REMEDIES and not is_clutter(path)]
    others = [f", but {path.name}; {_REMEDIES[path.suffix]}" for path in files if path.name != WEIGHTS_FILE]
    raise ValueError(f"refadapter: cannot be read from {folder} (it holds no {lacking[0]}{''.join(others[:1])})")


def peft_names(folder: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a folder by peft's names; a note says if trainers wrote other words before or an adapter's name.

    Raises:
        ValueError: If two names mean the same weight.
    """
    found = {key: re.fullmatch(r".*?(transformer_blocks\..+?\.lora_[AB])(?:\.\w+)?\.weight", key) for key in weights}
    names = {key: f"{PREFIX}{match[1]}.weight" if match else key for key, match in found.items()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"refadapter: {folder / WEIGHTS_FILE} holds several adapters; save one alone")
    other = [key for key, name in names.items() if key != name]
    if other:
        note(folder / WEIGHTS_FILE, f"has names such as {other[0]}, read as {names[other[0]]}")
    return {name: weights[key] for key, name in names.items()}


def refadapter_digest(backbone: Backbone, weight: float | None) -> str | None:
    """Digest of the backbone's RefAdapter for the configuration of a method; None if `weight` is 0 or None."""
    return folder_digest(backbone.refadapter) if weight and backbone.refadapter else None


def adapted(adapter: RefAdapter | None, weight: float | None) -> AbstractContextManager[None]:
    """Attach the adapter that `load_refadapter` returned, at its weight; without an adapter nothing changes."""
    return adapter.attached(weight) if adapter and weight else nullcontext()


def load_refadapter(backbone: Backbone, weight: float | None) -> RefAdapter | None:
    """The backbone's RefAdapter for a method that uses it at `weight`; None if that is 0 or None.

    Raises:
        ValueError: If the weight is not a finite number, the backbone has no RefAdapter, or its files are damaged.
    """
    if not weight:
        return None
    check_number("refadapter_weight", weight)
    if backbone.refadapter is None:
        raise ValueError(f"refadapter_weight: backbone {backbone.name} has no RefAdapter")
    return RefAdapter.load(backbone.refadapter, backbone.transformer)
