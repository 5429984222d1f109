"""Batches of a fit: random crops of one reference, encoded as latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_text, encode_video
from flexiact.ranges import check_count, check_not_negative, check_positive, check_share
from flexiact.task import Video


@dataclass(frozen=True, eq=False)
class Batch:
    """Tensors of one training step, on the backbone's device.

    Attributes:
        clean: Clean latents, to be noised, [B, F, C, h, w].
        condition: Condition latents, [B, F, C, h, w]; zeros where the image is dropped.
        text: Text states, [B, L, width]; those of the empty text where the caption is dropped.
    """

    clean: torch.Tensor
    condition: torch.Tensor
    text: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Settings of batches drawn from encoded clips; the default dropouts are FlexiAct's.

    Attributes:
        batch_size: Number of clips in a batch, drawn with replacement.
        image_dropout: Probability that a condition is replaced by zeros.
        caption_dropout: Probability that the caption is replaced by the empty one.
    """

    batch_size: int = 1
    image_dropout: float = 0.05
    caption_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        for name in ("image_dropout", "caption_dropout"):
            check_share(name, getattr(self, name))

    @property
    def windows(self) -> tuple[int, float]:
        """Number of crops of a reference, and the smallest side of one as a share of the frame's: 1 crop, the frame."""
        return 1, 1.0


@dataclass(frozen=True, kw_only=True)
class FitConfig(DrawConfig):
    """Settings of `FlexiAct.fit`. The defaults are the paper's, or the released code's where the paper has none.

    Attributes:
        embedding_tokens: Number of learned tokens of each block.
        initial_std: Standard deviation of the tokens at the start; that of video tokens is 1 after the block's norm,
            before its scale and shift. 0, as in the released code, keeps all tokens of a block equal: see
            `FrequencyAwareEmbedding.drawn`.
        fit_steps: Number of AdamW steps.
        learning_rate: Learning rate, constant as in the released code.
        crops: Number of random crops of the reference; 0: the crops that come with it, as with the authors' dataset.
        crop_min_scale: Smallest side of a crop, as a share of the frame's (our choice; the paper gives none).
        debias_weight: Weight of the loss on changes between adjacent latent frames (in the released code only); 0
            leaves it out.
        weight_decay: Weight decay of AdamW.
        max_grad_norm: Norm to which gradients are scaled down.
    """

    embedding_tokens: int = 226
    initial_std: float = 0.0
    fit_steps: int = 3000
    learning_rate: float = 3e-3
    crops: int = 12
    crop_min_scale: float = 0.7
    debias_weight: float = 1.0
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("embedding_tokens", "fit_steps"):
            check_count(name, getattr(self, name))
        if self.crops != 0:
            check_count("crops", self.crops)
        for name in ("learning_rate", "max_grad_norm"):
            check_positive(name, getattr(self, name))
        for name in ("initial_std", "debias_weight", "weight_decay"):
            check_not_negative(name, getattr(self, name))
        check_share("crop_min_scale", self.crop_min_scale)

    @property
    def windows(self) -> tuple[int, float]:
        """Number of random crops (0: the reference's own), and the smallest side of one as a share of the frame's."""
        return self.crops, self.crop_min_scale


def reference_batches(
    backbone: Backbone, reference: Video, caption: str, config: DrawConfig, generator: torch.Generator
) -> Iterator[Batch]:
    """Endless batches of random crops of the reference; the call itself encodes every crop and text, once.

    Crops differ in place and size, so that they share the action but not the layout. The condition of a crop is its
    own first frame.

    Raises:
        ValueError: If the reference's own crops are asked for, but it has none, or they are of another size or length.
    """
    clips = _clips(backbone, reference, config, generator)
    clean = torch.cat([encode_video(backbone, clip, generator) for clip in clips])
    conditions = torch.cat([encode_image(backbone, clip[0], generator) for clip in clips])
    return drawn_batches(clean, conditions, encode_text(backbone, ["", caption]), config, generator)


def _clips(
    backbone: Backbone, reference: Video, config: DrawConfig, generator: torch.Generator
) -> Sequence[np.ndarray]:
    count, min_scale = config.windows
    if count:
        return random_crops(reference.frames, count, min_scale, generator)
    if not reference.crops:
        raise ValueError("crops: 0 takes those that come with the reference, but it has none")
    for crop in reference.crops:
        backbone.check_frames("crops", crop, backbone.num_frames)
    return reference.crops


def drawn_batches(
    clean: torch.Tensor, conditions: torch.Tensor, texts: torch.Tensor, config: DrawConfig, generator: torch.Generator
) -> Iterator[Batch]:
    """Endless batches of random clips, with images and captions dropped as often as the configuration says.

    Args:
        clean: Clean latents of the clips, [N, F, C, h, w].
        conditions: Condition latents of the clips, [N, F, C, h, w].
        texts: Text states of the empty text and of the caption, [2, L, width].
        config: Batch size and dropouts.
        generator: Source of all randomness, on the CPU.
    """
    size = config.batch_size
    while True:
        chosen = torch.randint(len(clean), (size,), generator=generator)
        keep_image = (torch.rand(size, generator=generator) >= config.image_dropout).view(-1, 1, 1, 1, 1)
        keep_text = (torch.rand(size, generator=generator) >= config.caption_dropout).long()
        chosen, keep_image, keep_text = (t.to(clean.device) for t in (chosen, keep_image, keep_text))
        yield Batch(clean[chosen], conditions[chosen] * keep_image.to(clean.dtype), texts[keep_text])


def random_crops(frames: np.ndarray, count: int, min_scale: float, generator: torch.Generator) -> list[np.ndarray]:
    """Crop a clip at random, with one window for all frames, and resize it back: `count` arrays shaped like `frames`.

    A window keeps the frame's proportions. Its side is uniform in [min_scale, 1] of the frame's; its place is uniform.

    Raises:
        ValueError: If `count` is below 1 or `min_scale` outside (0, 1].
    """
    if count < 1:
        raise ValueError(f"crops: expected 1 or more, got {count}")
    if not 0 < min_scale <= 1:
        raise ValueError(f"crop_min_scale: expected 0 < scale <= 1, got {min_scale}")
    height, width = frames.shape[1:3]
    images = [Image.fromarray(frame) for frame in frames]
    crops = []
    for scale, across, down in torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist():
        side = min_scale + (1 - min_scale) * scale
        left, top = across * (1 - side) * width, down * (1 - side) * height
        box = (left, top, left + side * width, top + side * height)
        resized = [image.resize((width, height), Image.Resampling.BICUBIC, box=box) for image in images]
        crops.append(np.stack([np.asarray(image) for image in resized]))
    return crops
