"""Where checkpoints and VAEs lie: models/omnialpha (and wherever extra_model_paths.yaml puts it), and models/vae.

Only what a loader's list offers is loaded. ComfyUI holds a name against that list where it was typed, and lets it pass
unseen where it arrives by a link. Links on the disk that lead elsewhere are followed: artists keep their models so.
"""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...omnialpha.checkpoint.weights import MICRO, find_checkpoint
from ...omnialpha.errors import OmniAlphaError
from .note import listable

NAME = "omnialpha"


def register() -> None:
    """Tell ComfyUI about models/omnialpha."""
    folder_paths.add_model_folder_path(NAME, os.path.join(folder_paths.models_dir, NAME))
    _, extensions = folder_paths.folder_names_and_paths[NAME]
    extensions.add(".safetensors")


def checkpoint_names() -> list[str]:
    """Checkpoints to choose from: micro, then every folder with a transformer in it."""
    found = {
        config.parent.parent.relative_to(root).as_posix()
        for root in _roots()
        for pattern in ("*/transformer/config.json", "*/*/transformer/config.json")
        for config in root.glob(pattern)
    }
    return [MICRO, *listable(sorted(found))]


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint of `checkpoint_names`.

    Raises:
        OmniAlphaError: it is none of them, or gone.
    """
    if name == MICRO:
        return find_checkpoint(MICRO)
    if name in checkpoint_names():
        return next(root / name for root in _roots() if (root / name).is_dir())
    raise OmniAlphaError(
        f"There is no checkpoint folder '{name}' under models/{NAME}, or not any more. Expected a name that the node "
        f"offers, no path to elsewhere. Refresh the node and choose one."
    )


def vae_names() -> list[str]:
    """VAE files to choose from: models/vae, then those of models/omnialpha (as "omnialpha/...")."""
    ours = [name for name in _files(NAME) if "vae" in name.lower()]
    stock = [name for name in _files("vae") if name.endswith(".safetensors")]
    return listable([*stock, *(f"{NAME}/{Path(name).as_posix()}" for name in ours)])


def vae_path(name: str) -> Path:
    """The file of a VAE of `vae_names`.

    Raises:
        OmniAlphaError: it is none of them, or gone.
    """
    path = None
    if name in vae_names():
        path = folder_paths.get_full_path("vae", name)
        if path is None and name.startswith(f"{NAME}/"):
            path = folder_paths.get_full_path(NAME, name.removeprefix(f"{NAME}/"))
    if path is None:
        raise OmniAlphaError(
            f"There is no VAE file '{name}' under models/vae or models/{NAME}, or not any more. Expected a name that "
            f"the node offers, no path to elsewhere. Refresh the node and choose one."
        )
    return Path(path)


def _files(kind: str) -> list[str]:
    """The files of a folder of models. ComfyUI's own list stumbles over a folder it remembers that is gone."""
    try:
        return folder_paths.get_filename_list(kind)
    except FileNotFoundError:
        folder_paths.filename_list_cache.pop(kind, None)
        return folder_paths.get_filename_list(kind)


def _roots() -> list[Path]:
    return [Path(path) for path in folder_paths.get_folder_paths(NAME) if os.path.isdir(path)]
