"""What was changed on the way in, or not read: one line on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache


def _print(where: str, what: str) -> None:
    print(f"note: {where} {what}", file=sys.stderr)


_tell: ContextVar[Callable[[str, str], object]] = ContextVar("tell", default=_print)


def note(where: object, what: str) -> None:
    """Say something about an input that is read otherwise than a user may expect.

    Args:
        where: the file or text that it is about.
        what: Words about it, beginning with a verb.
    """
    _tell.get()(str(where), what)


@contextmanager
def each_once() -> Iterator[None]:
    """Let the same note be printed once, however often it is made inside: a command may read a file twice."""
    with _told_by(cache(_print)):
        yield


@contextmanager
def collected() -> Iterator[list[tuple[str, str]]]:
    """Print no note inside, but list them for `tell`."""
    notes: list[tuple[str, str]] = []
    with _told_by(lambda where, what: notes.append((where, what))):
        yield notes


def tell(notes: Iterable[tuple[str, str]]) -> None:
    """Make one note of all that say the same: it names the first file, and how many others there are."""
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
