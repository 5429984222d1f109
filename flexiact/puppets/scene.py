"""What one puppet clip shows apart from its action: a figure, its skin, a camera and a background."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from flexiact.puppets.rigs import CHANNELS, NUM_PROPORTIONS, RIGS, TRAINING_RIGS

# Saturated sRGB colours of the figures; backgrounds stay pale or dull, so that a figure always stands out.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.14), "orange": (0.95, 0.55, 0.10), "yellow": (0.93, 0.85, 0.20), "green": (0.15, 0.62, 0.22),
    "blue": (0.14, 0.32, 0.85), "purple": (0.55, 0.20, 0.72), "black": (0.12, 0.11, 0.13), "white": (0.95, 0.95, 0.93),
}  # fmt: skip
PATTERNS: tuple[str, ...] = ("plain", "striped", "spotted", "two-tone")
SPLITS: tuple[str, ...] = ("train", "test", "judge")


@dataclass(frozen=True)
class Camera:
    """Where the figure is seen from (viewpoint) and where it stands in the frame (layout).

    Attributes:
        yaw_deg: 0 from the front, 90 from the figure's right side (it then faces right in the image).
        pitch_deg: elevation of the camera.
        scale: share of the frame's side that one body unit (the neutral figure's extent) takes.
        x: horizontal offset of the figure's centre from the frame's centre, as a share of the side; right is positive.
        y: vertical offset likewise; down is positive.
    """

    yaw_deg: float
    pitch_deg: float
    scale: float
    x: float
    y: float


@dataclass(frozen=True)
class Skin:
    """A figure's look: two colours (names in `COLOURS`), their pattern, and its repeats along a bone.

    The world's convention: left limbs are lighter and right limbs darker than the trunk: sides can be told apart.
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
    """Everything about a clip but its action. `stance` is a small constant offset of all 21 channels."""

    rig: str
    proportions: tuple[float, ...]
    stance: tuple[float, ...]
    skin: Skin
    camera: Camera
    backdrop: Backdrop


def scene_to_dict(scene: Scene) -> dict[str, Any]:
    """A JSON-able form with floats kept as they are."""
    return asdict(scene)


def scene_from_dict(data: dict[str, Any]) -> Scene:
    """Inverse of `scene_to_dict`.

    Raises:
        ValueError: a field is missing, unknown or of the wrong length.
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
    if scene.rig not in RIGS:
        raise ValueError(f"rig: unknown '{scene.rig}', choose from {', '.join(RIGS)}")
    if len(scene.proportions) != NUM_PROPORTIONS or len(scene.stance) != len(CHANNELS):
        raise ValueError(f"scene: needs {NUM_PROPORTIONS} proportions and {len(CHANNELS)} stance values")
    if scene.skin.pattern not in PATTERNS or {scene.skin.primary, scene.skin.secondary} - set(COLOURS):
        raise ValueError("skin: unknown pattern or colour")
    return scene


def is_held_out_skin(skin: Skin) -> bool:
    """True for the fifth of all (colour, colour, pattern) combinations that is reserved for test scenes."""
    names = list(COLOURS)
    code = (names.index(skin.primary) * 8 + names.index(skin.secondary)) * 4 + PATTERNS.index(skin.pattern)
    return (code * 2654435761 % 2**32) % 5 == 0


def is_held_out_backdrop(backdrop: Backdrop) -> bool:
    """True for backgrounds whose upper part is markedly greener than red: never seen in training."""
    return backdrop.top[1] - backdrop.top[0] > 0.06


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return round(low + (high - low) * float(torch.rand((), generator=generator)), 4)


def random_skin(generator: torch.Generator, held_out: bool | None) -> Skin:
    """A random skin; `held_out` picks the reserved fifth, the rest, or (None) any."""
    names = list(COLOURS)
    while True:
        first, second, pattern = (int(torch.randint(n, (), generator=generator)) for n in (8, 8, 4))
        skin = Skin(names[first], names[second], PATTERNS[pattern], _uniform(generator, 0.6, 1.2))
        if first != second and (held_out is None or is_held_out_skin(skin) == held_out):
            return skin


def random_backdrop(generator: torch.Generator, held_out: bool | None) -> Backdrop:
    """A random background; `held_out` as in `random_skin`."""

    def colour(low: float, high: float) -> tuple[float, float, float]:
        level = _uniform(generator, low, high)
        r, g, b = (round(level + _uniform(generator, -0.06, 0.06), 4) for _ in range(3))
        return r, g, b

    while True:
        blob = (_uniform(generator, 0, 1), _uniform(generator, 0, 1), _uniform(generator, 0.15, 0.4))
        backdrop = Backdrop(colour(0.5, 0.8), colour(0.3, 0.7), blob, colour(0.35, 0.85))
        if held_out is None or is_held_out_backdrop(backdrop) == held_out:
            return backdrop


def random_camera(generator: torch.Generator) -> Camera:
    """A random viewpoint in the front-right quadrant and a random layout that keeps the neutral figure in frame."""
    scale = _uniform(generator, 0.62, 0.84)
    room = (1 - scale) / 2 * 0.75
    return Camera(
        yaw_deg=round(_uniform(generator, 20, 80), 2),
        pitch_deg=round(_uniform(generator, 0, 18), 2),
        scale=scale,
        x=_uniform(generator, -room, room),
        y=_uniform(generator, -room, room),
    )


def random_scene(generator: torch.Generator, split: str, rig: str | None = None, camera: Camera | None = None) -> Scene:
    """Draws a scene.

    Args:
        generator: source of all randomness.
        split: "train" (no held-out rig, skins or backgrounds), "test" (held-out skins and backgrounds, all rigs) or
            "judge" (anything: a measuring instrument has to know the whole world).
        rig: a name in `RIGS`; drawn when absent.
        camera: drawn when absent.

    Raises:
        ValueError: unknown split or rig.
    """
    if split not in SPLITS:
        raise ValueError(f"split: unknown '{split}', choose from {', '.join(SPLITS)}")
    choices = TRAINING_RIGS if split == "train" else tuple(RIGS)
    rig = rig or choices[int(torch.randint(len(choices), (), generator=generator))]
    if rig not in choices:
        raise ValueError(f"rig: '{rig}' is not in the {split} split, choose from {', '.join(choices)}")
    held_out = {"train": False, "test": True, "judge": None}[split]
    spread = torch.randn(NUM_PROPORTIONS, generator=generator).clamp(-2, 2) * 0.10
    stance = torch.randn(len(CHANNELS), generator=generator).clamp(-2, 2) * 0.06
    return Scene(
        rig=rig,
        proportions=tuple(round(p, 4) for p in spread.exp().tolist()),
        stance=tuple(round(s, 4) for s in stance.tolist()),
        skin=random_skin(generator, held_out),
        camera=camera or random_camera(generator),
        backdrop=random_backdrop(generator, held_out),
    )
