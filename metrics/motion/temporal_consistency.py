"""Does the picture hold together over time? Cosines of frame embeddings: of all pairs of frames, of adjacent ones."""

import numpy as np

from metrics.features import Features, cosines
from metrics.metric import Metric


def temporal_consistency(features: Features) -> float | None:
    """Mean cosine of all pairs of two frames: in [-1, 1]; None for one frame. A still video gets 1.

    FlexiAct's formula (section 4.1 of arXiv 2505.03730), in the paper as in its released code.
    """
    assert features.generated is not None and features.generated.image_embeddings is not None
    embeddings = features.generated.image_embeddings
    first, second = np.triu_indices(len(embeddings), k=1)
    return float(cosines(embeddings[first], embeddings[second]).mean()) if len(first) else None


def temporal_consistency_adjacent(features: Features) -> float | None:
    """Mean cosine of adjacent frames: in [-1, 1]; None for one frame. A still video gets 1.

    What VBench (arXiv 2311.17982) and others call consistency; slow drift does not lower it.
    """
    assert features.generated is not None and features.generated.image_embeddings is not None
    embeddings = features.generated.image_embeddings
    return float(cosines(embeddings[1:], embeddings[:-1]).mean()) if len(embeddings) > 1 else None


TEMPORAL_CONSISTENCY = Metric(
    name="temporal_consistency",
    version=2,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated",),
    backend="image_encoder",
    summary="cosine of all pairs of frames, as in FlexiAct's paper; 1 for a still video",
    formula=temporal_consistency,
    undefined="the video has one frame",
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("embedding_rotation", "frame_order", "time_reversal"),
)
TEMPORAL_CONSISTENCY_ADJACENT = Metric(
    name="temporal_consistency_adjacent",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated",),
    backend="image_encoder",
    summary="cosine of adjacent frames; slow drift does not lower it; 1 for a still video",
    formula=temporal_consistency_adjacent,
    undefined="the video has one frame",
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("embedding_rotation", "time_reversal"),
)
