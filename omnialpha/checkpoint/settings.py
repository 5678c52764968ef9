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
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..checks import is_whole
from ..config import from_dict, require
from ..errors import OmniAlphaError
from ..json_files import read_json
from .schedule import Schedule

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
    sampling: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)

    def trained(self, task_id: str) -> bool | None:
        """Was the checkpoint trained on this task? None where it does not say."""
        return None if self.tasks is None else task_id in self.tasks

    def instruction(self, task_id: str) -> str | None:
        """The checkpoint's own wording for a task, None where the task table's holds."""
        return self.instructions.get(task_id)

    def steps_for(self, task_id: str | None) -> int:
        """Euler steps for a task; None is a free instruction."""
        return int(self.sampling.get(task_id or "", {}).get("steps", self.steps))

    def guidance_for(self, task_id: str | None) -> float:
        """Guidance scale for a task; None is a free instruction."""
        return float(self.sampling.get(task_id or "", {}).get("guidance", self.guidance))

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
    settings = _stated(folder / FILE_NAME)
    scheduler = read_scheduler(folder) if scheduler is None else scheduler
    if not scheduler:
        return settings
    try:
        return replace(settings, schedule=Schedule.from_config(scheduler))
    except (TypeError, ValueError) as error:
        raise OmniAlphaError(f"{folder / SCHEDULER}: {error}") from error


def read_scheduler(folder: Path) -> dict[str, Any]:
    """diffusers' scheduler config of a checkpoint folder, empty where there is none. OmniAlphaError: unreadable."""
    path = folder / SCHEDULER
    return read_json(path) if path.is_file() else {}


def _stated(path: Path) -> Settings:
    """What an `omnialpha.json` says, checked. Keys that are not known are left to later versions of the format."""
    if not path.is_file():
        return Settings()
    data = read_json(path)
    if data.get("format") != FORMAT:
        raise OmniAlphaError(
            f"{path} has format {data.get('format')!r}; this version reads format {FORMAT}. "
            f'Update ComfyUI-OmniAlpha, or write "format": {FORMAT} if the file is your own.'
        )
    known = {field.name for field in fields(Settings)} - {"schedule"}
    settings = from_dict(Settings, {key: value for key, value in data.items() if key in known}, str(path))
    budget, multiple, own = settings.pixel_budget, settings.size_multiple, settings.sampling.values()
    rules = {
        "pixel_budget": (budget >= PATCH_PIXELS**2, f"a whole number of pixels, {PATCH_PIXELS**2} or more"),
        "size_multiple": (multiple > 0 and multiple % PATCH_PIXELS == 0, f"a multiple of {PATCH_PIXELS} pixels"),
        "instructions": (all(text.strip() for text in settings.instructions.values()), "task id -> text"),
        "steps": (settings.steps >= 1, "a whole number, 1 or more"),
        "guidance": (_is_scale(settings.guidance), "a number, 0 or more"),
        "sampling": (all(map(_is_sampling, own)), 'task id -> {"steps": whole number, "guidance": number}'),
    }
    require(settings, rules, str(path))
    return settings


def _is_scale(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _is_sampling(own: Mapping[str, float]) -> bool:
    known = own.keys() <= {"steps", "guidance"}
    return known and is_whole(own.get("steps", 1), 1) and _is_scale(own.get("guidance", 1))
