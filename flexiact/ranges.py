"""Range checks for fields of configurations; each raises a ValueError that names the field."""

import math
from collections.abc import Collection
from numbers import Integral


def check_text(name: str, value: object) -> None:
    """Refuse a value that is not a text of whole characters; a broken argument of a command may hold halves."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: letter {error.start + 1} is half a character; give the text as UTF-8") from error


def check_count(name: str, value: object) -> None:
    """Refuse a value that is not an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected an integer of 1 or more, got {value}")


def check_positive(name: str, value: float) -> None:
    """Refuse a value that is not a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Refuse a value that is not a finite number of 0 or more."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number of 0 or more, got {value}")


def check_share(name: str, value: float) -> None:
    """Refuse a value that is not a number in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value}")


def check_number(name: str, value: float) -> None:
    """Refuse a value that is not a finite number."""
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def check_seed(seed: object) -> None:
    """Refuse a seed that torch.Generator would not accept.

    Raises:
        ValueError: If `seed` is not an integer in [0, 2**63).
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed: expected an integer, got {type(seed).__name__}")
    if not 0 <= int(seed) < 2**63:
        raise ValueError(f"seed: expected 0 <= seed < 2**63, got {seed}")
