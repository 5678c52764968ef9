"""The demo's pictures: a few held-out objects and backgrounds, written as PNGs to ship with the library.

python -m omnialpha.data.demo_pictures --packages node_modules --out omnialpha/demo_data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import OmniAlphaError
from ..files.opening import open_picture
from .backgrounds import HELD_OUT, PHOTOS, crop_photo, draw_texture, load_photos
from .objects import IMAGES, find_objects

# Chosen for variety before any model existed; every one of them is in the held-out split.
OBJECTS = ("teddy bear", "cactus", "ice cream", "llama", "potted plant", "light bulb")
SIDE = 192


def write_demo_pictures(node_modules: Path, out: Path, seed: int = 7) -> None:
    """`objects/*.png` (RGBA), `backgrounds/*.png` (RGB) and `objects.json` (names, sources, licences).

    Raises:
        OmniAlphaError: an object is not in the held-out split.
    """
    held_out = {entry.name: entry.path for entry in find_objects(node_modules) if entry.split == "test"}
    (out / "objects").mkdir(parents=True, exist_ok=True)
    (out / "backgrounds").mkdir(parents=True, exist_ok=True)
    names = {}
    for index, name in enumerate(OBJECTS, 1):
        if name not in held_out:
            raise OmniAlphaError(f"'{name}' is not among the held-out objects; choose from: {', '.join(held_out)}.")
        image = open_picture(held_out[name]).convert("RGBA")
        image = image.crop(image.getchannel("A").getbbox())
        image.thumbnail((SIDE, SIDE))
        stem = f"{index:02d}-{name.replace(' ', '-')}"
        image.save(out / "objects" / f"{stem}.png", optimize=True)
        names[stem] = name
    rng = np.random.default_rng(seed)
    photos = load_photos("test")
    for index in range(1, len(OBJECTS) + 1):
        photograph = index % 2 == 1
        photo = photos[index // 2 % len(photos)]
        pixels = crop_photo(photo.image, (SIDE, SIDE), rng) if photograph else draw_texture((SIDE, SIDE), rng)[0]
        kind = "photo" if photograph else "texture"
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(
            out / "backgrounds" / f"{index:02d}-{kind}.png", optimize=True
        )
    photographs = ", ".join(f"{name} ({PHOTOS[name][1]})" for name in HELD_OUT)
    sources = {
        "objects": f"Microsoft Fluent Emoji 3D, npm package {IMAGES}, MIT",
        "backgrounds": f"scikit-image's {photographs}; drawn textures",
    }
    (out / "objects.json").write_text(json.dumps({"names": names, "sources": sources}, indent=2) + "\n", "utf-8")


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="node_modules folder with the emoji packages")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_demo_pictures(args.packages, args.out)


if __name__ == "__main__":
    main()
