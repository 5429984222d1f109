"""Compare attention with known movement: DiTFlow's strongest flow at the joints of puppet references.

Guidance by displacements assumes that a token's attention finds the same thing in other frames. This module tests the
assumption in every block: at joints, whose true places are known, and at tokens whose pixels never change.
"""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from baselines.ditflow import ACTION_KEY, DiTFlow
from benchmark.stages.execute import format_of
from benchmark.suites.puppets import PuppetCase
from flexiact.backbone.backbone import Backbone
from flexiact.terminal.progress import counted
from reports.tables.formats import markdown_rows


def joint_flows(cases: Mapping[str, PuppetCase], backbone: Backbone) -> pd.DataFrame:
    """Measure how well each block's strongest flow follows the joints of the references, seed 0.

    Returns:
        A row for each block and reference: `block`, `case_id`, and five values over all pairs of different latent
        frames. Mean lengths in tokens: `true`, displacement of the joints; `joints`, flow at the joints' tokens;
        `background`, flow at tokens whose pixels never change. Sums in tokens^2: `true_squared`, true displacements;
        `error_squared`, differences of the flow from them.
    """
    references = {case.digests["reference"]: case_id for case_id, case in cases.items()}.values()
    shown = {case_id: cases[case_id].show(format_of(backbone)) for case_id in references}
    work = [(block, case_id) for case_id in references for block in range(backbone.transformer.config.num_layers)]
    rows = []
    for block, case_id in counted(work, len(work), "flows"):
        method, staged = DiTFlow.from_preset(backbone, block=block), shown[case_id]
        flow = method.fit(staged.reference, cases[case_id].caption, seed=0)[ACTION_KEY]
        frames, height, width = method.grid
        places = latent_places(torch.from_numpy(staged.source.keypoints), frames) / (backbone.width / width)
        true, followed = followed_joints(flow, places, (height, width))
        between = flow[~torch.eye(frames, dtype=torch.bool)]
        background = between[:, unchanged_tokens(torch.from_numpy(staged.reference.frames), (height, width))]
        lengths = [float(part.norm(dim=-1).mean()) for part in (true, followed, background)]
        squares = [float(part.square().sum()) for part in (true, followed - true)]
        rows.append((block, case_id, *lengths, *squares))
    columns = ["block", "case_id", "true", "joints", "background", "true_squared", "error_squared"]
    return pd.DataFrame(rows, columns=columns)


def latent_places(keypoints: Tensor, frames: int) -> Tensor:
    """Mean places [frames, K, 2] of keypoints [T, K, 2] over the frames that each latent frame covers.

    The first latent frame covers the first frame; the others divide the rest equally. nan for missing keypoints.
    """
    rest = keypoints[1:].unflatten(0, (frames - 1, -1)).mean(dim=1)
    return torch.cat([keypoints[:1], rest])


def followed_joints(flow: Tensor, places: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """True displacements of joints between all pairs of different frames, and the flow at their tokens, each [N, 2].

    Args:
        flow: Flow (x, y) in tokens, [F, F, height * width, 2].
        places: Places (x, y) in tokens, [F, K, 2]; joints missing or outside in either frame of a pair are left out.
        size: Height and width of a frame in tokens.
    """
    height, width = size
    inside = ((places >= 0) & (places < torch.tensor([width, height]))).all(dim=-1)
    true, followed = [], []
    for first in range(len(places)):
        for second in range(len(places)):
            kept = inside[first] & inside[second]
            if first == second or not kept.any():
                continue
            x, y = places[first, kept].long().unbind(dim=-1)
            true.append(places[second, kept] - places[first, kept])
            followed.append(flow[first, second, y * width + x])
    return torch.cat(true), torch.cat(followed)


def unchanged_tokens(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask bool [height * width], row by row, of the tokens with equal pixels in all of uint8 frames [T, H, W, 3]."""
    height, width = size
    tokens = frames.unflatten(2, (width, -1)).unflatten(1, (height, -1))
    return (tokens == tokens[:1]).all(dim=(0, 2, 4, 5)).flatten()


def flow_table(found: pd.DataFrame) -> str:
    """Markdown, one row per block: mean lengths over references, and the share of squares that the flow explains."""
    lines = []
    for block, rows in found.groupby("block"):
        explained = 1 - rows["error_squared"].sum() / rows["true_squared"].sum()
        values = (rows["true"].mean(), rows["joints"].mean(), explained, rows["background"].mean())
        lines.append([str(block), *(f"{value:.2f}".replace("-", "−") for value in values)])
    return markdown_rows(["block", "joints move", "flow at joints", "explained", "flow on background"], lines)
