"""What an artist asks for, checked and complete before any model is loaded."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from PIL import Image

from .checks import Size, check_finite, check_layer, check_plane
from .errors import OmniAlphaError, OmniAlphaWarning
from .layers import clean_hidden, from_pil, grey_layer, opaque, read_layer
from .pictures import MAX_PIXELS
from .sequence import FittedSequence, LayerSequence
from .settings import Settings
from .tasks import ROLES, TASKS, Task, fill, get_task
from .text import check_words

POLARITIES = ("white", "black", "alpha")


@dataclass(frozen=True, eq=False)
class Request:
    """One run of the model, fully decided.

    Attributes:
        task: row of the task table, None for a free instruction.
        instruction: what the model is told, text filled in.
        negative: what guidance steers away from; usually empty.
        names: one short name per generated layer, back to front.
        fitted: the layers at the checkpoint's sizes, and the way back.
        seed: 0 ... 2**64 - 1.
        steps: Euler steps, at least 1.
        guidance: scale; 1 or less runs the model once per step.
        snap: make nearly opaque and nearly transparent pixels exactly so.
    """

    task: Task | None
    instruction: str
    negative: str
    names: tuple[str, ...]
    fitted: FittedSequence
    seed: int
    steps: int
    guidance: float
    snap: bool = False


def plan(
    settings: Settings,
    task: str | None = None,
    instruction: str | None = None,
    images: Sequence = (),
    guide=None,
    text: str = "",
    num_targets: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str = "",
    size: Size | None = None,
    fit: str = "scale",
    clean: bool = True,
    snap: bool = False,
) -> Request:
    """Checks a request and fits its pictures to a checkpoint. Parameters are those of `OmniAlphaPipeline.__call__`.

    Raises:
        OmniAlphaError: anything that cannot be run; no model is needed to find out.
    """
    row = get_task(task) if task is not None else None
    layers = [as_layer(image, f"Picture {k + 1}") for k, image in enumerate(_as_list(images))]
    plane = None if guide is None else as_plane(guide)
    if row is None:
        words = fill(instruction or "", text)
        if not words:
            raise OmniAlphaError(
                "Say what to do: give a task (`python -m omnialpha tasks` lists them) or an instruction."
            )
        targets = 1 if num_targets is None else _whole(num_targets, "num_targets", 1)
        names = tuple(f"layer-{k + 1}" for k in range(targets))
    else:
        words = _instruction(settings, row, text, instruction)
        layers, plane = _sort_pictures(row, layers, plane)
        targets, names = len(row.targets), row.targets
        if num_targets not in (None, targets):
            raise OmniAlphaError(f"Task '{row.id}' gives {targets} layers, {num_targets} were asked for. Leave it out.")
        _warn(settings, row, layers, text, words)
    if plane is not None:
        _check_guide_size(layers, plane)
    if clean:
        layers = [clean_hidden(layer) for layer in layers]
    if plane is not None:
        layers.append(grey_layer(plane))
    steps = settings.steps_for(task) if steps is None else _whole(steps, "steps", 1)
    guidance = settings.guidance_for(task) if guidance is None else float(guidance)
    if not math.isfinite(guidance):
        raise OmniAlphaError(f"guidance is {guidance}, expected a number such as {settings.guidance:g}.")
    if size is not None and math.prod(size) > MAX_PIXELS:
        raise OmniAlphaError(f"{size[1]}x{size[0]} pixels are too many; a layer may have {MAX_PIXELS:,}.")
    fitted = LayerSequence(layers, targets, size, fit).fitted(settings.pixel_budget, settings.size_multiple)
    words, negative = check_words(words), check_words(" ".join(negative.split()))
    return Request(row, words, negative, names, fitted, _seed(seed), steps, guidance, snap)


def as_layer(image, name: str = "The picture") -> torch.Tensor:
    """A layer [4, H, W] from a layer, an RGB tensor [3, H, W], a PIL image or a file's path.

    Raises:
        OmniAlphaError: none of these, unreadable, or NaN in it.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_layer(image)
    if isinstance(image, Image.Image):
        return from_pil(image)
    if not isinstance(image, torch.Tensor):
        raise OmniAlphaError(f"{name} is a {type(image).__name__}, expected a tensor, a PIL image or a file's path.")
    layer = image.detach().to("cpu")
    if layer.ndim == 3 and layer.shape[0] == 3 and layer.is_floating_point():
        layer = opaque(layer)
    return check_finite(check_layer(layer, name), name).to(torch.float32).clamp(0, 1)


def as_plane(guide, polarity: str = "white") -> torch.Tensor:
    """A guide [H, W] in [0, 1] with 1 = object, from a plane, a layer, a PIL image or a file's path.

    Args:
        polarity: where the object is in a picture: "white" (brightness, transparent counts as black), "black" (the
            opposite) or "alpha" (opacity).

    Raises:
        OmniAlphaError: see `as_layer`; or an unknown polarity.
    """
    if polarity not in POLARITIES:
        raise OmniAlphaError(f"Unknown guide polarity '{polarity}', expected one of: {', '.join(POLARITIES)}.")
    if isinstance(guide, torch.Tensor) and guide.ndim == 2:
        plane = (
            check_finite(check_plane(guide.detach().to("cpu"), "The guide"), "The guide").to(torch.float32).clamp(0, 1)
        )
    else:
        layer = as_layer(guide, "The guide")
        plane = layer[3] if polarity == "alpha" else layer[:3].mean(dim=0) * layer[3]
    return 1 - plane if polarity == "black" else plane


def _as_list(images) -> list:
    single = isinstance(images, (str, os.PathLike, Image.Image)) or (
        isinstance(images, torch.Tensor) and images.ndim == 3
    )
    return [images] if single else list(images)


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
        needs = f"one picture: {ROLES[task.image_role]}" if wanted else "no picture, only text"
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
            f"This checkpoint was not trained on '{task.id}'; expect little. Trained: {', '.join(settings.tasks)}.",
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


def _whole(value, name: str, low: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise OmniAlphaError(f"{name} is {value!r}, expected a whole number of {low} or more.")
    return int(value)


def _seed(seed) -> int:
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise OmniAlphaError(f"The seed is {seed!r}, expected a whole number from 0 to 2**64 - 1.")
    return int(seed)
