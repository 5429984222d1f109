"""Actions: low-frequency curves on semantic channels, the named test actions, and random ones for training.

A curve is `amplitude * SHAPES[shape](u)` with u running from 0 at the first frame to 1 at the last. Several shapes do
not begin at zero: an action may start in mid-movement, so its first frame is not the neutral pose of a target image.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from flexiact.puppets.world.rigs import CHANNELS

_PI = torch.pi
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "hold": torch.ones_like,
    "rise": lambda u: u * u * (3 - 2 * u),
    "fall": lambda u: 1 - u * u * (3 - 2 * u),
    "pulse": lambda u: (_PI * u).sin() ** 2,
    "dip": lambda u: (_PI * u).cos() ** 2,
    "swing": lambda u: (2 * _PI * u).sin(),
    "counter": lambda u: (2 * _PI * u).cos(),
    "beat": lambda u: (2 * _PI * u).sin() ** 2,
}
# No training action comes closer than this to a test or development action (see `action_distance`).
MIN_DISTANCE_TO_TEST = 0.45


@dataclass(frozen=True)
class Motion:
    """One moving channel.

    Attributes:
        channel: Name in `CHANNELS`.
        shape: Name in `SHAPES`.
        amplitude: Signed size; 1 is a full natural movement, useful range 0.3 to 1.5.
    """

    channel: str
    shape: str
    amplitude: float

    def __post_init__(self) -> None:
        if self.channel not in CHANNELS:
            raise ValueError(f"channel: unknown '{self.channel}'")
        if self.shape not in SHAPES:
            raise ValueError(f"shape: unknown '{self.shape}'")


PuppetAction = tuple[Motion, ...]


def _both(limb: str, motion: str, shape: str, amplitude: float, *, opposite: bool = False) -> PuppetAction:
    """The same movement on the left and right limb, or the opposite one on the right."""
    other = -amplitude if opposite else amplitude
    return Motion(f"{limb}_left_{motion}", shape, amplitude), Motion(f"{limb}_right_{motion}", shape, other)


def _act(*parts: PuppetAction | Motion) -> PuppetAction:
    return tuple(m for part in parts for m in ((part,) if isinstance(part, Motion) else part))


TEST_ACTIONS: dict[str, PuppetAction] = {
    "wave": _act(Motion("fore_right_spread", "hold", 1.1), Motion("fore_right_flex", "swing", 0.9)),
    "jump": _act(Motion("hop", "pulse", 1.2), _both("fore", "swing", "pulse", 0.8), _both("hind", "flex", "dip", 0.6)),
    "squat": _act(Motion("hop", "pulse", -0.9), _both("hind", "flex", "pulse", 1.0),
                  _both("hind", "swing", "pulse", 0.6)),
    "kick": _act(Motion("hind_right_swing", "pulse", 1.3), Motion("trunk_pitch", "pulse", -0.5)),
    "bow": _act(Motion("trunk_pitch", "pulse", 1.2), Motion("head_pitch", "pulse", 0.7)),
    "twist": _act(Motion("trunk_yaw", "swing", 1.0), _both("fore", "spread", "hold", 0.7)),
    "stretch": _act(_both("fore", "swing", "rise", 1.4), Motion("trunk_pitch", "rise", -0.6)),
    "flap": _act(_both("fore", "spread", "counter", 1.0), Motion("hop", "swing", 0.5)),
    "march": _act(_both("hind", "swing", "swing", 0.9, opposite=True),
                  _both("fore", "swing", "swing", -0.8, opposite=True)),
    "nod": _act(Motion("head_pitch", "beat", 1.1), Motion("trunk_pitch", "beat", 0.5)),
    "shake": _act(Motion("head_yaw", "counter", 1.3), Motion("trunk_yaw", "counter", 0.5)),
    "wag": _act(Motion("tail_yaw", "counter", 1.2), Motion("trunk_roll", "counter", 0.6)),
    "sway": _act(Motion("trunk_roll", "swing", 1.2), _both("fore", "spread", "swing", 0.6, opposite=True)),
    "lunge": _act(Motion("shift", "rise", 1.2), Motion("hind_right_swing", "rise", 0.9),
                  Motion("trunk_pitch", "rise", 0.5)),
    "punch": _act(Motion("fore_right_swing", "pulse", 1.4), Motion("trunk_yaw", "pulse", 0.7)),
    "reach": _act(Motion("fore_left_swing", "rise", 1.5), Motion("trunk_roll", "rise", 0.6)),
    "bounce": _act(Motion("hop", "beat", 1.1), Motion("trunk_pitch", "beat", -0.5)),
    "rear": _act(Motion("trunk_pitch", "rise", -1.2), _both("fore", "swing", "rise", 0.8)),
    "dive": _act(Motion("trunk_pitch", "rise", 1.0), _both("fore", "spread", "rise", 1.0),
                 Motion("shift", "rise", 0.7)),
    "star": _act(_both("fore", "spread", "pulse", 1.2), _both("hind", "spread", "pulse", 0.8)),
    "paddle": _act(_both("fore", "swing", "counter", 0.9, opposite=True), Motion("shift", "swing", 0.6)),
    "stomp": _act(Motion("hind_left_swing", "beat", 1.0), Motion("hind_left_flex", "beat", 0.8)),
    "salute": _act(Motion("fore_right_spread", "rise", 1.1), Motion("fore_right_flex", "rise", 1.0)),
    "crawl": _act(Motion("trunk_pitch", "hold", 0.9), _both("fore", "swing", "swing", 0.9, opposite=True)),
    "look": _act(Motion("head_yaw", "swing", 1.1), Motion("trunk_yaw", "counter", 0.6),
                 Motion("tail_yaw", "swing", -0.7)),
    # From here on limbs carry most of the movement.
    "clap": _act(_both("fore", "spread", "beat", 1.2), _both("fore", "swing", "hold", 0.8)),
    "cheer": _act(_both("fore", "swing", "rise", 1.3), _both("hind", "flex", "beat", 0.8)),
    "swim": _act(_both("fore", "swing", "counter", 1.2), _both("hind", "swing", "swing", -0.8)),
    "hug": _act(_both("fore", "spread", "fall", 1.2), _both("fore", "swing", "rise", 1.0)),
    "split": _act(_both("hind", "spread", "rise", 1.2), _both("fore", "spread", "fall", 0.8)),
    "kneel": _act(_both("hind", "flex", "rise", 1.3), _both("fore", "swing", "dip", 0.8)),
    "frogkick": _act(_both("hind", "flex", "beat", 1.2), _both("hind", "spread", "beat", 0.9)),
    "tuck": _act(_both("hind", "flex", "pulse", 1.3), _both("hind", "swing", "pulse", 1.1),
                 _both("fore", "swing", "pulse", 1.0)),
    "pounce": _act(_both("fore", "swing", "fall", 1.3), Motion("shift", "rise", 0.5)),
    "backstroke": _act(_both("fore", "swing", "swing", -1.3), _both("hind", "swing", "beat", 0.6)),
    "straddle": _act(_both("hind", "spread", "counter", 0.9), _both("fore", "swing", "swing", 0.9)),
    "gallop": _act(_both("hind", "swing", "counter", 1.2), _both("fore", "swing", "counter", -1.0)),
    "haul": _act(_both("fore", "swing", "pulse", -1.2), Motion("shift", "fall", 0.4)),
    "scatter": _act(_both("fore", "spread", "dip", 1.2), _both("hind", "swing", "rise", -0.9)),
    "kickback": _act(_both("hind", "swing", "pulse", -1.3), _both("hind", "flex", "beat", 0.8)),
    "windmill": _act(_both("fore", "spread", "swing", 1.0), _both("fore", "swing", "beat", 1.2)),
}  # fmt: skip

# Used to tune methods, never for a leaderboard.
DEV_ACTIONS: dict[str, PuppetAction] = {
    "shrug": _act(_both("fore", "spread", "pulse", 0.9), Motion("head_pitch", "pulse", -0.6)),
    "lean": _act(Motion("trunk_pitch", "swing", 1.0), Motion("shift", "counter", 0.6)),
    "row": _act(_both("fore", "swing", "swing", 1.1), Motion("trunk_pitch", "counter", 0.5)),
    "rise": _act(Motion("hop", "rise", 1.1), _both("fore", "spread", "fall", 0.9)),
    "turn": _act(Motion("trunk_yaw", "rise", 1.2), Motion("head_yaw", "rise", 0.7)),
    "drop": _act(Motion("hop", "fall", 1.0), Motion("trunk_roll", "pulse", 0.8)),
    "hail": _act(Motion("fore_left_spread", "counter", 1.0), Motion("fore_left_swing", "hold", 0.7)),
    "charge": _act(Motion("shift", "pulse", 1.2), Motion("trunk_pitch", "dip", 0.8)),
    "press": _act(_both("fore", "spread", "dip", 1.0), _both("hind", "flex", "fall", 1.0)),
    "pump": _act(_both("hind", "flex", "swing", 1.1), _both("fore", "spread", "rise", 0.9)),
    "sweep": _act(_both("fore", "swing", "fall", -1.1), _both("hind", "spread", "pulse", 0.9)),
    "hurdle": _act(_both("hind", "swing", "pulse", 1.3), _both("fore", "spread", "counter", 0.8)),
    "heave": _act(_both("fore", "swing", "dip", 1.2), Motion("trunk_pitch", "hold", 0.5)),
    "sprawl": _act(
        _both("hind", "spread", "rise", 1.1), _both("hind", "flex", "dip", 0.9), _both("fore", "swing", "rise", -0.8)
    ),
    "flutter": _act(_both("fore", "spread", "beat", 1.0), _both("hind", "swing", "swing", 1.0)),
    "vault": _act(
        Motion("hop", "pulse", 1.0), _both("hind", "swing", "beat", -1.0), _both("fore", "swing", "hold", 1.0)
    ),
}


def curves(action: PuppetAction, num_frames: int) -> Tensor:
    """Channel values [num_frames, 21] of an action; motions on one channel add up."""
    u = torch.linspace(0, 1, num_frames)
    values = torch.zeros(num_frames, len(CHANNELS))
    for motion in action:
        values[:, CHANNELS.index(motion.channel)] += motion.amplitude * SHAPES[motion.shape](u)
    return values


def action_distance(a: PuppetAction, b: PuppetAction) -> float:
    """RMS over time of the distance between two actions' channel vectors, divided by the larger action's own RMS norm.

    Returns: 0 for equal actions, about 1 to 1.4 for unrelated ones.
    """
    x, y = curves(a, _SAMPLES), curves(b, _SAMPLES)
    return float(_distances(x, y[None])[0])


_SAMPLES = 17  # frames at which actions are compared


def _distances(x: Tensor, others: Tensor) -> Tensor:
    """Distances [N] between curves x [T, 21] and others [N, T, 21]; see `action_distance`."""
    scale = others.flatten(1).norm(dim=1).clamp(min=max(float(x.norm()), 1e-6))
    return (others - x).flatten(1).norm(dim=1) / scale


@cache
def _named_curves() -> Tensor:
    """Curves of all test and development actions, [N, T, 21]."""
    return torch.stack([curves(a, _SAMPLES) for a in (*TEST_ACTIONS.values(), *DEV_ACTIONS.values())])


def distance_to_named(action: PuppetAction) -> float:
    """Distance from an action to the nearest test or development action."""
    return nearest_named(curves(action, _SAMPLES))


def nearest_named(values: Tensor) -> float:
    """Distance from channel values [T, 21] over a whole clip to the nearest test or development action."""
    samples = torch.linspace(0, len(values) - 1, _SAMPLES)
    low, share = samples.floor().long(), samples.frac()[:, None]
    high = (low + 1).clamp(max=len(values) - 1)
    return float(_distances(torch.lerp(values[low], values[high], share), _named_curves()).min())


def blended(pose: Tensor, values: Tensor, length: float) -> Tensor:
    """Blend from a pose into an action over the first part of a clip.

    Args:
        pose: Channel values [21] of the first frame.
        values: Channel values [T, 21] of the action.
        length: Share of the clip's duration after which only the action is left, in [0, 1]; 0 gives the action itself.

    Returns:
        (1 - w) pose + w values with w a smoothstep from 0 at the first frame to 1 at `length`: [T, 21].
    """
    if length == 0:
        return values
    u = (torch.linspace(0, 1, len(values)) / length).clamp(max=1)
    weight = (u * u * (3 - 2 * u))[:, None]
    return torch.lerp(pose.expand_as(values), values, weight)


def restricted(action: PuppetAction, channels: Iterable[str]) -> PuppetAction:
    """The part of an action that uses the given channels only."""
    keep = frozenset(channels)
    return tuple(m for m in action if m.channel in keep)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _choose(generator: torch.Generator, options: tuple[str, ...]) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]


# How often each group of channels is drawn.
_GROUPS = ("trunk", "trunk", "travel", "fore", "fore", "fore", "hind", "hind", "head", "tail")
_MAX_PARTS = 3


def _pair(limb: str, motion: str) -> tuple[str, str]:
    return f"{limb}_left_{motion}", f"{limb}_right_{motion}"


# Channels that move alike in a large movement, each listed as often as it is drawn. Limbs are drawn more often than
# whole bodies: they are harder to learn, and most test actions use them.
_LARGE_PARTS: tuple[tuple[str, ...], ...] = (
    *[("trunk_pitch",)] * 2, ("hop",), ("shift",),
    *[_pair("fore", motion) for motion in ("swing", "spread")] * 2,
    *[_pair("hind", motion) for motion in ("swing", "spread", "flex")] * 2,
)  # fmt: skip


def _amplitude(generator: torch.Generator) -> float:
    sign = 1.0 if torch.rand((), generator=generator) < 0.5 else -1.0
    return sign * _uniform(generator, 0.45, 1.35)


def _possible(motion: str, amplitude: float) -> float:
    """Amplitude that anatomy allows: limbs cannot spread or bend the wrong way."""
    return abs(amplitude) if motion in ("spread", "flex") else amplitude


def _random_part(generator: torch.Generator) -> PuppetAction:
    group, shape = _choose(generator, _GROUPS), _choose(generator, tuple(SHAPES))
    amplitude = _amplitude(generator)
    if group in ("fore", "hind"):
        motion = _choose(generator, ("swing", "swing", "spread", "spread", "flex"))
        amplitude = _possible(motion, amplitude)
        pairing = _choose(generator, ("left", "right", "both", "opposite"))
        if pairing in ("left", "right"):
            return (Motion(f"{group}_{pairing}_{motion}", shape, amplitude),)
        return _both(group, motion, shape, amplitude, opposite=pairing == "opposite" and motion == "swing")
    names = {"trunk": CHANNELS[:3], "travel": CHANNELS[3:5], "head": CHANNELS[17:19], "tail": CHANNELS[19:21]}
    return (Motion(_choose(generator, names[group]), shape, amplitude),)


def _random_large_part(generator: torch.Generator, channels: Sequence[str]) -> PuppetAction:
    able = tuple(part for part in _LARGE_PARTS if set(part) <= set(channels))
    part, shape = able[int(torch.randint(len(able), (), generator=generator))], _choose(generator, tuple(SHAPES))
    amplitude = _possible(part[0].rsplit("_", 1)[-1], _amplitude(generator))
    return tuple(Motion(channel, shape, amplitude) for channel in part)


def _random_action(generator: torch.Generator, draw_part: Callable[[], PuppetAction]) -> PuppetAction:
    while True:
        count = 1 + int(torch.randint(_MAX_PARTS, (), generator=generator))
        action: PuppetAction = ()
        for _ in range(count):
            used = {m.channel for m in action}
            part = draw_part()
            action += part if not used & {m.channel for m in part} else ()
        moves = any(m.shape != "hold" for m in action)
        if moves and distance_to_named(action) >= MIN_DISTANCE_TO_TEST:
            return action


def random_action(generator: torch.Generator) -> PuppetAction:
    """A random training action of up to three parts that moves, far enough from every test and development action."""
    return _random_action(generator, lambda: _random_part(generator))


def random_large_action(generator: torch.Generator, channels: Sequence[str] = CHANNELS) -> PuppetAction:
    """A random training action of large movements only: they move the whole body, or a pair of limbs alike."""
    return _random_action(generator, lambda: _random_large_part(generator, channels))


def is_large(action: PuppetAction) -> bool:
    """Return True if an action consists of movements that `random_large_action` draws."""
    known = {tuple(Motion(c, m.shape, m.amplitude) for c in part) for part in _LARGE_PARTS for m in action}
    covered = {m for part in known if set(part) <= set(action) for m in part}
    return covered == set(action)
