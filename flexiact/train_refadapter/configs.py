"""Settings of RefAdapter's training and of its cache, with the paper's defaults."""

from dataclasses import dataclass

from flexiact.ranges import check_count, check_not_negative, check_positive, check_seed

MAX_STEPS = 2**20
"""Limit of the steps: steps of a process draw from consecutive seeds, and from here on they are the next process's."""


@dataclass(frozen=True)
class RefAdapterConfig:
    """Settings of the adapter and its training; the defaults are the paper's.

    Attributes:
        rank: Rank of every layer.
        alpha: Numerator of the layers' scale, alpha / rank.
        steps: Number of steps of AdamW.
        learning_rate: Learning rate, constant.
        batch_size: Number of videos per step and process.
        identity_weight: Weight of the identity-consistency loss (ours, see `.identity`); 0, as in the paper: none.

    Raises:
        ValueError: If a field is out of range; the message names it.
    """

    rank: int = 64
    alpha: float = 32
    steps: int = 40_000
    learning_rate: float = 1e-5
    batch_size: int = 8
    identity_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps: expected 1 to {MAX_STEPS}, got {self.steps}")
        check_positive("learning_rate", self.learning_rate)
        check_count("batch_size", self.batch_size)
        check_not_negative("identity_weight", self.identity_weight)


@dataclass(frozen=True)
class CacheConfig:
    """Settings of the cache: the parts of a clip that are kept.

    Attributes:
        windows: Number of random windows of a clip; fewer if it has fewer.
        frames: Number of random frames of the whole clip, used as conditions.
        seed: Seed of the choice and of the VAE's samples.

    Raises:
        ValueError: If a field is out of range; the message names it.
    """

    windows: int = 4
    frames: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("windows", "frames"):
            check_count(name, getattr(self, name))
        check_seed(self.seed)
