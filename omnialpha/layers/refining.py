"""Alpha back at the picture's own size, and colours without the old background.

The model sees a fitted picture, so its alpha is coarse where the picture is large. `refine_alpha` finds the fine alpha
that, made coarse again, is the model's, and between those fixed means follows the picture's own edges; where a trimap
says what is sure, it keeps to that and lets the picture decide more. Both are closed-form matting, see `closed_form`,
in the soft band alone.

A large unknown region is sought coarse to fine, as in Levin's own program: solved on a small picture, and then, at
twice the size, only where the alpha found so far is soft.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size, check_picture, check_plane, check_size, size_of
from ..errors import OmniAlphaError
from ..progress import Progress, Watch
from .closed_form import Weights, cell_means, solve
from .foreground import foreground_colour
from .regions import grow
from .resizing import resize_plane, shows

# Measured on held-out composites, see docs/refine.md. A trimap says where alpha is sure, so the picture may say more.
ALONE, WITH_TRIMAP = Weights(1e-3, 5.0, 30), Weights(1e-4, 0.06, 100)
MANY = 2**19  # pixels sought at once; more are sought on a smaller picture first
_NOISE = 1e-6  # of interpolation in float32
_SURE = 1 / 255  # alpha that near to 0 or 1 is not soft
_FOUND = 0.02  # nor, on the smaller picture, is this: Levin's threshold


def refine_alpha(
    picture: Tensor,
    alpha: Tensor,
    seen: Size | None = None,
    trimap: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """A coarse alpha at the picture's size, with the picture's edges.

    Args:
        picture: [3, H, W] in [0, 1], the picture that was matted.
        alpha: [h, w] in [0, 1]: the model's alpha, coarse or already scaled up to [H, W].
        seen: (height, width) that the model worked at; the size of `alpha` unless told.
        trimap: [H, W], 1 = object, 0 = background, anything between = unknown. It is kept to where it is sure; where
            it is not, alpha is sought anew, as closed-form matting does it, with the model's alpha as a weak hint.
        progress: see `progress.Progress`.

    Returns:
        [H, W] in [0, 1]. Without a trimap it is `alpha`, scaled up, away from soft pixels.

    Raises:
        OmniAlphaError: other shapes, or `seen` larger than the picture.
        Cancelled: `progress` returned False.
    """
    check_plane(alpha, "An alpha")
    size = size_of(check_picture(picture))
    seen = check_size(seen or tuple(alpha.shape), "The size the model worked at")
    if seen[0] > size[0] or seen[1] > size[1]:
        raise OmniAlphaError(
            f"The model worked at {seen[1]}x{seen[0]} and the picture is {size[1]}x{size[0]} (width x height): there "
            f"is nothing to bring back. Give the full-size picture."
        )
    if trimap is not None:
        _check_trimap(trimap, size)
    alpha = alpha.to(picture)
    start = resize_plane(alpha, size)
    start = torch.where((start - start.round()).abs() < _NOISE, start.round(), start)  # sure pixels exactly so
    watch = Watch(progress)
    if trimap is not None:
        fine = _by_trimap(picture, start, trimap.to(picture), cell_means(alpha, seen), watch)
    elif seen != size:
        band = grow(_soft(start), math.ceil(max(size[0] / seen[0], size[1] / seen[1])))
        fine = solve(picture, start, band, coarse=cell_means(alpha, seen), weights=ALONE, after_step=watch)
    else:
        fine = start
    watch(1.0)
    return fine.clamp(0, 1)


def _by_trimap(picture: Tensor, start: Tensor, trimap: Tensor, coarse: Tensor, watch: Watch) -> Tensor:
    """What is unknown in the trimap, sought on ever larger pictures."""
    levels = [(picture, start, trimap)]
    while int(_soft(levels[-1][2]).sum()) > MANY:
        finer, begun, known = levels[-1]
        levels.append((_halved(finer), _halved(begun), _halved(known)))
    found = None
    for level, (picture, start, trimap) in reversed(list(enumerate(levels))):
        band, size = _soft(trimap), tuple(trimap.shape)
        if found is not None:
            start = F.interpolate(found[None, None], scale_factor=2, mode="bilinear")[0, 0, : size[0], : size[1]]
            soft = grow((start > _FOUND) & (start < 1 - _FOUND), 2)
            start = torch.where(soft, start, start.round())
        start = torch.where(band, start, trimap.round())
        if found is not None:
            band = band & soft
        high, wide = (min(pair) for pair in zip(coarse.shape, size, strict=True))
        means = cell_means(coarse, (high, wide))
        part = watch.part(0.0 if found is None else 0.25 ** (level + 1), 0.25**level)
        found = solve(picture, start, band, coarse=means, weights=WITH_TRIMAP, after_step=part).clamp(0, 1)
    assert found is not None, "the picture itself is a level"
    return found


def _halved(planes: Tensor) -> Tensor:
    """[..., H, W] at half the size, rounded up: means of 2 x 2 pixels, and of fewer at the far edges."""
    channels = planes.reshape(-1, *planes.shape[-2:])
    half = F.avg_pool2d(channels, 2, ceil_mode=True, count_include_pad=False)
    return half.reshape(*planes.shape[:-2], *half.shape[-2:])


def refine(
    picture: Tensor,
    matte: Tensor,
    seen: Size | None = None,
    trimap: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The object as a layer [4, H, W] at the picture's size: `refine_alpha`, then `foreground_colour`.

    Black where alpha is 0 in 8 bits. Arguments and errors as for `refine_alpha`; `matte` is a layer [4, h, w], whose
    colours count as a hint, or an alpha [h, w] alone.
    """
    alpha, coarse = (matte[3], matte) if matte.ndim == 3 and matte.shape[0] == 4 else (matte, None)
    watch = Watch(progress)
    fine = refine_alpha(picture, alpha, seen, trimap, watch.part(0.0, 0.5))
    colour = foreground_colour(picture, fine, coarse, progress=watch.part(0.5, 1.0))
    return torch.cat([torch.where(shows(fine), colour, 0), fine[None]])


def seen_size(size: Size, longer: int) -> Size:
    """(height, width) at which the model saw a picture of `size`, from its longer side there.

    Raises:
        OmniAlphaError: `longer` below 1.
    """
    if longer < 1:
        raise OmniAlphaError(f"The longer side that the model worked at cannot be {longer} pixels.")
    scale = longer / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _check_trimap(trimap: Tensor, size: Size) -> None:
    check_plane(trimap, "A trimap")
    if tuple(trimap.shape) != size:
        raise OmniAlphaError(
            f"The picture is {size[1]}x{size[0]} and the trimap {trimap.shape[1]}x{trimap.shape[0]} (width x height). "
            f"Give the trimap that belongs to this picture."
        )


def _soft(alpha: Tensor) -> Tensor:
    """[H, W] bool: neither 0 nor 1."""
    return (alpha > _SURE) & (alpha < 1 - _SURE)
