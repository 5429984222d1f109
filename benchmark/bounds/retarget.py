"""The ceiling without knowledge of the action: it finds the action in the reference's pixels; the target performs it.

`oracle-codec` knows the action; no method can. Here the action is recovered by classical motion retargeting (Gleicher,
"Retargetting motion to new characters", SIGGRAPH 1998). Keypoints are estimated in the reference's frames. Non-linear
least squares through the rig's own kinematics and projection finds the channel curves that explain them best. The
target's true figure then performs the curves.

The bound knows two things that no method is told. One is the specification of both scenes: rig, proportions, stance and
camera. The other is the target's skin and background, which rendering needs. It is told nothing about the action: no
channel, no shape, no amplitude.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.fft import dct
from scipy.optimize import least_squares

from benchmark.suites.case import Format
from benchmark.suites.truth import Staged, performed
from flexiact.pose.estimators import PoseEstimator
from flexiact.puppets.world.clip import projections
from flexiact.puppets.world.rigs import CHANNELS, KEYPOINTS, RIGS
from flexiact.puppets.world.scene import Scene
from flexiact.task import Video


@dataclass(frozen=True)
class RetargetConfig:
    """Settings of the search for curves; channel values are in units of a full natural movement.

    Attributes:
        noise_share: Standard deviation of an estimated keypoint as a share of the frame's side.
        outlier: Number of standard deviations beyond which residuals count linearly (soft L1), not by their square.
        value_sd: Standard deviation of a channel's values, before anything is known about the channel.
        cutoff: Frequency, in half cycles per clip, up to which curves are expected. Beyond it the expected amplitude
            falls with the square of the frequency.
        frequencies: Number of cosines, from frequency 0 up, that make a curve (all, if the clip is shorter).
        starts: Number of searches; the first starts from standing still, the others from random constant poses.
        start_sd: Standard deviation of these poses.
        rounds: Number of times that each channel's own standard deviation is estimated and the best search continues
            with it (automatic relevance determination: MacKay 1994), which draws channels that hardly move to 0.
        evaluations: Largest number of evaluations in each search.
    """

    noise_share: float = 1 / 64
    outlier: float = 2.0
    value_sd: float = 0.4
    cutoff: float = 4.0
    frequencies: int = 12
    starts: int = 2
    start_sd: float = 0.5
    rounds: int = 2
    evaluations: int = 40


_LEAST_SD_SHARE = 0.25  # share of value_sd; a channel that seems still may move this much
_GREATEST_SD = 1.5
_TOLERANCE = 1e-4


def retarget(staged: Staged, estimator: PoseEstimator, config: RetargetConfig | None = None) -> Video:
    """Video of the target performing the curves found in the reference; channels that its body lacks are left out.

    Raises:
        ValueError: If `keypoint_names` of the estimator lacks one of the puppets'.
    """
    num_frames, height, width = staged.reference.frames.shape[:3]
    form = Format(num_frames, height, width, staged.reference.fps)
    return performed(staged.target_scene, shown_curves(staged, estimator, config), form)


def shown_curves(staged: Staged, estimator: PoseEstimator, config: RetargetConfig | None = None) -> torch.Tensor:
    """Channel curves [T, 21] that an estimator's keypoints of the reference show; see `retarget`."""
    absent = set(KEYPOINTS) - set(estimator.keypoint_names)
    if absent:
        raise ValueError(f"keypoint_names: the estimator finds no {', '.join(sorted(absent))}")
    order = [estimator.keypoint_names.index(name) for name in KEYPOINTS]
    points, scores = estimator.estimate(staged.reference.frames)
    weights = np.where(scores >= estimator.score_threshold, scores, 0.0)
    height, width = staged.reference.frames.shape[1:3]
    side = min(height, width)
    points = points - np.array([(width - side) // 2, (height - side) // 2])
    return recover_curves(staged.reference_scene, points[:, order] / side, weights[:, order], config)


def recover_curves(
    scene: Scene, keypoints: np.ndarray, weights: np.ndarray, config: RetargetConfig | None = None
) -> torch.Tensor:
    """Recover the channel curves that explain keypoints of a known figure seen by a known camera.

    Args:
        scene: Scene with the figure (and its stance) and the camera.
        keypoints: Keypoints [T, 13, 2] as shares of the square frame's side; those that the body lacks are ignored.
        weights: Confidence [T, 13] in each keypoint, at least 0; a keypoint of weight 0 is left out.
        config: Settings of the search for curves.

    Returns:
        float32 [T, 21] in the order of `CHANNELS`, 0 for channels that the body lacks.
    """
    config = config or RetargetConfig()
    search = _Search(scene, keypoints, weights, config)
    deviations = np.full(len(search.channels), config.value_sd)
    generator = np.random.default_rng(0)
    found = [search.run(search.constant(0 * deviations), deviations)]
    for _ in range(config.starts - 1):
        pose = generator.normal(scale=config.start_sd, size=len(deviations))
        found.append(search.run(search.constant(pose), deviations))
    best = min(found, key=lambda result: result[1])[0]
    for _ in range(config.rounds):
        power = (search.values(best) ** 2).mean(axis=0)
        deviations = np.minimum(np.sqrt(power + (_LEAST_SD_SHARE * config.value_sd) ** 2), _GREATEST_SD)
        best = search.run(best, deviations)[0]
    return search.curves(best)


class _Search:
    """Residuals and their derivatives over the cosine coefficients [F, C] of the body's C channels."""

    def __init__(self, scene: Scene, keypoints: np.ndarray, weights: np.ndarray, config: RetargetConfig) -> None:
        self._scene, self._config = scene, config
        self.channels = [CHANNELS.index(name) for name in RIGS[scene.rig].channels]
        self._points = list(RIGS[scene.rig].keypoints)
        self._given = keypoints[:, self._points].reshape(len(keypoints), -1)
        trust = np.sqrt(weights[:, self._points].astype(np.float64)) / config.noise_share
        self._trust = trust.repeat(2, axis=1)
        # The cosines are orthonormal, so neither a coefficient's size nor the prior depends on the clip.
        self._basis = dct(np.eye(len(keypoints)), axis=0, norm="ortho")[: config.frequencies]
        self._damping = np.sqrt(1 + (np.arange(len(self._basis)) / config.cutoff) ** 4)

    def constant(self, pose: np.ndarray) -> np.ndarray:
        """Coefficients of a pose [C] that is held for the whole clip."""
        return np.outer(self._basis.sum(axis=1), pose)

    def values(self, coefficients: np.ndarray) -> np.ndarray:
        """Values [T, C] of the body's channels."""
        return np.asarray(self._basis.T @ coefficients.reshape(len(self._basis), -1))

    def curves(self, coefficients: np.ndarray) -> torch.Tensor:
        """Curves [T, 21] of all channels."""
        values = torch.zeros(self._basis.shape[1], len(CHANNELS))
        values[:, self.channels] = torch.from_numpy(self.values(coefficients)).float()
        return values

    def run(self, start: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, float]:
        """Minimise from a start; return the coefficients [F, C] found and their cost."""
        found = least_squares(
            partial(self._residuals, deviations=deviations),
            start.ravel(),
            partial(self._jacobian, deviations=deviations),
            loss=self._loss,
            max_nfev=self._config.evaluations,
            xtol=_TOLERANCE,
            ftol=_TOLERANCE,
        )
        return found.x.reshape(start.shape), float(found.cost)

    def _residuals(self, x: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        points = _seen(self._scene, self.curves(x)[None])[0][:, self._points].flatten(1)
        prior = self._damping[:, None] * x.reshape(len(self._basis), -1) / deviations
        return np.concatenate([((points.numpy() - self._given) * self._trust).ravel(), prior.ravel()])

    def _jacobian(self, x: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        slopes = _slopes(self._scene, self.curves(x))[:, self._points][..., self.channels]
        by_frame = slopes.flatten(1, 2).numpy() * self._trust[..., None]
        data = np.einsum("trc,ft->trfc", by_frame, self._basis).reshape(-1, x.size)
        return np.concatenate([data, np.diag(np.outer(self._damping, 1 / deviations).ravel())])

    def _loss(self, squares: np.ndarray) -> np.ndarray:
        """Soft L1 for keypoints, squares for the prior: value, first and second derivative [3, N], in scipy's order."""
        count, limit = self._trust.size, self._config.outlier**2
        loss = np.stack([squares, np.ones_like(squares), np.zeros_like(squares)])
        root = np.sqrt(1 + squares[:count] / limit)
        loss[:, :count] = 2 * limit * (root - 1), 1 / root, -0.5 / (limit * root**3)
        return loss


def _seen(scene: Scene, values: torch.Tensor) -> torch.Tensor:
    """Keypoints [B, T, 13, 2], as shares of the frame's side, of B curves [B, T, 21] on one scene."""
    points = projections([scene] * len(values), values, size=1).keypoints()
    return points.view(*values.shape[:2], len(KEYPOINTS), 2)


def _slopes(scene: Scene, values: torch.Tensor) -> torch.Tensor:
    """Derivatives [T, 13, 2, 21] of each frame's keypoints by the same frame's channel values [T, 21].

    Each coordinate has its own copy of the curves, so that one backward pass gives the gradients of all coordinates.
    """
    copies = values.expand(2 * len(KEYPOINTS), -1, -1).clone().requires_grad_()
    points = _seen(scene, copies).flatten(2)
    (gradients,) = torch.autograd.grad(torch.diagonal(points, dim1=0, dim2=2).sum(), copies)
    return gradients.unflatten(0, (len(KEYPOINTS), 2)).permute(2, 0, 1, 3)
