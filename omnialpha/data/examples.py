"""From a record to what training and evaluation need: a task's input layers, its true answer, and the words.

All 21 tasks are derived from the same triplet on the fly, guides included (paper section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from ..errors import OmniAlphaError
from ..files.pictures import read_layer
from ..layers.resizing import fit_size, resize
from ..tasks import GUIDES, TASKS, Task, get_task
from .augment import augment
from .guides import DRAW
from .records import Record, StackRecord, Supervised, Triplet

SUPERVISED, STACK = "supervised", "stack"  # what stands for a task where none of the 21 applies
STACK_INSTRUCTION = "Decompose the image into {count} layers, from the background to the front."


@dataclass(frozen=True)
class Example:
    """One task on one record.

    Attributes:
        key: "record/task".
        task: id of one of the 21 tasks, or "supervised" or "stack".
        instruction: what the model is told, the caption filled in.
        text: the caption in it, "" for none.
        inputs: input layers, [4, H, W] straight alpha in [0, 1]; guides are opaque grey.
        targets: true layers, back to front.
    """

    key: str
    task: str
    instruction: str
    text: str
    inputs: list[torch.Tensor]
    targets: list[torch.Tensor]


@dataclass(frozen=True)
class SizeRule:
    """How large each layer of a sequence is: `pixel_budget` over all layers, sides multiples of `size_multiple`."""

    pixel_budget: int
    size_multiple: int

    def size(self, height: int, width: int, layers: int) -> tuple[int, int]:
        """(H, W) of one layer out of `layers` (inputs and targets together) of a picture of height x width."""
        return fit_size(height, width, self.pixel_budget / layers, self.size_multiple)


def tasks_of(record: Record) -> tuple[str, ...]:
    """The tasks that a record can serve."""
    if isinstance(record, Supervised):
        return (SUPERVISED,)
    if isinstance(record, StackRecord):
        return (STACK,)
    has = {*record.pictures, *GUIDES}  # guides come from the foreground's alpha, and that is always there
    fits = [task for task in TASKS.values() if {*task.inputs, *task.targets} <= has]
    return tuple(task.id for task in fits if not task.needs_text or caption_of(record, task))


def caption_of(record: Triplet, task: Task) -> str:
    """The caption that the task's text means: of the object for matting and the like, of what it draws otherwise."""
    if task.family == "completion" or task.id == "text_to_layers":
        roles = {"fg_to_bg": ("background",), "bg_to_fg": ("foreground",)}.get(task.id, ("composite", "foreground"))
    else:
        roles = ("foreground",)
    return next((record.captions[role] for role in roles if record.captions.get(role)), "")


def words_of(record: Record) -> str:
    """What a record shows, or for a supervised one what is asked; "" where nobody says."""
    if isinstance(record, Triplet):
        return record.captions.get("foreground", "")
    return record.caption if isinstance(record, StackRecord) else record.prompt


def derive(
    record: Record,
    task: str,
    rng: np.random.Generator,
    rule: SizeRule | None = None,
    augmentations: Iterable[str] = (),
    caption_rate: float = 0.5,
) -> Example:
    """Make one example.

    Args:
        record: from `records.read_records`.
        task: one of `tasks_of(record)`.
        rng: draws the guide, the augmentations, and whether an optional caption is given.
        rule: sizes to work at; None leaves the pictures as they are.
        augmentations: names from `augment.AUGMENTATIONS`; triplets only.
        caption_rate: how often a task that can do without text gets its caption.

    Raises:
        OmniAlphaError: the record cannot serve the task, or a picture cannot be read or is not what it has to be.
    """
    if task not in tasks_of(record):
        can = ", ".join(tasks_of(record)) or "nothing"
        raise OmniAlphaError(f"The record {record.id} cannot serve the task {task}; it can serve: {can}.")
    key = f"{record.id}/{task}"
    if isinstance(record, Supervised):
        inputs, targets = [read_rgba(path) for path in record.inputs], [read_rgba(path) for path in record.outputs]
        return Example(key, task, record.prompt, record.prompt, *_fitted(inputs, targets, rule))
    if isinstance(record, StackRecord):
        inputs, targets = [read_rgba(record.composite)], [read_rgba(path) for path in record.layers]
        instruction = STACK_INSTRUCTION.format(count=len(targets))
        if record.caption and rng.random() < caption_rate:
            instruction += f" {record.caption}"
        return Example(key, task, instruction, record.caption, *_fitted(inputs, targets, rule))
    row = get_task(task)
    needed = [role for role in ("foreground", "background", "composite") if role in record.pictures]
    wanted = {*row.inputs, *row.targets} | ({"foreground"} if row.guide_role else set())
    layers = {role: read_rgba(record.pictures[role]) for role in needed if role in wanted}
    _check_same_size(record, layers)
    layers = augment(layers, augmentations, rng, shown=row.inputs)
    wants_text = row.needs_text or (row.text == "optional" and rng.random() < caption_rate)
    text = caption_of(record, row) if wants_text else ""
    if row.guide_role:
        layers[row.guide_role] = opaque(DRAW[row.guide_role](layers["foreground"][..., 3], rng))
    inputs, targets = [layers[role] for role in row.inputs], [layers[role] for role in row.targets]
    return Example(key, task, row.fill(text), text, *_fitted(inputs, targets, rule))


def read_rgba(path: Path) -> np.ndarray:
    """A picture as straight float32 [h, w, 4] in [0, 1]; RGB becomes opaque. See `pictures.read_layer`.

    Raises:
        OmniAlphaError: it cannot be read.
    """
    return np.ascontiguousarray(rearrange(read_layer(path), "c h w -> h w c").numpy())


def opaque(picture: np.ndarray) -> np.ndarray:
    """An RGB picture [h, w, 3] or a plane [h, w] as an opaque RGBA layer [h, w, 4]."""
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    return np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1)


def to_layer(pixels: np.ndarray) -> torch.Tensor:
    """[h, w, 4] array -> [4, H, W] tensor."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(pixels, np.float32)), "h w c -> c h w").contiguous()


def _fitted(inputs: list[np.ndarray], targets: list[np.ndarray], rule: SizeRule | None):
    layers = [to_layer(layer) for layer in (*inputs, *targets)]
    if rule:
        layers = [resize(layer, rule.size(*layer.shape[1:], len(layers))) for layer in layers]
    return layers[: len(inputs)], layers[len(inputs) :]


def _check_same_size(record: Triplet, layers: dict[str, np.ndarray]) -> None:
    sizes = {role: layer.shape[:2] for role, layer in layers.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{role} {w}x{h}" for role, (h, w) in sizes.items())
        raise OmniAlphaError(f"The layers of {record.id} differ in size: {found}. They have to be one picture.")
