"""Where objects and backgrounds come from: folders, or sources that anyone can install, with their licences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..errors import OmniAlphaError
from .backgrounds import ODD_PHOTOS, PHOTOS, Photo, folder_photos, load_photos
from .compose import STORE, ObjectBank
from .objects import IMAGES, NAMES, find_objects, folder_objects, glyph_objects

# What can stand where a folder is expected -> what it is, and its licence.
SOURCES = {
    "fluent-emoji": (f"Microsoft Fluent Emoji 3D, npm packages {IMAGES} and {NAMES}", "MIT"),
    "glyphs": ("letters and pictograms of the DejaVu fonts, as matplotlib ships them", "Bitstream Vera (free)"),
    "photographs": (f"photographs in scikit-image: {', '.join(PHOTOS)}", "CC0 or public domain"),
    "odd-photographs": (f"photographs in scikit-image: {', '.join(ODD_PHOTOS)}", "CC0 or public domain"),
    "textures": ("drawn by omnialpha/data/backgrounds.py", "this repository's"),
}


@dataclass(frozen=True)
class Materials:
    """Objects and background photographs, loaded when first used."""

    bank: ObjectBank
    photos: list[Photo]


@cache
def load_materials(
    objects: str, backgrounds: str, split: str, packages: str | None = None, size: int = STORE
) -> Materials:
    """Find the objects and backgrounds of a split.

    Args:
        objects: a folder, "fluent-emoji" or "glyphs".
        backgrounds: a folder, "photographs", "odd-photographs" or "textures".
        split: "train", "test" or "all".
        packages: the `node_modules` folder, for "fluent-emoji".
        size: longer side of the pictures to make, in pixels.

    Raises:
        OmniAlphaError: there are none, or a package is missing; the message says how to install it.
    """
    finders = {"fluent-emoji": lambda: find_objects(packages or "node_modules"), "glyphs": glyph_objects}
    entries = finders.get(objects, lambda: folder_objects(objects))()
    chosen = [entry for entry in entries if split in ("all", entry.split)]
    if not chosen:
        raise OmniAlphaError(f"None of the {len(entries)} objects of {objects} is in the split {split!r}; try `all`.")
    side = "test" if split == "test" else "train"
    drawn = {
        "photographs": lambda: load_photos(side),
        "odd-photographs": lambda: load_photos("odd"),
        "textures": list,
    }
    return Materials(ObjectBank(chosen, size), drawn.get(backgrounds, lambda: folder_photos(backgrounds, side, size))())


def sources_of(*names: str) -> list[dict[str, str]]:
    """Name, content and licence of each source, once, as `dataset.json` records them."""
    unknown = ("a folder", "not recorded: the folder's owner knows")
    return [
        {"name": name, "what": SOURCES.get(name, unknown)[0], "licence": SOURCES.get(name, unknown)[1]}
        for name in dict.fromkeys(names)
    ]
