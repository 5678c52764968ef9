"""A closer look: the model works on a window round the object, at its full share of the pixel budget.

picture and guide -> window -> model, or picture -> model -> where is the object? -> window -> model. Then the picture's
own pixels are kept, and the result is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size
from ..errors import OmniAlphaError
from ..progress import Progress
from ..tasks import LOOKS, PIXELS, Task
from .keeping import keep_pixels
from .sequence import FittedSequence, LayerSequence, round_size
from .windows import MARGIN, WORTH, Window, change_support, find_window, guide_support, matte_support, working_sizes

SMALL = 1 / 3  # without a guide, an object that covers less of the picture is looked at again


@dataclass(frozen=True, eq=False)
class Made:
    """What the model made of a fitted sequence.

    Attributes:
        layers: [4, *fitted.size] each, back to front.
        round_trip: gives input 0 as the VAE gives it back, [4, height, width] at its fitted size, when it is called.
    """

    layers: list[Tensor]
    round_trip: Callable[[], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """What the model made of a picture, or of a window in it.

    Attributes:
        window: where it looked last.
        fitted: what it saw there.
        made: what it made of that.
    """

    window: Window
    fitted: FittedSequence
    made: Made

    @property
    def layers(self) -> list[Tensor]:
        """What it made, in the window's frame: [4, *window.size] each."""
        return self.fitted.restore(self.made.layers)

    def unchanged(self) -> Tensor | None:
        """The picture in the window as a run that changes nothing would give it, at the size the model saw."""
        return None if self.made.round_trip is None else self.fitted.frame.crop(self.made.round_trip())


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
    placed = [torch.zeros_like(picture) if role == "foreground" else picture.clone() for role in roles]
    for layer, planes in zip(layers, placed, strict=True):
        window.cut(planes).copy_(layer)
    return placed


def most_passes(
    sequence: LayerSequence, task: Task | None, pixel_budget: int, multiple: int, look: str = "close"
) -> int:
    """How often `look_at` may run the model on these: 1 or 2. Arguments as there."""
    if not _looks_closely(sequence, task, look) or task.guide_role:
        return 1
    height, width = sequence.layers[0].shape[1:]
    finer = any(h * w <= WORTH * height * width for h, w in _sizes(sequence, pixel_budget, multiple))
    return 2 if finer else 1


def look_at(
    sequence: LayerSequence,
    task: Task | None,
    model: Callable[[FittedSequence], Made],
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
        model: a fitted sequence -> its targets at the working size. Called once or twice, see `most_passes`.
        pixel_budget: see `LayerSequence.fitted`.
        multiple: see `LayerSequence.fitted`.
        look: "close", or "whole" for one pass over the whole picture. Fit "exact" uses pictures as they are, so it
            looks at the whole as well.

    Raises:
        OmniAlphaError: another look; or see `LayerSequence.fitted`.
    """

    def through(window: Window | None = None) -> Look:
        layers = sequence.layers if window is None else [window.cut(layer) for layer in sequence.layers]
        fitted = replace(sequence, layers=layers).fitted(pixel_budget, multiple)
        return Look(window or Window.over(fitted.frame.source), fitted, model(fitted))

    if not _looks_closely(sequence, task, look):
        return through()
    sizes = _sizes(sequence, pixel_budget, multiple)
    if task.guide_role:
        window = find_window(guide_support(sequence.layers[1][0]), sizes)
        return through(None if window.whole else window)
    first = through()
    if most_passes(sequence, task, pixel_budget, multiple, look) == 1:
        return first
    support = _find(first, task)
    if support.float().mean() >= SMALL:
        return first
    # What a change misses of the object, where it is like its background, has to be in the window as well.
    window = find_window(support, sizes, MARGIN if "foreground" in task.targets else 2 * MARGIN)
    return first if window.whole else through(window)


def finished(
    look: Look, sequence: LayerSequence, task: Task | None, pixels: str = "keep", progress: Progress | None = None
) -> list[Tensor]:
    """A look's layers as the artist gets them: [4, H, W] each, in the frame of the picture, back to front.

    Args:
        look: from `look_at`.
        sequence: what was looked at.
        task: as for `look_at`.
        pixels: "keep" for the picture's own pixels wherever a layer shows the same, "redraw" for the model's alone.
        progress: see `progress.Progress`; told of keeping.

    Raises:
        OmniAlphaError: other pixels.
        Cancelled: `progress` returned False.
    """
    layers = look.layers
    if task is None or not sequence.layers:
        return layers
    picture = sequence.layers[0]
    if check_pixels(pixels) == "keep":
        guide = look.window.cut(sequence.layers[1][0]) if task.guide_role else None
        layers = keep_pixels(
            task,
            look.window.cut(picture),
            layers,
            seen=look.fitted.frame.inner,
            guide=guide,
            round_trip=None if look.made.round_trip is None else look.unchanged,
            progress=progress,
        )
    return put_back(look.window, layers, picture, task.targets)


def check_look(look: str) -> str:
    """`look` itself. Raises OmniAlphaError for one that is not among `LOOKS`."""
    return _one_of(LOOKS, look, "look")


def check_pixels(pixels: str) -> str:
    """`pixels` itself. Raises OmniAlphaError for one that is not among `PIXELS`."""
    return _one_of(PIXELS, pixels, "pixels")


def settled_look(pixels: str, look: str) -> str:
    """How a run looks: what is redrawn is seen as a whole. Raises OmniAlphaError for other pixels or another look."""
    look = check_look(look)
    return look if check_pixels(pixels) == "keep" else "whole"


def _one_of(options: Sequence[str], value: str, name: str) -> str:
    if value not in options:
        raise OmniAlphaError(f"Unknown {name} '{value}', expected one of: {', '.join(options)}.")
    return value


def _looks_closely(sequence: LayerSequence, task: Task | None, look: str) -> bool:
    """Is there an object to look for, and may it be?"""
    close = check_look(look) == "close" and sequence.fit != "exact"
    return close and task is not None and task.image_role == "composite"


def _find(first: Look, task: Task) -> Tensor:
    """Where a first pass saw the object, in the picture's frame: bool [H, W]."""
    made, frame = dict(zip(task.targets, first.made.layers, strict=True)), first.fitted.frame
    if "foreground" in made:
        support = matte_support(made["foreground"][3])
    else:
        support = change_support(first.fitted.inputs[0], made["background"])
    return F.interpolate(frame.crop(support)[None, None].to(torch.uint8), frame.source, mode="nearest")[0, 0] > 0


def _sizes(sequence: LayerSequence, pixel_budget: int, multiple: int) -> list[Size]:
    """The sizes at which a window can be worked on: the artist's, or any of the checkpoint's."""
    if sequence.size is not None:
        return [round_size(sequence.size, multiple)]
    return working_sizes(pixel_budget / (len(sequence.layers) + sequence.targets), multiple)
