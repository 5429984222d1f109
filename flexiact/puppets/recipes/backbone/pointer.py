"""Term of the backbone's loss: the transformer's middle block must know where every keypoint is in every frame.

The velocity's error is dominated by whatever fills most pixels. In this term every keypoint has equal weight, a hand as
much as the trunk. From the tokens after the middle block, a linear layer points at the token of the latent frame in
which the keypoint lies. The layer is dropped after training. The term may also be learned first and alone, see
recipes.backbone.pointing.
"""

from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from flexiact.media.files import read_tensors
from flexiact.puppets.engine import processes
from flexiact.puppets.recipes.linear_code import BLOCK
from flexiact.puppets.world.clip import SIZE
from flexiact.puppets.world.rigs import KEYPOINTS

POINTING = "pointing.safetensors"


def token_shares(points: Tensor, side: int) -> Tensor:
    """Bilinear shares [..., side * side] of points [..., 2], in pixels, in the tokens of a side x side grid."""
    at = (points * side / SIZE - 0.5).clamp(0, side - 1)
    columns, rows = (1 - (at[..., None] - torch.arange(side, device=at.device)).abs()).clamp(min=0).unbind(-2)
    return (rows[..., :, None] * columns[..., None, :]).flatten(-2)


def blocks_seen(transformer: CogVideoXTransformer3DModel) -> int:
    """Number of the transformer's blocks whose work a pointer sees."""
    return transformer.config.num_layers // 2


class Pointer(nn.Module):
    """Watcher of a transformer's middle block; call it after the transformer to get the term for the same clips."""

    def __init__(self, transformer: CogVideoXTransformer3DModel) -> None:
        super().__init__()
        config = transformer.config
        self.side = config.sample_width // config.patch_size
        self.proj_out = nn.Linear(config.num_attention_heads * config.attention_head_dim, BLOCK * len(KEYPOINTS))
        self._tokens = torch.empty(0)
        transformer.transformer_blocks[blocks_seen(transformer) - 1].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]) -> None:
        self._tokens = outputs[0]

    def forward(self, points: Tensor, number: Tensor) -> Tensor:
        """Cross-entropy, in nats, of pointing at `points` [B, T, 13, 2] in pixels (nan for a missing part).

        The points are of the clips that the transformer has just seen; their sum is divided by `number`, [].
        """
        logits = self._logits()
        known = points[..., 0].isfinite()
        shares = token_shares(points.nan_to_num(), self.side)
        entropy = -(shares * logits.log_softmax(-1)).sum(-1)
        return (entropy * known).sum() / number  # selecting the known ones would make a GPU wait

    def places(self) -> Tensor:
        """Mean places [B, T, 13, 2] in pixels where the tokens of the clips just seen point."""
        shares = self._logits().softmax(-1).unflatten(-1, (self.side, self.side))
        centres = (torch.arange(self.side, device=shares.device) + 0.5) * SIZE / self.side
        return torch.stack([shares.sum(-2) @ centres, shares.sum(-1) @ centres], -1)

    def _logits(self) -> Tensor:
        """Logits [B, T, 13, side * side]."""
        tokens = functional.layer_norm(self._tokens.float(), self._tokens.shape[-1:])
        logits = self.proj_out(tokens).view(len(tokens), -1, self.side**2, BLOCK, len(KEYPOINTS))
        # A latent frame stands for four frames; the first one stands for a single frame, the last of its four.
        return logits.permute(0, 1, 3, 4, 2).flatten(1, 2)[:, BLOCK - 1 :]


def pointing_loss(pointer: Pointer, points: Tensor) -> Tensor:
    """A process's share of a batch's term, for the keypoints [B, T, 13, 2] of the whole batch."""
    device = pointer.proj_out.weight.device
    # The mean over processes, each with its share of the batch, is then the mean over all keypoints.
    number = points[..., 0].isfinite().sum().to(device) / processes.count()
    return pointer(points[processes.rows(len(points))].to(device), number)


def read_pointing(state: Path) -> dict[str, Tensor]:
    """Read the weights that `train pointing` has left: text encoder, first half of the transformer, pointer.

    Raises:
        ValueError: If it has not been trained to the end.
    """
    if not (state / POINTING).exists():
        raise ValueError(f"--taught: {state / POINTING} does not exist; run `train pointing` to its end first")
    return read_tensors(state / POINTING)[0]
