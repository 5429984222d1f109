"""Everything in a puppet clip except its action: a figure, its skin, a camera and a background."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from flexiact.puppets.world.rigs import CHANNELS, NUM_PROPORTIONS, RIGS, TRAINING_RIGS

# Saturated sRGB colours of the figures; backgrounds stay pale or dull, so that a figure always stands out.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.14, 0.14), "orange": (0.97, 0.52, 0.06), "yellow": (0.95, 0.88, 0.15), "green": (0.12, 0.66, 0.20),
    "cyan": (0.10, 0.76, 0.80), "blue": (0.14, 0.30, 0.92), "purple": (0.58, 0.18, 0.78), "pink": (0.97, 0.48, 0.72),
}  # fmt: skip
PATTERNS: tuple[str, ...] = ("plain", "striped", "spotted", "two-tone")
SPLITS: tuple[str, ...] = ("train", "dev", "test", "judge")


@dataclass(frozen=True)
class Camera:
    """Viewpoint (direction in which the figure is seen) and layout (its place and size in the frame).

    Attributes:
        yaw_deg: 0 from the front, 90 from the figure's right side (it then faces right in the image).
        pitch_deg: Elevation of the camera.
        scale: Share of the frame's side that one body unit (the neutral figure's extent) takes.
        x: Horizontal offset of the figure's centre from the frame's centre, as a share of the side; right is positive.
        y: Vertical offset in the same unit; down is positive.
    """

    yaw_deg: float
    pitch_deg: float
    scale: float
    x: float
    y: float


@dataclass(frozen=True)
class Skin:
    """A figure's look: two colours (names in `COLOURS`), the trunk's pattern, and its repeats along the trunk.

    A convention of the world tells the sides apart: left limbs have the second colour, right limbs a dark shade of the
    first.
    """

    primary: str
    secondary: str
    pattern: str
    frequency: float


@dataclass(frozen=True)
class Backdrop:
    """A dull vertical gradient from `top` to `bottom` (sRGB in 0..1) and one soft blob (x, y, radius)."""

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    blob: tuple[float, float, float]
    blob_colour: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything in a clip except its action. `stance` is a small constant offset of all 21 channels."""

    rig: str
    proportions: tuple[float, ...]
    stance: tuple[float, ...]
    skin: Skin
    camera: Camera
    backdrop: Backdrop


def scene_to_dict(scene: Scene) -> dict[str, Any]:
    """Convert a scene to JSON types; floats are kept exactly."""
    return asdict(scene)


def scene_from_dict(data: dict[str, Any]) -> Scene:
    """Inverse of `scene_to_dict`.

    Raises:
        ValueError: If a field is missing, unknown, or of the wrong length or type.
    """
    try:
        scene = Scene(
            rig=data["rig"],
            proportions=tuple(data["proportions"]),
            stance=tuple(data["stance"]),
            skin=Skin(**data["skin"]),
            camera=Camera(**data["camera"]),
            backdrop=Backdrop(**{k: tuple(v) for k, v in data["backdrop"].items()}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"scene: {error}") from error
    _check_types(scene)
    if scene.rig not in RIGS:
        raise ValueError(f"rig: unknown {scene.rig!r}, choose from {', '.join(RIGS)}")
    if len(scene.proportions) != NUM_PROPORTIONS or len(scene.stance) != len(CHANNELS):
        raise ValueError(f"scene: needs {NUM_PROPORTIONS} proportions and {len(CHANNELS)} stance values")
    if scene.skin.pattern not in PATTERNS or {scene.skin.primary, scene.skin.secondary} - set(COLOURS):
        raise ValueError("skin: unknown pattern or colour")
    return scene


def _check_types(scene: Scene) -> None:
    """Refuse a scene whose names are no texts or whose numbers are no finite numbers."""
    for name in (scene.rig, scene.skin.primary, scene.skin.secondary, scene.skin.pattern):
        if not isinstance(name, str):
            raise ValueError(f"scene: expected the name of a rig, colour or pattern, got {name!r}")
    for value in _numbers(scene):
        if not isinstance(value, int | float) or not abs(value) < math.inf:
            raise ValueError(f"scene: expected a finite number, got {value!r}")


def _numbers(scene: Scene) -> Iterator[object]:
    """All numbers of a scene."""
    yield from (*scene.proportions, *scene.stance, scene.skin.frequency, *vars(scene.camera).values())
    for part in vars(scene.backdrop).values():
        yield from part


def skin_split(skin: Skin) -> str:
    """Split that a combination of colours and pattern belongs to: a fifth each "dev" and "test", the rest "train"."""
    names = list(COLOURS)
    code = (names.index(skin.primary) * 8 + names.index(skin.secondary)) * 4 + PATTERNS.index(skin.pattern)
    return {0: "test", 1: "dev"}.get((code * 2654435761 % 2**32) % 5, "train")


def backdrop_split(backdrop: Backdrop) -> str:
    """Split that a background belongs to, by the hue of its upper part: green "test", red "dev", others "train"."""
    lead = backdrop.top[1] - backdrop.top[0]
    return "test" if lead > 0.06 else "dev" if lead < -0.06 else "train"


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return round(low + (high - low) * float(torch.rand((), generator=generator)), 4)


def random_skin(generator: torch.Generator, split: str) -> Skin:
    """A random skin of a split; "judge" draws from all splits."""
    names = list(COLOURS)
    while True:
        first, second, pattern = (int(torch.randint(n, (), generator=generator)) for n in (8, 8, 4))
        skin = Skin(names[first], names[second], PATTERNS[pattern], _uniform(generator, 0.6, 1.2))
        if first != second and split in ("judge", skin_split(skin)):
            return skin


def random_backdrop(generator: torch.Generator, split: str) -> Backdrop:
    """A random background of a split; "judge" draws from all splits."""

    def colour(low: float, high: float) -> tuple[float, float, float]:
        level = _uniform(generator, low, high)
        r, g, b = (round(level + _uniform(generator, -0.06, 0.06), 4) for _ in range(3))
        return r, g, b

    while True:
        blob = (_uniform(generator, 0, 1), _uniform(generator, 0, 1), _uniform(generator, 0.15, 0.4))
        backdrop = Backdrop(colour(0.5, 0.8), colour(0.3, 0.7), blob, colour(0.35, 0.85))
        if split in ("judge", backdrop_split(backdrop)):
            return backdrop


def random_camera(generator: torch.Generator) -> Camera:
    """A random viewpoint in the front-right quadrant and a random layout that keeps the neutral figure in frame."""
    scale = _uniform(generator, 0.66, 0.88)
    room = (1 - scale) / 2 * 0.75
    return Camera(
        yaw_deg=round(_uniform(generator, 20, 80), 2),
        pitch_deg=round(_uniform(generator, 0, 18), 2),
        scale=scale,
        x=_uniform(generator, -room, room),
        y=_uniform(generator, -room, room),
    )


def random_scene(generator: torch.Generator, split: str, rig: str | None = None, camera: Camera | None = None) -> Scene:
    """Draw a scene.

    Args:
        generator: Source of all randomness.
        split: "train", "dev" or "test", each with its own skins and backgrounds; only "test" has the held-out rig. Or
            "judge", which draws from all of these: a measuring instrument has to know the whole world.
        rig: Name in `RIGS`; None draws one.
        camera: Camera; None draws one.

    Raises:
        ValueError: If the split or the rig is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split: unknown '{split}', choose from {', '.join(SPLITS)}")
    choices = TRAINING_RIGS if split in ("train", "dev") else tuple(RIGS)
    rig = rig or choices[int(torch.randint(len(choices), (), generator=generator))]
    if rig not in choices:
        raise ValueError(f"rig: '{rig}' is not in the {split} split, choose from {', '.join(choices)}")
    spread = torch.randn(NUM_PROPORTIONS, generator=generator).clamp(-2, 2) * 0.10
    stance = torch.randn(len(CHANNELS), generator=generator).clamp(-2, 2) * 0.06
    return Scene(
        rig=rig,
        proportions=tuple(round(p, 4) for p in spread.exp().tolist()),
        stance=tuple(round(s, 4) for s in stance.tolist()),
        skin=random_skin(generator, split),
        camera=camera or random_camera(generator),
        backdrop=random_backdrop(generator, split),
    )
