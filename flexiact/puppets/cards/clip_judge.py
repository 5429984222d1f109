"""Measure the image-and-text judge on held-out worlds and write its model card."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import create_model_from_pretrained, get_tokenizer
from torch import Tensor

from flexiact.puppets.cards.pose_judge import conditions
from flexiact.puppets.world.actions import TEST_ACTIONS
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import render_clips
from flexiact.puppets.world.rigs import RIGS
from flexiact.puppets.world.scene import random_backdrop, random_camera, random_scene

TEST_SEED = 930_001
GALLERY = 32
GALLERIES = 16
CONDITIONS = (
    "clean", "blur, sigma 1 px", "blur, sigma 2 px", "quarter resolution", "noise, sigma 0.10", "contrast 0.5",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pairs:
    """Held-out figures, each seen twice.

    Attributes:
        images: float [2, N, 3, S, S] in 0..1; the second view has another camera, action and background.
        captions: Captions of level subject, [2][N].
        wrong_rig: Captions of the first view that name another body, [N].
        wrong_skin: Captions of the first view that name another skin, [N].
    """

    images: Tensor
    captions: tuple[list[str], list[str]]
    wrong_rig: list[str]
    wrong_skin: list[str]


def held_out() -> Pairs:
    """Draw the test pairs: scenes of the test split, frames from the middle of test actions."""
    generator = torch.Generator().manual_seed(TEST_SEED)
    count, actions = GALLERY * GALLERIES, list(TEST_ACTIONS.values())
    first = [random_scene(generator, "test") for _ in range(count)]
    second = [replace(s, camera=random_camera(generator), backdrop=random_backdrop(generator, "test")) for s in first]
    views = []
    for shift, scenes in enumerate((first, second)):
        chosen = [actions[(i + 7 * shift) % len(actions)] for i in range(count)]
        clips = render_clips(scenes, chosen, 3)
        views.append(np.stack([c.video.frames[1] for c in clips]))
    images = torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3).float() / 255
    names = list(RIGS)
    steps = [names.index(s.rig) + 1 + i % (len(names) - 1) for i, s in enumerate(first)]
    other_rig = [replace(s, rig=names[step % len(names)]) for s, step in zip(first, steps, strict=True)]
    other_skin = [replace(s, skin=first[(i + 1) % count].skin) for i, s in enumerate(first)]
    texts = [[caption(s, (), "subject") for s in scenes] for scenes in (first, second, other_rig, other_skin)]
    return Pairs(images, (texts[0], texts[1]), texts[2], texts[3])


@torch.no_grad()
def embed_images(model: Any, images: Tensor) -> Tensor:
    """Unit embeddings [N, D] of images [N, 3, S, S] in 0..1."""
    config: dict[str, Any] = model.visual.preprocess_cfg
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    parts = [model.encode_image((part - mean) / std, normalize=True) for part in images.split(64)]
    return torch.cat(parts)


@torch.no_grad()
def embed_texts(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Unit embeddings [N, D] of captions."""
    return model.encode_text(tokenizer(texts), normalize=True)


def retrieval(queries: Tensor, answers: Tensor) -> float:
    """Share of queries [N, D] whose own answer [N, D] is the nearest of its gallery of 32."""
    q, a = queries.unflatten(0, (-1, GALLERY)), answers.unflatten(0, (-1, GALLERY))
    best = (q @ a.transpose(1, 2)).argmax(-1)
    return float((best == torch.arange(GALLERY)).float().mean())


def figures(folder: Path) -> dict[str, float]:
    """All numbers of the card, by name."""
    model = create_model_from_pretrained(f"local-dir:{folder}", return_transform=False).eval()
    tokenizer = get_tokenizer(f"local-dir:{folder}")
    pairs = held_out()
    first, second = embed_images(model, pairs.images[0]), embed_images(model, pairs.images[1])
    said, said_again, rig, skin = (
        embed_texts(model, tokenizer, texts) for texts in (*pairs.captions, pairs.wrong_rig, pairs.wrong_skin)
    )

    def cosine(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum(-1).mean())

    right = (first * said).sum(-1)
    values = {
        "image_to_text": (retrieval(first, said) + retrieval(second, said_again)) / 2,
        "text_to_image": (retrieval(said, first) + retrieval(said_again, second)) / 2,
        "identity": retrieval(first, second),
        "right_rig": float((right > (first * rig).sum(-1)).float().mean()),
        "right_skin": float((right > (first * skin).sum(-1)).float().mean()),
        "cosine_caption": cosine(first, said),
        "cosine_other_caption": cosine(first, said.roll(1, 0)),
        "cosine_same": cosine(first, second),
        "cosine_other": cosine(first, second.roll(1, 0)),
    }
    for name in CONDITIONS:
        seen = embed_images(model, conditions()[name](pairs.images[0]))
        values[f"text:{name}"], values[f"identity:{name}"] = retrieval(seen, said), retrieval(seen, second)
        values[f"cosine:{name}"] = cosine(seen, first)
    values["parameters"] = float(sum(p.numel() for p in model.parameters()))
    return values


def write_card(folder: Path, steps: int, seed: int) -> dict[str, float]:
    """Measure the finished judge on the test split and write README.md; return accuracies in galleries of 32."""
    values = figures(folder)
    rows = [
        f"| {name} | {values[f'text:{name}']:.3f} | {values[f'identity:{name}']:.3f} | {values[f'cosine:{name}']:.3f} |"
        for name in CONDITIONS
    ]
    numbers = {name: f"{value:.3f}" for name, value in values.items() if ":" not in name}
    numbers |= {"parameters": f"{values['parameters'] / 1e6:.2f}", "steps": str(steps), "seed": str(seed)}
    text = CARD.format(**numbers, count=GALLERY * GALLERIES, chance=f"{1 / GALLERY:.3f}", conditions="\n".join(rows))
    (folder / "README.md").write_text(text)
    return {name: values[name] for name in ("image_to_text", "text_to_image", "identity")}


CARD = """# Image-and-text judge of the puppet world

open_clip's own `CLIP` class, {parameters} M parameters: ViT of 4 layers, width 128, patch 8 on 64x64 frames; text
tower of 2 layers, width 96, at most 40 tokens, a tokenizer of the captions' whole words. Trained with `ClipLoss` on
degraded and clean puppet frames against their captions, and on pairs of frames of one figure in other poses, layouts
and viewpoints. `model.safetensors` holds the averaged weights in half precision. A measuring instrument:
every rig, skin and background was in its training, on seeds of its own.

    python -m flexiact.puppets.train clip --steps {steps} --seed {seed}

    import open_clip
    model, preprocess = open_clip.create_model_from_pretrained("local-dir:flexiact/puppets/weights/clip")
    tokenizer = open_clip.get_tokenizer("local-dir:flexiact/puppets/weights/clip")

## On held-out worlds

{count} figures of the test split (held-out skins and backgrounds, frames in the middle of the 41 test actions), in
galleries of 32: chance is {chance}. Captions are at the level `subject`, and some figures of a gallery share
theirs in part.

| question | share right |
|---|---|
| image to caption, nearest of 32 | {image_to_text} |
| caption to image, nearest of 32 | {text_to_image} |
| image to the same figure (other camera, action and background), nearest of 32 | {identity} |
| caption nearer than the same one with another body | {right_rig} |
| caption nearer than the same one with another skin | {right_skin} |

| mean cosine | |
|---|---|
| image and its caption | {cosine_caption} |
| image and another figure's caption | {cosine_other_caption} |
| two images of one figure (other camera, action and background) | {cosine_same} |
| images of two figures | {cosine_other} |

| frames | image to caption | image to same figure | cosine to the clean frame |
|---|---|---|---|
{conditions}

## Limits

It knows the puppets and the words of their captions, nothing else: every other word is the unknown token, and its
cosines compare only with each other. It sees one frame, so words about movement hardly change an embedding.
"""
