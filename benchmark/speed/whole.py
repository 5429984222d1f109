"""Comparisons other than attention: a denoising step, a whole transfer and a step of the fit, with their rivals.

All inputs are noise and tokens of noise, since the cost does not depend on them. Networks are real ones. A rival does
the same work by other means, in the same process and between our own runs (see `benchmark.speed.timing`).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel
from peft.tuners.lora import Linear
from PIL import Image

from benchmark.speed.attention import BIAS
from benchmark.speed.comparison import Comparison, type_name
from benchmark.speed.timing import Variant
from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_text, encode_video, tiled
from flexiact.batches import Batch, FitConfig, random_crops, reference_batches
from flexiact.embedding import ACTION_KEY, FrequencyAwareEmbedding
from flexiact.method import FlexiAct, preset
from flexiact.refadapter import RefAdapter
from flexiact.sampling import Denoiser, sample_video
from flexiact.task import Request, Video
from flexiact.training import Optimisation, debias_term, denoising_loss, frozen, optimise

PROMPT = "a dog jumps on the grass"
TIMESTEP = 850
"""Timestep in the part of the paper's schedule that has the whole bias."""


def step(backbone: Backbone) -> Comparison:
    """Compare the transformer's part of a denoising step with and without the additions of FlexiAct."""
    config, weight = preset(backbone), _weight(backbone)
    generator = torch.Generator().manual_seed(0)
    text_size = backbone.max_text_tokens, backbone.transformer.config.text_embed_dim
    latents, condition, text = (
        torch.randn(2, *size, generator=generator).to(backbone.device, backbone.dtype)
        for size in (backbone.latent_shape, backbone.latent_shape, text_size)
    )
    inputs = latents, condition, text, torch.full((2,), TIMESTEP, device=backbone.device)
    tokens = _tokens(backbone, config.fit.embedding_tokens).to(backbone.device)
    told = {"extra_tokens": tokens, "extra_bias": BIAS}

    model, adapted = backbone.transformer, partial(_refadapter(backbone, backbone.transformer).attached, weight)
    merged = fused(backbone, weight)
    listening, merged_listening = partial(extra_tokens_attached, model), partial(extra_tokens_attached, merged)
    alone, in_merged = Denoiser(backbone), Denoiser(replace(backbone, transformer=merged))
    bare = "transformer alone"
    return Comparison(
        title="Denoising step, without the scheduler's part",
        setting=(
            f"batch 2, {backbone.num_video_tokens} video + {backbone.max_text_tokens} text tokens, "
            f"{tokens.shape[1]} learned ones a block, {type_name(backbone.dtype)}"
        ),
        variants={
            bare: Variant(partial(alone, *inputs)),
            "with the embedding": Variant(partial(alone, *inputs, told), listening),
            "with RefAdapter": Variant(partial(alone, *inputs), adapted),
            "with both": Variant(partial(alone, *inputs, told), partial(_all_of, adapted, listening)),
            "with both, RefAdapter merged": Variant(partial(in_merged, *inputs, told), merged_listening),
        },
        rivals=(bare, "with both"),
    )


def fused(backbone: Backbone, weight: float) -> CogVideoXTransformer3DModel:
    """Copy of the transformer into whose weights peft has merged RefAdapter's products at `weight`.

    The method itself does not merge: transfers would change in their last bits, and the copy needs the transformer's
    memory a second time.
    """
    transformer = deepcopy(backbone.transformer)
    with _refadapter(backbone, transformer).attached(weight):
        for layer in list(transformer.modules()):
            if isinstance(layer, Linear):
                layer.merge()
    return transformer


def transfer(backbone: Backbone) -> Comparison:
    """Compare transfers, from image and prompt to frames: diffusers' own pipeline, our loop, ours with FlexiAct."""
    config = preset(backbone)
    method = FlexiAct(backbone, config.changed(refadapter_weight=_weight(backbone)))
    steps, guidance = method.config.transfer.resolved(backbone)
    action = {ACTION_KEY: _tokens(backbone, config.fit.embedding_tokens)}
    request = Request(_noise_frames(backbone, 1)[0], PROMPT, 0)
    loop = partial(sample_video, backbone, request, num_inference_steps=steps, guidance_scale=guidance)
    stock = "diffusers' pipeline"
    return Comparison(
        title="Whole transfer",
        setting=(
            f"{steps} steps, guidance {guidance:g}, {backbone.num_frames} frames of "
            f"{backbone.width} × {backbone.height}, {type_name(backbone.dtype)}"
        ),
        variants={
            stock: Variant(_stock_pipeline(backbone, request, steps, guidance)),
            "our loop": Variant(loop),
            "our loop, FlexiAct": Variant(partial(method.transfer, action, request)),
        },
        rivals=(stock,),
    )


def fit(backbone: Backbone) -> Comparison:
    """Compare one optimiser step of FlexiAct's fit on inputs encoded once with a step that encodes its inputs."""
    config, frames = preset(backbone).fit, _noise_frames(backbone, backbone.num_frames)
    batches = {
        "ours: encoded once": reference_batches(
            backbone, Video(frames, backbone.fps), PROMPT, config, torch.Generator().manual_seed(0)
        ),
        "encoded in every step": encoding_batches(backbone, frames, PROMPT, config, torch.Generator().manual_seed(0)),
    }
    transformer = backbone.transformer
    around = partial(_all_of, partial(frozen, transformer), partial(extra_tokens_attached, transformer))
    return Comparison(
        title="One step of the fit",
        setting=(
            f"batch {config.batch_size}, {config.embedding_tokens} learned tokens a block, {config.crops} crops, "
            f"text encoder of {len(backbone.text_encoder.encoder.block)} layers, {type_name(backbone.dtype)}"
        ),
        variants={name: Variant(_fit_step(backbone, source, config), around) for name, source in batches.items()},
        rivals=("ours: encoded once",),
    )


def encoding_batches(
    backbone: Backbone, frames: np.ndarray, caption: str, config: FitConfig, generator: torch.Generator
) -> Iterator[Batch]:
    """Crops like those of `reference_batches` (without dropouts), but VAE and text encoder run again for every batch.

    The authors' release does the same, and its inputs repeat like ours.
    """
    clips = random_crops(frames, config.crops, config.crop_min_scale, generator)
    while True:
        chosen = [clips[i] for i in torch.randint(len(clips), (config.batch_size,), generator=generator).tolist()]
        yield Batch(
            torch.cat([encode_video(backbone, clip, generator) for clip in chosen]),
            torch.cat([encode_image(backbone, clip[0], generator) for clip in chosen]),
            encode_text(backbone, [caption] * len(chosen)),
        )


def _fit_step(backbone: Backbone, batches: Iterator[Batch], config: FitConfig) -> Callable[[], object]:
    denoiser, generator = Denoiser(backbone), torch.Generator().manual_seed(0)
    embedding = FrequencyAwareEmbedding.drawn(backbone, config.embedding_tokens, config.initial_std, generator)
    plan = Optimisation(1, config.learning_rate, config.weight_decay, max_grad_norm=config.max_grad_norm)

    def loss_of(batch: Batch) -> torch.Tensor:
        kwargs = embedding.attention_kwargs()
        return denoising_loss(
            denoiser,
            backbone.scheduler,
            batch,
            generator,
            further=debias_term(config.debias_weight, generator),
            attention_kwargs=kwargs,
        )

    return partial(optimise, [embedding.tokens], batches, loss_of, plan)


def _stock_pipeline(backbone: Backbone, request: Request, steps: int, guidance: float) -> Callable[[], np.ndarray]:
    """Stock diffusers pipeline on the same networks, decoding in tiles if ours does; float32 [T, H, W, 3] in [0, 1]."""
    scheduler = type(backbone.scheduler).from_config(backbone.scheduler.config)
    pipe = CogVideoXImageToVideoPipeline(
        backbone.tokenizer, backbone.text_encoder, backbone.vae, backbone.transformer, scheduler
    )
    pipe.set_progress_bar_config(disable=True)

    decode = pipe.decode_latents

    def decode_as_we_do(latents: torch.Tensor) -> torch.Tensor:
        with tiled(backbone):
            pixels: torch.Tensor = decode(latents)
        return pixels

    pipe.decode_latents = decode_as_we_do

    def run() -> np.ndarray:
        return pipe(
            image=Image.fromarray(request.target),
            prompt=request.prompt,
            height=backbone.height,
            width=backbone.width,
            num_frames=backbone.num_frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(request.seed),
            max_sequence_length=backbone.max_text_tokens,
            output_type="np",
        ).frames[0]

    return run


@contextmanager
def _all_of(*contexts: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        yield


def _refadapter(backbone: Backbone, transformer: CogVideoXTransformer3DModel) -> RefAdapter:
    if backbone.refadapter is None:
        raise ValueError(f"refadapter: backbone {backbone.name} has none")
    return RefAdapter.load(backbone.refadapter, transformer)


def _weight(backbone: Backbone) -> float:
    """RefAdapter's weight in the settings meant for the backbone, or the paper's if these name none."""
    return preset(backbone).transfer.refadapter_weight or 0.7


def _tokens(backbone: Backbone, length: int) -> torch.Tensor:
    """Untrained tokens in the shape of learned ones, float32 [blocks, length, width] on the CPU."""
    size = FrequencyAwareEmbedding.zeros(backbone, length).tokens.shape
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def _noise_frames(backbone: Backbone, count: int) -> np.ndarray:
    size = count, backbone.height, backbone.width, 3
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
