"""What a run changed in a picture, and patches that no seam shows round.

Everything here happens on the model's own pixels: it knows no smaller ones.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size, size_of
from .closed_form import cell_means
from .regions import filled, grow, reached, shrink
from .resizing import resize

LEAST = 0.03  # a change that small is none
FEATHER = 0.25  # of the model's pixels: half the width over which a patch fades into the picture
FINER = 4  # parts of one of the model's pixels, along an axis, in which a patch's edge is drawn
TOUCHED = 0.02  # a pixel that a guide covers so far belongs to it
QUIET = 0.7  # share of the pixels, the least different ones, that tell what is typical where no guide does
DOUBT, SURE = 2.0, 6.0  # a change may be one, and is one, from so many times the typical deviation,
FAR_DOUBT, FAR_SURE = 0.25, 0.5  # or from that share of the greatest difference, if that is less,
LEAST_DOUBT, LEAST_SURE = 1.0, 3.0  # but from so many deviations at least
GAP = 2  # of the model's pixels: gaps up to twice that in a change have changed as well
_STEPS = 3


def difference(layer: Tensor, unchanged: Tensor, size: Size) -> Tensor:
    """How far two layers [4, ...] are apart, as [h, w] at the size where the model saw them: the distance over four
    channels, colours weighted by alpha. A tint or a contrast that most of the layer has is no difference."""
    drawn, kept = (
        torch.cat([each[:3] * each[3:], each[3:]]) for each in (resize(layer, size), resize(unchanged, size))
    )
    apart = drawn - kept
    for _ in range(_STEPS):
        apart = torch.cat([drawn[:3] - _toned(kept[:3], drawn[:3], apart.abs().amax(dim=0)), apart[3:]])
    return F.avg_pool2d(apart.square().sum(dim=0, keepdim=True).sqrt(), 3, 1, 1, count_include_pad=False)[0]


def _toned(planes: Tensor, like: Tensor, apart: Tensor) -> Tensor:
    """Planes [3, h, w] with the tone of others: each channel's line of best fit, where the two are not far `apart`."""
    weight = torch.exp(-((apart / (2 * apart.median() + 1e-3)) ** 2))
    weight = weight / weight.sum()
    means = [(plane * weight).sum(dim=(1, 2), keepdim=True) for plane in (planes, like)]
    centred, aim = planes - means[0], like - means[1]
    both, own = ((weight * centred * plane).sum(dim=(1, 2), keepdim=True) for plane in (aim, centred))
    return means[1] + (both + 1e-3) / (own + 1e-3) * centred


def changed(apart: Tensor, guide: Tensor | None = None, whole: bool = True) -> Tensor:
    """Where a run changed something, as [h, w] bool.

    The model and its VAE alter every pixel a little. How much is told from what is typical: a change is sure where the
    difference stands out. Without a guide it goes on to what hangs together with it and stands out less, and over gaps
    and holes in that; with one, what is sure and hangs together with it has changed as well, such as a shadow.

    Args:
        apart: [h, w], from `difference`.
        guide: [h, w] bool, where the object is, if that is known: then changes count that touch it.
        whole: all of the guide has changed, if anything in it has; else the guide only says where to look.
    """
    around = torch.zeros_like(apart, dtype=torch.bool) if guide is None else ~grow(guide, 3)
    known = int(around.sum()) >= 16
    typical, spread = (apart[around], 1.0) if known else (apart[apart <= apart.quantile(QUIET)], 2.0)
    middle = typical.median()
    deviation = spread * 1.4826 * (typical - middle).abs().median()
    top = torch.full_like(middle, torch.inf) if known else apart.max()

    def beyond(times: float, far: float, least: float) -> Tensor:
        bound = torch.minimum(middle + times * deviation, far * top)
        return apart > torch.maximum(bound, middle + least * deviation).clamp_min(LEAST)

    may, sure = beyond(DOUBT, FAR_DOUBT, LEAST_DOUBT), beyond(SURE, FAR_SURE, LEAST_SURE)
    may, sure = may | sure, grow(shrink(sure, 1), 1)  # without specks
    if guide is None:
        return filled(shrink(grow(reached(sure, may), GAP), GAP))
    if whole:
        return reached(guide, sure | guide) if bool((apart[guide] > LEAST).any()) else torch.zeros_like(guide)
    return reached(may & guide, sure | (may & guide))


def spread_out(values: Tensor, weight: Tensor) -> Tensor:
    """Values [C, H, W] that are known by a weight [H, W] in [0, 1], carried on smoothly to where they are not.

    Pull-push of Gortler et al., "The Lumigraph" (1996), section 3.4.1. Nothing known at all gives 0.
    """
    if max(weight.shape) == 1:
        return torch.where(weight > 0, values, 0)
    weighed = torch.cat([values * weight, weight[None]])
    small = F.avg_pool2d(weighed[None], 2, ceil_mode=True, count_include_pad=False)[0]
    total = small[-1:]
    means = torch.where(total > 0, small[:-1] / total.clamp_min(1e-12), 0)
    rest = spread_out(means, (4 * total[0]).clamp(max=1))
    return torch.lerp(F.interpolate(rest[None], size=weight.shape, mode="bilinear")[0], values, weight)


def fitted(layer: Tensor, picture: Tensor, known: Tensor, seen: Size) -> Tensor:
    """A layer's colours [3, H, W], brought to those of the picture where these are known.

    The difference of the two, over pixels as the model saw them, is carried on to where the picture says nothing: it
    is what the model has got wrong, and a patch with it meets its surroundings.

    Args:
        layer, picture: [3, H, W].
        known: [H, W] in [0, 1], how far the picture shows what the layer is to show.
        seen: (height, width) at which the model saw the picture.
    """
    means = lambda plane: cell_means(plane, seen)  # noqa: E731
    weight = means(known)
    apart = torch.stack([means((own - drawn) * known) for own, drawn in zip(picture, layer, strict=True)])
    apart = spread_out(torch.where(weight > 0, apart / weight.clamp_min(1e-12), 0), weight.clamp(max=1))
    return (layer + F.interpolate(apart[None], size=layer.shape[1:], mode="bilinear")[0]).clamp(0, 1)


def feather(region: Tensor, width: int) -> Tensor:
    """A region [h, w] bool as weights: 1 in it, falling evenly to 0 within twice the width around it."""
    wide = grow(region, width).float()[None]
    for kernel, padding in (((2 * width + 1, 1), (width, 0)), ((1, 2 * width + 1), (0, width))):
        wide = F.avg_pool2d(wide, kernel, 1, padding, count_include_pad=False)
    return torch.where(region, 1, wide[0])


def patch_weight(region: Tensor, guide: Tensor | None, size: Size) -> Tensor:
    """Weights [H, W] of a patch: 1 over what a run has changed, with the guide's own edges, fading out around that.

    Args:
        region: [h, w] bool, from `changed`.
        guide: [H, W] in [0, 1], a guide that has changed as a whole, if there is one.
        size: (H, W).
    """
    high, wide = (min(FINER * cells, side) for cells, side in zip(region.shape, size, strict=True))
    finer = high, wide
    if guide is not None:
        edge = cell_means(guide, size_of(region)) > TOUCHED
        region = region & ~edge
    found = F.interpolate(region.float()[None, None], size=finer, mode="nearest-exact")[0, 0] > 0
    if guide is not None:
        found = found | (cell_means(guide, finer) > TOUCHED)
    width = max(1, round(FEATHER * min(side / cells for side, cells in zip(finer, region.shape, strict=True))))
    weight = feather(found, width)
    return F.interpolate(weight[None, None], size=size, mode="bilinear")[0, 0]


def pixels_per_cell(size: Size, seen: Size) -> int:
    """How many of a picture's pixels the model saw as one, along an axis, rounded up."""
    return math.ceil(max(fine / coarse for fine, coarse in zip(size, seen, strict=True)))
