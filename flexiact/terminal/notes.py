"""Notes on inputs that were changed or partly ignored when read: one line each on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

FASTER = 1.1
"""Largest factor by which a reference may be played faster or slower without a word."""


def _print(where: str, what: str) -> None:
    print(f"note: {where} {what}", file=sys.stderr)


_tell: ContextVar[Callable[[str, str], object]] = ContextVar("tell", default=_print)


def note(where: object, what: str) -> None:
    """Print a note on a file or text that is read otherwise than a user may expect; `what` begins with a verb."""
    _tell.get()(str(where), what)


@contextmanager
def each_once() -> Iterator[None]:
    """Print equal notes only once inside, because a command may read a file twice."""
    with _told_by(cache(_print)):
        yield


@contextmanager
def collected() -> Iterator[list[tuple[str, str]]]:
    """Collect the notes made inside in a list for `tell`, instead of printing them."""
    notes: list[tuple[str, str]] = []
    with _told_by(lambda where, what: notes.append((where, what))):
        yield notes


def tell(notes: Iterable[tuple[str, str]]) -> None:
    """Merge notes with the same text into one, which names the first file and the number of others."""
    places: dict[str, dict[str, None]] = {}
    for where, what in notes:
        places.setdefault(what, {})[where] = None
    for what, (first, *others) in places.items():
        note(f"{first} (and {len(others)} more)" if others else first, what)


@contextmanager
def _told_by(tell_one: Callable[[str, str], object]) -> Iterator[None]:
    token = _tell.set(tell_one)
    try:
        yield
    finally:
        _tell.reset(token)
