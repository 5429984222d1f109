"""Orientation of a film's frames, as their display matrix says it."""

from functools import cache
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType


@cache
def _unknown(kind: type[SideDataType], value: object) -> SideDataType | None:
    """Name of side data that FFmpeg knows and PyAV does not, such as EXIF: one such name would make all unreadable."""
    if not isinstance(value, int):
        return None
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return cast(SideDataType, member)


SideDataType._missing_ = classmethod(_unknown)  # type: ignore[method-assign, assignment, arg-type]


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Steps that bring a frame upright by its display matrix: swap the axes, then mirror left-right, then top-bottom.

    The matrix maps (x, y) to (a x + c y, b x + d y); other angles are rounded to the nearest quarter turn.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = (int(number) for number in np.frombuffer(bytes(matrix), "<i4")[:5])
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    return swapped, (c if swapped else a) < 0, (b if swapped else d) < 0
