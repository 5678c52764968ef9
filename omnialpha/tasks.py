"""The 21 tasks as one table.

A task says which layers go in, which come out, and what the model is told. Everything else in the library (command
line, pipeline, training data, ComfyUI's task node) reads this table, so a new task is a new row.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .errors import OmniAlphaError

FAMILIES = ("generation", "completion", "matting", "removal", "decomposition")

# How a picture of each role is called in messages to people.
ROLES = {
    "composite": "the flattened picture",
    "foreground": "the cut-out object (RGBA)",
    "background": "the empty background",
    "trimap": "a trimap (white = object, grey = unknown, black = background)",
    "mask": "a precise mask (white = object)",
    "coarse_mask": "a rough mask (white = somewhere around the object)",
}
GUIDES = ("trimap", "mask", "coarse_mask")


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        id: name used in code, files and the command line.
        family: one of `FAMILIES`.
        title: name shown to people.
        inputs: roles of the input layers, in sequence order (keys of `ROLES`).
        targets: roles of the generated layers, back to front.
        text: "none", "optional" or "required": does the artist's text take part?
        instruction: what the model is told; `{text}` stands for the artist's text.
        help: one line for tooltips.
    """

    id: str
    family: str
    title: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    text: str
    instruction: str
    help: str

    @property
    def needs_text(self) -> bool:
        """True where the task means nothing without the artist's words."""
        return self.text == "required"

    @property
    def image_role(self) -> str | None:
        """Role of the picture the artist gives, None for text-only tasks."""
        return self.inputs[0] if self.inputs else None

    @property
    def guide_role(self) -> str | None:
        """Role of the guide (trimap, mask or coarse mask) the artist gives, None where there is none."""
        return self.inputs[1] if len(self.inputs) > 1 else None

    def fill(self, text: str = "", instruction: str | None = None) -> str:
        """The instruction for the model, with the artist's text in it.

        Args:
            text: the artist's words, such as "a red balloon".
            instruction: replaces the table's wording; `{text}` in it is filled in too.

        Raises:
            OmniAlphaError: the task needs text and there is none.
        """
        text = " ".join(text.split())
        template = instruction if instruction and instruction.strip() else self.instruction
        if self.needs_text and not text and template == self.instruction:
            raise OmniAlphaError(
                f"Task '{self.id}' needs text and got none. Say in a few words what the layer shows, "
                f'for example "a red balloon".'
            )
        # str.format would trip over braces that an artist may well type.
        return " ".join(template.replace("{text}", text).split())


def _guided(family: str, verb: str, targets: tuple[str, ...], what: str) -> list[Task]:
    """The five variants of a family that works on a composite: auto, text, and three kinds of guide."""
    hints = {
        "trimap": ("trimap", "guided by the trimap", "a trimap marks sure object, sure background and the rest"),
        "mask": ("mask", "guided by the mask", "a precise mask says which object"),
        "coarse_mask": ("coarse mask", "guided by the rough mask", "a rough mask says roughly where the object is"),
    }
    title = family.capitalize()
    rows = [
        Task(f"{family}_auto", family, f"{title}, automatic", ("composite",), targets, "none",
             f"{verb.format('the main object')}.", f"{what}; the model finds the main object itself."),
        Task(f"{family}_text", family, f"{title} by text", ("composite",), targets, "required",
             f"{verb.format('the object')}: {{text}}.", f"{what}; your text says which object."),
    ]
    rows += [
        Task(f"{family}_{guide}", family, f"{title} by {name}", ("composite", guide), targets, "none",
             f"{verb.format('the object')}, {phrase}.", f"{what}; {reason}.")
        for guide, (name, phrase, reason) in hints.items()
    ]  # fmt: skip
    return rows


_ROWS = [
    Task("text_to_rgba", "generation", "Text to RGBA", (), ("foreground",), "required",
         "Draw on a transparent background: {text}.", "Draws one object with transparency from your text."),
    Task("text_to_layers", "generation", "Text to layers", (), ("background", "foreground"), "required",
         "Draw a background layer and an object layer: {text}.", "Draws a background and an object, as two layers."),
    Task("fg_to_full", "completion", "Object to full picture", ("foreground",), ("composite",), "optional",
         "Place the object in a full picture. {text}", "Puts your cut-out object into a complete picture."),
    Task("bg_to_full", "completion", "Background to full picture", ("background",), ("composite",), "optional",
         "Add an object to the background. {text}", "Puts an object into your background, as one picture."),
    Task("fg_to_bg", "completion", "Object to background", ("foreground",), ("background",), "optional",
         "Draw a background for the object. {text}", "Draws a background that suits your cut-out object."),
    Task("bg_to_fg", "completion", "Background to object", ("background",), ("foreground",), "optional",
         "Draw an object layer for the background. {text}", "Draws an object layer that suits your background."),
    *_guided("matting", "Cut out {}", ("foreground",), "Cuts an object out, with soft edges"),
    *_guided("removal", "Remove {}", ("background",), "Removes an object and paints what was behind it"),
    *_guided("decomposition", "Separate {} from the background", ("background", "foreground"),
             "Splits a picture into background and object"),
]  # fmt: skip

TASKS: dict[str, Task] = {row.id: row for row in _ROWS}


def by_family() -> dict[str, list[Task]]:
    """The tasks of each family, both in the table's order."""
    return {family: [row for row in _ROWS if row.family == family] for family in FAMILIES}


def get_task(task_id: str) -> Task:
    """The task of that id.

    Raises:
        OmniAlphaError: unknown id; the message suggests the nearest and lists all.
    """
    if task_id in TASKS:
        return TASKS[task_id]
    near = difflib.get_close_matches(str(task_id), TASKS, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise OmniAlphaError(f"Unknown task '{task_id}'.{hint} Tasks: {', '.join(TASKS)}.")
