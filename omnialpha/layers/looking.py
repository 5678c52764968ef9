"""A closer look: the model works on a window round the object, at its full share of the pixel budget.

picture and guide -> window -> model, or picture -> model -> where is the object? -> window -> model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size
from ..errors import OmniAlphaError
from ..tasks import Task
from .sequence import FittedSequence, LayerSequence, round_size
from .windows import MARGIN, Window, change_support, find_window, guide_support, matte_support, working_sizes

LOOKS = ("close", "whole")

SMALL = 1 / 3  # without a guide, an object that covers less of the picture is looked at again


@dataclass(frozen=True, eq=False)
class Look:
    """What the model made of a picture, or of a window in it.

    Attributes:
        window: where it looked last.
        fitted: what it saw there.
        made: what it made of that, [4, *fitted.size] each, back to front.
    """

    window: Window
    fitted: FittedSequence
    made: list[Tensor]

    @cached_property
    def layers(self) -> list[Tensor]:
        """What it made, in the window's frame: [4, *window.size] each."""
        return self.fitted.restore(self.made)


def put_back(window: Window, layers: Sequence[Tensor], picture: Tensor, roles: Sequence[str]) -> list[Tensor]:
    """Layers [4, *window.size] at the picture's size: an object on nothing, everything else in the picture itself.

    Args:
        window: where they belong.
        layers: of a look, or what was made of them since.
        picture: [4, H, W], what was looked at; not looked at here where the window is the whole.
        roles: one for each layer, such as a task's targets.
    """
    if window.whole:
        return list(layers)
    around = [torch.zeros_like(picture) if role == "foreground" else picture for role in roles]
    return [window.put(layer, planes) for layer, planes in zip(layers, around, strict=True)]


def look_at(
    sequence: LayerSequence,
    task: Task | None,
    run: Callable[[FittedSequence], list[Tensor]],
    pixel_budget: int,
    multiple: int,
    look: str = "close",
) -> Look:
    """Runs the model on a picture: on the whole, on a window round its object, or on one after the other.

    Where a guide says where the object is, one pass sees its window. Where there is none, a first pass over the whole
    picture finds the object, and only one that covers less than `SMALL` of the picture is looked at again. A second
    pass sees nothing but its window, in the condition that goes with the text as well.

    Args:
        sequence: picture and guide, as the artist gave them.
        task: row of the task table; only tasks that start from a composite have an object to look for.
        run: the model: a fitted sequence -> its targets [4, *size] at the working size. Called once or twice.
        pixel_budget: see `LayerSequence.fitted`.
        multiple: see `LayerSequence.fitted`.
        look: "close", or "whole" for one pass over the whole picture. Fit "exact" uses pictures as they are, so it
            looks at the whole as well.

    Raises:
        OmniAlphaError: another look; or see `LayerSequence.fitted`.
    """
    check_look(look)

    def through(window: Window | None = None) -> Look:
        layers = sequence.layers if window is None else [window.cut(layer) for layer in sequence.layers]
        fitted = replace(sequence, layers=layers).fitted(pixel_budget, multiple)
        return Look(window or Window.over(fitted.frame.source), fitted, run(fitted))

    if look == "whole" or sequence.fit == "exact" or task is None or task.image_role != "composite":
        return through()
    sizes = _sizes(sequence, pixel_budget, multiple)
    if task.guide_role:
        window = find_window(guide_support(sequence.layers[1][0]), sizes)
        return through(None if window.whole else window)
    first = through()
    support = _find(first, task)
    if support.float().mean() >= SMALL:
        return first
    # What a change misses of the object, where it is like its background, has to be in the window as well.
    window = find_window(support, sizes, MARGIN if "foreground" in task.targets else 2 * MARGIN)
    return first if window.whole else through(window)


def check_look(look: str) -> str:
    """`look` itself. Raises OmniAlphaError for one that is not among `LOOKS`."""
    if look not in LOOKS:
        raise OmniAlphaError(f"Unknown look '{look}', expected one of: {', '.join(LOOKS)}.")
    return look


def _find(first: Look, task: Task) -> Tensor:
    """Where a first pass saw the object, in the picture's frame: bool [H, W]."""
    made, frame = dict(zip(task.targets, first.made, strict=True)), first.fitted.frame
    if "foreground" in made:
        support = matte_support(made["foreground"][3])
    else:
        support = change_support(first.fitted.inputs[0], made["background"])
    (top, left), (height, width) = frame.corner, frame.inner
    support = support[None, None, top : top + height, left : left + width]
    return F.interpolate(support.to(torch.uint8), frame.source, mode="nearest")[0, 0] > 0


def _sizes(sequence: LayerSequence, pixel_budget: int, multiple: int) -> list[Size]:
    """The sizes at which a window can be worked on: the artist's, or any of the checkpoint's."""
    if sequence.size is not None:
        return [round_size(sequence.size, multiple)]
    return working_sizes(pixel_budget / (len(sequence.layers) + sequence.targets), multiple)
