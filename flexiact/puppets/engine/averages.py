"""Power-function averages of weights (EDM2, arXiv 2312.02696, section 3).

The length of an average may be chosen after training. Its profile is a power of time, so its width grows with the run,
and no constant depends on the run's length.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def exponent(width: float) -> float:
    """The power gamma of the profile whose standard deviation is `width` of the run's length (EDM2, algorithm 2).

    Args:
        width: Relative width sigma_rel, above 0 and below .28; no profile is wider.

    Raises:
        ValueError: If no profile has this width.
    """
    if not 0 < width < 0.28:
        raise ValueError(f"averages: {width} is not a relative width between 0 and .28")
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@torch.no_grad()
def update(average: dict[str, Tensor], weights: Mapping[str, Tensor], width: float, step: int) -> None:
    """Update an average in place with the weights after optimiser step `step` (from 0); the first step fills it.

    beta_t = (1 - 1 / t) ** (gamma + 1) with t = step + 1 (EDM2, equation 127). Integers are copied.
    """
    share = 1 - (1 - 1 / (step + 1)) ** (exponent(width) + 1)
    for name, value in weights.items():
        if name not in average:
            average[name] = value.detach().clone()
        elif not value.is_floating_point():
            average[name].copy_(value)
    moving = [name for name, value in weights.items() if value.is_floating_point()]
    # One call for all: a GPU takes longer to launch hundreds of small operations than to compute them.
    torch._foreach_lerp_([average[name] for name in moving], [weights[name].detach() for name in moving], share)
