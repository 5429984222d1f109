"""What attention's flow says of known movement: hand-made flows, places and pictures, and a backbone asked for real."""

import pandas as pd
import torch

from benchmark.guiding.joint_flows import flow_table, followed_joints, joint_flows, latent_places, unchanged_tokens
from flexiact.backbone.backbone import Backbone
from tests.support.harness import CASES

NAN = float("nan")


def test_a_latent_frame_is_the_mean_of_its_frames() -> None:
    x = torch.tensor([5.0, 1, 2, 3, 4, 10, 10, 10, 14])
    keypoints = torch.stack([torch.stack([x, 2 * x], dim=-1), torch.full((9, 2), NAN)], dim=1)
    places = latent_places(keypoints, 3)
    torch.testing.assert_close(places[:, 0], torch.tensor([[5.0, 10], [2.5, 5], [11, 22]]))
    assert places[:, 1].isnan().all()


def test_flow_is_read_at_the_joints_tokens() -> None:
    height, width = 2, 3
    flow = torch.zeros(2, 2, height * width, 2)
    flow[0, 1, 1 * width + 2] = torch.tensor([-1.0, 0.5])  # from (2, 1), in frame 0
    flow[1, 0, 1 * width + 1] = torch.tensor([7.0, 7.0])  # back from (1, 1)
    joint, gone, outside = [[2.5, 1.5], [1.5, 1.5]], [[0.5, 0.5], [NAN, NAN]], [[0.5, 0.5], [3.0, 0.5]]
    places = torch.tensor([joint, gone, outside]).transpose(0, 1)
    true, followed = followed_joints(flow, places, (height, width))
    torch.testing.assert_close(true, torch.tensor([[-1.0, 0], [1, 0]]))
    torch.testing.assert_close(followed, torch.tensor([[-1.0, 0.5], [7, 7]]))


def test_a_token_is_unchanged_if_all_its_pixels_are() -> None:
    frames = torch.zeros(3, 4, 6, 3, dtype=torch.uint8)
    frames[2, 3, 2, 1] = 1  # row 3, column 2: with tokens of 2 x 2 pixels, the second of the second row
    assert unchanged_tokens(frames, (2, 3)).tolist() == [True, True, True, True, False, True]


def test_a_backbone_is_asked_in_every_block(backbone: Backbone) -> None:
    found = joint_flows({case.case_id: case for case in CASES}, backbone)
    references = {case.digests["reference"] for case in CASES}
    assert len(found) == backbone.transformer.config.num_layers * len(references)
    assert (found[["true", "true_squared", "error_squared"]] > 0).all(axis=None)
    assert (found.groupby("case_id")["true"].nunique() == 1).all()  # the truth is no block's


def test_the_table_pools_squares_over_references() -> None:
    columns = ["block", "case_id", "true", "joints", "background", "true_squared", "error_squared"]
    found = pd.DataFrame([(4, "a", 1.0, 0.5, 0.0, 8.0, 1.0), (4, "b", 2.0, 0.5, 0.5, 2.0, 14.0)], columns=columns)
    assert flow_table(found).splitlines()[2] == "| 4 | 1.50 | 0.50 | −0.50 | 0.25 |"
