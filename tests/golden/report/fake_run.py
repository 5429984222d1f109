"""Write a made-up run directory of realistic size: `python tests/golden/report/fake_run.py FOLDER`.

Deterministic. The numbers are drawn, not measured: they only give the reports something to show, with failures, skips
and cells that were never run. The tests load `make_run` from here.
"""

import argparse
import hashlib
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd

ACTIONS = ("wave", "jump", "squat", "kick", "bow", "flap")
RIGS = ("biped", "quadruped", "bird", "hexapod", "biped")
TERCILES = ("near", "middle", "far")
SIZE, FRAMES = 64, 9

# name: (skill in motion, skill in appearance, fit seconds, transfer seconds, summary, extra supervision)
METHODS = {
    "flexiact": (0.52, 0.86, 21.0, 3.9, "embedding, RefAdapter and schedule: the paper's method", "none"),
    "flexiact-no-schedule": (0.47, 0.80, 21.0, 3.8, "embedding and RefAdapter, bias 0 throughout", "none"),
    "flexiact-no-refadapter": (0.49, 0.77, 21.0, 3.4, "embedding and schedule, no RefAdapter", "none"),
    "base-embedding": (0.44, 0.75, 21.0, 3.3, "learnable embedding alone: the paper's Base", "none"),
    "i2v": (0.11, 0.90, 0.0, 2.6, "backbone and prompt only", "none"),
}
BOUNDS = {
    "still": (0.0, 1.0, "the target image, repeated"),
    "copy-reference": (0.38, 0.35, "the reference video itself"),
    "wrong-action": (0.06, 0.97, "the truth of another action of like amplitude"),
    "oracle": (0.985, 0.99, "the truth as rendered"),
    "oracle-codec": (0.93, 0.94, "the truth through the VAE: the practical ceiling"),
}
# name: (unit, higher is better, bounds, backend, needs, summary)
METRICS = {
    "motion_agreement": ("1", True, (-1, 1), "pose", "truth", "correlation of joint displacements with the truth"),
    "amplitude_ratio": ("1", None, (0, 10), "pose", "truth", "size of the motion over the true size"),
    "motion_lag": ("frames", False, (0, 4), "pose", "truth", "shift in time that fits the truth best"),
    "pck": ("1", True, (0, 1), "pose", "truth", "share of keypoints within 0.1 of the body's size"),
    "true_appearance_error": ("1", False, (0, 1), "pixels", "truth", "skin colour error by body part"),
    "motion_fidelity": ("1", True, (-1, 1), "tracker", "reference", "similarity of tracklets to the reference's"),
    "motion_fidelity_upstream": ("1", True, (-1, 1), "tracker", "reference", "the same by the released formula"),
    "appearance_consistency": ("1", True, (-1, 1), "image_encoder", "target", "cosine of frames to the target image"),
    "appearance_consistency_upstream": ("1", True, (-1, 1), "image_encoder", "generated", "cosine to the first frame"),
    "temporal_consistency": ("1", True, (-1, 1), "image_encoder", "generated", "cosine of neighbouring frames"),
    "text_similarity": ("1", True, (-1, 1), "image_encoder", "prompt", "cosine of frames to the prompt"),
    "dynamic_degree": ("px", None, (0, 100), "tracker", "generated", "mean length of tracks a frame"),
}
BACKENDS = {"pose": "mmpose/puppets", "pixels": "pixels", "tracker": "opencv-lk", "image_encoder": "open_clip/puppets"}


def make_run(folder: Path, references: int = 6, targets: int = 5, seeds=(0, 1, 2), videos: bool = True) -> Path:
    """Write the run and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    cases = _cases(references, targets, generator)
    samples, scores = _tables(cases, seeds, generator)
    pd.DataFrame(samples).to_parquet(folder / "samples.parquet")
    pd.DataFrame(scores).to_parquet(folder / "scores.parquet")
    (folder / "run.json").write_text(json.dumps(_info(cases, seeds), indent=1) + "\n")
    if videos:
        _write_videos(folder, cases, samples)
    return folder


def _cases(references: int, targets: int, generator: np.random.Generator) -> dict:
    cases = {}
    for index in range(references * targets):
        action, place = ACTIONS[index // targets], index % targets
        layout, viewpoint, skeleton = generator.uniform(0, 1, 3)
        rig = RIGS[place]
        cases[f"{action}-{place}-{rig}"] = {
            "action": action,
            "reference_id": f"ref-{action}",
            "target_id": f"target-{index}",
            "reference_rig": "biped",
            "target_rig": rig,
            "caption": "a striped biped on a meadow",
            "prompt": f'a dotted {rig} <in the "desert">',
            "axes": {"layout": layout, "viewpoint": 90 * viewpoint, "skeleton": skeleton},
            "terciles": {
                axis: TERCILES[min(2, int(3 * value))]
                for axis, value in (("layout", layout), ("viewpoint", viewpoint), ("skeleton", skeleton))
            },
            "left_out_share": 0.1,
            "licence": "CC0-1.0",
            "source": "rendered",
            "digests": {},
        }
    return cases


def _tables(cases: dict, seeds: tuple[int, ...], generator: np.random.Generator) -> tuple[list[dict], list[dict]]:
    samples, scores = [], []
    for method in [*METHODS, *BOUNDS]:
        for case_id, case in cases.items():
            for seed in seeds if method in METHODS else seeds[:1]:
                if (method, case_id, seed) == ("base-embedding", next(reversed(cases)), seeds[-1]):
                    samples.append(_missing(method, case_id, case, seed))
                    continue
                sample = _sample(method, case_id, case, seed, generator)
                samples.append(sample)
                scores += _scores(sample, case, generator)
    return samples, scores


def _sample(method: str, case_id: str, case: dict, seed: int, generator: np.random.Generator) -> dict:
    key = hashlib.sha256(f"{method}/{case_id}/{seed}".encode()).hexdigest()[:16]
    made = method in METHODS
    fit = METHODS[method][2] * generator.uniform(0.95, 1.05) if made else None
    status, error = "ok", None
    if method == "flexiact-no-schedule" and case_id.endswith("-3-hexapod") and seed == 1:
        status, error = "failed", "FloatingPointError: latents became <NaN> at step 17"
    if method == "copy-reference" and case_id.endswith("-3-hexapod"):
        status, error = "skipped", "the reference's size differs"
    return {
        "key": key,
        "fit_key": f"{method}-{case['reference_id']}",
        "method": method,
        "method_version": 1,
        "backbone": "puppets",
        "backbone_revision": "0123456789ab",
        "case_id": case_id,
        "seed": seed,
        "status": status,
        "error": error,
        "video": f"videos/{key[:2]}/{key}.mkv" if status == "ok" else None,
        "video_digest": hashlib.sha256(key.encode()).hexdigest() if status == "ok" else None,
        "fit_s": fit,
        "transfer_s": METHODS[method][3] * generator.uniform(0.9, 1.2) if made and status == "ok" else None,
        "peak_memory_gib": 1.31 + 0.2 * generator.random() if made else None,
        "action_mib": (0.42 if fit else 0.0) if made else None,
    }


def _missing(method: str, case_id: str, case: dict, seed: int) -> dict:
    """The run was stopped before this video."""
    sample = _sample(method, case_id, case, seed, np.random.default_rng(0))
    measured = ("video", "video_digest", "fit_s", "transfer_s", "peak_memory_gib", "action_mib")
    return sample | dict.fromkeys(measured) | {"status": "missing"}


def _scores(sample: dict, case: dict, generator: np.random.Generator) -> list[dict]:
    if sample["status"] != "ok":
        return []
    motion_skill, look_skill = (METHODS.get(sample["method"]) or BOUNDS[sample["method"]])[:2]
    made = sample["method"] in METHODS
    ease = 0.25 * (0.5 - np.mean([case["axes"]["layout"], case["axes"]["viewpoint"] / 90, case["axes"]["skeleton"]]))
    ease += 0.06 * (ACTIONS.index(case["action"]) - 2.5) / 2.5
    motion = motion_skill + made * (ease + generator.normal(0, 0.08))
    look = look_skill + made * generator.normal(0, 0.05)
    noise = generator.normal(0, 1, 12)
    values = {
        "motion_agreement": motion,
        "amplitude_ratio": 0.1 + motion * 0.9 + 0.1 * abs(noise[0]),
        "motion_lag": abs(noise[1]) * (1 - motion),
        "pck": 0.4 + 0.5 * motion + 0.05 * noise[2],
        "true_appearance_error": 0.6 * (1 - look) + 0.02 * abs(noise[3]),
        "motion_fidelity": 0.5 * motion + 0.3 + 0.06 * noise[4],
        "motion_fidelity_upstream": 0.3 * motion + 0.5 + 0.08 * noise[5],
        "appearance_consistency": 0.5 + 0.45 * look + 0.02 * noise[6],
        "appearance_consistency_upstream": 0.97 - 0.12 * motion + 0.02 * noise[7],
        "temporal_consistency": 0.99 - 0.05 * motion + 0.01 * noise[8],
        "text_similarity": 0.25 + 0.02 * noise[9],
        "dynamic_degree": 2.0 * abs(motion) + 0.2 * abs(noise[10]),
    }
    return [_score(sample, metric, float(value)) for metric, value in values.items()]


def _score(sample: dict, metric: str, value: float) -> dict:
    status = "ok"
    if metric.startswith("motion_fidelity") and sample["method"] == "still":
        status = "skipped"  # nothing moves, so nothing can be tracked
    if metric == "pck" and sample["method"] == "i2v" and sample["case_id"].endswith("-2-bird") and sample["seed"] == 2:
        status = "failed"
    columns = {name: sample[name] for name in ("key", "method", "case_id", "seed")}
    backend = BACKENDS[METRICS[metric][3]]
    value = value if status == "ok" else None
    return {**columns, "metric": metric, "metric_version": 1, "status": status, "value": value, "backend": backend}


def _info(cases: dict, seeds: tuple[int, ...]) -> dict:
    empty = {"version": 1, "fit_config": {}, "transfer_config": {}}
    methods = {
        name: {"kind": "method", "summary": entry[4], "extra_supervision": entry[5], **empty}
        for name, entry in METHODS.items()
    }
    methods |= {
        name: {"kind": "bound", "summary": entry[2], "extra_supervision": "the truth", **empty}
        for name, entry in BOUNDS.items()
    }
    fields = ("unit", "higher_is_better", "bounds", "backend", "needs", "summary")
    metrics = {
        name: {**dict(zip(fields, entry, strict=True)), "needs": ["generated", entry[4]], "version": 1}
        | {"headline": name == "motion_agreement"}
        for name, entry in METRICS.items()
    }
    return {
        "schema_version": 4,
        "command": "python -m benchmark.run --methods all",
        "suite": "puppets",
        "seeds": list(seeds),
        "backbone": {
            "name": "puppets", "revision": "0123456789ab", "num_parameters": 3_412_544, "num_frames": FRAMES,
            "height": SIZE, "width": SIZE, "fps": 8.0, "num_inference_steps": 25, "guidance_scale": 4.0,
        },
        "methods": methods,
        "metrics": metrics,
        "cases": cases,
        "provenance": {
            "code": {"commit": "0" * 40, "dirty": False},
            "python": "3.11.9",
            "packages": {"torch": "2.14.1", "diffusers": "0.42.1"},
            "device": {"name": "cpu", "threads": 2},
            "note": "made up: <b>not</b> measured",
        },
    }  # fmt: skip


def _write_videos(folder: Path, cases: dict, samples: list[dict]) -> None:
    for index, (case_id, case) in enumerate(cases.items()):
        place = folder / "inputs" / case_id
        place.mkdir(parents=True, exist_ok=True)
        reference = draw(case["action"], index // 5 + 11, 1.0)
        write_video(place / "reference.mkv", reference, lossless=True)
        write_video(place / "reference.mp4", reference, lossless=False)
        write_image(place / "target.png", draw(case["action"], index, 0.0)[0])
    for sample in samples:
        if sample["status"] != "ok":
            continue
        case, index = cases[sample["case_id"]], list(cases).index(sample["case_id"])
        skill = (METHODS.get(sample["method"]) or BOUNDS[sample["method"]])[0]
        frames = draw(case["action"], index, skill)
        for name, lossless in ((sample["video"], True), (f"previews/{sample['key'][:2]}/{sample['key']}.mp4", False)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / name, frames, lossless=lossless)


def draw(action: str, look: int, amount: float) -> np.ndarray:
    """A body with one swinging limb: uint8 [FRAMES, SIZE, SIZE, 3]."""
    generator = np.random.default_rng(look)
    ground, skin, limb = generator.uniform(40, 230, (3, 3))
    y, x = np.mgrid[:SIZE, :SIZE]
    centre = generator.uniform(24, 40, 2)
    frames = []
    for step in range(FRAMES):
        angle = 0.4 + amount * (1.5 + 0.2 * ACTIONS.index(action)) * np.sin(2 * np.pi * step / (FRAMES - 1))
        frame = ground * (0.6 + 0.4 * y[..., None] / SIZE)
        frame = np.where((np.hypot((x - centre[0]) / 8, (y - centre[1]) / 14) < 1)[..., None], skin, frame)
        along = (x - centre[0]) * np.cos(angle) - (y - centre[1] + 6) * np.sin(angle)
        across = (x - centre[0]) * np.sin(angle) + (y - centre[1] + 6) * np.cos(angle)
        frame = np.where(((along > 0) & (along < 22) & (abs(across) < 3))[..., None], limb, frame)
        frames.append(frame)
    return np.stack(frames).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, lossless: bool) -> None:
    """FFV1 master or H.264 preview, four times as large."""
    codec, pixels = ("ffv1", "bgr0") if lossless else ("libx264", "yuv420p")
    frames = frames if lossless else frames.repeat(4, axis=1).repeat(4, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(8))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def write_image(path: Path, image: np.ndarray) -> None:
    """One PNG."""
    from PIL import Image

    Image.fromarray(image).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(make_run(parser.parse_args().folder))
