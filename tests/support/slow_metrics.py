"""Every metric a second time: loops over single numbers, from the definitions, sharing no code with `metrics`."""

import math

import cv2
import numpy as np
from scipy.ndimage import correlate1d, map_coordinates, maximum_filter

from metrics import Features


def _found(video, t, k):
    score, point = video.keypoint_scores[t, k], video.keypoints[t, k]
    return not math.isnan(score) and score > 0 and all(math.isfinite(v) for v in point)


def _pairs(f: Features, answer: int, lag: int = 0, window=None):
    """Displacements (found, true) of counted keypoints in the frames of the window."""
    truth = f.truth
    for t in window if window is not None else range(truth.first_scored_frame, len(truth.frames)):
        for k in np.flatnonzero(truth.counted):
            seen = _found(f.generated, t + lag, k) and _found(f.target, 0, k)
            for axis in range(2):
                moved = float(f.generated.keypoints[t + lag, k, axis]) - float(f.target.keypoints[0, k, axis])
                right = float(truth.keypoints[answer, t, k, axis]) - float(truth.target_keypoints[k, axis])
                yield (moved if seen else 0.0), right


def _agreement(pairs):
    pairs = list(pairs)
    gg, tt = sum(g * g for g, _ in pairs), sum(t * t for _, t in pairs)
    return sum(g * t for g, t in pairs) / math.sqrt(gg * tt) if gg > 0 and tt > 0 else 0.0


def motion_agreement(f):
    return max(_agreement(_pairs(f, a)) for a in range(len(f.truth.keypoints)))


def amplitude_ratio(f):
    pairs = list(_pairs(f, max(range(len(f.truth.keypoints)), key=lambda a: _agreement(_pairs(f, a)))))
    return min(math.sqrt(sum(g * g for g, _ in pairs) / sum(t * t for _, t in pairs)), 10)


def motion_lag(f):
    most = 3 if len(range(max(f.truth.first_scored_frame, 3), len(f.truth.frames) - 3)) >= 3 else 2
    window = range(max(f.truth.first_scored_frame, most), len(f.truth.frames) - most)
    answers = range(len(f.truth.keypoints))
    by_lag = {lag: max(_agreement(_pairs(f, a, lag, window)) for a in answers) for lag in range(-most, most + 1)}
    return max(by_lag, key=by_lag.get)


def pck(f):
    shares = []
    for answer in f.truth.keypoints:
        hits = []
        for t in range(f.truth.first_scored_frame, len(answer)):
            for k in np.flatnonzero(f.truth.counted):
                away = math.dist(f.generated.keypoints[t, k].tolist(), answer[t, k].tolist())
                hits.append(_found(f.generated, t, k) and away <= 0.1 * f.truth.body_size_px)
        shares.append(sum(hits) / len(hits))
    return max(shares)


def _centred(places):
    """Each axis minus its mean over what was found; a miss (None) is zero."""
    means = [sum(p[i] for p in places if p) / sum(p is not None for p in places) if any(places) else 0 for i in (0, 1)]
    return [(p[0] - means[0], p[1] - means[1]) if p else (0.0, 0.0) for p in places]


def _centred_agreement(f, points, ks):
    """Of the generated video with one answer [T, K, 2], over the settled frames."""
    frames, pairs = range(f.truth.first_settled_frame, len(points)), []
    for k in ks:
        made = [f.generated.keypoints[t, k].tolist() if _found(f.generated, t, k) else None for t in frames]
        right = [points[t, k].tolist() for t in frames]
        for one, other in zip(_centred(made), _centred(right), strict=True):
            pairs += zip(one, other, strict=True)
    return _agreement(pairs)


def motion_agreement_centred(f):
    return max(_centred_agreement(f, points, np.flatnonzero(f.truth.counted)) for points in f.truth.keypoints)


def action_retrieval(f):
    points = f.candidates.keypoints
    ks = [k for k in range(points.shape[2]) if not np.isnan(points[:, :, k]).any()]
    near = [_centred_agreement(f, one, ks) for one in points]
    return float(max(near) > 0 and f.candidates.right[near.index(max(near))])


def arrival(f):
    ratios, frames = [], range(f.truth.first_settled_frame, len(f.truth.frames))
    for answer in range(len(f.truth.keypoints)):
        pairs = list(_pairs(f, answer, window=frames))
        both = list(zip(pairs[::2], pairs[1::2], strict=True))
        error = sum(math.hypot(gx - tx, gy - ty) for (gx, tx), (gy, ty) in both)
        ratios.append(error / sum(math.hypot(tx, ty) for (_, tx), (_, ty) in both))
    return min(min(ratios), 10)


def jump(f):
    made, right = [0.0], []
    for k in np.flatnonzero(f.truth.counted):
        for t in range(1, len(f.truth.frames)):
            right.append(math.dist(f.truth.keypoints[0, t - 1, k].tolist(), f.truth.keypoints[0, t, k].tolist()))
            if _found(f.generated, t, k) and _found(f.generated, t - 1, k):
                made.append(math.dist(f.generated.keypoints[t - 1, k].tolist(), f.generated.keypoints[t, k].tolist()))
    return min(max(made) / max(right), 10)


def _lab(rgb):
    """By OpenCV, which takes linear light exactly but reads sRGB's curve from a coarse table."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return cv2.cvtColor(linear, cv2.COLOR_LRGB2Lab).astype(np.float64)


def _walked(truth, made, t, b):
    """Distance in radii of every pixel from the middle of a bone; a dense walk stands in for the segment."""
    p, q = (made.keypoints[t, k].astype(float) for k in truth.bones[b])
    walk = np.array([p + s * (q - p) for s in np.linspace(0.35, 0.95, 401)])
    radius = max(truth.bone_radii_px[b], 1)
    height, width = truth.parts.shape[1:]
    rows = [[np.hypot(*(walk - (x + 0.5, y + 0.5)).T).min() / radius for x in range(width)] for y in range(height)]
    return np.array(rows)


def _thinned(colours):
    """Every k-th, so that no more than 500 are left."""
    return np.array(colours)[:: math.ceil(len(colours) / 500)]


def true_appearance_error(f):
    truth, made = f.truth, f.generated
    scored = range(truth.first_scored_frame, len(truth.frames))
    right = {
        b: [c for t in scored for c in _lab(truth.frames[t])[truth.parts[t] == b]] for b in range(len(truth.bones))
    }
    right = {b: _thinned(colours) for b, colours in right.items() if len(colours) >= 4 * len(scored)}
    shown, missed = {b: [] for b in right}, dict.fromkeys(right, 0)
    for t in scored:
        image = _lab(made.frames[t])
        near = {b: _walked(truth, made, t, b) for b in right if all(_found(made, t, k) for k in truth.bones[b])}
        for b in right:
            mask = near[b] <= 0.9 if b in near else np.zeros(image.shape[:2], bool)
            own = mask & np.logical_and.reduce([near[b] <= other for other in near.values()]) if b in near else mask
            shown[b] += list(image[own if own.any() else mask])
            missed[b] += not mask.any()
    errors = []
    for b in right:
        share = missed[b] / len(scored)
        apart = np.linalg.norm(_thinned(shown[b])[:, None] - right[b], axis=-1) if share < 1 else np.full((1, 1), 50.0)
        error = (float(np.median(apart.min(1))) + float(np.mean(apart.min(0)))) / 2
        errors.append(share * 50 + (1 - share) * min(error, 50))
    return sum(errors) / len(errors)


def _shown_pixels(f):
    """Lab colours of the core pixels of every part found, in the order of frames and parts."""
    truth, made, pixels = f.truth, f.generated, []
    for t in range(truth.first_scored_frame, len(truth.frames)):
        found = [b for b in range(len(truth.bones)) if all(_found(made, t, k) for k in truth.bones[b])]
        near = {b: _walked(truth, made, t, b) for b in found}
        for b in found:
            own = (near[b] <= 0.9) & np.logical_and.reduce([near[b] <= other for other in near.values()])
            pixels.append((t, b, _lab(made.frames[t])[own if own.any() else near[b] <= 0.9]))
    return pixels


def _true_pixels(truth):
    scored = range(truth.first_scored_frame, len(truth.frames))
    return [np.concatenate([_lab(truth.frames[t])[truth.parts[t] == b] for t in scored]) for b in range(3)]


def appearance_leakage(f):
    shown = _thinned(np.concatenate([colours for _, _, colours in _shown_pixels(f)]))
    here = np.concatenate([_thinned(colours) for colours in _true_pixels(f.truth)])
    there = _thinned(np.concatenate([_lab(i)[body] for i, body in zip(f.reference.frames, f.source.body, strict=True)]))
    return np.mean(
        [np.linalg.norm(there - c, axis=1).min() + 5 < np.linalg.norm(here - c, axis=1).min() for c in shown]
    )


def _kept(shown, right):
    return np.mean([np.linalg.norm(_thinned(right) - c, axis=1).min() <= 10 for c in _thinned(shown)])


def identity_by_part(f):
    right, shown = _true_pixels(f.truth), {(t, b): colours for t, b, colours in _shown_pixels(f)}
    scored = range(f.truth.first_scored_frame, len(f.truth.frames))
    return np.mean([_kept(shown[t, b], right[b]) if (t, b) in shown else 0.0 for t in scored for b in range(3)])


def identity_masked(f):
    right, shown = np.concatenate([_thinned(colours) for colours in _true_pixels(f.truth)]), _shown_pixels(f)
    values = []
    for frame in range(f.truth.first_scored_frame, len(f.truth.frames)):
        colours = [c for t, _, c in shown if t == frame]
        near = [np.linalg.norm(right - c, axis=1).min() <= 10 for c in _thinned(np.concatenate(colours))]
        values.append(np.mean(near))
    return np.mean(values)


def identity_embedded(f):
    e = f.generated.image_embeddings
    near = [max(0.0, _cosine(one, f.target.image_embeddings[0])) for one in e]
    steps = [max(0.0, _cosine(e[t], e[t - 1])) for t in range(1, len(e))]
    return 0.4 * max(near) + 0.3 * sum(steps) / len(steps) + 0.3 * min(steps)


def appearance_leakage_embedded(f):
    values, image = [], f.target.image_embeddings[0]
    for y, r in zip(f.generated.image_embeddings, f.reference.image_embeddings, strict=True):
        values.append(max(0.0, _cosine(y, r) - _cosine(image, r)) / (1 - _cosine(image, r)))
    return sum(values) / len(values)


def _shared_pairs(f, points):
    """Displacements (found, those of an answer [T, K, 2]) of counted keypoints that the reference's body has."""
    truth = f.truth
    for k in np.flatnonzero(truth.counted & ~np.isnan(f.source.keypoints).any((0, 2))):
        for t in range(truth.first_scored_frame, len(points)):
            seen = _found(f.generated, t, k) and _found(f.target, 0, k)
            for axis in range(2):
                moved = float(f.generated.keypoints[t, k, axis]) - float(f.target.keypoints[0, k, axis])
                yield moved if seen else 0.0, float(points[t, k, axis]) - float(truth.target_keypoints[k, axis])


def layout_leakage(f):
    own = max(_agreement(_shared_pairs(f, answer)) for answer in f.truth.keypoints)
    return _agreement(_shared_pairs(f, f.source.keypoints)) - own


def viewpoint_leakage(f):
    return _centred_agreement(f, f.source.seen_from_there, np.flatnonzero(f.truth.counted)) - motion_agreement_centred(
        f
    )


def ssim_to_truth(f):
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))

    def smooth(image):
        for axis in range(2):
            image = correlate1d(image, taps / taps.sum(), axis, mode="mirror")
        return image

    values = []
    for t in range(f.truth.first_settled_frame, len(f.truth.frames)):
        for c in range(3):
            a, b = f.generated.frames[t, ..., c] / 255, f.truth.frames[t, ..., c] / 255
            ma, mb = smooth(a), smooth(b)
            va, vb, cov = smooth(a * a) - ma * ma, smooth(b * b) - mb * mb, smooth(a * b) - ma * mb
            top, bottom = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4), (ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)
            values.append((top / bottom).mean())
    return sum(values) / len(values)


def lpips_to_truth(f):
    values = [float(v) for v in f.perceptual_distance][f.truth.first_settled_frame :]
    return sum(values) / len(values)


def _steps(video, n):
    """(seen, dx, dy) of one track in shares of the diagonal."""
    diagonal = math.hypot(*video.frames.shape[1:3])
    for t in range(1, len(video.frames)):
        seen = bool(video.track_visible[n, t] and video.track_visible[n, t - 1])
        step = [(float(video.tracks[n, t, i]) - float(video.tracks[n, t - 1, i])) / diagonal for i in range(2)]
        yield (True, *step) if seen else (False, 0.0, 0.0)


def _counts(track):
    x = y = far = 0.0
    for _, dx, dy in track:
        x, y = x + dx, y + dy
        far = max(far, math.hypot(x, y))
    enough = sum(seen for seen, *_ in track) >= 0.5 * len(track)
    return enough and far >= 0.04 and any(math.hypot(dx, dy) > 0.002 for _, dx, dy in track)


def _match(a, b):
    total, counted, together = 0.0, 0, 0
    for (seen_a, *u), (seen_b, *v) in zip(a, b, strict=True):
        moves_a, moves_b = math.hypot(*u) > 0.002, math.hypot(*v) > 0.002
        together += seen_a and seen_b
        if seen_a and seen_b and (moves_a or moves_b):
            counted += 1
            total += (u[0] * v[0] + u[1] * v[1]) / math.hypot(*u) / math.hypot(*v) if moves_a and moves_b else 0.0
    return total / counted if counted and together >= 0.5 * len(a) else None


def motion_fidelity(f):
    sides = []
    for video in (f.generated, f.reference):
        all_tracks = [list(_steps(video, n)) for n in range(len(video.tracks))]
        sides.append([track for track in all_tracks if _counts(track)])
    means = []
    for mine, other in (sides, sides[::-1]):
        matches = [[m for m in (_match(a, b) for b in other) if m is not None] for a in mine]
        means.append(sum(max(m, default=0.0) for m in matches) / len(matches))
    return sum(means) / 2


def motion_fidelity_upstream(f):
    best = []
    for n in range(len(f.generated.tracks)):
        row = []
        for m in range(len(f.reference.tracks)):
            total = 0.0
            for t in range(1, len(f.generated.frames)):
                u = f.generated.tracks[n, t].astype(float) - f.generated.tracks[n, t - 1]
                v = f.reference.tracks[m, t].astype(float) - f.reference.tracks[m, t - 1]
                total += float(u @ v) / math.hypot(*u) / math.hypot(*v)
            row.append(total / (len(f.generated.frames) - 1) - (n == m))
        best.append(max(row))
    return sum(best) / len(best)


def dynamic_degree(f):
    tracks = [list(_steps(f.generated, n)) for n in range(len(f.generated.tracks))]
    lengths = [min(math.hypot(dx, dy), 1.0) for track in tracks for seen, dx, dy in track if seen]
    return sum(lengths) / len(lengths)


def _leash(a, b):
    """The discrete Frechet distance by its recursion."""
    known = {}

    def longest(i, j):
        if (i, j) not in known:
            ways = [longest(*at) for at in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if min(at) >= 0]
            known[i, j] = max(math.dist(a[i], b[j]), min(ways, default=0.0))
        return known[i, j]

    return longest(len(a) - 1, len(b) - 1)


def frechet_to_truth(f):
    scored, means = range(f.truth.first_scored_frame, len(f.truth.frames)), []
    for answer in f.truth.keypoints:
        squares = []
        for k in np.flatnonzero(f.truth.counted):
            path = [f.generated.keypoints[t, k].tolist() for t in scored if _found(f.generated, t, k)]
            true = [answer[t, k].tolist() for t in scored]
            squares.append(min(_leash(path, true) / f.truth.body_size_px, 1.0) ** 2 if path else 1.0)
        means.append(math.sqrt(sum(squares) / len(squares)))
    return min(means)


def motion_fidelity_hybrid(f):
    height, width = f.generated.frames.shape[1:3]

    def moving(video):
        for n in range(len(video.tracks)):
            if _counts(list(_steps(video, n))):
                seen = [t for t in range(len(video.frames)) if video.track_visible[n, t]]
                path = [(float(video.tracks[n, t, 0]) / width, float(video.tracks[n, t, 1]) / height) for t in seen]
                yield list(_steps(video, n)), path

    best = []
    for steps, path in moving(f.generated):
        pairs = [(_match(steps, others), _leash(path, other)) for others, other in moving(f.reference)]
        best.append(max((0.5 * math.exp(-d) + 0.5 * c for c, d in pairs if c is not None), default=0.0))
    return sum(best) / len(best)


def _flow(frames):
    """By OpenCV, at 128 pixels of the shorter side: frames, flow there, flow back, and flow there where it counts."""
    scale = 128 / min(frames.shape[1:3])
    size = (round(frames.shape[2] * scale), round(frames.shape[1] * scale))
    large = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in large]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there = np.array([search.calc(a, b, None) for a, b in zip(grey, grey[1:], strict=False)])
    back = np.array([search.calc(b, a, None) for a, b in zip(grey, grey[1:], strict=False)])
    change = [np.abs(a.astype(int) - b).max(-1) > 8 for a, b in zip(large, large[1:], strict=False)]
    near = np.array([maximum_filter(step, 5) for step in change])
    return np.array(large), there, back, there * near[..., None]


def flow_error_to_truth(f):
    made, true = (_flow(video.frames)[3] for video in (f.generated, f.truth))
    error = size = 0.0
    for t in range(f.truth.first_settled_frame, len(true)):
        error += np.hypot(*np.moveaxis(made[t].astype(float) - true[t], -1, 0)).sum()
        size += np.hypot(*np.moveaxis(true[t].astype(float), -1, 0)).sum()
    return min(error / size, 10)


def _coefficient(a, b, bins, low, high):
    counts = []
    for values in (a, b):
        cells = [0] * bins
        for v in values:
            if low <= v <= high:
                cells[min(int((v - low) / (high - low) * bins), bins - 1)] += 1
        counts.append([c / sum(cells) for c in cells])
    return sum(math.sqrt(p * q) for p, q in zip(*counts, strict=True))


def flow_fidelity(f):
    values = []
    for pair in zip(*(_flow(video.frames)[3] for video in (f.generated, f.reference)), strict=True):
        diagonal = math.hypot(*pair[0].shape[:2])
        moving = [
            [(x, y) for x, y in step.reshape(-1, 2).tolist() if math.hypot(x, y) > 0.002 * diagonal] for step in pair
        ]
        speeds = [[math.hypot(x, y) for x, y in side] for side in moving]
        means = [sum(side) / len(side) for side in speeds]
        speeds = [[v / mean for v in side] for side, mean in zip(speeds, means, strict=True)]
        angles = [[math.atan2(y, x) for x, y in side] for side in moving]
        top = max(np.percentile(side, 99) for side in speeds)
        values.append((_coefficient(*speeds, 20, 0, top) + _coefficient(*angles, 18, -math.pi, math.pi)) / 2)
    return sum(values) / len(values)


def layout_leakage_flow(f):
    made, right = (_flow(video.frames)[3].astype(float).ravel() for video in (f.generated, f.reference))
    return sum(made * right) / math.sqrt(sum(made**2) * sum(right**2))


def warping_error(f):
    """Bilinear interpolation by scipy; OpenCV's goes in steps of a thirty-second of a pixel."""
    frames, there, back, _ = (array.astype(float) for array in _flow(f.generated.frames))
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    squares = []
    for t, step in enumerate(there):
        at = [y + step[..., 1], x + step[..., 0]]
        nan = {"order": 1, "mode": "constant", "cval": np.nan}
        bx, by = (map_coordinates(back[t, ..., i], at, **nan) for i in (0, 1))
        warped = np.stack([map_coordinates(frames[t + 1, ..., c], at, **nan) for c in range(3)], -1)
        size = (step**2).sum(-1) + bx**2 + by**2
        seen = (step[..., 0] + bx) ** 2 + (step[..., 1] + by) ** 2 <= 0.01 * size + 0.5
        squares += list(((frames[t] - warped) ** 2)[seen].ravel())
    return math.sqrt(sum(squares) / len(squares))


def _cosine(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def appearance_consistency(f):
    values = [_cosine(e, f.target.image_embeddings[0]) for e in f.generated.image_embeddings]
    return sum(values) / len(values)


def appearance_consistency_upstream(f):
    values = [_cosine(e, f.generated.image_embeddings[0]) for e in f.generated.image_embeddings[1:]]
    return sum(values) / len(values)


def temporal_consistency(f):
    e = f.generated.image_embeddings
    values = [_cosine(e[s], e[t]) for t in range(len(e)) for s in range(t)]
    return sum(values) / len(values)


def temporal_consistency_adjacent(f):
    e = f.generated.image_embeddings
    return sum(_cosine(e[t], e[t - 1]) for t in range(1, len(e))) / (len(e) - 1)


def text_similarity(f):
    values = [_cosine(e, f.prompt) for e in f.generated.image_embeddings]
    return sum(values) / len(values)


def text_similarity_upstream(f):
    values = [_cosine(e, f.prompt_cut) for e in f.generated.image_embeddings]
    return sum(values) / len(values)
