"""Published native settings and network configurations of the large models.

They come from the model cards and the `config.json` files of the repositories on the hub. A value that a configuration
does not name is the class's own default. They are stored here so that sizes are known without asking the hub.
"""

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """Settings and configurations of one published model.

    Attributes:
        settings: Native settings of `flexiact.backbone.backbone.Backbone`, from num_frames on.
        transformer: Configuration of CogVideoXTransformer3DModel.
        vae: Configuration of AutoencoderKLCogVideoX.
        text_encoder: Configuration of T5EncoderModel.
    """

    settings: Config
    transformer: Config
    vae: Config
    text_encoder: Config


T5_XXL: Config = {  # version 1.1
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
VAE: Config = {"scaling_factor": 0.7, "sample_height": 480, "sample_width": 720}
TRANSFORMER: Config = {  # shared by the two models
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "in_channels": 32,
    "out_channels": 16,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "num_layers": 42,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 226,
    "use_rotary_positional_embeddings": True,
}

COGVIDEOX_5B_I2V = Published(
    settings={
        "num_frames": 49,
        "height": 480,
        "width": 720,
        "fps": 8.0,
        "max_text_tokens": 226,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    },
    transformer=TRANSFORMER
    | {"sample_height": 60, "sample_width": 90, "sample_frames": 49, "use_learned_positional_embeddings": True},
    vae=VAE,
    text_encoder=T5_XXL,
)
COGVIDEOX_15_5B_I2V = Published(
    settings={
        "num_frames": 81,
        "height": 768,
        "width": 1360,
        "fps": 16.0,
        # The card says 224. The pipeline's default, the configuration and the published examples say 226, and so does
        # this entry. Positions of this model do not depend on it.
        "max_text_tokens": 226,
        "num_inference_steps": 50,
        "guidance_scale": 6.0,
    },
    # Some revisions say 300x300 for the sample's sides, which only bound the table of positions.
    transformer=TRANSFORMER
    | {
        "sample_height": 96,
        "sample_width": 170,
        "sample_frames": 81,
        "patch_size_t": 2,
        "patch_bias": False,
        "ofs_embed_dim": 512,
    },
    vae=VAE | {"invert_scale_latents": True},
    text_encoder=T5_XXL,
)
