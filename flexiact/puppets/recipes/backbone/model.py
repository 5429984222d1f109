"""The puppet backbone: a CogVideoX image-to-video transformer and its text encoder, their batches and their folder."""

import json
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from flexiact.puppets.engine.losses import Batch
from flexiact.puppets.recipes.backbone.pointer import Pointer
from flexiact.puppets.world.captions import UNKNOWN, word_tokenizer
from flexiact.puppets.world.clip import FPS, NUM_FRAMES, SIZE
from flexiact.sampling import rotary_embedding_of

MAX_TEXT_TOKENS = 40
TEXT_WIDTH = 128
# Shares of training clips described in each of the `wordings` (subject, coarse, three of the whole action), and of
# those without a caption.
WORDING_SHARES = (0.12, 0.12, 0.34, 0.16, 0.16, 0.10)
IMAGE_DROPOUT = 0.05
# Share of the timesteps drawn close to pure noise, as u^(1/6) of the schedule's length with u uniform; the others are
# uniform. The action is decided at high noise and is the hardest part to learn, but the grain of the picture is made at
# low noise: with .75 and .4 a branch after 125,000 samples knew the movement and drew it as a cloud of coloured blocks.
EARLY_HIGH_NOISE_SHARE, LATE_HIGH_NOISE_SHARE = 0.5, 0.2


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer with one token per word of the closed vocabulary; commas are dropped."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(("<pad>", "</s>", UNKNOWN), "$A </s>", r"[,\s]+"),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token=UNKNOWN,
        model_max_length=MAX_TEXT_TOKENS,
    )


def new_text_encoder(vocabulary_size: int) -> T5EncoderModel:
    """A two-layer T5 encoder, initialised from torch's global generator."""
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary_size,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def new_transformer(latent_channels: int, latent_size: int) -> CogVideoXTransformer3DModel:
    """CogVideoX-5B-I2V's architecture (rotary positions, image latents on channels) with 3 M parameters."""
    return CogVideoXTransformer3DModel(
        # Wide heads as in the 5B model: rotary positions divide a head's width among time, rows and columns. With half
        # the width the model needed several times as much training to follow captions.
        num_attention_heads=2,
        attention_head_dim=64,
        num_layers=8,
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        time_embed_dim=128,
        text_embed_dim=TEXT_WIDTH,
        sample_width=latent_size,
        sample_height=latent_size,
        sample_frames=NUM_FRAMES,
        max_text_seq_length=MAX_TEXT_TOKENS,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,  # the 5B model's too: fixed sines and cosines, not learned
    )


def new_scheduler() -> CogVideoXDDIMScheduler:
    """CogVideoX's noise schedule: zero terminal SNR, velocity prediction, trailing steps.

    The schedule is shifted to higher noise as in CogVideoX-2B. Without the shift the puppets' action is decided in the
    first tenth of the schedule, where few sampling steps and few of a fit's uniform timesteps fall.
    The sampler is DDIM: the 5B model's stochastic DPM sampler adds more noise at every step than a small model removes.
    """
    return CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
    )


class TextToVelocity(nn.Module):
    """Networks that are trained together: text encoder, transformer, and the `pointer` that the loss may use."""

    def __init__(self, text_encoder: T5EncoderModel, transformer: CogVideoXTransformer3DModel) -> None:
        super().__init__()
        self.text_encoder, self.transformer = text_encoder, transformer
        self.pointer = Pointer(transformer)

    def forward(self, noisy: Tensor, condition: Tensor, ids: Tensor, timestep: Tensor, rotary: tuple) -> Tensor:
        """Velocity [B, F, C, h, w] for noisy latents and zero-padded condition latents of that shape."""
        return self.transformer(
            hidden_states=torch.cat([noisy, condition], 2),
            encoder_hidden_states=self.text_encoder(ids).last_hidden_state,
            timestep=timestep,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]


def rotary_positions(transformer: CogVideoXTransformer3DModel, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary embedding as the pipeline computes it for latents [B, F, C, h, w] of the native size."""
    found = rotary_embedding_of(transformer, latents.shape[1:], latents.device)
    assert found is not None  # the puppets' transformers have them
    return found


@cache  # every copy to a GPU waits for all earlier work
def _wording_shares(device: torch.device, shares: tuple[float, ...]) -> Tensor:
    return torch.tensor(shares, device=device)


def draw_batch(
    clips: dict[str, Tensor],
    condition: str,
    size: int,
    generator: torch.Generator,
    shares: tuple[float, ...] = WORDING_SHARES,
) -> Batch:
    """Draw random clips and apply dropout.

    Args:
        clips: Clips of `cached_clips`, on the generator's device.
        condition: Name of the conditioning image, "first" or "other".
        size: Size of the batch.
        generator: Source of all randomness.
        shares: Shares of the wordings and of no caption, as in `WORDING_SHARES`.

    Returns:
        Clean latents, zero-padded condition latents, caption ids and, if the clips hold them, keypoints.
    """
    device = clips["latents"].device
    rows = torch.randint(len(clips["latents"]), (size,), generator=generator, device=device)
    clean = clips["latents"][rows].float()
    padded = torch.zeros_like(clean)
    kept = torch.rand(size, generator=generator, device=device) >= IMAGE_DROPOUT
    padded[:, :1] = clips[condition][rows].float() * kept.view(-1, 1, 1, 1, 1)
    wording = torch.multinomial(_wording_shares(device, shares), size, replacement=True, generator=generator)
    ids = clips["captions"][rows, wording.clamp(max=len(shares) - 2)].long()
    empty = torch.zeros_like(ids)
    empty[:, 0] = 1  # an empty caption is </s> and padding
    points = clips["points"][rows].float() if "points" in clips else None
    return Batch(clean, padded, torch.where((wording == len(shares) - 1)[:, None], empty, ids), points)


def save_backbone(
    out: Path, vae: AutoencoderKLCogVideoX, model: TextToVelocity, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write diffusers' folder layout in half precision, and the world's format in puppets.json."""
    vae.half().save_pretrained(out / "vae")
    model.transformer.half().save_pretrained(out / "transformer")
    # transformers loads the stored dtype, diffusers float32: stored as float32, both agree in the stock pipeline.
    model.text_encoder.float().save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")
    scheduler = new_scheduler()
    scheduler.save_pretrained(out / "scheduler")
    index = {
        "_class_name": "CogVideoXImageToVideoPipeline",
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    native = {"num_frames": NUM_FRAMES, "height": SIZE, "width": SIZE, "fps": FPS, "max_text_tokens": MAX_TEXT_TOKENS}
    native |= {"num_inference_steps": 25, "guidance_scale": 1.0}
    (out / "puppets.json").write_text(json.dumps(native, indent=2) + "\n")
