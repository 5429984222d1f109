"""Graded corruptions of a true answer. Each spoils one thing, so that a metric's response to it can be told apart.

A corruption is a function of a staged case, a grade in [0, 1] and a generator. Grade 0 is the true answer, pixel by
pixel, and 1 is the worst. Those of the movement change channel values, and the figure is drawn anew, so no seam shows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image

from benchmark.suites.case import Format
from benchmark.suites.puppets import PuppetCase
from benchmark.suites.truth import Staged, named_action, performed
from flexiact.puppets.world.actions import curves
from flexiact.puppets.world.rigs import CHANNELS
from flexiact.puppets.world.scene import Scene
from flexiact.task import Video

VERSION = 1
"""Version of all corruptions; raised when one of them begins to give other videos."""

Harm = Literal["movement", "looks", "place", "steadiness"]

MAX_BLUR_PX, MAX_JITTER_PX = 2.0, 3.0
"""Standard deviation of the blur, and largest offset of a frame, at grade 1 in frames of 64 pixels."""
MAX_TURN_DEG, MAX_SHIFT_SHARE = 60.0, 0.2
"""Turn of the camera, and offset of the figure as a share of the frame's side, at grade 1."""
_QUALITY = (95, 10)  # of JPEG, just above grade 0 and at grade 1
_NATIVE_PX = 64


@dataclass(frozen=True)
class Spoiled:
    """A case whose answer is to be spoiled: its specification and its content."""

    case: PuppetCase
    staged: Staged

    @property
    def answer(self) -> np.ndarray:
        """Frames of the true answer, uint8 [T, H, W, 3]."""
        return self.staged.answer.frames

    def drawn(self, values: torch.Tensor, scene: Scene | None = None) -> np.ndarray:
        """Frames of the target's figure, or of another scene, that performs channel values [T, 21]."""
        num_frames, height, width = self.answer.shape[:3]
        form = Format(num_frames, height, width, self.staged.answer.fps)
        return performed(scene or self.staged.target_scene, values, form).frames


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        harms: Aspect that it spoils; a metric of anything else should not move.
        frames: Function from case, grade and generator to frames, uint8 [T, H, W, 3].
    """

    summary: str
    harms: Harm
    frames: Callable[[Spoiled, float, torch.Generator], np.ndarray]


def _mixed(first: np.ndarray, second: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """Frames of `first` with a share of `second`, one for all frames or one a frame."""
    share = np.reshape(share, (-1, 1, 1, 1))
    return ((1 - share) * first + share * second).round().astype(np.uint8)


def _toward(spoiled: Spoiled, other: torch.Tensor, grade: float) -> np.ndarray:
    """The figure performing a mixture of the right channel values and others."""
    return spoiled.drawn((1 - grade) * spoiled.staged.answer_values + grade * other)


def _wrong_action(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    values = spoiled.staged.answer_values
    return _toward(spoiled, curves(named_action(spoiled.case.wrong_action), len(values)), grade)


def _smaller(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    return _toward(spoiled, spoiled.staged.target_pose.expand_as(spoiled.staged.answer_values), grade)


def _limbs_exchanged(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    other = {"fore": "hind", "hind": "fore"}
    names = ["_".join(other.get(word, word) for word in name.split("_")) for name in CHANNELS]
    return _toward(spoiled, spoiled.staged.answer_values[:, [CHANNELS.index(name) for name in names]], grade)


def _backwards(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    return _toward(spoiled, spoiled.staged.answer_values.flip(0), grade)


def _frozen(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    last = round((1 - grade) * (len(spoiled.answer) - 1))
    return spoiled.answer[np.minimum(np.arange(len(spoiled.answer)), last)]


def _other_side(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    scene = spoiled.staged.target_scene
    # Turn away from the nearer end of the range of cameras, so that the other side of the figure stays hidden.
    turn = MAX_TURN_DEG if scene.camera.yaw_deg < 50 else -MAX_TURN_DEG
    camera = replace(scene.camera, yaw_deg=scene.camera.yaw_deg + grade * turn)
    return spoiled.drawn(spoiled.staged.answer_values, replace(scene, camera=camera))


def _elsewhere(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    scene = spoiled.staged.target_scene
    shift = MAX_SHIFT_SHARE if scene.camera.x < 0 else -MAX_SHIFT_SHARE
    camera = replace(scene.camera, x=scene.camera.x + grade * shift)
    return spoiled.drawn(spoiled.staged.answer_values, replace(scene, camera=camera))


def _in_the_skin_of_the_reference(spoiled: Spoiled) -> np.ndarray:
    staged = spoiled.staged
    return spoiled.drawn(staged.answer_values, replace(staged.target_scene, skin=staged.reference_scene.skin))


def _other_skin(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    return _mixed(spoiled.answer, _in_the_skin_of_the_reference(spoiled), grade)


def _drifting_skin(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    share = grade * np.linspace(0, 1, len(spoiled.answer))
    return _mixed(spoiled.answer, _in_the_skin_of_the_reference(spoiled), share)


def _copy_of_the_reference(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    return _mixed(spoiled.answer, spoiled.staged.reference.frames, grade)


def _blurred(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    if grade == 0:
        return spoiled.answer
    sigma = grade * MAX_BLUR_PX * spoiled.answer.shape[1] / _NATIVE_PX
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in spoiled.answer])


def _compressed(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    if grade == 0:
        return spoiled.answer
    quality = round(_QUALITY[0] + grade * (_QUALITY[1] - _QUALITY[0]))
    decoded = []
    for frame in spoiled.answer:
        file = BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)))
    return np.stack(decoded)


def _jittered(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    height, width = spoiled.answer.shape[1:3]
    reach = grade * MAX_JITTER_PX * height / _NATIVE_PX
    offsets = reach * (2 * torch.rand(len(spoiled.answer), 2, generator=generator).numpy() - 1)
    moved = [
        cv2.warpAffine(frame, np.array([[1, 0, x], [0, 1, y]]), (width, height), borderMode=cv2.BORDER_REPLICATE)
        for frame, (x, y) in zip(spoiled.answer, offsets, strict=True)
    ]
    return np.stack(moved)


CORRUPTIONS: dict[str, Corruption] = {
    "wrong-action": Corruption("the movement becomes that of another action", "movement", _wrong_action),
    "limbs-exchanged": Corruption("fore and hind limbs exchange their movements", "movement", _limbs_exchanged),
    "backwards": Corruption("the movement runs backwards", "movement", _backwards),
    "smaller": Corruption("the movement shrinks until the target image stands still", "movement", _smaller),
    "frozen": Corruption("the video stops, sooner and sooner", "movement", _frozen),
    "other-side": Corruption("the camera turns around the figure", "place", _other_side),
    "elsewhere": Corruption("the figure stands somewhere else", "place", _elsewhere),
    "other-skin": Corruption("the figure takes on the looks of the reference's", "looks", _other_skin),
    "drifting-skin": Corruption("the same, growing over the video", "looks", _drifting_skin),
    "blurred": Corruption("the picture blurs", "looks", _blurred),
    "compressed": Corruption("JPEG with falling quality", "looks", _compressed),
    "jittered": Corruption("every frame is shifted at random", "steadiness", _jittered),
    "reference-copied": Corruption(
        "the reference shines through, until it is all there is", "place", _copy_of_the_reference
    ),
}


def _mirrored(spoiled: Spoiled, grade: float, generator: torch.Generator) -> np.ndarray:
    return _mixed(spoiled.answer, spoiled.answer[:, :, ::-1], grade)


WRONG_PROMPT = "wrong-prompt"
FOR_JUDGES: dict[str, Corruption] = {
    "mirrored": Corruption("the mirror image shines through, until it is all there is", "place", _mirrored),
    WRONG_PROMPT: Corruption("the true answer, with the prompt of another case", "looks", lambda s, *_: s.answer),
}
"""Further tests of judges, which look at a video and read a text; the metrics of the suite are not measured on them."""


def spoiled_video(name: str, spoiled: Spoiled, grade: float, generator: torch.Generator) -> Video:
    """The true answer of a case, corrupted as `CORRUPTIONS` or `FOR_JUDGES` names it, by a grade in [0, 1]."""
    frames = (CORRUPTIONS | FOR_JUDGES)[name].frames(spoiled, grade, generator)
    return Video(np.ascontiguousarray(frames), spoiled.staged.answer.fps)
