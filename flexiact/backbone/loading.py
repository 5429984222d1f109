"""Load networks from files onto a device: memory savings, quantisation, and checks before anything is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, BitsAndBytesConfig, CogVideoXTransformer3DModel
from diffusers.utils import is_bitsandbytes_version
from diffusers.utils import logging as diffusers_logging
from transformers import T5EncoderModel
from transformers.utils import logging as transformers_logging

from flexiact.terminal.cli import DTYPES, QUANTISE, one_line

NETWORKS = {
    "text_encoder": T5EncoderModel,
    "transformer": CogVideoXTransformer3DModel,
    "vae": AutoencoderKLCogVideoX,
}
BITSANDBYTES = "0.48"  # the first version that places 8-bit layers without an accelerate hook on each of them
FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]


class BackboneError(ValueError):
    """A backbone that is unknown, missing or unusable; the message is one line."""


@dataclass(frozen=True)
class Savings:
    """Options that trade memory against time or exact numbers.

    Attributes:
        offload: True to let networks wait on the CPU and take turns on the device (`flexiact.backbone.offload`); no
            number changes.
        quantise: Quantisation of the transformer's linear layers by bitsandbytes: "8bit" (LLM.int8) or "4bit" (NF4).
            Numbers change, so it is part of the backbone's revision. The transformer then stays on the GPU.
        dtype: Floating-point dtype of all networks, a name in `flexiact.terminal.cli.DTYPES`; None: float32 on a CPU,
            the backbone's own on a GPU. Numbers change; it is stored with runs and is part of their keys.

    Raises:
        BackboneError: If the quantisation or the dtype is unknown.
    """

    offload: bool = False
    quantise: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.quantise is not None and self.quantise not in QUANTISE:
            raise BackboneError(f"quantise: expected one of {', '.join(QUANTISE)}, got {self.quantise!r}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise BackboneError(f"dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}")

    def dtype_on(self, device: str, own: torch.dtype) -> torch.dtype:
        """Dtype of the networks on a type of device, if the backbone's `own` on a GPU is this."""
        if self.dtype is not None:
            dtype = getattr(torch, self.dtype)
            assert isinstance(dtype, torch.dtype)
            return dtype
        return own if device == "cuda" else torch.float32

    def check(self, device: torch.device) -> None:
        """Refuse, before any file is read, options that the device does not support.

        Raises:
            BackboneError: If the transformer is to be quantised without a GPU or without bitsandbytes.
        """
        if self.quantise is None:
            return
        if device.type != "cuda":
            raise BackboneError(f"quantise: needs a GPU (CUDA), the device is {device}")
        if not is_bitsandbytes_version(">=", BITSANDBYTES):
            raise BackboneError(
                f"quantise: needs bitsandbytes {BITSANDBYTES} or later; "
                f"install it with: pip install 'bitsandbytes>={BITSANDBYTES}'"
            )


NO_SAVINGS = Savings()


def load_networks(folder: Path, device: torch.device, dtype: torch.dtype, savings: Savings) -> dict[str, Any]:
    """The networks of a folder in diffusers' layout by part, in eval mode and without gradients.

    Raises:
        BackboneError: If a weight is not finite.
        ValueError: If files of a part are missing, damaged, or lack weights.
    """
    home = torch.device("cpu") if savings.offload else device
    networks: dict[str, Any] = {}
    with _quietly():
        for part in NETWORKS:
            if savings.quantise and part == "transformer":
                config = _quantisation(savings.quantise, dtype)
                networks[part] = _read(
                    folder, part, torch_dtype=dtype, quantization_config=config, device_map={"": device}
                )
            else:
                networks[part] = _read(folder, part, torch_dtype=dtype, ignore_mismatched_sizes=True).to(home)
            networks[part].eval().requires_grad_(False)
    _check_finite(networks)
    if savings.offload:
        from flexiact.backbone.offload import take_turns  # accelerate, which training the puppets does without

        take_turns(networks, device, staying={"transformer"} if savings.quantise else set())
    return networks


def resolve_device(device: str) -> torch.device:
    """Turn a name into a device; "auto" is the GPU if there is one, otherwise the CPU.

    Raises:
        BackboneError: If the name is unknown or the device is not available.
    """
    try:
        resolved = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise BackboneError(f"device: unknown name {device!r} (known: auto, cpu, cuda, cuda:N)") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"device: {device!r} asked for, but torch sees no GPU")
    if resolved.type == "meta":
        raise BackboneError("device: 'meta' computes nothing")
    try:
        torch.zeros(1, device=resolved).add_(1)
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:  # each kind fails its own way
        reason = one_line(error).partition(". ")[0]
        raise BackboneError(f"device: {device!r} cannot be used on this machine ({reason})") from error
    return resolved


@contextmanager
def reading(part: str) -> Iterator[None]:
    """Name the part of a model on whose files a library fails.

    Raises:
        ValueError: If it does, unless the memory is too small.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged and foreign files make the libraries raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{part}: its files cannot be read ({reason}); fetch the model again") from error


def _read(folder: Path, part: str, **options: Any) -> Any:
    """A network of a folder; both libraries would draw weights that its files lack or hold in another shape."""
    with reading(part):
        network, read = NETWORKS[part].from_pretrained(
            folder, subfolder=part, output_loading_info=True, use_safetensors=True, **options
        )
    if mismatched := sorted(name for name, *_ in read["mismatched_keys"]):
        raise ValueError(
            f"{part}: {len(mismatched)} weights have other shapes than its config.json says, e.g. {mismatched[0]}; "
            "take both from one model"
        )
    # Weights for which an index names files that lack them are left on no device by diffusers, which reports none.
    missing = sorted({*read["missing_keys"], *(name for name, value in network.state_dict().items() if value.is_meta)})
    if missing:
        raise ValueError(f"{part}: its files lack {len(missing)} weights, e.g. {missing[0]}; fetch the model again")
    return network


def _quantisation(quantise: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if quantise == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _check_finite(networks: Mapping[str, Any]) -> None:
    for part, network in networks.items():
        for name, parameter in network.named_parameters():
            if not torch.isfinite(parameter).all():
                raise BackboneError(f"{part}.{name}: holds values that are not finite")


@contextmanager
def _quietly() -> Iterator[None]:
    """Let both libraries print no progress bars, and no tables of missing weights, which `_read` refuses."""
    bars = diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled()
    levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    for module in (diffusers_logging, transformers_logging):
        module.disable_progress_bar()
        module.set_verbosity_error()
    try:
        yield
    finally:
        for module, enabled, level in zip((diffusers_logging, transformers_logging), bars, levels, strict=True):
            module.set_verbosity(level)
            if enabled:
                module.enable_progress_bar()
