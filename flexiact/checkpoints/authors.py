"""Checkpoint files of the authors' FlexiAct release: pickled tensors by name, for a transformer of B blocks.

refadapter  transformer_blocks.{i}.attn1.processor.lora_{q,k,v,proj}.{down,up}.weight, [rank, width] and [width, rank]
embedding   transformer_blocks.{i}.attn1.processor.motion_inversion_tokens, [1, tokens, width]

The published files are for CogVideoX-5b-I2V (42 blocks, width 3072, rank 64, 226 tokens); any size is accepted. See
`flexiact.checkpoints.ours` for our form.
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

from flexiact.backbone.specs import PEFT_FOLDER
from flexiact.checkpoints.wrappers import unwrapped
from flexiact.media.files import no_content, read_tensors
from flexiact.refadapter import CONFIG_FILE, PREFIX
from flexiact.terminal.cli import one_line

Kind = Literal["refadapter", "embedding"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")
_LAYERS = {"lora_q": "to_q", "lora_k": "to_k", "lora_v": "to_v", "lora_proj": "to_out.0"}
_HALVES = {"down": "lora_A", "up": "lora_B"}
_TOKENS = "motion_inversion_tokens"
_OTHERS = {
    r"lora_(?:unet|te\d?)_": "of kohya's trainers; convert it to peft's names",
    r"\.(?:lora_[AB]|lora[._](?:down|up))\.": f"of peft or diffusers; put it into a folder {PEFT_FOLDER}",
}
"""Names of other LoRAs, and what to do with a file of them."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a transformer that decide whether a checkpoint fits."""

    blocks: int
    width: int

    @classmethod
    def of(cls, transformer: CogVideoXTransformer3DModel) -> "Sizes":
        """The sizes of a transformer, from its configuration; its weights may be on any device, including meta."""
        config = transformer.config
        return cls(config.num_layers, config.num_attention_heads * config.attention_head_dim)


@dataclass(frozen=True, eq=False)
class Release:
    """The content of one file of the release, as checked by `checked`.

    Attributes:
        kind: Kind of the file.
        tensors: Tensors on the CPU by the release's names, in the order of its files; all of one floating-point dtype.
        sizes: Sizes of the transformer that the file was made for.
        inner: Rank of a RefAdapter; number of tokens per block of an embedding.
        source: Name of the file.
    """

    kind: Kind
    tensors: dict[str, torch.Tensor]
    sizes: Sizes
    inner: int
    source: str = ""

    @property
    def dtype(self) -> str:
        """The dtype of the tensors: float32, bfloat16 or float16."""
        return str(next(iter(self.tensors.values())).dtype).removeprefix("torch.")

    def require(self, kind: Kind) -> None:
        """Refuse the other kind.

        Raises:
            ValueError: If the kinds differ; the message names both.
        """
        if self.kind != kind:
            raise ValueError(f"{kind}: expected one, got a file of the kind {self.kind}")


def refadapter_names(blocks: int) -> dict[str, str]:
    """The release's names of a RefAdapter in the order of its files, each with peft's name."""
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
    """Read a file of the release as tensors only, never as code; wrappers of other programs are removed.

    Args:
        path: Path to the file (a pickle or safetensors), to a folder that holds exactly one such file, or to the output
            folder of the release's training, whose last `checkpoint-N` counts.
        sizes: Sizes of the backbone; None: the file's own, which must agree with each other.

    Raises:
        ValueError: If there is no file or there are several, it is damaged, or `checked` refuses it.
    """
    if (path / CONFIG_FILE).is_file():
        raise ValueError(f"checkpoint: {path} is in our form already")
    file = _file_in(path) if path.is_dir() else path
    state = unwrapped(file.name, _loaded(file), holds_release)
    refuse_others(path, state)
    if _is_safetensors(file) and not holds_release(state):
        raise ValueError(f"checkpoint: {path} is in our form already, or of another model ({_some(list(state))})")
    return replace(checked(state, sizes), source=file.name)


def holds_release(names: Iterable[Any]) -> bool:
    """True if any name is one of the release, with any prefix."""
    return any(re.search(rf"\.processor\.(?:[\w]+\.)?(?:lora_\w+\.|{_TOKENS}$)", str(name)) for name in names)


def refuse_others(path: Path, names: Iterable[Any]) -> None:
    """Refuse a file that holds another LoRA, by its names.

    Raises:
        ValueError: If it does; the message says what to do with it.
    """
    names = [str(name) for name in names]
    others = next((what for pattern, what in _OTHERS.items() if re.search(pattern, " ".join(names))), "")
    if others and not holds_release(names):
        raise ValueError(f"checkpoint: {path} holds a LoRA by the names {others}")


def checked(state: Mapping[str, Any], sizes: Sizes | None = None) -> Release:
    """Check every name, shape, dtype and value of tensors by the release's names.

    Raises:
        ValueError: If a tensor is missing, unknown, of another shape or dtype, or not finite; the message names it.
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
    """Write a file in the format of the release's training.

    Raises:
        ValueError: If the file exists or cannot be written.
    """
    # Copies, because a view would be saved with its whole storage; a stream, because torch stores the name of a path.
    with creating(path) as partial, partial.open("wb") as stream:
        torch.save({name: tensor.clone() for name, tensor in release.tensors.items()}, stream)


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Yield a path to write to; move the file to `path`, which must not exist, on success, remove it otherwise."""
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
        with suppress(OSError):  # the file or its folder may be missing
            partial.unlink()


def _loaded(file: Path, mmap: bool = False) -> Mapping[Any, Any]:
    try:
        problem = no_content(file)
    except OSError as error:
        raise ValueError(f"checkpoint: {file} cannot be read ({one_line(error)})") from error
    if problem:
        raise ValueError(f"checkpoint: {file} {problem}")
    try:
        if _is_safetensors(file):
            return read_tensors(file)[0]
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(file))
    except Exception as error:  # a damaged pickle may raise anything
        other = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        what = f", such as {other[1]}; save its tensors alone" if other else ""
        raise ValueError(f"checkpoint: {file} is cut short, damaged, or holds more than tensors{what}") from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"checkpoint: {file} holds {_described(loaded)}, expected tensors by name")
    return loaded


def _is_safetensors(file: Path) -> bool:
    """True if a file begins as safetensors do, whatever its name: with the length of a JSON object, and that object."""
    with file.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _file_in(folder: Path) -> Path:
    if any(folder.glob("*.distcp")):
        raise ValueError(
            f"checkpoint: {folder} is a distributed checkpoint; make one file of it with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    steps = {int(m[1]): path for path in folder.iterdir() if (m := re.fullmatch(r"checkpoint-(\d+)", path.name))}
    if not files and steps and steps[max(steps)].is_dir():
        return _file_in(steps[max(steps)])
    found, refused = [], []
    for file in files:
        try:
            state = unwrapped(file.name, _loaded(file, mmap=True), holds_release)
            refuse_others(file, state)
            _kind(state)
            found.append(file)
        except ValueError as error:
            refused.append(f"{file.name} {str(error).removeprefix('checkpoint: ').removeprefix(f'{file} ')}")
    if len(found) == 1:
        return found[0]
    if found and all(re.search(r"-\d+-of-\d+$", file.stem) for file in found):
        raise ValueError(f"checkpoint: {folder} holds one in {len(found)} parts; save it as one file")
    if found:
        raise ValueError(f"checkpoint: {folder} holds several, name one: {_some([file.name for file in found])}")
    why = f" ({_some(refused, between='; ')})" if refused else f" with a name in {', '.join(_SUFFIXES)}"
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
    why += f"; name one of its folders: {_some(inner)}" if inner else ""
    raise ValueError(f"checkpoint: {folder} holds no file of the release{why}")


def _kind(state: Mapping[Any, Any]) -> Kind:
    names = [str(name) for name in state]
    if any(name.endswith(f".{_TOKENS}") for name in names):
        return "embedding"
    if any(".processor.lora_" in name for name in names):
        return "refadapter"
    raise ValueError(f"checkpoint: holds no names of the release, but {_some(names)}")


def num_blocks(names: Iterable[Any]) -> int:
    """Number of blocks in names of either form."""
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
