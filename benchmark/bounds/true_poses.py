"""Pose guidance without estimation: the harness tells the true keypoints of its two inputs.

The difference between this entry and plain pose guidance is the cost of estimation. The rest is the method's own: the
fit of the reference's skeleton to another body, and the drawing of what the skeleton says.
"""

import numpy as np

from baselines.pose_guided import PoseGuided
from flexiact.backbone.backbone import Backbone
from flexiact.media.video import frames_digest
from flexiact.puppets.world.rigs import KEYPOINTS


class TruePoses:
    """Looks up keypoints by the digest of the frames instead of estimating them (see `PoseEstimator`)."""

    name = "true keypoints"
    keypoint_names = KEYPOINTS
    score_threshold = 0.5

    def __init__(self) -> None:
        """Start without any keypoints."""
        self._known: dict[str, np.ndarray] = {}

    def tell(self, frames: np.ndarray, keypoints: np.ndarray) -> None:
        """Store the keypoints [T, K, 2] of frames [T, H, W, 3], nan for parts that the body lacks."""
        self._known[frames_digest(frames)] = keypoints

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True keypoints of frames stored before, with score 1, or 0 for those that the body lacks.

        Raises:
            ValueError: If nobody told the keypoints of these frames.
        """
        keypoints = self._known.get(frames_digest(frames))
        if keypoints is None:
            raise ValueError("frames: their true keypoints are not known; only the harness can tell them")
        exists = ~np.isnan(keypoints).any(-1)
        return np.nan_to_num(keypoints).astype(np.float32), exists.astype(np.float32)


class TruePoseGuided(PoseGuided):
    """`PoseGuided` that looks up true keypoints instead of estimating them."""

    method_id = "TruePoseGuided"

    def __init__(self, backbone: Backbone) -> None:
        """Use the backbone's preset; no keypoints are known until the harness tells them."""
        self.poses = TruePoses()
        super().__init__(backbone, estimator=self.poses)

    def tell_keypoints(self, frames: np.ndarray, keypoints: np.ndarray) -> None:
        """Store the true keypoints of a case's reference or target; see `TruePoses.tell`."""
        self.poses.tell(frames, keypoints)
