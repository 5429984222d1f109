"""A deterministic, batched renderer of posed puppets: shaded, patterned capsules in depth order over a background."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexiact.puppets.world.rigs import BONES, KEYPOINT_BONES
from flexiact.puppets.world.scene import COLOURS, PATTERNS, Camera, Scene

# Raised whenever the picture of a scene and an action changes.
RENDERER_VERSION = 3
_CAMERA_DISTANCE = 4.0  # body units; only the strength of perspective depends on it
_CHUNK = 18  # frames that a CPU draws at a time, so that the working set stays in its cache


@dataclass(frozen=True, eq=False)
class Projection:
    """Bones as seen by the cameras: ends [N, 12, 2, 2] and radii [N, 12, 2] in px, depth [N, 12] (larger is nearer)."""

    ends: Tensor
    radii: Tensor
    depth: Tensor

    def keypoints(self) -> Tensor:
        """The 13 keypoints of `KEYPOINTS`: [N, 13, 2] as (x, y) in pixels."""
        return torch.stack([self.ends[:, bone, end] for bone, end in KEYPOINT_BONES], 1)

    def to(self, device: torch.device) -> "Projection":
        """Copy on another device."""
        return Projection(self.ends.to(device), self.radii.to(device), self.depth.to(device))


def project(bones: Tensor, radii: Tensor, cameras: Sequence[Camera], size: int) -> Projection:
    """Project bones [B, T, 12, 2, 3] with radii [B, 12, 2] (body units) to a square image of `size` pixels."""
    batch, frames = bones.shape[:2]
    rows = torch.tensor([[c.yaw_deg, c.pitch_deg, c.scale, c.x, c.y] for c in cameras])
    yaw, pitch, scale, x, y = (column.view(batch, 1, 1, 1) for column in rows.unbind(-1))
    yaw, pitch = yaw * torch.pi / 180, pitch * torch.pi / 180
    across = bones[..., 0] * yaw.sin() - bones[..., 2] * yaw.cos()
    toward = bones[..., 0] * yaw.cos() + bones[..., 2] * yaw.sin()
    up = bones[..., 1] * pitch.cos() - toward * pitch.sin()
    near = toward * pitch.cos() + bones[..., 1] * pitch.sin()
    zoom = scale * size / (1 - near / _CAMERA_DISTANCE)
    ends = torch.stack([size * (0.5 + x) + zoom * across, size * (0.5 + y) - zoom * up], -1)
    return Projection(
        ends.reshape(batch * frames, len(BONES), 2, 2),
        (radii[:, None] * zoom).reshape(batch * frames, len(BONES), 2),
        near.mean(-1).reshape(batch * frames, len(BONES)),
    )


def _part_colours(scene: Scene) -> Tensor:
    """Base and pattern colour of every bone: [12, 2, 3]."""
    first, second = torch.tensor(COLOURS[scene.skin.primary]), torch.tensor(COLOURS[scene.skin.secondary])
    rows = []
    for bone in BONES:
        if "left" in bone:
            rows.append(torch.stack([second, second]))
        elif "right" in bone:
            rows.append(torch.stack([first, first]) * 0.5)
        elif bone == "head":
            rows.append(torch.stack([second, first]) * 0.5 + 0.45)
        else:
            rows.append(torch.stack([first, second]))
    return torch.stack(rows)


def _backdrops(scenes: Sequence[Scene], size: int) -> Tensor:
    """Backgrounds [B, 3, size, size] in 0..1."""
    b = [s.backdrop for s in scenes]
    centres = (torch.arange(size) + 0.5) / size
    top, bottom = torch.tensor([x.top for x in b]), torch.tensor([x.bottom for x in b])
    image = torch.lerp(top[..., None], bottom[..., None], centres)[..., None].expand(-1, -1, size, size)
    x, y, radius = (v.view(-1, 1, 1) for v in torch.tensor([x.blob for x in b]).unbind(-1))
    blob = torch.exp(-((centres[None, None] - x) ** 2 + (centres[None, :, None] - y) ** 2) / (2 * (radius / 2) ** 2))
    colour = torch.tensor([x.blob_colour for x in b])[..., None, None]
    return image + (colour - image) * 0.8 * blob[:, None]


def _pattern(kind: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """Share of the second colour, 0..1, at bone coordinates (`along` in repeats of the pattern, `across` in -1..1)."""
    wave = torch.cos(2 * torch.pi * along)
    stripes = torch.sigmoid(6 * wave)
    spots = torch.sigmoid(8 * (wave * torch.cos(torch.pi * across) - 0.15))
    halves = torch.sigmoid(7 * across)
    return torch.where(kind == 1, stripes, torch.where(kind == 2, spots, halves)) * (kind > 0) * 0.65


def _draw_bone(image: Tensor, parts: Tensor, bone: dict[str, Tensor], grid: Tensor) -> tuple[Tensor, Tensor]:
    """Paint one bone per frame over `image` [N, 3, S, S] and mark it in `parts` [N, S, S]."""
    start, axis = bone["ends"][:, 0, :, None, None], (bone["ends"][:, 1] - bone["ends"][:, 0])[..., None, None]
    dx, dy = grid[0] - start[:, 0], grid[1] - start[:, 1]
    length2 = (axis**2).sum(1) + 1e-6
    t = ((dx * axis[:, 0] + dy * axis[:, 1]) / length2).clamp(0, 1)
    qx, qy = dx - t * axis[:, 0], dy - t * axis[:, 1]
    distance = (qx * qx + qy * qy + 1e-12).sqrt()
    r0, r1 = bone["radii"][:, 0, None, None], bone["radii"][:, 1, None, None]
    radius = (r0 + (r1 - r0) * t).clamp(min=1e-3)
    cover = (radius - distance + 0.5).clamp(0, 1) * (r0 > 0)
    side = (axis[:, 0] * dy - axis[:, 1] * dx) / (length2.sqrt() * radius)
    mark = _pattern(bone["kind"], t * bone["repeats"] + 0.25, side.clamp(-1, 1))
    base, second = bone["colours"][:, 0, :, None, None], bone["colours"][:, 1, :, None, None]
    bulge = (1 - (distance / radius) ** 2).clamp(min=0).sqrt()
    # Dark towards the outline, so that a limb stands out from any background and from what lies behind it.
    light = 0.5 + 0.5 * bulge - 0.12 * (0.5 * qx + 0.85 * qy) / radius
    colour = (base + (second - base) * mark[:, None]) * light[:, None]
    image = image + (colour - image) * cover[:, None]
    return image, torch.where(cover > 0.5, bone["index"].to(parts.dtype), parts)


def draw(projection: Projection, scenes: Sequence[Scene], visible: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Draw N = B * T frames on the device of the projection.

    Args:
        projection: Bones in pixels; the T frames of each scene are consecutive.
        scenes: B scenes, for skins and backgrounds.
        visible: bool [B, 12], False for bones that a body does not have.
        size: Side of the square frames in pixels.

    Returns:
        Frames uint8 [N, size, size, 3] and parts int8 [N, size, size], the front bone's index or -1.
    """
    device, frames = projection.ends.device, projection.ends.shape[0] // len(scenes)
    order = projection.depth.argsort(1)  # far to near
    kind = torch.tensor([PATTERNS.index(s.skin.pattern) for s in scenes]).to(device)
    colours = torch.stack([_part_colours(s) for s in scenes]).to(device)
    # Patterns repeat per body length, so a long bone carries more of them.
    repeats = torch.tensor([s.skin.frequency for s in scenes]).to(device)
    owner = torch.arange(len(scenes), device=device).repeat_interleave(frames)
    radii = projection.radii * visible.to(device)[owner][..., None]
    backgrounds = _backdrops(scenes, size).to(device)
    centres = torch.arange(size, device=device) + 0.5
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"))
    images, maps = [], []
    for rows in torch.arange(len(owner), device=device).split(_CHUNK if device.type == "cpu" else len(owner)):
        who = owner[rows]
        image = backgrounds[who]
        parts = torch.full((len(rows), size, size), -1, dtype=torch.int8, device=device)
        for layer in range(len(BONES)):
            index = order[rows, layer]
            bone = {
                "ends": projection.ends[rows, index],
                "radii": radii[rows, index],
                "colours": colours[who, index],
                "kind": kind[who].view(-1, 1, 1),
                "repeats": (repeats[who] * torch.where(index == 0, 1.5, 1.0)).view(-1, 1, 1),
                "index": index.view(-1, 1, 1),
            }
            image, parts = _draw_bone(image, parts, bone, grid)
        images.append((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
        maps.append(parts)
    return torch.cat(images), torch.cat(maps)
