"""Skeletons: links between keypoints, drawings, and the fit of one body's keypoints to another's.

Drawings follow MimicMotion (arXiv 2406.19680, section 3.3) and AnimateAnyone (arXiv 2311.17117, section 3.2): coloured
limbs and joints on black, with a brightness equal to the estimator's confidence. Keypoints are (x, y) in pixels, pixel
centres at half-integers.
"""

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

DRAWING_VERSION = 1
"""Raised whenever the same keypoints give another picture: control weights are trained on one kind of drawing."""

_SUBPIXEL_BITS = 4
_FAR = 4.0  # largest distance of a drawn point from the frame's corner, in frame sides

_SIDES = ("left", "right")
PUPPET_LINKS = (
    ("pelvis", "chest"), ("chest", "nose"), ("pelvis", "tail_mid"), ("tail_mid", "tail_tip"),
    *((root, f"{limb}_{side}_mid") for limb, root in (("fore", "chest"), ("hind", "pelvis")) for side in _SIDES),
    *((f"{limb}_{side}_mid", f"{limb}_{side}_tip") for limb in ("fore", "hind") for side in _SIDES),
)  # fmt: skip
COCO_LINKS = (
    ("left_eye", "right_eye"),
    *(pair for s in _SIDES for pair in (
        ("nose", f"{s}_eye"), (f"{s}_eye", f"{s}_ear"), (f"{s}_ear", f"{s}_shoulder"), (f"{s}_shoulder", f"{s}_elbow"),
        (f"{s}_elbow", f"{s}_wrist"), (f"{s}_shoulder", f"{s}_hip"), (f"{s}_hip", f"{s}_knee"),
        (f"{s}_knee", f"{s}_ankle"))),
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
)  # fmt: skip
AP10K_LINKS = (
    ("left_eye", "right_eye"), ("left_eye", "nose"), ("right_eye", "nose"), ("nose", "neck"), ("neck", "root_of_tail"),
    *(pair for s in _SIDES for pair in (
        ("neck", f"{s}_shoulder"), (f"{s}_shoulder", f"{s}_elbow"), (f"{s}_elbow", f"{s}_front_paw"),
        ("root_of_tail", f"{s}_hip"), (f"{s}_hip", f"{s}_knee"), (f"{s}_knee", f"{s}_back_paw"))),
)  # fmt: skip
SKELETONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "puppets": PUPPET_LINKS,
    "coco": COCO_LINKS,
    "ap10k": AP10K_LINKS,
}
"""Linked pairs of keypoint names, for each kind of body."""

_HEAD = ("nose", *(f"{s}_eye" for s in _SIDES))
_GIRDLES = tuple(f"{s}_{joint}" for joint in ("shoulder", "hip") for s in _SIDES)
TRUNKS: Mapping[str, frozenset[str]] = {
    "puppets": frozenset(("nose", "chest", "pelvis")),
    "coco": frozenset((*_HEAD, *(f"{s}_ear" for s in _SIDES), *_GIRDLES)),
    "ap10k": frozenset((*_HEAD, "neck", *_GIRDLES, "root_of_tail")),
}
"""Keypoints of head and trunk, which move little against each other, for each kind of body in `SKELETONS`."""


@dataclass(frozen=True)
class BodyFit:
    """x' = scale * x + offset: a scale above 0, and offsets on both axes in px."""

    scale: float
    offset: tuple[float, float]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Move points [..., 2]; returns float32."""
        return np.asarray(points * self.scale + self.offset, dtype=np.float32)


def fit_slope(source: np.ndarray, target: np.ndarray, axes: Sequence[int] = (0, 1)) -> BodyFit:
    """Least squares of target = scale * source + offset over pairs of points [N, 2], with the scale of `axes` together.

    For axis 1 alone and frames of one shape, this is MimicMotion's fit. A slope falls where the two poses differ. One
    that is undetermined or not above 0 becomes 1. Without any pair nothing moves.
    """

    def scale(source: np.ndarray, target: np.ndarray) -> float:
        spread, joint = ((source * other)[:, list(axes)].sum() for other in (source, target))
        return float(joint / spread) if spread > 1e-6 and joint > 1e-6 * spread else 1.0

    return _fit(source, target, scale)


def fit_size(source: np.ndarray, target: np.ndarray) -> BodyFit:
    """The fit that gives `source` the mean place and the centroid size of `target`, over pairs of points [N, 2].

    The centroid size of Procrustes analysis is the root of the squared distances from the mean; it does not fall where
    the two poses differ. If a size is 0, the scale is 1. Without any pair nothing moves.
    """

    def scale(source: np.ndarray, target: np.ndarray) -> float:
        sizes = np.linalg.norm(source), np.linalg.norm(target)
        return float(sizes[1] / sizes[0]) if min(sizes) > 1e-3 else 1.0

    return _fit(source, target, scale)


def _fit(source: np.ndarray, target: np.ndarray, scale_of: Callable[[np.ndarray, np.ndarray], float]) -> BodyFit:
    """The fit that takes the mean of `source` to that of `target`, with a scale found on both without their means."""
    if not len(source):
        return BodyFit(1.0, (0.0, 0.0))
    source, target = source.astype(np.float64), target.astype(np.float64)
    scale = scale_of(source - source.mean(0), target - target.mean(0))
    x, y = target.mean(0) - scale * source.mean(0)
    return BodyFit(scale, (float(x), float(y)))


def links_of(keypoint_names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Linked pairs of indices.

    Raises:
        ValueError: If no skeleton of `SKELETONS` has these keypoints.
    """
    names = list(keypoint_names)
    return tuple((names.index(a), names.index(b)) for a, b in SKELETONS[_body_of(names)])


def trunk_of(keypoint_names: Sequence[str]) -> np.ndarray:
    """True for keypoints of head and trunk, bool [K].

    Raises:
        ValueError: As for `links_of`.
    """
    trunk = TRUNKS[_body_of(keypoint_names)]
    return np.array([name in trunk for name in keypoint_names])


def _body_of(keypoint_names: Sequence[str]) -> str:
    for body, links in SKELETONS.items():
        if {name for link in links for name in link} == set(keypoint_names):
            return body
    raise ValueError(f"keypoint_names: no skeleton joins {', '.join(keypoint_names)}")


def palette(count: int) -> np.ndarray:
    """Colours uint8 [count, 3] with evenly spaced hues."""
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(i / count, 1, 1)] for i in range(count)], np.uint8)


def draw_skeletons(
    keypoints: np.ndarray, scores: np.ndarray, links: Sequence[tuple[int, int]], size: tuple[int, int]
) -> np.ndarray:
    """Draw one figure per frame, uint8 [T, H, W, 3]: limbs, then joints over them, each in its own colour.

    A joint's colour is multiplied by its score, a limb's by the product of its ends' scores (MimicMotion's
    confidence-aware pose guidance, equation 2). Lines are 1/32 of the shorter side thick, joints 1.5 times that.

    Args:
        keypoints: Keypoints, [T, K, 2]; parts outside the frame are clipped.
        scores: Scores, [T, K] in [0, 1]; 0 draws nothing.
        links: Pairs of indices.
        size: Height and width, px.
    """
    height, width = size
    thickness = max(1, round(min(size) / 32))
    radius = max(1.0, 0.75 * thickness)
    colours = palette(len(links) + keypoints.shape[1])
    unit = 2**_SUBPIXEL_BITS
    frames = np.zeros((len(keypoints), height, width, 3), np.uint8)
    # OpenCV's pixel centres are at integers.
    places = np.rint((np.clip(keypoints, -_FAR * max(size), _FAR * max(size)) - 0.5) * unit).astype(int)
    for frame, points, sure in zip(frames, places, np.clip(scores, 0, 1), strict=True):
        for (a, b), colour in zip(links, colours, strict=False):
            shade = _shade(colour, sure[a] * sure[b])
            if any(shade):
                ends = points[a].tolist(), points[b].tolist()
                cv2.line(frame, *ends, shade, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        for point, colour, score in zip(points, colours[len(links) :], sure, strict=True):
            shade = _shade(colour, score)
            if any(shade):
                cv2.circle(frame, point.tolist(), round(radius * unit), shade, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
    return frames


def _shade(colour: np.ndarray, brightness: float) -> tuple[int, int, int]:
    red, green, blue = (round(float(channel) * float(brightness)) for channel in colour)
    return red, green, blue
