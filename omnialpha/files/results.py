"""Where results go: new folders, never anything overwritten, and nothing half written."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OmniAlphaError
from .names import distinct, file_name
from .writing import free_path, try_writing, write_new

if TYPE_CHECKING:
    import torch

KEY = "omnialpha"  # name of the PNG text chunk that holds a run's settings


@contextlib.contextmanager
def new_folder(wanted: str | Path) -> Iterator[Path]:
    """A folder for one run's results: `wanted`, or `wanted-2`, `wanted-3`, ... where that has something in it.

    It is made, and written to once, before the work starts, so that a full or read-only disk is found out at once. A
    run that fails before it wrote anything leaves no empty folder behind.

    Raises:
        OmniAlphaError: the folder cannot be made or written to.
    """
    wanted = Path(wanted).expanduser()
    made = []
    try:
        if not wanted.parent.is_dir():
            made = [p for p in wanted.parents if not p.exists()]
            wanted.parent.mkdir(parents=True, exist_ok=True)
        folder, fresh = _claim(wanted)
        made = ([folder] if fresh else []) + made
        try_writing(folder)
    except OSError as error:
        _remove_empty(made)
        raise OmniAlphaError(
            f"Cannot write to {wanted}: {error.strerror or error}. Choose another folder with --out, or make room."
        ) from error
    try:
        yield folder
    finally:
        _remove_empty(made)


def _claim(wanted: Path) -> tuple[Path, bool]:
    """(a folder that is empty, whether it was made here)."""
    if wanted.is_file():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, and results are a folder of pictures")
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
            return folder, True
        except FileExistsError:
            if folder.is_dir() and not any(folder.iterdir()):
                return folder, False
            number += 1


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes the folders that we made as far as they are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_layers(
    layers: Sequence[torch.Tensor],
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    format: str = "png",
) -> list[Path]:
    """Writes layers as `01-background.png`, `02-object.png`, ..., back to front, or as `layers.psd`.

    Args:
        layers: [4, H, W] in [0, 1] each.
        names: one per layer.
        settings: what made them; goes into every PNG's text chunk `omnialpha` as JSON, with the layer's name and place,
            or into the layered file's metadata.
        format: key of `files.formats.FORMATS`.

    Raises:
        OmniAlphaError: NaN in a layer, or a file cannot be written; what was complete stays.
    """
    from .formats import FORMATS, write_stack
    from .stack import Stack

    row = FORMATS[format]
    if row.layered:
        text = {KEY: json.dumps(settings, ensure_ascii=False)}
        return write_stack(Stack(layers, distinct(names)), folder / "layers", format, text)
    paths = []
    for index, (layer, name) in enumerate(zip(layers, names, strict=True)):
        path = free_path(folder / file_name(name, f"{index + 1:02d}-", ".png"))
        chunk = json.dumps({**settings, "layer": name, "index": index, "layers": len(layers)}, ensure_ascii=False)
        write_new(path, lambda file, layer=layer, chunk=chunk: row.write(layer, file, {KEY: chunk}))
        paths.append(path)
    return paths
