"""Split a run among jobs that know nothing of each other."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmark.planning.selection import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """One job's part of a run: number `index`, from 1, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This part of some items: every `count`-th one, so that the costs of neighbours spread over all parts."""
        return items[self.index - 1 :: self.count]


def parse_shard(text: str | None) -> Shard | None:
    """The shard that a text such as `3/8` names; None for None.

    Raises:
        UsageError: If the text has another form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"shard: expected I/N with I from 1 to N as in 3/8, got '{text}'")
    return Shard(int(found[1]), int(found[2]))
