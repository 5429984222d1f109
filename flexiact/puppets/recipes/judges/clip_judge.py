"""The image-and-text judge: a small open_clip model of its own configuration, trained on puppet frames and captions.

It has two contrastive losses: a frame against its caption, and a frame against another one of the same figure in
another pose, layout and viewpoint. So images with close embeddings show the same identity.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import ClipLoss, create_model, get_tokenizer
from torch import Tensor
from tqdm import tqdm

from flexiact.puppets.cards.clip_judge import write_card
from flexiact.puppets.engine.loop import Plan, train
from flexiact.puppets.recipes.clip_shards import rendered_once
from flexiact.puppets.recipes.judges.degrade import random_degradation
from flexiact.puppets.recipes.judges.pose_judge import save_half
from flexiact.puppets.world.actions import PuppetAction, curves, random_action
from flexiact.puppets.world.captions import UNKNOWN, caption, vocabulary, word_tokenizer
from flexiact.puppets.world.clip import NUM_FRAMES, SIZE, render_values
from flexiact.puppets.world.scene import Scene, random_backdrop, random_camera, random_scene

CONTEXT_LENGTH = 40
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
BATCH = 32  # figures; twice as many frames
POOL_SCENES = 8_000
FRAMES_PER_CLIP = 2
SAME_BACKDROP_SHARE = 0.5
IDENTITY_WEIGHT = 0.5


def clip_config() -> dict[str, Any]:
    """Content of `open_clip_config.json`: model and preprocessing, in the schema of open_clip's "local-dir:"."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": len(vocabulary()) + 4,
                "hf_tokenizer_name": "puppets",  # selects a Hugging Face tokenizer; its files are in the same folder
                "width": 96,
                "heads": 3,
                "layers": 2,
                "pool_type": "eos",
                "eos_id": 2,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
    }


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of whole words over the captions' vocabulary; other words become the unknown token."""
    tokenizer = word_tokenizer((PAD, BOS, EOS, UNKNOWN), f"{BOS} $A {EOS}", r"[\s,.;:]+")
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT_LENGTH, **kinds}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


@dataclass(frozen=True, eq=False)
class Pool:
    """Rendered pairs: frames uint8 [N, 2, 2, S, S, 3] (two frames of two clips each), captions[n][view][level]."""

    frames: np.ndarray
    captions: list[list[list[str]]]


def other_look(scene: Scene, generator: torch.Generator) -> Scene:
    """The same figure from another camera, half the time before another background."""
    keep = torch.rand((), generator=generator) < SAME_BACKDROP_SHARE
    backdrop = scene.backdrop if keep else random_backdrop(generator, "judge")
    return replace(scene, camera=random_camera(generator), backdrop=backdrop)


def random_moments(action: PuppetAction, generator: torch.Generator) -> Tensor:
    """Channel values [2, 21] of two frames of a clip."""
    return curves(action, NUM_FRAMES)[torch.randperm(NUM_FRAMES, generator=generator)[:FRAMES_PER_CLIP]]


def render_pool(folder: Path, scenes: int, seed: int) -> Pool:
    """Render the training pairs once, or open those of an earlier start with the same count and seed."""
    texts, shape = folder / "captions.json", (scenes, 2, FRAMES_PER_CLIP, SIZE, SIZE, 3)

    def render(files: Sequence[np.ndarray]) -> None:
        generator = torch.Generator().manual_seed(seed)
        captions: list[list[list[str]]] = []
        for start in tqdm(range(0, scenes, 100), desc="render", mininterval=5):
            first = [random_scene(generator, "judge") for _ in range(min(100, scenes - start))]
            both = [[scene, other_look(scene, generator)] for scene in first]
            actions = [[random_action(generator) for _ in pair] for pair in both]
            values = [random_moments(action, generator) for pair in actions for action in pair]
            clips = render_values([scene for pair in both for scene in pair], torch.stack(values))
            images = np.stack([c.video.frames for c in clips])
            files[0][start : start + len(first)] = images.reshape(len(first), *shape[1:])
            told = ([_captions(s, a) for s, a in zip(*pair, strict=True)] for pair in zip(both, actions, strict=True))
            captions += told
        texts.write_text(json.dumps(captions))

    [frames] = rendered_once(folder, {"scenes": scenes, "seed": seed}, {"frames": (shape, "u1")}, render)
    return Pool(frames, json.loads(texts.read_text()))


def _captions(scene: Scene, action: PuppetAction) -> list[str]:
    return [caption(scene, action, level) for level in ("subject", "coarse", "full")]


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def random_caption(levels: list[str], generator: torch.Generator) -> str:
    """A subject caption (half the time), a shortened one, or one that also says what moves.

    A single frame does not show an action, so longer captions only teach that such words leave the identity unchanged.
    """
    draw = _chance(generator)
    if draw < 0.5:
        return levels[0]
    if draw < 0.75:
        return levels[1] if draw < 0.625 else levels[2]
    look, *rest = levels[0].split(", ")
    return ", ".join([look, *(part for part in rest if _chance(generator) < 0.4)])


def normalised(images: Tensor, config: dict[str, Any]) -> Tensor:
    """Frames [B, 3, S, S] in 0..1, normalised for the model."""
    mean, std = (torch.tensor(config["preprocess_cfg"][k], device=images.device).view(3, 1, 1) for k in ("mean", "std"))
    return (images - mean) / std


def clip_loss(model: Any, tokenizer: Any, pool: Pool, generator: torch.Generator, device: torch.device) -> Tensor:
    """Both contrastive losses of a random batch."""
    rows = torch.randint(len(pool.frames), (BATCH,), generator=generator).sort().values.tolist()
    picks = torch.randint(FRAMES_PER_CLIP, (2, BATCH), generator=generator)
    frames = np.stack([pool.frames[row] for row in rows])  # [B, 2, 2, S, S, 3]
    chosen = np.concatenate([frames[np.arange(BATCH), view, picks[view].numpy()] for view in (0, 1)])
    images = torch.from_numpy(chosen).to(device).permute(0, 3, 1, 2).float() / 255
    images = random_degradation(images, images.roll(1, 0), generator, ghosts=False)
    texts = [random_caption(pool.captions[row][view], generator) for view in (0, 1) for row in rows]
    with torch.autocast(device.type, torch.bfloat16):
        seen = model.encode_image(normalised(images, clip_config()), normalize=True)
        said = model.encode_text(tokenizer(texts).to(device), normalize=True)
    seen, said = seen.float(), said.float()
    scale = model.logit_scale.exp().clamp(max=100)
    contrast = ClipLoss()
    text = contrast(seen[:BATCH], said[:BATCH], scale) + contrast(seen[BATCH:], said[BATCH:], scale)
    identity = contrast(seen[:BATCH], seen[BATCH:], scale)
    return text / 2 + IDENTITY_WEIGHT * identity


def train_clip(state: Path, out: Path, steps: int, seed: int, device: torch.device | str = "cpu") -> dict[str, float]:
    """Train the image-and-text judge and write a folder that open_clip loads as "local-dir:<folder>".

    Folders and seed are those of `pose_judge.train_estimator`. A step is of 32 figures, two frames each.

    Returns:
        Figures on the test split, see `cards.clip_judge.write_card`.
    """
    device = torch.device(device)
    pool = render_pool(state / "pool", POOL_SCENES, seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "open_clip_config.json").write_text(json.dumps(clip_config(), indent=1) + "\n")
    write_tokenizer(out)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's generator alone
        model = create_model(f"local-dir:{out}", load_weights=False).to(device)
    tokenizer = get_tokenizer(f"local-dir:{out}")
    plan = Plan(steps, seed, learning_rate=2e-3, warmup=100, averages=(0.10,))
    train(model, lambda _, generator: clip_loss(model, tokenizer, pool, generator, device), plan, state)
    save_half(model, out / "model.safetensors")
    return write_card(out, steps, seed)
