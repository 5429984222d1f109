"""Pick entries of a table by name or pattern, and answer an unknown name with the available names."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

_LISTED = 40  # longer lists are cut: nobody reads 250 case names in one line


class UsageError(ValueError):
    """Mistake that the user can correct; the message is one line."""


def select(patterns: Iterable[str], names: Sequence[str], what: str) -> list[str]:
    """Names that match any pattern, in the order of `names`, without duplicates.

    Patterns are names, shell patterns (`flexiact*`), comma-separated lists of both, or `all`; `what` names an entry.

    Raises:
        UsageError: If there is no pattern, or a pattern matches nothing.
    """
    wanted = [part.strip() for pattern in patterns for part in pattern.split(",") if part.strip()]
    if not wanted:
        raise UsageError(f"no {what} given; choose from {_listing(names)}")
    chosen: set[str] = set()
    for pattern in wanted:
        found = list(names) if pattern == "all" else [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(unknown(pattern, names, what))
        chosen.update(found)
    return [name for name in names if name in chosen]


def unknown(name: str, names: Sequence[str], what: str) -> str:
    """One line about a name that is not in the table: the closest match, then the list."""
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    guess = f" (did you mean '{folded[close[0]]}'?)" if close else ""
    return f"unknown {what} '{name}'{guess}; choose from {_listing(names)}"


def _listing(names: Sequence[str]) -> str:
    if not names:
        return "(nothing)"
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
