"""Windows in a picture: where the object is, at a size the model works at, cut and put back without a shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size, check_layer, check_plane, check_size, size_of
from ..errors import OmniAlphaError
from .resizing import fit_size

MARGIN = 0.25  # context around the object, of its longer side; 0.2 to 0.3 were best on 48 held-out composites
ASPECT = 2.0  # a window's longer side by its shorter one, at most, where the picture allows
WORTH = 0.7  # a window that is a larger share of the picture shows hardly more of it than the whole
SURE = 5 / 255  # a guide that is fainter is sure background: what an 8-bit or JPEG file leaves of black
SEEN = 0.5  # of a first pass's highest alpha: what is fainter is the model's doubt
CHANGED = 0.25  # of a first pass's greatest difference from the picture,
UNLIKE = 2.0  # or times the usual one, whichever is more: what is less is the model's softness


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels in a picture.

    Attributes:
        top, left: its first row and column.
        height, width: its sides, in pixels.
        picture: (height, width) of the picture.

    Raises:
        OmniAlphaError: it is empty or reaches beyond the picture.
    """

    top: int
    left: int
    height: int
    width: int
    picture: Size

    def __post_init__(self):
        height, width = check_size(self.picture, "A picture's size")
        check_size(self.size, "A window's size")
        if self.top < 0 or self.left < 0 or self.top + self.height > height or self.left + self.width > width:
            raise OmniAlphaError(
                f"A window of {_wide(self.size)} pixels (width x height) {self.left} from the left and {self.top} from "
                f"the top reaches beyond the picture of {_wide(self.picture)}."
            )

    @classmethod
    def over(cls, picture: Size) -> Window:
        """The window that is the whole picture."""
        return cls(0, 0, picture[0], picture[1], (picture[0], picture[1]))

    @property
    def size(self) -> Size:
        """(height, width), in pixels."""
        return self.height, self.width

    @property
    def share(self) -> float:
        """Its part of the picture's area, in (0, 1]."""
        return self.height * self.width / math.prod(self.picture)

    @property
    def whole(self) -> bool:
        """Is it the picture itself?"""
        return self.size == tuple(self.picture)

    def cut(self, planes: Tensor) -> Tensor:
        """What lies in the window of planes [..., *picture]: a view [..., height, width].

        Raises:
            OmniAlphaError: planes of another size.
        """
        self._check(planes, self.picture, "the picture")
        return planes[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def put(self, patch: Tensor, planes: Tensor) -> Tensor:
        """A copy of planes [..., *picture] with a patch [..., height, width] in the window; undoes `cut`, bit for bit.

        Raises:
            OmniAlphaError: sizes other than those.
        """
        self._check(patch, self.size, "the window")
        result = planes.clone()
        self.cut(result).copy_(patch)
        return result

    def _check(self, planes: Tensor, size: Size, name: str) -> None:
        found = size_of(planes)
        if found != tuple(size):
            raise OmniAlphaError(f"Expected {name}'s {_wide(size)} pixels (width x height), got {_wide(found)}.")


def find_window(support: Tensor, sizes: Sequence[Size], margin: float = MARGIN) -> Window:
    """The window through which the model sees an object best.

    One window round all parts, with a margin that ends at the picture's borders. Its sides are those of a size the
    model works at, or such a size scaled up evenly until the object fits in: the model sees the window without a change
    of aspect, and small objects without any scaling. Of those windows the one that shows the object largest is taken,
    then the one whose aspect is nearest. Where the picture is too narrow for it, it is cut at the borders.

    Args:
        support: bool [H, W], where the object may be.
        sizes: (height, width) the model can work at, see `working_sizes`.
        margin: context on each side, as a share of the longer side of what is supported.

    Returns:
        The whole picture where nothing is supported, or where a window would be more than `WORTH` of it.

    Raises:
        OmniAlphaError: not a bool plane.
    """
    if support.ndim != 2 or support.dtype != torch.bool:
        raise OmniAlphaError(f"A support is a bool tensor [height, width], got {support.dtype} {list(support.shape)}.")
    height, width = picture = size_of(support)
    if not support.any():
        return Window.over(picture)
    (top, bottom), (left, right) = (_span(support.any(dim=axis)) for axis in (1, 0))
    reach = math.ceil(margin * max(bottom - top, right - left))
    top, left, bottom, right = (
        max(0, top - reach),
        max(0, left - reach),
        min(height, bottom + reach),
        min(width, right + reach),
    )
    tall, wide = _window_size((bottom - top, right - left), picture, sizes)
    top = min(max(0, (top + bottom - tall) // 2), height - tall)
    left = min(max(0, (left + right - wide) // 2), width - wide)
    window = Window(top, left, tall, wide, picture)
    return window if window.share <= WORTH else Window.over(picture)


def _span(line: Tensor) -> tuple[int, int]:
    """First index of a bool line that is set, and the one after the last."""
    (found,) = line.nonzero(as_tuple=True)
    return int(found[0]), int(found[-1]) + 1


def _window_size(wanted: Size, picture: Size, sizes: Sequence[Size]) -> Size:
    """Sides of the window that holds `wanted`, see `find_window`."""

    def enlarged(size: Size) -> Size:
        step = math.gcd(*size)  # sides grow in whole multiples of size / step, so that their ratio stays exact
        units = max(step, *(math.ceil(need * step / side) for need, side in zip(wanted, size, strict=True)))
        height, width = (min(units * side // step, end) for side, end in zip(size, picture, strict=True))
        return height, width

    def loss(pair: tuple[Size, Size]) -> tuple[float, float]:
        """Pixels of the picture per pixel of the model, then the difference in aspect."""
        window, seen = pair
        return max(1.0, math.prod(window) / math.prod(seen)), abs(_skew(window) - _skew(wanted))

    return min(((enlarged(size), size) for size in sizes), key=loss)[0]


def _skew(size: Size) -> float:
    return math.log(size[0] / size[1])


def working_sizes(pixels: float, multiple: int) -> list[Size]:
    """The (height, width) that `fit_size` leaves alone, and so a model sees as they are; none longer than `ASPECT`."""
    sides = range(multiple, math.ceil(math.sqrt(pixels * ASPECT)) + multiple, multiple)
    sizes = [size for size in product(sides, sides) if max(size) <= ASPECT * min(size)]
    return [size for size in sizes if fit_size(*size, pixels, multiple) == size] or [fit_size(1, 1, pixels, multiple)]


def guide_support(guide: Tensor) -> Tensor:
    """bool [H, W]: where a mask, rough mask or trimap [H, W] leaves room for the object: all but sure background."""
    return check_plane(guide, "A guide") > SURE


def matte_support(alpha: Tensor) -> Tensor:
    """bool [H, W]: where a first pass's alpha [H, W] sees its object: from `SEEN` times its peak, without specks.

    By the peak, not by a fixed alpha: the matte of something of glass is faint throughout.
    """
    peak = float(check_plane(alpha, "An alpha").max())
    return _without_specks(alpha > max(SURE, SEEN * peak))


def change_support(picture: Tensor, background: Tensor) -> Tensor:
    """bool [H, W]: where a first pass's background differs from the picture it was given, both [4, H, W].

    The model draws everything a little softer, so a change is what exceeds both `CHANGED` times the greatest difference
    and `UNLIKE` times the usual one. Where object and background are alike, less of the object is found.
    """
    difference = (check_layer(picture)[:3] - check_layer(background)[:3]).abs().mean(dim=0)
    difference = F.avg_pool2d(difference[None], 3, 1, 1, count_include_pad=False)[0]
    least = max(SURE, UNLIKE * float(difference.median()), CHANGED * float(difference.max()))
    return _without_specks(difference > least)


def _without_specks(support: Tensor) -> Tensor:
    """[H, W] bool without what is thinner than three pixels, unless all of it is."""
    kept = F.max_pool2d(-F.max_pool2d(-support[None].float(), 3, 1, 1), 3, 1, 1)[0] > 0
    return kept if kept.any() else support


def _wide(size: Size) -> str:
    """Width first, as people name picture sizes."""
    return f"{size[1]}x{size[0]}"
