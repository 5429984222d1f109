"""What configurations refuse: values out of range, by the name of their field."""

import math
from collections.abc import Collection
from numbers import Integral


def check_count(name: str, value: object) -> None:
    """Refuse what is not an integer of 1 or more.

    Raises:
        ValueError: naming the field.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected an integer of 1 or more, got {value}")


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0.

    Raises:
        ValueError: naming the field.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Refuse what is not a finite number of 0 or more.

    Raises:
        ValueError: naming the field.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number of 0 or more, got {value}")


def check_share(name: str, value: float) -> None:
    """Refuse what is not a number in [0, 1].

    Raises:
        ValueError: naming the field.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value}")


def check_number(name: str, value: float) -> None:
    """Refuse what is not a finite number.

    Raises:
        ValueError: naming the field.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        ValueError: naming the field.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def check_seed(seed: object) -> None:
    """Refuse what a torch.Generator would not take as a seed.

    Raises:
        ValueError: unless `seed` is an integer in [0, 2**63).
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed: expected an integer, got {type(seed).__name__}")
    if not 0 <= int(seed) < 2**63:
        raise ValueError(f"seed: expected 0 <= seed < 2**63, got {seed}")
