"""Closed-form matting in the tiles that hold soft pixels, and nowhere else.

The matting Laplacian of Levin et al., "A Closed-Form Solution to Natural Image Matting" (2008), eq. 12, with windows of
3 x 3 pixels. A pixel's row of it reaches 5 x 5 pixels, so 24 planes of weights hold it, for the tiles around the soft
band alone: what it takes grows with the band, not with the picture. Plain torch; runs where its tensors are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size, size_of
from .regions import grow

TILE = 16  # pixels along the side of a tile
REACH = 2  # pixels from which a Laplacian's row takes values
_NEAR = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]  # a window
_KNOWN = 100.0  # weight of a pixel that is known, as in Levin's program
_CHUNK = 256  # tiles whose weights are found at once
MOST, COMMON = 8192, 512  # tiles solved at once (about 150 bytes a pixel), and how many of them a second time


class Weights(NamedTuple):
    """How the picture and the model's alpha are weighed.

    Attributes:
        smoothness: epsilon of the matting Laplacian: how much noise in the picture's colours is overlooked.
        fidelity: of the model's alpha, per pixel.
        steps: of conjugate gradients, at most.
        dtype: to solve in.
        enough: residual, as a share of the first, that ends them.
    """

    smoothness: float
    fidelity: float
    steps: int
    dtype: torch.dtype = torch.float32
    enough: float = 1e-3


def solve(
    picture: Tensor,
    start: Tensor,
    band: Tensor,
    coarse: Tensor,
    weights: Weights,
    after_step: Callable = lambda done: None,
) -> Tensor:
    """`start` with the alpha that minimises a'La + fidelity |means of a over cells - coarse|^2 in the band.

    A band of very many tiles is solved stretch by stretch, with some tiles in common and the rest as found so far.

    Args:
        picture: [3, H, W].
        start: [H, W]: where to start, and what is known outside the band.
        band: [H, W] bool, the pixels sought.
        coarse: [h, w], what the means over h x w equal cells of the picture are to be.
        weights: see there.
        after_step: called with the share of the steps done, in [0, 1].

    Returns:
        [H, W] like `start`, not clamped; equal to it outside the band.
    """
    tiles = Tiles(grow(band, REACH))
    like = torch.empty(0, dtype=weights.dtype, device=picture.device)
    found, gap = start.to(like), coarse.to(like) - cell_means(start.to(like), size_of(coarse))
    stretches = [(max(0, first - COMMON), min(first + MOST, tiles.count)) for first in range(0, tiles.count, MOST)]
    for number, ends in enumerate(stretches):
        part = tiles.part(*ends)
        laplacian = Laplacian(picture, part, weights.smoothness, weights.dtype)
        inside = part.inside()
        known = _KNOWN * (1 - (part.take(band) & inside).to(like))
        hint = Cells(size_of(coarse), size_of(start), part, like)

        def apply(change: Tensor, laplacian=laplacian, known=known, hint=hint) -> Tensor:
            image = laplacian(change).addcmul_(known, change)
            return image.add_(hint.spread(hint.means(change), weights.fidelity))

        # What is sought is the change from what there is, which is nothing beyond the tiles.
        aim = hint.spread(gap, weights.fidelity) - laplacian.around(part.take(found, REACH))
        aim = inside * (aim + known * (part.take(start.to(like)) - part.take(found)))
        diagonal = laplacian.diagonal + known
        stepped = lambda done, number=number: after_step((number + done) / len(stretches))  # noqa: E731
        change = conjugate_gradients(
            apply, aim, diagonal, steps=weights.steps, enough=weights.enough, after_step=stepped
        )
        found = part.put(found, part.take(found) + change)
        if len(stretches) > 1:
            gap = gap - hint.collect(change)
    return torch.where(band, found.to(start), start)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], aim: Tensor, diagonal: Tensor, steps: int, enough: float, after_step: Callable
) -> Tensor:
    """Solves apply(x) = aim for a symmetric positive map, from 0, preconditioned by its (approximate) diagonal."""
    x, residual = torch.zeros_like(aim), aim.clone()
    enough *= float(residual.norm())
    z = residual / diagonal
    direction, energy = z.clone(), (residual * z).sum()
    for step in range(steps):
        if float(residual.norm()) <= enough:
            break
        image = apply(direction)
        length = energy / (direction * image).sum()
        x.addcmul_(length, direction)
        residual.addcmul_(-length, image)
        torch.div(residual, diagonal, out=z)
        energy, before = (residual * z).sum(), energy
        direction.mul_(energy / before).add_(z)
        after_step((step + 1) / steps)
    return x


class Tiles:
    """The tiles of a plane [H, W] that hold pixels of a region, as planes [TILE, TILE, n]; some hang over its edge.

    Args:
        region: [H, W] bool.

    Attributes:
        count: n.
        rows, columns: first row and column of each tile, [n].
    """

    def __init__(self, region: Tensor):
        self.size = size_of(region)
        held = F.max_pool2d(F.pad(region[None].float(), self._overhang()), TILE)[0] > 0
        self.rows, self.columns = (held.nonzero() * TILE).unbind(1)
        self.count = len(self.rows)
        self.number = torch.full(held.shape, -1, device=region.device)
        self.number[held] = torch.arange(self.count, device=region.device)

    def _overhang(self) -> tuple[int, int, int, int]:
        bottom, right = (-side % TILE for side in self.size)
        return 0, right, 0, bottom

    def places(self, halo: int = 0) -> tuple[Tensor, Tensor]:
        """Rows [T, 1, n] and columns [1, T, n] of the tiles' pixels with `halo` more around; some lie outside."""
        line = torch.arange(-halo, TILE + halo, device=self.rows.device)[:, None]
        return (line + self.rows)[:, None], (line + self.columns)[None]

    def inside(self, halo: int = 0) -> Tensor:
        """[T, T, n] bool: pixels of the picture."""
        rows, columns = self.places(halo)
        return ((rows >= 0) & (rows < self.size[0])) & ((columns >= 0) & (columns < self.size[1]))

    def take(self, planes: Tensor, halo: int = 0) -> Tensor:
        """[..., H, W] -> [..., T, T, n]; beyond the picture its edge goes on."""
        rows, columns = self.places(halo)
        return planes[..., rows.clamp(0, self.size[0] - 1), columns.clamp(0, self.size[1] - 1)]

    def put(self, plane: Tensor, tiles: Tensor) -> Tensor:
        """A copy of the plane [H, W] with the tiles [TILE, TILE, n] in it."""
        inside, result = self.inside(), plane.clone()
        rows, columns = (place.expand_as(inside)[inside] for place in self.places())
        result[rows, columns] = tiles[inside].to(plane)
        return result

    def neighbours(self, halo: int) -> Tensor:
        """[T, T, n]: where the tiles' pixels and `halo` more around are in a flat [TILE * TILE * n].

        What lies in no tile is to be found at its end.
        """
        rows, columns = self.places(halo)
        number = self.number[rows.clamp(0, self.size[0] - 1) // TILE, columns.clamp(0, self.size[1] - 1) // TILE]
        found = (rows % TILE * TILE + columns % TILE) * self.count + number
        return torch.where((number >= 0) & self.inside(halo), found, TILE * TILE * self.count)

    def part(self, first: int, end: int) -> Tiles:
        """Some of the tiles."""
        part = object.__new__(Tiles)
        part.size, part.rows, part.columns = self.size, self.rows[first:end], self.columns[first:end]
        part.count = len(part.rows)
        part.number = torch.where((self.number >= first) & (self.number < end), self.number - first, -1)
        return part


class Laplacian:
    """The matting Laplacian's rows of the pixels in some tiles, as a map of planes [TILE, TILE, n].

    Written as a sum of differences to neighbours, so that constants come to exactly nothing however weights round.

    Attributes:
        diagonal: [TILE, TILE, n].
    """

    def __init__(self, picture: Tensor, tiles: Tiles, smoothness: float, dtype: torch.dtype):
        self.offsets = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1) if (y, x) != (0, 0)]
        self.weights = picture.new_empty(len(self.offsets), TILE, TILE, tiles.count, dtype=dtype)
        for first in range(0, tiles.count, _CHUNK):
            part = tiles.part(first, first + _CHUNK)
            self.weights[..., first : first + _CHUNK] = self._weights(picture, part, smoothness)
        self.diagonal = -self.weights.sum(dim=0)
        self.neighbours = tiles.neighbours(REACH)

    def _weights(self, picture: Tensor, tiles: Tiles, smoothness: float) -> Tensor:
        """[24, TILE, TILE, n]; in float64, since covariances of nearly flat windows do not survive float32."""
        exact = torch.float32 if picture.device.type == "mps" else torch.float64  # which Apple's GPUs do not know
        colours, inside = tiles.take(picture, REACH).to(exact), tiles.inside(REACH).to(exact)
        side = TILE + 2  # windows: those of the tile's pixels and one more around
        pixels = lambda planes, y, x: planes[..., 1 + y : 1 + y + side, 1 + x : 1 + x + side, :]  # noqa: E731
        valid = [pixels(inside, *place) for place in _NEAR]
        count = torch.as_tensor(sum(valid)).clamp_min(1)  # pixels of each window; fewer at the picture's edge
        mean = sum(pixels(colours, *place) * there for place, there in zip(_NEAR, valid, strict=True)) / count
        apart = [(pixels(colours, *place) - mean) * there for place, there in zip(_NEAR, valid, strict=True)]
        white = _whitening(apart, count, smoothness)
        apart = [white(each) for each in apart]
        whole = {offset: torch.zeros_like(inside[REACH:-REACH, REACH:-REACH]) for offset in self.offsets}
        centred = pixels(inside, 0, 0) / count
        for first, (y0, x0) in enumerate(_NEAR):
            for second, (y1, x1) in list(enumerate(_NEAR))[first + 1 :]:
                alike = (apart[first] * apart[second]).sum(dim=0)
                alike = alike.add_(1).mul_(valid[first]).mul_(valid[second]).mul_(centred)
                for (y, x), (v, u) in (((y0, x0), (y1, x1)), ((y1, x1), (y0, x0))):
                    whole[v - y, u - x] -= alike[1 - y : 1 - y + TILE, 1 - x : 1 - x + TILE]
        return torch.stack([whole[offset] for offset in self.offsets])

    def around(self, planes: Tensor) -> Tensor:
        """What the rows make of values that are given with `REACH` more pixels around: -> [TILE, TILE, n]."""
        result = self.diagonal * planes[REACH:-REACH, REACH:-REACH]
        for weight, (y, x) in zip(self.weights, self.offsets, strict=True):
            result.addcmul_(weight, planes[REACH + y : REACH + y + TILE, REACH + x : REACH + x + TILE])
        return result

    def __call__(self, planes: Tensor) -> Tensor:
        """Of planes [TILE, TILE, n] that are 0 beyond the tiles."""
        return self.around(F.pad(planes.flatten(), (0, 1))[self.neighbours])


def _whitening(apart: list[Tensor], count: Tensor, smoothness: float) -> Callable[[Tensor], Tensor]:
    """A map of colours [3, ...] after which a'b is a'S^-1 b, S being each window's covariance with `smoothness`.

    By Cholesky's factors, written out: S = LL', and the map is L^-1.
    """
    s = {(i, j): sum(a[i] * a[j] for a in apart) / count for i in range(3) for j in range(i + 1)}
    floor = smoothness / count
    l00 = (s[0, 0] + floor).sqrt()
    l10, l20 = s[1, 0] / l00, s[2, 0] / l00
    l11 = (s[1, 1] + floor - l10 * l10).sqrt()
    l21 = (s[2, 1] - l20 * l10) / l11
    l22 = (s[2, 2] + floor - l20 * l20 - l21 * l21).sqrt()

    def white(a: Tensor) -> Tensor:
        x = a[0] / l00
        y = (a[1] - l10 * x) / l11
        return torch.stack([x, y, (a[2] - l20 * x - l21 * y) / l22])

    return white


def overlaps(first: Tensor, pixels: int, cells: int, size: int) -> tuple[Tensor, Tensor]:
    """How much of equal cells lies in stretches of pixels: for n stretches that begin at `first` [n] and are `pixels`
    long, on a line of `size` pixels with `cells` cells.

    Returns:
        [k, pixels, n] in float64, shares of a cell, and [k, n], which cells; k is the most that a stretch can touch.
    """
    step = size / cells
    low = (first / step).floor().long().clamp(max=cells - 1)
    which = low + torch.arange(int(pixels / step) + 2, device=first.device)[:, None]
    begin, place = which[:, None].double() * step, first + torch.arange(pixels, device=first.device)[:, None]
    share = torch.minimum(begin + step, place + 1.0) - torch.maximum(begin, place.double())
    share = torch.where(which[:, None] < cells, share.clamp_min(0), 0) * (place < size)
    return share / step, which.clamp(max=cells - 1)


class Cells:
    """Means over the cells of a coarse grid, for planes that are 0 outside some tiles, and their adjoint."""

    def __init__(self, coarse: Size, fine: Size, tiles: Tiles, like: Tensor):
        self.coarse, self.own = tuple(coarse), tuple(coarse) == tuple(fine)
        self.area = fine[0] * fine[1] / (coarse[0] * coarse[1])
        if self.own:
            self.tiles = tiles
            return
        rows, row = overlaps(tiles.rows, TILE, coarse[0], fine[0])
        columns, column = overlaps(tiles.columns, TILE, coarse[1], fine[1])
        # For matrix products tiles come first: [n, k, TILE] and [n, TILE, k]
        self.rows, self.columns = rows.permute(2, 0, 1).to(like), columns.permute(2, 1, 0).to(like)
        self.places = row.T[:, :, None] * coarse[1] + column.T[:, None]

    def means(self, planes: Tensor) -> Tensor:
        """[TILE, TILE, n] -> [h, w], or, where each pixel is a cell of its own, the planes themselves."""
        if self.own:
            return planes
        found = self.rows @ planes.permute(2, 0, 1) @ self.columns
        return planes.new_zeros(self.coarse).flatten().index_add_(0, self.places.flatten(), found.flatten())

    def collect(self, planes: Tensor) -> Tensor:
        """`means` as a plane [h, w] in any case."""
        found = self.means(planes)
        return self.tiles.put(planes.new_zeros(self.coarse), found) if self.own else found.reshape(self.coarse)

    def spread(self, cells: Tensor, weight: float) -> Tensor:
        """`weight` per pixel times the adjoint of `means`, of cells or a plane [h, w]; -> [TILE, TILE, n]."""
        if self.own:
            return weight * (self.tiles.take(cells) if cells.ndim == 2 else cells)
        taken = cells.flatten()[self.places] * (weight * self.area)
        return (self.rows.mT @ taken @ self.columns.mT).permute(1, 2, 0)


def cell_means(plane: Tensor, coarse: Size) -> Tensor:
    """Means of a plane [H, W] over h x w equal cells; pixels on a border count in part."""
    if tuple(plane.shape) == tuple(coarse):
        return plane
    for axis, (size, cells) in enumerate(zip(tuple(plane.shape), coarse, strict=True)):
        share, which = overlaps(torch.arange(size, device=plane.device), 1, cells, size)
        shape = [cells if k == axis else side for k, side in enumerate(plane.shape)]
        total = plane.new_zeros(shape)
        for part, cell in zip(share[:, 0].to(plane), which, strict=True):
            total.index_add_(axis, cell, plane * (part[:, None] if axis == 0 else part))
        plane = total
    return plane
