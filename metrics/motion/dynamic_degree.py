"""Amount of movement in a video. The tables show it next to the consistency metrics, which a still video would win."""

import numpy as np

from metrics.features import Features, steps
from metrics.metric import Metric


def dynamic_degree(features: Features) -> float | None:
    """Mean length of a visible track's step from frame to frame, as a share of the frame's diagonal: in [0, 1].

    The mean is over all tracks, background included, and over all steps whose two ends are visible. The value does not
    depend on the frame size. It depends on the frame rate: the same motion at twice the rate has half the degree.
    """
    assert features.generated is not None
    step, seen = steps(features.generated)
    if not seen.any():
        return None
    # A point can be tracked slightly beyond the frame, so a step may be longer than the diagonal.
    return float(np.linalg.norm(step[seen], axis=-1).clip(max=1.0).mean())


DYNAMIC_DEGREE = Metric(
    name="dynamic_degree",
    version=1,
    unit="frame diagonals per frame",
    higher_is_better=None,
    bounds=(0.0, 1.0),
    needs=("generated",),
    backend="tracker",
    summary="mean distance that a tracked point moves from frame to frame; 0 for a still video",
    formula=dynamic_degree,
    undefined="no point could be tracked",
    static=0.0,
    invariances=("track_order", "track_repetition", "track_shift", "unseen_positions", "resolution", "time_reversal"),
)
