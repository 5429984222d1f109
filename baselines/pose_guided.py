"""Pose guidance: the reference's skeleton, fitted to the target's body, is the model's control video.

After MimicMotion (Zhang et al., arXiv 2406.19680) and AnimateAnyone (Hu et al., arXiv 2311.17117): keypoints are
estimated in every frame of the reference and in the target image. A linear fit over keypoints moves them onto the
target's body. They are drawn, encoded and injected. `fit` learns nothing, it only estimates.

Departures:

- Both papers build on U-Nets: AnimateAnyone adds a small convolutional pose guider's output to the noise latents,
  MimicMotion to the first layer's features. On this DiT the control video goes through the model's own VAE and is
  concatenated on channels, as in CogVideoX-Fun; `flexiact.backbone.control` describes the form of the weights.
- The target image enters as the first frame of an image-to-video model, without a reference network or cross-attention.
- `fit="vertical"` is MimicMotion's released linear fit. Its scale is the least-squares slope on the vertical axis over
  points of head and trunk (`points="trunk"`), used on both axes because both pictures have the same shape. The offsets
  are those of least squares. All frames of the reference are paired with the target image (`anchor="all"`).
- For bodies other than upright people there are further choices: the slope on both axes (`"uniform"`) or the ratio of
  the sizes (`"size"`), all points, and `anchor="first"`, the reference's first frame alone, for references that begin
  at rest. `flexiact.pose.skeleton` says what happens to a scale that is undetermined or not above 0.
- With guidance the branch without the prompt sees zeros for the skeleton; MimicMotion's released code gives it no pose
  features. So guidance strengthens skeleton and prompt together.
- Points below the estimator's threshold are not drawn; others are as bright as their scores (MimicMotion's
  confidence-aware guidance). There are no hands, no faces, and no training loss weighted by region.
- There is one figure in the frame and no detector: the whole frame is the box.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch

from flexiact.arguments import check_action, check_fit
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_control
from flexiact.backbone.control import load_control
from flexiact.configured import AdaptedSettings, Config, ConfiguredMethod
from flexiact.media.digests import folder_digest
from flexiact.pose.estimators import PoseEstimator
from flexiact.pose.rtmpose import PUPPETS, estimator_by_name
from flexiact.pose.skeleton import (
    DRAWING_VERSION,
    BodyFit,
    draw_skeletons,
    fit_size,
    fit_slope,
    links_of,
    trunk_of,
)
from flexiact.ranges import check_choice
from flexiact.task import Action, Request, Video

Anchor = Literal["all", "first"]
Fit = Literal["vertical", "uniform", "size"]
Points = Literal["trunk", "all"]


FITS: Mapping[Fit, Callable[[np.ndarray, np.ndarray], BodyFit]] = {
    "vertical": partial(fit_slope, axes=(1,)),
    "uniform": fit_slope,
    "size": fit_size,
}


@dataclass(frozen=True, kw_only=True)
class PoseFit:
    """Settings of the fit; the default is MimicMotion's kind of estimator.

    Attributes:
        estimator: Name of an estimator in `flexiact.pose.rtmpose`; rtmpose-m finds people, rtmpose-m-ap10k animals.
    """

    estimator: str = "rtmpose-m"


@dataclass(frozen=True, kw_only=True)
class PoseTransfer(AdaptedSettings):
    """Settings of the transfer; the defaults are MimicMotion's.

    Attributes:
        anchor: Frames of the reference that are fitted to the target image.
        fit: Scale of the reference's body: the slope on the vertical axis or on both, or the ratio of sizes.
        points: Points that are fitted: those of head and trunk, or all.
    """

    anchor: Anchor = "all"
    fit: Fit = "vertical"
    points: Points = "trunk"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("anchor", Anchor), ("fit", Fit), ("points", Points)):
            check_choice(name, getattr(self, name), get_args(known))


PAPER = Config(PoseFit(), PoseTransfer())
PRESETS = {
    "paper": PAPER,
    "puppets": PAPER.changed(estimator=PUPPETS, anchor="first", fit="vertical", points="all", guidance_scale=4.5),
}


class PoseGuided(ConfiguredMethod[PoseFit, PoseTransfer]):
    """Pose guidance by estimated skeletons; an action holds keypoints and their scores."""

    method_id = "PoseGuided"
    version = 2
    uses_reference = True
    presets = PRESETS

    def __init__(
        self,
        backbone: Backbone,
        config: Config[PoseFit, PoseTransfer] | None = None,
        estimator: PoseEstimator | None = None,
    ) -> None:
        """Read the control weights, and RefAdapter's if the configuration uses them.

        Raises:
            ValueError: If weights are missing, damaged or made for another backbone.
        """
        super().__init__(backbone, config)
        self.estimator = estimator or estimator_by_name(self.config.fit.estimator, backbone.device)
        self._links = links_of(self.estimator.keypoint_names)
        self._control = load_control(backbone)

    def fit_config(self) -> dict[str, Any]:
        """All settings that `fit` reads, with the name of the estimator's weights."""
        return super().fit_config() | {"estimator": self.estimator.name}

    def transfer_config(self) -> dict[str, Any]:
        """All settings that `transfer` reads, including those of its own estimate, with the digests of weights."""
        return super().transfer_config() | {
            "estimator": self.estimator.name,
            "score_threshold": self.estimator.score_threshold,
            "drawing_version": DRAWING_VERSION,
            "control": folder_digest(self.backbone.control) if self.backbone.control else None,
        }

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Estimate the reference's keypoints; neither the caption nor the seed changes them."""
        check_fit(self.backbone, reference, caption, seed)
        keypoints, scores = self.estimator.estimate(reference.frames)
        return {"keypoints": torch.tensor(keypoints), "scores": torch.tensor(scores)}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` following the fitted skeleton."""
        self.backbone.check_frames("target", request.target[None])
        latents = encode_control(self.backbone, self.control_video(action, request.target))
        _, guidance = self.config.transfer.resolved(self.backbone)
        if guidance > 1:
            latents = torch.cat([torch.zeros_like(latents), latents])
        with self._control.attached(latents):
            return self.sample(request)

    def control_video(self, action: Action, target: np.ndarray) -> np.ndarray:
        """The skeleton video, uint8 [T, H, W, 3], that guides a transfer to a target image [H, W, 3].

        Raises:
            ValueError: If the action is not one of this estimator; the message begins with "action".
        """
        keypoints, scores = self._checked(action)
        points, target_scores = self.estimator.estimate(target[None])
        threshold = self.estimator.score_threshold
        anchors = slice(0, 1) if self.config.transfer.anchor == "first" else slice(None)
        pairs = (scores[anchors] >= threshold) & (target_scores >= threshold)
        if self.config.transfer.points == "trunk":
            pairs = pairs & trunk_of(self.estimator.keypoint_names)
        matched = np.broadcast_to(points, keypoints[anchors].shape)
        fit = FITS[self.config.transfer.fit](keypoints[anchors][pairs], matched[pairs])
        drawn = np.where(scores >= threshold, scores, 0)
        return draw_skeletons(fit(keypoints), drawn, self._links, (self.backbone.height, self.backbone.width))

    def _checked(self, action: Action) -> tuple[np.ndarray, np.ndarray]:
        scores = (self.backbone.num_frames, len(self.estimator.keypoint_names))
        check_action(action, {"keypoints": (*scores, 2), "scores": scores})
        return action["keypoints"].numpy(), action["scores"].numpy()
