"""Alpha back at the picture's own size, and colours without the old background.

The model sees a fitted picture, so its alpha is coarse where the picture is large. `refine_alpha` finds the fine alpha
that, made coarse again, is the model's, and between those fixed means follows the picture's own edges; where a trimap
says what is sure, it keeps to that and lets the picture decide more. It uses the matting Laplacian of Levin et al., "A
Closed-Form Solution to Natural Image Matting" (2008), eq. 12, applied with box filters as in He et al., "Fast Matting
Using Large Kernel Matting Laplacian Matrices" (2010), eq. 8, and solved by conjugate gradients in the soft band alone.
All of it is plain torch and runs where its tensors are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Size, check_plane, check_size, picture_size
from .errors import OmniAlphaError
from .foreground import foreground_colour
from .resizing import resize_plane, shows


class Weights(NamedTuple):
    """How the picture and the model's alpha are weighed.

    Attributes:
        smoothness: epsilon of the matting Laplacian: how much noise in the picture's colours is overlooked.
        fidelity: of the model's alpha, per pixel.
        steps: of conjugate gradients, at most.
        dtype: to solve in; covariances of nearly flat windows do not survive float32 where the smoothness is small.
        enough: residual, as a share of the first, that ends them.
    """

    smoothness: float
    fidelity: float
    steps: int
    dtype: torch.dtype = torch.float64
    enough: float = 1e-3


# Measured on held-out composites, see docs/refine.md. A trimap says where alpha is sure, so the picture may say more.
ALONE, WITH_TRIMAP = Weights(1e-3, 5.0, 30, torch.float32), Weights(1e-4, 0.06, 100)
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
    size = picture_size(picture)
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
    if trimap is not None:
        weights, band = WITH_TRIMAP, _soft(trimap.to(picture))
        start = torch.where(band, start, trimap.to(picture).round())
    elif seen != size:
        weights, band = ALONE, _dilate(_soft(start), math.ceil(max(size[0] / seen[0], size[1] / seen[1])))
    else:
        return start
    exact = alpha.cpu().double()
    coarse = _Grid(seen, tuple(alpha.shape), exact).means(exact).to(picture)
    return _refine_band(picture, start, band, coarse, weights) if band.any() else start


def _refine_band(picture: Tensor, start: Tensor, band: Tensor, coarse: Tensor, weights: Weights) -> Tensor:
    """`start` with what `_solve` finds in the band [H, W]; only the band's surroundings take part."""
    cpu = picture.device.type == "mps" and weights.dtype == torch.float64  # which Apple's GPUs do not know
    like = torch.empty(0, dtype=weights.dtype, device="cpu" if cpu else picture.device)
    sizes = tuple(coarse.shape), tuple(start.shape)
    grid = _Grid(*sizes, like, _cells_around(band, *sizes))
    planes = (picture[(slice(None), *grid.pixels)], start[grid.pixels], band[grid.pixels], coarse[grid.cells])
    solved = _solve(*(plane.to(like) for plane in planes), grid, weights).to(picture)
    result = start.clone()
    result[grid.pixels] = torch.where(band[grid.pixels], solved.clamp(0, 1), start[grid.pixels])
    return result


def refine(picture: Tensor, matte: Tensor, seen: Size | None = None, trimap: Tensor | None = None) -> Tensor:
    """The object as a layer [4, H, W] at the picture's size: `refine_alpha`, then `foreground_colour`.

    Black where alpha is 0 in 8 bits. Arguments and errors as for `refine_alpha`; `matte` is a layer [4, h, w], whose
    colours count as a hint, or an alpha [h, w] alone.
    """
    alpha, coarse = (matte[3], matte) if matte.ndim == 3 and matte.shape[0] == 4 else (matte, None)
    fine = refine_alpha(picture, alpha, seen, trimap)
    colour = foreground_colour(picture, fine, coarse)
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


def _dilate(region: Tensor, width: int) -> Tensor:
    """[H, W] bool, grown by `width` pixels in a square."""
    grown = region[None].float()
    for kernel, padding in (((2 * width + 1, 1), (width, 0)), ((1, 2 * width + 1), (0, width))):
        grown = F.max_pool2d(grown, kernel, stride=1, padding=padding)
    return grown[0] > 0


def _cells_around(band: Tensor, coarse: Size, fine: Size) -> list[tuple[int, int]]:
    """(first, end) along each axis of the coarse cells that hold the band [H, W] and what its 3 x 3 windows reach."""
    ends = []
    for axis, (cells, pixels) in enumerate(zip(coarse, fine, strict=True)):
        found, scale = band.any(dim=1 - axis).nonzero(), cells / pixels
        first, last, margin = int(found[0]), int(found[-1]), math.ceil(2 * scale)
        ends.append((max(0, int(first * scale) - margin), min(cells, math.ceil((last + 1) * scale) + margin)))
    return ends


class _Borders:
    """Where stretches of a line meet, in units of its `count` elements; for integrals of many lines over them."""

    def __init__(self, places: Tensor, count: int, like: Tensor):
        places = places.clamp(0, count)
        low = places.floor().long()
        self.low, self.high = low.to(like.device), (low + 1).clamp(max=count).to(like.device)
        self.part = (places - low).to(like)

    def integrals(self, plane: Tensor, axis: int) -> Tensor:
        """Of a plane [H, W] along an axis, from each border to the next; an element is 1 long."""
        sums = F.pad(plane.cumsum(axis), (0, 0, 1, 0) if axis == 0 else (1, 0, 0, 0))
        below, above = (sums.index_select(axis, index) for index in (self.low, self.high))
        return torch.lerp(below, above, self.part[:, None] if axis == 0 else self.part).diff(dim=axis)


class _Grid:
    """A coarse grid over a picture's pixels: means over its cells, and their adjoint, in time linear in the pixels.

    Args:
        coarse, fine: (height, width) of the whole.
        like: a tensor of the dtype and on the device of the planes to come.
        window: (first, end) of the cells that count along each axis; all unless told.

    Attributes:
        cells, pixels: slices of the whole: the cells that count, and the pixels they touch.
        step: pixels in a cell along each axis, also a part of one.
    """

    def __init__(self, coarse: Size, fine: Size, like: Tensor, window: Sequence[tuple[int, int]] | None = None):
        self.step = [pixels / cells for cells, pixels in zip(coarse, fine, strict=True)]
        window = window or [(0, count) for count in coarse]
        self.cells = tuple(slice(*ends) for ends in window)
        self.pixels, self.of_cells, self.of_pixels = (), [], []
        for (first, end), cells, pixels, step in zip(window, coarse, fine, self.step, strict=True):
            start, stop = first * pixels // cells, -(-end * pixels // cells)  # rounded outwards
            self.pixels += (slice(start, stop),)
            line = partial(torch.arange, dtype=torch.float64)
            self.of_cells.append(_Borders(line(first, end + 1) * step - start, stop - start, like))
            self.of_pixels.append(_Borders(line(start, stop + 1) / step - first, end - first, like))

    def means(self, plane: Tensor) -> Tensor:
        """Means of pixels over each cell; those on a border count in part."""
        for axis, (borders, step) in enumerate(zip(self.of_cells, self.step, strict=True)):
            plane = borders.integrals(plane, axis) / step
        return plane

    def spread(self, cells: Tensor) -> Tensor:
        """The adjoint of `means`."""
        for axis, borders in enumerate(self.of_pixels):
            cells = borders.integrals(cells, axis)
        return cells


def _solve(picture, start, band, coarse, grid: _Grid, weights: Weights) -> Tensor:
    """Minimises a'La + fidelity |means of a over the grid - coarse|^2 with a = start outside the band."""
    laplacian = _Laplacian(picture, weights.smoothness)
    share = weights.fidelity * math.prod(grid.step)  # a coarse cell speaks for all its pixels
    known = _KNOWN * (1 - band)

    def apply(plane: Tensor) -> Tensor:
        return laplacian(plane) + known * plane + share * grid.spread(grid.means(plane))

    aim = known * start + share * grid.spread(coarse)
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
