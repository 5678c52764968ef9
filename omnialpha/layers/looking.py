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

from ..checks import Size, check_plane, size_of
from ..errors import OmniAlphaError
from ..progress import Progress
from ..tasks import LOOKS, PIXELS, Task
from .keeping import keep_pixels
from .resizing import Frame
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

    @property
    def unchanged(self) -> Callable[[], Tensor] | None:
        """Gives the picture in the window as a run that changes nothing would, at the size the model saw."""
        round_trip = self.made.round_trip
        return None if round_trip is None else lambda: self.fitted.frame.crop(round_trip())


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
    row = _seeking(sequence, task, look)
    if row is None or row.guide_role:
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

    row = _seeking(sequence, task, look)
    if row is None:
        return through()
    window = find_object(sequence, row, pixel_budget, multiple)
    first = through(None if window.whole else window)
    if most_passes(sequence, task, pixel_budget, multiple, look) == 1:
        return first
    window = find_object(sequence, row, pixel_budget, multiple, first.made.layers)
    return first if window.whole else through(window)


def find_object(
    sequence: LayerSequence, task: Task, pixel_budget: int, multiple: int, first: Sequence[Tensor] | None = None
) -> Window:
    """The window through which the model sees the object of a composite best; the whole picture where none is better.

    Args:
        sequence, task, pixel_budget, multiple: as for `look_at`.
        first: for tasks without a guide, the layers [4, *fitted.size] of a first pass over the whole picture. The whole
            picture is the answer before there are some.
    """
    whole, sizes = Window.over(size_of(sequence.layers[0])), _sizes(sequence, pixel_budget, multiple)
    if _seeking(sequence, task) is None:
        return whole
    if task.guide_role:
        return find_window(guide_support(sequence.layers[1][0]), sizes)
    if first is None or most_passes(sequence, task, pixel_budget, multiple) == 1:
        return whole
    support = _support(sequence.layers[0], sequence.frames(pixel_budget, multiple)[0], task, first)
    if support.float().mean() >= SMALL:
        return whole
    # What a change misses of the object, where it is like its background, has to be in the window as well.
    return find_window(support, sizes, MARGIN if "foreground" in task.targets else 2 * MARGIN)


def drawn_window(mask: Tensor) -> Window:
    """The smallest window round all that is white in a mask [H, W].

    Raises:
        OmniAlphaError: nothing is.
    """
    height, width = size = size_of(check_plane(mask, "A window's mask"))
    (rows,), (columns,) = ((mask > 0.5).any(dim=axis).nonzero(as_tuple=True) for axis in (1, 0))
    if not len(rows):
        raise OmniAlphaError(
            f"The window is empty: nothing in its mask of {width}x{height} pixels is white. Paint where the model is "
            f"to look, or leave the mask out."
        )
    top, left = int(rows[0]), int(columns[0])
    return Window(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left, size)


def finished(
    look: Look,
    sequence: LayerSequence,
    task: Task | None,
    pixels: str = "keep",
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> list[Tensor]:
    """A look's layers as the artist gets them: [4, H, W] each, in the frame of the picture, back to front.

    Args:
        look: from `look_at`.
        sequence: what was looked at.
        task: as for `look_at`.
        pixels, progress, device: see `finish`.

    Raises:
        OmniAlphaError: other pixels.
        Cancelled: `progress` returned False.
    """
    if task is None or not sequence.layers:
        return look.layers
    return finish(
        task,
        sequence.layers[0],
        look.layers,
        look.window,
        seen=look.fitted.frame.inner,
        guide=look.window.cut(sequence.layers[1][0]) if task.guide_role else None,
        round_trip=look.unchanged,
        pixels=pixels,
        progress=progress,
        device=device,
    )


def finish(
    task: Task,
    picture: Tensor,
    layers: Sequence[Tensor],
    window: Window,
    seen: Size,
    guide: Tensor | None = None,
    round_trip: Tensor | Callable[[], Tensor] | None = None,
    pixels: str = "keep",
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> list[Tensor]:
    """What a model made in a window, with the picture's own pixels, and at the picture's size.

    Args:
        task: row of the task table, one that starts from a picture.
        picture: [4, H, W], the whole of it.
        layers: [4, *window.size] each, back to front.
        window: where they belong.
        seen, guide, round_trip: of the window, see `keep_pixels`.
        pixels: "keep" for the picture's own pixels wherever a layer shows the same, "redraw" for the model's alone.
        progress: see `progress.Progress`; told of keeping.
        device: to keep pixels on, the picture's unless told. Where its memory does not suffice, the picture's after
            all. Results are on the picture's.

    Raises:
        OmniAlphaError: other pixels; or see `keep_pixels`.
        Cancelled: `progress` returned False.
    """

    def kept(device: torch.device) -> list[Tensor]:
        own = window.cut(picture).to(device)
        return keep_pixels(task, own, layers, seen, guide=guide, round_trip=round_trip, progress=progress)

    if check_pixels(pixels) == "redraw":
        return put_back(window, layers, picture, task.targets)
    try:
        made = kept(device or picture.device)
    except torch.cuda.OutOfMemoryError:
        if device is None or device == picture.device:
            raise
        made = kept(picture.device)
    return put_back(window, [layer.to(picture.device) for layer in made], picture, task.targets)


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


def _seeking(sequence: LayerSequence, task: Task | None, look: str = "close") -> Task | None:
    """The task, if it has an object to look for and this may be."""
    close = check_look(look) == "close" and sequence.fit != "exact"
    return task if close and task is not None and task.looks else None


def _support(picture: Tensor, frame: Frame, task: Task, layers: Sequence[Tensor]) -> Tensor:
    """Where a first pass saw the object, in the picture's frame: bool [H, W]."""
    made = dict(zip(task.targets, layers, strict=True))
    if "foreground" in made:
        support = matte_support(made["foreground"][3])
    else:
        support = change_support(frame.apply(picture), made["background"])
    return F.interpolate(frame.crop(support)[None, None].to(torch.uint8), frame.source, mode="nearest")[0, 0] > 0


def _sizes(sequence: LayerSequence, pixel_budget: int, multiple: int) -> list[Size]:
    """The sizes at which a window can be worked on: the artist's, or any of the checkpoint's."""
    if sequence.size is not None:
        return [round_size(sequence.size, multiple)]
    return working_sizes(pixel_budget / (len(sequence.layers) + sequence.targets), multiple)
