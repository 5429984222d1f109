"""Distances of training actions from tested actions: the figures of docs/puppets.md."""

from collections.abc import Callable

import torch
from torch import Tensor

from flexiact.puppets.world.actions import (
    MIN_DISTANCE_TO_TEST,
    TEST_ACTIONS,
    PuppetAction,
    action_distance,
    distance_to_named,
    random_action,
    random_large_action,
)
from flexiact.puppets.world.rigs import HELD_OUT_RIG, RIGS, TRAINING_RIGS
from flexiact.puppets.world.scene import COLOURS, PATTERNS, Skin, skin_split
from flexiact.ranges import check_count

QUANTILES = (0.0, 0.01, 0.1, 0.5)


def _large_action(generator: torch.Generator) -> PuppetAction:
    rig = TRAINING_RIGS[int(torch.randint(len(TRAINING_RIGS), (), generator=generator))]
    return random_large_action(generator, RIGS[rig].channels)


# Actions that each model is trained on.
TRAINING: dict[str, Callable[[torch.Generator], PuppetAction]] = {
    "backbone and RefAdapter": _large_action,
    "control weights and judges": random_action,
}


def nearest_distances(draw: Callable[[torch.Generator], PuppetAction], count: int, seed: int) -> Tensor:
    """Distance [count] of drawn actions to the nearest test or development action."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor([distance_to_named(draw(generator)) for _ in range(count)])


def _spread(distances: Tensor) -> str:
    values = torch.quantile(distances, torch.tensor(QUANTILES)).tolist()
    return ", ".join(f"{value:.2f} ({share:.0%})" for share, value in zip(QUANTILES, values, strict=True))


def as_markdown(count: int, seed: int) -> str:
    """Figures of the splits and of `count` drawn training actions, as Markdown.

    Raises:
        ValueError: If the count is below 1.
    """
    check_count("actions", count)
    names = list(TEST_ACTIONS)
    between = min(action_distance(TEST_ACTIONS[a], TEST_ACTIONS[b]) for i, a in enumerate(names) for b in names[:i])
    skins = [Skin(a, b, p, 1.0) for a in COLOURS for b in COLOURS if a != b for p in PATTERNS]
    spreads = [f"{who}: {_spread(nearest_distances(draw, count, seed))}" for who, draw in TRAINING.items()]
    return "\n".join(
        [
            f"- Training actions keep a distance of {MIN_DISTANCE_TO_TEST} from every test and development action; "
            f"quantiles of the nearest distance over {count} drawn ones: {'; '.join(spreads)}.",
            f"- The two most alike test actions are {between:.2f} apart.",
            f"- Skins: {', '.join(f'{sum(skin_split(k) == n for k in skins)} {n}' for n in ('train', 'dev', 'test'))}.",
            f"- Bodies of training: {', '.join(TRAINING_RIGS)}; held out: {HELD_OUT_RIG}.",
        ]
    )
