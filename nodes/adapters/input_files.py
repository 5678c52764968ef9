"""Files in ComfyUI's input and output folders, and nowhere else.

Links that lead elsewhere are followed, as ComfyUI itself does: only the owner of the machine can make them.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import folder_paths

from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.files.formats import PICTURES, READERS, natural
from .inputs import chosen
from .note import listable

SOURCES = ("input", "output")
ENDINGS = (*READERS, *PICTURES)


def root(source: str) -> str:
    """The folder of that name, one of `SOURCES`. Raises OmniAlphaError for any other."""
    chosen(source, SOURCES, "source")
    return folder_paths.get_input_directory() if source == "input" else folder_paths.get_output_directory()


def confined(name: str, base: str, rules: ModuleType = os.path) -> Path:
    """`name` below the folder `base`. Nothing is looked up: on Windows, looking at another machine tells it who asks.

    Args:
        rules: `ntpath` for Windows' spellings (drives, other machines, devices), `posixpath` for all others'.

    Raises:
        OmniAlphaError: it leads out of that folder.
    """
    base = rules.abspath(base)
    path = rules.abspath(rules.join(base, name))
    try:
        inside = "\0" not in name and rules.commonpath((base, path)) == base
    except ValueError:  # another drive
        inside = False
    if not inside:
        raise OmniAlphaError(
            f"'{name}' lies outside ComfyUI's {rules.basename(base)} folder, which is refused. Give a path within it."
        )
    return Path(path)


def input_files() -> list[str]:
    """Pictures and layered files to choose from: those directly in the input folder."""
    folder = Path(folder_paths.get_input_directory())
    files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()]
    return listable(path.name for path in sorted(files, key=natural))


def input_file(name: str) -> Path:
    """A file of the input folder; "... [output]" and "... [temp]" name those folders, as in ComfyUI's loaders.

    Raises:
        OmniAlphaError: it leads elsewhere, or is not there.
    """
    plain, base = folder_paths.annotated_filepath(name)
    path = confined(plain, base or folder_paths.get_input_directory())
    if not path.is_file():
        raise OmniAlphaError(f"There is no file '{plain}' in ComfyUI's {path.parent.name} folder. Choose another one.")
    return path


def stamp(path: Path) -> tuple:
    """What changes when a file does."""
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns
