"""What a checkpoint says about itself: sizes, tasks, wording and sampling defaults.

Two small JSON files carry it: `omnialpha.json` beside the weights (ours, every key optional) and diffusers'
`scheduler/scheduler_config.json`. Where neither says anything, the public checkpoint's values hold.

    {"format": 1, "pixel_budget": 16384, "size_multiple": 16, "tasks": ["matting_auto"],
     "instructions": {"matting_auto": "Cut out the main object."}, "steps": 8, "guidance": 1.0,
     "sampling": {"text_to_rgba": {"steps": 20, "guidance": 3.0}}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checks import is_whole
from .errors import OmniAlphaError
from .json_files import read_json
from .sampling import Schedule

FILE_NAME = "omnialpha.json"
SCHEDULER = "scheduler/scheduler_config.json"
FORMAT = 1

# What the public checkpoint was trained on; it has no omnialpha.json that could say so.
PUBLIC = ("text_to_rgba", "matting_auto", "matting_text", "removal_mask", "decomposition_auto")

# Eight image pixels per latent pixel, two latent pixels per patch: no side can be finer than that.
PATCH_PIXELS = 16


@dataclass(frozen=True)
class Settings:
    """How a checkpoint wants to be used. The defaults are those of the public checkpoint.

    Attributes:
        pixel_budget: pixels (height x width) that inputs and targets share; one layer of n + m gets
            `pixel_budget / (n + m)`.
        size_multiple: every side of a layer is a multiple of this many pixels.
        tasks: ids of the tasks it was trained on, None where it does not say.
        instructions: task id -> wording it was trained with, in place of the task table's.
        steps: Euler steps.
        guidance: classifier-free guidance scale; 1 or less means none.
        sampling: task id -> its own "steps" and "guidance", where they differ: a matte is all but decided by the
            picture and gains nothing from steps that a drawing needs.
        schedule: constants of the sigma schedule.
    """

    pixel_budget: int = 1024 * 1024
    size_multiple: int = 32
    tasks: tuple[str, ...] | None = None
    instructions: Mapping[str, str] = field(default_factory=dict)
    steps: int = 50
    guidance: float = 4.0
    sampling: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)

    def trained(self, task_id: str) -> bool | None:
        """Was the checkpoint trained on this task? None where it does not say."""
        return None if self.tasks is None else task_id in self.tasks

    def instruction(self, task_id: str) -> str | None:
        """The checkpoint's own wording for a task, None where the task table's holds."""
        return self.instructions.get(task_id)

    def steps_for(self, task_id: str | None) -> int:
        """Euler steps for a task; None is a free instruction."""
        return int(self.sampling.get(task_id, {}).get("steps", self.steps))

    def guidance_for(self, task_id: str | None) -> float:
        """Guidance scale for a task; None is a free instruction."""
        return float(self.sampling.get(task_id, {}).get("guidance", self.guidance))

    def to_json(self) -> dict[str, Any]:
        """The content of an `omnialpha.json`. The schedule is not in it: diffusers' scheduler config holds that."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "pixel_budget": self.pixel_budget,
            "size_multiple": self.size_multiple,
            "steps": self.steps,
            "guidance": self.guidance,
        }
        if self.tasks is not None:
            data["tasks"] = list(self.tasks)
        if self.instructions:
            data["instructions"] = dict(self.instructions)
        if self.sampling:
            data["sampling"] = {task: dict(values) for task, values in self.sampling.items()}
        return data


def read_settings(folder: str | Path, scheduler: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a checkpoint folder; a file that is not there leaves the public defaults standing.

    Args:
        folder: the checkpoint.
        scheduler: its scheduler config, read already; see `read_scheduler`.

    Raises:
        OmniAlphaError: a file that is not JSON, an unknown format, or a value of the wrong type or range.
    """
    folder = Path(folder)
    values = _checked(folder / FILE_NAME)
    scheduler = read_scheduler(folder) if scheduler is None else scheduler
    if scheduler:
        try:
            values["schedule"] = Schedule.from_config(scheduler)
        except (TypeError, ValueError) as error:
            raise OmniAlphaError(f"{folder / SCHEDULER}: {error}") from error
    return Settings(**values)


def read_scheduler(folder: Path) -> dict[str, Any]:
    """diffusers' scheduler config of a checkpoint folder, empty where there is none. OmniAlphaError: unreadable."""
    path = folder / SCHEDULER
    return read_json(path) if path.is_file() else {}


def _checked(path: Path) -> dict[str, Any]:
    """The known keys of an `omnialpha.json`, each checked. Unknown keys are left to later versions of the format."""
    if not path.is_file():
        return {}
    data = read_json(path)
    if data.get("format") != FORMAT:
        raise OmniAlphaError(
            f"{path} has format {data.get('format')!r}; this version reads format {FORMAT}. "
            f'Update ComfyUI-OmniAlpha, or write "format": {FORMAT} if the file is your own.'
        )
    values: dict[str, Any] = {}
    for key, (accepts, wanted) in _RULES.items():
        if key in data:
            if not accepts(data[key]):
                raise OmniAlphaError(f"{path}: {key} is {data[key]!r}, expected {wanted}.")
            values[key] = data[key]
    if "tasks" in values:
        values["tasks"] = tuple(values["tasks"])
    if "guidance" in values:
        values["guidance"] = float(values["guidance"])
    return values


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _sampling(value: Any) -> bool:
    """task id -> {"steps": whole, "guidance": number}, both optional."""
    tests = {"steps": lambda v: is_whole(v, 1), "guidance": _number}
    return isinstance(value, dict) and all(
        isinstance(entry, dict) and all(key in tests and tests[key](v) for key, v in entry.items())
        for entry in value.values()
    )


# key -> (test, what was expected)
_RULES = {
    "pixel_budget": (lambda v: is_whole(v, PATCH_PIXELS**2), f"a whole number of pixels, {PATCH_PIXELS**2} or more"),
    "size_multiple": (
        lambda v: is_whole(v, PATCH_PIXELS) and v % PATCH_PIXELS == 0,
        f"a multiple of {PATCH_PIXELS} pixels",
    ),
    "tasks": (
        lambda v: isinstance(v, list) and all(isinstance(task, str) for task in v),
        "a list of task ids",
    ),
    "instructions": (
        lambda v: isinstance(v, dict) and all(isinstance(text, str) and text.strip() for text in v.values()),
        "an object of task id -> text",
    ),
    "steps": (lambda v: is_whole(v, 1), "a whole number, 1 or more"),
    "guidance": (_number, "a number, 0 or more"),
    "sampling": (_sampling, 'an object of task id -> {"steps": whole number, "guidance": number}'),
}
