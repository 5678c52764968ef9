"""The formats in one table, and reading and writing by it.

write_stack(Stack(layers, ["background", "object"]), "out/poster", "psd")  # out/poster.psd
stack = read_stack("out/poster.psd")
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OmniAlphaError
from .names import MAX_BYTES, check_names, distinct, file_name, is_reserved
from .opening import ENDINGS
from .ora import read_ora, write_ora
from .pictures import read_layer
from .png import write_png, write_png16
from .psd import read_psd, write_psd
from .stack import MAX_STACK_PIXELS, Stack
from .writing import write_new

PICTURES = ENDINGS


@dataclass(frozen=True)
class Format:
    """One way to keep layers.

    Attributes:
        ending: of the file's name, with the dot.
        layered: one file holds the stack; else each layer is a file of its own.
        write: `write(stack or layer, file, text)`.
        help: one line for artists.
    """

    ending: str
    layered: bool
    write: Callable
    help: str


FORMATS = {
    "png": Format(".png", False, write_png, "one PNG per layer, 8 bits"),
    "png16": Format(".png", False, write_png16, "one PNG per layer, 16 bits"),
    "psd": Format(".psd", True, write_psd, "one layered Photoshop file"),
    "ora": Format(".ora", True, write_ora, "one layered OpenRaster file (Krita, GIMP)"),
}
READERS = {".psd": read_psd, ".psb": read_psd, ".ora": read_ora}


def get_format(name: str) -> Format:
    """The row of that name.

    Raises:
        OmniAlphaError: there is none.
    """
    if name not in FORMATS:
        raise OmniAlphaError(f"Unknown format '{name}', expected one of: {', '.join(FORMATS)}.")
    return FORMATS[name]


def paths_of(stem: str | os.PathLike, names: Sequence[str], format: str) -> list[Path]:
    """The files that `write_stack` makes: `stem.psd`, or `stem_NAME.png` for each layer.

    Raises:
        OmniAlphaError: unknown format, names that cannot be told apart as file names, or a stem that is none.
    """
    row, stem = get_format(format), Path(stem)
    if row.layered:
        return [stem.with_name(_checked(f"{stem.name}{row.ending}"))]
    files = [file_name(name, f"{stem.name}_", row.ending) for name in check_names(names)]
    if len({name.casefold() for name in files}) < len(files):
        raise OmniAlphaError(
            f"The layers' names begin alike, and a file's name ends after {MAX_BYTES} bytes, '{stem.name}_' included. "
            f"Give shorter ones."
        )
    return [stem.with_name(name) for name in files]


def _checked(name: str) -> str:
    """A file name that a person chose, if every common system takes it. OmniAlphaError."""
    if is_reserved(name):
        raise OmniAlphaError(f"Windows keeps the name '{name}' for a device. Choose another one.")
    if len(name.encode()) > MAX_BYTES:
        raise OmniAlphaError(
            f"The file name '{name[:40]}...' has {len(name.encode())} bytes; {MAX_BYTES} are the most. Shorten it."
        )
    return name


def write_stack(
    stack: Stack, stem: str | os.PathLike, format: str = "png", text: Mapping[str, str] | None = None
) -> list[Path]:
    """Writes layers in one of `FORMATS`, each file whole or not at all, and none over one that exists.

    Args:
        stack: the layers.
        stem: path without ending; see `paths_of`. Its folder must exist.
        format: key of `FORMATS`.
        text: metadata. PNG: text chunks of every file; PSD: XMP; OpenRaster: text chunks of the merged picture.

    Returns:
        The files, back to front.

    Raises:
        OmniAlphaError: one of the files exists (then none is written), or the disk refuses.
    """
    row, paths = get_format(format), paths_of(stem, stack.names, format)
    taken = [path.name for path in paths if os.path.lexists(path)]
    if taken:
        raise OmniAlphaError(f"{paths[0].parent} has {', '.join(taken)} already; nothing is ever overwritten. Rename.")
    contents = [stack] if row.layered else stack.layers
    for path, content in zip(paths, contents, strict=True):
        write_new(path, lambda file, content=content: row.write(content, file, text))
    return paths


def read_stack(source: str | os.PathLike, hidden: bool = False, pattern: str = "*") -> Stack:
    """Layers with their names: from a PSD or OpenRaster file, a picture (one layer), or a folder of pictures.

    Args:
        source: file or folder. A folder's pictures are its layers, back to front in the order of their names.
        hidden: read layers that are switched off, too.
        pattern: which files of a folder, as in a shell.

    Raises:
        OmniAlphaError: nothing there, not readable, or sizes in a folder that differ.
    """
    source = Path(source)
    if source.is_dir():
        files = list_pictures(source, pattern)
        if not files:
            raise OmniAlphaError(f"{source} holds no pictures that match '{pattern}'.")
        return read_pictures(files)
    if not source.is_file():
        raise OmniAlphaError(f"There is no file or folder at {source}.")
    reader = READERS.get(source.suffix.lower())
    return reader(source, hidden) if reader else Stack([read_layer(source)], [source.stem])


def list_pictures(folder: Path, pattern: str = "*", layered: bool = False) -> list[Path]:
    """A folder's picture files whose names match, sorted as people count: layer2 before layer10.

    Args:
        layered: PSD and OpenRaster files as well.
    """
    endings = (*PICTURES, *READERS) if layered else PICTURES
    found = [path for path in folder.iterdir() if path.suffix.lower() in endings and not path.name.startswith(".")]
    return sorted((p for p in found if fnmatch.fnmatch(p.name, pattern) and p.is_file()), key=natural)


def natural(path: Path) -> tuple:
    """Sort key that takes digits for numbers."""
    parts = re.split(r"(\d+)", path.name.lower())  # text, digits, text, ..., text
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def read_pictures(files: Sequence[Path]) -> Stack:
    """Pictures of one size as a stack, named after their files.

    Raises:
        OmniAlphaError: one cannot be read, sizes differ, or they are too many for memory.
    """
    layers, pixels = [], 0
    for file in files:
        layers.append(read_layer(file))
        if layers[-1].shape != layers[0].shape:
            (h0, w0), (h, w) = layers[0].shape[1:], layers[-1].shape[1:]
            raise OmniAlphaError(
                f"{files[0].name} is {w0}x{h0} and {file.name} {w}x{h} (width x height); layers of one stack share one "
                f"size. Give them one canvas, or read them one by one."
            )
        pixels += layers[-1][0].numel()
        if pixels > MAX_STACK_PIXELS:
            raise OmniAlphaError(
                f"{len(files)} pictures are too many at once: more than {MAX_STACK_PIXELS:,} pixels. Choose fewer."
            )
    return Stack(layers, distinct(file.stem for file in files))
