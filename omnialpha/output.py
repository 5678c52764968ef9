"""Where results go: new folders, never anything overwritten, and nothing half written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import OmniAlphaError

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
        _try_writing(folder)
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


def _try_writing(folder: Path) -> None:
    """Raises OSError where a file of a few kilobytes cannot be written."""
    probe = folder / f".{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"\0" * 4096)
    finally:
        probe.unlink(missing_ok=True)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes the folders that we made as far as they are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_new(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Makes a new file, whole or not at all; one that exists, or comes to be meanwhile, is left alone.

    Args:
        path: the file; its folder must exist.
        write: fills the file, which is open for writing bytes.

    Raises:
        OmniAlphaError: the file exists, or cannot be written.
    """
    part = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # fails where the name is taken, unlike a rename
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: claim the name, then fill it
            open(path, "xb").close()
            os.replace(part, path)
    except FileExistsError as error:
        raise OmniAlphaError(f"{path} exists and is not overwritten. Choose another name.") from error
    except OSError as error:
        raise OmniAlphaError(
            f"Could not write {path}: {error.strerror or error}. Check that the folder exists, that it may be written "
            f"to and that the disk has room."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def free_path(path: str | Path) -> Path:
    """`path`, or the same name with -2, -3, ... before its ending where that is taken."""
    path = Path(path)
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def write_layers(
    layers: Sequence[torch.Tensor],
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    format: str = "png",
) -> list[Path]:
    """Writes layers as `01-background.png`, `02-foreground.png`, ..., back to front, or as `layers.psd`.

    Args:
        layers: [4, H, W] in [0, 1] each.
        names: one per layer.
        settings: what made them; goes into every PNG's text chunk `omnialpha` as JSON, with the layer's name and place,
            or into the layered file's metadata.
        format: key of `files.formats.FORMATS`.

    Raises:
        OmniAlphaError: NaN in a layer, or a file cannot be written; what was complete stays.
    """
    from .files.formats import FORMATS, Stack, write_stack
    from .files.stack import distinct

    row = FORMATS[format]
    if row.layered:
        text = {KEY: json.dumps(settings, ensure_ascii=False)}
        return write_stack(Stack(layers, distinct(names)), folder / "layers", format, text)
    paths = []
    for index, (layer, name) in enumerate(zip(layers, names, strict=True)):
        path = free_path(folder / f"{index + 1:02d}-{name}.png")
        chunk = json.dumps({**settings, "layer": name, "index": index, "layers": len(layers)}, ensure_ascii=False)
        write_new(path, lambda file, layer=layer, chunk=chunk: row.write(layer, file, {KEY: chunk}))
        paths.append(path)
    return paths
