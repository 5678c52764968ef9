"""The object's own colour in the soft parts of a matte, without the old background.

Germer et al., "Fast Multi-Level Foreground Estimation" (2020), with the colours that the model drew as a hint.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Size, check_plane, picture_size
from .errors import OmniAlphaError
from .resizing import resize

TRUST = 0.2  # weight of the model's colours; measured on held-out composites, see docs/refine.md


def foreground_colour(
    picture: Tensor, alpha: Tensor, coarse: Tensor | None = None, regularisation: float = 1e-5, slope: float = 1.0
) -> Tensor:
    """The object's own colour, with the background taken out of soft pixels.

    From a single pixel to the full size, each level doubling the last, a few sweeps find the foreground and background
    that together explain the picture and are smooth, least so where alpha is flat (the paper's eq. 3 and algorithm 1).

    Args:
        picture: [3, H, W] in [0, 1].
        alpha: [H, W] in [0, 1].
        coarse: [4, h, w] in [0, 1], the object as the model drew it, if its colours are to count: as one more term of
            the energy, `TRUST` times the squared distance from it, weighted by its alpha.
        regularisation: the paper's epsilon_r, smoothness where alpha is flat.
        slope: the paper's omega, more smoothness where alpha changes.

    Returns:
        [3, H, W] in [0, 1]; where alpha is 1, the picture itself.

    Raises:
        OmniAlphaError: other shapes.
    """
    size = picture_size(picture)
    if check_plane(alpha, "An alpha").shape != size:
        raise OmniAlphaError(f"The picture is {size[1]}x{size[0]} and the alpha {alpha.shape[1]}x{alpha.shape[0]}.")
    alpha = alpha.to(picture)
    weights = alpha / alpha.sum().clamp_min(1e-6), (1 - alpha) / (1 - alpha).sum().clamp_min(1e-6)
    both = torch.stack([(picture * weight).sum(dim=(1, 2)) for weight in weights])[:, :, None, None]  # [2, 3, 1, 1]
    hint = picture.new_zeros(4, *size) if coarse is None else resize(coarse.to(picture), size)
    levels = max(1, math.ceil(math.log2(max(size))))
    for level in range(levels + 1):
        height, width = (max(1, round(side ** (level / levels))) for side in size)
        both = F.interpolate(both, size=(height, width), mode="nearest")
        small, cover = _nearest(picture, (height, width)), _nearest(alpha[None], (height, width))
        sweeps = 20 if max(height, width) <= 32 else 4
        both = _sweep(both, small, cover, _nearest(hint, (height, width)), regularisation, slope, sweeps)
    return torch.where(alpha >= 1, picture, both[0])


def _nearest(planes: Tensor, size: Size) -> Tensor:
    return F.interpolate(planes[None], size=size, mode="nearest")[0]


def _sweep(
    both: Tensor, picture: Tensor, alpha: Tensor, hint: Tensor, regularisation: float, slope: float, sweeps: int
) -> Tensor:
    """Improves foreground and background [2, 3, H, W], each pixel by its four neighbours, all pixels at once."""
    around = _neighbours(alpha)  # [4, 1, H, W]
    weights = regularisation + slope * (around - alpha).abs()
    share = torch.stack([alpha, 1 - alpha])  # [2, 1, H, W]
    total = weights.sum(dim=0)
    trust = TRUST * hint[3:]
    a00, a11, a01 = share[0] ** 2 + total + trust, share[1] ** 2 + total, share[0] * share[1]
    determinant = a00 * a11 - a01 * a01
    for _ in range(sweeps):
        b0, b1 = (share[k] * picture + (weights * _neighbours(both[k])).sum(dim=0) for k in range(2))
        b0 = b0 + trust * hint[:3]
        both = torch.stack([a11 * b0 - a01 * b1, a00 * b1 - a01 * b0]) / determinant
        both = both.clamp(0, 1)
    return both


def _neighbours(planes: Tensor) -> Tensor:
    """[4, C, H, W]: each pixel's neighbours; at the border, the pixel itself."""
    p = F.pad(planes[None], (1, 1, 1, 1), mode="replicate")[0]
    return torch.stack([p[:, 1:-1, :-2], p[:, 1:-1, 2:], p[:, :-2, 1:-1], p[:, 2:, 1:-1]])
