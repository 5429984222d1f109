"""Does the video show what the prompt says? Cosine of frame and text embeddings.

`_upstream` reads the text that FlexiAct's released code reads: it cuts the prompt before tokenising.
"""

from metrics.features import Features, cosines
from metrics.metric import Metric

UPSTREAM_CHARACTERS = 77
"""How much of a prompt the released code embeds: CLIP's length in tokens, applied to characters."""


def text_similarity(features: Features) -> float | None:
    """Mean over all frames of the cosine with the prompt: in [-1, 1], raw (neither scaled nor clamped at 0)."""
    made = features.generated
    assert made is not None and made.image_embeddings is not None and features.prompt is not None
    return float(cosines(made.image_embeddings, features.prompt).mean())


def text_similarity_upstream(features: Features) -> float | None:
    """The same with the first `UPSTREAM_CHARACTERS` characters of the prompt: in [-1, 1]."""
    made = features.generated
    assert made is not None and made.image_embeddings is not None and features.prompt_cut is not None
    return float(cosines(made.image_embeddings, features.prompt_cut).mean())


TEXT_SIMILARITY = Metric(
    name="text_similarity",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "prompt"),
    backend="image_encoder",
    summary="cosine of the frames with the prompt; good values are far below 1, compare within one image encoder",
    formula=text_similarity,
    invariances=("embedding_rotation", "frame_order", "time_reversal"),
)
TEXT_SIMILARITY_UPSTREAM = Metric(
    name="text_similarity_upstream",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "prompt_cut"),
    backend="image_encoder",
    summary="cosine of the frames with the prompt's first 77 characters, as in FlexiAct's released code",
    formula=text_similarity_upstream,
    invariances=("embedding_rotation", "frame_order", "time_reversal"),
)
