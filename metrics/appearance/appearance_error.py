"""Does the video show the right subject? Compare the skin part by part in any pose, or whole frames, with the truth.

`true_appearance_error` compares the set of colours of each body part over the whole clip with the part's colours in the
truth. A subject with the right skin in a wrong pose does well. The other two metrics compare pixels with the canonical
answer frame by frame. They count another pose as an error even if the skin is right. They read frames from
`Truth.first_settled_frame` on, because the beginning of an answer no longer matters there.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from metrics.features import Features, Truth, detected
from metrics.metric import Metric

MISS_PENALTY = 50.0
"""Delta E of a part that was not found. No part can cost more: nothing is worse than being absent."""

MIN_PART_PIXELS = 4.0
"""A part is judged if the truth shows it on this many pixels per scored frame on average; other parts are hidden."""

# The middle of a bone's flesh: it excludes the far joint, the background, and the near end, where a segment between
# keypoints only approximates the bone (an upper arm starts at the side of the chest, not inside it).
_SPAN = (0.35, 0.95)
_CORE = 0.9

_MAX_COLOURS = 500  # larger sets are subsampled, to bound the time per video

MAX_LPIPS = 8.05
"""Upper bound of LPIPS: twice the sum over its five layers of the largest weight (unit features, none negative)."""

_MIN_SSIM_SIDE_PX = 11  # the window of the structural similarity

_XYZ_OF_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65, 2 degrees) of sRGB uint8 [..., 3]: float64, L in [0, 100]. IEC 61966-2-1 and CIE 15."""
    value = np.asarray(rgb, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ_OF_RGB.T / _XYZ_OF_RGB.sum(1)
    delta = 6 / 29
    f = np.where(xyz > delta**3, np.cbrt(xyz), xyz / (3 * delta**2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def colours_of(pixels: np.ndarray) -> np.ndarray:
    """Lab colours of sRGB pixels [N, 3]; of many pixels, every k-th one, k as small as `_MAX_COLOURS` allows."""
    return lab(pixels[:: max(1, -(-len(pixels) // _MAX_COLOURS))])


def true_colours(truth: Truth) -> dict[int, np.ndarray]:
    """Lab colours [N, 3] of every part that the truth shows, over all scored frames; hidden parts are left out."""
    parts, frames = truth.parts[truth.first_scored_frame :], truth.frames[truth.first_scored_frame :]
    shown = {b: frames[parts == b] for b in range(len(truth.bones))}
    return {b: colours_of(pixels) for b, pixels in shown.items() if len(pixels) >= MIN_PART_PIXELS * len(parts)}


def _distances(ends: np.ndarray, radii: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel centre from the middle stretch of segments [B, 2, 2], in radii [B]: [B, H, W]."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    start = ends[:, 0] + _SPAN[0] * (ends[:, 1] - ends[:, 0])
    along = (_SPAN[1] - _SPAN[0]) * (ends[:, 1] - ends[:, 0])
    offset = np.stack([x, y], -1) - start[:, None, None]
    length2 = np.maximum((along**2).sum(-1), 1e-9)[:, None, None]
    where = np.clip((offset * along[:, None, None]).sum(-1) / length2, 0.0, 1.0)
    nearest = np.linalg.norm(offset - where[..., None] * along[:, None, None], axis=-1)
    # Even a thin part has the pixel that its axis runs through.
    return nearest / np.maximum(radii, 1.0)[:, None, None]


def _part_pixels(
    frame: np.ndarray, points: np.ndarray, found: np.ndarray, truth: Truth, parts: Iterable[int]
) -> dict[int, np.ndarray]:
    """Pixels [N, 3] of each of `parts` that is visible in a frame [H, W, 3], given keypoints [K, 2] and found [K]."""
    present = [b for b in parts if found[truth.bones[b]].all()]
    if not present:
        return {}
    ends = points[truth.bones[present]].astype(np.float64)
    distances = _distances(ends, truth.bone_radii_px[present].astype(np.float64), frame.shape[:2])
    owner = distances.argmin(0)
    pixels = {}
    for i, b in enumerate(present):
        core = distances[i] <= _CORE
        own = core & (owner == i)  # where parts cross, a pixel belongs to the part whose axis is nearer
        pixels[b] = frame[own if own.any() else core]
    return {b: shown for b, shown in pixels.items() if len(shown)}


@lru_cache(maxsize=1)
def shown_parts(features: Features) -> tuple[dict[int, np.ndarray], ...]:
    """sRGB pixels [N, 3] of the parts that the truth shows, where they were found, of every scored frame.

    The last answer is kept, since several metrics ask for it in turn.
    """
    made, truth = features.generated, features.truth
    assert made is not None and made.keypoints is not None and truth is not None
    found, parts = detected(made), true_colours(truth)
    return tuple(
        _part_pixels(made.frames[t], made.keypoints[t], found[t], truth, parts)
        for t in range(truth.first_scored_frame, made.num_frames)
    )


def true_appearance_error(features: Features) -> float | None:
    """Mean Delta E (CIE 1976) between the colours of the parts of the generated body and of the true one: [0, 50].

    For every part that the truth shows, let G be the colours of the generated pixels around the middle of the bone
    between the detected keypoints, and T the colours of the part's pixels in the truth, both over all scored frames.
    The part's error is the mean of two distances. The first is the median distance from G to the nearest colour of T,
    so that an occluder may cover the part for less than half of the time. The second is the mean distance from T to the
    nearest colour of G, so that a lost pattern costs. A frame without the part (a keypoint not found, or no pixel
    inside) costs `MISS_PENALTY`.

    The true frames themselves score close to 0, but not 0 where parts cross and outlines are shaded. On 100 clips
    rendered at 64x64, with true keypoints: the truth 1.4, the target image repeated 3.1, the truth blurred by 1 px 3.7
    and by 2 px 6.9, without its pattern (if it has one) 8.6, with half the saturation 9.6, with another skin 31.
    """
    assert features.truth is not None
    frames, errors = shown_parts(features), []
    for b, right in true_colours(features.truth).items():
        seen = [frame[b] for frame in frames if b in frame]
        error = MISS_PENALTY
        if seen:
            shown = colours_of(np.concatenate(seen))
            to_right, to_shown = cKDTree(right).query(shown)[0], cKDTree(shown).query(right)[0]
            error = min(float(np.median(to_right) + to_shown.mean()) / 2, MISS_PENALTY)
        share = len(seen) / len(frames)
        errors.append(share * error + (1 - share) * MISS_PENALTY)
    return float(np.mean(errors)) if errors else None


def ssim_to_truth(features: Features) -> float | None:
    """Mean structural similarity (Wang et al. 2004, Gaussian window of 11) of the settled frames with the truth's."""
    # Imported here, so that importing the table of metrics does not load torch.
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    made, truth = features.generated, features.truth
    assert made is not None and truth is not None
    if min(made.frames.shape[1:3]) < _MIN_SSIM_SIDE_PX:
        return None
    sides = [torch.from_numpy(v[truth.first_settled_frame :].copy()) for v in (made.frames, truth.frames)]
    first, second = (side.permute(0, 3, 1, 2).float() / 255 for side in sides)
    value = structural_similarity_index_measure(first, second, data_range=1.0)
    assert isinstance(value, torch.Tensor)
    return float(value)


def lpips_to_truth(features: Features) -> float | None:
    """Mean learned perceptual distance (Zhang et al. 2018, AlexNet) of the settled frames from the truth's.

    The value is in [0, `MAX_LPIPS`]; images with nothing in common score about 1.
    """
    assert features.truth is not None and features.perceptual_distance is not None
    return float(features.perceptual_distance[features.truth.first_settled_frame :].mean(dtype=np.float64))


TRUE_APPEARANCE_ERROR = Metric(
    name="true_appearance_error",
    version=2,
    unit="Delta E",
    higher_is_better=False,
    bounds=(0.0, MISS_PENALTY),
    needs=("generated", "truth"),
    backend="pose",
    summary="difference of each body part's colours from the true ones, in any pose; a part not found costs 50",
    formula=true_appearance_error,
    undefined="the truth shows no part",
    best_when="truth",
    best_value=0.0,
    invariances=("keypoint_order", "answer_order"),
)
SSIM_TO_TRUTH = Metric(
    name="ssim_to_truth",
    version=2,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "truth"),
    backend="pixels",
    summary="structural similarity with the canonical true frames of the second half, pose and background included",
    formula=ssim_to_truth,
    undefined="the frames are smaller than the window of 11 pixels",
    best_when="truth",
    best_value=1.0,
    invariances=("answer_order",),
)
LPIPS_TO_TRUTH = Metric(
    name="lpips_to_truth",
    version=2,
    higher_is_better=False,
    bounds=(0.0, MAX_LPIPS),
    needs=("generated", "truth", "perceptual_distance"),
    backend="perceptual",
    summary="learned perceptual distance (LPIPS, AlexNet) from the canonical true frames of the second half",
    formula=lpips_to_truth,
    best_when="truth",
    best_value=0.0,
    invariances=("answer_order",),
)
