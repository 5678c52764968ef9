"""What an artist asks for, checked and complete before any model is loaded."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from . import __version__
from .checkpoint.settings import Settings
from .checks import Size, check_whole, is_whole
from .errors import OmniAlphaError, OmniAlphaWarning
from .files.names import default_names
from .files.pictures import MAX_PIXELS, as_layer, as_plane
from .layers.compositing import clean_hidden, grey_layer, snap_alpha
from .layers.looking import Made, finished, look_at, most_passes, settled_look
from .layers.resizing import Frame
from .layers.sequence import FittedSequence, LayerSequence
from .model.text import check_words
from .progress import Progress
from .tasks import ROLES, TASKS, Task, fill, get_task


@dataclass(frozen=True, eq=False, kw_only=True)
class Request:
    """What an artist asks for. Nothing is read or checked before `plan`.

    Attributes:
        task: id from the task table; it decides what goes in and what comes out. None for a free instruction.
        instruction: what the model is told, in place of the task's wording; `{text}` in it is filled in. Without a
            task it has to say everything.
        images: input layers [4, H, W] in [0, 1] with straight alpha (also RGB tensors, PIL images or paths).
        guide: trimap or mask [H, W] (or a picture, see `guide_polarity`) as large as the first image.
        guide_polarity: where the object is in a guide that is a picture, see `as_plane`.
        text: the artist's words for tasks that take some.
        num_targets: layers to generate for a free instruction, 1 unless told.
        seed: 0 ... 2**64 - 1; the same seed gives the same layers.
        steps: Euler steps, the checkpoint's default unless told.
        guidance: classifier-free guidance, the checkpoint's default unless told; 1 or less is twice as fast.
        negative: what guidance steers away from.
        size: (height, width) to work at in pixels, in place of the checkpoint's pixel budget.
        fit: "scale", "pad" or "exact", see `layers.Frame`.
        clean: blacken colours hidden under alpha 0 of the inputs.
        snap: make alpha <= 5/255 transparent and >= 250/255 opaque.
        pixels: "keep" for the picture's own pixels wherever a layer shows the same, see `layers.keeping`; "redraw" for
            the model's layers alone, of the whole picture.
        look: "close" to let the model work on a window round the object, see `layers.looking`; "whole" for one pass
            over the whole picture.
    """

    task: str | None = None
    instruction: str | None = None
    images: Sequence = ()
    guide: Any = None
    guide_polarity: str = "white"
    text: str = ""
    num_targets: int | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    negative: str = ""
    size: Size | None = None
    fit: str = "scale"
    clean: bool = True
    snap: bool = False
    pixels: str = "keep"
    look: str = "close"

    def plan(self, settings: Settings) -> Plan:
        """The request checked, and its pictures fitted to a checkpoint.

        Raises:
            OmniAlphaError: anything that cannot be run; no model is needed to find out.
        """
        row = get_task(self.task) if self.task is not None else None
        layers = [as_layer(image, f"Picture {k + 1}") for k, image in enumerate(_as_list(self.images))]
        plane = None if self.guide is None else as_plane(self.guide, self.guide_polarity)
        if row is None:
            words = fill(self.instruction or "", self.text)
            if not words:
                raise OmniAlphaError(
                    "Say what to do: give a task (`python -m omnialpha tasks` lists them) or an instruction."
                )
            targets = 1 if self.num_targets is None else check_whole(self.num_targets, "num_targets")
            names = tuple(default_names(targets))
        else:
            words = _instruction(settings, row, self.text, self.instruction)
            layers, plane = _sort_pictures(row, layers, plane)
            targets, names = len(row.targets), row.names
            if self.num_targets not in (None, targets):
                raise OmniAlphaError(
                    f"Task '{row.id}' gives {targets} layers, {self.num_targets} were asked for. Leave it out."
                )
            _warn(settings, row, layers, self.text, words)
        if plane is not None:
            _check_guide_size(layers, plane)
        if self.clean:
            layers = [clean_hidden(layer) for layer in layers]
        if plane is not None:
            layers.append(grey_layer(plane))
        steps = settings.steps_for(self.task) if self.steps is None else check_whole(self.steps, "steps")
        guidance = settings.guidance_for(self.task) if self.guidance is None else float(self.guidance)
        if not math.isfinite(guidance):
            raise OmniAlphaError(f"guidance is {guidance}, expected a number such as {settings.guidance:g}.")
        if self.size is not None and math.prod(self.size) > MAX_PIXELS:
            height, width = self.size
            raise OmniAlphaError(f"{width}x{height} pixels are too many; a layer may have {MAX_PIXELS:,}.")
        sequence = LayerSequence(layers, targets, self.size, self.fit)
        return Plan(
            request=self,
            task=row,
            instruction=check_words(words),
            negative=check_words(" ".join(self.negative.split())),
            names=names,
            sequence=sequence,
            frame=sequence.frames(settings.pixel_budget, settings.size_multiple)[0],
            budget=(settings.pixel_budget, settings.size_multiple),
            look=settled_look(self.pixels, self.look),
            seed=_seed(self.seed),
            steps=steps,
            guidance=guidance,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """One run of the model, fully decided.

    Attributes:
        request: what was asked for.
        task: row of the task table, None for a free instruction.
        instruction: what the model is told, text filled in.
        negative: what guidance steers away from; usually empty.
        names: one short name per generated layer, back to front.
        sequence: the input layers as they came, and how many come out.
        frame: how the whole picture is fitted to the checkpoint, and results are brought back.
        budget: the checkpoint's pixel budget, and what sides have to be multiples of.
        look: "close" or "whole".
        seed: 0 ... 2**64 - 1.
        steps: Euler steps, at least 1.
        guidance: scale; 1 or less runs the model once per step.
    """

    request: Request
    task: Task | None
    instruction: str
    negative: str
    names: tuple[str, ...]
    sequence: LayerSequence
    frame: Frame
    budget: tuple[int, int]
    look: str
    seed: int
    steps: int
    guidance: float

    @property
    def passes(self) -> int:
        """How often the model may be run: 1 or 2, with `steps` steps each."""
        return most_passes(self.sequence, self.task, *self.budget, self.look)

    def carry_out(
        self,
        model: Callable[[FittedSequence], Made],
        progress: Progress | None = None,
        device: torch.device | None = None,
    ) -> list[torch.Tensor]:
        """The layers as the artist gets them: [4, H, W] each in the frame of the first picture, back to front.

        Args:
            model: makes the targets of what was fitted; see `layers.looking.look_at`.
            progress: told of the finishing, see `progress.Progress`.
            device: to finish on, see `layers.looking.finish`.

        Raises:
            Cancelled: `progress` returned False.
        """
        look = look_at(self.sequence, self.task, model, *self.budget, self.look)
        layers = finished(look, self.sequence, self.task, self.request.pixels, progress=progress, device=device)
        return [snap_alpha(layer) for layer in layers] if self.request.snap else layers

    def record(self) -> dict[str, Any]:
        """What was asked and decided, for a picture's text chunk.

        Of pictures that came from files the names only: where they lay is nobody's business. The others are None.
        """
        asked = self.request
        return {
            "version": __version__,
            "task": asked.task,
            "instruction": self.instruction,
            "negative": self.negative,
            "text": asked.text,
            "images": [_file_name(image) for image in _as_list(asked.images)],
            "guide": _file_name(asked.guide),
            "guide_polarity": asked.guide_polarity,
            "seed": self.seed,
            "steps": self.steps,
            "guidance": self.guidance,
            "size": list(reversed(self.frame.size)),
            "fit": asked.fit,
            "snap_alpha": asked.snap,
            "keep_hidden": not asked.clean,
            "pixels": asked.pixels,
            "look": self.look,
        }


def _as_list(images) -> list[Any]:
    if isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, torch.Tensor) and images.ndim == 3):
        return [images]
    return list(images)


def _instruction(settings: Settings, task: Task, text: str, instruction: str | None) -> str:
    """The words for a task: the artist's instruction, else the checkpoint's, else the table's."""
    if instruction and instruction.strip():
        return task.fill(text, instruction)
    task.fill(text)  # raises where the task needs text, also when the checkpoint brings its own wording
    return task.fill(text, settings.instruction(task.id))


def _sort_pictures(task: Task, layers: list, plane):
    """Image and guide of a task. A guide may also come as the second image."""
    if task.guide_role and plane is None and len(layers) == 2:
        layers, plane = layers[:1], as_plane(layers[1])
    wanted = 1 if task.image_role else 0
    if len(layers) != wanted:
        needs = f"one picture: {ROLES[task.image_role]}" if task.image_role else "no picture, only text"
        raise OmniAlphaError(f"Task '{task.id}' takes {needs}; {len(layers)} were given.")
    if task.guide_role and plane is None:
        raise OmniAlphaError(f"Task '{task.id}' needs a guide as large as the picture: {ROLES[task.guide_role]}.")
    if plane is not None and not task.guide_role:
        guided = [row.id for row in TASKS.values() if row.family == task.family and row.guide_role]
        hint = f" Tasks that take one: {', '.join(guided)}." if guided else ""
        raise OmniAlphaError(f"Task '{task.id}' takes no guide.{hint}")
    return layers, plane


def _check_guide_size(layers: list, plane: torch.Tensor) -> None:
    height, width = plane.shape
    if layers and layers[0].shape[1:] != plane.shape:
        raise OmniAlphaError(
            f"The guide is {width}x{height} pixels, the picture {layers[0].shape[2]}x{layers[0].shape[1]} (width x "
            f"height). They have to lie on each other; export the guide at the picture's size."
        )


def _warn(settings: Settings, task: Task, layers: list, text: str, words: str) -> None:
    """Things that run but may not do what is hoped for."""
    if settings.trained(task.id) is False:
        warnings.warn(
            f"This checkpoint was not trained on '{task.id}'; expect little. "
            f"Trained: {', '.join(settings.tasks or ())}.",
            OmniAlphaWarning,
            stacklevel=4,
        )
    text = " ".join(text.split())
    if text not in words:
        warnings.warn(f"Task '{task.id}' takes no text: \"{text}\" is not looked at.", OmniAlphaWarning, stacklevel=4)
    if task.image_role == "foreground" and bool((layers[0][3] == 1).all()):
        warnings.warn(
            f"Task '{task.id}' starts from a cut-out object, but this picture has no transparency at all.",
            OmniAlphaWarning,
            stacklevel=4,
        )


def _seed(seed) -> int:
    if not is_whole(seed, 0) or seed >= 2**64:
        raise OmniAlphaError(f"The seed is {seed!r}, expected a whole number from 0 to 2**64 - 1.")
    return int(seed)


def _file_name(picture) -> str | None:
    return Path(picture).name if isinstance(picture, (str, os.PathLike)) else None
