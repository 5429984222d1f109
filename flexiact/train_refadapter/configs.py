"""Settings of RefAdapter's training and of its cache, with the paper's defaults."""

from dataclasses import dataclass

from flexiact.ranges import check_count, check_positive, check_seed

MAX_STEPS = 2**20
"""Steps of a process draw from neighbouring seeds; from here on they would be those of the next process."""


@dataclass(frozen=True)
class RefAdapterConfig:
    """How the adapter is made and trained; the defaults are the paper's.

    Attributes:
        rank: Rank of every layer.
        alpha: layers are scaled by alpha / rank.
        steps: Number of steps of AdamW.
        learning_rate: constant.
        batch_size: videos per step and process.

    Raises:
        ValueError: naming the field that is out of range.
    """

    rank: int = 64
    alpha: float = 32
    steps: int = 40_000
    learning_rate: float = 1e-5
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps: expected 1 to {MAX_STEPS}, got {self.steps}")
        check_positive("learning_rate", self.learning_rate)
        check_count("batch_size", self.batch_size)


@dataclass(frozen=True)
class CacheConfig:
    """What of a clip is kept.

    Attributes:
        windows: random windows of a clip, fewer where it has fewer.
        frames: random frames of the whole clip, as conditions.
        seed: Seed of the choice and of the VAE's samples.

    Raises:
        ValueError: naming the field that is out of range.
    """

    windows: int = 4
    frames: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("windows", "frames"):
            check_count(name, getattr(self, name))
        check_seed(self.seed)
