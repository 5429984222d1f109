"""Does the subject keep the target's look? Cosine of frame embeddings with the target image's.

`_upstream` compares with the generated video's own first frame, as the released code does, so that a video of another
subject can get 1. Both reward a video in which nothing moves; read them together with the dynamic degree.
"""

from metrics.features import Features, cosines
from metrics.metric import Metric


def appearance_consistency(features: Features) -> float | None:
    """Mean over all frames of the cosine with the target image: in [-1, 1]; 1 for the target image repeated."""
    made, target = features.generated, features.target
    assert made is not None and made.image_embeddings is not None
    assert target is not None and target.image_embeddings is not None
    return float(cosines(made.image_embeddings, target.image_embeddings[0]).mean())


def appearance_consistency_upstream(features: Features) -> float | None:
    """Mean over the later frames of the cosine with the video's own first frame: in [-1, 1]; None for one frame."""
    assert features.generated is not None and features.generated.image_embeddings is not None
    embeddings = features.generated.image_embeddings
    return float(cosines(embeddings[1:], embeddings[0]).mean()) if len(embeddings) > 1 else None


APPEARANCE_CONSISTENCY = Metric(
    name="appearance_consistency",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "target"),
    backend="image_encoder",
    summary="cosine of the frames with the target image; 1 for a still video",
    formula=appearance_consistency,
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("embedding_rotation", "frame_order", "time_reversal"),
)
APPEARANCE_CONSISTENCY_UPSTREAM = Metric(
    name="appearance_consistency_upstream",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated",),
    backend="image_encoder",
    summary="cosine of the frames with the video's own first frame, as in FlexiAct's released code",
    formula=appearance_consistency_upstream,
    undefined="the video has one frame",
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("embedding_rotation",),
)
