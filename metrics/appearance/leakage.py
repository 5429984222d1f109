"""Does the answer take over what it must not: the reference's looks, its place in the frame, the side it is seen from?

Three leakages are measured against what is known of the reference (`Source`). Two have a form without any truth; the
viewpoint has none, since what the right answer looks like from elsewhere is not to be seen in any of the videos.
"""

import numpy as np
from scipy.spatial import cKDTree

from metrics.appearance.appearance_error import colours_of, shown_parts, true_colours
from metrics.features import Features, cosines
from metrics.metric import Metric
from metrics.motion.centred_agreement import found_movement, true_movement
from metrics.motion.motion_agreement import agreements, found_displacements, true_displacements

MARGIN = 5.0
"""Delta E by which a colour must be nearer to the reference's than to the target's; less is shading."""

MIN_OWN_SHARE = 0.5
"""Where less of the reference's colours than this is its own by `MARGIN`, the two skins cannot be told apart."""

SAME_VIEW = 0.99
"""From this agreement on, the movements seen from the two sides are the same."""

_STILL = 1e-12
_SAME_COSINE = 1e-6


def share_nearer(colours: np.ndarray, there: cKDTree, here: cKDTree) -> float:
    """Share of Lab colours [N, 3] that are nearer to a colour there than to any colour here, by `MARGIN`."""
    return float((there.query(colours)[0] + MARGIN < here.query(colours)[0]).mean())


def leaked(shown: np.ndarray, target: np.ndarray, reference: np.ndarray) -> float | None:
    """Share of the shown Lab colours [N, 3] nearer to the reference's than to the target's; None if these are alike."""
    here, there = cKDTree(target), cKDTree(reference)
    if share_nearer(reference, there, here) < MIN_OWN_SHARE:
        return None
    return share_nearer(shown, there, here)


def appearance_leakage(features: Features) -> float | None:
    """Share of the subject's colours that are nearer to the reference's skin than to the target's: in [0, 1].

    The colours are those around the middle of the generated body's parts, where the pose estimator found them, over
    all scored frames together; each is compared with all colours (CIE L*a*b*) of both subjects.
    """
    reference, truth, source = features.reference, features.truth, features.source
    assert reference is not None and truth is not None and source is not None
    shown = [pixels for frame in shown_parts(features) for pixels in frame.values()]
    target, other = list(true_colours(truth).values()), reference.frames[source.body]
    if not (shown and target and len(other)):
        return None
    return leaked(colours_of(np.concatenate(shown)), np.concatenate(target), colours_of(other))


def appearance_leakage_embedded(features: Features) -> float | None:
    """Drift of the frames' embeddings from the target image's towards the reference's, in [0, 1].

    Mean over frames of max(0, cos(y, r) - cos(g, r)) / (1 - cos(g, r)), with y the generated frame, r the reference's
    at the same time, g the target image. 0 for a still video and 1 for the reference itself. Frames of the reference
    that look like the target image tell nothing and are left out.
    """
    made, target, reference = features.generated, features.target, features.reference
    assert made is not None and made.image_embeddings is not None
    assert target is not None and target.image_embeddings is not None
    assert reference is not None and reference.image_embeddings is not None
    if made.num_frames != reference.num_frames:
        return None
    start = cosines(reference.image_embeddings, target.image_embeddings[0])
    gained = np.maximum(cosines(made.image_embeddings, reference.image_embeddings) - start, 0.0)
    apart = 1 - start > _SAME_COSINE
    return float((gained[apart] / (1 - start[apart])).mean()) if apart.any() else None


def layout_leakage(features: Features) -> float | None:
    """Agreement with going to where the reference's joints are, minus agreement with the truth: in [-2, 2].

    Displacements from the target image as in `metrics.motion.motion_agreement`, of the counted keypoints that both
    bodies have. The reference's absolute tracks are taken as an answer: D is its position minus that in the target
    image. 0 for a still video; above 0 the answer is nearer to the reference's place than to its own.
    """
    truth, source = features.truth, features.source
    assert truth is not None and source is not None
    if len(source.keypoints) != len(truth.frames):
        return None
    first, counted = truth.first_scored_frame, truth.counted
    places = source.keypoints[first:, counted].astype(np.float64)
    both = np.isfinite(places).all((0, 2))
    there = (places - truth.target_keypoints[counted])[:, both]
    found, true = found_displacements(features)[first:, both], true_displacements(features)[:, first:, both]
    true = true[(true**2).sum((1, 2, 3)) > _STILL]
    if not len(true) or not (there**2).sum() > _STILL:
        return None
    return float(agreements(found, there[None])[0] - agreements(found, true).max())


def viewpoint_leakage(features: Features) -> float | None:
    """Agreement with the right answer as seen from the reference's side, minus agreement with the truth: in [-2, 2].

    Movements about their middle as in `metrics.motion.centred_agreement`, so that neither place nor starting pose
    matters. 0 for a still video; above 0 the body moves as the reference's camera would see it.
    """
    made, truth, source = features.generated, features.truth, features.source
    assert made is not None and truth is not None and source is not None
    if len(source.seen_from_there) != len(truth.frames):
        return None
    first, counted = truth.first_settled_frame, truth.counted
    views = [true_movement(points[:, first:, counted]) for points in (truth.keypoints, source.seen_from_there[None])]
    true, there = (view[(view**2).sum((1, 2, 3)) > _STILL] for view in views)
    if not len(true) or not len(there) or agreements(there[0], true).max() >= SAME_VIEW:
        return None
    found = found_movement(made, first, counted)
    return float(agreements(found, there)[0] - agreements(found, true).max())


_SAME = ("keypoint_order", "answer_order", "resolution", "generated_shift", "generated_amplitude")

APPEARANCE_LEAKAGE = Metric(
    name="appearance_leakage",
    version=1,
    unit="share",
    higher_is_better=False,
    bounds=(0.0, 1.0),
    needs=("generated", "reference", "truth", "source"),
    backend="pose",
    summary="share of the subject's colours that are nearer to the reference's skin than to the target's",
    formula=appearance_leakage,
    undefined="the two skins are too alike, or no part was found",
    best_when="truth",
    best_value=0.0,
    invariances=("keypoint_order", "answer_order"),
)
APPEARANCE_LEAKAGE_EMBEDDED = Metric(
    name="appearance_leakage_embedded",
    version=1,
    higher_is_better=False,
    bounds=(0.0, 1.0),
    needs=("generated", "target", "reference"),
    backend="image_encoder",
    summary="how far the frames' embeddings went from the target image's to the reference's; 0 still, 1 a copy",
    formula=appearance_leakage_embedded,
    undefined="the reference looks like the target image, or the videos differ in length",
    best_when="target",
    best_value=0.0,
    static=0.0,
    invariances=("embedding_rotation",),
)
LAYOUT_LEAKAGE = Metric(
    name="layout_leakage",
    version=1,
    higher_is_better=False,
    bounds=(-2.0, 2.0),
    needs=("generated", "target", "truth", "source"),
    backend="pose",
    summary="agreement with going to the reference's place minus agreement with the truth; 0 for a still video",
    formula=layout_leakage,
    undefined="the truth does not move, or the bodies have no counted keypoint in common",
    static=0.0,
    invariances=_SAME,
)
VIEWPOINT_LEAKAGE = Metric(
    name="viewpoint_leakage",
    version=1,
    higher_is_better=False,
    bounds=(-2.0, 2.0),
    needs=("generated", "truth", "source"),
    backend="pose",
    summary="agreement with the answer seen from the reference's side minus that with the truth; 0 when still",
    formula=viewpoint_leakage,
    undefined="the movement looks the same from both sides, or the truth does not move in the second half",
    static=0.0,
    invariances=_SAME,
)
