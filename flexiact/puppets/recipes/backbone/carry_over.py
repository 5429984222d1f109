"""Carry a trained backbone over to another world: its knowledge stays, its latents and its words are exchanged.

Latents of two linear codes are nearly linear functions of each other. So only layers that read or write latents have to
change: each is multiplied with the map between the codes, which is fitted on clips of the new world. Words are matched
by their text. The result is a start for training; it is not meant to be used as it is.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from flexiact.puppets.recipes.backbone.model import (
    TextToVelocity,
    new_text_encoder,
    new_tokenizer,
    new_transformer,
    save_backbone,
)
from flexiact.puppets.recipes.linear_code import LinearCode
from flexiact.puppets.recipes.vae import POSTERIOR_STD, new_vae, to_tensor, training_videos, world_code

_CLIPS = 64
_READERS = ("decoder.conv_in.conv.weight", "conv_y.conv.weight", "conv_b.conv.weight")
_LOG_VARIANCE = 2 * math.log(POSTERIOR_STD)


@dataclass(frozen=True, eq=False)
class CodeMap:
    """Linear map between two codes.

    Attributes:
        forth: Map [C_new, C_old]; a new latent times it is the old one.
        back: Pseudo-inverse [C_old, C_new].
        explained: Share of the old latents' variance that the map explains.
    """

    forth: Tensor
    back: Tensor
    explained: float


@torch.no_grad()
def fit_code_map(vae: AutoencoderKLCogVideoX, code: LinearCode, pixels: Tensor) -> CodeMap:
    """Fit the map from a code to the VAE's scaled latents by least squares on clips [B, 3, T, H, W]."""
    new = code.encode(pixels).movedim(1, -1).flatten(0, 3)
    encoded = [vae.encode(clip[None]).latent_dist.mode() for clip in pixels]
    old = (torch.cat(encoded) * vae.config.scaling_factor).movedim(1, -1).flatten(0, 3)
    forth = torch.linalg.lstsq(new - new.mean(0), old - old.mean(0)).solution
    missed = (old - old.mean(0) - (new - new.mean(0)) @ forth).square().mean() / old.var()
    return CodeMap(forth, torch.linalg.pinv(forth), float(1 - missed))


def carry_over(folder: Path, state: Path, seed: int) -> dict[str, float]:
    """Write the backbone of `folder` to `state`/carried, changed to the present world's code and vocabulary.

    Returns:
        `CodeMap.explained`, and the share of the new vocabulary that the old one lacks.
    """
    torch.manual_seed(seed)
    old_vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae").float()
    pixels = to_tensor(training_videos(torch.Generator().manual_seed(seed), _CLIPS))
    codes = fit_code_map(old_vae, world_code(state, seed), pixels)
    old_words = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer").get_vocab()
    new_words = new_tokenizer().get_vocab()
    model = TextToVelocity(
        carried_text_encoder(T5EncoderModel.from_pretrained(folder / "text_encoder").float(), old_words, new_words),
        carried_transformer(CogVideoXTransformer3DModel.from_pretrained(folder / "transformer").float(), codes),
    )
    save_backbone(state / "carried", carried_vae(old_vae, codes), model, new_tokenizer())
    return {
        "explained_share": codes.explained,
        "new_words_share": len(new_words.keys() - old_words.keys()) / len(new_words),
    }


@torch.no_grad()
def carried_transformer(old: CogVideoXTransformer3DModel, codes: CodeMap) -> CogVideoXTransformer3DModel:
    """Transformer for the new code: it reads new latents as the old ones, and writes the old ones as new ones."""
    new = new_transformer(len(codes.forth), old.config.sample_height)
    weights = {n: w for n, w in old.state_dict().items() if "proj_out" not in n and "pos_embedding" not in n}
    read = old.patch_embed.proj.weight.unflatten(1, (2, -1))  # noisy latents, then those of the image
    weights["patch_embed.proj.weight"] = torch.einsum("cl,ohlyx->ohcyx", codes.forth, read).flatten(1, 2)
    for name, value in old.proj_out.state_dict().items():
        written = value.unflatten(0, (codes.forth.shape[1], -1))
        weights[f"proj_out.{name}"] = torch.einsum("lc,lp...->cp...", codes.back, written).flatten(0, 1)
    _load(new, weights)
    return new


@torch.no_grad()
def carried_text_encoder(old: T5EncoderModel, old_words: dict[str, int], new_words: dict[str, int]) -> T5EncoderModel:
    """Text encoder for the new vocabulary; a word that the old one lacks begins as its unknown word."""
    new = new_text_encoder(len(new_words))
    rows = [old_words.get(word, old_words["<unk>"]) for word in sorted(new_words, key=lambda word: new_words[word])]
    weights = {name: w for name, w in old.state_dict().items() if "shared" not in name and "embed_tokens" not in name}
    _load(new, weights | {"shared.weight": old.shared.weight[rows]})
    return new


@torch.no_grad()
def carried_vae(old: AutoencoderKLCogVideoX, codes: CodeMap) -> AutoencoderKLCogVideoX:
    """VAE of the new code, with a scaling factor of 1."""
    new, scale, channels = new_vae(), old.config.scaling_factor, codes.forth.shape[1]
    weights = dict(old.state_dict())
    # The decoder's first layer and its spatial norms read latents.
    for name in [n for n in weights if n.startswith("decoder.") and n.endswith(_READERS)]:
        weights[name] = torch.einsum("cl,olthw->octhw", codes.forth, weights[name]) / scale
    for name in ("weight", "bias"):
        mean = weights[f"encoder.conv_out.conv.{name}"][:channels] * scale
        written = torch.einsum("lc,l...->c...", codes.back, mean)
        uncertainty = torch.zeros_like(written) if name == "weight" else torch.full_like(written, _LOG_VARIANCE)
        weights[f"encoder.conv_out.conv.{name}"] = torch.cat([written, uncertainty])
    _load(new, weights)
    return new


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights; positions that are functions of the model's shape, and shared copies, may be missing."""
    missing, unknown = model.load_state_dict(weights, strict=False)
    wrong = [n for n in missing if "pos_embedding" not in n and "embed_tokens" not in n] + unknown
    if wrong:
        raise ValueError(f"--from-weights: it holds another model; {wrong[:3]} do not fit")
