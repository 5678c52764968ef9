"""Packages that only some file formats need."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from ..errors import OmniAlphaError

# module -> (what pip calls it, what it is for)
PACKAGES = {"psd_tools": ("psd-tools", "PSD files"), "png": ("pypng", "16-bit PNG files")}


def need(module: str) -> ModuleType:
    """The module, imported.

    Raises:
        OmniAlphaError: it is not installed; the message has the command that installs it.
    """
    package, purpose = PACKAGES[module.split(".")[0]]
    try:
        return import_module(module)
    except ImportError as error:
        raise OmniAlphaError(
            f"{purpose} need the Python package {package} ({error}). Install it and start again: "
            f'"{sys.executable}" -m pip install {package}'
        ) from error
