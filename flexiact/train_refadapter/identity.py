"""Identity-consistency loss: a term of RefAdapter's training that keeps the look of the image. Ours, not the paper's.

The look of a latent frame is the mean and the covariance of its channels over all places: features of the VAE's encoder
that know colours and textures but no layout. So the subject can move, while the picture keeps its colours. It is the
look of the whole frame, background included. The true clip has a small loss, too, since its pose is not the image's.
No other network is needed, least of all one that also judges the result.
"""

import torch
from torch import Tensor

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import clean_latent
from flexiact.batches import Batch
from flexiact.training import Term


def looks(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [B, F, C] and covariance [B, F, C, C] of the channels of latents [B, F, C, h, w] over places, float32."""
    places = latents.float().flatten(3)
    mean = places.mean(3, keepdim=True)
    centred = places - mean
    return mean.squeeze(3), centred @ centred.transpose(2, 3) / places.shape[3]


def identity_loss(predicted: Tensor, image: Tensor, abar: Tensor) -> Tensor:
    """Mean over clips of abar * squared distance between the looks of predicted frames and of the image.

    abar gives noisy clips less weight: their best prediction is a blur, which has another covariance whatever the
    subject. The squared distance is that of the means, averaged over frames and channels, plus that of the covariances,
    averaged over frames and pairs of channels.

    Args:
        predicted: Clean latents that the prediction implies, [B, F, C, h, w].
        image: Latents of the images, [B, 1, C, h, w]; zeros where the image was dropped. Such a clip counts as 0.
        abar: Share of the signal's variance, [B, 1, 1, 1, 1].

    Returns:
        A float32 scalar.
    """
    distance = torch.zeros(len(predicted), device=predicted.device)
    for found, right in zip(looks(predicted), looks(image), strict=True):
        distance = distance + (found - right).square().flatten(1).mean(1)
    shown = image.flatten(1).any(1)
    return (abar.flatten() * distance * shown).mean()


def identity_term(weight: float, backbone: Backbone, batch: Batch) -> Term | None:
    """Term weight * `identity_loss` with the images that a batch shows; at weight 0 there is none."""
    if not weight:
        return None
    image = clean_latent(backbone, batch.condition)
    return lambda predicted, _, abar: weight * identity_loss(predicted, image, abar)
