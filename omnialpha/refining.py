"""Alpha back at the picture's own size, and colours without the old background.

The model sees a fitted picture, so its alpha is coarse where the picture is large. `refine_alpha` finds the fine alpha
that, made coarse again, is the model's, and between those fixed means follows the picture's own edges; where a trimap
says what is sure, it keeps to that and lets the picture decide more. It uses the matting
Laplacian of Levin et al., "A Closed-Form Solution to Natural Image Matting" (2008), eq. 12, applied with box filters as
in He et al., "Fast Matting Using Large Kernel Matting Laplacian Matrices" (2010), eq. 8, and solved by conjugate
gradients in the soft band alone. `foreground_colour` is Germer et al., "Fast Multi-Level Foreground Estimation" (2020).
All of it is plain torch and runs where its tensors are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Size, check_plane, check_size
from .errors import OmniAlphaError
from .resizing import resize, resize_plane


class Weights(NamedTuple):
    """How the picture and the model's alpha are weighed.

    Attributes:
        smoothness: epsilon of the matting Laplacian: how much noise in the picture's colours is overlooked.
        fidelity: of the model's alpha, per pixel.
        steps: of conjugate gradients, at most.
        enough: residual, as a share of the first, that ends them.
    """

    smoothness: float
    fidelity: float
    steps: int
    enough: float = 1e-3


# Measured on held-out composites, see docs/refine.md. A trimap says where alpha is sure, so the picture may say more.
ALONE, WITH_TRIMAP = Weights(1e-3, 5.0, 30), Weights(1e-4, 0.03, 100)
TRUST = 0.2  # weight of the model's colours
_KNOWN = 100.0  # weight of what lies outside the band
_NOISE = 1e-6  # of interpolation in float32
_SURE = 1 / 255  # alpha that near to 0 or 1 is not soft


def refine_alpha(picture: Tensor, alpha: Tensor, seen: Size | None = None, trimap: Tensor | None = None) -> Tensor:
    """A coarse alpha at the picture's size, with the picture's edges.

    Args:
        picture: [3, H, W] in [0, 1], the picture that was matted.
        alpha: [h, w] in [0, 1]: the model's alpha, coarse or already scaled up to [H, W].
        seen: (height, width) that the model worked at; the size of `alpha` unless told.
        trimap: [H, W], 1 = object, 0 = background, anything between = unknown. It is kept to where it is sure; where
            it is not, alpha is sought anew, as closed-form matting does it, with the model's alpha as a weak hint.

    Returns:
        [H, W] in [0, 1]. Without a trimap it is `alpha`, scaled up, away from soft pixels.

    Raises:
        OmniAlphaError: other shapes, or `seen` larger than the picture.
    """
    check_plane(alpha, "An alpha")
    size = _picture_size(picture)
    seen = check_size(seen or tuple(alpha.shape), "The size the model worked at")
    if seen[0] > size[0] or seen[1] > size[1]:
        raise OmniAlphaError(
            f"The model worked at {seen[1]}x{seen[0]} and the picture is {size[1]}x{size[0]} (width x height): there "
            f"is nothing to bring back. Give the full-size picture."
        )
    alpha = alpha.to(picture)
    start = resize_plane(alpha, size)
    start = torch.where((start - start.round()).abs() < _NOISE, start.round(), start)  # sure pixels exactly so
    if trimap is not None:
        weights, band = WITH_TRIMAP, _soft(_check_trimap(trimap, size).to(picture))
        start = torch.where(band, start, trimap.to(picture).round())
    elif seen != size:
        weights, band = ALONE, _dilate(_soft(start), math.ceil(max(size[0] / seen[0], size[1] / seen[1])))
    else:
        return start
    if not band.any():
        return start
    rows, columns = (_means(coarse, fine).to(picture) for coarse, fine in zip(seen, size, strict=True))
    coarse = rows @ alpha @ columns.T if tuple(alpha.shape) == size else resize_plane(alpha, seen)
    # Only the band's surroundings take part; whole cells of the coarse alpha, so that their means stay whole.
    (y0, y1), (x0, x1) = (_window(band.any(dim=axis), cells) for axis, cells in ((1, seen[0]), (0, seen[1])))
    (top, bottom), (left, right) = (
        (math.floor(low * fine / cells), math.ceil(high * fine / cells))
        for low, high, fine, cells in ((y0, y1, size[0], seen[0]), (x0, x1, size[1], seen[1]))
    )
    inner = (slice(top, bottom), slice(left, right))
    planes = (
        picture[(slice(None), *inner)], start[inner], band[inner], coarse[y0:y1, x0:x1],
        rows[y0:y1, top:bottom], columns[x0:x1, left:right],
    )  # fmt: skip
    # Covariances of nearly flat windows do not survive float32, and Apple's GPUs know nothing finer.
    place = "cpu" if picture.device.type == "mps" else picture.device
    solved = _solve(*(plane.to(place, torch.float64) for plane in planes), weights).to(picture)
    result = start.clone()
    result[inner] = torch.where(band[inner], solved.clamp(0, 1), start[inner])
    return result


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
    size = _picture_size(picture)
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


def refine(picture: Tensor, matte: Tensor, seen: Size | None = None, trimap: Tensor | None = None) -> Tensor:
    """The object as a layer [4, H, W] at the picture's size: `refine_alpha`, then `foreground_colour`.

    Black where alpha is 0 in 8 bits. Arguments and errors as for `refine_alpha`; `matte` is a layer [4, h, w], whose
    colours count as a hint, or an alpha [h, w] alone.
    """
    alpha, coarse = (matte[3], matte) if matte.ndim == 3 and matte.shape[0] == 4 else (matte, None)
    fine = refine_alpha(picture, alpha, seen, trimap)
    colour = foreground_colour(picture, fine, coarse)
    return torch.cat([torch.where(fine < 0.5 / 255, 0, colour), fine[None]])


def seen_size(size: Size, longer: int) -> Size:
    """(height, width) at which the model saw a picture of `size`, from its longer side there.

    Raises:
        OmniAlphaError: `longer` below 1.
    """
    if longer < 1:
        raise OmniAlphaError(f"The longer side that the model worked at cannot be {longer} pixels.")
    scale = longer / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _picture_size(picture: Tensor) -> Size:
    if picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape or not picture.is_floating_point():
        raise OmniAlphaError(f"A picture must be a float tensor [3, height, width], got {list(picture.shape)}.")
    return tuple(picture.shape[1:])


def _check_trimap(trimap: Tensor, size: Size) -> Tensor:
    check_plane(trimap, "A trimap")
    if tuple(trimap.shape) != size:
        raise OmniAlphaError(
            f"The picture is {size[1]}x{size[0]} and the trimap {trimap.shape[1]}x{trimap.shape[0]} (width x height). "
            f"Give the trimap that belongs to this picture."
        )
    return trimap


def _soft(alpha: Tensor) -> Tensor:
    """[H, W] bool: neither 0 nor 1."""
    return (alpha > _SURE) & (alpha < 1 - _SURE)


def _dilate(region: Tensor, width: int) -> Tensor:
    """[H, W] bool, grown by `width` pixels in a square."""
    grown = region[None].float()
    for kernel, padding in (((2 * width + 1, 1), (width, 0)), ((1, 2 * width + 1), (0, width))):
        grown = F.max_pool2d(grown, kernel, stride=1, padding=padding)
    return grown[0] > 0


def _means(coarse: int, fine: int) -> Tensor:
    """[coarse, fine]: means over equal stretches of a line of pixels; those on a border count in part."""
    step = fine / coarse
    start = torch.arange(coarse, dtype=torch.float64)[:, None] * step
    pixel = torch.arange(fine, dtype=torch.float64)
    return ((torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)).clamp_min(0) / step).float()


def _window(line: Tensor, cells: int) -> tuple[int, int]:
    """(first, end) of the coarse cells along one axis that hold the band and what its windows of 3 pixels reach."""
    found = line.nonzero()
    scale = cells / len(line)
    margin = math.ceil(2 * scale)
    return max(0, int(found[0] * scale) - margin), min(cells, math.ceil((int(found[-1]) + 1) * scale) + margin)


def _solve(picture, start, band, coarse, rows, columns, weights: Weights) -> Tensor:
    """Minimises a'La + fidelity |coarse means of a - coarse|^2 with a = start outside the band; all in float64."""
    laplacian = _Laplacian(picture, weights.smoothness)
    share = weights.fidelity * start.numel() / coarse.numel()  # a coarse cell speaks for all its pixels
    known = _KNOWN * (1 - band)

    def apply(plane: Tensor) -> Tensor:
        return laplacian(plane) + known * plane + share * (rows.T @ (rows @ plane @ columns.T) @ columns)

    aim = known * start + share * (rows.T @ coarse @ columns)
    return _conjugate_gradients(apply, aim, start, laplacian.count + known, weights.steps, weights.enough)


def _conjugate_gradients(apply, aim: Tensor, start: Tensor, diagonal: Tensor, steps: int, enough: float) -> Tensor:
    """Solves apply(x) = aim for a symmetric positive map, preconditioned by its (approximate) diagonal."""
    x, residual = start, aim - apply(start)
    enough *= float(residual.norm())
    direction = z = residual / diagonal
    energy = (residual * z).sum()
    for _ in range(steps):
        if float(residual.norm()) <= enough:
            break
        image = apply(direction)
        length = energy / (direction * image).sum()
        x, residual = x + length * direction, residual - length * image
        z = residual / diagonal
        energy, before = (residual * z).sum(), energy
        direction = z + energy / before * direction
    return x


class _Laplacian:
    """The matting Laplacian of a picture [3, H, W] with windows of 3 x 3 pixels, as a map of planes."""

    def __init__(self, picture: Tensor, smoothness: float):
        self.picture = picture
        self.count = _box(torch.ones_like(picture[:1]))[0]  # pixels of each window; fewer at the border
        self.mean = _box(picture) / self.count
        covariance = {}
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
            moment = _box((picture[i] * picture[j])[None])[0] / self.count
            covariance[i, j] = moment - self.mean[i] * self.mean[j] + (smoothness / self.count if i == j else 0)
        self.inverse = symmetric_inverse(covariance)

    def __call__(self, plane: Tensor) -> Tensor:
        mean = _box(plane[None]) / self.count
        covariance = _box(self.picture * plane) / self.count - self.mean * mean
        slope = torch.stack(
            [sum(self.inverse[min(i, j), max(i, j)] * covariance[j] for j in range(3)) for i in range(3)]
        )
        offset = mean - (slope * self.mean).sum(dim=0, keepdim=True)
        sums = _box(torch.cat([slope, offset]))
        return self.count * plane - (sums[:3] * self.picture).sum(dim=0) - sums[3]


def _box(planes: Tensor) -> Tensor:
    """Sums over 3 x 3 pixels of [C, H, W]; nothing lies beyond the border."""
    padded = F.pad(planes, (0, 0, 1, 1))
    tall = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    padded = F.pad(tall, (1, 1))
    return padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]


def symmetric_inverse(m: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
    """Of symmetric 3 x 3 matrices, one per pixel, given and returned as their upper triangles."""
    a, b, c, d, e, f = (m[key] for key in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * first + b * second + c * third
    return {
        (0, 0): first / determinant, (0, 1): second / determinant, (0, 2): third / determinant,
        (1, 1): (a * f - c * c) / determinant, (1, 2): (b * c - a * e) / determinant,
        (2, 2): (a * d - b * b) / determinant,
    }  # fmt: skip


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
