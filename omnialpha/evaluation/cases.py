"""Cases: one task on one record, with the truth; a pure function of the record and the seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..checkpoint.settings import Settings
from ..checks import size_of
from ..data.examples import Example, SizeRule, derive
from ..data.records import Record
from ..layers.compositing import trimap
from ..layers.refining import refine
from ..layers.resizing import resize
from ..tasks import TASKS

# The tasks whose object can be refined with the picture it is in.
REFINABLE = tuple(key for key, row in TASKS.items() if row.family in ("matting", "decomposition"))
OWN_BAND = 2  # pixels around soft alpha that count as unknown where the task has no trimap


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One task on one record.

    Attributes:
        record: its id.
        task: id of a task, or "supervised" or "stack".
        instruction, text: see `data.examples.Example`.
        inputs, targets: layers [4, H, W]; targets back to front.
        seed: of the evaluation.
    """

    record: str
    task: str
    instruction: str
    text: str
    inputs: list[Tensor]
    targets: list[Tensor]
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each target."""
        if self.task in TASKS:
            return TASKS[self.task].targets
        return tuple(f"layer-{k + 1}" for k in range(len(self.targets)))


def make_case(record: Record, task: str, seed: int) -> Case:
    """The case of a record; guides depend on the record's id and the seed alone, and captions are always given.

    Raises:
        OmniAlphaError: the record cannot serve the task, or a picture cannot be read.
    """
    example: Example = derive(record, task, np.random.default_rng(_number(seed, record.id)), caption_rate=1)
    return Case(
        record=record.id,
        task=task,
        instruction=example.instruction,
        text=example.text,
        inputs=example.inputs,
        targets=example.targets,
        seed=seed,
    )


def draw_answer(pipeline, case: Case, sample: int = 0, **options) -> list[Tensor]:
    """A checkpoint's answer, in the size of the truth.

    Args:
        pipeline: `pipeline.OmniAlphaPipeline`.
        sample: its number; each has noise of its own, and that depends on the record's id and the seed besides.
        options: `steps`, `guidance`, `size`, `pixels` and `look`, see `request.Request`.

    Raises:
        OmniAlphaError: see the pipeline.
    """
    noise = _number(case.seed, f"{case.record}/{sample}")
    if case.task in TASKS:
        guide = case.inputs[1][0] if TASKS[case.task].guide_role else None
        ask = {"task": case.task, "images": case.inputs[:1], "guide": guide, "text": case.text}
        if not case.inputs and not options.get("size"):
            options["size"] = _working_size(pipeline.settings, case)
    else:
        ask = {"instruction": case.instruction, "images": case.inputs, "num_targets": len(case.targets)}
    layers = pipeline(**ask, seed=noise, **options)
    pairs = zip(layers, case.targets)
    return [layer if layer.shape == true.shape else resize(layer, size_of(true)) for layer, true in pairs]


def refine_answer(case: Case, layers: list[Tensor]) -> list[Tensor]:
    """An answer to one of `REFINABLE`, its object refined with the picture and the task's trimap, or one of its own."""
    found, index = list(layers), case.names.index("foreground")
    given = TASKS[case.task].guide_role == "trimap"
    known = case.inputs[1][0] if given else trimap(found[index][3], OWN_BAND)
    found[index] = refine(case.inputs[0][:3], found[index], trimap=known)
    return found


def _working_size(settings: Settings, case: Case) -> tuple[int, int]:
    """(H, W) for layers drawn from words alone: the truth's shape, at the checkpoint's pixel budget."""
    rule = SizeRule(settings.pixel_budget, settings.size_multiple)
    return rule.size(*size_of(case.targets[0]), layers=len(case.targets))


def _number(seed: int, name: str) -> int:
    """A number below 2**64 that belongs to a seed and a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")
