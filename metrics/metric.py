"""The definition of a metric: a pure formula over features, with the facts that tables and tests need."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metrics.features import Features

Backend = Literal["image_encoder", "tracker", "pose", "pixels", "perceptual", "flow", "mask"]

MEASURED_BY: dict[str, str] = {
    "image_encoder": "image_embeddings",
    "tracker": "tracks",
    "pose": "keypoints",
    "pixels": "frames",
    "perceptual": "frames",
    "flow": "frames",
    "mask": "masks",
}
"""The field of `VideoFeatures` that each backend fills in; a metric reads it from every video among its `needs`."""

INVARIANCES: dict[str, str] = {
    "keypoint_order": "the order of the keypoints does not matter",
    "answer_order": "the order of the acceptable answers does not matter",
    "generated_shift": "moving all keypoints of the generated video and of the target image by one offset",
    "generated_amplitude": "making all movements of the generated video larger or smaller by one factor",
    "resolution": "scaling all points, frames and the body size together",
    "track_order": "the order of the tracks does not matter",
    "track_repetition": "seeing every track twice",
    "track_shift": "moving all tracks by one offset",
    "track_speed": "making all movements of the tracks larger by one factor",
    "unseen_positions": "where a track is while it is invisible",
    "embedding_rotation": "one rotation of the whole embedding space",
    "frame_order": "the order of the generated frames",
    "time_reversal": "playing the generated video backwards",
}
"""The closed list of promises that `Metric.invariances` may name; a test checks each for every metric that names it."""

_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number about one generated video.

    Attributes:
        name: Key in `METRICS`.
        version: Version of the formula, raised whenever the same input gives another number.
        unit: Unit of the value; "" for a pure number.
        higher_is_better: Better direction; None where neither end is good (the value describes).
        bounds: Smallest and largest possible value, finite.
        needs: Names of fields of `Features` that must be present.
        backend: Backend that measured the fields; values of different backends are not comparable.
        summary: One line for a reader of the table.
        formula: Pure function of features that have all of `needs`; returns None where the value is not defined.
        undefined: Condition under which the formula returns None, in words.
        same_length: Whether it compares the generated video with the reference frame by frame.
        best_when: Field of `Features` that the generated video must equal to get `best_value`; None: there is none.
        best_value: Best value, exact up to rounding.
        static: Value of a still video (the target image repeated): a number, "undefined", or "varies".
        invariances: Names in `INVARIANCES`.
    """

    name: str
    version: int
    unit: str = ""
    higher_is_better: bool | None
    bounds: tuple[float, float]
    needs: tuple[str, ...]
    backend: Backend
    summary: str
    formula: Callable[[Features], float | None]
    undefined: str = ""
    same_length: bool = False
    best_when: Literal["truth", "reference", "target"] | None = None
    best_value: float | None = None
    static: float | Literal["undefined", "varies"] = "varies"
    invariances: tuple[str, ...] = ()

    def missing(self, features: Features) -> tuple[str, ...]:
        """Names of needed fields that `features` lack, such as "truth" or "generated.keypoints"."""
        gone = []
        for need in self.needs:
            part = getattr(features, need)
            if part is None:
                gone.append(need)
            elif need in ("generated", "target", "reference"):
                field = MEASURED_BY[self.backend]
                gone += [f"{need}.{field}"] if getattr(part, field) is None else []
        return tuple(gone)

    def compute(self, features: Features) -> float | None:
        """The value, or None if something is missing or the value is not defined (a skip, never a zero).

        Raises:
            ArithmeticError: If the value is not finite or out of bounds; the input or the formula is at fault.
        """
        value = None if self.missing(features) else self.formula(features)
        if value is None:
            return None
        low, high = self.bounds
        if not (math.isfinite(value) and low - _ROUNDING <= value <= high + _ROUNDING):
            raise ArithmeticError(f"{self.name}: {value} is outside [{low}, {high}]")
        return min(max(float(value), low), high)

    def skip_reason(self, features: Features) -> str:
        """The reason why `compute` returns None on these features; "" if it returns a value."""
        missing = self.missing(features)
        if missing:
            return f"missing: {', '.join(missing)}"
        made, reference = features.generated, features.reference
        if self.same_length and made and reference and made.num_frames != reference.num_frames:
            counts = f"the video has {made.num_frames} frames, the reference {reference.num_frames}"
            return f"{counts}: read both by read_clip with one length and size"
        return (self.undefined or "not defined on this input") if self.compute(features) is None else ""
