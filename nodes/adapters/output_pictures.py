"""Layers as PNG files where ComfyUI looks for them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from ...omnialpha.files.pictures import write_layer


def save_layers(
    layers: Sequence[Tensor], prefix: str, folder: io.FolderType, hidden: io.HiddenHolder | None
) -> list[ui.SavedResult]:
    """Writes `prefix_00001_layer0.png`, `..._layer1.png`, back to front; one number per call.

    Args:
        layers: [4, H, W] in [0, 1] each.
        prefix: file name, with subfolders if wanted.
        folder: output, or temp for previews.
        hidden: the node's hidden inputs; the graph in them goes into every file.

    Returns:
        What the frontend needs to show them.

    Raises:
        OmniAlphaError: NaN in a layer, or the disk refuses.
    """
    temporary = folder == io.FolderType.temp
    root = folder_paths.get_temp_directory() if temporary else folder_paths.get_output_directory()
    if temporary:  # browsers cache by name
        prefix = f"{prefix}.{secrets.token_hex(4)}"
    h, w = layers[0].shape[1:]
    path, name, number, subfolder, _ = folder_paths.get_save_image_path(prefix, root, w, h)
    text = {} if temporary else workflow_text(hidden)
    saved = []
    for index, layer in enumerate(layers):
        file = f"{name}_{number:05}_layer{index}.png"
        write_layer(layer.cpu(), Path(path) / file, text)
        saved.append(ui.SavedResult(file, subfolder, folder))
    return saved


def workflow_text(hidden: io.HiddenHolder | None) -> dict[str, str]:
    """The graph as ComfyUI's own save nodes write it, unless the artist has metadata off."""
    if hidden is None or args.disable_metadata:
        return {}
    chunks = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {key: json.dumps(value) for key, value in chunks.items() if value is not None}
