"""The demo's pictures: held-out objects on held-out backgrounds, so that every layer's truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import OmniAlphaError
from ..files.opening import WITH_ALPHA
from ..files.pictures import read_layer
from ..json_files import read_json
from ..layers.compositing import over, trimap
from ..layers.resizing import resize

DATA = Path(__file__).parent.parent / "demo_data"
SIZE = 128  # side of a scene, in pixels
_OBJECT = 0.72  # side of an object, as a share of the scene's
# Where objects sit, as a share of the free room: (down, right).
_PLACES = ((0.5, 0.5), (0.8, 0.2), (0.7, 0.85))


@dataclass(frozen=True, eq=False)
class Scene:
    """One composed picture and everything it is made of, layers [4, SIZE, SIZE].

    Attributes:
        name: the object's name, in words.
        foreground: the object on its transparent canvas.
        background: opaque.
        composite: the two, flattened.
        trimap: [SIZE, SIZE] with 1 = object, 0.5 = unknown.
        mask: [SIZE, SIZE], hard.
        coarse_mask: [SIZE, SIZE], the box around the object.
    """

    name: str
    foreground: torch.Tensor
    background: torch.Tensor
    composite: torch.Tensor
    trimap: torch.Tensor
    mask: torch.Tensor
    coarse_mask: torch.Tensor


def load_scenes(count: int, data: Path = DATA) -> list[Scene]:
    """The first `count` scenes: object k on background k in order of their file names; each round moves on by one.

    Args:
        data: folder with `objects/*.png` (RGBA), `backgrounds/*.png` and `objects.json` (file name -> words).

    Raises:
        OmniAlphaError: a part of the folder is missing or damaged.
    """
    objects, backgrounds = (_pictures(data / part) for part in ("objects", "backgrounds"))
    names = _names(data / "objects.json")
    scenes = []
    for k in range(count):
        cutout = objects[k % len(objects)]
        turn = k + k // len(objects)  # the second time round, every object meets another background
        scenes.append(
            _compose(
                names.get(cutout.stem, cutout.stem.replace("-", " ")),
                read_layer(cutout),
                read_layer(backgrounds[turn % len(backgrounds)]),
                _PLACES[turn % len(_PLACES)],
            )
        )
    return scenes


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix in WITH_ALPHA)
    if not found:
        raise OmniAlphaError(f"There are no demo pictures in {folder}. Install the project again, with its demo_data.")
    return found


def _names(path: Path) -> dict[str, str]:
    names = read_json(path, advice="Install the project again.").get("names")
    if not isinstance(names, dict):
        raise OmniAlphaError(f'{path} has no "names". Install the project again.')
    return names


def _compose(name: str, cutout: torch.Tensor, backdrop: torch.Tensor, place: tuple[float, float]) -> Scene:
    side = round(SIZE * _OBJECT)
    longest = max(cutout.shape[1:])
    height, width = (max(1, round(side * edge / longest)) for edge in cutout.shape[1:])
    top, left = (round((SIZE - edge) * share) for edge, share in zip((height, width), place))
    foreground = torch.zeros(4, SIZE, SIZE)
    foreground[:, top : top + height, left : left + width] = resize(cutout, (height, width))
    background = resize(backdrop, (SIZE, SIZE))
    background[3] = 1
    alpha = foreground[3]
    mask = (alpha > 0.5).float()
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    box = torch.zeros_like(mask)
    if len(rows):
        box[max(0, int(rows[0]) - 4) : int(rows[-1]) + 5, max(0, int(columns[0]) - 4) : int(columns[-1]) + 5] = 1
    return Scene(
        name=name,
        foreground=foreground,
        background=background,
        composite=over(foreground, background),
        trimap=trimap(alpha, 4),
        mask=mask,
        coarse_mask=box,
    )
