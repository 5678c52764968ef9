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
# What a generated layer of each role is called where people meet it; the others are called as their role.
NAMES = {"foreground": "object"}
GUIDES = ("trimap", "mask", "coarse_mask")

# Whose pixels a result has, and what of the picture the model works on; see `layers.looking`. The first is the default.
PIXELS = ("keep", "redraw")
LOOKS = ("close", "whole")


@dataclass(frozen=True, kw_only=True)
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

    @property
    def looks(self) -> bool:
        """Is there an object to look for in the picture?"""
        return self.image_role == "composite"

    @property
    def keeps(self) -> bool:
        """Does a generated layer show what the picture shows?"""
        return self.looks or (self.image_role is not None and "composite" in self.targets)

    @property
    def names(self) -> tuple[str, ...]:
        """What the generated layers are called in the viewer and in files, back to front."""
        return tuple(NAMES.get(role, role) for role in self.targets)

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
        return fill(template, text)


def fill(instruction: str, text: str = "") -> str:
    """An instruction as the model is told it: `{text}` in it is `text`, and all of it is one line."""
    # str.format would trip over braces that an artist may well type.
    return " ".join(instruction.replace("{text}", text).split())


def _guided(family: str, verb: str, targets: tuple[str, ...], what: str) -> list[Task]:
    """The five variants of a family that works on a composite: auto, text, and three kinds of guide."""
    title, one = family.capitalize(), verb.format("the object")
    # variant -> (rest of the title, guides, text, what the model is told, why)
    variants = {
        "auto": (", automatic", (), "none", verb.format("the main object") + ".",
                 "the model finds the main object itself"),
        "text": (" by text", (), "required", f"{one}: {{text}}.", "your text says which object"),
        "trimap": (" by trimap", ("trimap",), "none", f"{one}, guided by the trimap.",
                   "a trimap marks sure object, sure background and the rest"),
        "mask": (" by mask", ("mask",), "none", f"{one}, guided by the mask.", "a precise mask says which object"),
        "coarse_mask": (" by coarse mask", ("coarse_mask",), "none", f"{one}, guided by the rough mask.",
                        "a rough mask says roughly where the object is"),
    }  # fmt: skip
    return [
        Task(id=f"{family}_{variant}", family=family, title=title + rest, inputs=("composite", *guides),
             targets=targets, text=text, instruction=told, help=f"{what}; {why}.")
        for variant, (rest, guides, text, told, why) in variants.items()
    ]  # fmt: skip


_ROWS = [
    Task(
        id="text_to_rgba", family="generation", title="Text to RGBA",
        inputs=(), targets=("foreground",),
        text="required", instruction="Draw on a transparent background: {text}.",
        help="Draws one object with transparency from your text.",
    ),
    Task(
        id="text_to_layers", family="generation", title="Text to layers",
        inputs=(), targets=("background", "foreground"),
        text="required", instruction="Draw a background layer and an object layer: {text}.",
        help="Draws a background and an object, as two layers.",
    ),
    Task(
        id="fg_to_full", family="completion", title="Object to full picture",
        inputs=("foreground",), targets=("composite",),
        text="optional", instruction="Place the object in a full picture. {text}",
        help="Puts your cut-out object into a complete picture.",
    ),
    Task(
        id="bg_to_full", family="completion", title="Background to full picture",
        inputs=("background",), targets=("composite",),
        text="optional", instruction="Add an object to the background. {text}",
        help="Puts an object into your background, as one picture.",
    ),
    Task(
        id="fg_to_bg", family="completion", title="Object to background",
        inputs=("foreground",), targets=("background",),
        text="optional", instruction="Draw a background for the object. {text}",
        help="Draws a background that suits your cut-out object.",
    ),
    Task(
        id="bg_to_fg", family="completion", title="Background to object",
        inputs=("background",), targets=("foreground",),
        text="optional", instruction="Draw an object layer for the background. {text}",
        help="Draws an object layer that suits your background.",
    ),
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
