"""The inputs of metrics: measurements of videos, and the truth where it is known.

Everything here is a plain array. Perception fills the arrays in once per video; the formulas only read them. Points are
(x, y) in pixels; (0, 0) is the frame's top left corner, so that pixel centres lie at half-integers.
"""

from dataclasses import dataclass

import numpy as np

MIN_SEEN_SHARE = 0.5
"""A tracklet that is visible in a smaller share of the steps is not matched."""

_KINDS = {"u": "uint8", "f": "floating", "b": "bool", "i": "integer"}


@dataclass(frozen=True, eq=False, slots=True)
class VideoFeatures:
    """Measurements of one video (a still image is a video of one frame). A field that was not measured is None.

    Attributes:
        frames: Frames, uint8 [T, H, W, 3], sRGB.
        image_embeddings: Embedding of each frame, floating [T, D], unit norm.
        tracks: Tracked points, floating [N, T, 2], pixels; the points are placed in the first frame. N may be 0.
        track_visible: Visibility of the tracks, bool [N, T]; where False the position means nothing.
        keypoints: Keypoints, floating [T, K, 2], pixels.
        keypoint_scores: Scores, floating [T, K] in [0, 1]; 0 where the score is below the estimator's own threshold.
        masks: Pixels that show the subject, bool [T, H, W]; only files of other tools give them.

    Raises:
        ValueError: If a field has another shape or dtype; the message names the field.
    """

    frames: np.ndarray
    image_embeddings: np.ndarray | None = None
    tracks: np.ndarray | None = None
    track_visible: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        _check("frames", self.frames, "u", "T H W 3", sizes)
        for first, second in (("tracks", "track_visible"), ("keypoints", "keypoint_scores")):
            if (getattr(self, first) is None) != (getattr(self, second) is None):
                raise ValueError(f"{first} and {second} come together or not at all")
        for field, kind, axes in (
            ("image_embeddings", "f", "T D"),
            ("tracks", "f", "N T 2"),
            ("track_visible", "b", "N T"),
            ("keypoints", "f", "T K 2"),
            ("keypoint_scores", "f", "T K"),
            ("masks", "b", "T H W"),
        ):
            if getattr(self, field) is not None:
                _check(field, getattr(self, field), kind, axes, sizes)

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.frames)

    @property
    def diagonal_px(self) -> float:
        """Length of the frame's diagonal, the unit of motion in frames of any size."""
        return float(np.hypot(*self.frames.shape[1:3]))


@dataclass(frozen=True, eq=False, slots=True)
class Truth:
    """The right answer of a transfer, in the target's own layout and viewpoint.

    Attributes:
        keypoints: Acceptable answers, floating [A, T, K, 2], pixels; A >= 1, the first answer is the canonical one.
        target_keypoints: Keypoints in the target image, floating [K, 2], pixels.
        counted: True for keypoints that exist on this body and are judged, bool [K].
        first_scored_frame: Index of the first judged frame; earlier ones lead from the target's pose into the action.
        first_settled_frame: Index of the first frame at which every acceptable answer has arrived in the action; at
            least `first_scored_frame`.
        frames: Frames of the canonical answer, uint8 [T, H, W, 3].
        parts: Index into `bones` of the part that each pixel of `frames` shows, integer [T, H, W]; -1 for none.
        bones: Keypoints at the near end (towards the trunk) and the far end of each part, integer [B, 2].
        bone_radii_px: Half the thickness of each part, floating [B].
        body_size_px: Unit of distances between keypoints, > 0.

    Raises:
        ValueError: If a field is not as above or a counted keypoint is not finite; the message names the field.
    """

    keypoints: np.ndarray
    target_keypoints: np.ndarray
    counted: np.ndarray
    first_scored_frame: int
    first_settled_frame: int
    frames: np.ndarray
    parts: np.ndarray
    bones: np.ndarray
    bone_radii_px: np.ndarray
    body_size_px: float

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for field, kind, axes in (
            ("frames", "u", "T H W 3"),
            ("parts", "i", "T H W"),
            ("keypoints", "f", "A T K 2"),
            ("target_keypoints", "f", "K 2"),
            ("counted", "b", "K"),
            ("bones", "i", "B 2"),
            ("bone_radii_px", "f", "B"),
        ):
            _check(field, getattr(self, field), kind, axes, sizes)
        if sizes["A"] < 1:
            raise ValueError("keypoints: at least one acceptable answer is needed, got none")
        for field, low in (("first_scored_frame", 0), ("first_settled_frame", self.first_scored_frame)):
            if not low <= getattr(self, field) < sizes["T"]:
                raise ValueError(f"{field}: expected {low} to {sizes['T'] - 1}, got {getattr(self, field)}")
        if not (np.isfinite(self.body_size_px) and self.body_size_px > 0):
            raise ValueError(f"body_size_px: expected a finite size above 0, got {self.body_size_px}")
        for field in ("keypoints", "target_keypoints"):
            if not np.isfinite(getattr(self, field)[..., self.counted, :]).all():
                raise ValueError(f"{field}: a counted keypoint is not finite")
        if self.bones.size and not (self.bones.min() >= 0 and self.bones.max() < sizes["K"]):
            raise ValueError(f"bones: expected keypoint indices from 0 to {sizes['K'] - 1}")
        if self.parts.size and not (self.parts.min() >= -1 and self.parts.max() < sizes["B"]):
            raise ValueError(f"parts: expected bone indices from -1 to {sizes['B'] - 1}")


@dataclass(frozen=True, eq=False, slots=True)
class Candidates:
    """Answers among which retrieval has to choose: the subject's movements for the action asked for and for others.

    Attributes:
        keypoints: Answers, floating [N, T, K, 2], pixels; N >= 1, nan where the body lacks a keypoint.
        right: True for acceptable answers and for answers that look like one of them, bool [N]; at least one is True.

    Raises:
        ValueError: If a field is not as above; the message names the field.
    """

    keypoints: np.ndarray
    right: np.ndarray

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        _check("keypoints", self.keypoints, "f", "N T K 2", sizes)
        _check("right", self.right, "b", "N", sizes)
        if not self.right.any():
            raise ValueError("right: no candidate is right")


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """True content of the reference, to find parts of it that an answer must not take over.

    Attributes:
        keypoints: Positions in the reference, floating [T, K, 2], pixels; nan where its body lacks one.
        body: Pixels of the reference that show its subject, bool [T, H, W].
        seen_from_there: Canonical answer, in its own layout, through a camera that stands where the reference's does;
            floating [T, K, 2], pixels.

    Raises:
        ValueError: If a field is not as above; the message names the field.
    """

    keypoints: np.ndarray
    body: np.ndarray
    seen_from_there: np.ndarray

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for field, kind, axes in (
            ("keypoints", "f", "T K 2"),
            ("body", "b", "T H W"),
            ("seen_from_there", "f", "T K 2"),
        ):
            _check(field, getattr(self, field), kind, axes, sizes)


@dataclass(frozen=True, eq=False, slots=True)
class Features:
    """Everything about one generated video. A field that is None is missing; metrics that need it are skipped.

    Attributes:
        generated: Video to judge.
        target: Target image, as a video of one frame.
        reference: Video whose action was to be transferred.
        prompt: Embedding of the method's prompt, floating [D], unit norm.
        prompt_cut: The same of its first `metrics.appearance.text_similarity.UPSTREAM_CHARACTERS` characters.
        truth: Right answer; same length, size and keypoints as `generated`.
        perceptual_distance: Learned distance of each frame of `generated` from the truth's, floating [T], >= 0.
        candidates: Answers to choose from, right ones included; same length and keypoints as `generated`.
        source: Truth of the reference; same length and size as `reference`, same keypoints as `generated`.

    Raises:
        ValueError: If a field does not fit the others; the message names the field.
    """

    generated: VideoFeatures | None = None
    target: VideoFeatures | None = None
    reference: VideoFeatures | None = None
    prompt: np.ndarray | None = None
    prompt_cut: np.ndarray | None = None
    truth: Truth | None = None
    perceptual_distance: np.ndarray | None = None
    candidates: Candidates | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        if self.target is not None and self.target.num_frames != 1:
            raise ValueError(f"target: expected one frame, got {self.target.num_frames}")
        for name, text in self._texts():
            _check(name, text, "f", "D", {})
        self._check_widths()
        if self.source is not None and self.reference is not None:
            shown, there = self.reference.frames.shape[:3], self.source.body.shape
            if shown != there:
                raise ValueError(f"source: body is {list(there)}, reference {list(shown)}")
        made, truth = self.generated, self.truth
        if made is None:
            return
        if truth is not None and truth.frames.shape != made.frames.shape:
            raise ValueError(f"truth: frames are {list(truth.frames.shape)}, generated {list(made.frames.shape)}")
        if self.perceptual_distance is not None:
            _check("perceptual_distance", self.perceptual_distance, "f", "T", {"T": made.num_frames})
        if self.candidates is not None and self.candidates.keypoints.shape[1] != made.num_frames:
            raise ValueError(f"candidates: {self.candidates.keypoints.shape[1]} frames, generated {made.num_frames}")

    def _texts(self) -> list[tuple[str, np.ndarray]]:
        """The embeddings of texts that are there, by name."""
        texts = (("prompt", self.prompt), ("prompt_cut", self.prompt_cut))
        return [(name, text) for name, text in texts if text is not None]

    def _check_widths(self) -> None:
        """All embeddings have one width, all keypoints one skeleton."""
        parts = (("generated", self.generated), ("target", self.target), ("reference", self.reference))
        widths = {n: v.image_embeddings.shape[1] for n, v in parts if v is not None and v.image_embeddings is not None}
        widths |= {name: len(text) for name, text in self._texts()}
        points = {n: v.keypoints.shape[1] for n, v in parts if v is not None and v.keypoints is not None}
        if self.truth is not None:
            points["truth"] = self.truth.keypoints.shape[2]
        if self.candidates is not None:
            points["candidates"] = self.candidates.keypoints.shape[2]
        if self.source is not None:
            points["source"] = self.source.keypoints.shape[1]
        for what, found in (("embedding width", widths), ("number of keypoints", points)):
            if len(set(found.values())) > 1:
                raise ValueError(f"{', '.join(found)}: one {what} expected, got {found}")


def detected(video: VideoFeatures) -> np.ndarray:
    """True for keypoints that were found, bool [T, K].

    A miss is a score of 0, a score that is not a number, or a position that is not finite.
    """
    assert video.keypoints is not None and video.keypoint_scores is not None
    # Comparing with NaN is False, so that a score that is not a number is a miss.
    return (video.keypoint_scores > 0) & np.isfinite(video.keypoints).all(-1)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of rows [T, D] with rows [T, D], or with one vector [D]: float64 [T] in [-1, 1].

    Embeddings are normalised again in float64, so that half-precision features cannot leave the interval. A zero vector
    has no direction; its cosine is 0.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    dots = np.divide((a * b).sum(-1), norms, out=np.zeros(norms.shape), where=norms > 0)
    return np.clip(dots, -1.0, 1.0)


def steps(video: VideoFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of the tracks from frame to frame.

    Returns:
        Steps, float64 [N, T - 1, 2], in shares of the frame's diagonal (0 where unseen), and bool [N, T - 1]: True if
        the point was visible at both ends of the step.
    """
    assert video.tracks is not None and video.track_visible is not None
    visible = video.track_visible & np.isfinite(video.tracks).all(-1)
    seen = visible[:, 1:] & visible[:, :-1]
    tracks = np.where(visible[..., None], video.tracks, 0.0).astype(np.float64)
    return np.where(seen[..., None], np.diff(tracks, axis=1), 0.0) / video.diagonal_px, seen


def _check(field: str, array: object, kind: str, axes: str, sizes: dict[str, int]) -> None:
    """Refuse an array of another dtype or shape; lengths of named axes are stored in `sizes` and must agree."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{field}: expected a numpy array [{axes}], got {type(array).__name__}")
    fits = array.dtype == np.uint8 if kind == "u" else array.dtype.kind in ("iu" if kind == "i" else kind)
    if not fits:
        raise ValueError(f"{field}: expected {_KINDS[kind]} [{axes}], got {array.dtype}")
    names = axes.split()
    wrong = array.ndim != len(names)
    for name, length in zip(names, array.shape, strict=False):
        wrong = wrong or length != (int(name) if name.isdigit() else sizes.setdefault(name, length))
        wrong = wrong or (name in "THW" and length == 0)
    if wrong:
        raise ValueError(f"{field}: expected shape [{axes}] with {sizes}, got {list(array.shape)}")
