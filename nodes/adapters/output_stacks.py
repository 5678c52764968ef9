"""Stacks of layers in ComfyUI's output folder."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from comfy_api.v0_0_2 import io, ui

from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.files.formats import get_format, paths_of, write_stack
from ...omnialpha.files.stack import Stack
from ...omnialpha.layers.compositing import flatten
from .output_pictures import save_layers, workflow_text


def save_stack(
    stack: Stack, prefix: str, format: str, numbered: bool, hidden: io.HiddenHolder | None
) -> tuple[list[str], dict]:
    """Writes `prefix_00001_NAME.png` for each layer, or `prefix_00001_.psd`; without a number where not `numbered`.

    Args:
        prefix: file name, with subfolders if wanted.
        format: key of `omnialpha.files.formats.FORMATS`.
        numbered: count up; else the names are exactly these and must be free.
        hidden: the node's hidden inputs; the graph in them goes into the files.

    Returns:
        Absolute paths, back to front, and what the frontend is told: "images" to show and, for layered files, which it
        cannot show, "files".

    Raises:
        OmniAlphaError: the prefix leads out of the output folder or names no file, a file exists, the disk refuses.
    """
    row = get_format(format)
    folder, name, number, subfolder = _place(prefix, stack)

    def stem(number: int) -> Path:
        # The second underscore is where ComfyUI looks for the number's end.
        return Path(folder, f"{name}_{number:05}{'_' if row.layered else ''}" if numbered else name)

    while numbered and any(os.path.lexists(path) for path in paths_of(stem(number), stack.names, format)):
        number += 1
    paths = write_stack(stack, stem(number), format, workflow_text(hidden))
    saved = [ui.SavedResult(path.name, subfolder, io.FolderType.output) for path in paths]
    shown = {"images": saved}
    if row.layered:
        preview = save_layers([flatten(stack.layers)], "OmniAlpha.saved", io.FolderType.temp, None)
        shown = {"images": preview, "files": saved}
    return [str(path) for path in paths], shown


def _place(prefix: str, stack: Stack) -> tuple[str, str, int, str]:
    """(folder, file name, next number, subfolder) for a prefix."""
    unnamed = os.path.basename(os.path.normpath(prefix)) in ("", ".", "..") or prefix.endswith(("/", "\\"))
    if unnamed or set("<>\0") & set(prefix):  # < and >: what is written is listed in pages
        raise OmniAlphaError(
            f"'{prefix}' names no file. Give a name such as 'OmniAlpha' or 'folder/name', without < and >."
        )
    h, w = stack.size
    try:
        return folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), w, h)[:4]
    except OSError as error:
        raise OmniAlphaError(f"There can be no folder for '{prefix}': {error.strerror or error}.") from error
    except Exception as error:  # ComfyUI's own check raises a bare one
        raise OmniAlphaError(
            f"'{prefix}' lies outside ComfyUI's output folder, which is refused. Give a name within it."
        ) from error
