"""Is it still the target's subject? By its colours, wherever it is, and by embeddings of whole frames.

The colour forms look at the pixels around the middle of the parts, where the pose estimator found them, in scored
frames. They ask what share of them is right, where `true_appearance_error` asks how far they are off. The masked form
does not see which part has which colour: it keeps its value where limbs are exchanged, and the form by part does not.
"""

import numpy as np
from scipy.spatial import cKDTree

from metrics.appearance.appearance_error import colours_of, shown_parts, true_colours
from metrics.features import Features, cosines
from metrics.metric import Metric

KEPT = 10.0
"""Delta E (CIE 1976) from one of the true colours within which a pixel has kept its colour, shading included."""


def identity_masked(features: Features) -> float | None:
    """Share of the generated subject's pixels whose colour the true subject has anywhere: in [0, 1].

    Mean over scored frames; a frame in which no part was found counts 0.
    """
    assert features.truth is not None
    right = list(true_colours(features.truth).values())
    if not right:
        return None
    tree = cKDTree(np.concatenate(right))
    frames = [list(frame.values()) for frame in shown_parts(features)]
    return float(np.mean([kept(np.concatenate(parts), tree) if parts else 0.0 for parts in frames]))


def identity_by_part(features: Features) -> float | None:
    """Share of each part's pixels whose colour this part has in the truth: in [0, 1].

    Mean over the parts that the truth shows and over scored frames; a part that was not found in a frame counts 0.
    """
    assert features.truth is not None
    right = {b: cKDTree(colours) for b, colours in true_colours(features.truth).items()}
    frames = shown_parts(features)
    shares = [kept(frame[b], tree) if b in frame else 0.0 for frame in frames for b, tree in right.items()]
    return float(np.mean(shares)) if shares else None


def kept(pixels: np.ndarray, right: cKDTree) -> float:
    """Share of sRGB pixels [N, 3] within `KEPT` of one of the right colours."""
    return float((right.query(colours_of(pixels))[0] <= KEPT).mean())


def identity_embedded(features: Features) -> float | None:
    """VBench's formula of subject consistency with an image, over the run's image encoder: in [0, 1].

    .4 of the largest cosine of a frame with the target image, .3 of the mean and .3 of the smallest cosine of adjacent
    frames, each clamped at 0. VBench (arXiv 2411.13503, "I2V subject") takes DINO ViT-B/16: not comparable with its
    numbers. As there the best single frame is enough, so that a subject that changes slowly is hardly seen.
    """
    made, target = features.generated, features.target
    assert made is not None and made.image_embeddings is not None
    assert target is not None and target.image_embeddings is not None
    if made.num_frames < 2:
        return None
    near = np.maximum(cosines(made.image_embeddings, target.image_embeddings[0]), 0.0)
    steps = np.maximum(cosines(made.image_embeddings[1:], made.image_embeddings[:-1]), 0.0)
    return float(0.4 * near.max() + 0.3 * steps.mean() + 0.3 * steps.min())


IDENTITY_MASKED = Metric(
    name="identity_masked",
    version=1,
    unit="share",
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "truth"),
    backend="pose",
    summary="share of the subject's pixels that have a colour of the true subject, whichever part they are of",
    formula=identity_masked,
    undefined="the truth shows no part",
    best_when="truth",
    best_value=1.0,
    invariances=("keypoint_order", "answer_order"),
)
IDENTITY_BY_PART = Metric(
    name="identity_by_part",
    version=1,
    unit="share",
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "truth"),
    backend="pose",
    summary="share of each part's pixels that have a true colour of this part; a part not found counts 0",
    formula=identity_by_part,
    undefined="the truth shows no part",
    best_when="truth",
    best_value=1.0,
    invariances=("keypoint_order", "answer_order"),
)
IDENTITY_EMBEDDED = Metric(
    name="identity_embedded",
    version=1,
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "target"),
    backend="image_encoder",
    summary="VBench's I2V subject formula with this run's image encoder, not DINO; 1 for a still video",
    formula=identity_embedded,
    undefined="the video has one frame",
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("embedding_rotation", "time_reversal"),
)
