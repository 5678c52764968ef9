"""What several commands take, worded once."""

from __future__ import annotations

import argparse

from ..tasks import LOOKS, PIXELS


def add_model(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options that say which model; gives their group, for more."""
    model = parser.add_argument_group("which model")
    add_checkpoint(model)
    model.add_argument("--vae", metavar="PATH", help="RGBA VAE in place of the checkpoint's own")
    model.add_argument("--lora", metavar="PATH", help="LoRA in place of the checkpoint's own, if it has any")
    model.add_argument("--lora-scale", type=float, default=1.0, metavar="S", help="strength of the LoRA (%(default)s)")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    return model


def add_checkpoint(group: argparse._ArgumentGroup) -> None:
    """The option that names the checkpoint to work with."""
    group.add_argument("--checkpoint", metavar="PATH", default="micro", help="diffusers folder, or micro (%(default)s)")


def add_pixels(group: argparse._ArgumentGroup) -> None:
    """The options that say whose pixels a result has."""
    group.add_argument(
        "--pixels",
        choices=PIXELS,
        default=PIXELS[0],
        help="keep the picture's own wherever a layer shows the same, or redraw all with the model (%(default)s)",
    )
    group.add_argument(
        "--look",
        choices=LOOKS,
        default=LOOKS[0],
        help="close: the model works on a window round the object, in a second pass where no guide says where it is; "
        "whole: one pass over all of the picture (%(default)s)",
    )


def width_by_height(text: str) -> tuple[int, int]:
    """ "768x512" -> (512, 768), height first."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected width x height in pixels, such as 768x512")
    return int(height), int(width)
