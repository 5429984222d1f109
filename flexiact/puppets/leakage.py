"""How far training stays from what is tested: `python -m flexiact.puppets.leakage` prints the world card's figures."""

import argparse

import torch
from torch import Tensor

from flexiact.puppets.actions import (
    MIN_DISTANCE_TO_TEST,
    TEST_ACTIONS,
    action_distance,
    distance_to_named,
    random_action,
)
from flexiact.puppets.rigs import HELD_OUT_RIG, TRAINING_RIGS
from flexiact.puppets.scene import COLOURS, PATTERNS, Skin, is_held_out_skin

QUANTILES = (0.0, 0.01, 0.1, 0.5)


def nearest_distances(count: int, seed: int) -> Tensor:
    """Distance [count] of random training actions to the nearest test or development action."""
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor([distance_to_named(random_action(generator)) for _ in range(count)])


def as_markdown(count: int, seed: int) -> str:
    """The splits in figures."""
    names = list(TEST_ACTIONS)
    between = min(action_distance(TEST_ACTIONS[a], TEST_ACTIONS[b]) for i, a in enumerate(names) for b in names[:i])
    skins = [Skin(a, b, p, 1.0) for a in COLOURS for b in COLOURS if a != b for p in PATTERNS]
    quantiles = torch.quantile(nearest_distances(count, seed), torch.tensor(QUANTILES)).tolist()
    spread = ", ".join(f"{value:.2f} ({share:.0%})" for share, value in zip(QUANTILES, quantiles, strict=True))
    return "\n".join(
        [
            f"- Training actions keep a distance of {MIN_DISTANCE_TO_TEST} from every test and development action; "
            f"quantiles of the nearest distance over {count} drawn ones: {spread}.",
            f"- The two most alike test actions are {between:.2f} apart.",
            f"- Held-out skins: {sum(map(is_held_out_skin, skins))} of {len(skins)} combinations.",
            f"- Bodies of training: {', '.join(TRAINING_RIGS)}; held out: {HELD_OUT_RIG}.",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flexiact.puppets.leakage", description=__doc__)
    parser.add_argument("--actions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(as_markdown(options.actions, options.seed))
