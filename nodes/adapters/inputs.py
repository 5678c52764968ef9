"""Inputs that several nodes share, worded once."""

from __future__ import annotations

from collections.abc import Collection

from comfy_api.v0_0_2 import io

from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.layers.resizing import FITS
from ...omnialpha.tasks import LOOKS, PIXELS, ROLES, Task

TRANSPARENT, OPAQUE = "1 = transparent", "1 = opaque"

_ONE_SIDE = "width is {} and height {}: set both, or leave both at 0."


def fit_input(optional: bool = False) -> io.Combo.Input:
    """How pictures get to the checkpoint's sizes."""
    return io.Combo.Input(
        "fit",
        options=list(FITS),
        default=FITS[0],
        optional=optional,
        tooltip="How pictures get to the checkpoint's sizes; undone when layers are decoded. scale: stretch a little; "
        "pad: repeat the edges; exact: not at all, sides must fit already.",
    )


def size_inputs(optional: bool = False) -> list[io.Int.Input]:
    """The width and height to work at; see `explicit_size`."""
    return [
        io.Int.Input(
            side,
            default=0,
            min=0,
            max=16384,
            step=16,
            optional=optional,
            tooltip=f"The {side} to work at, in pixels. 0 follows the first picture and the checkpoint's own size.",
        )
        for side in ("width", "height")
    ]


def explicit_size(width: int, height: int) -> tuple[int, int] | None:
    """(height, width) where the artist gave them, None where both are 0.

    Raises:
        OmniAlphaError: only one of them is given.
    """
    if (width == 0) != (height == 0):
        raise OmniAlphaError(_ONE_SIDE.format(width, height))
    return (height, width) if width else None


def snap_input() -> io.Boolean.Input:
    """Whether nearly opaque and nearly transparent become exactly so."""
    return io.Boolean.Input(
        "snap_alpha",
        default=False,
        optional=True,
        tooltip="Make nearly opaque pixels (250 of 255 and up) opaque and nearly transparent ones (5 and down) "
        "transparent.",
    )


def pixels_input() -> io.Combo.Input:
    """Whose pixels a result has."""
    return io.Combo.Input(
        "pixels",
        options=list(PIXELS),
        default=PIXELS[0],
        optional=True,
        tooltip="keep: the picture's own pixels wherever a layer shows what the picture shows, at full size; the "
        "model's for what is hidden, new or changed. redraw: the model's layers alone, of the whole picture.",
    )


def look_input() -> io.Combo.Input:
    """What of the picture the model works on."""
    return io.Combo.Input(
        "look",
        options=list(LOOKS),
        default=LOOKS[0],
        optional=True,
        tooltip="close: the model works on a window round the object, which shows it larger; without a guide a first "
        "pass finds the object, and a second looks at it. whole: one pass over the whole picture, as redraw always "
        "does.",
    )


def steps_input(advice: str = "") -> io.Int.Input:
    """Model evaluations of a run."""
    tooltip = f"0: as many as the checkpoint asks for. {advice}".strip()
    return io.Int.Input("steps", default=0, min=0, max=1000, tooltip=tooltip)


def tile_input() -> io.Int.Input:
    """Side of the VAE's tiles."""
    return io.Int.Input(
        "tile_size",
        default=0,
        min=0,
        max=4096,
        step=64,
        optional=True,
        tooltip="Side of the tiles in pixels, for very large pictures. 0: in one piece; ComfyUI tiles by itself when "
        "memory runs out.",
    )


def one_each(found: list, count: int, name: str, per: str) -> list:
    """As many of one thing as there are of another; a single one serves all. OmniAlphaError for another number."""
    if len(found) not in (1, count):
        raise OmniAlphaError(f"{len(found)} {name}s for {count} {per}s; give one {name}, or one per {per}.")
    return found * count if len(found) == 1 else found


def chosen(value: str, options: Collection[str], name: str) -> str:
    """`value` of a list input, once more: ComfyUI lets what arrives by a link pass unseen.

    Raises:
        OmniAlphaError: it is none of the options.
    """
    if value not in list(options):  # of a table, too, for values that have no hash
        raise OmniAlphaError(f"{name} is {value!r}; expected one of: {', '.join(options)}.")
    return value


def white_is_transparent(polarity: str) -> bool:
    """What a `polarity_input` says. Raises OmniAlphaError where it says neither."""
    return chosen(polarity, (TRANSPARENT, OPAQUE), "mask_polarity") == TRANSPARENT


def polarity_input(default: str = TRANSPARENT) -> io.Combo.Input:
    """What white means in a mask that comes in."""
    return io.Combo.Input(
        "mask_polarity",
        options=[TRANSPARENT, OPAQUE],
        default=default,
        optional=True,
        tooltip=f"What white means. '{TRANSPARENT}' is ComfyUI's alpha, as LoadImage gives it; "
        f"'{OPAQUE}' is what segmentation nodes give.",
    )


def clean_input() -> io.Boolean.Input:
    """Whether colours hidden under alpha 0 are taken out."""
    return io.Boolean.Input(
        "clean_hidden",
        default=True,
        optional=True,
        tooltip="Make fully transparent pixels black. Files often hide old colours there, which the model would see.",
    )


def check_connected(task: Task, image: bool, guide: bool) -> None:
    """Raises OmniAlphaError where something the task needs is not connected."""
    if task.image_role and not image:
        raise OmniAlphaError(f"Task '{task.id}' needs a picture: connect {ROLES[task.image_role]} to 'image'.")
    if task.guide_role and not guide:
        raise OmniAlphaError(f"Task '{task.id}' needs a guide: connect {ROLES[task.guide_role]} to 'guide'.")


def mask_output() -> io.Mask.Output:
    """The layers' alpha as ComfyUI has it."""
    return io.Mask.Output(
        "mask",
        display_name="mask (1 = transparent)",
        tooltip="Alpha of each layer in ComfyUI's polarity: white is transparent. Invert it to select the object.",
    )
