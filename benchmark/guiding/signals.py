"""Test whether the signal of a guided method knows the action.

A training-free method lowers a loss between the features of a block on the video being made and its features on the
reference. Here that loss compares finished videos with the reference: the truth, the wrong action, a still image, plain
image-to-video, and the method's own videos. A signal that knows the action is smallest for the truth. If it is, and the
method still fails, guidance does not bring the video there. If it is not, guidance has little to go by. Every block is
tested, since much depends on the choice of block.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines import ditflow, motion_clone, smm
from benchmark.guiding.joint_flows import flow_table, joint_flows
from benchmark.planning.methods import METHODS
from benchmark.planning.selection import select
from benchmark.stages.execute import format_of
from benchmark.suites.case import Case, Stages
from benchmark.suites.puppets import load_suite
from benchmark.workers.load import load
from flexiact.backbone.backbone import Backbone
from flexiact.media.video import read_video
from flexiact.task import Action, Video
from flexiact.terminal.progress import counted
from reports.run_folder import StoredRun, load_run
from reports.tables.formats import markdown_rows
from reports.wording import number

COMPARED = ("oracle", "wrong-action", "still", "i2v")
"""Names of videos of known quality; the method's own video is compared with them."""


def ditflow_signal(method: ditflow.DiTFlow, video: Video, action: Action, caption: str) -> float:
    """Loss of DiTFlow in tokens^2; the caption is not read."""
    seen = method.seen(video, torch.Generator().manual_seed(0))
    return float(method.loss(seen, action[ditflow.ACTION_KEY].to(method.backbone.device)))


def smm_signal(method: smm.SpatialMarginalMean, video: Video, action: Action, caption: str) -> float:
    """Loss of SMM, mean over the guided steps, for the video inverted in the same way as the reference."""
    features, reference = method.fit(video, caption, seed=0)[smm.FEATURES_KEY], action[smm.FEATURES_KEY]
    return float(sum(smm.smm_loss(*pair) for pair in zip(features, reference, strict=True))) / len(features)


def motion_clone_signal(method: motion_clone.MotionClone, video: Video, action: Action, caption: str) -> float:
    """Loss of MotionClone for the video, noised in the same way as the reference; the caption is not read."""
    attention = method.attention(video, torch.Generator().manual_seed(0)).cpu()
    return float(
        motion_clone.top_loss(attention, action[motion_clone.STRENGTH_KEY], action[motion_clone.FRAME_KEY].long())
    )


SIGNALS: Mapping[str, Callable[..., float]] = {
    "ditflow": ditflow_signal,
    "smm": smm_signal,
    "motion_clone": motion_clone_signal,
}


def losses(
    run: Path, cases: Mapping[str, Case], backbone: Backbone, methods: Sequence[str], every_block: bool
) -> pd.DataFrame:
    """Losses of finished videos of seed 0: columns method, block, case_id, video (`own`, or a name) and loss.

    With `every_block` each block sees the truth and the still image; otherwise the method's own block sees all videos.

    Raises:
        ValueError: If the run cannot be read, has another backbone or other settings of a method, or lacks a video.
    """
    stored, stages = load_run(run), Stages(cases, format_of(backbone))
    if stored.info["backbone"]["revision"] != backbone.revision:
        raise ValueError(f"{run}: made by another backbone than {backbone.name} as it is now")
    asked = {name: ["oracle", "still"] if every_block else [*COMPARED, name] for name in methods}
    samples = _videos(stored, cases, {video for videos in asked.values() for video in videos})
    built: list[tuple[str, Any]] = [(name, METHODS[name].build(backbone)) for name in methods]
    for name, method in built:
        if not every_block and stored.info["methods"][name]["transfer_config"] != method.transfer_config():
            raise ValueError(f"{run}: its videos of {name} were made with other settings; make them anew")
    if every_block:
        blocks = range(backbone.transformer.config.num_layers)
        built = [(name, type(one).from_preset(backbone, block=block)) for name, one in built for block in blocks]
    work = [(name, method, case_id) for name, method in built for case_id in stages.cases]
    rows = []
    for name, method, case_id in counted(work, len(work), "signals"):
        case, shown = stages.cases[case_id], stages[case_id]
        action = method.fit(shown.reference, case.caption, seed=0)
        mine = samples[(samples["case_id"] == case_id) & samples["method"].isin(asked[name])]
        for sample in mine.itertuples():
            loss = SIGNALS[name](method, read_video(run / str(sample.video)), action, case.caption)
            video = "own" if sample.method == name else sample.method
            rows.append((name, method.block, case_id, video, loss))
    return pd.DataFrame(rows, columns=["method", "block", "case_id", "video", "loss"])


def _videos(stored: StoredRun, cases: Mapping[str, Case], names: set[str]) -> pd.DataFrame:
    """Rows of the finished videos of seed 0, with one video of each name for every case."""
    samples = stored.samples[(stored.samples["seed"] == 0) & (stored.samples["status"] == "ok")]
    for name in sorted(names):
        if set(samples[samples["method"] == name]["case_id"]) != set(cases):
            raise ValueError(f"{stored.folder}: lacks videos of {name} with seed 0; make them, or name other --methods")
    return samples


def table(found: pd.DataFrame) -> str:
    """Markdown: mean losses of videos relative to the still image's, and how often the truth's is below others."""
    videos = [*COMPARED, "own"]
    lines = []
    for name, rows in found.groupby("method", sort=False):
        wide = rows.pivot(index="case_id", columns="video", values="loss")
        means = [number(wide[video].mean() / wide["still"].mean()) for video in videos]
        below = [f"{(wide['oracle'] < wide[other]).sum()} of {len(wide)}" for other in ("still", "wrong-action")]
        lines.append([name, *means, *below])
    return markdown_rows(["method", *videos, "truth below still", "truth below wrong action"], lines)


def block_table(found: pd.DataFrame) -> str:
    """Markdown: in every block the truth's mean loss relative to the still image's, and how often it is smaller."""
    blocks = sorted(set(found["block"]))
    lines = []
    for name, rows in found.groupby("method", sort=False):
        cells = [str(name)]
        for _, part in rows.groupby("block"):
            wide = part.pivot(index="case_id", columns="video", values="loss")
            below = (wide["oracle"] < wide["still"]).sum()
            cells.append(f"{number(wide['oracle'].mean() / wide['still'].mean())} ({below})")
        lines.append(cells)
    return markdown_rows(["method", *(f"block {block}" for block in blocks)], lines)


def page(run: Path, patterns: Sequence[str]) -> str:
    """Markdown page with everything about the signals of a run that has all bounds.

    Raises:
        ValueError: If a pattern matches nothing, or if `losses` refuses the run.
    """
    methods = select(patterns, list(SIGNALS), "guided method")
    info = load_run(run).info
    suite = load_suite(info["suite"])
    cases = {case.case_id: case for case in suite.chosen(info["cases"])}
    backbone = load("puppets", "cpu", None, info["backbone"]["num_inference_steps"])
    found = losses(run, cases, backbone, methods, every_block=False)
    blocks = losses(run, cases, backbone, methods, every_block=True)
    token = backbone.width // (backbone.latent_shape[-1] // backbone.transformer.config.patch_size)
    return f"""# What the signals of guided methods know

Suite {suite.name}, backbone {backbone.name}, {found["case_id"].nunique()} cases, seed 0. Finished videos, compared
with the reference by the loss that the method guides with (DiTFlow's on clean latents, SMM's on inverted ones,
MotionClone's at its timestep): means, as a share of the still image's. A signal that knows the action is smallest for
the truth (`oracle`). `own`: the videos that the method made.

{table(found)}

The truth's loss as a share of the still image's in every block, in brackets the cases in which it is smaller.

{block_table(blocks)}

Whether attention finds the same thing in other frames at all: DiTFlow's strongest flow in the references, lengths in
tokens ({token} x {token} pixels), means over pairs of latent frames. `joints move`: how far, in truth. `explained`: 1 -
squared error of the flow at the joints' tokens / squared true displacement; 1 is the true flow, 0 no better than none.
`flow on background`: at tokens whose pixels never change, where it should be 0.

{flow_table(joint_flows(cases, backbone))}
"""
