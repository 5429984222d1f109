"""Remove the wrappers that programs put around a checkpoint: entries that hold it, and prefixes of its names."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flexiact.terminal.notes import note

_MODULES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Words that DistributedDataParallel, torch.compile, FSDP and checkpointing put between the parts of a name."""

_BLOCKS = "transformer_blocks."
_DEPTH = 3  # largest depth of nested entries


def unwrapped(source: str, loaded: Mapping[Any, Any], holds: Callable[[Mapping[Any, Any]], bool]) -> Mapping[Any, Any]:
    """The tensors by their names in the model; a note on the file `source` says which wrappers were removed.

    `holds` says whether a mapping has names of the wanted kind.

    Raises:
        ValueError: If several entries hold such names, or names begin differently.
    """
    path: list[str] = []
    state = loaded
    while not holds(state) and len(path) < _DEPTH:
        entries = [key for key, value in state.items() if isinstance(value, Mapping) and _found(value, holds)]
        if not entries:
            return loaded
        if len(entries) > 1:
            names = ", ".join(map(str, entries))
            raise ValueError(f"checkpoint: {source} holds several, {names}; save one of these entries as a file")
        path.append(str(entries[0]))
        state = state[entries[0]]
    named, prefixes = _renamed(source, state)
    taken = [f"entry {'/'.join(path)}"] if path else []
    taken += [f"names without {' and '.join(repr(prefix) for prefix in prefixes)}"] if prefixes else []
    if taken:
        note(source, f"is wrapped: read as {', '.join(taken)}")
    return named


def _found(state: Mapping[Any, Any], holds: Callable[[Mapping[Any, Any]], bool], depth: int = _DEPTH) -> bool:
    inner = [value for value in state.values() if isinstance(value, Mapping)] if depth > 1 else []
    return holds(state) or any(_found(value, holds, depth - 1) for value in inner)


def _renamed(source: str, state: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values by names that begin with their block, and the removed prefixes and words; other names stay."""
    named: dict[str, Any] = {}
    dropped: set[str] = set()
    starts: set[str] = set()
    for name, value in state.items():
        parts = str(name).split(".")
        plain = ".".join(part for part in parts if part not in _MODULES)
        dropped |= {f"{part}." for part in parts if part in _MODULES}
        found = re.match(rf"(.*?){re.escape(_BLOCKS)}", plain)
        starts |= {found[1]} if found else set()
        key = plain[len(found[1]) :] if found else plain
        if key in named:
            raise ValueError(f"checkpoint: {source} has {key} twice, with other words before it")
        named[key] = value
    if len(starts) > 1:
        raise ValueError(
            f"checkpoint: {source} has names that begin differently: {', '.join(map(repr, sorted(starts)))}"
        )
    return named, sorted(dropped | (starts - {""}))
