"""Small made-up features with known properties, for the tests of metrics."""

from dataclasses import replace

import numpy as np

from metrics import Candidates, Features, Source, Truth, VideoFeatures

NUM_FRAMES, HEIGHT, WIDTH, FIRST, SETTLED = 9, 48, 64, 2, 4
BONES = np.array([[0, 1], [2, 3], [4, 5]])
COLOURS = np.array([[200, 40, 40], [40, 180, 60], [60, 80, 220]], np.uint8)
OTHER_COLOURS = np.array([[230, 210, 30], [150, 30, 200], [20, 200, 210]], np.uint8)
RADIUS = 4.0


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def draw(points: np.ndarray, colours: np.ndarray = COLOURS) -> tuple[np.ndarray, np.ndarray]:
    """Three flat capsules per frame for keypoints [T, 7, 2], and which of them each pixel shows."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    frames = np.full((len(points), HEIGHT, WIDTH, 3), 128, np.uint8)
    parts = np.full((len(points), HEIGHT, WIDTH), -1, np.int8)
    for t, ends in enumerate(points):
        for b, (i, j) in enumerate(BONES):
            along = ends[j] - ends[i]
            share = np.clip(((x - ends[i, 0]) * along[0] + (y - ends[i, 1]) * along[1]) / (along @ along), 0, 1)
            near = np.hypot(x - ends[i, 0] - share * along[0], y - ends[i, 1] - share * along[1]) <= RADIUS
            frames[t][near], parts[t][near] = colours[b], b
    return frames, parts


def tracks(rng: np.random.Generator, num_tracks: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Wandering points, no step of length zero, some hidden at times."""
    steps = 3.0 * rng.standard_normal((num_tracks, 1, 2)) + 1.5 * rng.standard_normal((num_tracks, NUM_FRAMES, 2))
    return (32 + np.cumsum(steps, 1)).astype(np.float32), rng.random((num_tracks, NUM_FRAMES)) > 0.05


def truth(rng: np.random.Generator, num_answers: int = 1) -> Truth:
    """Three bones in three rows; the seventh keypoint does not exist on this body."""
    rest = np.array([[14, 8], [44, 8], [14, 24], [44, 24], [14, 40], [44, 40], [np.nan, np.nan]], np.float32)
    time = np.linspace(0, 2 * np.pi, NUM_FRAMES)[None, :, None, None]
    sway = rng.uniform(1.0, 2.0, (num_answers, 1, 7, 2)) * np.sin(time + rng.uniform(0, 6, (num_answers, 1, 7, 2)))
    points = (rest + sway).astype(np.float32)
    frames, parts = draw(points[0])
    return Truth(
        keypoints=points,
        target_keypoints=rest,
        counted=np.arange(7) < 6,
        first_scored_frame=FIRST,
        first_settled_frame=SETTLED,
        frames=frames,
        parts=parts,
        bones=BONES,
        bone_radii_px=np.full(3, RADIUS, np.float32),
        body_size_px=30.0,
    )


def candidates(rng: np.random.Generator, answer: Truth, num_others: int = 12) -> Candidates:
    """The answers among others that are partly right; the seventh keypoint does not exist."""
    others = [(answer.keypoints[:1] + truth(rng).keypoints) / np.float32(2) for _ in range(num_others)]
    keypoints = np.concatenate([others[0], answer.keypoints, *others[1:]])
    return Candidates(keypoints, np.isin(np.arange(len(keypoints)), 1 + np.arange(len(answer.keypoints))))


def source(rng: np.random.Generator, answer: Truth, body: np.ndarray) -> Source:
    """A reference that stands elsewhere and has all keypoints but the second; from its side all moves differently."""
    places = answer.keypoints[0] + np.array([9, -6], np.float32)
    places[:, [1, 6]] = np.nan
    return Source(places, body, truth(rng).keypoints[0])


def leaking(made: Features, share: float, places: np.ndarray | None = None) -> Features:
    """A share of the reference in the generated video: its colours, its embeddings, and keypoints on the way there."""
    video, parts = made.generated, made.truth.parts
    taken = (parts >= 0) & (np.random.default_rng(7).random(parts.shape) < share)
    frames = video.frames.copy()
    frames[taken] = OTHER_COLOURS[parts[taken]]
    embeddings = unit((1 - share) * video.image_embeddings + share * made.reference.image_embeddings)
    there = video.keypoints if places is None else np.where(np.isnan(places), video.keypoints, places)
    keypoints = ((1 - share) * video.keypoints + share * there).astype(np.float32)
    return replace(made, generated=replace(video, frames=frames, image_embeddings=embeddings, keypoints=keypoints))


def features(seed: int = 0, num_answers: int = 1) -> Features:
    """A generated video that is right in part, with everything measured."""
    rng = np.random.default_rng(seed)
    answer = truth(rng, num_answers)
    base = rng.standard_normal(12)
    videos = {}
    for name in ("generated", "target", "reference"):
        num_frames = 1 if name == "target" else NUM_FRAMES
        points = np.nan_to_num(answer.target_keypoints if name == "target" else answer.keypoints[0])
        points = (points + rng.standard_normal((num_frames, 7, 2))).astype(np.float32)
        moved, visible = tracks(rng)
        noise = rng.integers(-40, 40, (num_frames, HEIGHT, WIDTH, 3))
        drawn, parts = draw(points, OTHER_COLOURS if name == "reference" else COLOURS)
        videos[name] = VideoFeatures(
            frames=np.clip(drawn + noise, 0, 255).astype(np.uint8),
            image_embeddings=unit(base + 0.7 * rng.standard_normal((num_frames, 12))),
            tracks=moved[:, :num_frames],
            track_visible=visible[:, :num_frames],
            keypoints=points,
            keypoint_scores=np.where(rng.random((num_frames, 7)) > 0.1, 0.9, 0.0).astype(np.float32),
        )
    # The estimator is sure of the target image: a miss there would void a keypoint in every frame.
    videos["target"] = replace(videos["target"], keypoint_scores=np.ones((1, 7), np.float32))
    return Features(
        **videos,
        prompt=unit(base + rng.standard_normal(12)),
        truth=answer,
        perceptual_distance=rng.uniform(0.1, 0.6, NUM_FRAMES).astype(np.float32),
        candidates=candidates(rng, answer),
        prompt_cut=unit(base + rng.standard_normal(12)),
        source=source(rng, answer, parts >= 0),
    )


def perfect(made: Features, kind: str) -> Features:
    """The generated video is the truth, moves as the reference does, or is the target image repeated."""
    if kind == "reference":
        return replace(made, generated=made.reference)
    if kind == "target":
        return still(made)
    answer = made.truth
    sure = np.ones((NUM_FRAMES, 7), np.float32)
    generated = replace(
        made.generated, frames=answer.frames, keypoints=np.nan_to_num(answer.keypoints[0]), keypoint_scores=sure
    )
    target = replace(made.target, keypoints=np.nan_to_num(answer.target_keypoints)[None])
    return replace(made, generated=generated, target=target, perceptual_distance=np.zeros(NUM_FRAMES, np.float32))


def still(made: Features) -> Features:
    """The generated video is the target image repeated."""

    def repeat(array: np.ndarray) -> np.ndarray:
        return np.repeat(array, NUM_FRAMES, 0)

    target = made.target
    generated = VideoFeatures(
        frames=repeat(target.frames),
        image_embeddings=repeat(target.image_embeddings),
        tracks=np.repeat(target.tracks[:, :1], NUM_FRAMES, 1),
        track_visible=np.ones((len(target.tracks), NUM_FRAMES), bool),
        keypoints=repeat(target.keypoints),
        keypoint_scores=repeat(target.keypoint_scores),
    )
    return replace(made, generated=generated)


def corrupted(made: Features, level: float) -> Features:
    """The generated video spoiled: the same noise, larger with the level; 0 changes nothing."""
    rng = np.random.default_rng(7)
    video = made.generated
    noise = rng.integers(0, 256, video.frames.shape)
    share = level / (1 + level)
    generated = replace(
        video,
        frames=np.round((1 - share) * video.frames + share * noise).astype(np.uint8),
        image_embeddings=unit(video.image_embeddings + level * rng.standard_normal(video.image_embeddings.shape)),
        tracks=(video.tracks + 4 * level * rng.standard_normal(video.tracks.shape)).astype(np.float32),
        keypoints=(video.keypoints + 2 * level * rng.standard_normal(video.keypoints.shape)).astype(np.float32),
    )
    distance = (made.perceptual_distance + 0.3 * level).astype(np.float32)
    return replace(made, generated=generated, perceptual_distance=distance)
