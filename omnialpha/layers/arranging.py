"""Picking, ordering and merging layers by a short text, such as "1, 0" or "0+1, 3-5"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from ..errors import OmniAlphaError
from .compositing import flatten

_PART = re.compile(r"(-?\d+)(?:-(-?\d+))?")
MAX_ITEMS = 256


def parse_order(text: str, count: int) -> list[list[int]]:
    """Which layers make up each new layer.

    Args:
        text: items with commas between them, back to front. An item is a layer's number from 0 at the back (-1 is the
            last, in front), a range such as 2-4 or 4-2, or several of these merged with +, the lowest first. An empty
            text stands for all layers as they are.
        count: how many layers there are.

    Returns:
        A list per new layer: the numbers of the layers merged in it, lowest first.

    Raises:
        OmniAlphaError: something else in the text, a layer that there is not, or too many.
    """
    if not text.strip():
        return [[index] for index in range(count)]
    order: list[list[int]] = []
    for item in re.sub(r"\s+", "", text).split(","):
        parts = [_numbers(part, item, count) for part in item.split("+")]
        alone = len(parts) == 1
        order += [[number] for number in parts[0]] if alone else [[number for part in parts for number in part]]
    if len(order) > MAX_ITEMS:
        raise OmniAlphaError(f"'{text}' asks for {len(order)} layers; {MAX_ITEMS} are the most.")
    return order


def arrange(layers: Sequence[Tensor], order: Sequence[Sequence[int]]) -> list[Tensor]:
    """New layers [4, H, W], each one layer or several merged, as `parse_order` says."""
    return [flatten([layers[number] for number in numbers]) for numbers in order]


def _numbers(part: str, item: str, count: int) -> list[int]:
    match = _PART.fullmatch(part)
    if not match:
        raise OmniAlphaError(
            f"'{item}' is not an order of layers. Write numbers from 0 (at the back) with commas between them; 2-4 is "
            f"a range and 0+1 merges two layers."
        )
    ends = [int(end) for end in match.groups() if end is not None]
    for end in ends:
        if not -count <= end < count:
            raise OmniAlphaError(f"'{item}': there is no layer {end}; there are {count}, from 0 to {count - 1}.")
    first, last = (end % count for end in (ends[0], ends[-1]))
    return list(range(first, last + 1)) if first <= last else list(range(first, last - 1, -1))
