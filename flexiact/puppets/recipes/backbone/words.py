"""Training of the text encoder: it learns the meaning of captions before the transformer sees a picture.

A linear layer reads from the mean of the encoder's tokens how every channel of the figure moves. The transformer
attends to the same tokens, so one of its layers can read the same from them. Without this training, it has to learn the
meaning of words through noisy latents. The linear layer is dropped afterwards; the encoder is trained further together
with the transformer.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5EncoderModel

from flexiact.media.files import read_tensors, replacing
from flexiact.puppets.engine.checkpoint import weights_of
from flexiact.puppets.engine.loop import Plan, step_generator, train
from flexiact.puppets.recipes.backbone.model import TEXT_WIDTH, new_text_encoder, new_tokenizer
from flexiact.puppets.world.actions import curves, random_large_action
from flexiact.puppets.world.captions import wordings
from flexiact.puppets.world.clip import NUM_FRAMES
from flexiact.puppets.world.rigs import CHANNELS, RIGS
from flexiact.puppets.world.scene import random_scene

WORDS = "words.safetensors"
BATCH = 64
LEARNING_RATE = 3e-3
# Shares of the wordings (subject, coarse, three of the whole action) in a batch. A caption of less than the whole
# action has no single right answer: the encoder learns the mean over all possible ones.
_SHARES = (0.05, 0.10, 0.45, 0.20, 0.20)
_WHOLE_ACTION = (0.0, 0.0, 1.0, 0.0, 0.0)
_HELD_OUT = 512


class CourseReader(nn.Module):
    """A text encoder and the layer that reads courses [B, T, 21] from the mean of its tokens."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.text_encoder = new_text_encoder(vocabulary_size)
        self.proj_out = nn.Linear(TEXT_WIDTH, NUM_FRAMES * len(CHANNELS))

    def forward(self, ids: Tensor) -> Tensor:
        """Courses of token ids [B, L]."""
        tokens = self.text_encoder(ids).last_hidden_state
        return self.proj_out(tokens.mean(1)).view(len(ids), NUM_FRAMES, len(CHANNELS))


def told_courses(
    generator: torch.Generator, count: int, split: str, shares: Sequence[float]
) -> tuple[list[str], Tensor]:
    """Random captions, each in one of the `wordings` by their shares, and the courses [count, T, 21] they describe."""
    texts, courses = [], []
    for _ in range(count):
        scene = random_scene(generator, split)
        action = random_large_action(generator, RIGS[scene.rig].channels)
        texts.append(wordings(scene, action)[int(torch.multinomial(torch.tensor(shares), 1, generator=generator))])
        courses.append(curves(action, NUM_FRAMES))
    return texts, torch.stack(courses)


def _ids(texts: list[str]) -> Tensor:
    """Token ids [B, L] of captions."""
    return new_tokenizer()(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def train_words(state: Path, steps: int, seed: int, device: torch.device) -> dict[str, float]:
    """Train the encoder and save it to `state`/words.safetensors.

    Returns:
        Share of the courses' variance that is explained for captions of the whole action, in development scenes.
    """
    torch.manual_seed(seed)
    model = CourseReader(len(new_tokenizer())).to(device)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        texts, courses = told_courses(generator, BATCH, "train", _SHARES)
        return functional.mse_loss(model(_ids(texts).to(device)), courses.to(device))

    train(model, loss_of, Plan(steps, seed, LEARNING_RATE), state / "words")
    with replacing(state / WORDS) as partial:
        save_file({name: value.cpu().clone() for name, value in weights_of(model.text_encoder).items()}, partial)
    with torch.no_grad():
        texts, courses = told_courses(step_generator(seed, steps), _HELD_OUT, "dev", _WHOLE_ACTION)
        missed = (model(_ids(texts).to(device)).cpu() - courses).square().mean()
    return {"explained_share": 1 - float(missed / (courses - courses.mean((0, 1))).square().mean())}


@torch.no_grad()
def readable_share(encoder: T5EncoderModel, seed: int, captions: int = 4096) -> float:
    """Share of the courses' variance that a linear layer reads from the mean token, on development scenes.

    The layer is fitted by least squares on `captions` captions of the whole action. So the share says how much of the
    action the words still carry after the encoder was trained together with a transformer.
    """
    generator = step_generator(seed, 0)

    def told(split: str, count: int) -> tuple[Tensor, Tensor]:
        texts, courses = told_courses(generator, count, split, _WHOLE_ACTION)
        means = torch.cat([encoder(part).last_hidden_state.mean(1) for part in _ids(texts).split(256)])
        return torch.cat([means, torch.ones(count, 1)], 1).double(), courses.flatten(1).double()

    tokens, courses = told("train", captions)
    layer = torch.linalg.lstsq(tokens, courses).solution
    tokens, courses = told("dev", _HELD_OUT)
    return 1 - float((tokens @ layer - courses).square().sum() / (courses - courses.mean(0)).square().sum())


def read_words(state: Path) -> dict[str, Tensor]:
    """Read the weights of the trained text encoder.

    Raises:
        ValueError: If it has not been trained.
    """
    if not (state / WORDS).exists():
        raise ValueError(f"--taught: {state / WORDS} does not exist; run `train words` first")
    return read_tensors(state / WORDS)[0]
