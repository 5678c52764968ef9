"""The object's own colour in the soft parts of a matte, without the old background.

Germer et al., "Fast Multi-Level Foreground Estimation" (2020), with the colours that the model drew as a hint. Each
level is gone over in tiles, and only in those from which a soft pixel can take something: the cost grows with the soft
parts, and the values are those that all pixels at once would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size, check_picture, check_plane, size_of
from ..errors import OmniAlphaError
from ..progress import Progress, Watch
from .regions import grow
from .resizing import resize

TRUST = 0.02  # weight of the model's colours, measured: more tints edges with its wrong hues
TILE = 64  # pixels along the side of a tile
_EPSILON, _OMEGA = 1e-5, 1.0  # the paper's: smoothness where alpha is flat, and more of it where alpha changes


def foreground_colour(
    picture: Tensor,
    alpha: Tensor,
    coarse: Tensor | None = None,
    regularisation: float = _EPSILON,
    slope: float = _OMEGA,
    progress: Progress | None = None,
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
        progress: see `progress.Progress`.

    Returns:
        [3, H, W] in [0, 1]; where alpha is 1, the picture itself, and where it is 0, black.

    Raises:
        OmniAlphaError: other shapes.
        Cancelled: `progress` returned False.
    """
    return torch.where(
        alpha >= 1,
        picture,
        _colours(picture, alpha, coarse, regularisation=regularisation, slope=slope, progress=progress, which=0),
    )


def background_colour(picture: Tensor, alpha: Tensor, progress: Progress | None = None) -> Tensor:
    """What lies behind the soft parts of a matte; where alpha is 0, the picture itself, and where it is 1, black.

    Shapes, errors and method are those of `foreground_colour`.
    """
    return torch.where(
        alpha <= 0,
        picture,
        _colours(picture, alpha, None, regularisation=_EPSILON, slope=_OMEGA, progress=progress, which=1),
    )


def _colours(picture, alpha, coarse, regularisation: float, slope: float, progress, which: int) -> Tensor:
    """The foreground (0) or the background (1) as [3, H, W], black where alpha is 0 or 1."""
    size = size_of(check_picture(picture))
    if check_plane(alpha, "An alpha").shape != size:
        raise OmniAlphaError(f"The picture is {size[1]}x{size[0]} and the alpha {alpha.shape[1]}x{alpha.shape[0]}.")
    alpha, watch, done = alpha.to(picture), Watch(progress), 0
    weights = alpha / alpha.sum().clamp_min(1e-6), (1 - alpha) / (1 - alpha).sum().clamp_min(1e-6)
    both = torch.stack([(picture * weight).sum(dim=(1, 2)) for weight in weights])[:, :, None, None]  # [2, 3, 1, 1]
    hint = None if coarse is None else resize(coarse.to(picture), size)
    soft = (alpha > 0) & (alpha < 1)
    levels = _levels(size, soft)
    work = sum(size[0] * size[1] for size, *_ in levels)
    for number, (size, needed, sweeps) in enumerate(levels):
        last = number == len(levels) - 1
        finer = picture.new_zeros(3, *size) if last else picture.new_zeros(2, 3, *size)
        nearest = [_nearest(old, new, picture) for old, new in zip(both.shape[-2:], size, strict=True)]
        own = [_nearest(whole, new, picture) for whole, new in zip(alpha.shape, size, strict=True)]
        for tile, around, within in _tiles(needed, sweeps):
            (rows, columns), (y, x) = [[index[ends] for index, ends in zip(pair, around)] for pair in (nearest, own)]
            found = _sweep(
                both[:, :, rows[:, None], columns],
                picture[:, y[:, None], x],
                alpha[None, y[:, None], x],
                hint=None if hint is None else hint[:, y[:, None], x],
                regularisation=regularisation,
                slope=slope,
                sweeps=sweeps,
            )[(..., *within)]
            finer[(..., *tile)] = found[which] if last else found
            watch((done + (tile[0].stop * size[1])) / work)
        done += size[0] * size[1]
        both = finer
    return torch.where(soft, both, 0)


def _levels(size: Size, soft: Tensor) -> list[tuple[Size, Tensor, int]]:
    """(size, the pixels that count [h, w] bool, sweeps) from the smallest level to the largest.

    What counts at one level is what the sweeps of the next can take from it.
    """
    count = max(1, math.ceil(math.log2(max(size))))
    levels = []
    for level in range(count, -1, -1):
        height, width = (max(1, round(side ** (level / count))) for side in size)
        if levels:
            before, sweeps = levels[-1][1:]
            reach = grow(before, sweeps)[None].float()
            soft = F.adaptive_max_pool2d(reach, (height, width))[0] > 0  # all that `_nearest` takes, and some more
        levels.append(((height, width), soft, 20 if max(height, width) <= 32 else 4))
    return levels[::-1]


def _nearest(old: int, new: int, like: Tensor) -> Tensor:
    """Which of `old` places each of `new` takes its value from."""
    places = torch.arange(old, dtype=like.dtype, device=like.device)
    return F.interpolate(places[None, None], size=new, mode="nearest")[0, 0].long()


def _tiles(needed: Tensor, margin: int) -> Iterator[tuple[tuple, tuple, tuple]]:
    """Slices of tiles that hold a pixel needed: themselves, with a margin, and themselves within that."""
    height, width = needed.shape
    held = F.max_pool2d(needed[None].float(), TILE, ceil_mode=True)[0] > 0
    for tile in held.nonzero().tolist():
        begins, ends = [k * TILE for k in tile], [min((k + 1) * TILE, side) for k, side in zip(tile, (height, width))]
        first = [max(0, begin - margin) for begin in begins]
        last = [min(end + margin, side) for end, side in zip(ends, (height, width))]
        yield (
            tuple(map(slice, begins, ends)),
            tuple(map(slice, first, last)),
            tuple(slice(begin - low, end - low) for begin, end, low in zip(begins, ends, first)),
        )


def _sweep(
    both: Tensor, picture: Tensor, alpha: Tensor, hint: Tensor | None, regularisation: float, slope: float, sweeps: int
) -> Tensor:
    """Improves foreground and background [2, 3, H, W], each pixel by its four neighbours, all pixels at once."""
    around = _neighbours(alpha)  # [4, 1, H, W]
    weights = regularisation + slope * (around - alpha).abs()
    share = torch.stack([alpha, 1 - alpha])  # [2, 1, H, W]
    total = weights.sum(dim=0)
    trust = 0 if hint is None else TRUST * hint[3:]
    a00, a11, a01 = share[0] ** 2 + total + trust, share[1] ** 2 + total, share[0] * share[1]
    determinant = a00 * a11 - a01 * a01
    for _ in range(sweeps):
        b0, b1 = (share[k] * picture + (weights * _neighbours(both[k])).sum(dim=0) for k in range(2))
        b0 = b0 if hint is None else b0 + trust * hint[:3]
        both = torch.stack([a11 * b0 - a01 * b1, a00 * b1 - a01 * b0]) / determinant
        both = both.clamp(0, 1)
    return both


def _neighbours(planes: Tensor) -> Tensor:
    """[4, C, H, W]: each pixel's neighbours; at the border, the pixel itself."""
    p = F.pad(planes[None], (1, 1, 1, 1), mode="replicate")[0]
    return torch.stack([p[:, 1:-1, :-2], p[:, 1:-1, 2:], p[:, :-2, 1:-1], p[:, 2:, 1:-1]])
