"""OmniAlpha: one model that generates, mattes, removes, completes and decomposes RGBA layers (arXiv 2511.20211).

    from omnialpha import OmniAlphaPipeline, read_layer, write_layer

    pipeline = OmniAlphaPipeline.from_pretrained("micro")
    background, foreground = pipeline("decomposition_auto", images=[read_layer("photo.png")])
    write_layer(foreground, "foreground.png")

A layer is a float32 tensor [4, H, W] in [0, 1] with straight alpha; lists of layers go back to front. Importing this
package loads nothing heavy: each name below brings its module in when it is first used.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "OmniAlphaError": "errors",
    "Checkpoint": "checkpoint.folder",
    "OmniAlphaPipeline": "pipeline",
    "Request": "request",
    "TASKS": "tasks",
    "get_task": "tasks",
    "read_layer": "files.pictures",
    "write_layer": "files.pictures",
    "flatten": "layers.compositing",
    "over": "layers.compositing",
    "LayerSequence": "layers.sequence",
    "install_rope": "model.rope",
    "load_vae": "model.vae",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
