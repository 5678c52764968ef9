"""ComfyUI-OmniAlpha: generate, matte, remove, complete and decompose RGBA layers.

ComfyUI imports this file. It looks at the ComfyUI around it first, so that one that is too old logs a sentence its
owner can act on instead of a traceback, and all other nodes load as always.
"""

import logging

MINIMUM = (0, 8, 0)
TESTED = ("0.8.0", "0.33.0")  # the releases that every test runs on


def _why_not() -> str | None:
    """What this ComfyUI lacks for the nodes, in words for its log; None where they can load."""
    lacks = _lacks()
    if lacks is None:
        return None
    return (
        f"ComfyUI-OmniAlpha needs ComfyUI {'.'.join(map(str, MINIMUM))} or newer (tested on {' and '.join(TESTED)}); "
        f"this one {lacks}. Update ComfyUI and restart it. Until then the OmniAlpha nodes are missing, all others work."
    )


def _lacks() -> str | None:
    try:
        from comfyui_version import __version__ as version

        if tuple(int(part) for part in version.split(".")[:3]) < MINIMUM:
            return f"is {version}"
    except (ImportError, ValueError):
        pass  # a fork without that file, or with words in it: the node API decides
    try:
        from comfy_api.v0_0_2 import io
    except ImportError:
        return "has no node API comfy_api.v0_0_2"
    return None if hasattr(io, "Autogrow") else "has a node API without growing inputs (io.Autogrow)"


_reason = _why_not()
if _reason:
    logging.error(_reason)
    NODE_CLASS_MAPPINGS: dict = {}
    __all__ = ["NODE_CLASS_MAPPINGS"]
else:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
