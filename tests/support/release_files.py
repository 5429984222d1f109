"""Files of the authors' release at any size, with names and shapes spelled out independently of the code."""

from collections import OrderedDict
from pathlib import Path

import torch

from flexiact.checkpoints.authors import Sizes

TINY = Sizes(blocks=2, width=32)
"""Of the tiny backbone."""


def refadapter_state(sizes: Sizes, rank: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> OrderedDict:
    """A RefAdapter by the release's names; every row repeats one number, so that files of large ones stay small."""
    generator, state = torch.Generator().manual_seed(seed), OrderedDict()
    for block in range(sizes.blocks):
        for layer in ("q", "k", "v", "proj"):
            for half, (rows, columns) in (("down", (rank, sizes.width)), ("up", (sizes.width, rank))):
                name = f"transformer_blocks.{block}.attn1.processor.lora_{layer}.{half}.weight"
                state[name] = torch.randn(rows, 1, generator=generator).to(dtype).expand(rows, columns)
    return state


def embedding_state(sizes: Sizes, tokens: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> OrderedDict:
    generator, state = torch.Generator().manual_seed(seed), OrderedDict()
    for block in range(sizes.blocks):
        values = torch.randn(1, tokens, 1, generator=generator).to(dtype).expand(1, tokens, sizes.width)
        state[f"transformer_blocks.{block}.attn1.processor.motion_inversion_tokens"] = values
    return state


def dense(state: OrderedDict, seed: int = 1) -> OrderedDict:
    """The same names and types, every number another."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in state.items()}
    return OrderedDict((name, drawn[name].to(state[name].dtype)) for name in state)


def written(state: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path
