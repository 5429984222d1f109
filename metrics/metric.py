"""What a metric is: a pure formula over features and everything a table or a test has to know about it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metrics.features import Features

Backend = Literal["image_encoder", "tracker", "pose", "pixels", "perceptual"]

MEASURED_BY: dict[str, str] = {
    "image_encoder": "image_embeddings",
    "tracker": "tracks",
    "pose": "keypoints",
    "pixels": "frames",
    "perceptual": "frames",
}
"""The field of `VideoFeatures` that each backend fills in; a metric reads it of every video among its `needs`."""

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
"""The closed list of promises that `Metric.invariances` may name, each tested for every metric that names it."""

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Metric:
    """One number about one generated video.

    Attributes:
        name: its key in `METRICS`.
        version: raised whenever the same input begins to give another number.
        unit: of the value; "" for a pure number.
        higher_is_better: None where neither end is good (the value describes).
        bounds: smallest and largest possible value, finite.
        needs: fields of `Features` that must be there.
        backend: what measured them; the value is comparable only with values from the same one.
        summary: one line for a reader of the table.
        formula: the pure function. It gets features that have all of `needs`, and gives None where the value is not
            defined, as `undefined` says.
        undefined: when the formula gives None, in words.
        best_when: which field of `Features` the generated video must equal to get `best_value`; None: there is none.
        best_value: the value there, exact up to rounding.
        static: the value of a still video (the target image repeated): a number, "undefined", or "varies".
        invariances: names in `INVARIANCES`.
    """

    name: str
    version: int
    unit: str
    higher_is_better: bool | None
    bounds: tuple[float, float]
    needs: tuple[str, ...]
    backend: Backend
    summary: str
    formula: Callable[[Features], float | None]
    undefined: str = ""
    best_when: Literal["truth", "reference", "target"] | None = None
    best_value: float | None = None
    static: float | Literal["undefined", "varies"] = "varies"
    invariances: tuple[str, ...] = ()

    def missing(self, features: Features) -> tuple[str, ...]:
        """Names of what this metric needs and `features` lack, such as "truth" or "generated.keypoints"."""
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
        """The value, or None when something is missing or the value is not defined (a skip, never a zero).

        Raises:
            ArithmeticError: when the formula leaves its bounds or is not finite, which the input or the formula caused.
        """
        value = None if self.missing(features) else self.formula(features)
        if value is None:
            return None
        low, high = self.bounds
        if not (math.isfinite(value) and low - _ROUNDING <= value <= high + _ROUNDING):
            raise ArithmeticError(f"{self.name}: {value} is outside [{low}, {high}]")
        return min(max(float(value), low), high)

    def skip_reason(self, features: Features) -> str:
        """Why `compute` gives None on these features; "" when it gives a value."""
        missing = self.missing(features)
        if missing:
            return f"missing: {', '.join(missing)}"
        return (self.undefined or "not defined on this input") if self.compute(features) is None else ""
