"""Pose guidance: the reference's skeleton, fitted to the target's body, is the model's control video.

After MimicMotion (Zhang et al., arXiv 2406.19680) and AnimateAnyone (Hu et al., arXiv 2311.17117): keypoints are
estimated frame by frame in the reference and once in the target image, moved onto the target's body by a linear fit
over keypoints, drawn, encoded and injected. Fitting learns nothing: it estimates.

Departures:

- Both papers build on U-Nets: AnimateAnyone adds a small convolutional pose guider's output to the noise latents,
  MimicMotion to the first layer's features. On this DiT the control video goes through the model's own VAE and is
  concatenated on channels, as in CogVideoX-Fun; `flexiact.backbone.control` says which form of weights serves.
- The target image enters as the first frame of an image-to-video model, without a reference network or cross-attention.
- Linear fit: `fit="vertical"` is MimicMotion's released one. The scale is the slope of least squares on the vertical
  axis over points of head and trunk (`points="trunk"`), the same on both axes since both pictures have one shape, and
  the offsets are those of least squares; its pairs are all frames of the reference with the target image
  (`anchor="all"`). For bodies that are no upright people there is a scale found on both axes (`"uniform"`) and one for
  each (`"axes"`), all points, and `anchor="first"`, the reference's first frame alone, for references that begin at
  rest. What happens to a scale that is open or not above 0 is said in `flexiact.pose.skeleton`.
- Points below the estimator's threshold are not drawn; others are as bright as their scores (MimicMotion's
  confidence-aware guidance). No hands, no faces, no training loss weighted by region.
- One figure in the frame, no detector: the whole frame is the box.
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
    AxisFit,
    draw_skeletons,
    fit_axes,
    fit_uniform,
    links_of,
    trunk_of,
)
from flexiact.ranges import check_choice
from flexiact.task import Action, Request, Video

Anchor = Literal["all", "first"]
Fit = Literal["vertical", "uniform", "axes"]
Points = Literal["trunk", "all"]


FITS: Mapping[Fit, Callable[[np.ndarray, np.ndarray], AxisFit]] = {
    "vertical": partial(fit_uniform, axes=(1,)),
    "uniform": fit_uniform,
    "axes": fit_axes,
}


@dataclass(frozen=True, kw_only=True)
class PoseFit:
    """The default is MimicMotion's kind of estimator.

    Attributes:
        estimator: A name that `flexiact.pose.rtmpose` knows; rtmpose-m finds people, rtmpose-m-ap10k animals.
    """

    estimator: str = "rtmpose-m"


@dataclass(frozen=True, kw_only=True)
class PoseTransfer(AdaptedSettings):
    """The defaults are MimicMotion's.

    Attributes:
        anchor: Frames of the reference that are fitted to the target image.
        fit: Axes on which the scale is found: the vertical one, both together, or each for itself.
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
    "puppets": PAPER.changed(estimator=PUPPETS, anchor="first", fit="axes", points="all", guidance_scale=2.0),
}


class PoseGuided(ConfiguredMethod[PoseFit, PoseTransfer]):
    """Estimates at `fit`; estimates, fits, draws and samples at `transfer`. An action is keypoints and their scores."""

    method_id = "PoseGuided"
    version = 1
    uses_reference = True
    presets = PRESETS

    def __init__(
        self,
        backbone: Backbone,
        config: Config[PoseFit, PoseTransfer] | None = None,
        estimator: PoseEstimator | None = None,
    ) -> None:
        """Read the control weights, and RefAdapter's if the configuration uses them.

        Args:
            backbone: Backbone with control weights.
            config: the backbone's preset unless given.
            estimator: instead of the configuration's.

        Raises:
            ValueError: If weights are missing, damaged or made for another backbone.
        """
        super().__init__(backbone, config)
        self.estimator = estimator or estimator_by_name(self.config.fit.estimator, backbone.device)
        self._links = links_of(self.estimator.keypoint_names)
        self._control = load_control(backbone)

    def fit_config(self) -> dict[str, Any]:
        """What `fit` reads; the estimator by the name of its weights."""
        return super().fit_config() | {"estimator": self.estimator.name}

    def transfer_config(self) -> dict[str, Any]:
        """What `transfer` reads, which estimates as well; weights by their digests."""
        return super().transfer_config() | {
            "estimator": self.estimator.name,
            "score_threshold": self.estimator.score_threshold,
            "drawing_version": DRAWING_VERSION,
            "control": folder_digest(self.backbone.control) if self.backbone.control else None,
        }

    def fit(self, reference: Video, caption: str, *, seed: int) -> Action:
        """Estimate the reference's keypoints; neither the caption nor the seed changes them.

        Raises:
            ValueError: naming the field, for a reference of another size or length than the backbone's.
        """
        check_fit(self.backbone, reference, caption, seed)
        keypoints, scores = self.estimator.estimate(reference.frames)
        return {"keypoints": torch.tensor(keypoints), "scores": torch.tensor(scores)}

    def transfer(self, action: Action, request: Request) -> Video:
        """Make the video of `request.target` following the fitted skeleton.

        Raises:
            ValueError: naming the field, for an action of another estimator or a target of another size.
        """
        self.backbone.check_frames("target", request.target[None])
        latents = encode_control(self.backbone, self.control_video(action, request.target))
        with self._control.attached(latents):
            return self.sample(request)

    def control_video(self, action: Action, target: np.ndarray) -> np.ndarray:
        """The skeleton video uint8 [T, H, W, 3] that a transfer to a target image [H, W, 3] is guided by.

        Raises:
            ValueError: beginning with "action", when it is not one of this estimator's.
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
