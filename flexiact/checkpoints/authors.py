"""Checkpoint files of the authors' FlexiAct release: pickled tensors by name, for a transformer of B blocks.

refadapter  transformer_blocks.{i}.attn1.processor.lora_{q,k,v,proj}.{down,up}.weight, [rank, width] and [width, rank]
embedding   transformer_blocks.{i}.attn1.processor.motion_inversion_tokens, [1, tokens, width]

The published files are for CogVideoX-5b-I2V (42 blocks, width 3072, rank 64, 226 tokens); any size is taken. The same
in our form is in `flexiact.checkpoints.ours`.
"""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors import SafetensorError

from flexiact.cli import one_line
from flexiact.refadapter import CONFIG_FILE, PREFIX

Kind = Literal["refadapter", "embedding"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SUFFIXES = (".bin", ".pt", ".pth")
_LAYERS = {"lora_q": "to_q", "lora_k": "to_k", "lora_v": "to_v", "lora_proj": "to_out.0"}
_HALVES = {"down": "lora_A", "up": "lora_B"}
_TOKENS = "motion_inversion_tokens"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Sizes:
    """What of a transformer decides whether a checkpoint fits."""

    blocks: int
    width: int

    @classmethod
    def of(cls, transformer: CogVideoXTransformer3DModel) -> "Sizes":
        """Of a transformer's configuration; its weights may be on any device, meta too."""
        config = transformer.config
        return cls(config.num_layers, config.num_attention_heads * config.attention_head_dim)


@dataclass(frozen=True, eq=False)
class Release:
    """What one file of the release holds, as `checked` makes it.

    Attributes:
        kind: of the file.
        tensors: on the CPU by the release's names, in the order of its files; all of one floating type.
        sizes: of the transformer that it was made for.
        inner: rank of a RefAdapter; tokens per block of an embedding.
        source: name of the file.
    """

    kind: Kind
    tensors: dict[str, torch.Tensor]
    sizes: Sizes
    inner: int
    source: str = ""

    @property
    def dtype(self) -> str:
        """Type of the numbers: float32, bfloat16 or float16."""
        return str(next(iter(self.tensors.values())).dtype).removeprefix("torch.")

    def require(self, kind: Kind) -> None:
        """Refuse the other kind.

        Raises:
            ValueError: naming both.
        """
        if self.kind != kind:
            raise ValueError(f"{kind}: expected one, got a file of the kind {self.kind}")


def refadapter_names(blocks: int) -> dict[str, str]:
    """The release's names of a RefAdapter in the order of its files, each with peft's."""
    return {
        f"transformer_blocks.{block}.attn1.processor.{old}.{half}.weight": (
            f"{PREFIX}transformer_blocks.{block}.attn1.{new}.{_HALVES[half]}.weight"
        )
        for block in range(blocks)
        for old, new in _LAYERS.items()
        for half in _HALVES
    }


def embedding_names(blocks: int) -> list[str]:
    """The release's names of an embedding."""
    return [f"transformer_blocks.{block}.attn1.processor.{_TOKENS}" for block in range(blocks)]


def load_release(path: Path, sizes: Sizes | None = None) -> Release:
    """Read a file of the release as tensors only, never as code.

    Args:
        path: of the file, of a folder that holds one such file beside others, or of the output of the release's
            training, where the last `checkpoint-N` counts.
        sizes: of the backbone; None takes the file's own, which must agree with each other.

    Raises:
        ValueError: when there is no file or there are several, it is damaged, or `checked` refuses it.
    """
    if (path / CONFIG_FILE).is_file() or path.suffix == ".safetensors":
        raise ValueError(f"checkpoint: {path} is in our form already")
    file = _file_in(path) if path.is_dir() else path
    return replace(checked(_unpickled(file), sizes), source=file.name)


def checked(state: Mapping[str, Any], sizes: Sizes | None = None) -> Release:
    """Account for every name, shape, type and number of tensors by the release's names.

    Raises:
        ValueError: naming what is missing, unknown, of another shape or type, or not finite.
    """
    kind = _kind(state)
    blocks = sizes.blocks if sizes else num_blocks(state)
    names = list(refadapter_names(blocks)) if kind == "refadapter" else embedding_names(blocks)
    _check_names(kind, state, names, blocks)
    first, axes = state[names[0]], 2 if kind == "refadapter" else 3
    if not isinstance(first, torch.Tensor) or first.dtype not in DTYPES.values():
        raise ValueError(f"{kind}: {names[0]} expected {', '.join(DTYPES)}, got {_described(first)}")
    if first.ndim != axes or 0 in first.shape:
        raise ValueError(f"{kind}: {names[0]} expected {axes} axes, none of length 0, got {_described(first)}")
    inner, width = first.shape[-2], sizes.width if sizes else first.shape[-1]
    for name in names:
        shape = [1, inner, width] if kind == "embedding" else [inner, width] if ".down." in name else [width, inner]
        expected = f"{shape} {first.dtype}"
        if _described(state[name]) != expected:
            raise ValueError(f"{kind}: {name} expected {expected}, got {_described(state[name])}")
        if not state[name].isfinite().all():
            raise ValueError(f"{kind}: {name} holds values that are not finite")
    return Release(kind, {name: state[name].detach() for name in names}, Sizes(blocks, width), inner)


def save_release(release: Release, path: Path) -> None:
    """Write a file as the release's training writes it.

    Raises:
        ValueError: when the file exists or cannot be written.
    """
    # Copies, since a view would take all that it is a view of with it; a stream, since torch writes a path's name down.
    with creating(path) as partial, partial.open("wb") as stream:
        torch.save({name: tensor.clone() for name, tensor in release.tensors.items()}, stream)


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Give a path to write to; move it onto `path`, where nothing is, when all went well, remove it otherwise."""
    if path.exists():
        raise ValueError(f"out: {path} exists; choose another")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"out: {path} cannot be written ({one_line(error)})") from error
    finally:
        with suppress(OSError):  # nothing there, or no folder for it
            partial.unlink()


def _unpickled(file: Path, mmap: bool = False) -> Mapping[Any, Any]:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_LFS_POINTER))
    except OSError as error:
        raise ValueError(f"checkpoint: {file} cannot be read ({one_line(error)})") from error
    if start == _LFS_POINTER:
        raise ValueError(f"checkpoint: {file} only points to the weights; fetch them with `git lfs pull`")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(file))
    except Exception as error:  # there is no end to how a damaged pickle can fail
        raise ValueError(f"checkpoint: {file} is cut short, damaged, or holds more than tensors") from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"checkpoint: {file} holds {_described(loaded)}, expected tensors by name")
    return loaded


def _file_in(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    steps = {int(m[1]): path for path in folder.iterdir() if (m := re.fullmatch(r"checkpoint-(\d+)", path.name))}
    if not files and steps and steps[max(steps)].is_dir():
        return _file_in(steps[max(steps)])
    found, refused = [], []
    for file in files:
        try:
            _kind(_unpickled(file, mmap=True))
            found.append(file)
        except ValueError as error:
            refused.append(f"{file.name} {str(error).removeprefix('checkpoint: ').removeprefix(f'{file} ')}")
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"checkpoint: {folder} holds several, name one: {_some([file.name for file in found])}")
    why = f" ({_some(refused, between='; ')})" if refused else f" with a name in {', '.join(_SUFFIXES)}"
    raise ValueError(f"checkpoint: {folder} holds no file of the release{why}")


def _kind(state: Mapping[Any, Any]) -> Kind:
    names = [str(name) for name in state]
    if any(name.endswith(f".{_TOKENS}") for name in names):
        return "embedding"
    if any(".processor.lora_" in name for name in names):
        return "refadapter"
    raise ValueError(f"checkpoint: holds no names of the release, but {_some(names)}")


def num_blocks(names: Iterable[Any]) -> int:
    """How many blocks names of either form speak of."""
    return len({m[1] for name in names if (m := re.search(r"transformer_blocks\.(\d+)\.", str(name)))})


def _check_names(kind: Kind, state: Mapping[str, Any], names: Sequence[str], blocks: int) -> None:
    missing = [name for name in names if name not in state]
    unknown = [str(name) for name in set(state) - set(names)]
    odd = [f"{word} {_some(group)}" for word, group in (("missing", missing), ("unknown", sorted(unknown))) if group]
    if odd:
        raise ValueError(f"{kind}: expected the {len(names)} names for {blocks} blocks; {'; '.join(odd)}")


def _described(value: object) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


def _some(names: Sequence[str], between: str = ", ", most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (between.join(names[:most]) or "nothing") + more
