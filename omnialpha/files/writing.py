"""The one way files are written: whole or not at all, forced to the disk, and never over one that somebody made.

A file is filled beside its place, under a name that `sweep` knows, and gets its own name once it is complete.
`write_new` refuses a name that is taken. `write_over` is for files that a run owns and writes again, such as its state.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import OmniAlphaError
from .names import MAX_BYTES, shorten

if TYPE_CHECKING:
    import torch

_ADVICE = "Check that the folder exists, that it may be written to and that the disk has room."
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class DiskError(OmniAlphaError):
    """The disk takes nothing more here: full, gone, or not to be written to."""


@contextlib.contextmanager
def writing(path: Path, advice: str = _ADVICE) -> Iterator[None]:
    """Turns a refusal of the disk into a `DiskError`."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"Could not write {path}: {error.strerror or error}. {advice}") from error


def write_new(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Makes a new file, whole or not at all; one that exists, or comes to be meanwhile, is left alone.

    Args:
        path: the file; its folder must exist.
        write: fills the file, which is open for writing bytes.

    Raises:
        OmniAlphaError: the file exists.
        DiskError: it cannot be written.
    """
    with writing(path), _part(path) as part:
        _fill(part, write)
        if not give_name(part, path):
            raise OmniAlphaError(f"{path} exists and is not overwritten. Choose another name.")


def write_over(path: Path, content: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Makes a file, whole or not at all, in place of the one of that name. For files that are ours to write again.

    Args:
        path: the file; its folder must exist.
        content: bytes, text, or what fills the file, which is open for writing bytes.

    Raises:
        DiskError: it cannot be written; what was there is as it was.
    """
    if not callable(content):
        data = content.encode() if isinstance(content, str) else content
        content = lambda file: file.write(data)  # noqa: E731
    with writing(path), _part(path) as part:
        _fill(part, content)
        os.replace(part, path)


def write_json(path: Path, data: dict | list) -> None:
    """`write_over` with pretty JSON and a final newline; makes the folder. Raises DiskError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_over(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def lines_of(rows: Iterable[Any]) -> bytes:
    """One line of JSON for each row."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None, new: bool = False
) -> None:
    """A safetensors file, whole or not at all; makes the folder.

    Args:
        path: the file.
        tensors: name -> tensor, on any device.
        metadata: text for its header.
        new: never over a file; else in place of the one of that name.

    Raises:
        OmniAlphaError: with `new`, the file exists.
        DiskError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with writing(path), _part(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        try:
            save_file(whole, part, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
        _sync(part)
        if not new:
            os.replace(part, path)
        elif not give_name(part, path):
            raise OmniAlphaError(f"{path} exists and is not overwritten. Choose another name.")


def write_blocks(path: Path, blocks: Iterable[bytes]) -> int:
    """Fills a file that nobody looks at before it is complete, and forces it to the disk. Its size. Raises OSError."""
    with open(path, "wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def give_name(part: Path, path: Path, keep: bool = False) -> bool:
    """Gives a complete file its name, at once and without overwriting. False where the name is taken.

    Args:
        part: the file, in the same file system.
        path: its name.
        keep: `part` has to stay where it is.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.link(part, path)  # fails where the name is taken, unlike a rename
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in FULL:
            raise
    # A file system without hard links: an empty file claims the name.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    if keep:
        copy_over(part, path)
    else:
        os.replace(part, path)
    return True


def copy_over(part: Path, path: Path) -> None:
    """Puts a copy of a complete file in place of `path`, at once. Raises OSError."""
    with _part(part) as copy:
        shutil.copyfile(part, copy)
        _sync(copy)
        os.replace(copy, path)


def try_writing(folder: Path) -> None:
    """Raises OSError where a file of a few kilobytes cannot be written."""
    with _part(folder / "probe") as part:
        part.write_bytes(b"\0" * 4096)


def sweep(folder: Path) -> None:
    """Removes what a killed process left half written in a folder."""
    for part in folder.glob(".*.tmp"):
        part.unlink(missing_ok=True)


def free_path(path: str | Path) -> Path:
    """`path`, or the same name with -2, -3, ... before its ending where that is taken."""
    path = Path(path)
    number, candidate = 1, path
    while os.path.lexists(candidate):
        number += 1
        after = f"-{number}{path.suffix}"
        candidate = path.with_name(shorten(path.stem, MAX_BYTES - len(after.encode())) + after)
    return candidate


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Where a file is filled: beside its place, under a short name of its own. What is left of it is removed."""
    part = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):  # it has moved, or never came to be
            part.unlink()


def _fill(part: Path, write: Callable[[BinaryIO], Any]) -> None:
    with open(part, "xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
