"""Pictures made elsewhere against the truth: two folders whose files have the same names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import OmniAlphaError
from ..files.opening import ENDINGS
from ..files.pictures import as_plane, read_layer
from ..layers.compositing import grey_layer
from .cases import Case
from .results import Results
from .run import Row, size_of, values_of

METHOD = "predicted"


def compare_folders(
    predicted: Path | str, truth: Path | str, trimaps: Path | str | None = None, *, mattes: bool = False
) -> tuple[Results, list[dict[str, str]]]:
    """Measures pictures against the true ones of the same name, whatever its ending.

    Args:
        predicted, truth: folders of RGBA pictures.
        trimaps: folder of trimaps (grey = unknown), to measure the unknown region besides.
        mattes: the pictures are alpha mattes in grey, and colour is not measured.

    Returns:
        Results with the one method "predicted", and a problem for each picture that has no partner.

    Raises:
        OmniAlphaError: a folder is not there, or no two names are alike.
    """
    folders = [_pictures(folder) for folder in (predicted, truth, *([trimaps] if trimaps else []))]
    wanted: dict[str, list[Path | None]] = {
        name: [files.get(name) for files in folders] for files in folders[:2] for name in files
    }
    pairs = {name: [file for file in files if file] for name, files in sorted(wanted.items()) if None not in files}
    if not pairs:
        raise OmniAlphaError(f"No picture has the same name in {predicted} and {truth}: nothing to compare.")
    names = ("predicted", "true", "trimap")
    alone = [
        {"record": name, "reason": f"there is no {names[files.index(None)]} picture of that name"}
        for name, files in sorted(wanted.items())
        if None in files
    ]
    task = ("mattes" if mattes else "pictures") + ("_trimap" if trimaps else "")
    return Results([_compare(name, task, files, mattes) for name, files in pairs.items()]), alone


def _compare(name: str, task: str, files: list[Path], mattes: bool) -> Row:
    row: Row = {"record": name, "task": task}
    try:
        answer, true = (_matte(path) if mattes else read_layer(path) for path in files[:2])
        guides = [grey_layer(as_plane(path)) for path in files[2:]]
        sizes = {tuple(layer.shape[1:]) for layer in (answer, true, *guides)}
        if len(sizes) > 1:
            found = ", ".join(f"{width}x{height}" for height, width in sizes)
            raise OmniAlphaError(f"the pictures differ in size ({found}); they have to be one picture's")
        case = Case(record=name, task=task, instruction="", text="", inputs=guides, targets=[true], seed=0)
        return row | size_of(case) | {"values": {METHOD: values_of(case, [[answer]])}}
    except OmniAlphaError as error:
        return row | {"problem": str(error)}


def _matte(path: Path) -> Tensor:
    """A grey picture as a white layer with that alpha."""
    plane = as_plane(path)
    return torch.cat([torch.ones(3, *plane.shape), plane[None]])


def _pictures(folder: Path | str) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise OmniAlphaError(f"{folder} is no folder. Give a folder of pictures.")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS}
