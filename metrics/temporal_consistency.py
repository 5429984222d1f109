"""Is the picture consistent from frame to frame? Cosine of adjacent frame embeddings."""

from metrics.features import Features, cosines
from metrics.metric import Metric


def temporal_consistency(features: Features) -> float | None:
    """Mean cosine of adjacent frames: in [-1, 1]; None for one frame. A still video gets 1."""
    assert features.generated is not None and features.generated.image_embeddings is not None
    embeddings = features.generated.image_embeddings
    return float(cosines(embeddings[1:], embeddings[:-1]).mean()) if len(embeddings) > 1 else None


TEMPORAL_CONSISTENCY = Metric(
    name="temporal_consistency",
    version=1,
    unit="",
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated",),
    backend="image_encoder",
    summary="cosine of adjacent frames; 1 for a still video",
    formula=temporal_consistency,
    undefined="the video has one frame",
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("embedding_rotation", "time_reversal"),
)
