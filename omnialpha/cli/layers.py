"""`python -m omnialpha layers | refine`: layers from one file format to another, and mattes at full size."""

from __future__ import annotations

import argparse
from pathlib import Path

LAYERS_HELP = """\
Converts layers between PNG, PSD and OpenRaster, and picks, orders and merges them on the way. Several sources are laid
over each other in the order given, back to front. Nothing is ever overwritten."""

LAYERS_EXAMPLES = """\
examples:
  layers poster.psd --out poster.ora                          another program's layered file
  layers out/decomposition_auto --out poster.psd              a folder of PNGs, back to front by name
  layers sky.png tree.png --out both.psd --names "sky,tree"   single pictures
  layers poster.psd --out top.png --order=-1                  only the layer in front
  layers poster.psd --out flat.png --order 0+1+2              merged"""

REFINE_HELP = """\
Brings a matte back to the size of the picture it was made from: its alpha follows the picture's edges where it is soft,
and the object's colours lose the old background's. docs/refine.md shows how much that is worth."""

REFINE_EXAMPLES = """\
examples:
  refine photo.jpg matte.png --out object.png                   a matte smaller than the photo
  refine photo.jpg matte.png --out object.png --worked-at 724   one that was scaled up already, as `run` writes it
  refine photo.jpg matte.png --out object.png --trimap t.png    held to a trimap; of help at any size"""


def add_commands(commands) -> None:
    """Register both below the main command's subparsers."""
    raw = argparse.RawDescriptionHelpFormatter
    layers = commands.add_parser(
        "layers",
        help="convert and arrange layers",
        description=LAYERS_HELP,
        epilog=LAYERS_EXAMPLES,
        formatter_class=raw,
    )
    layers.add_argument("source", nargs="+", metavar="SOURCE", help="PSD, ORA or picture file, or a folder of pictures")
    layers.add_argument("--out", required=True, metavar="FILE", help="ends in .psd, .ora or .png (a file per layer)")
    layers.add_argument("--bits", type=int, choices=(8, 16), default=8, help="of PNG files (%(default)s)")
    layers.add_argument("--order", default="", metavar="TEXT", help='such as "1,0", "2-4" or "0+1"; 0 is at the back')
    layers.add_argument("--names", default="", metavar="A,B", help="of the layers in the result, back to front")
    layers.add_argument("--hidden", action="store_true", help="read layers that are switched off, too")
    layers.set_defaults(command=_layers)

    refine = commands.add_parser(
        "refine",
        help="bring a matte to full size",
        description=REFINE_HELP,
        epilog=REFINE_EXAMPLES,
        formatter_class=raw,
    )
    refine.add_argument("picture", metavar="PICTURE", help="the picture that was matted")
    refine.add_argument("matte", metavar="MATTE", help="the object with its alpha")
    refine.add_argument("--out", required=True, metavar="FILE", help="the PNG to write; must not exist")
    refine.add_argument("--worked-at", type=int, metavar="PX", help="longer side as the model saw it (the matte's)")
    refine.add_argument("--trimap", metavar="PICTURE", help="white = object, black = background, grey = unknown")
    refine.add_argument("--bits", type=int, choices=(8, 16), default=8, help="of the PNG (%(default)s)")
    refine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    refine.set_defaults(command=_refine)


def _layers(args) -> None:
    from ..files.formats import read_stack, write_stack
    from ..files.names import arrange_names, distinct, parse_names
    from ..files.stack import Stack
    from ..layers.arranging import arrange, parse_order

    format = _format(Path(args.out), args.bits)
    stacks = [read_stack(Path(source).expanduser(), args.hidden) for source in args.source]
    whole = Stack(
        [layer for stack in stacks for layer in stack.layers],
        distinct(name for stack in stacks for name in stack.names),
    )
    order = parse_order(args.order, len(whole.layers))
    layers, names = arrange(whole.layers, order), distinct(arrange_names(whole.names, order))
    names = parse_names(args.names, len(layers), names)
    out = Path(args.out).expanduser()
    for path in write_stack(Stack(layers, names), out.with_suffix(""), format):
        print(path)


def _refine(args) -> None:
    from ..checks import size_of
    from ..device import find_device
    from ..errors import OmniAlphaError
    from ..files.formats import FORMATS
    from ..files.pictures import as_plane, read_layer
    from ..files.writing import write_new
    from ..layers.refining import refine, seen_size

    out = Path(args.out).expanduser()
    format = _format(out, args.bits, (".png",))
    if out.exists():
        raise OmniAlphaError(f"{out} exists and is not overwritten. Choose another name.")
    device = find_device(args.device)
    picture, matte = read_layer(args.picture), read_layer(args.matte)
    seen = seen_size(size_of(picture), args.worked_at) if args.worked_at else None
    trimap = as_plane(args.trimap).to(device) if args.trimap else None
    layer = refine(picture[:3].to(device), matte.to(device), seen, trimap).cpu()
    write_new(out, lambda file: FORMATS[format].write(layer, file))
    print(out)


def _format(out: Path, bits: int, endings: tuple[str, ...] = (".psd", ".ora", ".png")) -> str:
    """Key of `files.formats.FORMATS` for a file's ending; refused before the work starts where there is none."""
    from ..errors import OmniAlphaError

    ending = out.suffix.lower()
    if ending not in endings:
        raise OmniAlphaError(f"{out} does not end in {' or '.join(endings)}.")
    if not out.expanduser().parent.is_dir():
        raise OmniAlphaError(f"There is no folder {out.parent}. Make it first.")
    return "png16" if (ending, bits) == (".png", 16) else ending[1:]
